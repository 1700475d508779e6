//! Orders a program for a crew of threads: as few meeting points as its data flow allows.
//!
//! A *stage* is what threads do between two meetings: first its works, which are large and split over threads (products, attention,
//! recurrences), then its tail, which is small and goes row by row (norms, rope, sums, storing keys and values). A work sits in the
//! first stage whose predecessors hold all its operands, so q, k and v share one; a tail operation sits in the stage that finishes
//! its operands. A layer of a Llama comes to five stages: qkv · attention · output · gate and up · down.
//!
//! Where the values lie meanwhile is said by [`places`](super::places).

use crate::program::{Activation, Op, Program, StateId, Value, ValueId};
use std::collections::HashMap;

/// A program in stages. Steps are indices into [`Program::steps`].
#[derive(Debug)]
pub struct Schedule {
    pub stages: Vec<Stage>,
}

#[derive(Debug, Default)]
pub struct Stage {
    pub works: Vec<Work>,
    /// In an order in which each finds its operands.
    pub tail: Vec<usize>,
    /// Steps that append to a cache, once the tail is done.
    pub stores: Vec<usize>,
    /// Values that products of later stages read, in the form the kernels want: to be converted once the tail is done.
    pub feeds: Vec<Value>,
}

/// A large piece of a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// A step as it stands: linear, attention, short convolution, delta rule.
    Step(usize),
    /// `f(gate · x) · (up · x)` in one go: two linear steps and the gating that alone reads them.
    GatedLinear { gate: usize, up: usize, gated: usize, activation: Activation },
    /// `to + weight · x (+ bias)` in one go: a linear step and the sum that alone reads it. `to` is there before the stage begins.
    AddedLinear { linear: usize, added: usize, to: Value },
    /// A part of a mixture of experts.
    Experts { moe: usize, part: Part },
}

/// The parts of a [mixture](super::experts): one a stage, since each needs all of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Route,
    Gather,
    Inner,
    Outer,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Route, Part::Gather, Part::Inner, Part::Outer];

    /// What it reads of the operands.
    pub fn operand(self, moe: &Op) -> Option<Value> {
        match (self, moe) {
            (Part::Route, Op::Moe { router, .. }) => Some(*router),
            (Part::Gather, Op::Moe { x, .. }) => Some(*x),
            _ => None,
        }
    }
}

/// Whether an operation is split over threads by more than its rows.
fn is_work(op: &Op) -> bool {
    matches!(op, Op::Linear { .. } | Op::Attention { .. } | Op::Moe { .. } | Op::ShortConv { .. } | Op::DeltaRule { .. })
}

impl Schedule {
    pub fn new(program: &Program) -> Schedule {
        let flow = Flow::of(program);
        let mut fused = fuse_gated(program, &flow);
        let mut stage_of = stages_of(program, &fused);
        fuse_added(program, &flow, &mut stage_of, &mut fused);
        let mut stages: Vec<Stage> = Vec::new();
        stages.resize_with(stage_of.iter().flatten().max().map_or(0, |last| last + 1), Stage::default);
        for (index, step) in program.steps.iter().enumerate() {
            let Some(stage) = stage_of[index] else { continue };
            match fused.get(&index) {
                Some(&work) => stages[stage].works.push(work),
                None if matches!(step.op, Op::Moe { .. }) => {
                    for (part, stage) in Part::ALL.into_iter().zip(stage + 1 - Part::ALL.len()..) {
                        stages[stage].works.push(Work::Experts { moe: index, part });
                    }
                }
                None if is_work(&step.op) => stages[stage].works.push(Work::Step(index)),
                None if matches!(step.op, Op::Store { .. }) => stages[stage].stores.push(index),
                None => stages[stage].tail.push(index),
            }
        }
        add_feeds(program, &mut stages);
        Schedule { stages }
    }
}

/// The value a product reads, as one line a row.
pub fn fed_value(op: &Op) -> Option<Value> {
    match *op {
        Op::Linear { x, .. } => Some(Value { id: x.id, groups: 1, width: x.floats() }),
        _ => None,
    }
}

/// Who makes each value, and how many read it.
struct Flow {
    readers: Vec<usize>,
    writer: Vec<Option<usize>>,
}

impl Flow {
    fn of(program: &Program) -> Flow {
        let mut flow = Flow { readers: vec![0; program.values.len()], writer: vec![None; program.values.len()] };
        for (index, step) in program.steps.iter().enumerate() {
            for operand in step.op.operands() {
                flow.readers[operand.id.0 as usize] += 1;
            }
            if let Some(out) = step.out {
                flow.writer[out.0 as usize] = Some(index);
            }
        }
        flow
    }

    fn writer(&self, value: Value) -> Option<usize> {
        self.writer[value.id.0 as usize]
    }

    /// The linear step that makes a value which one operand alone reads.
    fn linear(&self, program: &Program, value: Value) -> Option<usize> {
        let index = self.writer(value).filter(|_| self.readers[value.id.0 as usize] == 1)?;
        matches!(program.steps[index].op, Op::Linear { .. }).then_some(index)
    }
}

/// Finds `gated(linear(x), linear(x))` whose halves nobody else reads. The key is the gating step; the linear steps map to `None` stage.
fn fuse_gated(program: &Program, flow: &Flow) -> HashMap<usize, Work> {
    let plain_linear = |v: Value| {
        let index = flow.linear(program, v)?;
        match program.steps[index].op {
            Op::Linear { x, bias: None, .. } => Some((index, x)),
            _ => None,
        }
    };
    let mut fused = HashMap::new();
    for (index, step) in program.steps.iter().enumerate() {
        if let Op::Gated { gate, up, activation } = step.op
            && let (Some((g, gx)), Some((u, ux))) = (plain_linear(gate), plain_linear(up))
            && gx == ux
        {
            fused.insert(index, Work::GatedLinear { gate: g, up: u, gated: index, activation });
        }
    }
    fused
}

/// Finds `to + linear(x)` in the end of the linear step's stage. The key is the sum; the linear step loses its stage. No stage changes:
/// what is added to was there before.
fn fuse_added(program: &Program, flow: &Flow, stage_of: &mut [Option<usize>], fused: &mut HashMap<usize, Work>) {
    for (added, step) in program.steps.iter().enumerate() {
        let Op::Add { a, b } = step.op else { continue };
        let stage = stage_of[added];
        let sum = |product: Value, to: Value| {
            let linear = flow.linear(program, product).filter(|&linear| stage_of[linear] == stage)?;
            let is_there = flow.writer(to).is_some_and(|writer| stage_of[writer] < stage);
            is_there.then_some((linear, to))
        };
        if let Some((linear, to)) = sum(a, b).or_else(|| sum(b, a)) {
            stage_of[linear] = None;
            fused.insert(added, Work::AddedLinear { linear, added, to });
        }
    }
}

/// For each step its stage, of a mixture its last; `None` for the linear steps inside a fused work.
fn stages_of(program: &Program, fused: &HashMap<usize, Work>) -> Vec<Option<usize>> {
    let inner: Vec<usize> =
        fused.values().flat_map(|w| if let Work::GatedLinear { gate, up, .. } = w { vec![*gate, *up] } else { vec![] }).collect();
    let mut ready = vec![0usize; program.values.len()];
    // The stage that wrote a cache: reading it must come later. No program writes one twice.
    let mut stored: HashMap<StateId, usize> = HashMap::new();
    // The stage of the last attention, and that in which the last mixture ended: what pieces of one leave for its stage's end, or parts of
    // the other for each other, lies where the next one's will.
    let (mut attended, mut mixed) = (0, 0);
    let mut stage_of = vec![None; program.steps.len()];
    for (index, step) in program.steps.iter().enumerate() {
        if inner.contains(&index) {
            // Its result is not waited for: the fused work starts from the same operands.
            let x = step.op.operands().iter().map(|v| ready[v.id.0 as usize]).max().unwrap_or(0);
            ready[step.out.expect("a product has a result").0 as usize] = x;
            continue;
        }
        let operands = step.op.operands().iter().map(|v| ready[v.id.0 as usize]).max().unwrap_or(0);
        let stage = match step.op {
            Op::Attention { cache, .. } => {
                attended = operands.max(stored.get(&cache).copied().unwrap_or(0)).max(attended) + 1;
                attended
            }
            Op::Moe { .. } => {
                mixed = operands.max(mixed) + Part::ALL.len();
                mixed
            }
            _ if is_work(&step.op) || fused.contains_key(&index) => operands + 1,
            _ => operands,
        };
        if let Op::Store { cache, .. } = step.op {
            stored.insert(cache, stage);
        }
        if let Some(out) = step.out {
            ready[out.0 as usize] = stage;
        }
        stage_of[index] = Some(stage);
    }
    stage_of
}

/// The steps of a work that a backend runs for it.
pub fn steps_of(work: Work) -> Vec<usize> {
    match work {
        Work::Step(index) | Work::Experts { moe: index, .. } => vec![index],
        Work::GatedLinear { gate, up, .. } => vec![gate, up],
        Work::AddedLinear { linear, .. } => vec![linear],
    }
}

/// The value a work writes; `None` for parts of a mixture that are not its last.
pub fn result_of(program: &Program, work: Work) -> Option<ValueId> {
    let step = match work {
        Work::Step(index) | Work::Experts { moe: index, part: Part::Outer } => index,
        Work::Experts { .. } => return None,
        Work::GatedLinear { gated, .. } => gated,
        Work::AddedLinear { added, .. } => added,
    };
    Some(program.steps[step].out.expect("every work has a result"))
}

/// Puts each value that a product reads into the feeds of the stage that finishes it.
fn add_feeds(program: &Program, stages: &mut [Stage]) {
    let mut finished = vec![0usize; program.values.len()];
    for (number, stage) in stages.iter().enumerate() {
        let of_works = stage.works.iter().filter_map(|&work| result_of(program, work));
        for out in of_works.chain(stage.tail.iter().filter_map(|&s| program.steps[s].out)) {
            finished[out.0 as usize] = number;
        }
    }
    let fed: Vec<Value> = stages
        .iter()
        .flat_map(|s| s.works.iter().flat_map(|&w| steps_of(w)).filter_map(|s| fed_value(&program.steps[s].op)).collect::<Vec<_>>())
        .collect();
    for value in fed {
        let feeds = &mut stages[finished[value.id.0 as usize]].feeds;
        if !feeds.contains(&value) {
            feeds.push(value);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::program::Builder;
    use crate::program::builder::{FULL, MoeOptions};
    use crate::program::{Pairing, Rope, RopeFactors, RopeScaling};

    /// A Llama of `layers` layers.
    pub fn llama(layers: usize) -> Program {
        llama_of(layers, [8, 8, 16])
    }

    /// The same with a mixture of experts in each layer.
    pub fn mixture(layers: usize) -> Program {
        let moe = MoeOptions::mixtral(4, 2, 16);
        with_feed_forward(layers, [8, 8], |l, x| l.moe(x, moe))
    }

    /// Sums with products whose other operand is read beside them, after them, or made beside them.
    pub fn sums(layers: usize) -> Program {
        let b = Builder::new(&|_| false);
        let mut x = b.embed("token_embd", 32, 8);
        for l in b.layers(layers) {
            let a = l.rms_norm(x, "attn_norm", 1e-5);
            let beside = l.add(x, l.linear(x, "attn_q", 8));
            let both = l.add(beside, l.linear(a, "attn_k", 8));
            let f = l.rms_norm(both, "ffn_norm", 1e-5);
            let later = l.add(both, l.linear(f, "ffn_up", 8));
            x = l.add(l.linear(l.rms_norm(later, "post_ffw_norm", 1e-5), "ffn_down", 8), both);
        }
        let logits = b.head(b.rms_norm(x, "output_norm", 1e-5));
        b.finish("sums", logits).expect("it fits together")
    }

    /// Of some width, width of keys and of values, and width between gate and down.
    pub fn llama_of(layers: usize, [dim, kv, hidden]: [usize; 3]) -> Program {
        with_feed_forward(layers, [dim, kv], |l, x| l.swiglu(x, "ffn_gate", "ffn_up", "ffn_down", hidden))
    }

    fn with_feed_forward(layers: usize, [dim, kv]: [usize; 2], feed_forward: impl Fn(&Builder, Value) -> Value) -> Program {
        let b = Builder::new(&|_| false);
        let rope = Rope {
            pairing: Pairing::Halves,
            dims: 8,
            base: 10_000.0,
            scaling: RopeScaling::None,
            factors: RopeFactors::None,
            attention_factor: 1.0,
        };
        let mut x = b.embed("token_embd", 32, dim);
        for l in b.layers(layers) {
            let a = l.rms_norm(x, "attn_norm", 1e-5);
            let (q, k, v) = (l.linear(a, "attn_q", dim), l.linear(a, "attn_k", kv), l.linear(a, "attn_v", kv));
            let heads = |x: Value| l.heads(x, x.floats() / 8);
            let (q, k) = (l.rope(heads(q), rope), l.rope(heads(k), rope));
            x = l.add(x, l.linear(l.attention(q, k, heads(v), FULL), "attn_output", dim));
            let f = l.rms_norm(x, "ffn_norm", 1e-5);
            x = l.add(x, feed_forward(&l, f));
        }
        let logits = b.head(b.rms_norm(x, "output_norm", 1e-5));
        b.finish("llama", logits).expect("it fits together")
    }

    #[test]
    fn a_layer_has_five_meetings() {
        let (two, three) = (Schedule::new(&llama(2)), Schedule::new(&llama(3)));
        assert_eq!(three.stages.len() - two.stages.len(), 5, "qkv, attention, output, gate and up, down");
    }

    #[test]
    fn a_product_is_added_where_it_is_made_to_what_was_there_before() {
        let added = |program: &Program| {
            let works = Schedule::new(program).stages.into_iter().flat_map(|stage| stage.works);
            works.filter(|w| matches!(w, Work::AddedLinear { .. })).count()
        };
        assert_eq!(added(&llama(3)), 6, "after attention, and down");
        assert_eq!(added(&mixture(3)), 3);
        assert_eq!(added(&sums(3)), 9, "what is added to `beside` is made in the same stage");
    }

    #[test]
    fn every_step_is_run_once() {
        [llama(3), mixture(3), sums(3)].iter().for_each(every_step_is_run_once_in);
    }

    fn every_step_is_run_once_in(program: &Program) {
        let mut ran = vec![0; program.steps.len()];
        for stage in &Schedule::new(program).stages {
            for &work in &stage.works {
                if let Work::Experts { part: Part::Route | Part::Gather | Part::Inner, .. } = work {
                    continue;
                }
                steps_of(work).into_iter().for_each(|s| ran[s] += 1);
                if let Work::GatedLinear { gated: last, .. } | Work::AddedLinear { added: last, .. } = work {
                    ran[last] += 1;
                }
            }
            stage.tail.iter().chain(&stage.stores).for_each(|&s| ran[s] += 1);
        }
        assert!(ran.iter().all(|&n| n == 1), "{ran:?}");
    }

    #[test]
    fn parts_of_a_mixture_follow_each_other_and_no_two_mixtures_meet() {
        let program = mixture(3);
        let schedule = Schedule::new(&program);
        let parts =
            schedule.stages.iter().map(|stage| stage.works.iter().filter(|w| matches!(w, Work::Experts { .. })).collect::<Vec<_>>());
        assert!(parts.clone().all(|of_stage| of_stage.len() <= 1));
        let moes: Vec<usize> = (0..program.steps.len()).filter(|&step| matches!(program.steps[step].op, Op::Moe { .. })).collect();
        assert_eq!(moes.len(), 3);
        let want = moes.into_iter().flat_map(|moe| Part::ALL.map(|part| Work::Experts { moe, part }));
        assert!(parts.flatten().copied().eq(want));
    }

    /// What pieces leave for the end of a stage lies in one place.
    #[test]
    fn two_attentions_never_share_a_stage() {
        let b = Builder::new(&|_| false);
        let x = b.embed("token_embd", 32, 8);
        let l = b.layers(1).next().expect("there is one");
        let [q, k, v] = ["attn_q", "attn_k", "attn_v"].map(|name| l.linear(x, name, 8));
        let both = l.add(l.attention(q, k, v, FULL), l.attention(k, q, v, FULL));
        let logits = b.head(both);
        let program = b.finish("two", logits).expect("it fits together");
        let attentions = |stage: &Stage| {
            let is_attention = |work: &&Work| matches!(work, Work::Step(s) if matches!(program.steps[*s].op, Op::Attention { .. }));
            stage.works.iter().filter(is_attention).count()
        };
        assert_eq!(Schedule::new(&program).stages.iter().map(attentions).filter(|n| *n > 0).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn attention_comes_after_the_meeting_that_ends_its_store() {
        let program = llama(2);
        let mut stored = HashMap::new();
        for (number, stage) in Schedule::new(&program).stages.iter().enumerate() {
            for &work in &stage.works {
                if let Work::Step(s) = work
                    && let Op::Attention { cache, .. } = program.steps[s].op
                {
                    assert!(stored[&cache] < number);
                }
            }
            for &s in &stage.stores {
                if let Op::Store { cache, .. } = program.steps[s].op {
                    stored.insert(cache, number);
                }
            }
        }
        assert_eq!(stored.len(), 2);
    }
}
