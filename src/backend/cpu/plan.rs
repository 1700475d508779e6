//! How the stages of one step are cut, worked out once before the crew starts: nobody looks anything up while others wait.

use super::attention::AttentionCut;
use super::feeds::{Fed, FeedList};
use super::products::chunk_bytes;
use super::schedule::Work;
use super::step::Step;
use super::walk::{Model, View};
use crate::program::{Op, Rows as Domain};
use hearth_kernels::cpu::Form;
use hearth_kernels::cpu::form::PANEL_TOKENS;
use std::ops::Range;

/// Rows of one chunk of small work where no form asks for more: what a core's first caches hold of them.
const TAIL_ROWS: usize = 4;
/// Tokens of one chunk of conversion: a multiple of every form's group.
pub const CONVERT_TOKENS: usize = PANEL_TOKENS;

/// One a stage.
pub type Plan = Vec<StagePlan>;

#[derive(Default)]
pub struct StagePlan {
    shares: Vec<Share>,
    /// Of all works of the stage.
    pub pieces: usize,
    /// Of the attention of the stage, which has one at most.
    attention: Option<AttentionCut>,
    /// Rows of one chunk of the stage's end.
    pub tail_rows: usize,
    /// What each chunk of the end converts once its rows are done: a feed of all rows, and the place of its form.
    pub converts: Vec<(usize, usize)>,
    /// Conversions of rows that want logits: these are no whole groups of a chunk's rows, so they come after.
    pub after: Vec<Conversion>,
}

/// A work's part of a stage's pieces.
struct Share {
    work: Work,
    /// Its first piece.
    first: usize,
    /// What one piece takes of whatever the work is cut along, and all there is.
    each: usize,
    all: usize,
}

/// Some tokens of a feed, to be brought into one of its forms.
pub struct Conversion {
    pub feed: usize,
    pub place: usize,
    pub tokens: Range<usize>,
}

impl StagePlan {
    /// Cuts `all` of something into pieces of `each`, for `work`.
    pub fn share(&mut self, work: Work, each: usize, all: usize) {
        self.shares.push(Share { work, first: self.pieces, each, all });
        self.pieces += all.div_ceil(each.max(1));
    }

    /// # Panics
    /// In a stage without an attention.
    pub fn attention(&self) -> &AttentionCut {
        self.attention.as_ref().expect("a stage's attention is cut with it")
    }

    /// Floats that the splits of its attention leave partial results in.
    pub fn partial_floats(&self) -> usize {
        self.attention.as_ref().map_or(0, AttentionCut::all_floats)
    }

    /// The work that piece `number` belongs to, and its part of it.
    pub fn piece(&self, number: usize) -> (Work, Range<usize>) {
        let share = self.shares.iter().rev().find(|s| s.first <= number).expect("a piece of this stage");
        let start = (number - share.first) * share.each;
        (share.work, start..(start + share.each).min(share.all))
    }

    /// Adds what the end of stage `number` converts.
    pub fn convert(&mut self, number: usize, model: &Model, fed: &Fed, step: &Step) {
        let feeds: &FeedList = model.feeds;
        self.tail_rows = TAIL_ROWS;
        for &feed in &feeds.by_stage[number] {
            if model.places.find(feeds.feed(feed).value.id).is_none() {
                // The works have converted it.
                continue;
            }
            let rows = feeds.feed(feed).rows;
            for (place, (form, _)) in fed.forms(feed).iter().enumerate().filter(|(_, (form, _))| *form != Form::F32) {
                match rows {
                    Domain::All => {
                        if form.group() > 1 {
                            self.tail_rows = CONVERT_TOKENS;
                        }
                        self.converts.push((feed, place));
                    }
                    Domain::Wanted => {
                        let tokens = step.wanted.len();
                        let cuts = (0..tokens).step_by(CONVERT_TOKENS);
                        self.after.extend(cuts.map(|at| Conversion { feed, place, tokens: at..(at + CONVERT_TOKENS).min(tokens) }));
                    }
                }
            }
        }
    }
}

impl View<'_> {
    /// How so many workers share the stages of this step.
    pub fn plan(&self, workers: usize) -> Plan {
        (0..self.run.schedule.stages.len()).map(|number| self.stage_plan(number, workers)).collect()
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
                    Op::Attention { .. } => (1, plan.attention.insert(self.attention_cut(index)).pieces()),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_several_works_cover_each_once() {
        let mut plan = StagePlan::default();
        plan.share(Work::Step(3), 10, 25);
        plan.share(Work::Step(4), 1, 0);
        plan.share(Work::Step(5), 7, 7);
        let pieces: Vec<_> = (0..plan.pieces).map(|i| plan.piece(i)).collect();
        assert_eq!(pieces, [(Work::Step(3), 0..10), (Work::Step(3), 10..20), (Work::Step(3), 20..25), (Work::Step(5), 0..7)]);
    }
}
