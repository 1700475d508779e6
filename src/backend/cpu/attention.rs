//! Attention over the cache. A piece is one key head for a few lines of one sequence: each stored key and value is read once for all the
//! query heads that share it and all the lines of the piece.
//!
//! Where a step has too few pieces for the threads (one line, few key heads) and the past is long, positions are split too: each piece
//! leaves a partial result, and whoever ends the stage merges them. Splits are made at fixed positions, so the result does not depend on
//! the number of threads.

use super::cache::Region;
use super::walk::{Scratch, View};
use crate::backend::ALIKE;
use crate::program::Op;
use hearth_kernels::cpu::kv::{Cache, GROUP, POSITIONS};
use hearth_kernels::cpu::partial::{Partial, Scoring, Span};
use std::ops::Range;

/// Lines of a prompt that are computed together, at most and at least: enough that bringing a tile into f32 costs little beside computing on it.
const LINES: usize = 64;
const LINES_LEAST: usize = 16;
/// Bytes of a group's queries and accumulators, which are gone through with every tile: they stay in a board's second-level cache.
const GROUP_BYTES: usize = 256 << 10;
/// Positions of one split: a few microseconds of reading, and whole groups of blocks.
const SPLIT: usize = 512;
const _: () = assert!(SPLIT.is_multiple_of(GROUP * POSITIONS));
/// With so many pieces, threads are busy without splitting positions.
const ENOUGH_PIECES: usize = 16;

/// How a step cuts an attention.
pub struct AttentionCut {
    region: Region,
    /// Query heads of each key head.
    shared: usize,
    /// Lines of one sequence that are computed together.
    groups: Vec<Range<usize>>,
    /// Parts of the positions.
    splits: usize,
}

impl AttentionCut {
    /// One a group, key head and split.
    pub fn pieces(&self) -> usize {
        self.groups.len() * self.region.kv_heads * self.splits
    }

    /// Floats of a split's partial result: a maximum and a sum for each query, and its values.
    fn each_floats(&self) -> usize {
        self.shared * (2 + self.region.v_dim)
    }

    /// Floats of all of them; none where nothing is split.
    pub fn all_floats(&self) -> usize {
        if self.splits > 1 { self.pieces() * self.each_floats() } else { 0 }
    }
}

impl<'a> View<'a> {
    pub fn attention_cut(&self, index: usize) -> AttentionCut {
        let Op::Attention { q, cache, .. } = self.run.program.steps[index].op else { unreachable!("an attention") };
        let region = self.run.layout.region(cache);
        let shared = q.groups / region.kv_heads;
        let lines = self.step.lines(self.domain(index));
        let most = group_lines(lines.len(), region.kv_heads, shared * (region.k_dim + region.v_dim) * size_of::<f32>());
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            match groups.last_mut().filter(|g| g.len() < most && lines[g.start].sequence == line.sequence) {
                Some(group) => group.end = i + 1,
                None => groups.push(i..i + 1),
            }
        }
        let are_enough = groups.len() * region.kv_heads >= ENOUGH_PIECES || groups.iter().any(|g| g.len() > 1);
        let longest = lines.iter().map(|l| l.position + 1).max().unwrap_or(0);
        let splits = if are_enough { 1 } else { longest.div_ceil(SPLIT) };
        AttentionCut { region, shared, groups, splits }
    }

    pub fn attend(&self, index: usize, cut: &AttentionCut, piece: usize, scratch: &mut Scratch) {
        let Op::Attention { q, scale, window, softcap, sinks, .. } = self.run.program.steps[index].op else { unreachable!("an attention") };
        let AttentionCut { region, shared, ref groups, splits } = *cut;
        let (group, head, split) = (groups[piece / splits / region.kv_heads].clone(), piece / splits % region.kv_heads, piece % splits);
        let lines = &self.step.lines(self.domain(index))[group.clone()];

        scratch.queries.clear();
        scratch.spans.clear();
        for (row, line) in group.clone().zip(lines) {
            let at = row * q.floats() + head * shared * region.k_dim;
            // SAFETY: a stage before made the queries. Where results take their place, no other piece writes over those of these heads
            // and this line, and this one does when it has taken them.
            let heads = unsafe { self.value(q.id).part(at..at + shared * region.k_dim) };
            scratch.queries.extend(heads.iter().map(|x| x * scale));
            let seen_to = line.position + 1;
            let seen_from = window.map_or(0, |w| seen_to.saturating_sub(w));
            let (from, to) = if splits == 1 {
                (seen_from, seen_to)
            } else {
                let to = seen_to.min((split + 1) * SPLIT);
                (seen_from.max(split * SPLIT).min(to), to)
            };
            scratch.spans.extend(std::iter::repeat_n(Span { from: from as u32, to: to as u32 }, shared));
        }
        let queries = scratch.spans.len();
        let need = self.run.kernels.attend_scratch(region.k_dim, region.v_dim, queries);
        scratch.kernel.reserve(need);
        scratch.max.resize(queries, 0.0);
        scratch.sum.resize(queries, 0.0);
        scratch.acc.resize(queries * region.v_dim, 0.0);
        let mut partial = if splits == 1 {
            Partial { max: &mut scratch.max, sum: &mut scratch.sum, acc: &mut scratch.acc }
        } else {
            self.partial(cut, piece)
        };
        partial.clear();
        let blocks = &self.step.blocks[lines[0].sequence];
        // SAFETY: nobody writes to the cache in a stage that reads it.
        let memory = unsafe { self.cache.part(region.tiles_of(head)) };
        let cache = Cache { kind: region.kind, memory, stride: region.stride, blocks, key_dim: region.k_dim, value_dim: region.v_dim };
        self.run.kernels.attend(
            &cache,
            Scoring { softcap, decoded: self.step.rows_of(lines[0].sequence) >= ALIKE },
            &scratch.queries,
            &scratch.spans,
            &mut partial,
            scratch.kernel.as_mut(),
        );
        if splits > 1 {
            return;
        }
        let (out, floats) = self.result(index);
        for (i, row) in group.enumerate() {
            let part = i * shared..(i + 1) * shared;
            let of_line = Partial {
                max: &mut partial.max[part.clone()],
                sum: &mut partial.sum[part.clone()],
                acc: &mut partial.acc[part.start * region.v_dim..part.end * region.v_dim],
            };
            let at = row * floats + head * shared * region.v_dim;
            // SAFETY: these heads of this line are this piece's alone.
            let y = unsafe { out.part_mut(at..at + shared * region.v_dim) };
            of_line.finish(sinks.map(|id| &self.vector(id)[head * shared..(head + 1) * shared]), y);
        }
    }

    /// Merges what the splits left, if there were any. Run by one worker at the end of the stage.
    pub fn close_attention(&self, index: usize, cut: &AttentionCut) {
        let Op::Attention { sinks, .. } = self.run.program.steps[index].op else { unreachable!("an attention") };
        let AttentionCut { region, shared, ref groups, splits } = *cut;
        if splits == 1 {
            return;
        }
        let (out, floats) = self.result(index);
        for (row, head) in (0..groups.len()).flat_map(|row| (0..region.kv_heads).map(move |head| (row, head))) {
            let first = (row * region.kv_heads + head) * splits;
            let mut whole = self.partial(cut, first);
            for split in 1..splits {
                whole.merge(&self.partial(cut, first + split));
            }
            let at = row * floats + head * shared * region.v_dim;
            // SAFETY: the stage's works are over, and one worker closes it.
            let y = unsafe { out.part_mut(at..at + shared * region.v_dim) };
            whole.finish(sinks.map(|id| &self.vector(id)[head * shared..(head + 1) * shared]), y);
        }
    }

    /// The place of a split's partial result.
    fn partial(&self, cut: &AttentionCut, piece: usize) -> Partial<'a> {
        let (queries, size) = (cut.shared, cut.each_floats());
        // SAFETY: one piece, one place, and no other attention in this stage; whoever closes the stage comes after all pieces.
        let (max, rest) = unsafe { self.partials.part_mut(piece * size..(piece + 1) * size) }.split_at_mut(queries);
        let (sum, acc) = rest.split_at_mut(queries);
        Partial { max, sum, acc }
    }
}

/// Most lines of a group, in a step of so many, for an attention of so many key heads, whose queries and accumulators take so many bytes
/// a line: fewer where few key heads would leave a crew too few pieces to share, or where a group is more than a core's cache holds.
fn group_lines(lines: usize, kv_heads: usize, line_bytes: usize) -> usize {
    let fits = |n: usize| lines.div_ceil(n) * kv_heads >= 2 * ENOUGH_PIECES && n * line_bytes <= GROUP_BYTES;
    let mut most = LINES;
    while most > LINES_LEAST && !fits(most) {
        most /= 2;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_large_where_there_are_pieces_enough_and_a_core_can_hold_them() {
        // Heads of 64 in fours, as in Llama 3.2 1B: 2 KiB a line.
        assert_eq!(group_lines(512, 8, 2048), 64);
        assert_eq!(group_lines(100, 8, 2048), 32, "a short prompt");
        // One key head of 256 for four, as in Gemma 3: 8 KiB a line.
        assert_eq!(group_lines(512, 1, 8192), 16);
        assert_eq!(group_lines(2048, 8, 8192), 32, "no more than fits");
    }
}
