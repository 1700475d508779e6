//! Weights to panels: strips of eight rows, int8 with a scale for [`GROUP`] columns.
//!
//! A weight is an affine function of its code, w = u·code + v, with u and v constant over 16 columns at least. So in the panel it is
//! (a·code + b) / 256, rounded, with int16 a = 256·u / scale and b = 256·v / scale: two multiplications for 16 weights, whatever the
//! format. What formats differ in is a [`Source`].

use super::{GROUP, GROUP_BYTES, Order, ROWS, panel_bytes, panel_scales, store_half};
use std::arch::aarch64::*;

/// Columns that a source handles at a time: whole blocks of every format.
pub const RUN: usize = 256;
/// Bytes of a run in the widest format, F32.
const RUN_BYTES: usize = 4 * RUN;

/// The affine functions of a run of one row.
#[derive(Clone, Copy)]
pub struct Head {
    /// Of each 16 columns.
    pub a: [i16; 16],
    pub b: [i16; 16],
    /// Of each group of 64.
    pub scales: [f32; 4],
}

/// What a format tells about a run of one row. Runs are whole; the rest of a row is followed by blocks of zero bytes.
pub trait Source {
    /// Bytes of a run.
    const BYTES: usize;

    /// # Safety
    /// `run` points to [`Source::BYTES`] bytes.
    unsafe fn head(run: *const u8) -> Head;

    /// The codes of the 64 columns of group `g` < 4.
    ///
    /// # Safety
    /// As [`Source::head`].
    unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4];
}

/// A strip from up to eight rows of `row_bytes` bytes each. Missing rows repeat the last one; missing columns are zeros.
///
/// # Panics
/// When `w` is not one to eight rows, or the panel has the wrong size.
#[inline]
#[target_feature(enable = "neon")]
pub fn pack_strip<S: Source, O: Order>(w: &[u8], row_bytes: usize, cols: usize, q: &mut [i8], scales: &mut [f32]) {
    let rows = w.len() / row_bytes;
    assert!(w.len() == rows * row_bytes && (1..=ROWS).contains(&rows));
    assert!(q.len() == panel_bytes(cols) && scales.len() == panel_scales(cols));
    let runs = q.chunks_mut(RUN / GROUP * GROUP_BYTES).zip(scales.chunks_mut(RUN / GROUP * ROWS));
    for (i, (q, scales)) in runs.enumerate() {
        for half in 0..2 {
            let rest = |r: usize| &w[row_bytes * (4 * half + r).min(rows - 1)..][..row_bytes][S::BYTES * i..];
            let rests = [rest(0), rest(1), rest(2), rest(3)];
            if rests[0].len() >= S::BYTES {
                let runs = [rests[0].as_ptr(), rests[1].as_ptr(), rests[2].as_ptr(), rests[3].as_ptr()];
                // SAFETY: four runs that may be read to their end.
                unsafe { pack_run::<S, O>(runs, half, q, scales) };
            } else {
                let mut ends = [[0; RUN_BYTES]; 4];
                for (end, rest) in ends.iter_mut().zip(rests) {
                    end[..rest.len()].copy_from_slice(rest);
                }
                let runs = [ends[0].as_ptr(), ends[1].as_ptr(), ends[2].as_ptr(), ends[3].as_ptr()];
                // SAFETY: `RUN_BYTES` is no less than any source's.
                unsafe { pack_run::<S, O>(runs, half, q, scales) };
            }
        }
    }
}

/// One run of four rows, `half` 0 or 1 of the strip; `q` and `scales` are the groups wanted, four or fewer.
///
/// # Safety
/// Each of `run` points to [`Source::BYTES`] bytes.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pack_run<S: Source, O: Order>(run: [*const u8; 4], half: usize, q: &mut [i8], scales: &mut [f32]) {
    // SAFETY: the caller's promise.
    let heads = unsafe { [S::head(run[0]), S::head(run[1]), S::head(run[2]), S::head(run[3])] };
    for (g, (q, scales)) in q.chunks_exact_mut(GROUP_BYTES).zip(scales.chunks_exact_mut(ROWS)).enumerate() {
        let mut rows = [[vdupq_n_s8(0); 4]; 4];
        for r in 0..4 {
            scales[4 * half + r] = heads[r].scales[g];
            // SAFETY: the caller's promise; `g` < 4, so four entries of sixteen are left.
            unsafe {
                let (a, b) = (vld1_s16(heads[r].a.as_ptr().add(4 * g)), vld1_s16(heads[r].b.as_ptr().add(4 * g)));
                let codes = S::codes(run[r], g);
                rows[r] =
                    [affine::<0>(codes[0], a, b), affine::<1>(codes[1], a, b), affine::<2>(codes[2], a, b), affine::<3>(codes[3], a, b)];
            }
        }
        // SAFETY: the group's 512 bytes.
        unsafe { store_half::<O>(q.as_mut_ptr(), half, rows) };
    }
}

/// (a·code + b) / 256, rounded (halves up) and saturated.
#[inline]
#[target_feature(enable = "neon")]
fn affine<const I: i32>(codes: int8x16_t, a: int16x4_t, b: int16x4_t) -> int8x16_t {
    let b = vdupq_lane_s16::<I>(b);
    let low = vmlaq_lane_s16::<I>(b, vmovl_s8(vget_low_s8(codes)), a);
    let high = vmlaq_lane_s16::<I>(b, vmovl_high_s8(codes), a);
    vqrshrn_high_n_s16::<8>(vqrshrn_n_s16::<8>(low), high)
}
