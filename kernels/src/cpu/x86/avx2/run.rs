//! 256 weights unpacked into the first-level cache: codes in their order, a scale and an offset for every 16 weights, and one unit of all
//! scales. Where a loop over an array of fixed size is enough, the compiler makes vector code of it; the rest is written in intrinsics.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use crate::quant::{Block, F16, iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};
use std::arch::x86_64::*;

/// `w[i] = unit · scales[i/16] · codes[i] + offsets[i/16]`. Beyond a row's end scales and offsets are zeros.
/// Aligned, since vectors are read right after they are written, which stalls where one crosses a cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Run {
    pub codes: [u8; 256],
    pub scales: [f32; 16],
    pub offsets: [f32; 16],
    pub unit: f32,
}

impl Run {
    pub const EMPTY: Run = Run { codes: [0; 256], scales: [0.0; 16], offsets: [0.0; 16], unit: 1.0 };
}

/// A format that unpacks into runs.
pub trait Unpack: Block {
    /// The largest code; with [`Unpack::SIGNED`] of either sign.
    const LARGEST: u8;
    /// Codes are i8, and there are no offsets.
    const SIGNED: bool = false;
    /// Scales differ from 16 weights to the next.
    const PER_16: bool = false;
    /// Scales are whole numbers within ±128; elsewhere the unit is 1.
    const WHOLE: bool = false;

    /// The blocks of a run, up to 256 weights; scales and offsets beyond them become zeros.
    ///
    /// # Safety
    /// Needs AVX2 and F16C.
    unsafe fn unpack(blocks: &[Self], run: &mut Run);
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn half(x: F16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(x.to_bits()))))
}

/// One number of each of up to eight blocks, in registers throughout: a vector read where scalars were just written waits for them.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves<B>(blocks: &[B], of: impl Fn(&B) -> F16) -> __m256 {
    let bits = |i: usize| blocks.get(i).map_or(0, |b| of(b).to_bits() as i16);
    _mm256_cvtph_ps(_mm_setr_epi16(bits(0), bits(1), bits(2), bits(3), bits(4), bits(5), bits(6), bits(7)))
}

/// Numbers per 32 weights, told per 16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn twice(x: __m256, to: &mut [f32; 16]) {
    // SAFETY: sixteen numbers.
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)));
        _mm256_storeu_ps(to.as_mut_ptr().add(8), _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)));
    }
}

/// Scales, and offsets in a fixed proportion to them.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn centred(scales: __m256, zero: f32, run: &mut Run) {
    twice(scales, &mut run.scales);
    twice(_mm256_mul_ps(scales, _mm256_set1_ps(-zero)), &mut run.offsets);
}

/// Low nibbles, then high ones.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn nibbles(qs: &[u8; 16]) -> __m256i {
    // SAFETY: sixteen bytes.
    let x = unsafe { _mm_loadu_si128(qs.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(x), x), _mm256_set1_epi8(15))
}

/// 32 codes to their place.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn put(run: &mut Run, group: usize, codes: __m256i) {
    let to = &mut run.codes[32 * group..][..32];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), codes) }
}

/// The fifth bits, as 16 or 0: bit `i` of the word is weight `i`'s.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn fifth_bits(qh: [u8; 4]) -> __m256i {
    // Byte i of the vector is byte i / 8 of the word, of which bit i % 8 is looked at.
    let bytes = _mm256_shuffle_epi8(
        _mm256_set1_epi32(i32::from_le_bytes(qh)),
        _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303),
    );
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
    _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16))
}

/// Codes to levels.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn look_up(levels: &[i8; 16], codes: __m256i) -> __m256i {
    // SAFETY: sixteen levels.
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(levels.as_ptr().cast()) }), codes)
}

impl Unpack for q4_0::Block {
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, nibbles(&b.qs));
        }
        centred(halves(blocks, |b| b.d), 8.0, run);
    }
}

impl Unpack for q4_1::Block {
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, nibbles(&b.qs));
        }
        twice(halves(blocks, |b| b.d), &mut run.scales);
        twice(halves(blocks, |b| b.m), &mut run.offsets);
    }
}

impl Unpack for q5_0::Block {
    const LARGEST: u8 = 31;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, _mm256_or_si256(nibbles(&b.qs), fifth_bits(b.qh)));
        }
        centred(halves(blocks, |b| b.d), 16.0, run);
    }
}

impl Unpack for q5_1::Block {
    const LARGEST: u8 = 31;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, _mm256_or_si256(nibbles(&b.qs), fifth_bits(b.qh)));
        }
        twice(halves(blocks, |b| b.d), &mut run.scales);
        twice(halves(blocks, |b| b.m), &mut run.offsets);
    }
}

impl Unpack for q8_0::Block {
    const LARGEST: u8 = 128;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            // SAFETY: 32 codes.
            put(run, i, unsafe { _mm256_loadu_si256(b.qs.as_ptr().cast()) });
        }
        centred(halves(blocks, |b| b.d), 0.0, run);
    }
}

impl Unpack for iq4_nl::Block {
    const LARGEST: u8 = 127;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, look_up(&iq4_nl::LEVELS, nibbles(&b.qs)));
        }
        centred(halves(blocks, |b| b.d), 0.0, run);
    }
}

impl Unpack for mxfp4::Block {
    const LARGEST: u8 = 12;
    const SIGNED: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        for (i, b) in blocks.iter().enumerate().take(8) {
            put(run, i, look_up(&mxfp4::DOUBLED, nibbles(&b.qs)));
        }
        let scale = |i: usize| blocks.get(i).map_or(0.0, |b| mxfp4::half_power(b.e));
        let scales = _mm256_setr_ps(scale(0), scale(1), scale(2), scale(3), scale(4), scale(5), scale(6), scale(7));
        centred(scales, 0.0, run);
    }
}

impl Unpack for iq4_xs::Block {
    const LARGEST: u8 = 127;
    const SIGNED: bool = true;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        for (j, qs) in b.qs.as_chunks::<16>().0.iter().enumerate() {
            put(run, j, look_up(&iq4_nl::LEVELS, nibbles(qs)));
        }
        let s = |j: usize| i32::from(b.scale(j));
        centred(_mm256_cvtepi32_ps(_mm256_setr_epi32(s(0), s(1), s(2), s(3), s(4), s(5), s(6), s(7))), 0.0, run);
        run.unit = half(b.d);
    }
}

/// Nibbles of `Q4_K` and `Q5_K`: 32 bytes hold a group in the low and one in the high nibbles.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn nibbles_of_groups(qs: &[u8; 128], run: &mut Run) {
    for (qs, codes) in qs.as_chunks::<32>().0.iter().zip(run.codes.as_chunks_mut::<64>().0) {
        for i in 0..32 {
            codes[i] = qs[i] & 15;
            codes[i + 32] = qs[i] >> 4;
        }
    }
}

/// Scales `S` in units of `d` and offsets `−dmin · M` of the eight groups of a `Q4_K` or `Q5_K` block.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales_and_minima(d: F16, dmin: F16, scales: &[u8; 12], run: &mut Run) {
    let word = |i: usize| u64::from(u32::from_le_bytes([scales[i], scales[i + 1], scales[i + 2], scales[i + 3]]));
    let (s_low, m_low, high) = (word(0), word(4), word(8));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let s = s_low & six | (high & four | (s_low >> 6 & two) << 4) << 32;
    let m = m_low & six | (high >> 4 & four | (m_low >> 6 & two) << 4) << 32;
    let wide = |x: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(x as i64)));
    run.unit = half(d);
    twice(wide(s), &mut run.scales);
    twice(_mm256_mul_ps(wide(m), _mm256_set1_ps(-half(dmin))), &mut run.offsets);
}

impl Unpack for q4_k::Block {
    const LARGEST: u8 = 15;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        nibbles_of_groups(&b.qs, run);
        scales_and_minima(b.d, b.dmin, &b.scales, run);
    }
}

impl Unpack for q5_k::Block {
    const LARGEST: u8 = 31;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        nibbles_of_groups(&b.qs, run);
        for (j, codes) in run.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for i in 0..32 {
                codes[i] |= (b.qh[i] >> j & 1) << 4;
            }
        }
        scales_and_minima(b.d, b.dmin, &b.scales, run);
    }
}

impl Unpack for q6_k::Block {
    const LARGEST: u8 = 63;
    const PER_16: bool = true;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        for (half, codes) in run.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (ql, qh) = (&b.ql[64 * half..][..64], &b.qh[32 * half..][..32]);
            for i in 0..32 {
                codes[i] = ql[i] & 15 | (qh[i] & 3) << 4;
                codes[i + 32] = ql[i + 32] & 15 | (qh[i] >> 2 & 3) << 4;
                codes[i + 64] = ql[i] >> 4 | (qh[i] >> 4 & 3) << 4;
                codes[i + 96] = ql[i + 32] >> 4 | (qh[i] >> 6) << 4;
            }
        }
        run.unit = half(b.d);
        for j in 0..16 {
            run.scales[j] = f32::from(b.scales[j]);
            run.offsets[j] = -32.0 * run.unit * run.scales[j];
        }
    }
}

/// The 2-bit fields of `Q2_K` and `Q3_K`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn pairs_of_bits(qs: &[u8; 64], run: &mut Run) {
    for (qs, codes) in qs.as_chunks::<32>().0.iter().zip(run.codes.as_chunks_mut::<128>().0) {
        for i in 0..32 {
            for quarter in 0..4 {
                codes[32 * quarter + i] = qs[i] >> (2 * quarter) & 3;
            }
        }
    }
}

impl Unpack for q2_k::Block {
    const LARGEST: u8 = 3;
    const PER_16: bool = true;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        pairs_of_bits(&b.qs, run);
        run.unit = half(b.d);
        let dmin = half(b.dmin);
        for j in 0..16 {
            run.scales[j] = f32::from(b.scales[j] & 15);
            run.offsets[j] = -dmin * f32::from(b.scales[j] >> 4);
        }
    }
}

impl Unpack for q3_k::Block {
    const LARGEST: u8 = 7;
    const PER_16: bool = true;
    const WHOLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn unpack(blocks: &[Self], run: &mut Run) {
        let Some(b) = blocks.first() else { return };
        pairs_of_bits(&b.qs, run);
        for (j, codes) in run.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for i in 0..32 {
                codes[i] |= (b.hmask[i] >> j & 1) << 2;
            }
        }
        run.unit = half(b.d);
        for j in 0..16 {
            run.scales[j] = f32::from(q3_k::scale(&b.scales, j));
            run.offsets[j] = -4.0 * run.unit * run.scales[j];
        }
    }
}
