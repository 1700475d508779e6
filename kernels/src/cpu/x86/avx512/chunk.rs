//! 256 weights of a row, unpacked into registers: unsigned codes of 8 bits, and per 16 weights a scale and an offset,
//! `w[i] = scale[i/16] · code[i] + offset[i/16]`. A format here is one `unpack`; products and panels share it.
//!
//! Codes stay in the order that unpacking gives ([`Order`]): bringing activations into the same order is cheaper for one token, and a
//! panel puts them straight.

use crate::quant::{iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};
use std::arch::x86_64::*;

/// 256 weights.
#[derive(Clone, Copy)]
pub struct Chunk {
    /// In the format's [`Order`].
    pub codes: [__m512i; 4],
    /// Lane `j`: weights `16j .. 16j + 16`.
    pub scales: __m512,
    pub offsets: __m512,
}

/// Which weights stand in code vector `n`, in pieces of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `4n, 4n+1, 4n+2, 4n+3`
    Straight,
    /// Pairs: vector 0 has 0 1 4 5, vector 1 has 2 3 6 7; 2 and 3 the same of the second half.
    Halves,
    /// Vector 0 has the even pieces of the first half, 0 2 4 6, vector 1 the odd ones; 2 and 3 the same of the second half.
    Quarters,
}

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
    /// The largest code; only asked of formats with blocks of 256.
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

/// Lane `j` of the result is element `j / 2`: numbers per 32 weights, told per 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn twice(x: __m256) -> __m512 {
    _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), _mm512_castps256_ps512(x))
}

/// The numbers (f16) at `at`, `at + stride`, … of eight blocks.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn halves(at: *const u8, stride: usize) -> __m256 {
    // SAFETY: by the contract.
    let h = |i: usize| unsafe { at.add(i * stride).cast::<i16>().read_unaligned() };
    _mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7)))
}

/// Sixteen bytes of each of four blocks.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn four(at: *const u8, stride: usize) -> __m512i {
    // SAFETY: by the contract.
    let load = |i: usize| unsafe { _mm_loadu_si128(at.add(i * stride).cast()) };
    let x = _mm512_castsi128_si512(load(0));
    let x = _mm512_inserti32x4::<1>(x, load(1));
    let x = _mm512_inserti32x4::<2>(x, load(2));
    _mm512_inserti32x4::<3>(x, load(3))
}

/// Low and high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(x: __m512i) -> (__m512i, __m512i) {
    let mask = _mm512_set1_epi8(15);
    (_mm512_and_si512(x, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask))
}

/// Low and high nibbles of eight blocks of 32, in the order [`Order::Quarters`]. `at` is the first block's nibbles.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibbles_of_eight(at: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: by the contract.
    let (first, second) = unsafe { (four(at, stride), four(at.add(4 * stride), stride)) };
    let ((a, b), (c, d)) = (nibbles(first), nibbles(second));
    [a, b, c, d]
}

/// Adds 16 to the codes whose bit is set in the words of 32 bits of eight blocks.
///
/// # Safety
/// The words are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn add_fifth_bits(codes: [__m512i; 4], at: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: by the contract.
    let word = |i: usize| u64::from(unsafe { at.add(i * stride).cast::<u32>().read_unaligned() });
    let sixteen = _mm512_set1_epi8(16);
    let mut out = codes;
    for half in 0..2 {
        let w: [u64; 4] = std::array::from_fn(|i| word(4 * half + i));
        // The low 16 bits are weights 0–15, which stand in the low nibbles.
        let low = w[0] & 0xffff | (w[1] & 0xffff) << 16 | (w[2] & 0xffff) << 32 | w[3] << 48;
        let high = w[0] >> 16 | w[1] >> 16 << 16 | w[2] >> 16 << 32 | w[3] >> 16 << 48;
        out[2 * half] = with_bits(out[2 * half], low, sixteen);
        out[2 * half + 1] = with_bits(out[2 * half + 1], high, sixteen);
    }
    out
}

/// `x | y` in the bytes of the mask, where the two have no bit in common.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_bits(x: __m512i, bytes: u64, y: __m512i) -> __m512i {
    _mm512_mask_add_epi8(x, bytes, x, y)
}

/// Offsets `−zero · scale`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn centred(scales: __m512, zero: u8) -> __m512 {
    _mm512_mul_ps(scales, _mm512_set1_ps(-f32::from(zero)))
}

impl Unpack for format::Q4_0 {
    const BYTES: usize = 8 * size_of::<q4_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = Some(8);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 18 bytes: scale, nibbles.
        let (scales, codes) = unsafe { (twice(halves(at, 18)), nibbles_of_eight(at.add(2), 18)) };
        Chunk { codes, scales, offsets: centred(scales, 8) }
    }
}

impl Unpack for format::Q4_1 {
    const BYTES: usize = 8 * size_of::<q4_1::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 20 bytes: scale, minimum, nibbles.
        unsafe { Chunk { codes: nibbles_of_eight(at.add(4), 20), scales: twice(halves(at, 20)), offsets: twice(halves(at.add(2), 20)) } }
    }
}

impl Unpack for format::Q5_0 {
    const BYTES: usize = 8 * size_of::<q5_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = Some(16);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 22 bytes: scale, fifth bits, nibbles.
        let (scales, codes) = unsafe { (twice(halves(at, 22)), add_fifth_bits(nibbles_of_eight(at.add(6), 22), at.add(2), 22)) };
        Chunk { codes, scales, offsets: centred(scales, 16) }
    }
}

impl Unpack for format::Q5_1 {
    const BYTES: usize = 8 * size_of::<q5_1::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 24 bytes: scale, minimum, fifth bits, nibbles.
        unsafe {
            let codes = add_fifth_bits(nibbles_of_eight(at.add(8), 24), at.add(4), 24);
            Chunk { codes, scales: twice(halves(at, 24)), offsets: twice(halves(at.add(2), 24)) }
        }
    }
}

impl Unpack for format::Q8_0 {
    const BYTES: usize = 8 * size_of::<q8_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Straight;
    const ZERO: Option<u8> = Some(128);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let flip = _mm512_set1_epi8(-128);
        let codes = std::array::from_fn(|n| {
            // SAFETY: blocks 2n and 2n + 1 of eight of 34 bytes: scale, codes.
            let (a, b) = unsafe { (_mm256_loadu_si256(at.add(68 * n + 2).cast()), _mm256_loadu_si256(at.add(68 * n + 36).cast())) };
            _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), flip)
        });
        // SAFETY: as above.
        let scales = twice(unsafe { halves(at, 34) });
        Chunk { codes, scales, offsets: centred(scales, 128) }
    }
}

/// Sixteen signed levels, 128 added to each, in every quarter.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn levels(table: &[i8; 16]) -> __m512i {
    let raised: [u8; 16] = std::array::from_fn(|i| table[i] as u8 ^ 128);
    // SAFETY: sixteen bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(raised.as_ptr().cast()) })
}

impl Unpack for format::Iq4Nl {
    const BYTES: usize = 8 * size_of::<iq4_nl::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = Some(128);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let table = levels(&iq4_nl::LEVELS);
        // SAFETY: eight blocks of 18 bytes: scale, nibbles.
        let (scales, codes) = unsafe { (twice(halves(at, 18)), nibbles_of_eight(at.add(2), 18)) };
        Chunk { codes: codes.map(|c| _mm512_shuffle_epi8(table, c)), scales, offsets: centred(scales, 128) }
    }
}

impl Unpack for format::Mxfp4 {
    const BYTES: usize = 8 * size_of::<mxfp4::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = Some(128);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let table = levels(&mxfp4::DOUBLED);
        // SAFETY: eight blocks of 17 bytes: exponent, nibbles.
        let (e, codes) = unsafe {
            let e: [f32; 8] = std::array::from_fn(|i| mxfp4::half_power(*at.add(17 * i)));
            (_mm256_loadu_ps(e.as_ptr()), nibbles_of_eight(at.add(1), 17))
        };
        let scales = twice(e);
        Chunk { codes: codes.map(|c| _mm512_shuffle_epi8(table, c)), scales, offsets: centred(scales, 128) }
    }
}

/// The two f16 at `at`. Loaded as one word: of a single one the compiler makes an insertion into whatever the register held before, and
/// each run would wait for the one before it.
///
/// # Safety
/// Four bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn two_halves(at: *const u8) -> (__m512, __m512) {
    // SAFETY: by the contract.
    let both = _mm_cvtph_ps(_mm_cvtsi32_si128(unsafe { at.cast::<i32>().read_unaligned() }));
    (_mm512_broadcastss_ps(both), _mm512_broadcastss_ps(_mm_movehdup_ps(both)))
}

/// Scales `d · S` and offsets `−dmin · M` of the eight groups of a `Q4_K` or `Q5_K` block at `at`.
///
/// # Safety
/// Its first sixteen bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scales_and_minima(at: *const u8) -> (__m512, __m512) {
    // SAFETY: by the contract.
    let ((d, dmin), low, high) =
        unsafe { (two_halves(at), at.add(4).cast::<u64>().read_unaligned(), at.add(12).cast::<u32>().read_unaligned()) };
    // `low`: bytes 0–3 S and 4–7 M of groups 0–3 in six bits, above them the top two bits of groups 4–7; `high`: their low nibbles.
    let (s_low, m_low, high) = (low & 0xffff_ffff, low >> 32, u64::from(high));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let s = s_low & six | (high & four | (s_low >> 6 & two) << 4) << 32;
    let m = m_low & six | (high >> 4 & four | (m_low >> 6 & two) << 4) << 32;
    // Bytes are doubled while they are bytes: cheaper than lanes.
    let wide = |x: u64| {
        let x = _mm_cvtsi64_si128(x as i64);
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(x, x)))
    };
    (_mm512_mul_ps(wide(s), d), _mm512_mul_ps(wide(m), negative(dmin)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn negative(x: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN)))
}

impl Unpack for format::Q4K {
    const BYTES: usize = size_of::<q4_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = Order::Halves;
    const ZERO: Option<u8> = None;
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 144 bytes: d, dmin, scales, nibbles.
        let ((scales, offsets), first, second) =
            unsafe { (scales_and_minima(at), _mm512_loadu_si512(at.add(16).cast()), _mm512_loadu_si512(at.add(80).cast())) };
        let ((a, b), (c, d)) = (nibbles(first), nibbles(second));
        Chunk { codes: [a, b, c, d], scales, offsets }
    }
}

impl Unpack for format::Q5K {
    const BYTES: usize = size_of::<q5_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = Order::Halves;
    const ZERO: Option<u8> = None;
    const LARGEST: u8 = 31;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 176 bytes: d, dmin, scales, fifth bits, nibbles.
        let ((scales, offsets), bits, first, second) = unsafe {
            (
                scales_and_minima(at),
                _mm512_broadcast_i64x4(_mm256_loadu_si256(at.add(16).cast())),
                _mm512_loadu_si512(at.add(48).cast()),
                _mm512_loadu_si512(at.add(112).cast()),
            )
        };
        let ((a, b), (c, d)) = (nibbles(first), nibbles(second));
        let sixteen = _mm512_set1_epi8(16);
        // Bit g of byte i is of group g: vector n has groups g and g + 2.
        let with = |codes: __m512i, g: i8| {
            let select = _mm512_inserti64x4::<1>(_mm512_set1_epi8((1u8 << g) as i8), _mm256_set1_epi8((4u8 << g) as i8));
            with_bits(codes, _mm512_test_epi8_mask(bits, select), sixteen)
        };
        Chunk { codes: [with(a, 0), with(b, 1), with(c, 4), with(d, 5)], scales, offsets }
    }
}

impl Unpack for format::Q6K {
    const BYTES: usize = size_of::<q6_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = Order::Straight;
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
        let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), d);
        Chunk { codes: [a, b, c, e], scales, offsets: centred(scales, 32) }
    }
}

impl Unpack for format::Iq4Xs {
    const BYTES: usize = size_of::<iq4_xs::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = Order::Quarters;
    const ZERO: Option<u8> = Some(128);
    const LARGEST: u8 = 241;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let table = levels(&iq4_nl::LEVELS);
        // SAFETY: 136 bytes: d, high bits, low bits, nibbles of eight groups of 16 bytes.
        let ((d, _), high, low, codes) = unsafe {
            (
                two_halves(at),
                at.add(2).cast::<u16>().read_unaligned(),
                at.add(4).cast::<u32>().read_unaligned(),
                nibbles_of_eight(at.add(8), 16),
            )
        };
        let lanes = |x: u32, by: [i32; 8]| {
            let [a, b, c, d, e, f, g, h] = by;
            _mm256_srlv_epi32(_mm256_set1_epi32(x as i32), _mm256_setr_epi32(a, b, c, d, e, f, g, h))
        };
        let low = _mm256_and_si256(lanes(low, [0, 4, 8, 12, 16, 20, 24, 28]), _mm256_set1_epi32(15));
        let high = _mm256_and_si256(lanes(u32::from(high), [0, 2, 4, 6, 8, 10, 12, 14]), _mm256_set1_epi32(3));
        let s = _mm256_sub_epi32(_mm256_or_si256(low, _mm256_slli_epi32::<4>(high)), _mm256_set1_epi32(32));
        let scales = _mm512_mul_ps(twice(_mm256_cvtepi32_ps(s)), d);
        Chunk { codes: codes.map(|c| _mm512_shuffle_epi8(table, c)), scales, offsets: centred(scales, 128) }
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
    const ORDER: Order = Order::Straight;
    const ZERO: Option<u8> = None;
    const PER_16: bool = true;
    const LARGEST: u8 = 3;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: 84 bytes: scales, codes, d, dmin.
        let (packed, qs, (d, dmin)) =
            unsafe { (_mm_loadu_si128(at.cast()), _mm512_loadu_si512(at.add(16).cast()), two_halves(at.add(80))) };
        let packed = _mm512_cvtepu8_epi32(packed);
        let s = _mm512_cvtepi32_ps(_mm512_and_si512(packed, _mm512_set1_epi32(15)));
        let m = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(packed));
        Chunk { codes: pairs_of_bits(qs), scales: _mm512_mul_ps(s, d), offsets: _mm512_mul_ps(m, negative(dmin)) }
    }
}

impl Unpack for format::Q3K {
    const BYTES: usize = size_of::<q3_k::Block>();
    const BLOCK: usize = 256;
    const ORDER: Order = Order::Straight;
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
        let scales = _mm512_mul_ps(s, d);
        Chunk { codes, scales, offsets: centred(scales, 4) }
    }
}
