//! Products for many tokens: strips of 16 rows become panels of bytes in scratch, which are multiplied by all tokens, three at a time.
//!
//! ```text
//! for each 64 rows: four panels = the rows' codes side by side
//!     for each 48 tokens: for each 256 columns: for each panel: for each 3 tokens:
//!         for each group of columns that share a scale: for each 4 columns: i[r, t] += panel · x     (VPMADDUBSW)
//!             y[r, t] += scale[r] · s[t] · i[r, t] + offset[r] · s[t] · Σ x
//! ```
//! 1. VPMADDUBSW adds pairs in 16 bits. Codes up to 15 leave room for 32 columns there, up to 31 for 16, up to 63 for 8: only then are
//!    they widened by VPMADDWD. Where codes are signed, their signs go to the activations, and each four columns are widened.
//! 2. 2 × 3 vectors of sums of 16 bits and as many of 32, two of weights, a token's four codes and their product fill 16 registers.
//!
//! 3. A piece of 256 columns of a panel meets 48 tokens, and one of a tile four panels, while they are in the first-level cache; the sums
//!    of 48 tokens and 64 rows stay there too. Of many columns the activations come from the third level, at a quarter of the rate.
//!
//! | plane of a panel's piece | shape                      | |
//! |--------------------------|----------------------------|-|
//! | codes                    | u8 `[64, ROWS, 4]`         | as unpacked |
//! | scales, offsets          | f32 `[16, ROWS]` each      | `w = scale · code + offset`, of 16 columns, or in the first half of 32 |
//!
//! Activations: [`Form::PanelBy32`], a tile of three tokens after the other, in pieces of up to 256 columns: codes `[c/4, 3, 4]`, then
//! planes `[c/32, 3]` of f32: scale, scale · Σ codes, scale · Σ of the second 16.

use super::quantize;
use super::run::{Run, Unpack};
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use crate::quant::blocks;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};

/// Rows of a panel: two vectors.
const ROWS: usize = 16;
/// Tokens of a tile.
const TILE: usize = 3;
/// Panels side by side.
const PANELS: usize = 4;
/// Tokens whose sums are kept.
const TOKENS: usize = 16 * TILE;
/// Columns of a piece.
const PIECE: usize = 256;
/// Bytes of a panel's piece: codes, and two numbers for 16 of them.
const PIECE_BYTES: usize = PIECE * ROWS + 2 * (PIECE / 16 * ROWS * 4);
/// f32 sums `[PANELS, TOKENS, ROWS]`.
const SUMS: usize = PANELS * TOKENS * ROWS * 4;

/// The way for many tokens of a format.
pub fn route<B: Unpack>() -> Route {
    Route { form: Form::PanelBy32, row_tile: PANELS * ROWS, scratch, run: mat_mul::<B> }
}

/// Bytes of a panel.
const fn panel_bytes(cols: usize) -> usize {
    cols.div_ceil(PIECE) * PIECE_BYTES
}

/// Bytes of scratch, with room to align: sums, then panels.
fn scratch(cols: usize) -> usize {
    SUMS + PANELS * panel_bytes(cols) + 64
}

/// Bytes of a tile.
const fn tile_bytes(cols: usize) -> usize {
    TILE * (cols + cols / 32 * 12)
}

/// Rows of `cols` numbers to tiles.
#[target_feature(enable = "avx2,fma")]
pub fn quantize_panel(x: &[f32], cols: usize, out: &mut [u8]) {
    for (x, mut out) in x.chunks(cols * TILE).zip(out.chunks_exact_mut(tile_bytes(cols))) {
        // Tokens that are not there become zeros.
        out.fill(0);
        for start in (0..cols).step_by(PIECE) {
            let columns = PIECE.min(cols - start);
            let piece;
            (piece, out) = out.split_at_mut(tile_bytes(columns));
            let (codes, planes) = piece.split_at_mut(TILE * columns);
            for (t, row) in x.chunks_exact(cols).enumerate() {
                let runs = row[start..start + columns].as_chunks::<32>().0;
                let of_runs = quantize::best_scales(runs);
                for (g, x) in runs.iter().enumerate() {
                    let [scale, inverse] = of_runs[g];
                    let bytes = quantize::to_codes(x, inverse);
                    for (i, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                        codes[((8 * g + i) * TILE + t) * 4..][..4].copy_from_slice(four);
                    }
                    let second = quantize::sum(&bytes[16..]);
                    let sums = [scale, scale * (quantize::sum(&bytes[..16]) + second) as f32, scale * second as f32];
                    for (plane, sum) in sums.into_iter().enumerate() {
                        planes[((plane * columns / 32 + g) * TILE + t) * 4..][..4].copy_from_slice(&sum.to_le_bytes());
                    }
                }
            }
        }
    }
}

/// # Safety
/// Needs AVX2 and FMA; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn mat_mul<B: Unpack>(p: &mut Product) {
    assert!(p.scratch.len() >= scratch(p.cols));
    let sums = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(64));
    let panels = sums.wrapping_add(SUMS);
    let sums = sums.cast::<f32>();
    let of_panel = |n: usize| panels.wrapping_add(n * panel_bytes(p.cols));
    for first in (0..p.rows).step_by(PANELS * ROWS) {
        let all = (PANELS * ROWS).min(p.rows - first);
        let there = all.div_ceil(ROWS);
        for n in 0..there {
            let rows = first + n * ROWS..first + all.min((n + 1) * ROWS);
            // SAFETY: the scratch holds the panels, and the rows exist.
            unsafe { fill::<B>(of_panel(n), &p.weights[rows.start * p.row_bytes..rows.end * p.row_bytes], p.row_bytes) };
        }
        for token in (0..p.tokens).step_by(TOKENS) {
            let tokens = TOKENS.min(p.tokens - token);
            // SAFETY: the sums of the panels; zero is all zeros.
            unsafe { sums.write_bytes(0, PANELS * TOKENS * ROWS) };
            for (piece, start) in (0..p.cols).step_by(PIECE).enumerate() {
                let columns = PIECE.min(p.cols - start);
                for n in 0..there {
                    let w = of_panel(n).wrapping_add(piece * PIECE_BYTES);
                    for t in (0..tokens).step_by(TILE) {
                        let tile = &p.activations[(token + t) / TILE * tile_bytes(p.cols)..][..tile_bytes(p.cols)];
                        let x = tile[piece * tile_bytes(PIECE)..][..tile_bytes(columns)].as_ptr();
                        let y = sums.wrapping_add((n * TOKENS + t) * ROWS);
                        // Steps of four columns that 16 bits have room for.
                        const { assert!(B::LARGEST as usize * 127 * 2 <= i16::MAX as usize) };
                        // SAFETY: the pieces are of these columns, and the sums of three tokens are there.
                        unsafe {
                            match (B::PER_16, B::SIGNED, i16::MAX as usize / (254 * B::LARGEST as usize)) {
                                (true, _, 4..) => multiply::<B, 4, 4>(w, x, columns, y),
                                (true, _, _) => multiply::<B, 4, 2>(w, x, columns, y),
                                (_, true, _) => multiply::<B, 8, 1>(w, x, columns, y),
                                (_, _, 8..) => multiply::<B, 8, 8>(w, x, columns, y),
                                _ => multiply::<B, 8, 4>(w, x, columns, y),
                            }
                        }
                    }
                }
            }
            for t in 0..tokens {
                let out = &mut p.out.token(token + t)[first..first + all];
                for (n, out) in out.chunks_mut(ROWS).enumerate() {
                    // SAFETY: a row of sums is there; nothing writes to them now.
                    out.copy_from_slice(unsafe { std::slice::from_raw_parts(sums.add((n * TOKENS + t) * ROWS), out.len()) });
                }
            }
        }
    }
}

/// Rows to the panel at `panel`; in place of those that are not there stands the last.
///
/// # Safety
/// The panel is of the rows' columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fill<B: Unpack>(panel: *mut u8, weights: &[u8], row_bytes: usize) {
    let mut unpacked = Run::EMPTY;
    for r in 0..ROWS {
        let row = &weights[r.min(weights.len() / row_bytes - 1) * row_bytes..][..row_bytes];
        for (i, blocks) in blocks::<B>(row).chunks(256 / B::WEIGHTS).enumerate() {
            // SAFETY: the features are enabled here.
            unsafe { B::unpack(blocks, &mut unpacked) };
            // SAFETY: by the contract.
            unsafe {
                let piece = panel.add(i * PIECE_BYTES);
                let to = piece.add(r * 4);
                for (k, four) in unpacked.codes.as_chunks::<4>().0.iter().enumerate() {
                    to.add(k * ROWS * 4).cast::<[u8; 4]>().write(*four);
                }
                let (groups, step) = if B::PER_16 { (16, 1) } else { (8, 2) };
                let scales = piece.add(PIECE * ROWS).cast::<f32>();
                for g in 0..groups {
                    scales.add(g * ROWS + r).write(unpacked.scales[g * step]);
                    scales.add((16 + g) * ROWS + r).write(unpacked.offsets[g * step]);
                }
            }
        }
    }
}

/// `y[t, r] += Σ w[r, i] · x[t, i]` for a piece of a tile and of a panel. A group has `STEPS` of four columns, of which 16 bits hold `ROOM`.
///
/// # Safety
/// Needs AVX2 and FMA; `w` and `x` are pieces of `columns`; `y` is `[TILE, ROWS]` at a multiple of 32 bytes.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<B: Unpack, const STEPS: usize, const ROOM: usize>(w: *const u8, x: *const u8, columns: usize, y: *mut f32) {
    let runs = columns / 32;
    let row_scales = w.wrapping_add(PIECE * ROWS).cast::<f32>();
    let row_offsets = row_scales.wrapping_add(16 * ROWS);
    let scales = x.wrapping_add(TILE * columns).cast::<f32>();
    let (sums, second_sums) = (scales.wrapping_add(runs * TILE), scales.wrapping_add(2 * runs * TILE));
    let ones = _mm256_set1_epi16(1);
    let (mut w, mut codes) = (w, x.cast::<i32>());
    // Unknown to the compiler, which would unroll the loops and mix their steps until registers run out.
    let parts = if STEPS == ROOM { 1 } else { black_box(STEPS / ROOM) };
    let room = if ROOM > 2 { black_box(ROOM) } else { ROOM };
    for g in 0..columns / (4 * STEPS) {
        // The f32 sums stay in memory: there are no registers left for them.
        compiler_fence(Ordering::SeqCst);
        let mut wide = [[_mm256_setzero_si256(); TILE]; 2];
        for _ in 0..parts {
            let mut i = [[_mm256_setzero_si256(); TILE]; 2];
            for _ in 0..room {
                // SAFETY: within the planes of codes.
                unsafe {
                    let rows = [_mm256_load_si256(w.cast()), _mm256_load_si256(w.add(32).cast())];
                    for t in 0..TILE {
                        let x = _mm256_set1_epi32(codes.add(t).read_unaligned());
                        for (i, w) in i.iter_mut().zip(rows) {
                            let pairs = if B::SIGNED {
                                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                            } else {
                                _mm256_maddubs_epi16(w, x)
                            };
                            i[t] = _mm256_add_epi16(i[t], pairs);
                        }
                    }
                }
                (w, codes) = (w.wrapping_add(64), codes.wrapping_add(TILE));
            }
            for (wide, i) in wide.iter_mut().zip(i) {
                for (wide, i) in wide.iter_mut().zip(i) {
                    *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(i, ones));
                }
            }
        }
        let run = g * STEPS / 8;
        for (half, wide) in wide.iter().enumerate() {
            // SAFETY: within the planes and the sums.
            unsafe {
                let scale = _mm256_load_ps(row_scales.add(g * ROWS + 8 * half));
                let offset = _mm256_load_ps(row_offsets.add(g * ROWS + 8 * half));
                for (t, &wide) in wide.iter().enumerate() {
                    let y = y.add(t * ROWS + 8 * half);
                    let of_token = |plane: *const f32| _mm256_set1_ps(plane.add(run * TILE + t).read_unaligned());
                    let by = _mm256_mul_ps(scale, of_token(scales));
                    let mut sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(wide), by, _mm256_load_ps(y));
                    if !B::SIGNED {
                        let x = match (STEPS, g % 2) {
                            (8, _) => of_token(sums),
                            (_, 0) => _mm256_sub_ps(of_token(sums), of_token(second_sums)),
                            _ => of_token(second_sums),
                        };
                        sum = _mm256_fmadd_ps(offset, x, sum);
                    }
                    _mm256_store_ps(y, sum);
                }
            }
        }
    }
}
