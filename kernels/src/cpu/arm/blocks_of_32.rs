//! One token times rows of `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0` or `IQ4_NL`, read in place.
//!
//! The simple loop, for a row: Σ over blocks of d·a·Σ q·x, with the block's scale `d` and the activations' scale `a`. The tricks:
//! 1. Four rows go together: their four sums end in the four lanes of one vector, so that conversion, scales and the sum over blocks
//!    cost one instruction for four rows, and the activations are loaded once.
//! 2. Offsets (the 8 of `q − 8`) and minima are multiplied with the sums of the activations instead of being subtracted from each weight.
//! 3. The scales of four rows are gathered by lane loads that also step their pointers: vector pipes are the scarce ones.
//!
//! The loops are assembly: a block's text is put together from the parts that formats differ in.

use super::activations::Int8;
use crate::quant::iq4_nl;
use std::arch::aarch64::*;
use std::arch::asm;

/// Rows that go together.
const ROWS: usize = 4;

/// Weights of one row as int8 in v16 and v17, or v18 and v19, and so on; the row's pointer steps to the next block.
#[rustfmt::skip]
macro_rules! bytes {
    ($stride:literal, $p:literal, $a:literal, $b:literal) => {
        concat!("ld1 {{v", $a, ".16b, v", $b, ".16b}}, [{p", $p, "}], {stride:x}\n")
    };
}
#[rustfmt::skip]
macro_rules! nibbles {
    ($stride:literal, $p:literal, $a:literal, $b:literal) => {
        concat!(
            "ldr q", $a, ", [{p", $p, "}], #", $stride, "\n",
            "ushr v", $b, ".16b, v", $a, ".16b, #4\n",
            "and v", $a, ".16b, v", $a, ".16b, v28.16b\n"
        )
    };
}
/// Nibbles as indices of the table in v29.
#[rustfmt::skip]
macro_rules! levels {
    ($stride:literal, $p:literal, $a:literal, $b:literal) => {
        concat!(
            nibbles!($stride, $p, $a, $b),
            "tbl v", $a, ".16b, {{v29.16b}}, v", $a, ".16b\n",
            "tbl v", $b, ".16b, {{v29.16b}}, v", $b, ".16b\n"
        )
    };
}
/// Nibbles and fifth bits as q − 16: the inverted bits are spread over bytes (table v29, and v29 + 2 in v30), tested against one bit a
/// byte (v27), and a byte of ones, inserted above the nibble, is −16.
#[rustfmt::skip]
macro_rules! five_bits {
    ($stride:literal, $p:literal, $a:literal, $b:literal) => {
        concat!(
            "ldur s4, [{p", $p, "}, #-4]\n",
            nibbles!($stride, $p, $a, $b),
            "mvn v4.16b, v4.16b\n",
            "tbl v5.16b, {{v4.16b}}, v29.16b\n",
            "tbl v4.16b, {{v4.16b}}, v30.16b\n",
            "cmtst v5.16b, v5.16b, v27.16b\n",
            "cmtst v4.16b, v4.16b, v27.16b\n",
            "sli v", $a, ".16b, v5.16b, #4\n",
            "sli v", $b, ".16b, v4.16b, #4\n"
        )
    };
}

/// The dots of four rows with the activations in v24 and v25 as the four lanes of v0, as floats: by `sdot`, the accumulators zeroed by one
/// load.
#[rustfmt::skip]
macro_rules! sdots {
    () => {
        ".arch_extension dotprod
         ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [x10]
         sdot v0.4s, v16.16b, v24.16b
         sdot v1.4s, v18.16b, v24.16b
         sdot v2.4s, v20.16b, v24.16b
         sdot v3.4s, v22.16b, v24.16b
         sdot v0.4s, v17.16b, v25.16b
         sdot v1.4s, v19.16b, v25.16b
         sdot v2.4s, v21.16b, v25.16b
         sdot v3.4s, v23.16b, v25.16b
         addp v0.4s, v0.4s, v1.4s
         addp v2.4s, v2.4s, v3.4s
         addp v0.4s, v0.4s, v2.4s
         scvtf v0.4s, v0.4s
        "
    };
}
/// By 16-bit sums: codes within ±16 or from 0 to 15, so that sixteen products (the last `addp`'s) stay below 2¹⁵.
#[rustfmt::skip]
macro_rules! short_dots {
    () => {
        concat!(
            short_dot!("0", "16", "17"),
            short_dot!("1", "18", "19"),
            short_dot!("2", "20", "21"),
            short_dot!("3", "22", "23"),
            "addp v0.8h, v0.8h, v1.8h
             addp v2.8h, v2.8h, v3.8h
             addp v0.8h, v0.8h, v2.8h
             saddlp v0.4s, v0.8h
             scvtf v0.4s, v0.4s
            "
        )
    };
}
#[rustfmt::skip]
macro_rules! short_dot {
    ($sum:literal, $a:literal, $b:literal) => {
        concat!(
            "smull v", $sum, ".8h, v", $a, ".8b, v24.8b\n",
            "smlal2 v", $sum, ".8h, v", $a, ".16b, v24.16b\n",
            "smlal v", $sum, ".8h, v", $b, ".8b, v25.8b\n",
            "smlal2 v", $sum, ".8h, v", $b, ".16b, v25.16b\n"
        )
    };
}
/// By 16-bit sums of two products: any codes within ±127, and −128.
#[rustfmt::skip]
macro_rules! byte_dots {
    () => {
        concat!(
            byte_dot!("0", "16", "17"),
            byte_dot!("1", "18", "19"),
            byte_dot!("2", "20", "21"),
            byte_dot!("3", "22", "23"),
            "addp v0.4s, v0.4s, v1.4s
             addp v2.4s, v2.4s, v3.4s
             addp v0.4s, v0.4s, v2.4s
             scvtf v0.4s, v0.4s
            "
        )
    };
}
#[rustfmt::skip]
macro_rules! byte_dot {
    ($sum:literal, $a:literal, $b:literal) => {
        concat!(
            "smull v4.8h, v", $a, ".8b, v24.8b\n",
            "smull v5.8h, v", $b, ".8b, v25.8b\n",
            "smlal2 v4.8h, v", $a, ".16b, v24.16b\n",
            "smlal2 v5.8h, v", $b, ".16b, v25.16b\n",
            "saddlp v", $sum, ".4s, v4.8h\n",
            "sadalp v", $sum, ".4s, v5.8h\n"
        )
    };
}

/// Adds dots times scales to v31; `lane` of v26 is the activations' scale, of v6 what the offset is multiplied with.
#[rustfmt::skip]
macro_rules! scale {
    ($lane:literal) => {
        concat!(
            "ld1 {{v4.h}}[0], [{s0}], {stride:x}\n",
            "ld1 {{v4.h}}[1], [{s1}], {stride:x}\n",
            "ld1 {{v4.h}}[2], [{s2}], {stride:x}\n",
            "ld1 {{v4.h}}[3], [{s3}], {stride:x}\n",
            "fcvtl v4.4s, v4.4h\n",
            "fmul v5.4s, v4.4s, v26.s[", $lane, "]\n",
            "fmla v31.4s, v0.4s, v5.4s\n"
        )
    };
}
#[rustfmt::skip]
macro_rules! scale_and_offset {
    ($lane:literal) => {
        concat!(scale!($lane), "fmla v31.4s, v4.4s, v6.s[", $lane, "]\n")
    };
}
/// The same with a minimum beside each scale.
#[rustfmt::skip]
macro_rules! scale_and_minimum {
    ($lane:literal) => {
        scale_and_minimum!($lane, "")
    };
    ($lane:literal, $minimum:literal) => {
        concat!(
            "ld1 {{v4.s}}[0], [{s0}], {stride:x}\n",
            "ld1 {{v4.s}}[1], [{s1}], {stride:x}\n",
            "ld1 {{v4.s}}[2], [{s2}], {stride:x}\n",
            "ld1 {{v4.s}}[3], [{s3}], {stride:x}\n",
            "uzp1 v5.8h, v4.8h, v4.8h\n",
            "uzp2 v4.8h, v4.8h, v4.8h\n",
            "fcvtl v5.4s, v5.4h\n",
            "fcvtl v4.4s, v4.4h\n",
            $minimum,
            "fmul v5.4s, v5.4s, v26.s[", $lane, "]\n",
            "fmla v31.4s, v0.4s, v5.4s\n",
            "fmla v31.4s, v4.4s, v6.s[", $lane, "]\n"
        )
    };
}
/// For codes that come less 16: the minimum is 16 scales more.
#[rustfmt::skip]
macro_rules! scale_and_minimum_less_16 {
    ($lane:literal) => {
        scale_and_minimum!($lane, "fmov v1.4s, #16.0\n fmla v4.4s, v5.4s, v1.4s\n")
    };
}

/// One block of four rows.
#[rustfmt::skip]
macro_rules! block {
    ($weights:ident, $stride:literal, $dots:ident, $scale:ident, $lane:literal) => {
        concat!(
            "ldp q24, q25, [{x}], #32\n",
            $weights!($stride, "0", "16", "17"),
            $weights!($stride, "1", "18", "19"),
            $weights!($stride, "2", "20", "21"),
            $weights!($stride, "3", "22", "23"),
            $dots!(),
            $scale!($lane)
        )
    };
}

/// Where the loop stands, and what it has added up: one lane a row.
struct Cursor {
    /// Of each row, the codes of the next block, and its scale.
    codes: [*const u8; ROWS],
    heads: [*const u8; ROWS],
    q: *const u8,
    scales: *const u8,
    sums: *const u8,
    total: float32x4_t,
}

/// The constants of a format: tables for `tbl` in v29 and v30, and what the sums are multiplied with.
struct Constants {
    tables: [[u8; 16]; 2],
    offset: f32,
}

/// Four zeroed registers' worth of memory.
pub static ZEROS: [u8; 64] = [0; 64];

/// Runs `text` `count` ≥ 1 times.
#[rustfmt::skip]
macro_rules! run {
    ($text:expr, $count:expr, $stride:literal, $at:ident, $constants:ident) => {
        asm!("2:", $text, "subs {count}, {count}, #1", "b.ne 2b",
             count = inout(reg) $count => _, stride = in(reg) $stride as usize, in("x10") ZEROS.as_ptr(),
             x = inout(reg) $at.q, scales = inout(reg) $at.scales, inout("x9") $at.sums,
             p0 = inout(reg) $at.codes[0], p1 = inout(reg) $at.codes[1], p2 = inout(reg) $at.codes[2], p3 = inout(reg) $at.codes[3],
             s0 = inout(reg) $at.heads[0], s1 = inout(reg) $at.heads[1], s2 = inout(reg) $at.heads[2], s3 = inout(reg) $at.heads[3],
             inout("v31") $at.total,
             in("v27") vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)), in("v28") vdupq_n_u8(15),
             in("v29") vld1q_u8($constants.tables[0].as_ptr()), in("v30") vld1q_u8($constants.tables[1].as_ptr()),
             in("v7") vdupq_n_f32($constants.offset),
             out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
             out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
             out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _,
             options(readonly, nostack))
    };
}

/// The activations' scales of four blocks or one, and their sums times the offset.
#[rustfmt::skip]
macro_rules! scales {
    (4) => { "ldr q26, [{scales}], #16\n" };
    (1) => { "ldr s26, [{scales}], #4\n" };
}
#[rustfmt::skip]
macro_rules! scales_and_sums {
    (4) => { concat!(scales!(4), "ldr q6, [x9], #16\n", scaled_sums!()) };
    (1) => { concat!(scales!(1), "ldr s6, [x9], #4\n", scaled_sums!()) };
}
#[rustfmt::skip]
macro_rules! scaled_sums {
    () => { "saddlp v6.4s, v6.8h\n scvtf v6.4s, v6.4s\n fmul v6.4s, v6.4s, v7.4s\n fmul v6.4s, v6.4s, v26.4s\n" };
}

/// A format's function. `stride`: bytes of a block; then the parts above that it is put together from.
#[rustfmt::skip]
macro_rules! mat_vec {
    ($name:ident, stride $stride:literal, $head:ident, $weights:ident, $dots:ident, $scale:ident, $constants:expr) => {
        /// out[r] = Σ w[r]·x, rows of `w` one after the other.
        ///
        /// # Panics
        /// When `w` is not `out.len()` rows as long as `x`.
        ///
        /// # Safety
        /// The CPU has the tier.
        #[target_feature(enable = "neon")]
        pub unsafe fn $name(w: &[u8], x: Int8, out: &mut [f32]) {
            const CONSTANTS: Constants = $constants;
            let n = x.runs();
            assert!(w.len() == $stride * n * out.len() && x.codes.len() == 32 * n && x.sums.len() == 4 * n);
            for (i, out) in out.chunks_mut(ROWS).enumerate() {
                // SAFETY: every row of the cursor has `n` blocks (asserted above), and so have the activations.
                unsafe {
                    let mut at = Cursor::new(w.as_ptr().add($stride * n * ROWS * i), $stride * n, out.len(), codes_at($stride), x);
                    if n >= 4 {
                        run!(
                            concat!(
                                $head!(4),
                                block!($weights, $stride, $dots, $scale, "0"),
                                block!($weights, $stride, $dots, $scale, "1"),
                                block!($weights, $stride, $dots, $scale, "2"),
                                block!($weights, $stride, $dots, $scale, "3")
                            ),
                            n / 4, $stride, at, CONSTANTS
                        );
                    }
                    if n % 4 > 0 {
                        run!(concat!($head!(1), block!($weights, $stride, $dots, $scale, "0")), n % 4, $stride, at, CONSTANTS);
                    }
                    at.store(out);
                }
            }
        }
    };
}

const NONE: [u8; 16] = [0; 16];
const LEVELS: [u8; 16] = {
    let mut levels = [0; 16];
    let mut i = 0;
    while i < 16 {
        levels[i] = iq4_nl::LEVELS[i] as u8;
        i += 1;
    }
    levels
};
/// Spreads the bytes 0 and 1, or 2 and 3, over eight bytes each.
const SPREAD: [[u8; 16]; 2] = [[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]];

/// By `smull`, for every ARMv8.
pub mod neon {
    use super::*;

    mat_vec!(mat_vec_q4_0, stride 18, scales_and_sums, nibbles, short_dots, scale_and_offset, Constants { tables: [NONE; 2], offset: -8.0 });
    mat_vec!(mat_vec_q4_1, stride 20, scales_and_sums, nibbles, short_dots, scale_and_minimum, Constants { tables: [NONE; 2], offset: 1.0 });
    mat_vec!(mat_vec_q5_0, stride 22, scales, five_bits, short_dots, scale, Constants { tables: SPREAD, offset: 0.0 });
    mat_vec!(mat_vec_q5_1, stride 24, scales_and_sums, five_bits, short_dots, scale_and_minimum_less_16, Constants { tables: SPREAD, offset: 1.0 });
    mat_vec!(mat_vec_q8_0, stride 34, scales, bytes, byte_dots, scale, Constants { tables: [NONE; 2], offset: 0.0 });
    mat_vec!(mat_vec_iq4_nl, stride 18, scales, levels, byte_dots, scale, Constants { tables: [LEVELS, NONE], offset: 0.0 });
}

/// By `sdot`.
pub mod dotprod {
    use super::*;

    mat_vec!(mat_vec_q4_0, stride 18, scales_and_sums, nibbles, sdots, scale_and_offset, Constants { tables: [NONE; 2], offset: -8.0 });
    mat_vec!(mat_vec_q4_1, stride 20, scales_and_sums, nibbles, sdots, scale_and_minimum, Constants { tables: [NONE; 2], offset: 1.0 });
    mat_vec!(mat_vec_q5_0, stride 22, scales, five_bits, sdots, scale, Constants { tables: SPREAD, offset: 0.0 });
    mat_vec!(mat_vec_q5_1, stride 24, scales_and_sums, five_bits, sdots, scale_and_minimum_less_16, Constants { tables: SPREAD, offset: 1.0 });
    mat_vec!(mat_vec_q8_0, stride 34, scales, bytes, sdots, scale, Constants { tables: [NONE; 2], offset: 0.0 });
    mat_vec!(mat_vec_iq4_nl, stride 18, scales, levels, sdots, scale, Constants { tables: [LEVELS, NONE], offset: 0.0 });
}

/// Where the codes start in a block of 32: at its end, 16 bytes of nibbles or 32 of bytes.
const fn codes_at(stride: usize) -> usize {
    if stride == 34 { 2 } else { stride - 16 }
}

impl Cursor {
    /// At the first blocks of `ROWS` rows of `bytes` bytes each; rows past `rows` repeat the last one.
    ///
    /// # Safety
    /// `w` points to `rows` ≥ 1 such rows.
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn new(w: *const u8, bytes: usize, rows: usize, codes: usize, x: Int8) -> Cursor {
        let last = rows - 1;
        // SAFETY: no row is past the last.
        let heads = unsafe { [w, w.add(bytes * last.min(1)), w.add(bytes * last.min(2)), w.add(bytes * last.min(3))] };
        Cursor {
            codes: [heads[0].wrapping_add(codes), heads[1].wrapping_add(codes), heads[2].wrapping_add(codes), heads[3].wrapping_add(codes)],
            heads,
            q: x.codes.as_ptr(),
            scales: x.scales.as_ptr(),
            sums: x.sums.as_ptr(),
            total: vdupq_n_f32(0.0),
        }
    }

    /// The rows' results, as many as `out` holds.
    #[target_feature(enable = "neon")]
    #[inline]
    fn store(&self, out: &mut [f32]) {
        let mut lanes = [0.0; ROWS];
        // SAFETY: `lanes` is four floats; `out`, in the branch, too.
        unsafe {
            if out.len() == ROWS {
                vst1q_f32(out.as_mut_ptr(), self.total);
            } else {
                vst1q_f32(lanes.as_mut_ptr(), self.total);
                out.copy_from_slice(&lanes[..out.len()]);
            }
        }
    }
}
