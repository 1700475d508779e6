//! What every worker sees of a step, and the walk of the crew through its stages.

use super::arena::{AlignedBytes, Shared};
use super::cache::Layout;
use super::experts::Mixture;
use super::feeds::{Fed, FeedList};
use super::places::{Memory, Places};
use super::plan::{Plan, StagePlan};
use super::pool::Crew;
use super::schedule::{Part, Schedule, Stage, Work};
use super::step::{Step, Turn};
use super::vectors::Vectors;
use crate::gguf::TensorView;
use crate::program::{Matrix, Op, Program, Rows as Domain, Value, ValueId, WeightId};
use hearth_kernels::cpu::partial::Span;
use hearth_kernels::cpu::{Kernels, Weights};
use std::ops::Range;

/// Rows of a step up to which the small work of a stage is done by one thread while the others wait: a meeting costs more.
const FEW_ROWS: usize = 4;
/// Meetings of a stage at most: its works, its rows' end, and what needs all rows' end.
pub const PHASES: usize = 3;

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    /// What kernels ask for.
    pub kernel: AlignedBytes,
    /// Some columns of a panel, of all tokens.
    pub panel: AlignedBytes,
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

impl<'a> View<'a> {
    /// What each worker does in a step.
    pub fn walk(&self, crew: &Crew<'_>, scratch: &mut Scratch) {
        let rows = self.step.all.len();
        for (number, (stage, plan)) in self.run.schedule.stages.iter().zip(&self.plan).enumerate() {
            let phase = number * PHASES;
            let compute = |piece: usize| self.compute(plan, piece, scratch);
            if rows <= FEW_ROWS {
                crew.phase_then(phase, plan.pieces, compute, || {
                    self.close(stage, plan);
                    self.end(stage, plan, 0..rows);
                    self.step.tiles.iter().for_each(|tile| self.stores(stage, tile));
                    plan.after.iter().for_each(|c| self.convert(c.feed, c.place, c.tokens.clone()));
                });
                continue;
            }
            crew.phase_then(phase, plan.pieces, compute, || self.close(stage, plan));
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
    fn close(&self, stage: &Stage, plan: &StagePlan) {
        for &work in &stage.works {
            match work {
                Work::Step(index) if matches!(self.run.program.steps[index].op, Op::Attention { .. }) => {
                    self.close_attention(index, plan.attention());
                }
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

    fn compute(&self, plan: &StagePlan, piece: usize, scratch: &mut Scratch) {
        let (work, piece) = plan.piece(piece);
        match work {
            Work::GatedLinear { gate, up, gated, activation } => self.gated_product(gate, up, gated, activation, piece, scratch),
            Work::AddedLinear { linear, added, to } => self.added_product(linear, added, to, piece, scratch),
            Work::Step(index) => match self.run.program.steps[index].op {
                Op::Linear { .. } => self.product(index, piece, scratch),
                Op::Attention { .. } => self.attend(index, plan.attention(), piece.start, scratch),
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
