//! A loaded model: its parts, and what a step needs before the crew walks through it.

use super::arena::{AlignedBytes, Shared};
use super::cache::Cache;
use super::cores::Cores;
use super::counts::{self, Choice};
use super::experts::{Mixture, MixtureMemory};
use super::feeds::{self, FeedList};
use super::places::{self, Memory, Places};
use super::plan::{Plan, StagePlan};
use super::pool::Pool;
use super::prefetch::Prefetch;
use super::remembered::{Place, Threads};
use super::schedule::Schedule;
use super::step::{Step, Turn};
use super::vectors::Vectors;
use super::walk::{Model, PHASES, Scratch, View};
use crate::backend::{Batch, BlockId, DeviceInfo, LoadError, LoadOptions, Loaded, Pace, Progress, SlotId, StepError, StepOut};
use crate::gguf::Gguf;
use crate::program::{Matrix, Program, ValueId, WeightId};
use crate::units::Bytes;
use hearth_kernels::cpu::Kernels;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Instant;

/// Rows from which on a step tells how fast prompts go.
const PROMPT_ROWS: usize = 128;

pub struct Running {
    info: DeviceInfo,
    program: Arc<Program>,
    file: Arc<Gguf>,
    options: LoadOptions,
    kernels: Kernels,
    schedule: Schedule,
    feeds: FeedList,
    /// Where things lie in steps of few rows, and in those of so many that gated products convert what they make: `unkept`.
    few: Places,
    many: Places,
    unkept: Vec<ValueId>,
    pool: Pool,
    vectors: Vectors,
    /// Each distinct rotation of the program.
    turns: Vec<Turn>,
    cache: Cache,
    /// For each state its slots, `[slots, floats]`; empty for key/value caches.
    slots: Vec<Vec<f32>>,
    /// What values and feeds lie in, but for the logits.
    rows: AlignedBytes,
    wanted: AlignedBytes,
    /// What pieces of an attention leave for its stage's end.
    partials: Vec<f32>,
    mixture: MixtureMemory,
    /// One a worker.
    scratch: Vec<Scratch>,
    cores: Cores,
    /// The thread that was last seen to run steps, and was then kept to its cores: it is the crew's first worker.
    owner: Option<ThreadId>,
    decode: Choice,
    prefill: Choice,
    /// Where what is chosen will be remembered.
    place: Option<Place>,
    pace: Pace,
    /// Brings the file into memory while the first steps run; ends with this model.
    prefetch: Prefetch,
}

impl Running {
    pub fn load(
        program: Arc<Program>,
        file: Arc<Gguf>,
        options: &LoadOptions,
        kernels: Kernels,
        cores: &Cores,
        info: DeviceInfo,
        progress: &dyn Progress,
    ) -> Result<Running, LoadError> {
        // Reading begins before anything else, in the file's order.
        let prefetch = Prefetch::start(file.clone(), progress)?;
        for weight in &program.weights {
            let refuse = |error: crate::gguf::GgufError| LoadError::Tensor { tensor: weight.name.clone(), reason: error.fault.to_string() };
            file.tensor(&weight.name).map_err(refuse)?;
        }
        let vectors = Vectors::new(&program);
        let tensor = |id: WeightId| file.tensor(&program.weight(id).name).expect("every weight was found above");
        let turns = Turn::all(&program, options.context, |id| vectors.get(id, &tensor(id)));
        let schedule = Schedule::new(&program);
        let format = |matrix: Matrix| tensor(matrix.weight).format;
        let feeds = FeedList::new(&program, &schedule, &format, options.exact);
        let as_numbers = |matrix: Matrix| feeds::may_be_numbers(&kernels, format(matrix), matrix.columns, options.exact);
        let unkept = places::only_converted(&program, &schedule, &as_numbers);
        let [few, many] = [&[][..], &unkept].map(|unkept| Places::new(&program, &schedule, &feeds.lives(&kernels), &as_numbers, unkept));
        let (fast, all) = (cores.workers(), cores.workers_of_all());
        let kept = cores.clone();
        let pool = Pool::new(options.threads.unwrap_or(all), move |index| kept.keep(index));
        let place = options.remember.as_deref().filter(|_| options.threads.is_none()).map(|folder| {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy();
            Place::new(folder, format!("{}, {}", cores.board(), info.detail), format!("{name}, {} bytes", file.bytes()))
        });
        let known = place.as_ref().and_then(Place::read);
        let (decode, prefill) = match (options.threads, known) {
            (Some(_), _) => (Choice::fixed(pool.capacity()), Choice::fixed(pool.capacity())),
            (None, Some(Threads { decode, prefill })) => (Choice::fixed(decode.clamp(1, fast)), Choice::fixed(prefill.clamp(1, all))),
            (None, None) if all > fast => (Choice::among(&counts::candidates(fast)), Choice::among(&[all, fast])),
            (None, None) => (Choice::among(&counts::candidates(fast)), Choice::fixed(fast)),
        };
        let mut scratch = Vec::new();
        scratch.resize_with(pool.capacity(), Scratch::default);
        Ok(Running {
            info: DeviceInfo { threads: pool.capacity(), decode_threads: decode.workers(), prefill_threads: prefill.workers(), ..info },
            feeds,
            few,
            many,
            unkept,
            cache: Cache::new(&program, options.kv, options.blocks)?,
            slots: program.states.iter().map(|s| vec![0.0; s.slot_floats() * options.slots]).collect(),
            rows: AlignedBytes::default(),
            wanted: AlignedBytes::default(),
            partials: Vec::new(),
            mixture: MixtureMemory::default(),
            options: options.clone(),
            program,
            file,
            kernels,
            schedule,
            pool,
            vectors,
            turns,
            scratch,
            cores: cores.clone(),
            owner: None,
            decode,
            prefill,
            place,
            pace: Pace::default(),
            prefetch,
        })
    }
}

impl Loaded for Running {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn step(&mut self, batch: &Batch<'_>, out: &mut StepOut) -> Result<(), StepError> {
        let start = Instant::now();
        let _busy = self.prefetch.step();
        let step = Step::new(batch, self.program.vocabulary, self.options.context, self.program.needs_slots(), &self.turns);
        for run in &step.runs {
            if step.all[run.rows.start].position == 0
                && let Some(slot) = step.slots[run.sequence]
            {
                self.clear_slot(slot);
            }
        }
        let forms = self.feeds.forms(&self.kernels, step.all.len(), step.wanted.len());
        let places = if self.feeds.are_panels(&forms, &self.unkept) { &self.many } else { &self.few };
        let lines = Memory::ALL.map(|memory| self.feeds.lines(&forms, memory, step.lines(memory.rows()).len()));
        let need = |memory: Memory| places.size(memory) * lines[memory as usize];
        self.rows.reserve(need(Memory::Rows) * size_of::<f32>());
        self.wanted.reserve(need(Memory::Wanted) * size_of::<f32>());
        // The caller's own: a large vocabulary has a million bytes of them.
        out.logits.resize(need(Memory::Logits), 0.0);
        let memory = [Shared::new(self.rows.as_floats_mut()), Shared::new(self.wanted.as_floats_mut()), Shared::new(&mut out.logits)];
        let fed = self.feeds.lay(&forms, places, &memory, &lines, self.program.values.len());
        let (cache, layout) = self.cache.split();
        let find = |w: &crate::program::Weight| self.file.tensor(&w.name).expect("every weight was found at load");
        let model = Model {
            program: &self.program,
            tensors: self.program.weights.iter().map(find).collect(),
            kernels: &self.kernels,
            schedule: &self.schedule,
            places,
            feeds: &self.feeds,
            vectors: &self.vectors,
            turns: &self.turns,
            layout,
            exact: self.options.exact,
        };
        // Enough of it to say what the step needs; the rest of it is made of that.
        let mut view = View {
            run: &model,
            step: &step,
            plan: Plan::new(),
            fed: &fed,
            memory,
            lines,
            cache: Shared::new(cache),
            slots: self.slots.iter_mut().map(|s| Shared::new(s)).collect(),
            partials: Shared::new(&mut []),
            mixture: Mixture::default(),
        };
        // A step that gives each of its sequences one token is bound by memory, any other by arithmetic.
        let single = step.runs.len() == step.all.len();
        let (asked, choice) =
            if single { (self.pace.decode_threads, &mut self.decode) } else { (self.pace.prefill_threads, &mut self.prefill) };
        self.pool.set_active(asked.unwrap_or(choice.workers()));
        let workers = self.pool.active();
        view.plan = view.plan(workers);
        let need = view.plan.iter().map(StagePlan::partial_floats).max().unwrap_or(0);
        if self.partials.len() < need {
            self.partials.resize(need, 0.0);
        }
        view.partials = Shared::new(&mut self.partials);
        view.mixture = self.mixture.share(view.mixture_rooms());
        let need = view.product_scratch();
        for scratch in &mut self.scratch {
            scratch.kernel.reserve(need);
        }
        let scratch = Shared::new(&mut self.scratch);
        let view = &view;
        let this_thread = std::thread::current().id();
        if self.owner.replace(this_thread) != Some(this_thread) {
            self.cores.keep(0);
        }
        let losses = self.pool.losses();
        self.pool.run(model.schedule.stages.len() * PHASES, &|crew| {
            // SAFETY: a worker's index is its own.
            let scratch = unsafe { &mut scratch.part_mut(crew.worker()..crew.worker() + 1)[0] };
            view.walk(crew, scratch);
        });
        out.logits.truncate(step.wanted.len() * self.program.vocabulary);
        (out.time, out.threads) = (start.elapsed(), self.pool.active());
        if step.all.len() == 1 || step.all.len() >= PROMPT_ROWS {
            let disturbed = self.pool.losses() != losses;
            if choice.took(out.threads, step.all.len(), out.time, disturbed) {
                self.remember();
            }
        }
        Ok(self.file.check()?)
    }

    fn copy_blocks(&mut self, moves: &[(BlockId, BlockId)]) -> Result<(), StepError> {
        for &(from, to) in moves {
            self.cache.copy_block(from, to);
        }
        Ok(())
    }

    fn copy_slots(&mut self, moves: &[(SlotId, SlotId)]) -> Result<(), StepError> {
        for &(from, to) in moves {
            for (state, slots) in self.program.states.iter().zip(&mut self.slots) {
                let size = state.slot_floats();
                slots.copy_within(from.0 as usize * size..(from.0 as usize + 1) * size, to.0 as usize * size);
            }
        }
        Ok(())
    }

    fn limit(&mut self, pace: Pace) {
        self.pace = pace;
    }

    fn settled(&self) -> bool {
        self.decode.made().is_some() && self.prefill.made().is_some()
    }

    fn memory(&self) -> Bytes {
        let floats = self.slots.iter().map(Vec::capacity).sum::<usize>() + self.partials.capacity();
        Bytes((floats * 4 + self.rows.len() + self.wanted.len() + self.mixture.len() + self.cache.len()) as u64)
    }
}

impl Running {
    /// After a choice was made by measuring.
    fn remember(&mut self) {
        (self.info.decode_threads, self.info.prefill_threads) = (self.decode.workers(), self.prefill.workers());
        let (Some(place), Some(decode), Some(prefill)) = (&self.place, self.decode.made(), self.prefill.made()) else { return };
        tracing::info!("threads measured best: {decode} for single tokens, {prefill} for prompts");
        if let Err(error) = place.write(Threads { decode, prefill }) {
            tracing::debug!(%error, "the numbers of threads can't be kept; they are measured again next time");
        }
    }

    fn clear_slot(&mut self, slot: SlotId) {
        for (state, slots) in self.program.states.iter().zip(&mut self.slots) {
            let size = state.slot_floats();
            slots[slot.0 as usize * size..][..size].fill(0.0);
        }
    }
}
