//! Activations to int8, and products of weights with activations in every form but panels.

use crate::cpu::form::{Form, Planes, SMALLEST};
use crate::cpu::linear::Product;
use crate::quant;

/// `x` `[tokens, cols]` in any form but panels. Rounds to nearest, ties to even:
/// `code = round(x · (127 / largest))`, `scale = largest / 127`.
pub fn quantize(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    let Some(per) = form.per() else {
        for (x, out) in x.iter().zip(out.chunks_exact_mut(4)) {
            out.copy_from_slice(&x.to_le_bytes());
        }
        return;
    };
    let planes = Planes::new(cols, per);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(planes.stride)) {
        let (codes, rest) = out.split_at_mut(planes.sums);
        let (sums, scales) = rest.split_at_mut(planes.scales - planes.sums);
        for ((x, codes), scale) in x.chunks(per).zip(codes.chunks_mut(per)).zip(scales.chunks_exact_mut(4)) {
            scale.copy_from_slice(&quantize_run(x, codes).to_le_bytes());
        }
        for (codes, sum) in codes.chunks_exact(16).zip(sums.chunks_exact_mut(2)) {
            sum.copy_from_slice(&codes.iter().map(|&c| i16::from(c as i8)).sum::<i16>().to_le_bytes());
        }
    }
}

/// One run of numbers to codes; the scale.
fn quantize_run(x: &[f32], codes: &mut [u8]) -> f32 {
    codes.fill(0);
    let largest = x.iter().fold(0.0, |a, x| f32::max(a, x.abs()));
    if !x.iter().all(|x| x.is_finite()) {
        return f32::NAN;
    }
    if largest < SMALLEST {
        return 0.0;
    }
    let inverse = 127.0 / largest;
    for (x, code) in x.iter().zip(codes) {
        *code = (x * inverse).round_ties_even() as i8 as u8;
    }
    largest / 127.0
}

/// `out[t, r] = Σᵢ w[r, i] · x[t, i]` with weights as [`quant::decode`] gives them and activations as [`dequantize`] does: for 16 rows and
/// 16 tokens at a time, so that what a run of 256 columns decodes to is used as often.
pub fn mat_mul(p: &mut Product) {
    let layout = p.format.layout();
    let (mut w, mut x) = ([0.0; RUN], [[0.0; RUN]; TILE]);
    for (tile, rows) in p.weights.chunks(TILE * p.row_bytes).enumerate() {
        for first in (0..p.tokens).step_by(TILE) {
            let tokens = TILE.min(p.tokens - first);
            let mut sums = [[0.0; TILE]; TILE];
            for start in (0..p.cols).step_by(RUN) {
                let cols = RUN.min(p.cols - start);
                for (t, x) in x[..tokens].iter_mut().enumerate() {
                    dequantize(p.form, p.activations, p.cols, first + t, start, &mut x[..cols]);
                }
                for (row, sums) in rows.chunks_exact(p.row_bytes).zip(&mut sums) {
                    let run = &row[start / layout.weights * layout.bytes..][..cols / layout.weights * layout.bytes];
                    quant::decode(p.format, run, &mut w[..cols]);
                    for (x, sum) in x[..tokens].iter().zip(sums) {
                        *sum += w[..cols].iter().zip(x).map(|(&w, &x)| f64::from(w) * x).sum::<f64>();
                    }
                }
            }
            for (row, sums) in sums[..rows.len() / p.row_bytes].iter().enumerate() {
                for (t, sum) in sums[..tokens].iter().enumerate() {
                    p.out.token(first + t)[tile * TILE + row] = *sum as f32;
                }
            }
        }
    }
}

/// A multiple of every block.
const RUN: usize = 256;
/// Rows, and tokens, whose sums are kept at a time.
const TILE: usize = 16;

/// What row `token` of `activations` (no panel) stands for, from column `start` on.
pub fn dequantize(form: Form, activations: &[u8], cols: usize, token: usize, start: usize, out: &mut [f64]) {
    let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes")));
    let Some(per) = form.per() else {
        for (bytes, out) in activations[(token * cols + start) * 4..].chunks_exact(4).zip(out) {
            *out = number(bytes);
        }
        return;
    };
    let planes = Planes::new(cols, per);
    let row = &activations[token * planes.stride..][..planes.stride];
    for (i, out) in (start..).zip(out) {
        *out = number(&row[planes.scales + i / per * 4..][..4]) * f64::from(row[i] as i8);
    }
}
