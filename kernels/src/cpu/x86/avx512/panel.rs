//! A strip of rows as int8 side by side: what the prefill's inner loop ([`gemm`](super::gemm)) reads. Made once a strip and batch, in
//! the caller's scratch, which a core's second-level cache holds.
//!
//! A panel of [`ROWS`] rows is pieces of 256 columns, [`PIECE_BYTES`] each:
//!
//! | plane  | shape                 | meaning                                                                    |
//! |--------|-----------------------|----------------------------------------------------------------------------|
//! | codes  | i8 `[64, ROWS, 4]`    | `w = scale · code (+ offset)`                                              |
//! | groups | `[256/per, 3, ROWS]`  | i32 −128 · Σ codes · f32 scales · f32 offsets, of formats with minima only |
//!
//! Nothing is lost where a block of 32 has its scale ([`exact`]): these formats' activations are rounded by 32 too. K-quants and `IQ4_XS`
//! are rounded anew to eight bits with one scale for 64 ([`Factors`]), as activations are: both together lose less than the scale for
//! 256 activations that other engines give them, and the inner loop spends 16 % on scales, not 27 to 33 %.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use super::chunk::{Chunk, LONGEST, Unpack};
use super::requantize::Factors;
use super::tiles::PIECE;
use super::transpose::transpose;
use std::arch::x86_64::*;

/// Rows of a panel: two vectors.
pub const ROWS: usize = 32;
/// Bytes of a piece's codes.
pub const CODES: usize = PIECE * ROWS;
/// Bytes of a group's numbers.
pub const GROUP: usize = 3 * ROWS * 4;
/// Bytes of a piece.
pub const PIECE_BYTES: usize = CODES + PIECE / 32 * GROUP;

/// Bytes of the panel of so many columns.
pub const fn bytes(cols: usize) -> usize {
    cols.div_ceil(PIECE) * PIECE_BYTES
}

/// Columns that share a scale in a panel of format `F`, and in the activations that go with it.
pub const fn per<F: Unpack>() -> usize {
    if F::BLOCK == 256 { 64 } else { 32 }
}

/// Whether a panel of format `F` has offsets: requantized codes take them in.
pub const fn has_offsets<F: Unpack>() -> bool {
    per::<F>() == 32 && F::ZERO.is_none()
}

/// Fills the panel at `to` with the first [`ROWS`] rows of `cols` columns in format `F`; rows that are not there become zeros. The rows
/// after them, which the next panel takes, are prefetched meanwhile.
///
/// # Safety
/// Needs AVX-512 F, BW and VNNI; `to` is writable for [`bytes`] of `cols`, at a multiple of 64; `weights` holds whole rows of `row_bytes`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub unsafe fn fill<F: Unpack>(to: *mut u8, weights: &[u8], row_bytes: usize, cols: usize) {
    let all = weights.len() / row_bytes;
    let rows = all.min(ROWS);
    let mut codes = [[_mm512_setzero_si512(); 4]; ROWS];
    let groups = PIECE / per::<F>();
    for piece in 0..cols.div_ceil(PIECE) {
        let to = to.wrapping_add(piece * PIECE_BYTES);
        let numbers = to.wrapping_add(CODES).cast::<f32>();
        if rows < ROWS {
            // SAFETY: the piece has so many planes of numbers; zero is all zeros.
            unsafe { numbers.write_bytes(0, 3 * groups * ROWS) };
        }
        // SAFETY: row `r` is in the panel, and the piece has `groups` groups of three planes.
        let put = |r: usize, plane: usize, of_groups: &[f32]| unsafe {
            for (g, number) in of_groups.iter().take(groups).enumerate() {
                numbers.add((3 * g + plane) * ROWS + r).write(*number);
            }
        };
        let chunk = |r: usize| {
            let rest = &weights[r * row_bytes..][..row_bytes][piece * F::BYTES..];
            // SAFETY: a whole run is in the row; a shorter one is copied to a buffer that is long enough for any format.
            unsafe {
                if rest.len() >= F::BYTES {
                    return F::unpack(rest.as_ptr());
                }
                let mut buffer = [0; LONGEST];
                buffer[..rest.len()].copy_from_slice(rest);
                F::unpack(buffer.as_ptr())
            }
        };
        let prefetch_later = |r: usize| {
            let row = weights.as_ptr().wrapping_add(r * row_bytes);
            let (later, next) = (row.wrapping_add((piece + 2) * F::BYTES), row.wrapping_add(ROWS * row_bytes + piece * F::BYTES));
            for line in 0..F::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(later.wrapping_add(64 * line).cast());
                if r + ROWS < all {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64 * line).cast());
                }
            }
        };
        if per::<F>() == 64 {
            for first in (0..rows).step_by(Factors::rows::<F>()) {
                let rows = first..rows.min(first + Factors::rows::<F>());
                rows.clone().for_each(prefetch_later);
                let (a, b) = (chunk(rows.start), chunk(rows.end - 1));
                let factors = Factors::of::<F>(&a, &b);
                for (side, (r, chunk)) in rows.zip([a, b]).enumerate() {
                    put(r, 1, &factors.scales(side));
                    codes[r] = factors.apply::<F>(chunk.codes, side);
                }
            }
        } else {
            for (r, codes) in codes.iter_mut().enumerate().take(rows) {
                prefetch_later(r);
                let (scales, offsets);
                (*codes, scales, offsets) = exact::<F>(&chunk(r));
                put(r, 1, &scales);
                if has_offsets::<F>() {
                    put(r, 2, &offsets);
                }
            }
        }
        // SAFETY: the piece is writable.
        unsafe {
            interleave::<F>(&codes, to);
            compensate(to, groups);
        }
    }
}

/// Signed codes, scales and offsets of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn exact<F: Unpack>(chunk: &Chunk) -> ([__m512i; 4], [f32; 8], [f32; 8]) {
    let zero = _mm512_set1_epi8(F::ZERO.unwrap_or(0) as i8);
    let mut numbers = [0.0; 16];
    // SAFETY: sixteen numbers.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), chunk.numbers) };
    let every_other = |first: usize| std::array::from_fn(|g| numbers[2 * g + first]);
    (chunk.codes.map(|c| _mm512_sub_epi8(c, zero)), every_other(0), every_other(1))
}

/// 256 columns of the rows, in format `F`'s order, to `[64, ROWS, 4]`.
///
/// # Safety
/// They are writable, at a multiple of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn interleave<F: Unpack>(codes: &[[__m512i; 4]; ROWS], to: *mut u8) {
    for part in 0..4 {
        for half in 0..2 {
            let rows: [__m512i; 16] = std::array::from_fn(|r| codes[16 * half + r][part]);
            let columns = transpose(rows);
            for (i, column) in columns.into_iter().enumerate() {
                let fours = 4 * F::ORDER[part][i / 4] + i % 4;
                // SAFETY: by the contract.
                unsafe { _mm512_store_si512(to.add(fours * ROWS * 4 + 64 * half).cast(), column) };
            }
        }
    }
}

/// Where each group's sums start: at minus what the 128 added to every activation comes to.
///
/// # Safety
/// `piece` is a piece whose codes are filled.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn compensate(piece: *mut u8, groups: usize) {
    let by = _mm512_set1_epi8(-128);
    for g in 0..groups {
        let codes = piece.wrapping_add(g * CODES / groups);
        let mut sums = [_mm512_setzero_si512(); 2];
        for step in 0..PIECE / 4 / groups {
            for (half, sum) in sums.iter_mut().enumerate() {
                // SAFETY: within the codes.
                *sum = _mm512_dpbusd_epi32(*sum, by, unsafe { _mm512_load_si512(codes.add((step * 2 + half) * 64).cast()) });
            }
        }
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: within the group's first plane.
            unsafe { _mm512_store_si512(piece.add(CODES + g * GROUP + half * 64).cast(), _mm512_sub_epi32(_mm512_setzero_si512(), sum)) };
        }
    }
}
