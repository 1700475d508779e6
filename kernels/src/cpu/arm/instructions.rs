//! Instructions that stable Rust 1.95 has no intrinsic for, one function each. To be replaced by the intrinsics when they are stable.

use crate::quant::F16;
use std::arch::aarch64::*;
use std::arch::asm;

/// `sdot`: adds four products i8·i8 to each lane.
///
/// Not `pure`: so these stay in the order they were written in. LLVM, free to move them, interleaves the rows until registers run out.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the feature is enabled on this function.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
             options(nomem, nostack, preserves_flags));
    }
    sum
}

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

/// Four zeroed registers' worth of memory.
static ZEROS: [u8; 64] = [0; 64];

/// Four dots of 16, two lanes each: [a0·b0, a1·b1], [a2·b2, a3·b3].
///
/// One statement, since LLVM puts the `addp`s off until registers run out. The four accumulators are zeroed by one load: vector pipes are
/// the scarce ones, load pipes have time.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub fn sdot_pairs(a: [int8x16_t; 4], b: [int8x16_t; 4]) -> [int32x4_t; 2] {
    let (first, second);
    // SAFETY: reads 64 bytes of `ZEROS`; the feature is enabled on this function.
    unsafe {
        asm!("ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{zeros}]",
             "sdot v0.4s, {a0:v}.16b, {b0:v}.16b",
             "sdot v1.4s, {a1:v}.16b, {b1:v}.16b",
             "sdot v2.4s, {a2:v}.16b, {b2:v}.16b",
             "sdot v3.4s, {a3:v}.16b, {b3:v}.16b",
             "addp v0.4s, v0.4s, v1.4s",
             "addp v2.4s, v2.4s, v3.4s",
             zeros = in(reg) ZEROS.as_ptr(),
             a0 = in(vreg) a[0], a1 = in(vreg) a[1], a2 = in(vreg) a[2], a3 = in(vreg) a[3],
             b0 = in(vreg) b[0], b1 = in(vreg) b[1], b2 = in(vreg) b[2], b3 = in(vreg) b[3],
             out("v0") first, out("v1") _, out("v2") second, out("v3") _,
             options(readonly, nostack, preserves_flags));
    }
    [first, second]
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
