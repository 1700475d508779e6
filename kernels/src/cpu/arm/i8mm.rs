//! What `smmla` does better (Cortex-A720, Neoverse V1 and later): two rows by two tokens, eight columns each, in one instruction. Products
//! of many tokens only; for one token half of it would be idle, so [`dotprod`](super::dotprod) stays.
//!
//! The simple loop: out[t][r] += Σ over groups of scale[r]·scale[t]·Σ w·x, by strips and tiles, in sixteen accumulators of two rows by two
//! tokens. The tricks are those of [`dotprod::panel`](super::dotprod::panel): operands in the order of use, and accumulators that are
//! floats when a group ends.

use super::dotprod::panel::START;
use super::panel::product::{self, Panel, Tile};
use super::panel::{Eights, ROWS, TOKENS};
use crate::cpu::Kernels;
use std::arch::asm;

/// The fewest tokens that go by a panel, for all formats. Counted (instructions; no board at hand), up to eight tokens by a panel cost as
/// much as 4.2 one after the other of `Q6_K`, 4.7 of `Q4_K`, 5.2 of `Q4_0` and 7.3 of `Q8_0`.
const MANY: usize = 4;

/// Overrides the products of many tokens.
pub fn fill(k: &mut Kernels) {
    product::fill::<Smmla>(k, MANY);
}

/// The multiplication of this tier.
pub struct Smmla;

impl Tile for Smmla {
    type Order = Eights;

    #[inline]
    unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]) {
        // SAFETY: the caller's promise.
        unsafe { add_product(groups, strip, tile, sums) }
    }
}

/// Two tokens, `$x` and `$y` their columns 0–7 and 8–15, with all four pairs of rows.
#[rustfmt::skip]
macro_rules! two_tokens {
    ($x:literal, $y:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            "smmla v", $a0, ".4s, v", $x, ".16b, v16.16b\n",
            "smmla v", $a1, ".4s, v", $x, ".16b, v18.16b\n",
            "smmla v", $a2, ".4s, v", $x, ".16b, v20.16b\n",
            "smmla v", $a3, ".4s, v", $x, ".16b, v22.16b\n",
            "smmla v", $a0, ".4s, v", $y, ".16b, v17.16b\n",
            "smmla v", $a1, ".4s, v", $y, ".16b, v19.16b\n",
            "smmla v", $a2, ".4s, v", $y, ".16b, v21.16b\n",
            "smmla v", $a3, ".4s, v", $y, ".16b, v23.16b\n"
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
            two_tokens!("24", "25", "0", "1", "2", "3"),
            two_tokens!("26", "27", "4", "5", "6", "7"),
            "ld1 {{v24.16b, v25.16b, v26.16b, v27.16b}}, [{x}], #64\n",
            two_tokens!("24", "25", "8", "9", "10", "11"),
            two_tokens!("26", "27", "12", "13", "14", "15")
        )
    };
}

/// Two tokens' results: accumulators of the four pairs of rows, each [t·r, t·r', t'·r, t'·r'], brought into two vectors of rows for each
/// token, then added to the sums at `$at` and `$next`.
#[rustfmt::skip]
macro_rules! add_tokens {
    ($a0:literal, $a1:literal, $a2:literal, $a3:literal, $scale:literal, $scale_next:literal, $at:literal, $next:literal) => {
        concat!(
            "zip1 v16.2d, v", $a0, ".2d, v", $a1, ".2d\n",
            "zip1 v17.2d, v", $a2, ".2d, v", $a3, ".2d\n",
            "zip2 v18.2d, v", $a0, ".2d, v", $a1, ".2d\n",
            "zip2 v19.2d, v", $a2, ".2d, v", $a3, ".2d\n",
            add_token!("16", "17", $scale, $at),
            add_token!("18", "19", $scale_next, $next)
        )
    };
}

/// Rows 0–3 (`$a`) and 4–7 (`$b`) less the start, times the scales of the rows (v28, v29) and of the token.
#[rustfmt::skip]
macro_rules! add_token {
    ($a:literal, $b:literal, $scale:literal, $at:literal) => {
        concat!(
            "ldp q20, q21, [{sums}, #", $at, "]\n",
            "fsub v", $a, ".4s, v", $a, ".4s, v24.4s\n",
            "fsub v", $b, ".4s, v", $b, ".4s, v24.4s\n",
            "fmul v22.4s, v28.4s, ", $scale, "\n",
            "fmul v23.4s, v29.4s, ", $scale, "\n",
            "fmla v20.4s, v", $a, ".4s, v22.4s\n",
            "fmla v21.4s, v", $b, ".4s, v23.4s\n",
            "stp q20, q21, [{sums}, #", $at, "]\n"
        )
    };
}

/// # Safety
/// As [`Tile::add_product`].
#[rustfmt::skip]
unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]) {
    // SAFETY: reads `groups` ≥ 1 groups of both panels and of their scales, reads and writes the 64 sums, reads `START`.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "2:",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{start}]",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{start}]",
            "ld1 {{v8.16b, v9.16b, v10.16b, v11.16b}}, [{start}]",
            "ld1 {{v12.16b, v13.16b, v14.16b, v15.16b}}, [{start}]",
            sixteen_columns!(), sixteen_columns!(), sixteen_columns!(), sixteen_columns!(),
            "ldr q24, [{start}]",
            "ldp q28, q29, [{w_scales}], #32",
            "ldp q30, q31, [{x_scales}], #32",
            add_tokens!("0", "1", "2", "3", "v30.s[0]", "v30.s[1]", "0", "32"),
            add_tokens!("4", "5", "6", "7", "v30.s[2]", "v30.s[3]", "64", "96"),
            add_tokens!("8", "9", "10", "11", "v31.s[0]", "v31.s[1]", "128", "160"),
            add_tokens!("12", "13", "14", "15", "v31.s[2]", "v31.s[3]", "192", "224"),
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
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nostack)
        );
    }
}
