//! All that goes row by row: norms, rotations, sums, look-ups, storing keys and values, and bringing activations into the form that
//! products want.

use super::walk::View;
use crate::backend::BLOCK_TOKENS;
use crate::program::{self, Op, Value};
use hearth_kernels::cpu::{self, Form};
use hearth_kernels::quant::decode;
use std::ops::Range;

impl View<'_> {
    /// Step `index` for those of its lines that belong to rows `rows` of the step.
    pub fn rowwise(&self, index: usize, rows: &Range<usize>) {
        let step = &self.run.program.steps[index];
        let lines = self.step.within(step.rows, rows);
        if lines.is_empty() {
            return;
        }
        if let Op::Store { .. } = step.op {
            return self.store(index, lines);
        }
        let k = self.run.kernels;
        let (out, floats) = self.result(index);
        // SAFETY: these rows of the result are this chunk's alone. An operand that has the same place is not read beside it.
        let y = unsafe { out.part_mut(lines.start * floats..lines.end * floats) };
        let read = |x: Value| self.rows(x, lines.clone());
        let is_there = |x: Value| self.is_over(index, x);
        match step.op {
            Op::Embed { table } => {
                let weights = self.weights(table);
                let row_bytes = weights.bytes.len() / table.rows;
                for (line, y) in self.step.lines(step.rows)[lines].iter().zip(y.chunks_exact_mut(floats)) {
                    decode(weights.format, &weights.bytes[line.token * row_bytes..][..row_bytes], y);
                }
            }
            Op::RmsNorm { x, weight, eps } => {
                let weight = weight.map(|w| self.vector(w));
                each_group(x, read(x), y, |x, y| k.rms_norm(x, weight, eps, y));
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let (weight, bias) = (weight.map(|w| self.vector(w)), bias.map(|b| self.vector(b)));
                each_group(x, read(x), y, |x, y| k.layer_norm(x, weight, bias, eps, y));
            }
            Op::L2Norm { x, eps } => each_group(x, read(x), y, |x, y| k.l2_norm(x, eps, y)),
            Op::Rope { x, rope } => {
                let turn = self.run.turns.iter().position(|t| t.rope == rope).expect("found at load");
                let pairing = match rope.pairing {
                    program::Pairing::Neighbours => cpu::Pairing::Neighbours,
                    program::Pairing::Halves => cpu::Pairing::Halves,
                };
                if !is_there(x) {
                    y.copy_from_slice(read(x));
                }
                for (line, y) in self.step.lines(step.rows)[lines.clone()].iter().zip(y.chunks_exact_mut(floats)) {
                    let (cos, sin) = self.step.angles(turn, line.row);
                    y.chunks_exact_mut(x.width).for_each(|y| k.rope(pairing, y, cos, sin));
                }
            }
            Op::Gated { gate, up, activation: f } => k.gated(activation(f), read(gate), read(up), y),
            Op::Apply { x, activation: f } => k.activate(activation(f), read(x), y),
            Op::Add { a, b } if is_there(a) => k.add_scaled(y, 1.0, read(b)),
            Op::Add { a, b } if is_there(b) => k.add_scaled(y, 1.0, read(a)),
            Op::Add { a, b } => k.add(read(a), read(b), y),
            Op::Mul { a, b } => k.mul(read(a), read(b), y),
            Op::MulVector { x, weight } => match self.vector(weight) {
                &[by] => k.scale(read(x), by, y),
                weight => each_group(x, read(x), y, |x, y| k.mul(x, weight, y)),
            },
            Op::Scale { x, by } => k.scale(read(x), by, y),
            Op::SoftCap { x, cap } => k.soft_cap(read(x), cap, y),
            Op::Slice { x, start, width } => {
                for (x, y) in read(x).chunks_exact(x.width).zip(y.chunks_exact_mut(width)) {
                    y.copy_from_slice(&x[start..start + width]);
                }
            }
            Op::Select { x } => {
                for (line, y) in self.step.wanted[lines.clone()].iter().zip(y.chunks_exact_mut(floats)) {
                    y.copy_from_slice(self.rows(x, line.row..line.row + 1));
                }
            }
            Op::Linear { .. } | Op::Attention { .. } | Op::Moe { .. } | Op::ShortConv { .. } | Op::DeltaRule { .. } | Op::Store { .. } => {
                unreachable!("{} does not go row by row", step.op.name())
            }
        }
    }

    /// Appends keys and values of the lines to the cache.
    pub fn store(&self, index: usize, lines: Range<usize>) {
        let Op::Store { k, v, cache } = self.run.program.steps[index].op else { unreachable!("a store") };
        let region = self.run.layout.region(cache);
        for (line, row) in self.step.all[lines.clone()].iter().zip(lines) {
            let block = self.step.blocks[line.sequence][line.position / BLOCK_TOKENS];
            let within = line.position % BLOCK_TOKENS;
            let (keys, values) = (self.rows(k, row..row + 1), self.rows(v, row..row + 1));
            for head in 0..region.kv_heads {
                // SAFETY: a position of a sequence is one row's, and no attention reads the cache before the next stage. Rows of one
                // sequence that share a tile are in one chunk: chunks begin at the blocks' first positions.
                let tile = unsafe { self.cache.part_mut(region.key_tile(block, head)) };
                self.run.kernels.store_key(region.kind, &keys[head * k.width..][..k.width], tile, within);
                // SAFETY: as above.
                let tile = unsafe { self.cache.part_mut(region.value_tile(block, head)) };
                self.run.kernels.store_value(region.kind, &values[head * v.width..][..v.width], tile, within);
            }
        }
    }

    /// Brings tokens `tokens` (whole groups of the form) of feed `feed` into one of its forms.
    pub fn convert(&self, feed: usize, place: usize, tokens: Range<usize>) {
        let Value { width, .. } = self.run.feeds.feed(feed).value;
        let (form, memory) = self.fed.forms(feed)[place];
        if form == Form::F32 || tokens.is_empty() {
            return;
        }
        let x = self.rows(self.run.feeds.feed(feed).value, tokens.clone());
        let start = form.bytes(width, tokens.start);
        // SAFETY: these tokens' bytes are this chunk's alone, and who read what lay here before is done.
        let out = unsafe { memory.part_mut(start..start + form.bytes(width, tokens.len())) };
        self.run.kernels.quantize(form, width, x, out);
    }
}

pub fn activation(f: program::Activation) -> cpu::Activation {
    match f {
        program::Activation::Silu => cpu::Activation::Silu,
        program::Activation::GeluTanh => cpu::Activation::GeluTanh,
        program::Activation::Sigmoid => cpu::Activation::Sigmoid,
        program::Activation::Softplus => cpu::Activation::Softplus,
    }
}

fn each_group(operand: Value, x: &[f32], y: &mut [f32], mut f: impl FnMut(&[f32], &mut [f32])) {
    for (x, y) in x.chunks_exact(operand.width).zip(y.chunks_exact_mut(operand.width)) {
        f(x, y);
    }
}
