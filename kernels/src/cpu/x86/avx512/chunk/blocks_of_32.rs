//! Formats with blocks of 32 weights: eight blocks of 17 to 34 bytes, each with its scale.

use super::{BY_BLOCKS, Chunk, Order, STRAIGHT, Unpack, format, levels, nibbles, with_bits};
use crate::quant::{iq4_nl, mxfp4, q4_0, q4_1, q5_0, q5_1, q8_0};
use std::arch::x86_64::*;

/// Where the scales of eight blocks of `STRIDE` bytes are found: f16 at the beginning of each.
///
/// The 32 bits that a scale stands in are taken out of vectors of 64 bytes, as many blocks of each as it holds: one shuffle for every
/// further vector, where inserting words one by one would take two instructions each.
struct Scales<const STRIDE: usize>;

impl<const STRIDE: usize> Scales<STRIDE> {
    /// Blocks whose scales are in one vector that begins with a block.
    const BLOCKS: usize = 60 / STRIDE + 1;
    const VECTORS: usize = 8_usize.div_ceil(Self::BLOCKS);

    /// Where vector `v` begins: with a block, or earlier, where it would end beyond the last one.
    const fn start(v: usize) -> usize {
        let (block, last) = (v * Self::BLOCKS * STRIDE, 8 * STRIDE - 64);
        if block < last { block } else { last }
    }

    /// Where the scale of `block` is in its vector, in bytes.
    const fn place(block: usize) -> usize {
        block * STRIDE - Self::start(block / Self::BLOCKS)
    }

    /// For the shuffle that adds words of vector `v` to those that were taken before: block by block, but for the first vector's, which
    /// are still where they were loaded when the second one's come.
    const fn index(v: usize) -> [i32; 16] {
        let mut index = [0; 16];
        let mut block = 0;
        while block < 8 {
            let of = block / Self::BLOCKS;
            index[block] = if of == v {
                16 + Self::place(block) / 4
            } else if of == 0 && v == 1 {
                Self::place(block) / 4
            } else {
                block
            } as i32;
            block += 1;
        }
        index
    }

    /// Bits below each scale in its word.
    const fn below() -> [i32; 8] {
        let mut bits = [0; 8];
        let mut block = 0;
        while block < 8 {
            bits[block] = (Self::place(block) % 4 * 8) as i32;
            block += 1;
        }
        bits
    }

    /// Lane `2g` is the scale of block `g`; lane `2g + 1` is the f16 after it, where blocks are whole words of 32 bits.
    ///
    /// # Safety
    /// Eight blocks are readable at `at`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn load(at: *const u8) -> __m512 {
        let (index, below) = const { ([Self::index(1), Self::index(2), Self::index(3)], Self::below()) };
        // SAFETY: vectors are within the blocks, by `start`; an index is sixteen words, `below` are eight.
        unsafe {
            let vector = |v: usize| _mm512_loadu_si512(at.add(Self::start(v)).cast());
            let mut words = vector(0);
            for v in 1..Self::VECTORS {
                words = _mm512_permutex2var_epi32(words, _mm512_loadu_si512(index[v - 1].as_ptr().cast()), vector(v));
            }
            let words = _mm512_castsi512_si256(words);
            _mm512_cvtph_ps(if STRIDE.is_multiple_of(4) {
                words
            } else {
                _mm256_srlv_epi32(words, _mm256_loadu_si256(below.as_ptr().cast()))
            })
        }
    }
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

/// Low and high nibbles of eight blocks of 32, in the order [`BY_BLOCKS`]. `at` is the first block's nibbles.
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

impl Unpack for format::Q4_0 {
    const BYTES: usize = 8 * size_of::<q4_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = Some(8);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 18 bytes: scale, nibbles.
        unsafe { Chunk::new(nibbles_of_eight(at.add(2), 18), Scales::<18>::load(at)) }
    }
}

impl Unpack for format::Q4_1 {
    const BYTES: usize = 8 * size_of::<q4_1::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 20 bytes: scale, minimum, nibbles.
        unsafe { Chunk::new(nibbles_of_eight(at.add(4), 20), Scales::<20>::load(at)) }
    }
}

impl Unpack for format::Q5_0 {
    const BYTES: usize = 8 * size_of::<q5_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = Some(16);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 22 bytes: scale, fifth bits, nibbles.
        unsafe { Chunk::new(add_fifth_bits(nibbles_of_eight(at.add(6), 22), at.add(2), 22), Scales::<22>::load(at)) }
    }
}

impl Unpack for format::Q5_1 {
    const BYTES: usize = 8 * size_of::<q5_1::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = None;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        // SAFETY: eight blocks of 24 bytes: scale, minimum, fifth bits, nibbles.
        unsafe { Chunk::new(add_fifth_bits(nibbles_of_eight(at.add(8), 24), at.add(4), 24), Scales::<24>::load(at)) }
    }
}

impl Unpack for format::Q8_0 {
    const BYTES: usize = 8 * size_of::<q8_0::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = STRAIGHT;
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
        Chunk::new(codes, unsafe { Scales::<34>::load(at) })
    }
}

impl Unpack for format::Iq4Nl {
    const BYTES: usize = 8 * size_of::<iq4_nl::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = Some(128);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let table = levels(&iq4_nl::LEVELS);
        // SAFETY: eight blocks of 18 bytes: scale, nibbles.
        let (codes, scales) = unsafe { (nibbles_of_eight(at.add(2), 18), Scales::<18>::load(at)) };
        Chunk::new(codes.map(|c| _mm512_shuffle_epi8(table, c)), scales)
    }
}

impl Unpack for format::Mxfp4 {
    const BYTES: usize = 8 * size_of::<mxfp4::Block>();
    const BLOCK: usize = 32;
    const ORDER: Order = BY_BLOCKS;
    const ZERO: Option<u8> = Some(128);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn unpack(at: *const u8) -> Chunk {
        let table = levels(&mxfp4::DOUBLED);
        // SAFETY: eight blocks of 17 bytes: exponent, nibbles.
        let (e, codes) = unsafe {
            let e: [f32; 8] = std::array::from_fn(|i| mxfp4::half_power(*at.add(17 * i)));
            (_mm256_loadu_si256(e.as_ptr().cast()), nibbles_of_eight(at.add(1), 17))
        };
        Chunk::new(codes.map(|c| _mm512_shuffle_epi8(table, c)), _mm512_castsi512_ps(_mm512_cvtepu32_epi64(e)))
    }
}
