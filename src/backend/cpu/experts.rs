//! Mixtures of experts: each row picks its own. A piece is one picked expert of one row; whoever ends the stage adds them up.

use super::feeds;
use super::rowwise::activation as kernel_activation;
use super::running::{Scratch, View};
use crate::program::{Gating, Matrix, Op};
use hearth_kernels::cpu::{Activations, Columns, Form, Weights};
use std::ops::Range;

impl View<'_> {
    /// One a line and pick.
    pub fn expert_pieces(&self, index: usize) -> usize {
        let Op::Moe { used, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        self.step.lines(self.domain(index)).len() * used
    }

    pub fn run_expert(&self, index: usize, piece: usize, scratch: &mut Scratch) {
        let Op::Moe { x, router, gate, up, down, experts, used, gating, normalise, scale, activation } = self.run.program.steps[index].op
        else {
            unreachable!("experts")
        };
        let (row, pick) = (piece / used, piece % used);
        let floats = x.floats();
        // SAFETY: one piece, one place.
        let y = unsafe { self.partials.part_mut(piece * floats..(piece + 1) * floats) };
        let (expert, weight) = pick_experts(self.rows(router, row..row + 1), used, gating, normalise, scale)[pick];
        let part = |matrix: Matrix| {
            let rows = matrix.rows / experts;
            self.weights(Matrix { first_row: matrix.first_row + rows * expert, rows, ..matrix })
        };
        let width = gate.rows / experts;
        scratch.gates.resize(width.max(scratch.gates.len()), 0.0);
        scratch.ups.resize(width.max(scratch.ups.len()), 0.0);
        let (mut g, mut u) = (std::mem::take(&mut scratch.gates), std::mem::take(&mut scratch.ups));
        let x = self.rows(x, row..row + 1);
        self.multiply_row(part(gate), x, &mut g[..width], scratch);
        self.multiply_row(part(up), x, &mut u[..width], scratch);
        let mut inner = vec![0.0; width];
        self.run.kernels.gated(kernel_activation(activation), &g[..width], &u[..width], &mut inner);
        (scratch.gates, scratch.ups) = (g, u);
        self.multiply_row(part(down), &inner, y, scratch);
        y.iter_mut().for_each(|y| *y *= weight);
    }

    /// Adds up the picks of each of the lines. Run once the stage's works are done.
    pub fn close_experts(&self, index: usize, lines: Range<usize>) {
        let Op::Moe { x, used, .. } = self.run.program.steps[index].op else { unreachable!("experts") };
        let floats = x.floats();
        let (out, _) = self.result(index);
        for row in lines {
            // SAFETY: this row is this chunk's alone; the works that wrote the parts are over.
            let (y, parts) = unsafe {
                (out.part_mut(row * floats..(row + 1) * floats), self.partials.part(row * used * floats..(row + 1) * used * floats))
            };
            y.fill(0.0);
            for part in parts.chunks_exact(floats) {
                self.run.kernels.add_scaled(y, 1.0, part);
            }
        }
    }

    /// Floats that the picks of this step need.
    pub fn expert_floats(&self) -> usize {
        let need = |step: &crate::program::Step| match step.op {
            Op::Moe { x, used, .. } => self.step.lines(step.rows).len() * used * x.floats(),
            _ => 0,
        };
        self.run.program.steps.iter().map(need).max().unwrap_or(0)
    }

    /// A whole matrix times one row.
    fn multiply_row(&self, weights: Weights, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
        let form = feeds::form(self.run.kernels, weights.format, weights.cols, 1, self.run.exact);
        let bytes = if form == Form::F32 {
            super::arena::bytes_of(x)
        } else {
            let size = form.bytes(weights.cols, 1);
            scratch.row.reserve(size);
            let bytes = &mut scratch.row.as_mut()[..size];
            self.run.kernels.quantize(form, weights.cols, x, bytes);
            bytes
        };
        let width = y.len();
        self.run.kernels.mat_mul(weights, Activations { form, bytes, tokens: 1 }, Columns::of(y, width), scratch.kernel.as_mut());
    }
}

/// The experts of one row and their weights, the largest first; of equals the lower index.
fn pick_experts(router: &[f32], used: usize, gating: Gating, normalise: bool, scale: f32) -> Vec<(usize, f32)> {
    let largest = router.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<(usize, f32)> = router
        .iter()
        .map(|&s| match gating {
            Gating::Softmax => (s - largest).exp(),
            Gating::Sigmoid => 1.0 / (1.0 + (-s).exp()),
        })
        .enumerate()
        .collect();
    if gating == Gating::Softmax {
        let sum: f32 = p.iter().map(|(_, p)| p).sum();
        p.iter_mut().for_each(|(_, p)| *p /= sum);
    }
    // An order of all numbers, NaN too: sorting by any other may panic.
    p.sort_by(|a, b| b.1.total_cmp(&a.1));
    p.truncate(used);
    let sum = if normalise { p.iter().map(|(_, p)| p).sum() } else { 1.0 };
    p.into_iter().map(|(e, p)| (e, p / sum * scale)).collect()
}
