//! Formats with blocks of 256 weights: two levels of scales, the upper one f16.

use super::{BY_BLOCKS, BY_PAIRS, Chunk, Order, STRAIGHT, Unpack, format, levels, nibbles, with_bits};
use crate::quant::{iq4_nl, iq4_xs, q2_k, q3_k, q4_k, q5_k, q6_k};
use std::arch::x86_64::*;

/// The 32 bits at `at` in all lanes, and its two f16 as numbers: the first in even lanes, the second in odd ones.
///
/// # Safety
/// Four bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn two_halves(at: *const u8) -> (__m512i, __m512) {
    // SAFETY: by the contract.
    let word = _mm512_set1_epi32(unsafe { at.cast::<i32>().read_unaligned() });
    (word, _mm512_cvtph_ps(_mm512_castsi512_si256(word)))
}

/// Scales `d · S` and offsets `−dmin · M` of the eight groups of a `Q4_K` or `Q5_K` block at `at`, side by side.
///
/// # Safety
/// Its first sixteen bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scales_and_minima(at: *const u8) -> __m512 {
    // SAFETY: by the contract.
    let ((_, d), low, high) =
        unsafe { (two_halves(at), at.add(4).cast::<u64>().read_unaligned(), at.add(12).cast::<u32>().read_unaligned()) };
    // `low`: bytes 0–3 S and 4–7 M of groups 0–3 in six bits, above them the top two bits of groups 4–7; `high`: their low nibbles.
    let (s_low, m_low, high) = (low & 0xffff_ffff, low >> 32, u64::from(high));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let s = s_low & six | (high & four | (s_low >> 6 & two) << 4) << 32;
    let m = m_low & six | (high >> 4 & four | (m_low >> 6 & two) << 4) << 32;
    let both = _mm_unpacklo_epi8(_mm_cvtsi64_si128(s as i64), _mm_cvtsi64_si128(m as i64));
    let signed = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(d), _mm512_set1_epi64(i64::MIN)));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(both)), signed)
}

/// Nibbles of four 64s of weights, 32 bytes each, in the order [`BY_PAIRS`].
///
/// # Safety
/// 128 bytes are readable at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles_of_pairs(at: *const u8) -> [__m512i; 4] {
    // SAFETY: by the contract.
    let (first, second) = unsafe { (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(64).cast())) };
    // First and second halves of the 32 bytes.
    let (a, c) = nibbles(_mm512_shuffle_i64x2::<0b10_00_10_00>(first, second));
    let (b, d) = nibbles(_mm512_shuffle_i64x2::<0b11_01_11_01>(first, second));
    [a, b, c, d]
}

impl Unpack for format::Q4K {
    const BYTES: usize = size_of::<q4_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = BY_PAIRS;
    const ZERO: Option<u8> = None;
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 144 bytes: d, dmin, scales, nibbles.
        unsafe { Chunk::new(nibbles_of_pairs(at.add(16)), scales_and_minima(at)) }
    }
}

/// A byte for each quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quarters(bytes: [u8; 4]) -> __m512i {
    let [a, b, c, d] = bytes.map(|byte| i32::from_ne_bytes([byte; 4]));
    _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d)
}

impl Unpack for format::Q5K {
    const BYTES: usize = size_of::<q5_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = BY_PAIRS;
    const ZERO: Option<u8> = None;
    const LARGEST: u8 = 31;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 176 bytes: d, dmin, scales, fifth bits, nibbles.
        let (numbers, bits, codes) = unsafe {
            let bits = |half: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(at.add(16 + 16 * half).cast()));
            (scales_and_minima(at), [bits(0), bits(1)], nibbles_of_pairs(at.add(48)))
        };
        // Bit g of byte i is of weight i of group g: of even groups in the first two vectors, of odd ones in the others.
        let even = quarters([1, 4, 16, 64]);
        let selects = [even, even, _mm512_add_epi8(even, even), _mm512_add_epi8(even, even)];
        let mut with = codes;
        for (n, codes) in with.iter_mut().enumerate() {
            *codes = with_bits(*codes, _mm512_test_epi8_mask(bits[n % 2], selects[n]), _mm512_set1_epi8(16));
        }
        Chunk::new(with, numbers)
    }
}

impl Unpack for format::Q6K {
    const BYTES: usize = size_of::<q6_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = STRAIGHT;
    const ZERO: Option<u8> = Some(32);
    const PER_16: bool = true;
    const LARGEST: u8 = 63;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let top = _mm512_set1_epi8(0x30);
        let half_of = |h: usize| {
            // SAFETY: of 210 bytes, 64 of low nibbles and 32 of high pairs a half.
            let (low, high) = unsafe { (_mm512_loadu_si512(at.add(64 * h).cast()), _mm256_loadu_si256(at.add(128 + 32 * h).cast())) };
            let (a, b) = nibbles(low);
            let high = _mm512_broadcast_i64x4(high);
            // Quarters 0 and 1 have their pair in bits 0–1 and 2–3, quarters 2 and 3 in bits 4–5 and 6–7; all go to bits 4–5.
            let up = _mm512_sllv_epi16(high, _mm512_inserti64x4::<1>(_mm512_set1_epi16(4), _mm256_set1_epi16(2)));
            let down = _mm512_srlv_epi16(high, _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(2)));
            // a | x & top
            (_mm512_ternarylogic_epi64::<0xF8>(a, up, top), _mm512_ternarylogic_epi64::<0xF8>(b, down, top))
        };
        let ((a, b), (c, e)) = (half_of(0), half_of(1));
        // SAFETY: sixteen scales, then d.
        let (scales, (_, d)) = unsafe { (_mm512_cvtepi8_epi32(_mm_loadu_si128(at.add(192).cast())), two_halves(at.add(206))) };
        Chunk::new([a, b, c, e], _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_movehdup_ps(d)))
    }
}

impl Unpack for format::Iq4Xs {
    const BYTES: usize = size_of::<iq4_xs::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = Some(128);
    const LARGEST: u8 = 241;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 136 bytes: d, high bits of scales, their low bits, nibbles of eight groups of 32 weights.
        let ((high, d), low, first, second) = unsafe {
            (
                two_halves(at),
                _mm512_set1_epi32(at.add(4).cast::<i32>().read_unaligned()),
                _mm512_loadu_si512(at.add(8).cast()),
                _mm512_loadu_si512(at.add(72).cast()),
            )
        };
        // Group g has bits 4g to 4g + 3 of one and 2g and 2g + 1 of the other, which has d below it: those go to bits 4 and 5.
        let low = _mm512_srlv_epi32(low, _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28));
        let high = _mm512_srlv_epi32(high, _mm512_setr_epi32(12, 12, 14, 14, 16, 16, 18, 18, 20, 20, 22, 22, 24, 24, 26, 26));
        let low = _mm512_and_si512(low, _mm512_set1_epi32(15));
        // low | high & 48
        let s = _mm512_sub_epi32(_mm512_ternarylogic_epi64::<0xF8>(low, high, _mm512_set1_epi64(0x30_0000_0030)), _mm512_set1_epi32(32));
        let ((a, b), (c, e), table) = (nibbles(first), nibbles(second), levels(&iq4_nl::LEVELS));
        Chunk::new([a, b, c, e].map(|c| _mm512_shuffle_epi8(table, c)), _mm512_mul_ps(_mm512_cvtepi32_ps(s), d))
    }
}

/// Two bits of each code: 64 bytes hold, a half of 32, quarters 0–3 of 128 weights in bits 0–1, 2–3, 4–5, 6–7. Straight order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs_of_bits(x: __m512i) -> [__m512i; 4] {
    let three = _mm512_set1_epi8(3);
    std::array::from_fn(|n| {
        let half = if n < 2 { _mm512_shuffle_i64x2::<0b01_00_01_00>(x, x) } else { _mm512_shuffle_i64x2::<0b11_10_11_10>(x, x) };
        let by = if n % 2 == 0 { (0, 2) } else { (4, 6) };
        let by = _mm512_inserti64x4::<1>(_mm512_set1_epi16(by.0), _mm256_set1_epi16(by.1));
        _mm512_and_si512(_mm512_srlv_epi16(half, by), three)
    })
}

impl Unpack for format::Q2K {
    const BYTES: usize = size_of::<q2_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = STRAIGHT;
    const ZERO: Option<u8> = None;
    const PER_16: bool = true;
    const LARGEST: u8 = 3;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 84 bytes: scales, codes, d, dmin.
        let (packed, qs, (_, both)) =
            unsafe { (_mm_loadu_si128(at.cast()), _mm512_loadu_si512(at.add(16).cast()), two_halves(at.add(80))) };
        let packed = _mm512_cvtepu8_epi32(packed);
        let s = _mm512_cvtepi32_ps(_mm512_and_si512(packed, _mm512_set1_epi32(15)));
        let m = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(packed));
        let (d, minus_dmin) = (_mm512_moveldup_ps(both), _mm512_sub_ps(_mm512_setzero_ps(), _mm512_movehdup_ps(both)));
        Chunk { codes: pairs_of_bits(qs), numbers: _mm512_mul_ps(s, d), offsets: _mm512_mul_ps(m, minus_dmin) }
    }
}

impl Unpack for format::Q3K {
    const BYTES: usize = size_of::<q3_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = STRAIGHT;
    const ZERO: Option<u8> = Some(4);
    const PER_16: bool = true;
    const LARGEST: u8 = 7;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 110 bytes: third bits, codes, scales, d.
        let (bits, qs, low, high, (_, d)) = unsafe {
            (
                _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast())),
                _mm512_loadu_si512(at.add(32).cast()),
                at.add(96).cast::<u64>().read_unaligned(),
                u64::from(at.add(104).cast::<u32>().read_unaligned()),
                two_halves(at.add(106)),
            )
        };
        let mut codes = pairs_of_bits(qs);
        for (n, codes) in codes.iter_mut().enumerate() {
            // Bit g of byte i is of the 32 weights g.
            let select = _mm512_inserti64x4::<1>(_mm512_set1_epi8((1u8 << (2 * n)) as i8), _mm256_set1_epi8((2u8 << (2 * n)) as i8));
            *codes = with_bits(*codes, _mm512_test_epi8_mask(bits, select), _mm512_set1_epi8(4));
        }
        // Low nibbles are groups 0–7, high ones 8–15; two bits above from byte j % 4 at 2 · (j / 4).
        let (four, two) = (0x0f0f_0f0f_0f0f_0f0f, 0x0303_0303);
        let first = low & four | (high & two | (high >> 2 & two) << 32) << 4;
        let second = low >> 4 & four | (high >> 4 & two | (high >> 6 & two) << 32) << 4;
        let s = _mm512_cvtepu8_epi32(_mm_set_epi64x(second as i64, first as i64));
        let s = _mm512_cvtepi32_ps(_mm512_sub_epi32(s, _mm512_set1_epi32(32)));
        Chunk::new(codes, _mm512_mul_ps(s, _mm512_movehdup_ps(d)))
    }
}
