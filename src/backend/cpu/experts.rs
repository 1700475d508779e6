//! Mixtures of experts: each row picks its own, and each expert's weights are read once for all the rows that picked it.
//!
//! Four parts, of which each needs all of the one before:
//! - *route*: the experts of each row; once all have theirs, the rows of each expert: its *group*.
//! - *gather*: a group's rows of x side by side, in the form that the products want for so many.
//! - *inner*: `f(gate · x) · (up · x)`, some columns of a group; whoever finishes its last brings them all into the form that down wants.
//! - *outer*: some columns of the result: group by group down's product, times each row's weight, added to the rows' sums. So a sum is
//!   made in one order, whoever makes it, and no row of it is held once for every pick.
//!
//! A step of n rows that pick k experts each holds meanwhile n·k rows of x or of the inner numbers, whichever are larger, in int8 (1.1 to
//! 1.4 bytes a number; a group in panels is filled up to whole ones), and n·k rows of inner numbers as they are.

use super::arena::{AlignedBytes, Shared, bytes_of};
use super::feeds;
use super::plan::CONVERT_TOKENS;
use super::products::{START_BYTES, chunk_bytes};
use super::rowwise::activation as kernel_activation;
use super::schedule::Part;
use super::walk::{Scratch, View};
use crate::program::{Gating, Matrix, Op, Program, Step};
use hearth_kernels::cpu::{Activations, Columns, Form};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

/// Rows of one piece of routing: a few thousand comparisons, which is worth a claim. A guess.
const ROUTE_ROWS: usize = 8;
/// Pieces of the outer part for each worker at most: every piece reads the inner rows of all groups, so there should be few. A guess.
const OUTER_PIECES: usize = 12;

/// An expert that a row picked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pick {
    expert: usize,
    weight: f32,
}

/// Which rows go through which expert.
#[derive(Debug, Default)]
pub struct Routing {
    /// Group by group, in the order of the experts; in a group in the order of the rows.
    entries: Vec<Entry>,
    groups: Vec<Group>,
}

/// A row that picked a group's expert.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    row: usize,
    weight: f32,
}

/// The rows of one expert.
#[derive(Debug)]
struct Group {
    expert: usize,
    entries: Range<usize>,
    /// Where its rows lie in [`Mixture::rows`]: first those of x, then, once all inner pieces are done with them, the inner ones.
    bytes: Range<usize>,
    /// Inner pieces that are done.
    done: AtomicUsize,
}

impl Group {
    fn rows(&self) -> usize {
        self.entries.len()
    }
}

impl Routing {
    /// `picks`: `used` of each row, different ones. `room` tells the bytes of a group of so many rows.
    fn new(picks: &[Pick], used: usize, experts: usize, room: impl Fn(usize) -> usize) -> Routing {
        let mut rows_of = vec![0; experts];
        picks.iter().for_each(|pick| rows_of[pick.expert] += 1);
        let mut groups = Vec::with_capacity(experts.min(picks.len()));
        // Where each expert's next entry goes.
        let mut next = vec![0; experts];
        let (mut first, mut at) = (0, 0);
        for (expert, rows) in rows_of.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
            next[expert] = first;
            let (entries, bytes) = (first..first + rows, at..at + room(rows));
            (first, at) = (entries.end, bytes.end);
            groups.push(Group { expert, entries, bytes, done: AtomicUsize::new(0) });
        }
        let mut entries = vec![Entry { row: 0, weight: 0.0 }; picks.len()];
        for (at, pick) in picks.iter().enumerate() {
            entries[next[pick.expert]] = Entry { row: at / used, weight: pick.weight };
            next[pick.expert] += 1;
        }
        Routing { entries, groups }
    }

    fn entries(&self, group: &Group) -> &[Entry] {
        &self.entries[group.entries.clone()]
    }
}

/// What the parts of a mixture leave for each other.
#[derive(Default)]
pub struct MixtureMemory {
    picks: Vec<Pick>,
    routing: Routing,
    rows: AlignedBytes,
    inner: AlignedBytes,
}

/// The same, as the crew sees it during a step.
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    /// `[rows, used]`
    picks: Shared<'a, Pick>,
    /// One.
    routing: Shared<'a, Routing>,
    rows: Shared<'a, u8>,
    /// `[entries, width]`
    inner: Shared<'a, f32>,
}

impl Default for Mixture<'_> {
    fn default() -> Self {
        Mixture { picks: Shared::new(&mut []), routing: Shared::new(&mut []), rows: Shared::new(&mut []), inner: Shared::new(&mut []) }
    }
}

/// What mixtures need in one step: picks, bytes of rows, inner numbers.
#[derive(Clone, Copy, Default)]
pub struct Rooms {
    picks: usize,
    bytes: usize,
    inner: usize,
}

impl MixtureMemory {
    pub fn share(&mut self, rooms: Rooms) -> Mixture<'_> {
        self.picks.resize(rooms.picks.max(self.picks.len()), Pick::default());
        self.rows.reserve(rooms.bytes);
        self.inner.reserve(rooms.inner * size_of::<f32>());
        Mixture {
            picks: Shared::new(&mut self.picks),
            routing: Shared::new(std::slice::from_mut(&mut self.routing)),
            rows: Shared::new(self.rows.as_mut()),
            inner: Shared::new(self.inner.as_floats_mut()),
        }
    }

    /// In bytes, what it comes to about for steps of so many rows: groups that are filled up, and products of plain numbers, need more.
    pub fn fit(program: &Program, rows: usize) -> usize {
        let need = |step: &Step| match step.op {
            Op::Moe { x, gate, experts, used, .. } => {
                let (width, picks) = (gate.rows / experts, rows * used);
                Form::PanelBy32.bytes(x.floats().max(width), picks) + picks * width * size_of::<f32>()
            }
            _ => 0,
        };
        program.steps.iter().map(need).max().unwrap_or(0)
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.rows.len() + self.inner.len() + size_of_val(&self.picks[..])
    }
}

impl View<'_> {
    /// What a piece of a part takes of whatever that part is cut along, and all there is.
    pub fn experts_cut(&self, index: usize, part: Part, workers: usize) -> (usize, usize) {
        let Op::Moe { gate, up, down, experts, used, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let rows = self.step.lines(self.domain(index)).len();
        if rows == 0 {
            return (1, 0);
        }
        // How many there are is known when all rows have picked: pieces of groups that are not there have nothing to do.
        let groups = experts.min(rows * used);
        let rows_each = (rows * used).div_ceil(groups);
        let bytes = |matrix: Matrix| self.weights(matrix).bytes.len() / experts * groups;
        match part {
            Part::Route => (ROUTE_ROWS, rows),
            Part::Gather => (1, groups),
            Part::Inner => {
                let (width, tile) = (gate.rows / experts, self.expert_tile(gate, rows).max(self.expert_tile(up, rows)));
                let chunks = bytes(gate) / chunk_bytes(bytes(gate), workers, rows_each);
                let each = width.div_ceil(chunks.div_ceil(groups).max(1)).next_multiple_of(tile);
                (each, groups * width.next_multiple_of(each))
            }
            Part::Outer => {
                let (floats, tile) = (down.rows / experts, self.expert_tile(down, rows));
                // As in `chunk_bytes`, but a piece begins anew in every group. With more rows a byte takes longer, and a start does not.
                let starts = bytes(down) as u64 * (workers * rows_each) as u64 / (2 * groups * START_BYTES) as u64;
                let pieces = (starts.isqrt() as usize).clamp(1, OUTER_PIECES * workers).next_multiple_of(workers);
                (floats.div_ceil(pieces).next_multiple_of(tile), floats)
            }
        }
    }

    /// Weight rows that pieces take whole multiples of, for groups of up to so many rows.
    fn expert_tile(&self, matrix: Matrix, rows: usize) -> usize {
        let format = self.weights(matrix).format;
        let possible = feeds::thresholds(self.run.kernels, format).into_iter().filter(|group| *group <= rows);
        possible.map(|group| self.run.kernels.row_tile(format, self.expert_form(matrix, group), group)).max().unwrap_or(1)
    }

    /// Picks the experts of some rows.
    pub fn route(&self, index: usize, rows: Range<usize>) {
        let Op::Moe { router, used, gating, normalise, scale, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        // SAFETY: these rows are this piece's alone.
        let picks = unsafe { self.mixture.picks.part_mut(rows.start * used..rows.end * used) };
        let scores = self.rows(router, rows).chunks_exact(router.floats());
        scores.zip(picks.chunks_exact_mut(used)).for_each(|(scores, picks)| pick_experts(scores, picks, gating, normalise, scale));
    }

    /// Finds the groups, once all rows have picked. Run by one worker alone.
    pub fn group_rows(&self, index: usize) {
        let Op::Moe { used, experts, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let rows = self.step.lines(self.domain(index)).len();
        // SAFETY: nobody picks any more, and nobody reads groups until this is over.
        let (picks, routing) = unsafe { (self.mixture.picks.part(0..rows * used), self.mixture.routing.part_mut(0..1)) };
        routing[0] = Routing::new(picks, used, experts, |rows| self.group_bytes(index, rows));
    }

    /// Brings a group's rows of x together.
    pub fn gather(&self, index: usize, number: usize, scratch: &mut Scratch) {
        let Op::Moe { x, gate, up, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let routing = self.routing();
        let Some(group) = routing.groups.get(number) else { return };
        let (floats, rows) = (x.floats(), group.rows());
        // SAFETY: this group is this piece's alone.
        let mut rest = unsafe { self.mixture.rows.part_mut(group.bytes.clone()) };
        scratch.gates.resize((CONVERT_TOKENS * floats).max(scratch.gates.len()), 0.0);
        for form in self.forms_of_x(gate, up, rows) {
            let (bytes, other) = rest.split_at_mut(form_bytes(form, floats, rows));
            rest = other;
            for (part, entries) in routing.entries(group).chunks(CONVERT_TOKENS).enumerate() {
                let side_by_side = &mut scratch.gates[..entries.len() * floats];
                for (entry, to) in entries.iter().zip(side_by_side.chunks_exact_mut(floats)) {
                    to.copy_from_slice(self.rows(x, entry.row..entry.row + 1));
                }
                let start = form.bytes(floats, part * CONVERT_TOKENS);
                self.bring_into(form, floats, side_by_side, &mut bytes[start..start + form.bytes(floats, entries.len())]);
            }
        }
    }

    /// `f(gate · x) · (up · x)`: of the groups' columns, one group's after the other's, `columns`.
    pub fn inner(&self, index: usize, columns: Range<usize>, scratch: &mut Scratch) {
        let Op::Moe { x, gate, up, down, experts, activation, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let (width, each) = (gate.rows / experts, columns.len());
        let pieces = width.div_ceil(each);
        let (number, piece) = (columns.start / each / pieces, columns.start / each % pieces);
        let Some(group) = self.routing().groups.get(number) else { return };
        let columns = piece * each..((piece + 1) * each).min(width);
        let rows = group.rows();
        let size = rows * columns.len();
        scratch.gates.resize(size.max(scratch.gates.len()), 0.0);
        scratch.ups.resize(size.max(scratch.ups.len()), 0.0);
        let (gates, ups) = (&mut scratch.gates[..size], &mut scratch.ups[..size]);
        let forms = self.forms_of_x(gate, up, rows);
        for (matrix, out) in [(gate, &mut *gates), (up, ups)] {
            let form = self.expert_form(matrix, rows);
            let before: usize = forms.iter().take_while(|f| **f != form).map(|f| form_bytes(*f, x.floats(), rows)).sum();
            self.multiply_group(self.of_expert(matrix, experts, group.expert, &columns), group, before, out, scratch.kernel.as_mut());
        }
        let numbers = self.mixture.inner.within(group.entries.start * width..group.entries.end * width);
        // SAFETY: these columns of the group are this piece's alone.
        let mut out = unsafe { numbers.columns(rows, width, columns.clone()) };
        for (row, (gate, up)) in gates.chunks_exact(columns.len()).zip(scratch.ups.chunks_exact(columns.len())).enumerate() {
            self.run.kernels.gated(kernel_activation(activation), gate, up, out.token(row));
        }
        if group.done.fetch_add(1, AcqRel) + 1 < pieces {
            return;
        }
        let form = self.expert_form(down, rows);
        let at = group.bytes.start;
        // SAFETY: all pieces of the group are done (each counted itself after its last access, and this one saw the counts of all the
        // others), so nobody writes these numbers or reads its rows of x.
        let (x, bytes) = unsafe { (numbers.part(0..rows * width), self.mixture.rows.part_mut(at..at + form.bytes(width, rows))) };
        self.bring_into(form, width, x, bytes);
    }

    /// Columns `columns` of the result, of all rows.
    pub fn outer(&self, index: usize, columns: Range<usize>, scratch: &mut Scratch) {
        let Op::Moe { down, experts, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let (out, floats) = self.result(index);
        let rows = self.step.lines(self.domain(index)).len();
        // SAFETY: these columns are this piece's alone.
        let mut y = unsafe { out.columns(rows, floats, columns.clone()) };
        (0..rows).for_each(|row| y.token(row).fill(0.0));
        let routing = self.routing();
        for group in &routing.groups {
            let size = group.rows() * columns.len();
            scratch.gates.resize(size.max(scratch.gates.len()), 0.0);
            let products = &mut scratch.gates[..size];
            self.multiply_group(self.of_expert(down, experts, group.expert, &columns), group, 0, products, scratch.kernel.as_mut());
            for (entry, part) in routing.entries(group).iter().zip(products.chunks_exact(columns.len())) {
                self.run.kernels.add_scaled(y.token(entry.row), entry.weight, part);
            }
        }
    }

    /// What the mixtures of this step need at most: which groups there will be is not known yet.
    pub fn mixture_rooms(&self) -> Rooms {
        let mut rooms = Rooms::default();
        for (index, step) in self.run.program.steps.iter().enumerate() {
            let Op::Moe { gate, up, down, experts, used, .. } = step.op else { continue };
            let picks = self.step.lines(step.rows).len() * used;
            let formats = [gate, up, down].map(|matrix| self.weights(matrix).format);
            let many = formats.map(|format| self.run.kernels.many_from(format)).into_iter().min().expect("there are three");
            // A row's bytes in a group that is full, and the rows that groups of panels are filled up by.
            let full = CONVERT_TOKENS;
            let sizes = formats.into_iter().flat_map(|format| feeds::thresholds(self.run.kernels, format)).chain([full - 1, full]);
            let of_row = sizes.map(|n| self.group_bytes(index, n).div_ceil(if n < many { n } else { n.next_multiple_of(full) })).max();
            let filled = (full - 1) * experts.min(picks / many);
            let bytes = of_row.unwrap_or(0) * (picks + filled);
            let inner = picks * (gate.rows / experts);
            rooms = Rooms { picks: picks.max(rooms.picks), bytes: bytes.max(rooms.bytes), inner: inner.max(rooms.inner) };
        }
        rooms
    }

    fn routing(&self) -> &Routing {
        // SAFETY: it was written by the stage before, and the next to write it comes when all parts of this mixture are over.
        unsafe { &self.mixture.routing.part(0..1)[0] }
    }

    /// Bytes of a group of so many rows: its rows of x, or its inner ones in their place.
    fn group_bytes(&self, index: usize, rows: usize) -> usize {
        let Op::Moe { x, gate, up, down, experts, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let of_x: usize = self.forms_of_x(gate, up, rows).iter().map(|&form| form_bytes(form, x.floats(), rows)).sum();
        of_x.max(form_bytes(self.expert_form(down, rows), gate.rows / experts, rows))
    }

    fn expert_form(&self, matrix: Matrix, rows: usize) -> Form {
        feeds::form(self.run.kernels, self.weights(matrix).format, matrix.columns, rows, self.run.exact)
    }

    /// The forms in which a group's x is wanted: gate and up may differ.
    fn forms_of_x(&self, gate: Matrix, up: Matrix, rows: usize) -> Vec<Form> {
        let mut forms = vec![self.expert_form(gate, rows), self.expert_form(up, rows)];
        forms.dedup();
        forms
    }

    /// Rows `rows` of an expert's part of a matrix that has all experts below each other.
    fn of_expert(&self, matrix: Matrix, experts: usize, expert: usize, rows: &Range<usize>) -> Matrix {
        let first_row = matrix.first_row + matrix.rows / experts * expert + rows.start;
        Matrix { first_row, rows: rows.len(), ..matrix }
    }

    /// A matrix times a group's rows, which lie from byte `before` of the group on. `out`: `[rows, matrix.rows]`.
    fn multiply_group(&self, matrix: Matrix, group: &Group, before: usize, out: &mut [f32], scratch: &mut [u8]) {
        let form = self.expert_form(matrix, group.rows());
        let at = group.bytes.start + before;
        // SAFETY: who wrote them is done, and who writes over them waits for whoever reads them: the meeting of a stage, or the count of
        // the group's pieces.
        let bytes = unsafe { self.mixture.rows.part(at..at + form.bytes(matrix.columns, group.rows())) };
        let activations = Activations { form, bytes, tokens: group.rows() };
        self.run.kernels.mat_mul(self.weights(matrix), activations, Columns::of(out, matrix.rows), scratch);
    }

    fn bring_into(&self, form: Form, width: usize, x: &[f32], bytes: &mut [u8]) {
        match form {
            Form::F32 => bytes.copy_from_slice(bytes_of(x)),
            _ => self.run.kernels.quantize(form, width, x, bytes),
        }
    }
}

/// Bytes of rows in a form, up to where the next may lie.
fn form_bytes(form: Form, width: usize, rows: usize) -> usize {
    form.bytes(width, rows).next_multiple_of(64)
}

/// The experts of one row and their weights, the largest first; of equals the lower index. As many as there is room for.
fn pick_experts(scores: &[f32], picks: &mut [Pick], gating: Gating, normalise: bool, scale: f32) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: f32| match gating {
        Gating::Softmax => (score - largest).exp(),
        Gating::Sigmoid => 1.0 / (1.0 + (-score).exp()),
    };
    let mut all: Vec<Pick> = scores.iter().enumerate().map(|(expert, &score)| Pick { expert, weight: weight(score) }).collect();
    if gating == Gating::Softmax {
        let sum: f32 = all.iter().map(|pick| pick.weight).sum();
        all.iter_mut().for_each(|pick| pick.weight /= sum);
    }
    // An order of all numbers, NaN too: sorting by any other may panic.
    let order = |a: &Pick, b: &Pick| b.weight.total_cmp(&a.weight).then(a.expert.cmp(&b.expert));
    let used = picks.len();
    if used < all.len() {
        all.select_nth_unstable_by(used, order);
    }
    all[..used].sort_unstable_by(order);
    picks.copy_from_slice(&all[..used]);
    let sum = if normalise { picks.iter().map(|pick| pick.weight).sum() } else { 1.0 };
    picks.iter_mut().for_each(|pick| pick.weight = pick.weight / sum * scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pick_of_each_row_is_in_one_group_once() {
        const EXPERTS: usize = 7;
        for (rows, used) in [(1, 3), (5, 1), (40, 3), (9, EXPERTS), (0, 2)] {
            // Whichever, but different ones in a row; expert 4 only where all are used.
            let picks: Vec<Pick> = (0..rows * used)
                .map(|at| {
                    let choice = (at / used * 5 + at % used) % if used == EXPERTS { EXPERTS } else { EXPERTS - 1 };
                    Pick { expert: if used < EXPERTS && choice >= 4 { choice + 1 } else { choice }, weight: at as f32 }
                })
                .collect();
            let routing = Routing::new(&picks, used, EXPERTS, |rows| rows * 64);
            let mut found = Vec::new();
            for group in &routing.groups {
                let entries = routing.entries(group);
                assert!(!entries.is_empty() && entries.is_sorted_by(|a, b| a.row < b.row), "{group:?}");
                assert_eq!(group.bytes, group.entries.start * 64..group.entries.end * 64, "rows lie one after the other");
                found.extend(entries.iter().map(|e| (e.row, group.expert, e.weight)));
            }
            assert!(routing.groups.is_sorted_by(|a, b| a.expert < b.expert), "one group an expert");
            let mut want: Vec<_> = picks.iter().enumerate().map(|(at, pick)| (at / used, pick.expert, pick.weight)).collect();
            let key = |(row, expert, _): &(usize, usize, f32)| (*row, *expert);
            found.sort_by_key(key);
            want.sort_by_key(key);
            assert_eq!(found, want);
        }
    }

    #[test]
    fn the_largest_are_picked_of_equals_the_first() {
        let mut picks = [Pick::default(); 3];
        pick_experts(&[1.0, 3.0, 2.0, 3.0, 2.0, 0.0], &mut picks, Gating::Sigmoid, true, 2.0);
        assert_eq!(picks.map(|p| p.expert), [1, 3, 2]);
        assert!((picks.iter().map(|p| p.weight).sum::<f32>() - 2.0).abs() < 1e-6, "{picks:?}");
        // Whatever comes out of a broken row is no panic.
        pick_experts(&[f32::NAN; 6], &mut picks, Gating::Softmax, true, 1.0);
        let mut all = [Pick::default(); 2];
        pick_experts(&[0.0, 1.0], &mut all, Gating::Softmax, false, 1.0);
        assert_eq!(all.map(|p| p.expert), [1, 0]);
    }
}
