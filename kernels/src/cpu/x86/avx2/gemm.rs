//! Products for many tokens: strips of 16 rows become a panel of bytes in scratch, which is multiplied by all tokens, three at a time.
//!
//! ```text
//! for each 16 rows: panel = the rows' codes side by side
//!     for each 3 tokens: for each group of columns that share a scale: for each 4 columns: i[r, t] += panel · x     (VPMADDUBSW)
//!                            y[r, t] += scale[r] · s[t] · i[r, t] + offset[r] · s[t] · Σ x
//! ```
//! 1. VPMADDUBSW adds pairs in 16 bits. Codes up to 15 leave room for 32 columns there, up to 31 for 16, up to 63 for 8: only then are
//!    they widened by VPMADDWD. Where codes are signed, their signs go to the activations, and each four columns are widened.
//! 2. 2 × 3 vectors of sums of 16 bits and as many of f32, two of weights and a token's four codes fill 15 of 16 registers.
//!
//! | plane of the panel | shape                        | |
//! |--------------------|------------------------------|-|
//! | codes              | u8 `[cols/4, ROWS, 4]`       | as unpacked |
//! | scales, offsets    | f32 `[cols/group, ROWS]` each | `w = scale · code + offset` |
//!
//! Activations: [`Form::PanelBy32`], a tile of three tokens after the other: codes `[cols/4, 3, 4]`, then planes `[cols/32, 3]` of f32:
//! scale, scale · Σ of the first 16 codes, scale · Σ of the others.

#![expect(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use super::quantize;
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use super::run::{Run, Unpack};
use crate::quant::blocks;
use std::arch::x86_64::*;

/// Rows of a panel: two vectors.
const ROWS: usize = 16;
/// Tokens of a tile.
const TILE: usize = 3;

/// The way for many tokens of a format.
pub fn route<B: Unpack>() -> Route {
    Route { form: Form::PanelBy32, row_tile: ROWS, scratch: bytes, run: mat_mul::<B> }
}

/// Bytes of scratch, with room to align: codes, and two numbers for 16 of them.
fn bytes(cols: usize) -> usize {
    let cols = cols.next_multiple_of(256);
    cols * ROWS + 2 * (cols / 16 * ROWS * 4) + 64
}

/// Bytes of a tile.
const fn tile_bytes(cols: usize) -> usize {
    TILE * (cols + cols / 32 * 12)
}

/// Rows of `cols` numbers to tiles.
#[target_feature(enable = "avx2")]
pub fn quantize_panel(x: &[f32], cols: usize, out: &mut [u8]) {
    let groups = cols / 32;
    for (x, out) in x.chunks(cols * TILE).zip(out.chunks_exact_mut(tile_bytes(cols))) {
        // Tokens that are not there become zeros.
        out.fill(0);
        let (codes, planes) = out.split_at_mut(TILE * cols);
        for (t, row) in x.chunks_exact(cols).enumerate() {
            for (g, x) in row.as_chunks::<32>().0.iter().enumerate() {
                let (scale, inverse) = quantize::best_scale(x);
                let bytes = quantize::to_codes(x, inverse);
                for (i, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
                    codes[((8 * g + i) * TILE + t) * 4..][..4].copy_from_slice(four);
                }
                let sums = [scale, scale * quantize::sum(&bytes[..16]) as f32, scale * quantize::sum(&bytes[16..]) as f32];
                for (plane, sum) in sums.into_iter().enumerate() {
                    planes[((plane * groups + g) * TILE + t) * 4..][..4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
    }
}

/// The planes of a panel.
struct Panel {
    codes: *mut u8,
    scales: *mut f32,
    offsets: *mut f32,
}

/// # Safety
/// Needs AVX2 and FMA; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn mat_mul<B: Unpack>(p: &mut Product) {
    let cols = p.cols.next_multiple_of(256);
    let codes = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(64));
    let scales = codes.wrapping_add(cols * ROWS).cast::<f32>();
    let panel = Panel { codes, scales, offsets: scales.wrapping_add(cols / 16 * ROWS) };
    for first in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - first);
        // SAFETY: the scratch holds the planes; tokens and rows exist.
        unsafe {
            fill::<B>(&panel, &p.weights[first * p.row_bytes..][..rows * p.row_bytes], p.row_bytes);
            for tile in 0..p.tokens.div_ceil(TILE) {
                let x = p.activations[tile * tile_bytes(p.cols)..][..tile_bytes(p.cols)].as_ptr();
                // Steps of four columns that 16 bits have room for.
                const { assert!(B::LARGEST as usize * 127 * 2 <= i16::MAX as usize) };
                match (B::PER_16, B::SIGNED, i16::MAX as usize / (254 * B::LARGEST as usize)) {
                    (true, _, 4..) => multiply::<B, 4, 4>(p, &panel, x, first, tile * TILE),
                    (true, _, _) => multiply::<B, 4, 2>(p, &panel, x, first, tile * TILE),
                    (_, true, _) => multiply::<B, 8, 1>(p, &panel, x, first, tile * TILE),
                    (_, _, 8..) => multiply::<B, 8, 8>(p, &panel, x, first, tile * TILE),
                    _ => multiply::<B, 8, 4>(p, &panel, x, first, tile * TILE),
                }
            }
        }
    }
}

/// Rows to the panel; those that are not there become zeros.
///
/// # Safety
/// The planes are of the rows' columns, rounded up to 256.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fill<B: Unpack>(panel: &Panel, weights: &[u8], row_bytes: usize) {
    let mut unpacked = Run::EMPTY;
    for r in 0..ROWS {
        // A row that is not there is the last one again, and is not written.
        let row = &weights[r.min(weights.len() / row_bytes - 1) * row_bytes..][..row_bytes];
        for (i, blocks) in blocks::<B>(row).chunks(256 / B::WEIGHTS).enumerate() {
            // SAFETY: the features are enabled here.
            unsafe { B::unpack(blocks, &mut unpacked) };
            // SAFETY: by the contract.
            unsafe {
                let to = panel.codes.add((i * 64 * ROWS + r) * 4);
                for (k, four) in unpacked.codes.as_chunks::<4>().0.iter().enumerate() {
                    to.add(k * ROWS * 4).cast::<[u8; 4]>().write(*four);
                }
                let (groups, step) = if B::PER_16 { (16, 1) } else { (8, 2) };
                for g in 0..groups {
                    let at = (i * groups + g) * ROWS + r;
                    *panel.scales.add(at) = unpacked.scales[g * step];
                    *panel.offsets.add(at) = unpacked.offsets[g * step];
                }
            }
        }
    }
}

/// A tile by the panel. A group has `STEPS` of four columns, of which 16 bits hold `ROOM`.
///
/// # Safety
/// As [`mat_mul`]; the tile and the panel are of `p.cols` columns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<B: Unpack, const STEPS: usize, const ROOM: usize>(p: &mut Product, panel: &Panel, x: *const u8, row: usize, token: usize) {
    let groups = p.cols / 32;
    let scales = x.wrapping_add(TILE * p.cols).cast::<f32>();
    let sums = scales.wrapping_add(groups * TILE);
    let ones = _mm256_set1_epi16(1);
    let mut y = [[_mm256_setzero_ps(); TILE]; 2];
    let (mut w, mut codes) = (panel.codes.cast_const(), x.cast::<i32>());
    for g in 0..p.cols / (4 * STEPS) {
        let mut wide = [[_mm256_setzero_si256(); TILE]; 2];
        for _ in 0..STEPS / ROOM {
            let mut i = [[_mm256_setzero_si256(); TILE]; 2];
            for step in 0..ROOM {
                // SAFETY: within the planes of codes.
                unsafe {
                    let rows = [_mm256_load_si256(w.add(64 * step).cast()), _mm256_load_si256(w.add(64 * step + 32).cast())];
                    for t in 0..TILE {
                        let x = _mm256_set1_epi32(codes.add(step * TILE + t).read_unaligned());
                        for (i, w) in i.iter_mut().zip(rows) {
                            let pairs = if B::SIGNED {
                                _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                            } else {
                                _mm256_maddubs_epi16(w, x)
                            };
                            i[t] = if step == 0 { pairs } else { _mm256_add_epi16(i[t], pairs) };
                        }
                    }
                }
            }
            (w, codes) = (w.wrapping_add(64 * ROOM), codes.wrapping_add(ROOM * TILE));
            for (wide, i) in wide.iter_mut().zip(i) {
                for (wide, i) in wide.iter_mut().zip(i) {
                    *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(i, ones));
                }
            }
        }
        for (half, y) in y.iter_mut().enumerate() {
            // SAFETY: within the planes.
            unsafe {
                let scale = _mm256_load_ps(panel.scales.add(g * ROWS + 8 * half));
                let run = g * STEPS / 8;
                for (t, y) in y.iter_mut().enumerate() {
                    let by = _mm256_mul_ps(scale, _mm256_set1_ps(scales.add(run * TILE + t).read_unaligned()));
                    *y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(wide[half][t]), by, *y);
                }
                if !B::SIGNED {
                    let offset = _mm256_load_ps(panel.offsets.add(g * ROWS + 8 * half));
                    for (t, y) in y.iter_mut().enumerate() {
                        let sum = |half: usize| sums.add((half * groups + run) * TILE + t).read_unaligned();
                        let sum = if STEPS == 8 { sum(0) + sum(1) } else { sum(g % 2) };
                        *y = _mm256_fmadd_ps(offset, _mm256_set1_ps(sum), *y);
                    }
                }
            }
        }
    }
    let rows = ROWS.min(p.rows - row);
    for t in 0..TILE.min(p.tokens - token) {
        let mut both = [0.0; ROWS];
        // SAFETY: sixteen numbers.
        unsafe {
            _mm256_storeu_ps(both.as_mut_ptr(), y[0][t]);
            _mm256_storeu_ps(both.as_mut_ptr().add(8), y[1][t]);
        }
        p.out.token(token + t)[row..row + rows].copy_from_slice(&both[..rows]);
    }
}
