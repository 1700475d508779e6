//! A loaded model: its parts, and the walk of the crew through the stages of a step.

use super::arena::{AlignedBytes, Shared};
use super::cache::{Cache, Layout};
use super::cores::Cores;
use super::counts::{self, Choice};
use super::experts::{Mixture, MixtureMemory};
use super::feeds::{self, Fed, FeedList};
use super::places::{self, Memory, Places};
use super::plan::{Plan, StagePlan};
use super::pool::{Crew, Pool};
use super::prefetch::Prefetch;
use super::products::chunk_bytes;
use super::remembered::{Place, Threads};
use super::schedule::{Part, Schedule, Stage, Work};
use super::step::Step;
use super::vectors::Vectors;
use crate::backend::{Batch, BlockId, DeviceInfo, LoadError, LoadOptions, Loaded, Pace, Progress, SlotId, StepError, StepOut};
use crate::gguf::{Gguf, TensorView};
use crate::program::{Matrix, Op, Program, Rope, Rows as Domain, Value, ValueId, WeightId};
use crate::units::Bytes;
use hearth_kernels::cpu::kv::Span;
use hearth_kernels::cpu::{Kernels, Weights};
use std::ops::Range;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Instant;

/// Rows of a step up to which the small work of a stage is done by one thread while the others wait: a meeting costs more.
const FEW_ROWS: usize = 4;
/// Rows from which on a step tells how fast prompts go.
const PROMPT_ROWS: usize = 128;
/// Meetings of a stage at most: its works, its rows' end, and what needs all rows' end.
const PHASES: usize = 3;

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

/// A rotation, ready to be turned by a position.
pub struct Turn {
    pub rope: Rope,
    pub frequencies: Vec<f32>,
    pub magnitude: f32,
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    /// What kernels ask for.
    pub kernel: AlignedBytes,
    /// A quantized row.
    pub row: AlignedBytes,
    /// What products make that is not their result yet.
    pub gates: Vec<f32>,
    pub ups: Vec<f32>,
    pub queries: Vec<f32>,
    pub spans: Vec<Span>,
    pub max: Vec<f32>,
    pub sum: Vec<f32>,
    pub acc: Vec<f32>,
}

/// What every worker sees of a step: the model, its rows, and the memory that is written in parts.
pub struct View<'a> {
    pub run: &'a Model<'a>,
    pub step: &'a Step,
    pub plan: Plan,
    pub fed: &'a Fed<'a>,
    /// By [`Memory`].
    pub memory: [Shared<'a, f32>; Memory::ALL.len()],
    /// Lines of each.
    pub lines: [usize; Memory::ALL.len()],
    pub cache: Shared<'a, u8>,
    pub slots: Vec<Shared<'a, f32>>,
    pub partials: Shared<'a, f32>,
    pub mixture: Mixture<'a>,
}

/// The parts of a loaded model that no step changes.
pub struct Model<'a> {
    pub program: &'a Program,
    /// By [`WeightId`], whole tensors.
    pub tensors: Vec<TensorView<'a>>,
    pub kernels: &'a Kernels,
    pub schedule: &'a Schedule,
    pub places: &'a Places,
    pub feeds: &'a FeedList,
    pub vectors: &'a Vectors,
    pub turns: &'a [Turn],
    pub layout: &'a Layout,
    pub exact: bool,
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
        let mut turns: Vec<Turn> = Vec::new();
        for step in &program.steps {
            if let Op::Rope { rope, .. } = step.op
                && !turns.iter().any(|t| t.rope == rope)
            {
                let tensor = |id: WeightId| file.tensor(&program.weight(id).name).expect("every weight was found above");
                let factors = rope.factors.for_context(options.context).map(|id| vectors.get(id, &tensor(id)));
                turns.push(Turn { rope, frequencies: rope.frequencies(factors), magnitude: rope.magnitude() });
            }
        }
        let schedule = Schedule::new(&program);
        let format = |matrix: Matrix| file.tensor(&program.weight(matrix.weight).name).expect("every weight was found above").format;
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
        view.plan = (0..model.schedule.stages.len()).map(|number| view.stage_plan(number, workers)).collect();
        let need = view.partial_floats();
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
            view.walk(crew, workers, scratch);
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
        tracing::info!("{decode} threads for single tokens and {prefill} for prompts measured best");
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

/// The piece that is claimed as number `turn`: workers that take turns walk through parts of their own, each from front to back, so that
/// what they ask of the memory ahead is what they will read. Each piece once, whoever claims what.
fn apart(turn: usize, pieces: usize, workers: usize) -> usize {
    let (part, step) = (turn % workers, turn / workers);
    part * (pieces / workers) + part.min(pieces % workers) + step
}

impl<'a> View<'a> {
    /// What each worker does in a step.
    fn walk(&self, crew: &Crew<'_>, workers: usize, scratch: &mut Scratch) {
        let rows = self.step.all.len();
        for (number, (stage, plan)) in self.run.schedule.stages.iter().zip(&self.plan).enumerate() {
            let phase = number * PHASES;
            let compute = |turn: usize| {
                let (work, piece) = plan.piece(apart(turn, plan.pieces, workers));
                self.compute(work, piece, scratch);
            };
            if rows <= FEW_ROWS {
                crew.phase_then(phase, plan.pieces, compute, || {
                    self.close(&stage.works);
                    self.end(stage, plan, 0..rows);
                    self.step.tiles.iter().for_each(|tile| self.stores(stage, tile));
                    plan.after.iter().for_each(|c| self.convert(c.feed, c.place, c.tokens.clone()));
                });
                continue;
            }
            crew.phase_then(phase, plan.pieces, compute, || self.close(&stage.works));
            if !stage.tail.is_empty() || !plan.converts.is_empty() {
                let each = plan.tail_rows;
                crew.phase(phase + 1, rows.div_ceil(each), |chunk| self.end(stage, plan, chunk * each..((chunk + 1) * each).min(rows)));
            }
            let tiles = if stage.stores.is_empty() { &[][..] } else { &self.step.tiles[..] };
            if tiles.len() + plan.after.len() > 0 {
                crew.phase(phase + 2, tiles.len() + plan.after.len(), |chunk| match tiles.get(chunk) {
                    Some(tile) => self.stores(stage, tile),
                    None => {
                        let c = &plan.after[chunk - tiles.len()];
                        self.convert(c.feed, c.place, c.tokens.clone());
                    }
                });
            }
        }
    }

    /// What is left of works once all their pieces are done.
    fn close(&self, works: &[Work]) {
        for &work in works {
            match work {
                Work::Step(index) if matches!(self.run.program.steps[index].op, Op::Attention { .. }) => self.close_attention(index),
                Work::Experts { moe, part: Part::Route } => self.group_rows(moe),
                _ => {}
            }
        }
    }

    /// The end of a stage for some rows: what goes row by row, then the forms that products want.
    fn end(&self, stage: &Stage, plan: &StagePlan, rows: Range<usize>) {
        for &step in &stage.tail {
            self.rowwise(step, &rows);
        }
        for &(feed, place) in &plan.converts {
            self.convert(feed, place, rows.clone());
        }
    }

    fn stores(&self, stage: &Stage, tile: &Range<usize>) {
        for &step in &stage.stores {
            self.store(step, tile.clone());
        }
    }

    fn stage_plan(&self, number: usize, workers: usize) -> StagePlan {
        let mut plan = StagePlan::default();
        let works = &self.run.schedule.stages[number].works;
        // Works of a stage share one queue of pieces.
        let sizes = works.iter().filter_map(|work| match *work {
            Work::GatedLinear { gate: linear, .. } | Work::AddedLinear { linear, .. } => Some(self.product_size(linear)),
            Work::Step(index) => matches!(self.run.program.steps[index].op, Op::Linear { .. }).then(|| self.product_size(index)),
            Work::Experts { .. } => None,
        });
        let (bytes, tokens) = sizes.fold((0, 0), |(all, most), (bytes, tokens)| (all + bytes, most.max(tokens)));
        let chunk = chunk_bytes(bytes, workers, tokens);
        for &work in works {
            let (each, all) = match work {
                Work::GatedLinear { gate, gated, .. } => self.product_cut(gate, chunk, workers, self.gated_columns(gated)),
                Work::AddedLinear { linear, .. } => self.product_cut(linear, chunk, workers, 1),
                Work::Step(index) => match self.run.program.steps[index].op {
                    Op::Linear { .. } => self.product_cut(index, chunk, workers, 1),
                    Op::Attention { .. } => (1, self.attention_pieces(index)),
                    Op::ShortConv { .. } | Op::DeltaRule { .. } => (1, self.recurrent_pieces(index)),
                    ref other => unreachable!("{} is no work", other.name()),
                },
                Work::Experts { moe, part } => self.experts_cut(moe, part, workers),
            };
            plan.share(work, each, all);
        }
        plan.convert(number, self.run, self.fed, self.step);
        plan
    }

    fn compute(&self, work: Work, piece: Range<usize>, scratch: &mut Scratch) {
        match work {
            Work::GatedLinear { gate, up, gated, activation } => self.gated_product(gate, up, gated, activation, piece, scratch),
            Work::AddedLinear { linear, added, to } => self.added_product(linear, added, to, piece, scratch),
            Work::Step(index) => match self.run.program.steps[index].op {
                Op::Linear { .. } => self.product(index, piece, scratch),
                Op::Attention { .. } => self.attend(index, piece.start, scratch),
                Op::ShortConv { .. } => self.short_conv(index, piece.start),
                Op::DeltaRule { .. } => self.delta_rule(index, piece.start),
                ref other => unreachable!("{} is no work", other.name()),
            },
            Work::Experts { moe, part: Part::Route } => self.route(moe, piece),
            Work::Experts { moe, part: Part::Gather } => self.gather(moe, piece.start, scratch),
            Work::Experts { moe, part: Part::Inner } => self.inner(moe, piece, scratch),
            Work::Experts { moe, part: Part::Outer } => self.outer(moe, piece, scratch),
        }
    }

    /// Rows of a value, to read.
    pub fn rows(&self, x: Value, rows: Range<usize>) -> &'a [f32] {
        let floats = x.floats();
        // SAFETY: the schedule puts every reader of a value in a later stage, or later in the same rows' tail, than its writer,
        // and gives no other value the same place between the two. Products that always read a value converted are no readers of it.
        unsafe { self.value(x.id).part(rows.start * floats..rows.end * floats) }
    }

    /// The memory of a value, `[lines, floats]`.
    pub fn value(&self, id: ValueId) -> Shared<'a, f32> {
        let (place, floats) = (self.run.places.place(id), self.run.program.value(id).floats);
        let lines = self.lines[place.memory as usize];
        self.memory[place.memory as usize].within(lines * place.offset..lines * (place.offset + floats))
    }

    /// The result of step `index`: its memory, and floats a row.
    pub fn result(&self, index: usize) -> (Shared<'a, f32>, usize) {
        let id = self.run.program.steps[index].out.expect("it has a result");
        (self.value(id), self.run.program.value(id).floats)
    }

    /// Whether the result of step `index` takes over the place of `operand`.
    pub fn is_over(&self, index: usize, operand: Value) -> bool {
        self.run.program.steps[index].out.is_some_and(|out| self.run.places.place(out) == self.run.places.place(operand.id))
    }

    /// Lines that step `index` runs over.
    pub fn domain(&self, index: usize) -> Domain {
        self.run.program.steps[index].rows
    }

    pub fn vector(&self, id: WeightId) -> &'a [f32] {
        self.run.vectors.get(id, &self.run.tensors[id.0 as usize])
    }

    pub fn weights(&self, matrix: Matrix) -> Weights<'a> {
        let view = &self.run.tensors[matrix.weight.0 as usize];
        let row_bytes = view.data.len() / view.rows();
        Weights { format: view.format, bytes: &view.data[matrix.first_row * row_bytes..][..matrix.rows * row_bytes], cols: matrix.columns }
    }
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn every_piece_is_claimed_once_and_neighbours_by_one_worker() {
        for workers in 1..6 {
            for pieces in 0..40 {
                let mut claimed: Vec<usize> = (0..pieces).map(|turn| apart(turn, pieces, workers)).collect();
                assert!((workers..pieces).all(|turn| claimed[turn] == claimed[turn - workers] + 1), "{claimed:?}");
                claimed.sort();
                assert!(claimed.iter().copied().eq(0..pieces), "{claimed:?}");
            }
        }
    }
}
