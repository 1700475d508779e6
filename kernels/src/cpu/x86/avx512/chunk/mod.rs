//! 256 weights of a row, unpacked into registers: unsigned codes of 8 bits, and per 16 or 32 weights a scale and an offset,
//! `w[i] = scale · code[i] + offset`. A format here is one `unpack`; products and panels share it.
//!
//! Codes stay in the order that unpacking gives ([`Order`]): bringing activations into the same order is cheaper for one token, and a
//! panel is written piece by piece anyway.

mod blocks_of_32;
mod k_quants;

use std::arch::x86_64::*;

/// 256 weights.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// In the order of [`Unpack::ORDER`].
    pub codes: [__m512i; 4],
    /// Where scales are [of 16 weights](Unpack::PER_16), lane `j` is the scale of weights `16j .. 16j + 16`. Where they are of 32, lanes `2g`
    /// and `2g + 1` are scale and offset of weights `32g .. 32g + 32`; anything may stand for an offset that follows from the scale.
    pub numbers: __m512,
    /// Lane `j` is the offset of weights `16j .. 16j + 16`, where scales are of 16 and offsets don't follow from them.
    pub offsets: __m512,
}

/// Which 16 weights stand in each quarter of each vector of codes: `ORDER[n][q]` is `j` of weights `16j .. 16j + 16`.
///
/// Where scales are of 32 weights, either [`STRAIGHT`] or so that the quarters `q` of vectors 0 and 1, and those of 2 and 3, have the two
/// halves of one 32.
pub type Order = [[usize; 4]; 4];

pub const STRAIGHT: Order = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
/// What nibbles of whole blocks of 32 give: first halves of four blocks, second halves, and the same of the four other blocks.
pub const BY_BLOCKS: Order = [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]];
/// What nibbles of 64 weights give, low ones of the first 32 and high ones of the second: halves of even 32s, then halves of odd ones.
const BY_PAIRS: Order = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]];

/// Bytes of 256 weights of the longest format: `Q8_0`.
pub const LONGEST: usize = 272;

/// A format that this tier unpacks.
pub trait Unpack {
    /// Bytes of 256 weights.
    const BYTES: usize;
    /// Weights of a block.
    const BLOCK: usize;
    const ORDER: Order;
    /// Where every offset is `−ZERO · scale`. `None` where offsets are the block's own.
    const ZERO: Option<u8>;
    /// Whether scales differ from 16 weights to the next.
    const PER_16: bool = false;
    /// The largest code; only used for formats with blocks of 256.
    const LARGEST: u8 = 0;

    /// # Safety
    /// [`Self::BYTES`] bytes are readable at `at`.
    unsafe fn unpack(at: *const u8) -> Chunk;
}

/// Zero-sized names for the formats.
pub mod format {
    pub struct Q4_0;
    pub struct Q4_1;
    pub struct Q5_0;
    pub struct Q5_1;
    pub struct Q8_0;
    pub struct Iq4Nl;
    pub struct Mxfp4;
    pub struct Q2K;
    pub struct Q3K;
    pub struct Q4K;
    pub struct Q5K;
    pub struct Q6K;
    pub struct Iq4Xs;
}

impl Chunk {
    /// Of a format whose offsets stand beside its scales or follow from them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(codes: [__m512i; 4], numbers: __m512) -> Chunk {
        Chunk { codes, numbers, offsets: _mm512_setzero_ps() }
    }

    /// The first `weights` of it, a multiple of 16: beyond them scales and offsets are zero, whatever they were.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn first(self, weights: usize) -> Chunk {
        let inside = ((1u32 << (weights / 16)) - 1) as __mmask16;
        let keep = |x| _mm512_maskz_mov_ps(inside, x);
        Chunk { numbers: keep(self.numbers), offsets: keep(self.offsets), ..self }
    }

    /// Scales and offsets; lane `j` of weights `16j .. 16j + 16`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn scales_and_offsets<F: Unpack>(&self) -> (__m512, __m512) {
        let scales = if F::PER_16 { self.numbers } else { _mm512_moveldup_ps(self.numbers) };
        let offsets = match F::ZERO {
            Some(zero) => _mm512_mul_ps(scales, _mm512_set1_ps(-f32::from(zero))),
            None if F::PER_16 => self.offsets,
            None => _mm512_movehdup_ps(self.numbers),
        };
        (scales, offsets)
    }
}

/// Low and high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(x: __m512i) -> (__m512i, __m512i) {
    let mask = _mm512_set1_epi8(15);
    (_mm512_and_si512(x, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask))
}

/// `x | y` in the bytes of the mask, where the two have no bit in common.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_bits(x: __m512i, bytes: u64, y: __m512i) -> __m512i {
    _mm512_mask_add_epi8(x, bytes, x, y)
}

/// Sixteen signed levels, 128 added to each, in every quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn levels(table: &[i8; 16]) -> __m512i {
    let raised: [u8; 16] = std::array::from_fn(|i| table[i] as u8 ^ 128);
    // SAFETY: sixteen bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(raised.as_ptr().cast()) })
}
