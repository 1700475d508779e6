//! Products through the plain decoder: for formats that a tier has no kernel of its own for, and for floats.
//!
//! Up to a handful of tokens, 256 columns of a row are decoded to f32 and multiplied with each token's f32. For many tokens the quantized
//! ones become panels like all others, by way of f32.

use super::panel::tokens::quantize;
use super::panel::{GROUP, GROUP_BYTES, Order, ROWS, store_half};
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route, Routes};
use crate::quant::{self, Format};
use std::arch::aarch64::*;

/// Columns decoded at a time: whole blocks of every format.
const RUN: usize = 256;

/// The routes of a format without kernels; `many` stays for the tiers to override.
pub fn routes() -> Routes {
    Routes::all(Route { form: Form::F32, row_tile: 1, scratch: |_| 0, run: mat_mul })
}

/// Activations in [`Form::F32`], any format. Sums in f32, sixteen lanes, fused.
///
/// # Safety
/// The product's lengths fit one another.
#[target_feature(enable = "neon")]
pub unsafe fn mat_mul(p: &mut Product) {
    let layout = p.format.layout();
    let mut w = [0.0; RUN];
    for r in 0..p.rows {
        let row = &p.weights[r * p.row_bytes..][..p.row_bytes];
        for first in (0..p.tokens).step_by(TOKENS) {
            let mut sums = [[vdupq_n_f32(0.0); 4]; TOKENS];
            let tokens = TOKENS.min(p.tokens - first);
            for start in (0..p.cols).step_by(RUN) {
                let cols = RUN.min(p.cols - start);
                let bytes = &row[start / layout.weights * layout.bytes..][..cols / layout.weights * layout.bytes];
                quant::decode(p.format, bytes, &mut w[..cols]);
                for (t, sums) in sums[..tokens].iter_mut().enumerate() {
                    let x = &p.activations[((first + t) * p.cols + start) * 4..][..cols * 4];
                    add_dot(sums, &w[..cols], x);
                }
            }
            for (t, s) in sums[..tokens].iter().enumerate() {
                p.out.token(first + t)[r] = vaddvq_f32(vaddq_f32(vaddq_f32(s[0], s[1]), vaddq_f32(s[2], s[3])));
            }
        }
    }
}

/// Tokens that share the decoding of a row.
const TOKENS: usize = 8;

/// sums += w·x, lane by lane; `x` are the bytes of as many floats.
#[target_feature(enable = "neon")]
#[inline]
fn add_dot(sums: &mut [float32x4_t; 4], w: &[f32], x: &[u8]) {
    let (chunks, rest) = w.as_chunks::<16>();
    let (x_chunks, x_rest) = x.as_chunks::<64>();
    for (w, x) in chunks.iter().zip(x_chunks) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: four floats of sixteen; the bytes may stand at any address.
            unsafe { *sum = vfmaq_f32(*sum, vld1q_f32(w.as_ptr().add(4 * i)), vreinterpretq_f32_u8(vld1q_u8(x.as_ptr().add(16 * i)))) };
        }
    }
    for (w, x) in rest.iter().zip(x_rest.as_chunks::<4>().0) {
        let lane = vsetq_lane_f32::<0>(w * f32::from_le_bytes(*x), vdupq_n_f32(0.0));
        sums[0] = vaddq_f32(sums[0], lane);
    }
}

/// A strip of up to eight rows as in [`pack_strip`](super::panel::strip::pack_strip), of any format.
#[target_feature(enable = "neon")]
pub fn pack_strip<O: Order>(format: Format, w: &[u8], row_bytes: usize, cols: usize, q: &mut [i8], scales: &mut [f32]) {
    let layout = format.layout();
    let rows = w.len() / row_bytes;
    let mut decoded = [0.0; RUN];
    let runs = q.chunks_mut(RUN / GROUP * GROUP_BYTES).zip(scales.chunks_mut(RUN / GROUP * ROWS));
    for (i, (q, scales)) in runs.enumerate() {
        let n = RUN.min(cols - RUN * i);
        for half in 0..2 {
            let mut groups = [[[vdupq_n_s8(0); 4]; 4]; RUN / GROUP]; // [group, row]
            for r in 0..4 {
                let row = &w[row_bytes * (4 * half + r).min(rows - 1)..][..row_bytes];
                let bytes = &row[RUN * i / layout.weights * layout.bytes..][..n / layout.weights * layout.bytes];
                decoded[n..].fill(0.0);
                quant::decode(format, bytes, &mut decoded[..n]);
                for (g, (group, scales)) in decoded.as_chunks::<GROUP>().0.iter().zip(scales.chunks_exact_mut(ROWS)).enumerate() {
                    (groups[g][r], scales[4 * half + r]) = quantize(group);
                }
            }
            for (rows, q) in groups.iter().zip(q.chunks_exact_mut(GROUP_BYTES)) {
                // SAFETY: the group's 512 bytes.
                unsafe { store_half::<O>(q.as_mut_ptr(), half, *rows) };
            }
        }
    }
}
