//! What goes through a sequence row after row: short convolutions and the gated delta rule. Sequences and heads are independent.

use super::running::View;
use crate::backend::plain::ops::{self, Delta};
use crate::program::{Op, Value};

impl View<'_> {
    /// A convolution: one a sequence. A delta rule: one a sequence and head.
    pub fn recurrent_pieces(&self, index: usize) -> usize {
        match self.run.program.steps[index].op {
            Op::DeltaRule { v, .. } => self.step.runs.len() * v.groups,
            _ => self.step.runs.len(),
        }
    }

    pub fn short_conv(&self, index: usize, piece: usize) {
        let Op::ShortConv { x, kernel, state } = self.run.program.steps[index].op else { unreachable!("a convolution") };
        let run = &self.step.runs[piece];
        let (out, floats) = self.result(index);
        let size = self.run.program.state(state).slot_floats();
        // SAFETY: one piece a sequence.
        let tail = unsafe { self.slot(state, run.sequence, 0..size) };
        for row in run.rows.clone() {
            // SAFETY: the rows of a sequence are this piece's alone.
            let y = unsafe { out.part_mut(row * floats..(row + 1) * floats) };
            ops::short_conv(self.vector(kernel), tail, self.rows(x, row..row + 1), y);
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
        for row in run.rows.clone() {
            // SAFETY: this head of the rows of a sequence is this piece's alone.
            let y = unsafe { out.part_mut(row * floats + head * v.width..row * floats + (head + 1) * v.width) };
            let (decay, beta) = (self.rows(decay, row..row + 1)[head], self.rows(beta, row..row + 1)[head]);
            let (q, k, v) = (group(q, row, key_head), group(k, row, key_head), group(v, row, head));
            Delta { q, k, v, decay, beta, scale }.advance(matrix, y);
        }
    }
}
