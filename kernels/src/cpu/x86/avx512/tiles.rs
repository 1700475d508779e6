//! Activations for many tokens: tiles of twelve, in pieces of 256 columns, which [`gemm`](super::gemm) multiplies with a
//! [`panel`](super::panel)'s pieces.
//!
//! A piece of `c` columns (256, or what is left at the end):
//!
//! | plane  | shape             | meaning                                                             |
//! |--------|-------------------|---------------------------------------------------------------------|
//! | codes  | u8 `[c/4, 12, 4]` | code + 128: VPDPBUSD takes one operand unsigned                     |
//! | groups | f32 `[c/per, 12]` | scales; [`Form::PanelBy32`] has after each twelve twelve `scale · Σ codes` |
//!
//! Tokens that are not there, and columns that fill up a last run of 64, are zeros.

use super::quantize::{self, RUNS};
use crate::cpu::form::{self, Form, Tiles};
use std::arch::x86_64::*;
use std::ops::Range;

/// Tokens of a tile.
pub const TILE: usize = 12;
/// Columns of a piece.
pub const PIECE: usize = form::PIECE;

/// Bytes of a group's numbers.
pub const fn group_bytes(per: usize) -> usize {
    if per == 32 { 2 * TILE * 4 } else { TILE * 4 }
}

/// Bytes of a piece of `columns`.
pub const fn piece_bytes(columns: usize, per: usize) -> usize {
    columns.div_ceil(per) * (per * TILE + group_bytes(per))
}

/// From a tile to the next.
pub const fn tile_bytes(form: Form, cols: usize) -> usize {
    form.bytes(cols, form.group()) / (form.group() / TILE)
}

pub const TILES: Tiles = Tiles { tokens: TILE, written: TILE, part };

/// As [`form::Part`].
fn part(form: Form, cols: usize, columns: Range<usize>, n: usize) -> [Range<usize>; 4] {
    let per = if form == Form::PanelBy32 { 32 } else { 64 };
    let (piece, start) = (columns.start / PIECE, columns.start % PIECE);
    let end = start + columns.len();
    let first = n * tile_bytes(form, cols) + piece * piece_bytes(PIECE, per);
    let groups = first + PIECE.min(cols - piece * PIECE).next_multiple_of(per) * TILE;
    let codes = first + start * TILE..first + end.next_multiple_of(per) * TILE;
    let of_groups = groups + start / per * group_bytes(per)..groups + end.div_ceil(per) * group_bytes(per);
    [codes, of_groups, 0..0, 0..0]
}

/// Rows of `cols` numbers to tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn quantize(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    for (x, out) in x.chunks(cols * TILE).zip(out.chunks_exact_mut(tile_bytes(form, cols))) {
        match form {
            Form::PanelBy32 => tile::<32>(x, cols, out),
            _ => tile::<64>(x, cols, out),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn tile<const PER: usize>(x: &[f32], cols: usize, mut out: &mut [u8]) {
    let tokens = x.len() / cols;
    for start in (0..cols).step_by(PIECE) {
        let columns = PIECE.min(cols - start);
        let piece;
        (piece, out) = out.split_at_mut(piece_bytes(columns, PER));
        if tokens < TILE {
            piece.fill(0);
        }
        let (codes, groups) = piece.split_at_mut(columns.next_multiple_of(PER) * TILE);
        let of_groups = scales::<PER>(&x[start..], cols, columns, tokens);
        for t in 0..tokens {
            let row = &x[t * cols + start..][..columns];
            for (g, run) in row.chunks(PER).enumerate() {
                let [scale, inverse] = of_groups[t][g];
                let sum = to_codes(run, inverse, &mut codes[g * PER * TILE..][..PER * TILE], t);
                let group = &mut groups[g * group_bytes(PER)..][..group_bytes(PER)];
                group[4 * t..][..4].copy_from_slice(&scale.to_le_bytes());
                if PER == 32 {
                    group[4 * (TILE + t)..][..4].copy_from_slice(&(scale * sum as f32).to_le_bytes());
                }
            }
        }
    }
}

/// Scale and inverse of each group of up to [`PIECE`] columns of up to twelve rows, `cols` apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn scales<const PER: usize>(x: &[f32], cols: usize, columns: usize, rows: usize) -> [[[f32; 2]; PIECE / 32]; TILE] {
    let mut out = [[[0.0; 2]; PIECE / 32]; TILE];
    let groups = columns.div_ceil(PER);
    if PER != 32 {
        for (t, out) in out.iter_mut().enumerate().take(rows) {
            for (out, run) in out.iter_mut().zip(x[t * cols..][..columns].chunks(PER)) {
                *out = quantize::scale(run).into();
            }
        }
        return out;
    }
    for first in (0..rows * groups).step_by(RUNS) {
        let (mut runs, mut places) = ([x.as_ptr(); RUNS], [(0, 0); RUNS]);
        for i in 0..RUNS {
            // A run that is not there is the last one again.
            let run = (first + i).min(rows * groups - 1);
            places[i] = (run / groups, run % groups);
            runs[i] = x[places[i].0 * cols + 32 * places[i].1..][..32].as_ptr();
        }
        // SAFETY: 32 numbers each.
        let [scales, inverses] = unsafe { quantize::best_scales(runs) };
        for (i, (t, g)) in places.into_iter().enumerate() {
            out[t][g] = [scales[i], inverses[i]];
        }
    }
    out
}

/// The numbers of a group of token `t` to codes; their sum. What is missing becomes zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn to_codes(x: &[f32], inverse: f32, codes: &mut [u8], t: usize) -> i32 {
    let mut sum = 0;
    for (half, codes) in codes.chunks_exact_mut(32 * TILE).enumerate() {
        let bytes = match x.as_chunks::<32>().0.get(half) {
            Some(x) => quantize::to_codes(x, inverse),
            None => _mm256_setzero_si256(),
        };
        sum += quantize::sum(bytes);
        let mut raised = [0; 32];
        // SAFETY: 32 bytes.
        unsafe { _mm256_storeu_si256(raised.as_mut_ptr().cast(), _mm256_xor_si256(bytes, _mm256_set1_epi8(-128))) };
        for (four, codes) in raised.as_chunks::<4>().0.iter().zip(codes.chunks_exact_mut(4 * TILE)) {
            codes[4 * t..][..4].copy_from_slice(four);
        }
    }
    sum
}
