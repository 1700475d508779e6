//! All that goes row by row: norms, rotations, sums, look-ups, and storing keys and values.

use super::running::View;
use crate::backend::plain::ops;
use crate::backend::{BLOCK_TOKENS, KvType};
use crate::program::{Op, Value};
use half::f16;
use hearth_kernels::quant::{Format, decode, encode};
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
        let (out, floats) = self.result(index);
        // SAFETY: these rows of the result are this chunk's alone, and no operand shares its buffer.
        let y = unsafe { out.part_mut(lines.start * floats..lines.end * floats) };
        let read = |x: Value| self.rows(x, lines.clone());
        match step.op {
            Op::Embed { table } => {
                let weights = self.weights(table);
                for (line, y) in self.step.lines(step.rows)[lines].iter().zip(y.chunks_exact_mut(floats)) {
                    decode(weights.format, &weights.bytes[line.token * weights.row_bytes..][..weights.row_bytes], y);
                }
            }
            Op::RmsNorm { x, weight, eps } => {
                let weight = weight.map(|w| self.vector(w));
                each_group(x, read(x), y, |x, y| ops::rms_norm(x, weight, eps, y));
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let (weight, bias) = (weight.map(|w| self.vector(w)), bias.map(|b| self.vector(b)));
                each_group(x, read(x), y, |x, y| ops::layer_norm(x, weight, bias, eps, y));
            }
            Op::L2Norm { x, eps } => each_group(x, read(x), y, |x, y| ops::l2_norm(x, eps, y)),
            Op::Rope { x, rope } => {
                let (_, frequencies, magnitude) = self.run.turns.iter().find(|(known, ..)| *known == rope).expect("found at load");
                let rows = read(x).chunks_exact(floats).zip(y.chunks_exact_mut(floats));
                for (line, (row, y)) in self.step.lines(step.rows)[lines.clone()].iter().zip(rows) {
                    each_group(x, row, y, |x, y| ops::rope(x, rope.pairing, frequencies, *magnitude, line.position, y));
                }
            }
            Op::Gated { gate, up, activation } => pairwise(read(gate), read(up), y, |gate, up| ops::activate(activation, gate) * up),
            Op::Apply { x, activation } => elementwise(read(x), y, |x| ops::activate(activation, x)),
            Op::Add { a, b } => pairwise(read(a), read(b), y, |a, b| a + b),
            Op::Mul { a, b } => pairwise(read(a), read(b), y, |a, b| a * b),
            Op::MulVector { x, weight } => match self.vector(weight) {
                &[by] => elementwise(read(x), y, |x| x * by),
                weight => each_group(x, read(x), y, |x, y| pairwise(x, weight, y, |x, w| x * w)),
            },
            Op::Scale { x, by } => elementwise(read(x), y, |x| x * by),
            Op::SoftCap { x, cap } => elementwise(read(x), y, |x| ops::soft_cap(x, cap)),
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
    fn store(&self, index: usize, lines: Range<usize>) {
        let Op::Store { k, v, cache } = self.run.program.steps[index].op else { unreachable!("a store") };
        let region = self.run.layout.region(cache);
        for (line, row) in self.step.all[lines.clone()].iter().zip(lines) {
            let block = self.step.blocks[line.sequence][line.position / BLOCK_TOKENS];
            let within = line.position % BLOCK_TOKENS;
            let (keys, values) = (self.rows(k, row..row + 1), self.rows(v, row..row + 1));
            for head in 0..region.kv_heads {
                let at = region.keys(block, head).start + within * region.k_bytes;
                // SAFETY: a position of a sequence is one row's, and no attention reads the cache before the next stage.
                let place = unsafe { self.cache.part_mut(at..at + region.k_bytes) };
                write_row(self.run.layout.kv, &keys[head * k.width..][..k.width], place);
                let at = region.values(block, head).start + within * region.v_bytes;
                // SAFETY: as above.
                let place = unsafe { self.cache.part_mut(at..at + region.v_bytes) };
                write_row(self.run.layout.kv, &values[head * v.width..][..v.width], place);
            }
        }
    }
}

/// A row of keys or values as the cache keeps it.
fn write_row(kv: KvType, x: &[f32], place: &mut [u8]) {
    match kv {
        KvType::F32 => x.iter().zip(place.chunks_exact_mut(4)).for_each(|(x, p)| p.copy_from_slice(&x.to_le_bytes())),
        KvType::F16 => x.iter().zip(place.chunks_exact_mut(2)).for_each(|(x, p)| p.copy_from_slice(&f16::from_f32(*x).to_le_bytes())),
        KvType::Q8_0 if x.len() % 32 == 0 => encode(Format::Q8_0, x, place),
        KvType::Q8_0 => {
            let mut padded = x.to_vec();
            padded.resize(x.len().next_multiple_of(32), 0.0);
            encode(Format::Q8_0, &padded, place);
        }
    }
}

pub fn each_group(operand: Value, x: &[f32], y: &mut [f32], mut f: impl FnMut(&[f32], &mut [f32])) {
    for (x, y) in x.chunks_exact(operand.width).zip(y.chunks_exact_mut(operand.width)) {
        f(x, y);
    }
}

fn elementwise(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    for (x, y) in x.iter().zip(y) {
        *y = f(*x);
    }
}

fn pairwise(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    for ((a, b), y) in a.iter().zip(b).zip(y) {
        *y = f(*a, *b);
    }
}
