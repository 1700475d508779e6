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
//! are rounded anew to eight bits with one scale for 64 ([`requantize`]), as activations are: both together lose less than the scale for
//! 256 activations that other engines give them, and the inner loop spends 16 % on scales, not 27 to 33 %.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use super::chunk::{Chunk, Unpack};
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

/// Fills the panel at `to` with up to [`ROWS`] rows of `cols` columns in format `F`; rows that are not there become zeros.
///
/// # Safety
/// Needs AVX-512 F, BW and VNNI; `to` is writable for [`bytes`] of `cols`, at a multiple of 64; `weights` holds whole rows of `row_bytes`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub unsafe fn fill<F: Unpack>(to: *mut u8, weights: &[u8], row_bytes: usize, cols: usize) {
    let rows = weights.len() / row_bytes;
    let mut codes = [[_mm512_setzero_si512(); 4]; ROWS];
    let groups = PIECE / per::<F>();
    for piece in 0..cols.div_ceil(PIECE) {
        let whole = PIECE * (piece + 1) <= cols;
        let to = to.wrapping_add(piece * PIECE_BYTES);
        let numbers = to.wrapping_add(CODES).cast::<f32>();
        for (r, codes) in codes.iter_mut().enumerate() {
            let (mut scales, mut offsets) = ([0.0; 8], [0.0; 8]);
            if r < rows {
                let rest = &weights[r * row_bytes..][..row_bytes][piece * F::BYTES..];
                // SAFETY: a whole run is in the row; a shorter one is copied to a buffer that is long enough for any format.
                let chunk = unsafe {
                    for line in 0..F::BYTES.div_ceil(64) {
                        _mm_prefetch::<_MM_HINT_T0>(rest.as_ptr().wrapping_add(2 * F::BYTES + 64 * line).cast());
                    }
                    if whole {
                        F::unpack(rest.as_ptr())
                    } else {
                        let mut buffer = [0; LONGEST];
                        buffer[..rest.len()].copy_from_slice(rest);
                        F::unpack(buffer.as_ptr())
                    }
                };
                (*codes, scales, offsets) = if per::<F>() == 64 { requantize::<F>(&chunk) } else { exact::<F>(&chunk) };
            }
            for g in 0..groups {
                // SAFETY: the piece has so many groups of three planes.
                unsafe {
                    numbers.add((3 * g + 1) * ROWS + r).write(scales[g]);
                    if has_offsets::<F>() {
                        numbers.add((3 * g + 2) * ROWS + r).write(offsets[g]);
                    }
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

/// Bytes of 256 weights of the longest format.
const LONGEST: usize = 272;

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

/// Signed codes with one scale for 64: `w = scale[16] · code + offset[16]` rounded, the largest weight that the scales
/// of 16 allow at ±127.
///
/// In 16 bits, 8 of them a fraction: `(a · code + b + ½) >> 8` with `a = scale · 127 / largest` and `b` alike.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn requantize<F: Unpack>(chunk: &Chunk) -> ([__m512i; 4], [f32; 8], [f32; 8]) {
    let (s, o) = chunk.scales_and_offsets::<F>();
    let ends = _mm512_max_ps(_mm512_abs_ps(o), _mm512_abs_ps(_mm512_fmadd_ps(s, _mm512_set1_ps(f32::from(F::LARGEST)), o)));
    // Over the four runs of 16: lanes of a quarter.
    let pairs = _mm512_max_ps(ends, _mm512_permute_ps::<0b10_11_00_01>(ends));
    let largest = _mm512_max_ps(pairs, _mm512_permute_ps::<0b01_00_11_10>(pairs));
    // A maximum with NaN may lose it; a sum does not.
    let largest = _mm512_mask_mov_ps(largest, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(ends, ends), ends);
    let live = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(largest, _mm512_set1_ps(1e-35));
    let scale = _mm512_maskz_mul_ps(live, largest, _mm512_set1_ps(1.0 / 127.0));
    let by = _mm512_maskz_mul_ps(live, _mm512_rcp14_ps(largest), _mm512_set1_ps(127.0 * 256.0));
    let a = words(_mm512_cvtps_epi32(_mm512_mul_ps(s, by)));
    let b = match F::ZERO {
        Some(_) => _mm512_setzero_si512(),
        None => words(_mm512_cvtps_epi32(_mm512_mul_ps(o, by))),
    };
    let b = _mm512_add_epi16(b, _mm512_set1_epi16(128));
    let mut codes = chunk.codes;
    for n in 0..4 {
        let (at, c) = (pieces::<F>(n), codes[n]);
        let (a, b) = (_mm512_permutexvar_epi32(at, a), _mm512_permutexvar_epi32(at, b));
        let (even, odd) = match F::ZERO {
            Some(zero) => {
                let c = _mm512_sub_epi8(c, _mm512_set1_epi8(zero as i8));
                (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(c)), _mm512_srai_epi16::<8>(c))
            }
            None => (_mm512_and_si512(c, _mm512_set1_epi16(255)), _mm512_srli_epi16::<8>(c)),
        };
        let (even, odd) = (_mm512_add_epi16(_mm512_mullo_epi16(a, even), b), _mm512_add_epi16(_mm512_mullo_epi16(a, odd), b));
        // The upper byte of each word.
        codes[n] = _mm512_mask_mov_epi8(_mm512_srli_epi16::<8>(even), 0xAAAA_AAAA_AAAA_AAAA, odd);
    }
    let mut all = [0.0; 16];
    // SAFETY: sixteen numbers.
    unsafe { _mm512_storeu_ps(all.as_mut_ptr(), scale) };
    (codes, [all[0], all[4], all[8], all[12], 0.0, 0.0, 0.0, 0.0], [0.0; 8])
}

/// The low half of each 32 bits in both halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(x: __m512i) -> __m512i {
    _mm512_mask_mov_epi16(x, 0xAAAA_AAAA, _mm512_slli_epi32::<16>(x))
}

/// For each four codes of vector `n` the run of 16 they are in.
#[inline]
#[target_feature(enable = "avx512f")]
fn pieces<F: Unpack>(n: usize) -> __m512i {
    let [a, b, c, d] = F::ORDER[n].map(|piece| piece as i32);
    _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)
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

/// What an activation's 128 adds to a group's sums is taken off beforehand.
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
