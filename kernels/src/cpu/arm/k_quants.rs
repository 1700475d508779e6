//! One token times rows of `Q4_K`, `Q5_K`, `Q6_K` or `IQ4_XS`, read in place.
//!
//! The simple loop, for a row: Σ over blocks of scale · Σ over groups S·Σ q·x, less the minima. The tricks:
//! 1. Two rows share the loads of the activations.
//! 2. The dots of all groups of a block are added up in one tree of `addp`, so that the groups' scales are multiplied in with
//!    two vector operations; multiplications are scarce on a Cortex-A76 (one pipe, two cycles).
//! 3. Minima and offsets are multiplied with the sums of the activations: integers, once for a group.

use super::activations::Int8;
use super::instructions::{insert_bits, insert_high_nibbles, load_half, widen_halves};
use super::panel::sources::{levels, scales_and_minima};
use crate::quant::{blocks, iq4_xs, q4_k, q5_k, q6_k};
use std::arch::aarch64::*;

/// The dot products of a tier.
pub trait Dot {
    /// [e, e, o, o]: two dots of 32, two lanes each; codes `e` and `o` from 0 to 31, `x` for both.
    ///
    /// # Safety
    /// The CPU has the tier.
    unsafe fn groups(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t;

    /// As [`Dot::groups`], with codes within ±127.
    ///
    /// # Safety
    /// As [`Dot::groups`].
    unsafe fn bytes(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t;

    /// [a, a, b, b], [c, c, d, d]: four dots of 16, two lanes each; codes from 0 to 63.
    ///
    /// # Safety
    /// As [`Dot::groups`].
    unsafe fn sixteens(w: [int8x16_t; 4], x: [int8x16_t; 4]) -> [int32x4_t; 2];
}

/// A format's function: its blocks, and the dots of a pair of rows, or of the last one alone.
macro_rules! mat_vec {
    ($name:ident, $block:ty, $dots:ident) => {
        /// out[r] = Σ w[r]·x, rows of `w` one after the other.
        ///
        /// # Panics
        /// When `w` is not `out.len()` rows as long as `x`.
        ///
        /// # Safety
        /// The CPU has the tier of `D`.
        #[target_feature(enable = "neon")]
        pub unsafe fn $name<D: Dot>(w: &[u8], x: Int8, out: &mut [f32]) {
            let (w, n) = (blocks::<$block>(w), x.runs());
            assert_eq!(w.len(), n * out.len());
            let mut r = 0;
            // SAFETY: the caller's promise.
            unsafe {
                while r + 1 < out.len() {
                    [out[r], out[r + 1]] = $dots::<D, 2>([&w[n * r..][..n], &w[n * (r + 1)..][..n]], x);
                    r += 2;
                }
                if r < out.len() {
                    [out[r]] = $dots::<D, 1>([&w[n * r..][..n]], x);
                }
            }
        }
    };
}

mat_vec!(mat_vec_q4_k, q4_k::Block, dot_q4_k);
mat_vec!(mat_vec_q5_k, q5_k::Block, dot_q5_k);
mat_vec!(mat_vec_q6_k, q6_k::Block, dot_q6_k);
mat_vec!(mat_vec_iq4_xs, iq4_xs::Block, dot_iq4_xs);

/// Of each row what has been added up, spread over four lanes.
type Sums<const R: usize> = [float32x4_t; R];

/// A token's activations of one block of 256 weights: where its codes, its sums of 16 codes and its scale are.
#[derive(Clone, Copy)]
struct Run {
    codes: *const i8,
    sums: *const i16,
    scale: *const f32,
}

/// The dots of some rows with one token, by a function that adds those of one block of each row. It may read the blocks and 256 codes, 16
/// sums and a scale.
///
/// # Panics
/// When a row is not as long as `x`.
#[target_feature(enable = "neon")]
#[inline]
fn over_runs<B, const R: usize>(rows: [&[B]; R], x: Int8, add: impl Fn(&mut Sums<R>, [*const B; R], Run)) -> [f32; R] {
    let n = x.runs();
    assert!(x.codes.len() == 256 * n && x.sums.len() == 32 * n && rows.iter().all(|r| r.len() == n));
    let mut total = [vdupq_n_f32(0.0); R];
    for b in 0..n {
        // SAFETY: `b` is below the number of blocks in every row and of scales and, times 256 and 16, within codes and sums (asserted
        // above).
        let (blocks, run) = unsafe {
            let (codes, sums, scales) = (x.codes.as_ptr().cast::<i8>(), x.sums.as_ptr().cast::<i16>(), x.scales.as_ptr().cast::<f32>());
            (blocks_at(rows, b), Run { codes: codes.add(256 * b), sums: sums.add(16 * b), scale: scales.add(b) })
        };
        add(&mut total, blocks, run);
    }
    let mut out = [0.0; R];
    for r in 0..R {
        out[r] = vaddvq_f32(total[r]);
    }
    out
}

/// Dots of some rows with one token.
///
/// # Safety
/// The CPU has the tier of `D`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot_q4_k<D: Dot, const R: usize>(rows: [&[q4_k::Block]; R], x: Int8) -> [f32; R] {
    let add = |total: &mut Sums<R>, blocks: [*const q4_k::Block; R], x: Run| {
        // SAFETY: `over_runs` gives what may be read; the caller has the tier.
        unsafe {
            let pairs = [
                groups_q4_k::<D, R>(blocks, 0, x.codes),
                groups_q4_k::<D, R>(blocks, 1, x.codes),
                groups_q4_k::<D, R>(blocks, 2, x.codes),
                groups_q4_k::<D, R>(blocks, 3, x.codes),
            ];
            add_groups(total, pairs, x, blocks);
        }
    };
    over_runs(rows, x, add)
}

/// Dots of the groups 2j and 2j + 1 of each row: [even, even, odd, odd].
///
/// # Safety
/// `blocks` and the 256 activations at `q` may be read; `j` < 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn groups_q4_k<D: Dot, const R: usize>(blocks: [*const q4_k::Block; R], j: usize, q: *const i8) -> [int32x4_t; R] {
    let low = vdupq_n_u8(15);
    let mut pairs = [vdupq_n_s32(0); R];
    // SAFETY: the caller's promise.
    unsafe {
        let q = q.add(64 * j);
        let x = [vld1q_s8(q), vld1q_s8(q.add(16)), vld1q_s8(q.add(32)), vld1q_s8(q.add(48))];
        for r in 0..R {
            let qs = (&raw const (*blocks[r]).qs).cast::<u8>().add(32 * j);
            let (w0, w1) = (vld1q_u8(qs), vld1q_u8(qs.add(16)));
            let signed = |w| vreinterpretq_s8_u8(w);
            let even = [signed(vandq_u8(w0, low)), signed(vandq_u8(w1, low))];
            let odd = [signed(vshrq_n_u8::<4>(w0)), signed(vshrq_n_u8::<4>(w1))];
            pairs[r] = D::groups(even, odd, x);
        }
    }
    pairs
}

/// As [`dot_q4_k`].
///
/// # Safety
/// As [`dot_q4_k`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot_q5_k<D: Dot, const R: usize>(rows: [&[q5_k::Block]; R], x: Int8) -> [f32; R] {
    let add = |total: &mut Sums<R>, blocks: [*const q5_k::Block; R], x: Run| {
        // SAFETY: as in `dot_q4_k`.
        unsafe {
            let pairs = [
                groups_q5_k::<D, R, 4, 3>(blocks, 0, x.codes),
                groups_q5_k::<D, R, 2, 1>(blocks, 1, x.codes),
                groups_q5_k::<D, R, 0, -1>(blocks, 2, x.codes),
                groups_q5_k::<D, R, -2, -3>(blocks, 3, x.codes),
            ];
            add_groups(total, pairs, x, blocks);
        }
    };
    over_runs(rows, x, add)
}

/// As [`groups_q4_k`]; `EVEN` and `ODD` = `EVEN` − 1 are the shifts to the left that bring the groups' fifth bits to bit 4.
///
/// # Safety
/// `blocks` and the 256 activations at `q` may be read; `j` < 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn groups_q5_k<D: Dot, const R: usize, const EVEN: i32, const ODD: i32>(
    blocks: [*const q5_k::Block; R],
    j: usize,
    q: *const i8,
) -> [int32x4_t; R] {
    let (low, fifth) = (vdupq_n_u8(15), vdupq_n_u8(16));
    let mut pairs = [vdupq_n_s32(0); R];
    // SAFETY: the caller's promise.
    unsafe {
        let q = q.add(64 * j);
        let x = [vld1q_s8(q), vld1q_s8(q.add(16)), vld1q_s8(q.add(32)), vld1q_s8(q.add(48))];
        for r in 0..R {
            let qs = (&raw const (*blocks[r]).qs).cast::<u8>().add(32 * j);
            let qh = (&raw const (*blocks[r]).qh).cast::<u8>();
            let (w0, w1) = (vld1q_u8(qs), vld1q_u8(qs.add(16)));
            let (h0, h1) = (vld1q_u8(qh), vld1q_u8(qh.add(16)));
            let signed = |w| vreinterpretq_s8_u8(w);
            let even = [
                signed(insert_bits(vandq_u8(w0, low), shift::<EVEN>(h0), fifth)),
                signed(insert_bits(vandq_u8(w1, low), shift::<EVEN>(h1), fifth)),
            ];
            let odd = [
                signed(insert_bits(vshrq_n_u8::<4>(w0), shift::<ODD>(h0), fifth)),
                signed(insert_bits(vshrq_n_u8::<4>(w1), shift::<ODD>(h1), fifth)),
            ];
            pairs[r] = D::groups(even, odd, x);
        }
    }
    pairs
}

/// Shifts left by `N`, right by −`N`.
#[target_feature(enable = "neon")]
#[inline]
fn shift<const N: i32>(v: uint8x16_t) -> uint8x16_t {
    match N {
        4 => vshlq_n_u8::<4>(v),
        3 => vshlq_n_u8::<3>(v),
        2 => vshlq_n_u8::<2>(v),
        1 => vshlq_n_u8::<1>(v),
        -1 => vshrq_n_u8::<1>(v),
        -2 => vshrq_n_u8::<2>(v),
        -3 => vshrq_n_u8::<3>(v),
        _ => v,
    }
}

/// The blocks at `b` of all rows.
///
/// # Safety
/// Every row has more than `b` blocks.
#[inline]
unsafe fn blocks_at<B, const R: usize>(rows: [&[B]; R], b: usize) -> [*const B; R] {
    let mut blocks = [std::ptr::null(); R];
    for r in 0..R {
        // SAFETY: the caller's promise.
        blocks[r] = unsafe { rows[r].as_ptr().add(b) };
    }
    blocks
}

/// Eight sums of 32 from sixteen sums of 16.
///
/// # Safety
/// `sums` points to sixteen.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn sums_of_32(sums: *const i16) -> int16x8_t {
    // SAFETY: the caller's promise.
    unsafe { vpaddq_s16(vld1q_s16(sums), vld1q_s16(sums.add(8))) }
}

/// [a, a, −a, −a]: what multiplies the sums with the scales and those with the minima.
///
/// # Safety
/// `scale` points to a float.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scale_and_minus(scale: *const f32) -> float32x4_t {
    const SIGNS: [f32; 4] = [1.0, 1.0, -1.0, -1.0];
    // SAFETY: the caller's promise.
    unsafe { vmulq_f32(vld1q_f32(SIGNS.as_ptr()), vld1q_dup_f32(scale)) }
}

/// total + d·a·Σ S·dot − dmin·a·Σ M·sum for blocks whose first 16 bytes are `d`, `dmin` and the packed scales. `pairs` are the dots of
/// the groups: two lanes a group.
///
/// # Safety
/// Those 16 bytes of each block, and `x`, may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_groups<B, const R: usize>(total: &mut Sums<R>, pairs: [[int32x4_t; R]; 4], x: Run, blocks: [*const B; R]) {
    // SAFETY: the caller's promise; unaligned 32-bit loads go through byte pointers.
    unsafe {
        let sums = sums_of_32(x.sums);
        let scale = scale_and_minus(x.scale);
        for r in 0..R {
            let head = blocks[r].cast::<u8>();
            let scales = scales_and_minima(head.add(4));
            let s = vmovl_u8(vget_low_u8(scales));
            let m = vreinterpretq_s16_u16(vmovl_high_u8(scales));
            let (s_first, s_last) = (vmovl_u16(vget_low_u16(s)), vmovl_high_u16(s));

            let dots = vmulq_s32(vpaddq_s32(pairs[0][r], pairs[1][r]), vreinterpretq_s32_u32(s_first));
            let dots = vmlaq_s32(dots, vpaddq_s32(pairs[2][r], pairs[3][r]), vreinterpretq_s32_u32(s_last));
            let minima = vmlal_high_s16(vmull_s16(vget_low_s16(m), vget_low_s16(sums)), m, sums);

            let d = widen_halves(vreinterpret_u16_u32(vld1_dup_u32(head.cast())));
            let factors = vmulq_f32(vzip1q_f32(d, d), scale);
            total[r] = vfmaq_f32(total[r], vcvtq_f32_s32(vpaddq_s32(dots, minima)), factors);
        }
    }
}

/// As [`dot_q4_k`].
///
/// # Safety
/// As [`dot_q4_k`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot_q6_k<D: Dot, const R: usize>(rows: [&[q6_k::Block]; R], x: Int8) -> [f32; R] {
    let add = |total: &mut Sums<R>, blocks: [*const q6_k::Block; R], x: Run| {
        // SAFETY: as in `dot_q4_k`.
        unsafe {
            let (sums, sums_last) = (vld1q_s16(x.sums), vld1q_s16(x.sums.add(8)));
            let (first, last) = (half_q6_k::<D, R>(blocks, 0, x.codes), half_q6_k::<D, R>(blocks, 1, x.codes.add(128)));
            let scale = x.scale.read_unaligned();
            for r in 0..R {
                let s = vld1q_s8((&raw const (*blocks[r]).scales).cast());
                let (s0, s1) = (vmovl_s8(vget_low_s8(s)), vmovl_high_s8(s));
                let mut sum = vmulq_s32(first[r][0], vmovl_s16(vget_low_s16(s0)));
                sum = vmlaq_s32(sum, first[r][1], vmovl_high_s16(s0));
                sum = vmlaq_s32(sum, last[r][0], vmovl_s16(vget_low_s16(s1)));
                sum = vmlaq_s32(sum, last[r][1], vmovl_high_s16(s1));
                // q − 32: the offset, from the sums.
                let mut offset = vmull_s16(vget_low_s16(s0), vget_low_s16(sums));
                offset = vmlal_high_s16(offset, s0, sums);
                offset = vmlal_s16(offset, vget_low_s16(s1), vget_low_s16(sums_last));
                offset = vmlal_high_s16(offset, s1, sums_last);
                sum = vsubq_s32(sum, vshlq_n_s32::<5>(offset));
                total[r] = vfmaq_n_f32(total[r], vcvtq_f32_s32(sum), load_half(&raw const (*blocks[r]).d) * scale);
            }
        }
    };
    over_runs(rows, x, add)
}

/// Dots of the eight groups of half `h` of each row, a lane each.
///
/// # Safety
/// `blocks` and the 128 activations at `q` may be read; `h` < 2.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn half_q6_k<D: Dot, const R: usize>(blocks: [*const q6_k::Block; R], h: usize, q: *const i8) -> [[int32x4_t; 2]; R] {
    let mut high = [[vdupq_n_u8(0); 2]; R];
    let mut dots = [[vdupq_n_s32(0); 2]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for r in 0..R {
            let qh = (&raw const (*blocks[r]).qh).cast::<u8>().add(32 * h);
            high[r] = [vld1q_u8(qh), vld1q_u8(qh.add(16))];
        }
        let first = quarters_q6_k::<D, R, 0>(blocks, h, high, q);
        let second = quarters_q6_k::<D, R, 1>(blocks, h, high, q.add(32));
        for r in 0..R {
            dots[r] = [vpaddq_s32(first[r][0], second[r][0]), vpaddq_s32(first[r][1], second[r][1])];
        }
    }
    dots
}

/// Dots of the groups of the quarters `P` (low nibbles) and `P` + 2 (high nibbles) of half `h`, two lanes each; `high` are the half's
/// upper bits, `q` the quarter `P`'s activations.
///
/// # Safety
/// `blocks` and the activations at `q` may be read up to 96; `h` and `P` < 2.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn quarters_q6_k<D: Dot, const R: usize, const P: usize>(
    blocks: [*const q6_k::Block; R],
    h: usize,
    high: [[uint8x16_t; 2]; R],
    q: *const i8,
) -> [[int32x4_t; 2]; R] {
    let (low, upper) = (vdupq_n_u8(15), vdupq_n_u8(0x30));
    let mut dots = [[vdupq_n_s32(0); 2]; R];
    // SAFETY: the caller's promise.
    unsafe {
        let x = [vld1q_s8(q), vld1q_s8(q.add(16)), vld1q_s8(q.add(64)), vld1q_s8(q.add(80))];
        for r in 0..R {
            let ql = (&raw const (*blocks[r]).ql).cast::<u8>().add(64 * h + 32 * P);
            let l = [vld1q_u8(ql), vld1q_u8(ql.add(16))];
            let mut w = [vdupq_n_s8(0); 4];
            for c in 0..2 {
                let bits = high[r][c];
                let (below, beside) =
                    if P == 0 { (vshlq_n_u8::<4>(bits), vandq_u8(bits, upper)) } else { (vshlq_n_u8::<2>(bits), vshrq_n_u8::<2>(bits)) };
                w[c] = vreinterpretq_s8_u8(insert_bits(vandq_u8(l[c], low), below, upper));
                w[c + 2] = vreinterpretq_s8_u8(insert_high_nibbles(beside, l[c]));
            }
            dots[r] = D::sixteens(w, x);
        }
    }
    dots
}

/// As [`dot_q4_k`].
///
/// # Safety
/// As [`dot_q4_k`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot_iq4_xs<D: Dot, const R: usize>(rows: [&[iq4_xs::Block]; R], x: Int8) -> [f32; R] {
    let add = |total: &mut Sums<R>, blocks: [*const iq4_xs::Block; R], x: Run| {
        // SAFETY: as in `dot_q4_k`.
        unsafe {
            let pairs = [
                groups_iq4_xs::<D, R>(blocks, 0, x.codes),
                groups_iq4_xs::<D, R>(blocks, 1, x.codes),
                groups_iq4_xs::<D, R>(blocks, 2, x.codes),
                groups_iq4_xs::<D, R>(blocks, 3, x.codes),
            ];
            let scale = x.scale.read_unaligned();
            for r in 0..R {
                let s = scales_of_iq4_xs(blocks[r]);
                let dots = vmulq_s32(vpaddq_s32(pairs[0][r], pairs[1][r]), vmovl_s16(vget_low_s16(s)));
                let dots = vmlaq_s32(dots, vpaddq_s32(pairs[2][r], pairs[3][r]), vmovl_high_s16(s));
                total[r] = vfmaq_n_f32(total[r], vcvtq_f32_s32(dots), load_half(&raw const (*blocks[r]).d) * scale);
            }
        }
    };
    over_runs(rows, x, add)
}

/// Dots of the groups 2j and 2j + 1 of each row: [even, even, odd, odd].
///
/// # Safety
/// `blocks` and the 256 activations at `q` may be read; `j` < 4.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn groups_iq4_xs<D: Dot, const R: usize>(blocks: [*const iq4_xs::Block; R], j: usize, q: *const i8) -> [int32x4_t; R] {
    let mut pairs = [vdupq_n_s32(0); R];
    // SAFETY: the caller's promise.
    unsafe {
        let q = q.add(64 * j);
        let x = [vld1q_s8(q), vld1q_s8(q.add(16)), vld1q_s8(q.add(32)), vld1q_s8(q.add(48))];
        for r in 0..R {
            let qs = (&raw const (*blocks[r]).qs).cast::<u8>().add(32 * j);
            pairs[r] = D::bytes(levels(qs), levels(qs.add(16)), x);
        }
    }
    pairs
}

/// The eight scales less 32.
///
/// # Safety
/// `block` may be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales_of_iq4_xs(block: *const iq4_xs::Block) -> int16x8_t {
    const PAIRS: [i16; 8] = [0, -2, -4, -6, -8, -10, -12, -14];
    // SAFETY: the caller's promise; eight shifts.
    unsafe {
        let low = vreinterpret_u8_u32(vld1_dup_u32((&raw const (*block).scales_l).cast()));
        let low = vmovl_u8(vzip1_u8(vand_u8(low, vdup_n_u8(15)), vshr_n_u8::<4>(low)));
        let high = vld1q_dup_u16((&raw const (*block).scales_h).cast());
        let high = vandq_u16(vshlq_u16(high, vld1q_s16(PAIRS.as_ptr())), vdupq_n_u16(3));
        vsubq_s16(vreinterpretq_s16_u16(vorrq_u16(low, vshlq_n_u16::<4>(high))), vdupq_n_s16(32))
    }
}
