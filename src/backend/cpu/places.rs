//! Where the values of a step lie, and the forms of them that products read. Each memory is one piece, `[lines, floats]` for every value
//! or feed in it; what lives at the same time lies side by side.
//!
//! Time goes by moments, two a stage: its works, and its end. A value holds its place from the moment that writes it to the last that
//! reads it, a feed from the end of the stage that makes it (or the works, where they convert) to the works that read it.
//!
//! A work may put its result in the place of an operand that it alone reads, and for the last time, where each of its pieces reads only
//! what it then writes over: sums with a product, and attention over its queries. Within an end each row goes through the steps by
//! itself, one after the other. So a result there may take over the place of a value of the same width that nobody reads any more: of its
//! own operand, where the operation can work in place, or of one that an earlier step was the last to read. That keeps the residual stream
//! where it is through all layers, and norms take no place of their own.

use super::schedule::{Schedule, Work, result_of, steps_of};
use crate::program::{Matrix, Op, Program, Rows, Step, Value, ValueId};
use std::cmp::Reverse;

/// For each value and feed where it lies.
#[derive(Debug)]
pub struct Places {
    /// `None` for values that never leave a work.
    of_value: Vec<Option<Place>>,
    of_feed: Vec<Place>,
    /// Floats a line of each memory.
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

/// What has `n` lines lies in its memory from `n · offset` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub memory: Memory,
    /// Floats a line: a multiple of [`LINE_FLOATS`].
    pub offset: usize,
}

/// Everything begins on a cache line.
pub const LINE_FLOATS: usize = 16;

/// A value in the forms that products read, as far as its place goes.
#[derive(Clone, Copy, Debug)]
pub struct FeedLife {
    pub value: ValueId,
    /// Of all its forms together, a line.
    pub floats: usize,
    /// The stage that makes it, and the last whose works read it.
    pub made: usize,
    pub read: usize,
}

impl Places {
    /// `as_numbers` tells of a matrix whether its product may read its operand as f32: of others a fed operand's numbers are not kept
    /// beyond the stage that converts them. Values in `unkept` are converted by the works that make them, and lie nowhere.
    pub fn new(
        program: &Program,
        schedule: &Schedule,
        feeds: &[FeedLife],
        as_numbers: &dyn Fn(Matrix) -> bool,
        unkept: &[ValueId],
    ) -> Places {
        let mut lives = lives(program, schedule, as_numbers);
        unkept.iter().for_each(|id| lives[id.0 as usize] = None);
        let heir_of = inherit(program, schedule, &mut lives, as_numbers);
        let memory_of = |rows| if rows == Rows::All { Memory::Rows } else { Memory::Wanted };
        let tenant = |value: usize| {
            let Life { first, last, .. } = lives[value].filter(|_| heir_of[value] == value)?;
            let info = program.values[value];
            let memory = if value == program.logits.id.0 as usize { Memory::Logits } else { memory_of(info.rows) };
            Some(Tenant { id: value, memory, floats: info.floats.next_multiple_of(LINE_FLOATS), first, last, offset: 0 })
        };
        let mut tenants: Vec<Tenant> = (0..lives.len()).filter_map(tenant).collect();
        tenants.extend(feeds.iter().enumerate().map(|(feed, life)| Tenant {
            id: lives.len() + feed,
            memory: memory_of(program.value(life.value).rows),
            floats: life.floats.next_multiple_of(LINE_FLOATS),
            first: 2 * life.made + usize::from(!unkept.contains(&life.value)),
            last: 2 * life.read,
            offset: 0,
        }));
        let sizes = settle(&mut tenants);
        let mut found = vec![None; lives.len() + feeds.len()];
        for tenant in tenants {
            found[tenant.id] = Some(Place { memory: tenant.memory, offset: tenant.offset });
        }
        let of_feed = found.split_off(lives.len()).into_iter().map(|place| place.expect("every feed has a place")).collect();
        let of_value = heir_of.iter().map(|&first| found[first]).collect();
        Places { of_value, of_feed, sizes }
    }

    /// Floats a line of a memory.
    pub fn size(&self, memory: Memory) -> usize {
        self.sizes[memory as usize]
    }

    /// Floats of all memories in a step of `n` rows, `m` of which want logits.
    pub fn floats(&self, n: usize, m: usize) -> usize {
        Memory::ALL.iter().map(|memory| self.size(*memory) * if memory.rows() == Rows::All { n } else { m }).sum()
    }

    /// Where a value lies that a work or tail operation reads or writes.
    pub fn place(&self, id: ValueId) -> Place {
        self.find(id).expect("only values inside a work have no place")
    }

    /// `None` for a value that never leaves a work.
    pub fn find(&self, id: ValueId) -> Option<Place> {
        self.of_value[id.0 as usize]
    }

    pub fn feed(&self, feed: usize) -> Place {
        self.of_feed[feed]
    }
}

/// Values of all rows that a gated product makes for one stage's end to convert, and that nobody reads as numbers.
pub fn only_converted(program: &Program, schedule: &Schedule, as_numbers: &dyn Fn(Matrix) -> bool) -> Vec<ValueId> {
    let lives = lives(program, schedule, as_numbers);
    let mut found = Vec::new();
    for (number, stage) in schedule.stages.iter().enumerate() {
        let ends = |id: ValueId| lives[id.0 as usize].is_some_and(|life| life.last == 2 * number + 1);
        let steps = || stage.tail.iter().chain(&stage.stores).map(|&step| &program.steps[step].op);
        for &work in stage.works.iter().filter(|w| matches!(w, Work::GatedLinear { .. })) {
            let id = result_of(program, work).expect("it has a result");
            let is_read = steps().any(|op| op.operands().iter().any(|operand| operand.id == id));
            if program.value(id).rows == Rows::All && ends(id) && !is_read {
                found.push(id);
            }
        }
    }
    found
}

/// The moments of a value.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
    /// Where it ends with a stage's end: how many steps into it.
    step: usize,
}

/// For each value that leaves a work.
fn lives(program: &Program, schedule: &Schedule, as_numbers: &dyn Fn(Matrix) -> bool) -> Vec<Option<Life>> {
    let mut lives: Vec<Option<Life>> = vec![None; program.values.len()];
    let mut touch = |id: ValueId, moment: usize, step: usize| {
        let life = lives[id.0 as usize].get_or_insert(Life { first: moment, last: moment, step });
        (life.last, life.step) = (moment, step);
    };
    for (number, stage) in schedule.stages.iter().enumerate() {
        let (works, end) = (2 * number, 2 * number + 1);
        for &work in &stage.works {
            let operands = numbers_read(program, work, as_numbers);
            operands.into_iter().chain(result_of(program, work)).for_each(|id| touch(id, works, 0));
        }
        for (at, &step) in stage.tail.iter().enumerate() {
            let Step { op, out, .. } = &program.steps[step];
            op.operands().iter().map(|v| v.id).chain(*out).for_each(|id| touch(id, end, at));
        }
        // These come when all rows are through the steps, or when a row is.
        let after = stage.tail.len();
        let stored = stage.stores.iter().flat_map(|&step| program.steps[step].op.operands());
        stored.chain(stage.feeds.iter().copied()).for_each(|operand| touch(operand.id, end, after));
    }
    lives
}

/// What a work reads of values as they are, not of their forms.
fn numbers_read(program: &Program, work: Work, as_numbers: &dyn Fn(Matrix) -> bool) -> Vec<ValueId> {
    let converted = |op: &Op| matches!(*op, Op::Linear { weight, .. } if !as_numbers(weight));
    let ops = steps_of(work).into_iter().map(|step| &program.steps[step].op);
    let operands: Vec<Value> = match work {
        Work::Experts { part, .. } => ops.filter_map(|op| part.operand(op)).collect(),
        Work::AddedLinear { to, .. } => ops.filter(|op| !converted(op)).flat_map(|op| op.operands()).chain([to]).collect(),
        _ => ops.filter(|op| !converted(op)).flat_map(|op| op.operands()).collect(),
    };
    operands.into_iter().map(|v| v.id).collect()
}

/// The operand whose numbers each piece of a work reads only where it writes its own result, if one is like that.
fn over(program: &Program, work: Work) -> Option<ValueId> {
    match work {
        Work::AddedLinear { to, .. } => Some(to.id),
        Work::Step(index) => match program.steps[index].op {
            // The heads of a piece's queries, whose results are as wide.
            Op::Attention { q, .. } => Some(q.id),
            _ => None,
        },
        _ => None,
    }
}

/// Lets results take over places. For each value the one that it has its place from, itself or an earlier one, whose life then becomes as
/// long as both.
fn inherit(program: &Program, schedule: &Schedule, lives: &mut [Option<Life>], as_numbers: &dyn Fn(Matrix) -> bool) -> Vec<usize> {
    let mut from: Vec<usize> = (0..lives.len()).collect();
    let mut take_over = |lives: &mut [Option<Life>], out: ValueId, of: ValueId| {
        from[out.0 as usize] = from[of.0 as usize];
        let last = lives[out.0 as usize].expect("somebody writes it").last;
        let owner = lives[from[of.0 as usize]].as_mut().expect("it has a place");
        owner.last = owner.last.max(last);
    };
    let alike = |a: ValueId, b: ValueId| {
        let (a, b) = (program.value(a), program.value(b));
        (a.rows, a.floats) == (b.rows, b.floats)
    };
    for (number, stage) in schedule.stages.iter().enumerate() {
        let (works, end) = (2 * number, 2 * number + 1);
        let read: Vec<ValueId> = stage.works.iter().flat_map(|&work| numbers_read(program, work, as_numbers)).collect();
        for &work in &stage.works {
            let (Some(operand), Some(out)) = (over(program, work), result_of(program, work)) else { continue };
            let alone = read.iter().filter(|id| **id == operand).count() == 1;
            let done = lives[operand.0 as usize].is_some_and(|life| life.last == works);
            if alone && done && alike(operand, out) && out != program.logits.id {
                take_over(lives, out, operand);
            }
        }
        // What is read by the steps so far, and has not been taken over.
        let mut read: Vec<ValueId> = Vec::new();
        for (at, &step) in stage.tail.iter().enumerate() {
            let Step { op, out: Some(out), .. } = program.steps[step] else { continue };
            if out == program.logits.id {
                continue;
            }
            read.extend(op.operands().iter().map(|v| v.id));
            let operands = in_place(&op);
            let is_free = |value: &ValueId| {
                let done = |life: Life| life.last == end && (life.step < at || life.step == at && operands.contains(value));
                alike(*value, out) && lives[value.0 as usize].is_some_and(done)
            };
            // Best its own operand: that is not copied either.
            let own = operands.iter().copied().find(is_free);
            let Some(value) = own.or_else(|| read.iter().copied().find(is_free)) else { continue };
            read.retain(|v| *v != value);
            take_over(lives, out, value);
        }
    }
    from
}

/// Operands that an operation may write its result over: [`View::rowwise`](super::walk::View::rowwise) can.
pub fn in_place(op: &Op) -> Vec<ValueId> {
    match *op {
        Op::Rope { x, .. } => vec![x.id],
        Op::Add { a, b } if a.id != b.id => vec![a.id, b.id],
        _ => Vec::new(),
    }
}

/// Something that needs a place.
struct Tenant {
    id: usize,
    memory: Memory,
    floats: usize,
    first: usize,
    last: usize,
    offset: usize,
}

/// Gives each its offset: widest first, each at the lowest that nobody holds who lives at the same time. That comes to the most that is
/// alive at once, or close to it. Returns the sizes of the memories.
fn settle(tenants: &mut [Tenant]) -> [usize; Memory::ALL.len()] {
    tenants.sort_by_key(|t| (Reverse(t.floats), t.first, t.last, t.id));
    let mut sizes = [0; Memory::ALL.len()];
    for n in 0..tenants.len() {
        let (placed, rest) = tenants.split_at_mut(n);
        let tenant = &mut rest[0];
        let beside = |other: &&Tenant| other.memory == tenant.memory && other.first <= tenant.last && tenant.first <= other.last;
        let mut taken: Vec<(usize, usize)> = placed.iter().filter(beside).map(|t| (t.offset, t.offset + t.floats)).collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + tenant.floats <= start {
                break;
            }
            offset = offset.max(end);
        }
        tenant.offset = offset;
        let size = &mut sizes[tenant.memory as usize];
        *size = (*size).max(offset + tenant.floats);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::schedule::tests::{llama, llama_of, mixture, sums};
    use super::*;
    use crate::program::Value;

    /// Whoever lies somewhere: a value or a feed.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Who {
        Value(ValueId),
        Feed(usize),
    }

    /// Memory as a list of who lies where.
    struct Held<'a> {
        program: &'a Program,
        places: &'a Places,
        feeds: &'a [FeedLife],
        there: Vec<Who>,
    }

    impl Held<'_> {
        fn extent(&self, who: Who) -> (Place, usize) {
            match who {
                Who::Value(id) => (self.places.place(id), self.program.value(id).floats),
                Who::Feed(feed) => (self.places.feed(feed), self.feeds[feed].floats),
            }
        }

        fn reads(&self, who: Who) {
            assert!(self.there.contains(&who), "{who:?} is read");
        }

        /// Whoever lay where `who` is written is gone.
        fn write(&mut self, who: Who) {
            let (place, floats) = self.extent(who);
            assert!(place.offset + floats <= self.places.size(place.memory));
            let there = std::mem::take(&mut self.there);
            self.there = there.into_iter().filter(|&other| !self.meet(who, other)).collect();
            self.there.push(who);
        }

        fn meet(&self, a: Who, b: Who) -> bool {
            let ((a, n), (b, m)) = (self.extent(a), self.extent(b));
            a.memory == b.memory && a.offset < b.offset + m && b.offset < a.offset + n
        }
    }

    /// One feed a fed value, of so many floats for its width.
    fn feeds(program: &Program, schedule: &Schedule, floats: impl Fn(usize) -> usize) -> Vec<FeedLife> {
        let stages = || schedule.stages.iter().enumerate();
        let reads = |id: ValueId| {
            let steps = |works: &[Work]| works.iter().flat_map(|&w| steps_of(w)).collect::<Vec<_>>();
            let of_stage = |works: &[Work]| steps(works).iter().any(|&s| program.steps[s].op.operands().iter().any(|v| v.id == id));
            stages().filter(|(_, stage)| of_stage(&stage.works)).map(|(number, _)| number).max().expect("a feed has a reader")
        };
        stages()
            .flat_map(|(made, stage)| stage.feeds.iter().map(move |v| (made, *v)))
            .map(|(made, Value { id, width, .. })| FeedLife { value: id, floats: floats(width), made, read: reads(id) })
            .collect()
    }

    #[test]
    fn operands_are_there_and_not_written_over_before_they_are_read() {
        for program in [llama(3), mixture(3), sums(3)] {
            operands_are_there_in(&program);
        }
    }

    fn operands_are_there_in(program: &Program) {
        let schedule = Schedule::new(program);
        let feeds = feeds(program, &schedule, |_| 48);
        // All converted, none, and every other one: so also one of a gated pair.
        let rules: [&dyn Fn(Matrix) -> bool; 3] = [&|_| false, &|_| true, &|matrix| matrix.weight.0 % 2 == 0];
        for (as_numbers, by_columns) in rules.into_iter().flat_map(|rule| [(rule, false), (rule, true)]) {
            let unkept = if by_columns { only_converted(program, &schedule, as_numbers) } else { Vec::new() };
            let places = Places::new(program, &schedule, &feeds, as_numbers, &unkept);
            let mut held = Held { program, places: &places, feeds: &feeds, there: Vec::new() };
            // What a work's step reads: the feed of an operand, its numbers, or (in a mixed pair) both.
            let operands = |work: Work| {
                let of_step = |step: usize| -> Vec<Who> {
                    let op = &program.steps[step].op;
                    match *op {
                        Op::Moe { .. } => {
                            let Work::Experts { part, .. } = work else { unreachable!("of a part") };
                            part.operand(op).map(|v| Who::Value(v.id)).into_iter().collect()
                        }
                        Op::Linear { x, weight, .. } if !as_numbers(weight) => {
                            vec![Who::Feed(feeds.iter().position(|feed| feed.value == x.id).expect("fed"))]
                        }
                        _ => op.operands().iter().map(|v| Who::Value(v.id)).collect(),
                    }
                };
                let added_to = match work {
                    Work::AddedLinear { to, .. } => Some(Who::Value(to.id)),
                    _ => None,
                };
                steps_of(work).into_iter().flat_map(of_step).chain(added_to).collect::<Vec<_>>()
            };
            for (number, stage) in schedule.stages.iter().enumerate() {
                let made: Vec<usize> = (0..feeds.len()).filter(|&feed| feeds[feed].made == number).collect();
                // Works of a stage run at the same time: all read before any writes, and all have written before the tail. What one writes
                // in the place of its own operand, value over value, no other reads.
                let mut read: Vec<Who> = stage.works.iter().flat_map(|&w| operands(w)).collect();
                read.iter().for_each(|&x| held.reads(x));
                for &work in &stage.works {
                    let Some(id) = result_of(program, work) else { continue };
                    if let Some(operand) = over(program, work).map(Who::Value)
                        && places.find(id).is_some()
                        && held.extent(operand) == held.extent(Who::Value(id))
                    {
                        let at = read.iter().position(|&x| x == operand).expect("it reads it");
                        read.swap_remove(at);
                    }
                    match made.iter().find(|&&feed| unkept.contains(&id) && feeds[feed].value == id) {
                        Some(&feed) => held.write(Who::Feed(feed)),
                        None => held.write(Who::Value(id)),
                    }
                }
                read.iter().for_each(|&x| held.reads(x));
                let mut of_tail: Vec<Who> = Vec::new();
                for &step in &stage.tail {
                    let Step { op, out, .. } = &program.steps[step];
                    let own: Vec<Who> = op.operands().iter().map(|v| Who::Value(v.id)).collect();
                    own.iter().for_each(|&x| held.reads(x));
                    of_tail.extend(&own);
                    let Some(out) = *out else { continue };
                    let out = Who::Value(out);
                    // Some rows are at this step while others are anywhere in the tail: a result lies over what any step reads only if
                    // row lies over row, and over its operands only where the operation can work in place.
                    for &x in of_tail.iter().filter(|&&x| held.meet(out, x)) {
                        assert_eq!(held.extent(out), held.extent(x), "{out:?} over {x:?}");
                        let can = matches!(x, Who::Value(id) if in_place(op).contains(&id));
                        assert!(can || !own.contains(&x), "{out:?} over its operand {x:?}");
                    }
                    held.write(out);
                }
                let stored = stage.stores.iter().flat_map(|&step| program.steps[step].op.operands());
                stored.for_each(|x| held.reads(Who::Value(x.id)));
                for feed in made.into_iter().filter(|&feed| !unkept.contains(&feeds[feed].value)) {
                    // Rows are converted while others are anywhere in the tail.
                    assert!(of_tail.iter().all(|&x| !held.meet(Who::Feed(feed), x)), "feed {feed} over what a step reads");
                    held.reads(Who::Value(feeds[feed].value));
                    held.write(Who::Feed(feed));
                    held.reads(Who::Value(feeds[feed].value));
                }
            }
            held.reads(Who::Value(program.logits.id));
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_layers_and_is_what_lives_at_once() {
        let sizes = |layers: usize, read_as_numbers: bool| {
            let program = llama(layers);
            let schedule = Schedule::new(&program);
            let as_numbers = |_: Matrix| read_as_numbers;
            let unkept = only_converted(&program, &schedule, &as_numbers);
            // The last layer's is of the wanted rows.
            assert_eq!(unkept.len(), if read_as_numbers { 0 } else { layers - 1 });
            Places::new(&program, &schedule, &feeds(&program, &schedule, |_| LINE_FLOATS), &as_numbers, &unkept).sizes
        };
        assert_eq!(sizes(3, false), sizes(30, false));
        // When rows are narrower than a line each takes a line: the residual stream, what the products read, q, k and v.
        assert_eq!(sizes(3, false)[Memory::Rows as usize], 5 * LINE_FLOATS);
        assert!(sizes(3, true)[Memory::Rows as usize] > 5 * LINE_FLOATS, "numbers that nobody reads take no place");
    }

    /// The peak of a prompt: a change that costs a row a kilobyte costs a step of 512 rows half a megabyte.
    #[test]
    fn a_row_of_llama_3_2_1b_takes_so_much() {
        let program = llama_of(16, [2048, 512, 8192]);
        let schedule = Schedule::new(&program);
        // Codes, and three words for each 32 of them.
        let form = |width: usize| width * (32 + 12) / 32 / 4;
        let feeds = feeds(&program, &schedule, form);
        let size = |unkept: &[ValueId]| Places::new(&program, &schedule, &feeds, &|_| false, unkept).size(Memory::Rows);
        let unkept = only_converted(&program, &schedule, &|_| false);
        // While q, k and v are made: the stream, keys and values, and where the layer's last product will find what it reads: q, and what
        // all three read.
        assert!(2048 + form(2048) <= form(8192));
        assert_eq!(size(&unkept), 2048 + 2 * 512 + form(8192));
        // Few rows are converted after a stage: the stream, the gated numbers and what becomes of them.
        assert_eq!(size(&[]), 2048 + 8192 + form(8192));
    }
}
