//! A strip of rows side by side: what the inner loop of [`gemm`](super::gemm) reads. Made once a strip and batch, in the caller's
//! scratch, which a core's second-level cache holds. A panel of [`ROWS`] rows is pieces of 256 columns, [`PIECE_BYTES`] each:
//!
//! | plane   | shape              | |
//! |---------|--------------------|-|
//! | codes   | u8 `[64, ROWS, 4]` | as unpacked |
//! | factors | `[16, ROWS]`       | of whole scales each twice, i16; else f32 |
//! | offsets | f32 `[16, ROWS]`   | |
//! | units   | f32 `[ROWS]`       | `w = unit · factor · code + offset` |
//!
//! Factors and offsets are of 16 columns, or in the first half of 32.

use super::run::{Run, Unpack};
use super::tiles::PIECE;
use super::transpose::transpose;
use crate::quant::blocks;
use std::arch::x86_64::*;

/// Rows of a panel: two vectors.
pub const ROWS: usize = 16;
/// Where factors begin.
pub const FACTORS: usize = PIECE * ROWS;
/// Where offsets begin.
pub const OFFSETS: usize = FACTORS + PIECE / 16 * ROWS * 4;
/// Where units begin.
pub const UNITS: usize = OFFSETS + PIECE / 16 * ROWS * 4;
/// Bytes of a piece.
pub const PIECE_BYTES: usize = UNITS + ROWS * 4;

/// Bytes of a panel of so many columns.
pub const fn bytes(cols: usize) -> usize {
    cols.div_ceil(PIECE) * PIECE_BYTES
}

/// Fills the panel at `to` with the first [`ROWS`] of the rows; rows that are not there become zeros. The rows after them, which the next
/// panel takes, are prefetched meanwhile.
///
/// # Safety
/// Needs AVX2, FMA and F16C; `to` is writable for [`bytes`] of the rows' columns, at a multiple of 64.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn fill<B: Unpack>(to: *mut u8, weights: &[u8], row_bytes: usize) {
    let mut runs = [Run::EMPTY; ROWS];
    let run_bytes = PIECE / B::WEIGHTS * size_of::<B>();
    for (piece, start) in (0..row_bytes).step_by(run_bytes).enumerate() {
        for (r, (row, run)) in weights.chunks_exact(row_bytes).zip(&mut runs).enumerate() {
            let part = &row[start..row_bytes.min(start + run_bytes)];
            if (r + ROWS) * row_bytes < weights.len() {
                for line in (0..run_bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(part.as_ptr().wrapping_add(ROWS * row_bytes + line).cast());
                }
            }
            // SAFETY: the features are enabled here.
            unsafe { B::unpack(blocks::<B>(part), run) };
        }
        // SAFETY: the piece is in the panel.
        unsafe { interleave::<B>(&runs, to.add(piece * PIECE_BYTES)) };
    }
}

/// Unpacked rows to a piece.
///
/// # Safety
/// It is writable, at a multiple of 32 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn interleave<B: Unpack>(runs: &[Run; ROWS], piece: *mut u8) {
    for (half, runs) in runs.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: line `n` of the half's eight rows, in the piece.
        let put = |n: usize, x: __m256| unsafe { _mm256_store_ps(piece.add((n * ROWS + 8 * half) * 4).cast(), x) };
        let mut rows = [_mm256_setzero_ps(); 8];
        for (g, eight) in (0..PIECE).step_by(32).enumerate() {
            for (row, run) in rows.iter_mut().zip(runs) {
                // SAFETY: 32 of 256 codes.
                *row = unsafe { _mm256_loadu_ps(run.codes.as_ptr().add(eight).cast()) };
            }
            for (i, column) in transpose(rows).into_iter().enumerate() {
                put(8 * g + i, column);
            }
        }
        for part in 0..if B::PER_16 { 2 } else { 1 } {
            for (row, run) in rows.iter_mut().zip(runs) {
                *row = of_groups::<B>(&run.scales, part);
            }
            for (i, scales) in transpose(rows).into_iter().enumerate() {
                let factors = if B::WHOLE { twice(_mm256_cvtps_epi32(scales)) } else { scales };
                put(FACTORS / (4 * ROWS) + 8 * part + i, factors);
            }
            if !B::SIGNED {
                for (row, run) in rows.iter_mut().zip(runs) {
                    *row = of_groups::<B>(&run.offsets, part);
                }
                for (i, offsets) in transpose(rows).into_iter().enumerate() {
                    put(OFFSETS / (4 * ROWS) + 8 * part + i, offsets);
                }
            }
        }
        let [a, b, c, d, e, f, g, h] = runs.each_ref().map(|run| run.unit);
        put(UNITS / (4 * ROWS), _mm256_setr_ps(a, b, c, d, e, f, g, h));
    }
}

/// Eight of sixteen numbers, or every other one.
#[inline]
#[target_feature(enable = "avx2")]
fn of_groups<B: Unpack>(numbers: &[f32; 16], part: usize) -> __m256 {
    // SAFETY: eight numbers each.
    let [a, b] = unsafe { [_mm256_loadu_ps(numbers.as_ptr()), _mm256_loadu_ps(numbers.as_ptr().add(8))] };
    match (B::PER_16, part) {
        (true, 0) => a,
        (true, _) => b,
        _ => {
            let fours = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(fours))
        }
    }
}

/// The low 16 bits of each 32, in both halves.
#[inline]
#[target_feature(enable = "avx2")]
fn twice(x: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_blend_epi16::<0b1010_1010>(x, _mm256_slli_epi32::<16>(x)))
}
