//! A loaded model: its parts, and the walk of the crew through the stages of a step.

use super::arena::Shared;
use super::cache::{Cache, Layout};
use super::cores::Cores;
use super::pool::{Crew, Pool};
use super::products::Weights;
use super::schedule::{Schedule, Work};
use super::step::Step;
use crate::backend::{Batch, BlockId, DeviceInfo, LoadError, LoadOptions, Loaded, Pace, Progress, SlotId, StepError, StepOut};
use crate::gguf::Gguf;
use crate::program::{Matrix, Op, Program, Role, Rope, Rows as Domain, StateId, Value, WeightId};
use crate::units::Bytes;
use hearth_kernels::quant::decode;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of the file made resident at a time while loading: large enough for a disk's full speed, small enough to tell progress.
const PREFETCH: u64 = 16 << 20;
/// Rows of a step up to which the small work of a stage is done by one thread while the others wait: a meeting costs more.
const FEW_ROWS: usize = 4;
/// Rows of one chunk of small work: what a core's first caches hold of them.
const TAIL_ROWS: usize = 8;

pub struct Running {
    info: DeviceInfo,
    pub program: Arc<Program>,
    pub file: Arc<Gguf>,
    pub options: LoadOptions,
    pub schedule: Schedule,
    pool: Pool,
    /// The vectors among the weights, as f32; empty for matrices.
    pub vectors: Vec<Vec<f32>>,
    /// Each distinct rotation of the program: frequencies and magnitude.
    pub turns: Vec<(Rope, Vec<f32>, f32)>,
    cache: Cache,
    /// For each state its slots, `[slots, floats]`; empty for key/value caches.
    slots: Vec<Vec<f32>>,
    /// By [`Schedule::buffers`].
    buffers: Vec<Vec<f32>>,
}

/// What every worker sees of a step: the model, its rows, and the memory that is written in parts.
pub struct View<'a> {
    pub run: &'a Model<'a>,
    pub step: &'a Step<'a>,
    pub buffers: Vec<Shared<'a, f32>>,
    pub cache: Shared<'a, u8>,
    pub slots: Vec<Shared<'a, f32>>,
}

/// The parts of a loaded model that no step changes.
pub struct Model<'a> {
    pub program: &'a Program,
    pub file: &'a Gguf,
    pub schedule: &'a Schedule,
    pub vectors: &'a [Vec<f32>],
    pub turns: &'a [(Rope, Vec<f32>, f32)],
    pub layout: &'a Layout,
}

impl Running {
    pub fn load(
        program: Arc<Program>,
        file: Arc<Gguf>,
        options: &LoadOptions,
        cores: &Cores,
        progress: &dyn Progress,
    ) -> Result<Running, LoadError> {
        let mut vectors = Vec::with_capacity(program.weights.len());
        for weight in &program.weights {
            let refuse = |error: crate::gguf::GgufError| LoadError::Tensor { tensor: weight.name.clone(), reason: error.fault.to_string() };
            let view = file.tensor(&weight.name).map_err(refuse)?;
            let mut numbers = Vec::new();
            if weight.role == Role::Vector {
                numbers.resize(weight.shape.iter().product(), 0.0);
                decode(view.format, view.data, &mut numbers);
            }
            vectors.push(numbers);
        }
        make_resident(&file, progress)?;
        let mut turns: Vec<(Rope, Vec<f32>, f32)> = Vec::new();
        for step in &program.steps {
            if let Op::Rope { rope, .. } = step.op
                && !turns.iter().any(|(known, ..)| *known == rope)
            {
                let factors = rope.factors.for_context(options.context).map(|id| &vectors[id.0 as usize][..]);
                turns.push((rope, rope.frequencies(factors), rope.magnitude()));
            }
        }
        let schedule = Schedule::new(&program);
        let threads = options.threads.unwrap_or(cores.workers());
        let kept = cores.clone();
        let pool = Pool::new(threads, move |_| kept.keep_to_fast());
        let slots = program.states.iter().map(|s| vec![0.0; s.slot_floats() * options.slots]).collect();
        Ok(Running {
            info: DeviceInfo { backend: "cpu", detail: String::new(), threads: pool.capacity() },
            cache: Cache::new(&program, options.kv, options.blocks)?,
            buffers: vec![Vec::new(); schedule.buffers.len()],
            options: options.clone(),
            program,
            file,
            schedule,
            pool,
            vectors,
            turns,
            slots,
        })
    }
}

/// Reads the file ahead in its own order, which is what cards and disks do best.
fn make_resident(file: &Gguf, progress: &dyn Progress) -> Result<(), LoadError> {
    let total = file.bytes();
    let mut at = 0;
    loop {
        if !progress.loaded(at, total) {
            return Err(LoadError::Cancelled);
        }
        if at >= total {
            return Ok(());
        }
        let end = (at + PREFETCH).min(total);
        file.prefetch(at..end).map_err(|e| LoadError::File(e.to_string()))?;
        at = end;
    }
}

impl Loaded for Running {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn step(&mut self, batch: &Batch<'_>, out: &mut StepOut) -> Result<(), StepError> {
        let start = Instant::now();
        let step = Step::new(batch, self.program.vocabulary, self.options.context, self.program.needs_slots());
        for run in &step.runs {
            if step.all[run.rows.start].position == 0
                && let Some(slot) = step.slots[run.sequence]
            {
                self.clear_slot(slot);
            }
        }
        for (buffer, info) in self.buffers.iter_mut().zip(&self.schedule.buffers) {
            let need = info.floats * step.lines(info.rows).len();
            if buffer.len() < need {
                buffer.resize(need, 0.0);
            }
        }
        {
            let (memory, layout) = self.cache.split();
            let model = Model {
                program: &self.program,
                file: &self.file,
                schedule: &self.schedule,
                vectors: &self.vectors,
                turns: &self.turns,
                layout,
            };
            let view = View {
                run: &model,
                step: &step,
                buffers: self.buffers.iter_mut().map(|b| Shared::new(b)).collect(),
                cache: Shared::new(memory),
                slots: self.slots.iter_mut().map(|s| Shared::new(s)).collect(),
            };
            self.pool.run(model.schedule.stages.len() * 2, &|crew| view.walk(crew));
        }
        let logits = &self.buffers[self.schedule.buffer(self.program.logits.id)];
        out.logits.clear();
        out.logits.extend_from_slice(&logits[..step.wanted.len() * self.program.vocabulary]);
        out.time = start.elapsed();
        Ok(())
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
        // One count for both phases as long as steps mix them; the larger one, since a prompt suffers most from too few.
        let wanted = pace.prefill_threads.max(pace.decode_threads);
        self.pool.set_active(wanted.unwrap_or(self.pool.capacity()));
    }

    fn memory(&self) -> Bytes {
        let floats: usize = self.buffers.iter().chain(&self.slots).map(Vec::capacity).sum();
        Bytes((floats * 4 + self.cache.len()) as u64)
    }
}

impl Running {
    fn clear_slot(&mut self, slot: SlotId) {
        for (state, slots) in self.program.states.iter().zip(&mut self.slots) {
            let size = state.slot_floats();
            slots[slot.0 as usize * size..][..size].fill(0.0);
        }
    }
}

impl<'a> View<'a> {
    /// What each worker does in a step.
    fn walk(&self, crew: &Crew<'_>) {
        let rows = self.step.all.len();
        for (number, stage) in self.run.schedule.stages.iter().enumerate() {
            let pieces: Vec<(Work, Range<usize>)> =
                stage.works.iter().flat_map(|&work| self.pieces(work).into_iter().map(move |piece| (work, piece))).collect();
            let compute = |chunk: usize| {
                let (work, ref piece) = pieces[chunk];
                self.compute(work, piece.clone());
            };
            let tail = |rows: Range<usize>| {
                for &step in &stage.tail {
                    self.rowwise(step, &rows);
                }
            };
            if rows <= FEW_ROWS {
                crew.phase_then(number * 2, pieces.len(), compute, || tail(0..rows));
            } else {
                crew.phase(number * 2, pieces.len(), compute);
                crew.phase(number * 2 + 1, rows.div_ceil(TAIL_ROWS), |chunk| {
                    tail(chunk * TAIL_ROWS..((chunk + 1) * TAIL_ROWS).min(rows));
                });
            }
        }
    }

    /// How a work is cut: ranges of whatever it is cut along.
    fn pieces(&self, work: Work) -> Vec<Range<usize>> {
        let count = match work {
            Work::GatedLinear { gate, .. } => return self.product_pieces(gate),
            Work::Step(index) => match self.run.program.steps[index].op {
                Op::Linear { .. } => return self.product_pieces(index),
                Op::Attention { .. } => self.attention_pieces(index),
                Op::Moe { .. } => self.expert_pieces(index),
                Op::ShortConv { .. } | Op::DeltaRule { .. } => self.recurrent_pieces(index),
                ref other => unreachable!("{} is no work", other.name()),
            },
        };
        (0..count).map(|i| i..i + 1).collect()
    }

    fn compute(&self, work: Work, piece: Range<usize>) {
        match work {
            Work::GatedLinear { gate, up, gated, activation } => self.gated_product(gate, up, gated, activation, piece),
            Work::Step(index) => match self.run.program.steps[index].op {
                Op::Linear { .. } => self.product(index, piece),
                Op::Attention { .. } => self.attend(index, piece.start),
                Op::Moe { .. } => self.mix_experts(index, piece.start),
                Op::ShortConv { .. } => self.short_conv(index, piece.start),
                Op::DeltaRule { .. } => self.delta_rule(index, piece.start),
                ref other => unreachable!("{} is no work", other.name()),
            },
        }
    }

    /// Rows of a value, to read.
    pub fn rows(&self, x: Value, rows: Range<usize>) -> &'a [f32] {
        let floats = x.floats();
        // SAFETY: the schedule puts every reader of a value in a later stage, or later in the same rows' tail, than its writer,
        // and gives no other value the same buffer between the two.
        unsafe { self.buffers[self.run.schedule.buffer(x.id)].part(rows.start * floats..rows.end * floats) }
    }

    /// The result of step `index`: its buffer, and floats a row.
    pub fn result(&self, index: usize) -> (Shared<'a, f32>, usize) {
        let id = self.run.program.steps[index].out.expect("it has a result");
        (self.buffers[self.run.schedule.buffer(id)], self.run.program.value(id).floats)
    }

    /// Lines that step `index` runs over.
    pub fn domain(&self, index: usize) -> Domain {
        self.run.program.steps[index].rows
    }

    pub fn vector(&self, id: WeightId) -> &'a [f32] {
        &self.run.vectors[id.0 as usize]
    }

    pub fn weights(&self, matrix: Matrix) -> Weights<'a> {
        let view = self.run.file.tensor(&self.run.program.weight(matrix.weight).name).expect("every weight was found at load");
        let row_bytes = view.data.len() / view.rows();
        Weights { format: view.format, bytes: &view.data[matrix.first_row * row_bytes..][..matrix.rows * row_bytes], cols: matrix.columns, row_bytes }
    }

    /// The slot of `state` of a sequence.
    ///
    /// # Safety
    /// Nobody else uses this part of the slot as long as the slice is used.
    pub unsafe fn slot(&self, state: StateId, sequence: usize, part: Range<usize>) -> &'a mut [f32] {
        let size = self.run.program.state(state).slot_floats();
        let start = self.step.slots[sequence].expect("checked at the start of the step").0 as usize * size;
        // SAFETY: by the caller's promise.
        unsafe { self.slots[state.0 as usize].part_mut(start + part.start..start + part.end) }
    }
}
