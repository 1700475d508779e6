//! Instructions that stable Rust 1.95 has no intrinsic for, one function each. To be replaced by the intrinsics when they are stable.

use crate::quant::F16;
use std::arch::aarch64::*;
use std::arch::asm;

/// `fcvtl`: four halves as floats.
#[target_feature(enable = "neon")]
#[inline]
pub fn widen_halves(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: registers only; every ARMv8 has the instruction.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) floats, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    floats
}

/// `fcvt`: a half in memory as a float.
///
/// # Safety
/// `half` points to two bytes.
#[target_feature(enable = "neon")]
#[inline]
pub unsafe fn load_half(half: *const F16) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { vgetq_lane_f32::<0>(widen_halves(vld1_dup_u16(half.cast()))) }
}

/// `sri` by 4: the high nibbles of `low` below the high nibbles of `high`. The intrinsic is taken apart into three instructions.
#[target_feature(enable = "neon")]
#[inline]
pub fn insert_high_nibbles(mut high: uint8x16_t, low: uint8x16_t) -> uint8x16_t {
    // SAFETY: registers only.
    unsafe {
        asm!("sri {0:v}.16b, {1:v}.16b, #4", inout(vreg) high, in(vreg) low, options(pure, nomem, nostack, preserves_flags));
    }
    high
}

/// `bit`: `to` with the bits of `from` where `mask` has them. The intrinsic becomes `and` and `orr` for a constant mask.
#[target_feature(enable = "neon")]
#[inline]
pub fn insert_bits(mut to: uint8x16_t, from: uint8x16_t, mask: uint8x16_t) -> uint8x16_t {
    // SAFETY: registers only.
    unsafe {
        asm!("bit {0:v}.16b, {1:v}.16b, {2:v}.16b", inout(vreg) to, in(vreg) from, in(vreg) mask,
             options(pure, nomem, nostack, preserves_flags));
    }
    to
}
