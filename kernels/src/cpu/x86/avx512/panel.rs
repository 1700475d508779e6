//! A strip of rows as int8 side by side: what the prefill's inner loop ([`gemm`](super::gemm)) reads. Made once a strip and batch, in
//! the caller's scratch, which a core's second-level cache holds.
//!
//! A panel of [`ROWS`] rows and `cols` columns:
//!
//! | plane   | shape                    | meaning                                                              |
//! |---------|--------------------------|----------------------------------------------------------------------|
//! | codes   | u8 `[cols/4, ROWS, 4]`   | unsigned codes                                                       |
//! | scales  | f32 `[cols/32, ROWS]`    | `w = scale · (code − 128)`, or with offsets `w = scale · code + offset` |
//! | offsets | f32 `[cols/32, ROWS]`    | only of formats whose blocks have minima                             |
//!
//! Nothing is lost where a format's scales are of 32 weights or more. Where they are of 16 ([`Q6_K`](crate::quant::q6_k) and its like)
//! two runs share the larger one's scale and are rounded anew to eight bits.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use super::chunk::{Chunk, Order, Unpack};
use std::arch::x86_64::*;

/// Rows of a panel: two vectors.
pub const ROWS: usize = 32;

/// Where the planes lie in scratch.
#[derive(Clone, Copy)]
pub struct Panel {
    pub codes: *mut u8,
    pub scales: *mut f32,
    pub offsets: *mut f32,
}

impl Panel {
    /// Bytes of scratch for `cols` columns, with room to align.
    pub fn bytes(cols: usize) -> usize {
        let cols = cols.next_multiple_of(256);
        cols * ROWS + 2 * (cols / 32 * ROWS * 4) + 64
    }

    /// In `scratch`, which is [`Panel::bytes`] long.
    pub fn new(scratch: &mut [u8], cols: usize) -> Panel {
        assert!(scratch.len() >= Self::bytes(cols));
        let cols = cols.next_multiple_of(256);
        let codes = scratch.as_mut_ptr().wrapping_add(scratch.as_ptr().align_offset(64));
        let scales = codes.wrapping_add(cols * ROWS).cast::<f32>();
        Panel { codes, scales, offsets: scales.wrapping_add(cols / 32 * ROWS) }
    }

    /// Fills the panel with up to [`ROWS`] rows of `cols` columns in format `F`; rows that are not there become zeros.
    ///
    /// # Safety
    /// Needs AVX-512 F and BW; `self` is of `cols` columns; `weights` holds whole rows of `row_bytes`.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn fill<F: Unpack>(&self, weights: &[u8], row_bytes: usize, cols: usize) {
        let rows = weights.len() / row_bytes;
        let mut codes = [[_mm512_setzero_si512(); 4]; ROWS];
        for run in 0..cols.div_ceil(256) {
            let whole = 256 * (run + 1) <= cols;
            for (r, codes) in codes.iter_mut().enumerate().take(rows) {
                let row = &weights[r * row_bytes..][..row_bytes];
                let rest = &row[run * F::BYTES..];
                // SAFETY: a whole run is in the row; a shorter one is copied to a buffer that is long enough for any format.
                let chunk = unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(rest.as_ptr().wrapping_add(2 * F::BYTES).cast());
                    if whole {
                        F::unpack(rest.as_ptr())
                    } else {
                        let mut buffer = [0; LONGEST];
                        buffer[..rest.len()].copy_from_slice(rest);
                        F::unpack(buffer.as_ptr())
                    }
                };
                let (scales, offsets);
                (*codes, scales, offsets) = settle::<F>(&chunk);
                for g in 0..8 {
                    let at = (8 * run + g) * ROWS + r;
                    // SAFETY: the planes have eight groups a run.
                    unsafe {
                        *self.scales.add(at) = scales[g];
                        if F::ZERO.is_none() {
                            *self.offsets.add(at) = offsets[g];
                        }
                    }
                }
            }
            if rows < ROWS {
                for g in 0..8 {
                    for r in rows..ROWS {
                        let at = (8 * run + g) * ROWS + r;
                        // SAFETY: as above.
                        unsafe { (*self.scales.add(at), *self.offsets.add(at)) = (0.0, 0.0) }
                    }
                }
            }
            // SAFETY: the plane has 256 columns a run.
            unsafe { interleave(&codes, self.codes.add(run * 256 * ROWS)) }
        }
    }
}

/// Bytes of 256 weights of the longest format.
const LONGEST: usize = 272;

/// Codes straight and, where offsets follow from the scale, raised so that 128 stands for zero; scales and offsets of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn settle<F: Unpack>(chunk: &Chunk) -> ([__m512i; 4], [f32; 8], [f32; 8]) {
    let codes = straight::<F>(chunk.codes);
    let mut scales = [0.0; 16];
    // SAFETY: sixteen numbers.
    unsafe { _mm512_storeu_ps(scales.as_mut_ptr(), chunk.scales) };
    if F::PER_16 {
        return share(codes, chunk);
    }
    let even = |x: [f32; 16]| std::array::from_fn(|g| x[2 * g]);
    match F::ZERO {
        Some(zero) => (codes.map(|c| _mm512_add_epi8(c, _mm512_set1_epi8((128 - zero) as i8))), even(scales), [0.0; 8]),
        None => {
            let mut offsets = [0.0; 16];
            // SAFETY: sixteen numbers.
            unsafe { _mm512_storeu_ps(offsets.as_mut_ptr(), chunk.offsets) };
            (codes, even(scales), even(offsets))
        }
    }
}

/// Puts the codes of any order straight.
#[inline]
#[target_feature(enable = "avx512f")]
fn straight<F: Unpack>(c: [__m512i; 4]) -> [__m512i; 4] {
    let pairs = |a, b| match F::ORDER {
        Order::Straight => (a, b),
        Order::Halves => (_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b)),
        // Even and odd pieces of 16, brought together by their indices in 64 bits.
        Order::Quarters => (
            _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), b),
            _mm512_permutex2var_epi64(a, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), b),
        ),
    };
    let ((a, b), (c, d)) = (pairs(c[0], c[1]), pairs(c[2], c[3]));
    [a, b, c, d]
}

/// Two runs of 16 on one scale: `w = scale[16] · code + offset[16]` rounded to `scale[32] · (code − 128)`, the largest weight at ±127.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn share(codes: [__m512i; 4], chunk: &Chunk) -> ([__m512i; 4], [f32; 8], [f32; 8]) {
    let mut out = codes;
    let mut scales = [0.0; 8];
    for n in 0..4 {
        let pieces = [
            _mm512_castsi512_si128(codes[n]),
            _mm512_extracti32x4_epi32::<1>(codes[n]),
            _mm512_extracti32x4_epi32::<2>(codes[n]),
            _mm512_extracti32x4_epi32::<3>(codes[n]),
        ];
        let w: [__m512; 4] = std::array::from_fn(|i| {
            let lane = _mm512_set1_epi32((4 * n + i) as i32);
            let code = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(pieces[i]));
            _mm512_fmadd_ps(code, _mm512_permutexvar_ps(lane, chunk.scales), _mm512_permutexvar_ps(lane, chunk.offsets))
        });
        let mut bytes = [_mm_setzero_si128(); 4];
        for pair in 0..2 {
            let (a, b) = (w[2 * pair], w[2 * pair + 1]);
            let largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
            let usable = largest.is_finite() && largest >= 1e-35;
            let inverse = _mm512_set1_ps(if usable { 127.0 / largest } else { 0.0 });
            scales[2 * n + pair] = if largest < 1e-35 { 0.0 } else { largest / 127.0 };
            for (i, w) in [a, b].into_iter().enumerate() {
                let code = _mm512_cvtps_epi32(_mm512_mul_ps(w, inverse));
                bytes[2 * pair + i] = _mm512_cvtepi32_epi8(_mm512_add_epi32(code, _mm512_set1_epi32(128)));
            }
        }
        let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(bytes[0]), bytes[1]);
        out[n] = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, bytes[2]), bytes[3]);
    }
    (out, scales, [0.0; 8])
}

/// 256 columns of the rows to `[64, ROWS, 4]`.
///
/// # Safety
/// They are writable, at a multiple of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn interleave(codes: &[[__m512i; 4]; ROWS], to: *mut u8) {
    for part in 0..4 {
        for half in 0..2 {
            let rows: [__m512i; 16] = std::array::from_fn(|r| codes[16 * half + r][part]);
            let columns = transpose(rows);
            for (i, column) in columns.into_iter().enumerate() {
                // SAFETY: by the contract.
                unsafe { _mm512_store_si512(to.add((16 * part + i) * ROWS * 4 + 64 * half).cast(), column) };
            }
        }
    }
}

/// 16 × 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows by 32 bits, fours by 64, then quarters twice.
    let by_32: [__m512i; 16] = std::array::from_fn(|i| {
        let (a, b) = (r[i & !1], r[i | 1]);
        if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    // by_64[4q + c]: column c of each quarter, rows 4q .. 4q + 4.
    let by_64: [__m512i; 16] = std::array::from_fn(|i| {
        let (q, c) = (i / 4 * 4, i % 4);
        let (a, b) = (by_32[q + c / 2], by_32[q + 2 + c / 2]);
        if c % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    // Column 4k + c is quarter k of by_64[c], [4 + c], [8 + c], [12 + c].
    let mut out = r;
    for c in 0..4 {
        let (a, b) = (by_64[c], by_64[4 + c]);
        let (d, e) = (by_64[8 + c], by_64[12 + c]);
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
        let (de_even, de_odd) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xDD>(d, e));
        out[c] = _mm512_shuffle_i32x4::<0x88>(ab_even, de_even);
        out[8 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_even, de_even);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(ab_odd, de_odd);
        out[12 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_odd, de_odd);
    }
    out
}
