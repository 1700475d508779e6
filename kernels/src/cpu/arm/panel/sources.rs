//! What the formats' converters differ in: where the codes lie, and which affine function makes weights of them.

use super::super::instructions::widen_halves;
use super::strip::{Head, RUN, Source};
use crate::quant::{iq4_nl, iq4_xs, q4_k, q5_k, q6_k};
use std::arch::aarch64::*;

/// Blocks of 32 with a scale at their head, and w = d·(code − offset).
pub struct Q4_0;
pub struct Q5_0;
pub struct Q8_0;
pub struct Iq4Nl;
/// Blocks of 32 with scale and minimum at their head, and w = d·code + m.
pub struct Q4_1;
pub struct Q5_1;
/// Blocks of 256.
pub struct Q4K;
pub struct Q5K;
pub struct Q6K;
pub struct Iq4Xs;

/// The halves at `run`, `run` + stride, … of the eight blocks of a run, as floats.
///
/// # Safety
/// They may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn eight_halves(run: *const u8, stride: usize) -> [float32x4_t; 2] {
    let mut halves = [0u16; 8];
    for (i, half) in halves.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *half = unsafe { run.add(stride * i).cast::<u16>().read_unaligned() };
    }
    // SAFETY: four of eight.
    unsafe { [widen_halves(vld1_u16(halves.as_ptr())), widen_halves(vld1_u16(halves.as_ptr().add(4)))] }
}

/// For w = d·(code − offset), scales `d` for 32: the block of the larger scale in a group keeps its codes times `whole`, an integer, and
/// so stays exact.
#[inline]
#[target_feature(enable = "neon")]
fn head_of_scales(d: [float32x4_t; 2], whole: f32, offset: i16) -> Head {
    let largest = vpmaxq_f32(vabsq_f32(d[0]), vabsq_f32(d[1])); // of each group
    let factor = vdivq_f32(vdupq_n_f32(256.0 * whole), largest);
    let a = vcombine_s16(
        vmovn_s32(vcvtnq_s32_f32(vmulq_f32(d[0], vzip1q_f32(factor, factor)))),
        vmovn_s32(vcvtnq_s32_f32(vmulq_f32(d[1], vzip2q_f32(factor, factor)))),
    );
    store_head(a, vmulq_n_s16(a, -offset), vmulq_n_f32(largest, 1.0 / whole))
}

/// For w = u·code + v with codes up to `top`, `u` and `v` for 32.
#[inline]
#[target_feature(enable = "neon")]
fn head_of_lines(u: [float32x4_t; 2], v: [float32x4_t; 2], top: f32) -> Head {
    let peak0 = vmaxq_f32(vabsq_f32(v[0]), vabsq_f32(vfmaq_n_f32(v[0], u[0], top)));
    let peak1 = vmaxq_f32(vabsq_f32(v[1]), vabsq_f32(vfmaq_n_f32(v[1], u[1], top)));
    let largest = vpmaxq_f32(peak0, peak1); // of each group
    let factor = vdivq_f32(vdupq_n_f32(256.0 * 127.0), largest);
    let (first, last) = (vzip1q_f32(factor, factor), vzip2q_f32(factor, factor));
    let a = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(vmulq_f32(u[0], first))), vmovn_s32(vcvtnq_s32_f32(vmulq_f32(u[1], last))));
    let b = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(vmulq_f32(v[0], first))), vmovn_s32(vcvtnq_s32_f32(vmulq_f32(v[1], last))));
    store_head(a, b, vmulq_n_f32(largest, 1.0 / 127.0))
}

/// Eight functions for 32 columns, each stored for its two 16.
#[inline]
#[target_feature(enable = "neon")]
fn store_head(a: int16x8_t, b: int16x8_t, scales: float32x4_t) -> Head {
    let mut head = Head { a: [0; 16], b: [0; 16], scales: [0.0; 4] };
    // SAFETY: sixteen shorts, four floats.
    unsafe {
        vst1q_s16_x2(head.a.as_mut_ptr(), int16x8x2_t(vzip1q_s16(a, a), vzip2q_s16(a, a)));
        vst1q_s16_x2(head.b.as_mut_ptr(), int16x8x2_t(vzip1q_s16(b, b), vzip2q_s16(b, b)));
        vst1q_f32(head.scales.as_mut_ptr(), scales);
    }
    head
}

/// 16 bytes as 32 nibbles, low then high.
///
/// # Safety
/// They may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn nibbles(qs: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise.
    let w = unsafe { vld1q_u8(qs) };
    [vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8::<4>(w))]
}

/// 32 codes of five bits: fifth bits in four bytes, then nibbles.
///
/// # Safety
/// The 20 bytes at `qh` may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn five_bits(qh: *const u8) -> [int8x16_t; 2] {
    const SPREAD: [u8; 32] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3];
    // SAFETY: the caller's promise; tables of 32.
    unsafe {
        let low = nibbles(qh.add(4));
        let bits = vreinterpretq_u8_u32(vld1q_dup_u32(qh.cast()));
        let one = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let fifth = vdupq_n_u8(16);
        let first = vandq_u8(vtstq_u8(vqtbl1q_u8(bits, vld1q_u8(SPREAD.as_ptr())), one), fifth);
        let last = vandq_u8(vtstq_u8(vqtbl1q_u8(bits, vld1q_u8(SPREAD.as_ptr().add(16))), one), fifth);
        [vorrq_s8(low[0], vreinterpretq_s8_u8(first)), vorrq_s8(low[1], vreinterpretq_s8_u8(last))]
    }
}

/// Nibbles as the levels of `IQ4_NL`.
///
/// # Safety
/// As [`nibbles`].
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn levels(qs: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise; sixteen levels.
    unsafe {
        let table = vld1q_s8(iq4_nl::LEVELS.as_ptr());
        let [low, high] = nibbles(qs);
        [vqtbl1q_s8(table, vreinterpretq_u8_s8(low)), vqtbl1q_s8(table, vreinterpretq_u8_s8(high))]
    }
}

/// A source of blocks of 32: bytes of a block, its head, and the codes of one block.
macro_rules! blocks_of_32 {
    ($name:ident, $bytes:literal, $head:expr, $codes:expr) => {
        impl Source for $name {
            const BYTES: usize = $bytes * RUN / 32;

            #[inline(always)]
            unsafe fn head(run: *const u8) -> Head {
                // SAFETY: the caller's promise.
                unsafe { $head(run) }
            }

            #[inline(always)]
            unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4] {
                // SAFETY: the caller's promise; two blocks of the run.
                unsafe {
                    let block = run.add(2 * $bytes * g);
                    let ([a, b], [c, d]) = ($codes(block), $codes(block.add($bytes)));
                    [a, b, c, d]
                }
            }
        }
    };
}

blocks_of_32!(Q4_0, 18, |run| head_of_scales(eight_halves(run, 18), 15.0, 8), |block: *const u8| nibbles(block.add(2)));
blocks_of_32!(Q5_0, 22, |run| head_of_scales(eight_halves(run, 22), 7.0, 16), |block: *const u8| five_bits(block.add(2)));
blocks_of_32!(Iq4Nl, 18, |run| head_of_scales(eight_halves(run, 18), 1.0, 0), |block: *const u8| levels(block.add(2)));
blocks_of_32!(Q8_0, 34, |run| head_of_scales(eight_halves(run, 34), 1.0, 0), |block: *const u8| {
    let codes = block.add(2).cast();
    // −128 · −256 would not fit 16 bits; encoders write ±127.
    let least = vdupq_n_s8(-127);
    [vmaxq_s8(vld1q_s8(codes), least), vmaxq_s8(vld1q_s8(codes.add(16)), least)]
});
blocks_of_32!(Q4_1, 20, |run: *const u8| head_of_lines(eight_halves(run, 20), eight_halves(run.add(2), 20), 15.0), |block: *const u8| {
    nibbles(block.add(4))
});
blocks_of_32!(Q5_1, 24, |run: *const u8| head_of_lines(eight_halves(run, 24), eight_halves(run.add(2), 24), 31.0), |block: *const u8| {
    five_bits(block.add(4))
});

impl Source for Q4K {
    const BYTES: usize = size_of::<q4_k::Block>();

    #[inline(always)]
    unsafe fn head(run: *const u8) -> Head {
        // SAFETY: a block begins with these sixteen bytes.
        unsafe { head_of_k(run, 15.0) }
    }

    #[inline(always)]
    unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4] {
        // SAFETY: the caller's promise: 32 bytes for each of four groups.
        unsafe {
            let qs = run.add(16 + 32 * g);
            let ([a, c], [b, d]) = (nibbles(qs), nibbles(qs.add(16)));
            [a, b, c, d]
        }
    }
}

impl Source for Q5K {
    const BYTES: usize = size_of::<q5_k::Block>();

    #[inline(always)]
    unsafe fn head(run: *const u8) -> Head {
        // SAFETY: a block begins with these sixteen bytes.
        unsafe { head_of_k(run, 31.0) }
    }

    #[inline(always)]
    unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4] {
        // SAFETY: the caller's promise: 32 bytes of fifth bits, then 32 for each of four groups.
        unsafe {
            let qs = run.add(48 + 32 * g);
            let ([a, c], [b, d]) = (nibbles(qs), nibbles(qs.add(16)));
            let (first, last) = (vld1q_u8(run.add(16)), vld1q_u8(run.add(32)));
            let (even, odd) = (vdupq_n_u8(1 << (2 * g)), vdupq_n_u8(2 << (2 * g)));
            let fifth = |codes, bits, bit| vorrq_s8(codes, vreinterpretq_s8_u8(vandq_u8(vtstq_u8(bits, bit), vdupq_n_u8(16))));
            [fifth(a, first, even), fifth(b, last, even), fifth(c, first, odd), fifth(d, last, odd)]
        }
    }
}

/// The head of a block of `Q4_K` or `Q5_K`: w = (d·S)·code − dmin·M.
///
/// # Safety
/// Its first sixteen bytes may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn head_of_k(block: *const u8, top: f32) -> Head {
    // SAFETY: the caller's promise.
    let (d, scales) = unsafe { (widen_halves(vreinterpret_u16_u32(vld1_dup_u32(block.cast()))), scales_and_minima(block.add(4))) };
    let (s, m) = (vmovl_u8(vget_low_u8(scales)), vmovl_u8(vget_high_u8(scales)));
    let times = |v: uint16x8_t, d: float32x4_t| {
        [vmulq_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), d), vmulq_f32(vcvtq_f32_u32(vmovl_high_u16(v)), d)]
    };
    head_of_lines(times(s, vdupq_laneq_f32::<0>(d)), times(m, vnegq_f32(vdupq_laneq_f32::<1>(d))), top)
}

/// Eight scales, then eight minima, from the twelve bytes of [`q4_k::scale_and_minimum`].
///
/// # Safety
/// They may be read.
#[inline]
#[target_feature(enable = "neon")]
pub unsafe fn scales_and_minima(packed: *const u8) -> uint8x16_t {
    const NIBBLES: [i8; 8] = [0, 0, 0, 0, -4, -4, -4, -4];
    // SAFETY: the caller's promise; eight shifts.
    unsafe {
        let first = vld1_u8(packed); // low six bits: S, M of groups 0–3; top two: of groups 4–7
        let last = vreinterpret_u8_u32(vld1_dup_u32(packed.add(8).cast())); // nibbles: S, M of groups 4–7
        let low = vreinterpret_u32_u8(vand_u8(first, vdup_n_u8(63)));
        let nibbles = vand_u8(vshl_u8(last, vld1_s8(NIBBLES.as_ptr())), vdup_n_u8(15));
        let high = vreinterpret_u32_u8(vsli_n_u8::<4>(nibbles, vshr_n_u8::<6>(first)));
        vcombine_u8(vreinterpret_u8_u32(vzip1_u32(low, high)), vreinterpret_u8_u32(vzip2_u32(low, high)))
    }
}

impl Source for Q6K {
    const BYTES: usize = size_of::<q6_k::Block>();

    #[inline(always)]
    unsafe fn head(run: *const u8) -> Head {
        // SAFETY: the caller's promise: sixteen scales at 192, `d` at 208.
        unsafe {
            let scales = vld1q_s8(run.add(192).cast());
            let d = vdupq_laneq_f32::<0>(widen_halves(vld1_dup_u16(run.add(208).cast())));
            let (low, high) = (vmovl_s8(vget_low_s8(scales)), vmovl_high_s8(scales));
            let float = |v| vmulq_f32(vcvtq_f32_s32(v), d);
            head_of_16(
                [
                    float(vmovl_s16(vget_low_s16(low))),
                    float(vmovl_high_s16(low)),
                    float(vmovl_s16(vget_low_s16(high))),
                    float(vmovl_high_s16(high)),
                ],
                32,
            )
        }
    }

    #[inline(always)]
    unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4] {
        let (half, upper) = (g / 2, g % 2 == 1);
        // SAFETY: the caller's promise: 64 bytes of nibbles and 32 of pairs for each half.
        unsafe {
            let (low, two) = (vdupq_n_u8(15), vdupq_n_u8(0x30));
            let (ql, qh) = (run.add(64 * half), run.add(128 + 32 * half));
            let l = vld1q_u8_x4(ql);
            let h = [vld1q_u8(qh), vld1q_u8(qh.add(16))];
            let w = if upper {
                [
                    vsriq_n_u8::<4>(vandq_u8(h[0], two), l.0),
                    vsriq_n_u8::<4>(vandq_u8(h[1], two), l.1),
                    vsriq_n_u8::<4>(vshrq_n_u8::<2>(h[0]), l.2),
                    vsriq_n_u8::<4>(vshrq_n_u8::<2>(h[1]), l.3),
                ]
            } else {
                [
                    vbslq_u8(two, vshlq_n_u8::<4>(h[0]), vandq_u8(l.0, low)),
                    vbslq_u8(two, vshlq_n_u8::<4>(h[1]), vandq_u8(l.1, low)),
                    vbslq_u8(two, vshlq_n_u8::<2>(h[0]), vandq_u8(l.2, low)),
                    vbslq_u8(two, vshlq_n_u8::<2>(h[1]), vandq_u8(l.3, low)),
                ]
            };
            [vreinterpretq_s8_u8(w[0]), vreinterpretq_s8_u8(w[1]), vreinterpretq_s8_u8(w[2]), vreinterpretq_s8_u8(w[3])]
        }
    }
}

/// For w = d·(code − offset), scales `d` for 16, |code − offset| ≤ 32.
#[inline]
#[target_feature(enable = "neon")]
fn head_of_16(d: [float32x4_t; 4], offset: i16) -> Head {
    let of = |v| vabsq_f32(v);
    let pairs = [vpmaxq_f32(of(d[0]), of(d[1])), vpmaxq_f32(of(d[2]), of(d[3]))];
    let largest = vpmaxq_f32(pairs[0], pairs[1]); // of each group
    let factor = vdivq_f32(vdupq_n_f32(256.0 * 127.0 / 32.0), largest);
    let round = |d, factor| vmovn_s32(vcvtnq_s32_f32(vmulq_f32(d, factor)));
    let a = [
        vcombine_s16(round(d[0], vdupq_laneq_f32::<0>(factor)), round(d[1], vdupq_laneq_f32::<1>(factor))),
        vcombine_s16(round(d[2], vdupq_laneq_f32::<2>(factor)), round(d[3], vdupq_laneq_f32::<3>(factor))),
    ];
    let mut head = Head { a: [0; 16], b: [0; 16], scales: [0.0; 4] };
    // SAFETY: sixteen shorts, four floats.
    unsafe {
        vst1q_s16_x2(head.a.as_mut_ptr(), int16x8x2_t(a[0], a[1]));
        vst1q_s16_x2(head.b.as_mut_ptr(), int16x8x2_t(vmulq_n_s16(a[0], -offset), vmulq_n_s16(a[1], -offset)));
        vst1q_f32(head.scales.as_mut_ptr(), vmulq_n_f32(largest, 32.0 / 127.0));
    }
    head
}

impl Source for Iq4Xs {
    const BYTES: usize = size_of::<iq4_xs::Block>();

    #[inline(always)]
    unsafe fn head(run: *const u8) -> Head {
        // SAFETY: the caller's promise; the block's bytes are its type.
        let block = unsafe { &*run.cast::<iq4_xs::Block>() };
        let mut scales = [0.0; 8];
        for (j, s) in scales.iter_mut().enumerate() {
            *s = f32::from(block.scale(j));
        }
        // SAFETY: eight floats, a half.
        unsafe {
            let d = vdupq_laneq_f32::<0>(widen_halves(vld1_dup_u16(run.cast())));
            head_of_scales([vmulq_f32(vld1q_f32(scales.as_ptr()), d), vmulq_f32(vld1q_f32(scales.as_ptr().add(4)), d)], 1.0, 0)
        }
    }

    #[inline(always)]
    unsafe fn codes(run: *const u8, g: usize) -> [int8x16_t; 4] {
        // SAFETY: the caller's promise: 16 bytes for each of eight groups.
        unsafe {
            let qs = run.add(8 + 32 * g);
            let ([a, b], [c, d]) = (levels(qs), levels(qs.add(16)));
            [a, b, c, d]
        }
    }
}
