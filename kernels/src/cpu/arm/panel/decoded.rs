//! Weights to panels by way of f32: for the formats that have no [`Source`](super::strip::Source). Rounded as activations are, so groups of
//! weights below [`SMALLEST`](crate::cpu::form::SMALLEST) count as zeros.

use super::tokens::quantize;
use super::{GROUP, GROUP_BYTES, Order, ROWS, store_half};
use crate::quant::{self, Format};
use std::arch::aarch64::*;

/// Columns decoded at a time: whole blocks of every format.
const RUN: usize = 256;

/// A strip of up to eight rows as in [`pack_strip`](super::strip::pack_strip), of any format.
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
