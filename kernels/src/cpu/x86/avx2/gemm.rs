//! Products for many tokens: strips of 16 rows become a [`panel`], which is multiplied by [`tiles`] of three tokens.
//!
//! ```text
//! for each 64 rows: four panels = the rows' codes side by side
//!     for each 48 tokens: for each 256 columns: for each panel: for each 3 tokens:
//!         for each 32 columns: for each group of them that has a factor: for each 4 columns: i[r, t] += panel · x     (VPMADDUBSW)
//!             sum[r, t] += s[t] · factor[r] · i[r, t]
//!         y[r, t] += unit[r] · sum[r, t] + offset[r] · s[t] · Σ x of each group
//! ```
//! 1. VPMADDUBSW adds pairs in 16 bits. Codes up to 15 leave room for 32 columns there, up to 31 for 16, up to 63 for 8: only then are
//!    they widened by VPMADDWD, which multiplies by whole factors as it does. Where codes are signed, the activations take their signs.
//! 2. Of 256 codes up to 15, 8 by 1, 64 VPMADDUBSW and 56 additions take three ports 40 cycles, the rest 11: a conversion and two
//!    multiplications with addition each 32 columns. 2 × 3 vectors of sums of 16 bits and as many of 32, two of weights, a token's four
//!    codes and their product fill 16 registers, so f32 sums are in memory.
//! 3. A piece of 256 columns of a panel meets 48 tokens, and one of a tile four panels, while they are in the first-level cache; the sums
//!    of 48 tokens and 64 rows stay there too. Of many columns the activations come from the third level, at a quarter of the rate.

use super::panel::{self, FACTORS, OFFSETS, PIECE_BYTES, ROWS, UNITS};
use super::run::Unpack;
use super::tiles::{self, PIECE, TILE};
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};

/// Panels side by side.
const PANELS: usize = 4;
/// Tokens whose sums are kept.
const TOKENS: usize = 16 * TILE;
/// f32 sums `[PANELS, TOKENS, ROWS]`.
const SUMS: usize = PANELS * TOKENS * ROWS * 4;

/// The route for many tokens of a format.
pub fn route<B: Unpack>() -> Route {
    Route { form: Form::PanelBy32, row_tile: PANELS * ROWS, scratch, run: mat_mul::<B> }
}

/// Bytes of scratch, with room to align: sums, then panels.
fn scratch(cols: usize) -> usize {
    SUMS + PANELS * panel::bytes(cols) + 64
}

/// # Safety
/// Needs AVX2, FMA and F16C; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn mat_mul<B: Unpack>(p: &mut Product) {
    assert!(p.scratch.len() >= scratch(p.cols));
    let sums = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(64));
    let panels = sums.wrapping_add(SUMS);
    let sums = sums.cast::<f32>();
    let of_panel = |n: usize| panels.wrapping_add(n * panel::bytes(p.cols));
    for first in (0..p.rows).step_by(PANELS * ROWS) {
        let all = (PANELS * ROWS).min(p.rows - first);
        let there = all.div_ceil(ROWS);
        for n in 0..there {
            let rows = &p.weights[(first + n * ROWS) * p.row_bytes..];
            // SAFETY: the scratch holds the panels.
            unsafe { panel::fill::<B>(of_panel(n), rows, p.row_bytes) };
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
                        let x = p.activations[tiles::at(p.cols, token + t, start)..].as_ptr();
                        // Each panel prefetches its part of the next piece, which may be in the third-level cache.
                        let next = x.wrapping_add(tiles::GROUP / TILE * tiles::bytes(PIECE));
                        for line in (n..tiles::bytes(PIECE).div_ceil(64)).step_by(there) {
                            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64 * line).cast());
                        }
                        let y = sums.wrapping_add((n * TOKENS + t) * ROWS);
                        // SAFETY: the pieces are of these columns, and the sums of three tokens are there.
                        unsafe { multiply::<B>(w, x, columns, y) };
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

/// Steps of four columns that 16 bits have room for and that share a factor, of the eight of 32 columns.
const fn room<B: Unpack>() -> usize {
    let (room, shared) = (i16::MAX as usize / (127 * 2 * B::LARGEST as usize), if B::PER_16 { 4 } else { 8 });
    let room = if room < shared { room } else { shared };
    assert!(room > 0 && 8 % room == 0 && B::WHOLE | !B::PER_16);
    room
}

/// Vectors `[ROWS, TILE]`.
type Sums<V> = [[V; TILE]; ROWS / 8];

/// `y[t, r] += Σ w[r, i] · x[t, i]` for a piece of a tile and of a panel.
///
/// # Safety
/// Needs AVX2 and FMA; `w` and `x` are pieces of `columns`; `y` is `[TILE, ROWS]` at a multiple of 32 bytes.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<B: Unpack>(w: *const u8, x: *const u8, columns: usize, y: *mut f32) {
    let runs = columns / 32;
    let factors = w.wrapping_add(FACTORS);
    let scales = x.wrapping_add(TILE * columns).cast::<f32>();
    let mut codes = x.cast::<i32>();
    // Behind a pointer that the compiler does not see through: it would keep them in registers and put others in memory for them.
    let mut sums: Sums<__m256> = [[_mm256_setzero_ps(); TILE]; 2];
    let sums_at = black_box(&raw mut sums).cast::<__m256>();
    let parts = 8 / const { room::<B>() };
    // Unknown to the compiler, which would mix the parts until registers run out.
    let parts = if parts > 2 { black_box(parts) } else { parts };
    let mut four = w;
    for run in 0..runs {
        let mut wide: Sums<__m256i> = [[_mm256_setzero_si256(); TILE]; 2];
        for part in 0..parts {
            let mut i: Sums<__m256i> = [[_mm256_setzero_si256(); TILE]; 2];
            for step in 0..const { room::<B>() } {
                // Steps stay in order, else the compiler loads ahead until registers run out.
                compiler_fence(Ordering::SeqCst);
                // SAFETY: within the planes of codes.
                let rows = unsafe { [_mm256_load_si256(four.cast()), _mm256_load_si256(four.add(32).cast())] };
                for t in 0..TILE {
                    // SAFETY: as above.
                    let x = _mm256_set1_epi32(unsafe { codes.add(t).read_unaligned() });
                    for (i, w) in i.iter_mut().zip(rows) {
                        let pairs = if B::SIGNED {
                            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                        } else {
                            _mm256_maddubs_epi16(w, x)
                        };
                        i[t] = in_order(if step == 0 { pairs } else { _mm256_add_epi16(i[t], pairs) });
                    }
                }
                (four, codes) = (four.wrapping_add(4 * ROWS), codes.wrapping_add(TILE));
            }
            let group = if B::PER_16 { 2 * run + part * const { room::<B>() } / 4 } else { run };
            for (half, (wide, i)) in wide.iter_mut().zip(i).enumerate() {
                let by = if B::WHOLE {
                    // SAFETY: within the plane of factors.
                    unsafe { _mm256_load_si256(factors.add((group * ROWS + 8 * half) * 4).cast()) }
                } else {
                    _mm256_set1_epi16(1)
                };
                for (wide, i) in wide.iter_mut().zip(i) {
                    *wide = in_order(_mm256_add_epi32(*wide, _mm256_madd_epi16(i, by)));
                }
            }
        }
        for (half, wide) in wide.iter().enumerate() {
            for (t, wide) in wide.iter().enumerate() {
                // SAFETY: within the planes and the sums.
                unsafe {
                    let mut scale = _mm256_set1_ps(scales.add(run * TILE + t).read_unaligned());
                    if !B::WHOLE {
                        scale = _mm256_mul_ps(scale, _mm256_load_ps(factors.cast::<f32>().add(run * ROWS + 8 * half)));
                    }
                    let sum = sums_at.add(half * TILE + t);
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*wide), scale, *sum);
                }
            }
        }
    }
    // SAFETY: within the planes; the sums of three tokens are there.
    unsafe {
        let units = w.add(UNITS).cast::<f32>();
        for half in 0..2 {
            for t in 0..TILE {
                let sum = sums_at.add(half * TILE + t);
                *sum = _mm256_fmadd_ps(*sum, _mm256_load_ps(units.add(8 * half)), _mm256_load_ps(y.add(t * ROWS + 8 * half)));
            }
        }
        if !B::SIGNED {
            add_offsets::<B>(w.add(OFFSETS).cast(), scales.add(TILE * runs), runs, &mut *sums_at.cast());
        }
        for half in 0..2 {
            for t in 0..TILE {
                _mm256_store_ps(y.add(t * ROWS + 8 * half), *sums_at.add(half * TILE + t));
            }
        }
    }
}

/// The same, after all that came before: of a chain of additions the compiler makes a tree, and does several at once, until registers run
/// out.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(mut x: __m256i) -> __m256i {
    // SAFETY: no instruction at all; not `pure`, so that it keeps its place among the others.
    unsafe { asm!("/* {0} */", inout(ymm_reg) x, options(nomem, nostack, preserves_flags)) };
    x
}

/// `sums[r, t] += Σ offset[r] · x[t]`, `x` a group's sums: of 32 columns, in a plane after that of the second 16.
///
/// # Safety
/// The planes are of so many runs of 32 columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_offsets<B: Unpack>(offsets: *const f32, of_runs: *const f32, runs: usize, sums: &mut Sums<__m256>) {
    let mut all = *sums;
    for run in 0..runs {
        for group in 0..if B::PER_16 { 2 } else { 1 } {
            // SAFETY: within the planes.
            unsafe {
                let of_rows = offsets.add(if B::PER_16 { 2 * run + group } else { run } * ROWS);
                for t in 0..TILE {
                    let of_token = |plane: usize| _mm256_set1_ps(of_runs.add((plane * runs + run) * TILE + t).read_unaligned());
                    let x = match (B::PER_16, group) {
                        (false, _) => of_token(0),
                        (_, 0) => _mm256_sub_ps(of_token(0), of_token(1)),
                        _ => of_token(1),
                    };
                    for (half, all) in all.iter_mut().enumerate() {
                        all[t] = _mm256_fmadd_ps(_mm256_load_ps(of_rows.add(8 * half)), x, all[t]);
                    }
                }
            }
        }
    }
    *sums = all;
}
