//! Strips times tiles with `sdot` by element: eight rows by eight tokens in sixteen accumulators.
//!
//! The simple loop: out[t][r] += Σ over groups of scale[r]·scale[t]·Σ w·x. The tricks:
//! 1. Four rows' columns are one operand and a token's four columns an element of the other: each `sdot` adds to four rows of one token, so
//!    no sum across a vector is ever needed.
//! 2. Operands lie in the order they are used: 64 `sdot`s for four loads.
//! 3. The accumulators start at 1.5·2²³ as float bits, so that after a group's 64 columns (|Σ| ≤ 64·127², below 2²²) they *are* the float
//!    1.5·2²³ + Σ: one subtraction on either vector pipe instead of a conversion, which only one pipe has, at half the rate.

use super::super::panel::product::{Panel, Tile};
use super::super::panel::{Fours, ROWS, TOKENS};
use std::arch::asm;

/// 1.5·2²³ as the bits of a float, four accumulators' worth.
pub static START: [u32; 16] = [0x4B40_0000; 16];

/// Four rows, four columns, four tokens; `$w` holds the rows, `$x` the tokens.
#[rustfmt::skip]
macro_rules! four {
    ($w:literal, $x:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            "sdot v", $a0, ".4s, v", $w, ".16b, v", $x, ".4b[0]\n",
            "sdot v", $a1, ".4s, v", $w, ".16b, v", $x, ".4b[1]\n",
            "sdot v", $a2, ".4s, v", $w, ".16b, v", $x, ".4b[2]\n",
            "sdot v", $a3, ".4s, v", $w, ".16b, v", $x, ".4b[3]\n"
        )
    };
}

/// Sixteen columns: v16–19 hold rows 0–3, v20–23 rows 4–7, v24–27 first tokens 0–3, then 4–7.
#[rustfmt::skip]
macro_rules! sixteen_columns {
    () => {
        concat!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{w}], #64\n",
            "ld1 {{v24.16b, v25.16b, v26.16b, v27.16b}}, [{x}], #64\n",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{w}], #64\n",
            four!("16", "24", "0", "1", "2", "3"), four!("20", "24", "8", "9", "10", "11"),
            four!("17", "25", "0", "1", "2", "3"), four!("21", "25", "8", "9", "10", "11"),
            four!("18", "26", "0", "1", "2", "3"), four!("22", "26", "8", "9", "10", "11"),
            four!("19", "27", "0", "1", "2", "3"), four!("23", "27", "8", "9", "10", "11"),
            "ld1 {{v24.16b, v25.16b, v26.16b, v27.16b}}, [{x}], #64\n",
            four!("16", "24", "4", "5", "6", "7"), four!("20", "24", "12", "13", "14", "15"),
            four!("17", "25", "4", "5", "6", "7"), four!("21", "25", "12", "13", "14", "15"),
            four!("18", "26", "4", "5", "6", "7"), four!("22", "26", "12", "13", "14", "15"),
            four!("19", "27", "4", "5", "6", "7"), four!("23", "27", "12", "13", "14", "15")
        )
    };
}

/// One token's results: accumulators `$a` (rows 0–3) and `$b` (rows 4–7) less the start, times the scales of the rows (v28, v29) and of
/// the token (`$scale`), added to the sums at `$at`.
#[rustfmt::skip]
macro_rules! add_token {
    ($a:literal, $b:literal, $scale:literal, $at:literal) => {
        concat!(
            "fsub v", $a, ".4s, v", $a, ".4s, v22.4s\n",
            "fsub v", $b, ".4s, v", $b, ".4s, v22.4s\n",
            "ldp q24, q25, [{sums}, #", $at, "]\n",
            "fmul v26.4s, v28.4s, ", $scale, "\n",
            "fmul v27.4s, v29.4s, ", $scale, "\n",
            "fmla v24.4s, v", $a, ".4s, v26.4s\n",
            "fmla v25.4s, v", $b, ".4s, v27.4s\n",
            "stp q24, q25, [{sums}, #", $at, "]\n"
        )
    };
}

/// The multiplication of this tier.
pub struct Sdot;

impl Tile for Sdot {
    type Order = Fours;

    #[inline]
    unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]) {
        // SAFETY: the caller's promise.
        unsafe { add_product(groups, strip, tile, sums) }
    }
}

/// # Safety
/// As [`Tile::add_product`].
#[target_feature(enable = "neon")]
#[rustfmt::skip]
unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]) {
    // SAFETY: reads `groups` ≥ 1 groups of both panels and of their scales, reads and writes the 64 sums, reads `START`.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "2:",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{start}]",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{start}]",
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{start}]",
            "ld1 {{v12.16b, v13.16b, v14.16b, v15.16b}}, [{start}]",
            sixteen_columns!(), sixteen_columns!(), sixteen_columns!(), sixteen_columns!(),
            "ldr q22, [{start}]",
            "ldp q28, q29, [{w_scales}], #32",
            "ldp q20, q21, [{x_scales}], #32",
            add_token!("0", "8", "v20.s[0]", "0"),
            add_token!("1", "9", "v20.s[1]", "32"),
            add_token!("2", "10", "v20.s[2]", "64"),
            add_token!("3", "11", "v20.s[3]", "96"),
            add_token!("4", "12", "v21.s[0]", "128"),
            add_token!("5", "13", "v21.s[1]", "160"),
            add_token!("6", "14", "v21.s[2]", "192"),
            add_token!("7", "15", "v21.s[3]", "224"),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            groups = inout(reg) groups => _,
            w = inout(reg) strip.codes => _,
            x = inout(reg) tile.codes => _,
            w_scales = inout(reg) strip.scales => _,
            x_scales = inout(reg) tile.scales => _,
            sums = in(reg) sums.as_mut_ptr(),
            start = in(reg) START.as_ptr(),
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _,
            options(nostack)
        );
    }
}
