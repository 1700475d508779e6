//! Matrix products: rows of weights where they lie in the file, times the activations of all rows of the step.

use super::running::View;
use crate::backend::plain::ops;
use crate::program::{Activation, Op};
use hearth_kernels::quant::{Format, decode};
use std::ops::Range;

/// Rows of a matrix as they lie in the file.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub format: Format,
    pub bytes: &'a [u8],
    pub cols: usize,
    pub row_bytes: usize,
}

/// Bytes of weights in one chunk: long runs for the memory, enough chunks for all threads.
const CHUNK_BYTES: usize = 64 << 10;

impl View<'_> {
    /// Ranges of weight rows.
    pub fn product_pieces(&self, index: usize) -> Vec<Range<usize>> {
        let Op::Linear { weight, .. } = self.run.program.steps[index].op else { unreachable!("a product") };
        if self.step.lines(self.domain(index)).is_empty() {
            return Vec::new();
        }
        let each = (CHUNK_BYTES / self.weights(weight).row_bytes).clamp(1, weight.rows).next_multiple_of(8);
        (0..weight.rows.div_ceil(each)).map(|i| i * each..((i + 1) * each).min(weight.rows)).collect()
    }

    /// `y[r, o] = Σᵢ weight[o, i] · x[r, i] (+ bias[o])` for `o` in `rows`.
    pub fn product(&self, index: usize, rows: Range<usize>) {
        let Op::Linear { x, weight, bias } = self.run.program.steps[index].op else { unreachable!("a product") };
        let count = self.step.lines(self.domain(index)).len();
        let (out, floats) = self.result(index);
        self.multiply(self.weights(weight), self.rows(x, 0..count), rows.clone(), |row, o, y| {
            let y = y + bias.map_or(0.0, |b| self.vector(b)[o]);
            // SAFETY: column `o` belongs to this chunk alone.
            unsafe { out.part_mut(row * floats + o..row * floats + o + 1)[0] = y };
        });
    }

    /// `y = f(gate · x) · (up · x)` for rows `rows` of both.
    pub fn gated_product(&self, gate: usize, up: usize, gated: usize, activation: Activation, rows: Range<usize>) {
        let (Op::Linear { x, weight: g, .. }, Op::Linear { weight: u, .. }) = (&self.run.program.steps[gate].op, &self.run.program.steps[up].op)
        else {
            unreachable!("two products")
        };
        let count = self.step.lines(self.domain(gated)).len();
        let (out, floats) = self.result(gated);
        let x = self.rows(*x, 0..count);
        let mut gates = vec![0.0; count * rows.len()];
        self.multiply(self.weights(*g), x, rows.clone(), |row, o, y| gates[row * rows.len() + o - rows.start] = y);
        self.multiply(self.weights(*u), x, rows.clone(), |row, o, y| {
            let gate = gates[row * rows.len() + o - rows.start];
            // SAFETY: column `o` belongs to this chunk alone.
            unsafe { out.part_mut(row * floats + o..row * floats + o + 1)[0] = ops::activate(activation, gate) * y };
        });
    }

    pub fn multiply(&self, weights: Weights, x: &[f32], rows: Range<usize>, mut put: impl FnMut(usize, usize, f32)) {
        let mut row = vec![0.0; weights.cols];
        for o in rows {
            decode(weights.format, &weights.bytes[o * weights.row_bytes..][..weights.row_bytes], &mut row);
            for (r, x) in x.chunks_exact(weights.cols).enumerate() {
                put(r, o, ops::dot(&row, x) as f32);
            }
        }
    }
}
