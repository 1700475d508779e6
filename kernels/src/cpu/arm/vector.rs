//! The vector of NEON.

use super::instructions::widen_halves;
use crate::cpu::vector::{Dots, Vector};
use std::arch::aarch64::*;
use std::arch::asm;

impl Vector for float32x4_t {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: by the contract, here and below.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { vld1q_f32(at) }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: as above.
        unsafe { widen_halves(vld1_u16(at)) }
    }

    #[inline(always)]
    unsafe fn load_four_i8(at: *const i8) -> [Self; 4] {
        // SAFETY: as above. The fixed-point conversion divides by 2²⁴ what stands in the upper byte, exactly.
        unsafe {
            let x = vreinterpretq_s32_s8(vld1q_s8(at));
            let byte = |x| vcvtq_n_f32_s32::<24>(vandq_s32(x, vdupq_n_s32(0xFF00_0000_u32 as i32)));
            [byte(vshlq_n_s32::<24>(x)), byte(vshlq_n_s32::<16>(x)), byte(vshlq_n_s32::<8>(x)), byte(x)]
        }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as above.
        unsafe { vst1q_f32(at, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: as above.
        unsafe { vmulq_f32(self, by) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: as above.
        unsafe { vfmaq_f32(plus, self, by) }
    }

    type Four = float32x4_t;

    #[inline(always)]
    unsafe fn four(at: *const f32) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vld1q_f32(at) }
    }

    #[inline(always)]
    unsafe fn mul_add_one<const I: usize>(self, by: float32x4_t, plus: Self) -> Self {
        // SAFETY: as above. `I` is known when this is compiled.
        unsafe {
            match I {
                0 => vfmaq_laneq_f32::<0>(plus, self, by),
                1 => vfmaq_laneq_f32::<1>(plus, self, by),
                2 => vfmaq_laneq_f32::<2>(plus, self, by),
                _ => vfmaq_laneq_f32::<3>(plus, self, by),
            }
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { vaddq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above. Of NaN and a number it gives the number.
        unsafe { vmaxnmq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { vaddvq_f32(self) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe { vmaxvq_f32(self) }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a hint; any address will do.
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags)) };
    }
}

/// `sdot`, which takes both operands signed: sums begin with nothing.
impl Dots for float32x4_t {
    type Words = int32x4_t;

    #[inline(always)]
    unsafe fn load_codes(at: *const i8) -> int32x4_t {
        // SAFETY: by the contract, here and below.
        unsafe { vreinterpretq_s32_s8(vld1q_s8(at)) }
    }

    #[inline(always)]
    unsafe fn no_dots(_sum: i32) -> int32x4_t {
        // SAFETY: as above.
        unsafe { vdupq_n_s32(0) }
    }

    type FourWords = int32x4_t;

    #[inline(always)]
    unsafe fn four_words(at: *const i32) -> int32x4_t {
        // SAFETY: as above.
        unsafe { vld1q_s32(at) }
    }

    #[inline(always)]
    unsafe fn add_dots<const I: usize>(mut sums: int32x4_t, codes: int32x4_t, by: int32x4_t) -> int32x4_t {
        // SAFETY: as above; registers only.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
                 inout(vreg) sums, in(vreg) codes, in(vreg) by, const I, options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }

    const UNSIGNED_WEIGHTS: bool = false;

    #[inline(always)]
    unsafe fn load_values(at: *const i8) -> int32x4_t {
        // SAFETY: as above.
        unsafe { Self::load_codes(at) }
    }

    #[inline(always)]
    unsafe fn add_weighted<const I: usize>(sums: int32x4_t, codes: int32x4_t, by: int32x4_t) -> int32x4_t {
        // SAFETY: as above.
        unsafe { Self::add_dots::<I>(sums, codes, by) }
    }

    #[inline(always)]
    unsafe fn joined(high: int32x4_t, low: int32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vcvtq_f32_s32(vaddq_s32(vshlq_n_s32::<8>(high), low)) }
    }
}
