//! What goes through a sequence row after row: short convolutions and the gated delta rule. Sequences are independent, and so are
//! channels and heads. Plain f32 loops that a compiler turns into vector instructions: what they touch is small beside the products.

use super::walk::View;
use crate::program::{Op, Value};
use std::ops::Range;

/// Channels of one piece of a convolution: 1 KiB of a line, so that pieces share no cache line. A guess beyond that.
const CHANNELS: usize = 256;

impl View<'_> {
    /// A convolution: one a sequence and run of channels. A delta rule: one a sequence and head.
    pub fn recurrent_pieces(&self, index: usize) -> usize {
        let each = match self.run.program.steps[index].op {
            Op::ShortConv { x, .. } => x.floats().div_ceil(CHANNELS),
            Op::DeltaRule { v, .. } => v.groups,
            ref other => unreachable!("{} is no recurrence", other.name()),
        };
        self.step.runs.len() * each
    }

    /// `y[c] = Σⱼ kernel[j, c] · input[j, c]` over the tail, oldest first, and the row itself; then the row joins the tail.
    pub fn short_conv(&self, index: usize, piece: usize) {
        let Op::ShortConv { x, kernel, state } = self.run.program.steps[index].op else { unreachable!("a convolution") };
        let width = x.floats();
        let each = width.div_ceil(CHANNELS);
        let run = &self.step.runs[piece / each];
        let channels = piece % each * CHANNELS..(piece % each * CHANNELS + CHANNELS).min(width);
        let kernel = self.vector(kernel);
        let before = kernel.len() / width - 1;
        let at = |line: usize| line * width + channels.start..line * width + channels.end;
        // SAFETY: these channels of the sequence's tail are this piece's alone.
        let tail = |line: usize| unsafe { self.slot(state, run.sequence, at(line)) };
        let inputs = |row: usize| &self.rows(x, row..row + 1)[channels.clone()];
        let (out, _) = self.result(index);
        for (number, row) in run.rows.clone().enumerate() {
            // SAFETY: these channels of the sequence's rows are this piece's alone.
            let y = unsafe { out.part_mut(at(row)) };
            multiply(&kernel[at(before)], inputs(row), y);
            for j in 0..before {
                // The rows of this step come after what the tail held.
                let input = if number + j < before { &*tail(number + j) } else { inputs(row + j - before) };
                multiply_add(&kernel[at(j)], input, y);
            }
        }
        // Ascending, so that no line is read after it was written.
        let rows = run.rows.len();
        for j in 0..before {
            let newest = if rows + j < before { tail(rows + j).to_vec() } else { inputs(run.rows.end + j - before).to_vec() };
            tail(j).copy_from_slice(&newest);
        }
    }

    pub fn delta_rule(&self, index: usize, piece: usize) {
        let Op::DeltaRule { q, k, v, decay, beta, state, scale } = self.run.program.steps[index].op else { unreachable!("a delta rule") };
        let (run, head) = (&self.step.runs[piece / v.groups], piece % v.groups);
        let (out, floats) = self.result(index);
        let size = k.width * v.width;
        // SAFETY: one piece a sequence and head.
        let matrix = unsafe { self.slot(state, run.sequence, head * size..(head + 1) * size) };
        let key_head = head % k.groups;
        let group = |x: Value, row: usize, group: usize| &self.rows(x, row..row + 1)[group * x.width..][..x.width];
        let mut correction = vec![0.0; v.width];
        for row in run.rows.clone() {
            // SAFETY: this head of the rows of a sequence is this piece's alone.
            let y = unsafe { out.part_mut(row * floats + head * v.width..row * floats + (head + 1) * v.width) };
            let (decay, beta) = (self.rows(decay, row..row + 1)[head], self.rows(beta, row..row + 1)[head]);
            let (q, k, v) = (group(q, row, key_head), group(k, row, key_head), group(v, row, head));
            advance(matrix, Delta { q, k, v, keep: decay.exp(), beta, scale }, &mut correction, y);
        }
    }

    /// The slot of `state` of a sequence.
    ///
    /// # Safety
    /// Nobody else uses this part of the slot as long as the slice is used.
    #[allow(clippy::mut_from_ref)]
    unsafe fn slot(&self, state: crate::program::StateId, sequence: usize, part: Range<usize>) -> &mut [f32] {
        let size = self.run.program.state(state).slot_floats();
        let start = self.step.slots[sequence].expect("checked at the start of the step").0 as usize * size;
        // SAFETY: by the caller's promise.
        unsafe { self.slots[state.0 as usize].part_mut(start + part.start..start + part.end) }
    }
}

/// One row, one head of the gated delta rule.
struct Delta<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// What the state keeps: exp(decay).
    keep: f32,
    beta: f32,
    scale: f32,
}

/// `S ← keep·S + k ⊗ c` with `c = beta·(v − keep·kᵀS)`, then `y = scale·qᵀS`; `state`: `[k_dim, v_dim]`, `c` is left in `correction`.
fn advance(state: &mut [f32], delta: Delta, correction: &mut [f32], y: &mut [f32]) {
    let width = delta.v.len();
    correction.fill(0.0);
    for (row, k) in state.chunks_exact(width).zip(delta.k) {
        correction.iter_mut().zip(row).for_each(|(c, s)| *c += k * s);
    }
    correction.iter_mut().zip(delta.v).for_each(|(c, v)| *c = delta.beta * (v - delta.keep * *c));
    y.fill(0.0);
    for ((row, k), q) in state.chunks_exact_mut(width).zip(delta.k).zip(delta.q) {
        for ((s, c), y) in row.iter_mut().zip(&*correction).zip(&mut *y) {
            *s = delta.keep * *s + k * c;
            *y += q * *s;
        }
    }
    y.iter_mut().for_each(|y| *y *= delta.scale);
}

fn multiply(a: &[f32], b: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a * b);
}

fn multiply_add(a: &[f32], b: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y += a * b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::plain::ops;

    #[test]
    fn the_delta_rule_is_the_plain_one() {
        let numbers = |n: usize, seed: usize| (0..n).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 11.5 - 1.0).collect::<Vec<f32>>();
        let (mut ours, mut theirs) = (numbers(6 * 5, 1), numbers(6 * 5, 1));
        for step in 0..20 {
            let (q, k, v) = (numbers(6, step), numbers(6, step + 3), numbers(5, step + 7));
            let k: Vec<f32> = k.iter().map(|k| k / 3.0).collect();
            let (mut got, mut want) = (vec![0.0; 5], vec![0.0; 5]);
            let delta = Delta { q: &q, k: &k, v: &v, keep: (-0.3f32).exp(), beta: 0.7, scale: 0.5 };
            advance(&mut ours, delta, &mut [0.0; 5], &mut got);
            ops::Delta { q: &q, k: &k, v: &v, decay: -0.3, beta: 0.7, scale: 0.5 }.advance(&mut theirs, &mut want);
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-4), "step {step}: {got:?}, not {want:?}");
        }
    }
}
