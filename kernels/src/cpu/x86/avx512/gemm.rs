//! Products for many tokens: strips of 32 rows become a [`panel`], which is multiplied by [`tiles`] of twelve tokens.
//!
//! ```text
//! for each 64 rows: two panels = the rows as int8
//!     for each 48 tokens: for each 256 columns: for each panel: for each tile of 12 tokens:
//!         for each group of columns (32 or 64) g: for each 4 columns: i[r, t] += panel · x        (VPDPBUSD)
//!             y[r, t] += scale[g, r] · s[g, t] · i[r, t] (+ offset[g, r] · s[g, t] · Σ x)
//! ```
//! 1. Activations are the unsigned operand, raised by 128; sums start at what that adds, −128 · Σ codes of the row, instead of at 0.
//! 2. 2 × 12 vectors of sums fill 24 of 32 registers; two hold weights, one a token's four codes. The f32 sums of 48 tokens and 64 rows
//!    stay in the first-level cache.
//! 3. VPDPBUSD, FMA, MUL and conversion share two pipes: of the integer peak 73 % is left with a scale for 32, 67 % with offsets besides,
//!    84 % with a scale for 64.
//! 4. A piece of a panel meets four tiles, and a tile two panels, while they are in the first-level cache: weights come from the second
//!    at a quarter, activations at half the rate. Of many columns these come from the third-level cache, and are prefetched a piece ahead.

use super::chunk::Unpack;
use super::panel::{self, CODES, GROUP, PIECE_BYTES, ROWS};
use super::tiles::{self, PIECE, TILE};
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use std::arch::x86_64::*;
use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};

/// Panels side by side.
const PANELS: usize = 2;
/// Tokens whose sums are kept: four tiles.
const TOKENS: usize = 4 * TILE;

/// The route for many tokens of format `F`.
pub fn route<F: Unpack>() -> Route {
    let form = if panel::per::<F>() == 64 { Form::PanelBy64 } else { Form::PanelBy32 };
    Route { form, row_tile: PANELS * ROWS, scratch, run: mat_mul::<F> }
}

/// f32 sums `[PANELS, TOKENS, ROWS]`.
const SUMS: usize = PANELS * TOKENS * ROWS * 4;

/// Bytes of scratch, with room to align: sums, then panels.
fn scratch(cols: usize) -> usize {
    SUMS + PANELS * panel::bytes(cols) + 64
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn mat_mul<F: Unpack>(p: &mut Product) {
    assert!(p.scratch.len() >= scratch(p.cols));
    let sums = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(64));
    let panels = sums.wrapping_add(SUMS);
    let sums = sums.cast::<f32>();
    let of_panel = |n: usize| panels.wrapping_add(n * panel::bytes(p.cols));
    let tile_bytes = tiles::tile_bytes(p.form, p.cols);
    for first in (0..p.rows).step_by(PANELS * ROWS) {
        let all = (PANELS * ROWS).min(p.rows - first);
        let there = all.div_ceil(ROWS);
        for n in 0..there {
            let rows = &p.weights[(first + n * ROWS) * p.row_bytes..];
            // SAFETY: the scratch holds the panels.
            unsafe { panel::fill::<F>(of_panel(n), rows, p.row_bytes, p.cols) };
        }
        for token in (0..p.tokens).step_by(TOKENS) {
            let tokens = TOKENS.min(p.tokens - token);
            // SAFETY: the sums of two panels; zero is all zeros.
            unsafe { sums.write_bytes(0, PANELS * TOKENS * ROWS) };
            for (piece, start) in (0..p.cols).step_by(PIECE).enumerate() {
                let columns = PIECE.min(p.cols - start);
                for n in 0..there {
                    for t in (0..tokens).step_by(TILE) {
                        let tile = &p.activations[(token + t) / TILE * tile_bytes..][..tile_bytes];
                        let x = &tile[piece * tiles::piece_bytes(PIECE, panel::per::<F>())..];
                        // SAFETY: the pieces are of these columns, and the sums of twelve tokens are there.
                        unsafe {
                            multiply_tile::<F>(
                                of_panel(n).wrapping_add(piece * PIECE_BYTES),
                                x.as_ptr(),
                                columns,
                                tokens - t,
                                sums.wrapping_add((n * TOKENS + t) * ROWS),
                            );
                        }
                    }
                }
            }
            for t in 0..tokens {
                let out = &mut p.out.token(token + t)[first..first + all];
                for (i, out) in out.chunks_mut(16).enumerate() {
                    let there = u16::MAX >> (16 - out.len());
                    // SAFETY: a row of sums is there for each panel; the mask leaves out what is beyond the slice.
                    unsafe {
                        let y = _mm512_load_ps(sums.add((i / 2 * TOKENS + t) * ROWS + i % 2 * 16));
                        _mm512_mask_storeu_ps(out.as_mut_ptr(), there, y);
                    }
                }
            }
        }
    }
}

/// A piece of a panel by one of a tile of which `tokens` are wanted.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply_tile<F: Unpack>(w: *const u8, x: *const u8, columns: usize, tokens: usize, y: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        match (panel::per::<F>(), panel::has_offsets::<F>()) {
            (64, _) => by_tokens::<64, false>(w, x, columns, tokens, y),
            (_, false) => by_tokens::<32, false>(w, x, columns, tokens, y),
            (_, true) => by_tokens::<32, true>(w, x, columns, tokens, y),
        }
    }
}

/// As [`multiply`], for no more tokens than it takes.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn by_tokens<const PER: usize, const OFFSETS: bool>(w: *const u8, x: *const u8, columns: usize, tokens: usize, y: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        match tokens {
            ..=4 => multiply::<4, PER, OFFSETS>(w, x, columns, y),
            5..=8 => multiply::<8, PER, OFFSETS>(w, x, columns, y),
            _ => multiply::<TILE, PER, OFFSETS>(w, x, columns, y),
        }
    }
}

/// `y[t, r] += Σ w[r, i] · x[t, i]` for `N` tokens of a tile and the rows of a panel.
///
/// # Safety
/// Needs AVX-512 F and VNNI; `w` and `x` are pieces of `columns` with a scale for `PER`; `y` is `[TILE, ROWS]` at a multiple of 64 bytes.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply<const N: usize, const PER: usize, const OFFSETS: bool>(w: *const u8, x: *const u8, columns: usize, y: *mut f32) {
    let groups = columns.div_ceil(PER);
    // Unknown to the compiler, which would unroll a short loop and mix its steps until registers run out.
    let steps = black_box(PER / 4);
    let (mut w, mut group) = (w, w.wrapping_add(CODES));
    let mut ahead = x.wrapping_add(tiles::piece_bytes(PIECE, PER));
    let (mut x, mut of_tokens) = (x, x.wrapping_add(groups * PER * TILE).cast::<f32>());
    for _ in 0..groups {
        // The f32 sums stay in memory: held in registers from group to group they would push the integer sums to the stack.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: within the piece of the panel.
        let starts = unsafe { [_mm512_load_si512(group.cast()), _mm512_load_si512(group.add(64).cast())] };
        let mut i = [[starts[0]; N], [starts[1]; N]];
        for _ in 0..steps {
            // SAFETY: within the pieces; a hint takes any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                let (a, b) = (_mm512_load_si512(w.cast()), _mm512_load_si512(w.add(64).cast()));
                #[expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]
                for t in 0..N {
                    let x = _mm512_set1_epi32(x.add(4 * t).cast::<i32>().read_unaligned());
                    i[0][t] = _mm512_dpbusd_epi32(i[0][t], x, a);
                    i[1][t] = _mm512_dpbusd_epi32(i[1][t], x, b);
                }
            }
            (w, x, ahead) = (w.wrapping_add(4 * ROWS), x.wrapping_add(4 * TILE), ahead.wrapping_add(64));
        }
        for (half, i) in i.iter().enumerate() {
            // SAFETY: within the pieces and the sums.
            unsafe {
                let scale = _mm512_load_ps(group.add(ROWS * 4 + 64 * half).cast());
                let offset = _mm512_load_ps(group.add(2 * ROWS * 4 + 64 * half).cast());
                for (t, &i) in i.iter().enumerate() {
                    let y = y.add(t * ROWS + 16 * half);
                    let mut sum = _mm512_load_ps(y);
                    if OFFSETS {
                        sum = _mm512_fmadd_ps(offset, _mm512_set1_ps(of_tokens.add(TILE + t).read_unaligned()), sum);
                    }
                    let by = _mm512_mul_ps(scale, _mm512_set1_ps(of_tokens.add(t).read_unaligned()));
                    _mm512_store_ps(y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(i), by, sum));
                }
            }
        }
        group = group.wrapping_add(GROUP);
        of_tokens = of_tokens.wrapping_add(tiles::group_bytes(PER) / 4);
    }
}
