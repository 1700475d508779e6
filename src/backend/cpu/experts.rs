//! Mixtures of experts: each row picks its own.

use super::running::View;
use crate::backend::plain::ops;
use crate::program::{Matrix, Op};

impl View<'_> {
    /// One a line.
    pub fn expert_pieces(&self, index: usize) -> usize {
        self.step.lines(self.domain(index)).len()
    }

    pub fn mix_experts(&self, index: usize, row: usize) {
        let Op::Moe { x, router, gate, up, down, experts, used, gating, normalise, scale, activation } = self.run.program.steps[index].op else {
            unreachable!("experts")
        };
        let expert = |matrix: Matrix, e: usize| {
            let rows = matrix.rows / experts;
            self.weights(Matrix { first_row: matrix.first_row + rows * e, rows, ..matrix })
        };
        let (out, floats) = self.result(index);
        // SAFETY: one piece a row.
        let y = unsafe { out.part_mut(row * floats..(row + 1) * floats) };
        y.fill(0.0);
        let x = self.rows(x, row..row + 1);
        let width = gate.rows / experts;
        let mut inner = vec![0.0; width];
        for (e, weight) in ops::pick_experts(self.rows(router, row..row + 1), used, gating, normalise, scale) {
            self.multiply(expert(gate, e), x, 0..width, |_, o, g| inner[o] = ops::activate(activation, g));
            self.multiply(expert(up, e), x, 0..width, |_, o, u| inner[o] *= u);
            self.multiply(expert(down, e), &inner, 0..floats, |_, o, d| y[o] += weight * d);
        }
    }
}
