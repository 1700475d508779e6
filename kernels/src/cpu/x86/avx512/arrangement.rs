//! How 256 weights and as many activations meet in registers: what [`rows`](super::rows) leaves open.

use super::chunk::{BY_BLOCKS, Order, STRAIGHT, Unpack};
use crate::cpu::form::Planes;
use std::arch::x86_64::*;

/// A way to multiply runs of 256 weights in one format.
pub trait Arrangement {
    /// A run of one token's activations.
    type Prepared;
    /// Bytes of 256 weights.
    const BYTES: usize;

    /// Run `run` of a row of `cols` activations in [`Int8By32`](crate::cpu::Form::Int8By32); what lies beyond the row is zeros.
    ///
    /// # Safety
    /// Needs AVX-512 F, BW and VNNI.
    unsafe fn prepare(row: &[u8], planes: Planes, run: usize, cols: usize) -> Self::Prepared;

    /// Adds `Σ w·x` over run `run` to each token's sum, spread over its lanes; only the first `weights` count, where a number is given.
    ///
    /// # Safety
    /// Needs AVX-512 F, BW and VNNI; [`Self::BYTES`] bytes are readable at `at`; the tokens at `x` have so many runs.
    unsafe fn multiply<const N: usize>(
        at: *const u8,
        weights: Option<usize>,
        x: &[*const Self::Prepared; N],
        run: usize,
        sums: &mut [__m512; N],
    );
}

/// Codes of a run of activations in `order`, and the scales of its 32s in the lower half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub fn run_in_order(row: &[u8], planes: Planes, run: usize, cols: usize, order: Order) -> ([__m512i; 4], __m512) {
    let n = 256.min(cols - 256 * run);
    let (mut codes, mut scales) = (&row[256 * run..][..n], &row[planes.scales + 32 * run..][..n / 8]);
    let mut whole = ([0; 256], [0; 32]);
    if n < 256 {
        whole.0[..n].copy_from_slice(codes);
        whole.1[..n / 8].copy_from_slice(scales);
        (codes, scales) = (&whole.0, &whole.1);
    }
    let mut in_order = [_mm512_setzero_si512(); 4];
    for (to, [a, b, c, d]) in in_order.iter_mut().zip(order) {
        // SAFETY: sixteen pieces of 16 bytes.
        let piece = |i: usize| unsafe { _mm_loadu_si128(codes.as_ptr().add(16 * i).cast()) };
        let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(piece(a)), piece(b));
        *to = _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, piece(c)), piece(d));
    }
    // SAFETY: eight numbers.
    (in_order, _mm512_castps256_ps512(unsafe { _mm256_loadu_ps(scales.as_ptr().cast()) }))
}

/// A vector of indices.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn indices(of: [i32; 16]) -> __m512i {
    // SAFETY: sixteen words.
    unsafe { _mm512_loadu_si512(of.as_ptr().cast()) }
}

/// The order of codes with scales of 32 once they are [`group_by_group`].
pub const fn group_order<F: Unpack>() -> Order {
    if is_straight::<F>() { BY_BLOCKS } else { F::ORDER }
}

const fn is_straight<F: Unpack>() -> bool {
    F::ORDER[0][1] == STRAIGHT[0][1]
}

/// Codes with scales of 32 so that the quarters `q` of vectors 0 and 1, and those of 2 and 3, have one group: straight ones are put in the
/// order [`BY_BLOCKS`], others are so already.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn group_by_group<F: Unpack>(c: [__m512i; 4]) -> [__m512i; 4] {
    if !is_straight::<F>() {
        return c;
    }
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(c[0], c[1]),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(c[0], c[1]),
        _mm512_shuffle_i64x2::<0b10_00_10_00>(c[2], c[3]),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(c[2], c[3]),
    ]
}
