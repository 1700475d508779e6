//! Runs of 256 weights or activations so that each lane of 32 bits belongs to one scale: what [`rows`](super::rows) multiplies.
//!
//! Four vectors hold 256 codes. Lane `l` of each of them holds four codes of the same piece of 16 (where scales are of 16), or lanes `2i`
//! and `2i + 1` eight codes of the same group of 32 (elsewhere): so the dot products of all four vectors may be added up before they are
//! scaled, and scales need no spreading. Eight or four shuffles a run bring weights there, as many as spreading scales would take for one
//! token; further tokens cost none.

use super::chunk::{Chunk, Order, Unpack};
use crate::cpu::form::Planes;
use std::arch::x86_64::*;

/// A run of weights.
pub struct Lanes {
    pub codes: [__m512i; 4],
    pub scales: __m512,
    /// Only where [`Unpack::ZERO`] is `None`.
    pub offsets: __m512,
}

/// A run of one token's activations, for weights of one format.
#[repr(C, align(64))]
pub struct Prepared {
    pub codes: [[u8; 64]; 4],
    pub scales: [f32; 16],
    /// Where [`Unpack::ZERO`] is known, `−zero · Σ codes` of each lane, as i32; else `scale · Σ codes`, as f32.
    pub rest: [u32; 16],
}

/// For each lane the piece of 16 whose codes it has, or one of the two pieces of its group.
const fn pieces<F: Unpack>() -> [i32; 16] {
    if F::PER_16 {
        return [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
    }
    match F::ORDER {
        Order::Straight | Order::Quarters => [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15],
        Order::Halves => [0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15],
    }
}

/// Indices for a shuffle of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(of: [i32; 16]) -> __m512i {
    // SAFETY: sixteen words.
    unsafe { _mm512_loadu_si512(of.as_ptr().cast()) }
}

/// Unpacked weights in lanes. Scales (and offsets) beyond the mask become zero, whatever they were.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn arrange<F: Unpack>(chunk: Chunk, mask: Option<__mmask16>) -> Lanes {
    let c = chunk.codes;
    let codes = if F::PER_16 {
        const { assert!(!F::PER_16 || matches!(F::ORDER, Order::Straight)) };
        by_pieces(c)
    } else {
        by_groups(match F::ORDER {
            Order::Quarters => c,
            Order::Straight | Order::Halves => [
                _mm512_shuffle_i64x2::<0b10_00_10_00>(c[0], c[1]),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(c[0], c[1]),
                _mm512_shuffle_i64x2::<0b10_00_10_00>(c[2], c[3]),
                _mm512_shuffle_i64x2::<0b11_01_11_01>(c[2], c[3]),
            ],
        })
    };
    let index = lanes(const { pieces::<F>() });
    let put = |x: __m512| match mask {
        Some(mask) => _mm512_maskz_permutexvar_ps(mask, index, x),
        None => _mm512_permutexvar_ps(index, x),
    };
    Lanes { codes, scales: put(chunk.scales), offsets: if F::ZERO.is_none() { put(chunk.offsets) } else { chunk.offsets } }
}

/// Pieces `4n + k` of vector `n` go to lanes `4k + n` of all four.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_pieces(c: [__m512i; 4]) -> [__m512i; 4] {
    let (a, b) = (_mm512_unpacklo_epi32(c[0], c[1]), _mm512_unpackhi_epi32(c[0], c[1]));
    let (d, e) = (_mm512_unpacklo_epi32(c[2], c[3]), _mm512_unpackhi_epi32(c[2], c[3]));
    [_mm512_unpacklo_epi64(a, d), _mm512_unpackhi_epi64(a, d), _mm512_unpacklo_epi64(b, e), _mm512_unpackhi_epi64(b, e)]
}

/// First pieces of four groups, their second pieces, and the same of the four other groups, to eight codes of each group a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_groups(c: [__m512i; 4]) -> [__m512i; 4] {
    [
        _mm512_unpacklo_epi64(c[0], c[2]),
        _mm512_unpackhi_epi64(c[0], c[2]),
        _mm512_unpacklo_epi64(c[1], c[3]),
        _mm512_unpackhi_epi64(c[1], c[3]),
    ]
}

/// Lanes whose weights are among the first `n` of a run, a multiple of 32.
pub fn below<F: Unpack>(n: usize) -> __mmask16 {
    pieces::<F>().iter().enumerate().filter(|(_, piece)| 16 * **piece < n as i32).fold(0, |mask, (lane, _)| mask | 1 << lane)
}

/// Run `run` of a row of activations in [`Int8By32`](crate::cpu::Form::Int8By32), `cols` of them; what lies beyond is zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub fn prepare<F: Unpack>(row: &[u8], planes: Planes, run: usize, cols: usize) -> Prepared {
    let (mut codes, mut scales) = ([[0u8; 64]; 4], [0u8; 32]);
    let n = 256.min(cols - 256 * run);
    let (mut from, mut from_scales) = (&row[256 * run..][..n], &row[planes.scales + 32 * run..][..n / 8]);
    if n < 256 {
        codes.as_flattened_mut()[..n].copy_from_slice(from);
        scales[..n / 8].copy_from_slice(from_scales);
        (from, from_scales) = (codes.as_flattened(), &scales);
    }
    let mut c = [_mm512_setzero_si512(); 4];
    for (c, codes) in c.iter_mut().zip(from.as_chunks::<64>().0) {
        // SAFETY: 64 bytes.
        *c = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
    }
    let arranged = if F::PER_16 {
        by_pieces(c)
    } else {
        // First and second pieces of groups in the order that weights have them.
        let order = |second: i64| match F::ORDER {
            Order::Straight | Order::Quarters => {
                _mm512_setr_epi64(second, second + 1, 4 + second, 5 + second, 8 + second, 9 + second, 12 + second, 13 + second)
            }
            Order::Halves => {
                _mm512_setr_epi64(second, second + 1, 8 + second, 9 + second, 4 + second, 5 + second, 12 + second, 13 + second)
            }
        };
        let pick = |a, b, second| _mm512_permutex2var_epi64(a, order(second), b);
        by_groups([pick(c[0], c[1], 0), pick(c[0], c[1], 2), pick(c[2], c[3], 0), pick(c[2], c[3], 2)])
    };
    let ones = _mm512_set1_epi8(1);
    let mut sums = _mm512_setzero_si512();
    for x in arranged {
        sums = _mm512_dpbusd_epi32(sums, ones, x);
    }
    // SAFETY: eight numbers.
    let scales = _mm512_castps256_ps512(unsafe { _mm256_loadu_ps(from_scales.as_ptr().cast()) });
    let scales = _mm512_permutexvar_ps(_mm512_srli_epi32::<1>(lanes(const { pieces::<F>() })), scales);
    let rest = match F::ZERO {
        Some(zero) => _mm512_mullo_epi32(sums, _mm512_set1_epi32(-i32::from(zero))),
        None => _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales)),
    };
    let mut out = Prepared { codes: [[0; 64]; 4], scales: [0.0; 16], rest: [0; 16] };
    // SAFETY: vectors of 64 bytes.
    unsafe {
        for (to, x) in out.codes.iter_mut().zip(arranged) {
            _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
        }
        _mm512_storeu_ps(out.scales.as_mut_ptr(), scales);
        _mm512_storeu_si512(out.rest.as_mut_ptr().cast(), rest);
    }
    out
}
