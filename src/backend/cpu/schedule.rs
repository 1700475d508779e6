//! Orders a program for a crew of threads: as few meeting points as its data flow allows.
//!
//! A *stage* is what threads do between two meetings: first its works, which are large and split over threads (products, attention,
//! recurrences), then its tail, which is small and goes row by row (norms, rope, sums, storing keys and values). A work sits in the
//! first stage whose predecessors hold all its operands, so q, k and v share one; a tail operation sits in the stage that finishes
//! its operands. A layer of a Llama comes to five stages: qkv · attention · output · gate and up · down.
//!
//! Values get their place in memory by the moments they live through: a stage's works, and its end.

use crate::program::{Activation, Matrix, Op, Program, Rows, StateId, Step, Value, ValueId};
use std::cmp::Reverse;
use std::collections::HashMap;

/// A program in stages. Steps are indices into [`Program::steps`].
#[derive(Debug)]
pub struct Schedule {
    pub stages: Vec<Stage>,
    /// For each value where it lies; `None` for values that never leave a work.
    place_of: Vec<Option<Place>>,
    /// Floats a row of each memory.
    sizes: [usize; Memory::ALL.len()],
}

/// What values lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Values of all rows.
    Rows,
    /// Values of the rows that want logits.
    Wanted,
    /// The logits themselves: the caller takes them away.
    Logits,
}

impl Memory {
    pub const ALL: [Memory; 3] = [Memory::Rows, Memory::Wanted, Memory::Logits];

    /// The rows of a step that its values have.
    pub fn rows(self) -> Rows {
        if self == Memory::Rows { Rows::All } else { Rows::Wanted }
    }
}

/// A value of `n` rows lies in its memory from `n · offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub memory: Memory,
    /// Floats a row: a multiple of [`LINE_FLOATS`].
    pub offset: usize,
}

/// Values begin on a cache line.
const LINE_FLOATS: usize = 16;

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
    /// A step as it stands: linear, attention, moe, short convolution, delta rule.
    Step(usize),
    /// `f(gate · x) · (up · x)` in one go: two linear steps and the gating that alone reads them.
    GatedLinear { gate: usize, up: usize, gated: usize, activation: Activation },
}

/// Whether an operation is split over threads by more than its rows.
fn is_work(op: &Op) -> bool {
    matches!(op, Op::Linear { .. } | Op::Attention { .. } | Op::Moe { .. } | Op::ShortConv { .. } | Op::DeltaRule { .. })
}

impl Schedule {
    /// `as_numbers` tells of a matrix whether its product may read its operand as f32. Of others a fed operand's numbers are not kept
    /// beyond the stage that converts them.
    pub fn new(program: &Program, as_numbers: &dyn Fn(Matrix) -> bool) -> Schedule {
        let fused = fuse_gated(program);
        let stage_of = stages_of(program, &fused);
        let mut stages: Vec<Stage> = Vec::new();
        stages.resize_with(stage_of.iter().flatten().max().map_or(0, |last| last + 1), Stage::default);
        for (index, step) in program.steps.iter().enumerate() {
            let Some(stage) = stage_of[index] else { continue };
            match fused.get(&index) {
                Some(&work) => stages[stage].works.push(work),
                None if is_work(&step.op) => stages[stage].works.push(Work::Step(index)),
                None if matches!(step.op, Op::Store { .. }) => stages[stage].stores.push(index),
                None => stages[stage].tail.push(index),
            }
        }
        add_feeds(program, &mut stages);
        let (place_of, sizes) = places(program, &stages, as_numbers);
        Schedule { stages, place_of, sizes }
    }

    /// Floats a row of a memory.
    pub fn size(&self, memory: Memory) -> usize {
        self.sizes[memory as usize]
    }

    /// Floats of all memories in a step of `n` rows, `m` of which want logits.
    pub fn floats(&self, n: usize, m: usize) -> usize {
        Memory::ALL.iter().map(|memory| self.size(*memory) * if memory.rows() == Rows::All { n } else { m }).sum()
    }

    /// Where a value lies that a work or tail operation reads or writes.
    pub fn place(&self, id: ValueId) -> Place {
        self.place_of[id.0 as usize].expect("only values inside a fused work have no place")
    }
}

/// The value a product reads, as one line a row.
pub fn fed_value(op: &Op) -> Option<Value> {
    match *op {
        Op::Linear { x, .. } => Some(Value { id: x.id, groups: 1, width: x.floats() }),
        _ => None,
    }
}

/// Finds `gated(linear(x), linear(x))` whose halves nobody else reads. The key is the gating step; the linear steps map to `None` stage.
fn fuse_gated(program: &Program) -> HashMap<usize, Work> {
    let mut readers = vec![0usize; program.values.len()];
    let mut writer = vec![None; program.values.len()];
    for (index, step) in program.steps.iter().enumerate() {
        for operand in step.op.operands() {
            readers[operand.id.0 as usize] += 1;
        }
        if let Some(out) = step.out {
            writer[out.0 as usize] = Some(index);
        }
    }
    let plain_linear = |v: Value| {
        let index = writer[v.id.0 as usize].filter(|_| readers[v.id.0 as usize] == 1)?;
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

/// For each step its stage; `None` for the linear steps inside a fused work.
fn stages_of(program: &Program, fused: &HashMap<usize, Work>) -> Vec<Option<usize>> {
    let inner: Vec<usize> =
        fused.values().flat_map(|w| if let Work::GatedLinear { gate, up, .. } = w { vec![*gate, *up] } else { vec![] }).collect();
    let mut ready = vec![0usize; program.values.len()];
    // The stage that last wrote a state; reading it must come later, and so must writing it again.
    let mut stored: HashMap<StateId, usize> = HashMap::new();
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
            Op::Attention { cache, .. } => operands.max(stored.get(&cache).copied().unwrap_or(0)) + 1,
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
        Work::Step(index) => vec![index],
        Work::GatedLinear { gate, up, .. } => vec![gate, up],
    }
}

/// The value a work writes.
pub fn result_of(program: &Program, work: Work) -> ValueId {
    let step = match work {
        Work::Step(index) => index,
        Work::GatedLinear { gated, .. } => gated,
    };
    program.steps[step].out.expect("every work has a result")
}

/// Puts each value that a product reads into the feeds of the stage that finishes it.
fn add_feeds(program: &Program, stages: &mut [Stage]) {
    let mut finished = vec![0usize; program.values.len()];
    for (number, stage) in stages.iter().enumerate() {
        for &work in &stage.works {
            finished[result_of(program, work).0 as usize] = number;
        }
        for out in stage.tail.iter().filter_map(|&s| program.steps[s].out) {
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

/// Memory by moments, two a stage: its works, and then its end. A value holds its place from the moment that writes it to the last that
/// reads it. Widest first, each at the lowest offset that nobody holds who lives at the same time: that comes to the most that is alive at
/// once, or close to it.
fn places(program: &Program, stages: &[Stage], as_numbers: &dyn Fn(Matrix) -> bool) -> (Vec<Option<Place>>, [usize; Memory::ALL.len()]) {
    let mut life: Vec<Option<(usize, usize)>> = vec![None; program.values.len()];
    let mut touch = |id: ValueId, moment: usize| {
        let span = life[id.0 as usize].get_or_insert((moment, moment));
        span.1 = moment;
    };
    let converted = |op: &Op| matches!(*op, Op::Linear { weight, .. } if !as_numbers(weight));
    for (number, stage) in stages.iter().enumerate() {
        let (works, end) = (2 * number, 2 * number + 1);
        for &work in &stage.works {
            for step in steps_of(work).into_iter().map(|step| &program.steps[step].op).filter(|op| !converted(op)) {
                step.operands().iter().for_each(|operand| touch(operand.id, works));
            }
            touch(result_of(program, work), works);
        }
        for &step in stage.tail.iter().chain(&stage.stores) {
            let Step { op, out, .. } = &program.steps[step];
            for id in op.operands().iter().map(|v| v.id).chain(*out) {
                touch(id, end);
            }
        }
        stage.feeds.iter().for_each(|value| touch(value.id, end));
    }

    let floats = |value: usize| program.values[value].floats.next_multiple_of(LINE_FLOATS);
    let mut order: Vec<usize> = (0..life.len()).filter(|&v| life[v].is_some()).collect();
    order.sort_by_key(|&v| (Reverse(floats(v)), life[v]));
    let mut place_of: Vec<Option<Place>> = vec![None; program.values.len()];
    let mut sizes = [0; Memory::ALL.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    for value in order {
        let (first, last) = life[value].expect("filtered");
        let memory = match program.values[value].rows {
            _ if value == program.logits.id.0 as usize => Memory::Logits,
            Rows::All => Memory::Rows,
            Rows::Wanted => Memory::Wanted,
        };
        let beside = |other: &usize| {
            let place = place_of[*other].filter(|p| p.memory == memory)?;
            let (begins, ends) = life[*other]?;
            (begins <= last && first <= ends).then(|| (place.offset, place.offset + floats(*other)))
        };
        let mut taken: Vec<(usize, usize)> = placed.iter().filter_map(beside).collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + floats(value) <= start {
                break;
            }
            offset = offset.max(end);
        }
        place_of[value] = Some(Place { memory, offset });
        sizes[memory as usize] = sizes[memory as usize].max(offset + floats(value));
        placed.push(value);
    }
    (place_of, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Builder;
    use crate::program::builder::FULL;

    /// A Llama of `layers` layers.
    fn llama(layers: usize) -> Program {
        let b = Builder::new(&|_| false);
        let mut x = b.embed("token_embd", 32, 8);
        for l in b.layers(layers) {
            let a = l.rms_norm(x, "attn_norm", 1e-5);
            let (q, k, v) = (l.linear(a, "attn_q", 8), l.linear(a, "attn_k", 8), l.linear(a, "attn_v", 8));
            x = l.add(x, l.linear(l.attention(q, k, v, FULL), "attn_output", 8));
            let f = l.rms_norm(x, "ffn_norm", 1e-5);
            x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", 16));
        }
        let logits = b.head(b.rms_norm(x, "output_norm", 1e-5));
        b.finish("llama", logits).expect("it fits together")
    }

    /// Of a program whose products take converted operands.
    fn schedule(program: &Program) -> Schedule {
        Schedule::new(program, &|_| false)
    }

    #[test]
    fn a_layer_has_five_meetings() {
        let (two, three) = (schedule(&llama(2)), schedule(&llama(3)));
        assert_eq!(three.stages.len() - two.stages.len(), 5, "qkv, attention, output, gate and up, down");
    }

    #[test]
    fn every_step_is_run_once() {
        let program = llama(3);
        let mut ran = vec![0; program.steps.len()];
        for stage in &schedule(&program).stages {
            for &work in &stage.works {
                steps_of(work).into_iter().for_each(|s| ran[s] += 1);
                if let Work::GatedLinear { gated, .. } = work {
                    ran[gated] += 1;
                }
            }
            stage.tail.iter().chain(&stage.stores).for_each(|&s| ran[s] += 1);
        }
        assert!(ran.iter().all(|&n| n == 1), "{ran:?}");
    }

    /// Memory as a list of who lies where.
    #[derive(Default)]
    struct Held(Vec<(Place, usize, ValueId)>);

    impl Held {
        fn reads(&self, program: &Program, value: Value) {
            assert!(self.0.iter().any(|h| h.2 == value.id), "{:?} is read", program.value(value.id));
        }

        /// Whoever lay where `id` is written is gone.
        fn write(&mut self, program: &Program, schedule: &Schedule, id: ValueId) {
            let (place, floats) = (schedule.place(id), program.value(id).floats);
            assert!(place.offset + floats <= schedule.size(place.memory) && place.memory.rows() == program.value(id).rows);
            let apart = |p: &Place, n: usize| p.memory != place.memory || p.offset + n <= place.offset || place.offset + floats <= p.offset;
            self.0.retain(|(p, n, _)| apart(p, *n));
            self.0.push((place, floats, id));
        }
    }

    #[test]
    fn operands_are_there_and_not_written_over_before_they_are_read() {
        let program = llama(3);
        // All converted, none, and every other one: so also one of a gated pair.
        let rules: [&dyn Fn(Matrix) -> bool; 3] = [&|_| false, &|_| true, &|matrix| matrix.weight.0 % 2 == 0];
        for as_numbers in rules {
            let schedule = Schedule::new(&program, as_numbers);
            let mut held = Held::default();
            // Of converted operands their feed is read instead.
            let read = |step: usize| !matches!(program.steps[step].op, Op::Linear { weight, .. } if !as_numbers(weight));
            let operands = |work: Work| steps_of(work).into_iter().filter(|s| read(*s)).flat_map(|s| program.steps[s].op.operands());
            for stage in &schedule.stages {
                // Works of a stage run at the same time: all read before any writes, and all have written before the tail.
                stage.works.iter().for_each(|&w| operands(w).for_each(|x| held.reads(&program, x)));
                stage.works.iter().for_each(|&w| held.write(&program, &schedule, result_of(&program, w)));
                stage.works.iter().for_each(|&w| operands(w).for_each(|x| held.reads(&program, x)));
                let mut of_tail = Vec::new();
                for &step in stage.tail.iter().chain(&stage.stores) {
                    let Step { op, out, .. } = &program.steps[step];
                    of_tail.extend(op.operands());
                    if let Some(out) = *out {
                        held.write(&program, &schedule, out);
                    }
                    // Some rows are at this step while others are anywhere in the tail: no result lies over what any step reads.
                    of_tail.iter().for_each(|&x| held.reads(&program, x));
                }
                stage.feeds.iter().for_each(|&x| held.reads(&program, x));
            }
            held.reads(&program, program.logits);
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_layers_and_is_what_lives_at_once() {
        let (three, thirty) = (schedule(&llama(3)), schedule(&llama(30)));
        assert_eq!(three.sizes, thirty.sizes);
        // When rows are narrower than a line each takes a line: residual, its norm or their sum, q, k and v.
        assert!(three.size(Memory::Rows) <= 4 * LINE_FLOATS, "{:?}", three.sizes);
        let kept = Schedule::new(&llama(3), &|_| true);
        assert!(kept.size(Memory::Rows) > three.size(Memory::Rows), "numbers that nobody reads take no place");
    }

    #[test]
    fn attention_comes_after_the_meeting_that_ends_its_store() {
        let program = llama(2);
        let mut stored = HashMap::new();
        for (number, stage) in schedule(&program).stages.iter().enumerate() {
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
