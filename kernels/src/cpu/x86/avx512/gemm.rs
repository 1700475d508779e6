//! Products for many tokens: strips of 32 rows become a [`Panel`], which is multiplied by all tokens, six at a time.
//!
//! ```text
//! for each 32 rows: panel = the rows as int8
//!     for each 6 tokens: for each 32 columns g: for each 4 columns: i[r, t] += panel · x        (VPDPBUSD)
//!                            y[r, t] += scale[g, r] · s[g, t] · i[r, t] (+ offset[g, r] · s[g, t] · Σ x)
//! ```
//! 1. Weights are the unsigned operand. Where 128 stands for zero, sums start at −128 · Σ x of their 32 columns instead of at 0, so that
//!    the offset costs nothing.
//! 2. 2 × 6 vectors of integer sums and as many of f32 fill 24 of 32 registers; two hold weights, one a token's four codes.
//! 3. Scaling costs two of ten multiplications (VPDPBUSD, FMA and MUL share the two pipes of a Zen 4): 80 % of the integer peak at best,
//!    73 % with offsets.
//!
//! Activations: [`Form::PanelBy32`], a tile of six tokens after the other: codes `[cols/4, 6, 4]`, then per 32 columns and token, three
//! planes `[cols/32, 6]`: i32 −128 · Σ codes, f32 scale, f32 scale · Σ codes.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use super::chunk::Unpack;
use super::panel::{Panel, ROWS};
use super::quantize;
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use std::arch::x86_64::*;

/// Tokens of a tile.
pub const TILE: usize = 6;

/// The way for many tokens of format `F`.
pub fn route<F: Unpack>() -> Route {
    Route { form: Form::PanelBy32, row_tile: ROWS, scratch: Panel::bytes, run: mat_mul::<F> }
}

/// Bytes of a tile.
const fn tile_bytes(cols: usize) -> usize {
    TILE * (cols + cols / 32 * 12)
}

/// Rows of `cols` numbers to tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn quantize_panel(x: &[f32], cols: usize, out: &mut [u8]) {
    let groups = cols / 32;
    for (x, out) in x.chunks(cols * TILE).zip(out.chunks_exact_mut(tile_bytes(cols))) {
        let (codes, planes) = out.split_at_mut(TILE * cols);
        for t in 0..TILE {
            let row = x.get(t * cols..(t + 1) * cols);
            for g in 0..groups {
                let (scale, bytes, sum) = match row {
                    Some(row) => quantize::run_of_32(&row[32 * g..][..32].try_into().expect("32 numbers")),
                    // A token that is not there: any finite numbers do.
                    None => (0.0, [0; 32], 0),
                };
                for (i, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    codes[((8 * g + i) * TILE + t) * 4..][..4].copy_from_slice(four);
                }
                let mut put = |plane: usize, bytes: [u8; 4]| planes[((plane * groups + g) * TILE + t) * 4..][..4].copy_from_slice(&bytes);
                put(0, (-128 * sum).to_le_bytes());
                put(1, scale.to_le_bytes());
                put(2, (scale * sum as f32).to_le_bytes());
            }
        }
    }
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn mat_mul<F: Unpack>(p: &mut Product) {
    let panel = Panel::new(p.scratch, p.cols);
    for first in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - first);
        // SAFETY: the panel is of `cols` columns; tokens and rows exist.
        unsafe {
            panel.fill::<F>(&p.weights[first * p.row_bytes..][..rows * p.row_bytes], p.row_bytes, p.cols);
            for tile in 0..p.tokens.div_ceil(TILE) {
                let x = p.activations[tile * tile_bytes(p.cols)..][..tile_bytes(p.cols)].as_ptr();
                let rest = p.tokens - tile * TILE;
                let at = (first, tile * TILE);
                match (rest, F::ZERO.is_none() && !F::PER_16) {
                    (TILE.., false) => multiply::<TILE, false>(p, &panel, x, at),
                    (TILE.., true) => multiply::<TILE, true>(p, &panel, x, at),
                    (3.., false) => multiply::<5, false>(p, &panel, x, at),
                    (3.., true) => multiply::<5, true>(p, &panel, x, at),
                    (_, false) => multiply::<2, false>(p, &panel, x, at),
                    (_, true) => multiply::<2, true>(p, &panel, x, at),
                }
            }
        }
    }
}

/// `N` tokens of the tile at `x` by the panel; writes what there are of them, at (row, token).
///
/// # Safety
/// As [`mat_mul`]; the tile and the panel are of `p.cols` columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply<const N: usize, const OFFSETS: bool>(p: &mut Product, panel: &Panel, x: *const u8, at: (usize, usize)) {
    let groups = p.cols / 32;
    // SAFETY (all below): codes of `cols` columns, then planes of `groups` × TILE; the panel alike with ROWS.
    let starts = x.wrapping_add(TILE * p.cols).cast::<i32>();
    let scales = starts.wrapping_add(groups * TILE).cast::<f32>();
    let sums = scales.wrapping_add(groups * TILE);
    let mut y = [[_mm512_setzero_ps(); N]; 2];
    let (mut w, mut codes) = (panel.codes.cast_const(), x.cast::<i32>());
    for g in 0..groups {
        let mut i = [[_mm512_setzero_si512(); N]; 2];
        if !OFFSETS {
            for t in 0..N {
                // SAFETY: within the plane.
                i[0][t] = _mm512_set1_epi32(unsafe { starts.add(g * TILE + t).read_unaligned() });
                i[1][t] = i[0][t];
            }
        }
        for step in 0..8 {
            // SAFETY: within the planes of codes.
            unsafe {
                let (a, b) = (_mm512_load_si512(w.add(128 * step).cast()), _mm512_load_si512(w.add(128 * step + 64).cast()));
                for t in 0..N {
                    let x = _mm512_set1_epi32(codes.add(step * TILE + t).read_unaligned());
                    i[0][t] = _mm512_dpbusd_epi32(i[0][t], a, x);
                    i[1][t] = _mm512_dpbusd_epi32(i[1][t], b, x);
                }
            }
        }
        (w, codes) = (w.wrapping_add(1024), codes.wrapping_add(8 * TILE));
        for half in 0..2 {
            // SAFETY: within the planes.
            unsafe {
                let scale = _mm512_load_ps(panel.scales.add(g * ROWS + 16 * half));
                for t in 0..N {
                    let by = _mm512_mul_ps(scale, _mm512_set1_ps(scales.add(g * TILE + t).read_unaligned()));
                    y[half][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[half][t]), by, y[half][t]);
                }
                if OFFSETS {
                    let offset = _mm512_load_ps(panel.offsets.add(g * ROWS + 16 * half));
                    for t in 0..N {
                        y[half][t] = _mm512_fmadd_ps(offset, _mm512_set1_ps(sums.add(g * TILE + t).read_unaligned()), y[half][t]);
                    }
                }
            }
        }
    }
    let (row, token) = at;
    let rows = ROWS.min(p.rows - row);
    for t in 0..N.min(p.tokens - token) {
        let out = &mut p.out.token(token + t)[row..row + rows];
        for half in 0..2 {
            let there = rows.saturating_sub(16 * half).min(16);
            let mask = ((1u32 << there) - 1) as u16;
            // SAFETY: the mask leaves out what is beyond the slice.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().wrapping_add(16 * half), mask, y[half][t]) };
        }
    }
}
