//! Strips times tiles by `smull`: four rows by four tokens in sixteen accumulators, four times for a strip and a tile.
//!
//! The simple loop: out[t][r] += Σ over groups of scale[r]·scale[t]·Σ w·x. The tricks:
//! 1. Sixteen columns of a row and a token are three instructions: `smull`, `smlal2` (two products of at most 127² fit 16 bits), and
//!    `sadalp` into 32 bits. The first is bound to one pipe of a Cortex-A72, the last to the other.
//! 2. Four products are in flight, since a multiplication takes five cycles.
//! 3. Sums of floats stay in registers over all groups.

use super::super::panel::product::{Panel, Tile};
use super::super::panel::{ROWS, TOKENS, Whole};
use std::arch::aarch64::*;
use std::arch::asm;

/// The multiplication of this tier.
pub struct Smull;

impl Tile for Smull {
    type Order = Whole;

    #[inline]
    unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]) {
        for t in [0, 4] {
            for r in [0, 4] {
                // SAFETY: the caller's promise; the second quads and scales of the halves stand 64 and 16 bytes on.
                unsafe { add_quarter(groups, half(strip, r), half(tile, t), &mut sums[t..], r) };
            }
        }
    }
}

/// The panel from row (or token) 0 or 4 on.
///
/// # Safety
/// It is a panel of at least one group.
unsafe fn half(panel: Panel, first: usize) -> Panel {
    // SAFETY: the caller's promise.
    unsafe { Panel { codes: panel.codes.add(16 * first), scales: panel.scales.add(first) } }
}

/// Sixteen columns of all four rows with token `$x`: the sums of row `r` in `$a0` to `$a3`, set or added to by `$add`.
#[rustfmt::skip]
macro_rules! token {
    ($x:literal, $add:literal, $a0:literal, $a1:literal, $a2:literal, $a3:literal) => {
        concat!(
            "smull v24.8h, v16.8b, v", $x, ".8b\n",
            "smull v25.8h, v17.8b, v", $x, ".8b\n",
            "smull v26.8h, v18.8b, v", $x, ".8b\n",
            "smull v27.8h, v19.8b, v", $x, ".8b\n",
            "smlal2 v24.8h, v16.16b, v", $x, ".16b\n",
            "smlal2 v25.8h, v17.16b, v", $x, ".16b\n",
            "smlal2 v26.8h, v18.16b, v", $x, ".16b\n",
            "smlal2 v27.8h, v19.16b, v", $x, ".16b\n",
            $add, " v", $a0, ".4s, v24.8h\n",
            $add, " v", $a1, ".4s, v25.8h\n",
            $add, " v", $a2, ".4s, v26.8h\n",
            $add, " v", $a3, ".4s, v27.8h\n"
        )
    };
}
#[rustfmt::skip]
macro_rules! sixteen_columns {
    ($add:literal) => {
        concat!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{w}], {stride:x}\n",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{x}], {stride:x}\n",
            token!("20", $add, "0", "1", "2", "3"),
            token!("21", $add, "4", "5", "6", "7"),
            token!("22", $add, "8", "9", "10", "11"),
            token!("23", $add, "12", "13", "14", "15")
        )
    };
}

/// One token's four rows: sums across the accumulators, times the scales of the rows (v16) and of the token (`$scale`), added to `$total`.
#[rustfmt::skip]
macro_rules! add_token {
    ($a0:literal, $a1:literal, $a2:literal, $a3:literal, $scale:literal, $total:literal) => {
        concat!(
            "addp v", $a0, ".4s, v", $a0, ".4s, v", $a1, ".4s\n",
            "addp v", $a2, ".4s, v", $a2, ".4s, v", $a3, ".4s\n",
            "addp v", $a0, ".4s, v", $a0, ".4s, v", $a2, ".4s\n",
            "fmul v", $a1, ".4s, v16.4s, ", $scale, "\n",
            "scvtf v", $a0, ".4s, v", $a0, ".4s\n",
            "fmla v", $total, ".4s, v", $a0, ".4s, v", $a1, ".4s\n"
        )
    };
}

/// sums[t][row + r] += … for four tokens and rows.
///
/// # Safety
/// As [`Tile::add_product`], of the first halves of the panels; `sums` has four tokens, `row` is 0 or 4.
#[target_feature(enable = "neon")]
#[rustfmt::skip]
unsafe fn add_quarter(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]], row: usize) {
    let zero = vdupq_n_f32(0.0);
    let mut totals = [zero; 4];
    // SAFETY: reads every other quad of `groups` ≥ 1 groups of both panels, and the scales of four rows and tokens of each.
    unsafe {
        asm!(
            "2:",
            sixteen_columns!("saddlp"), sixteen_columns!("sadalp"), sixteen_columns!("sadalp"), sixteen_columns!("sadalp"),
            "ldr q16, [{w_scales}], #32",
            "ldr q17, [{x_scales}], #32",
            add_token!("0", "1", "2", "3", "v17.s[0]", "28"),
            add_token!("4", "5", "6", "7", "v17.s[1]", "29"),
            add_token!("8", "9", "10", "11", "v17.s[2]", "30"),
            add_token!("12", "13", "14", "15", "v17.s[3]", "31"),
            "subs {groups}, {groups}, #1",
            "b.ne 2b",
            groups = inout(reg) groups => _,
            w = inout(reg) strip.codes => _,
            x = inout(reg) tile.codes => _,
            w_scales = inout(reg) strip.scales => _,
            x_scales = inout(reg) tile.scales => _,
            stride = in(reg) 128_usize,
            inout("v28") totals[0], inout("v29") totals[1], inout("v30") totals[2], inout("v31") totals[3],
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _,
            options(readonly, nostack)
        );
        for (sums, total) in sums.iter_mut().zip(totals) {
            let at = sums[row..].as_mut_ptr();
            vst1q_f32(at, vaddq_f32(vld1q_f32(at), total));
        }
    }
}
