//! Activations of many tokens as the inner loop of [`gemm`](super::gemm) reads them: [`Form::PanelBy32`].
//!
//! [`Form::group`] tokens after another; of them a piece of 256 columns after the other; of it a tile of three tokens after the other: so
//! what is read together lies together, and the next piece follows it. A piece of a tile is codes, i8 `[c/4, TILE, 4]`, then planes
//! `[c/32, TILE]` of f32: scale, scale · Σ codes, scale · Σ of the second 16 codes.

use super::quantize::{best_scales, sum, to_codes};
use crate::cpu::form::{self, Form, Tiles};
use std::ops::Range;

/// Tokens of a tile.
pub const TILE: usize = 3;
/// Columns of a piece.
pub const PIECE: usize = form::PIECE;
/// Tokens of a group.
pub const GROUP: usize = Form::PanelBy32.group();
const TILES_OF_GROUP: usize = GROUP / TILE;
pub const TILES: Tiles = Tiles { tokens: TILE, written: GROUP, part };

/// Bytes of a tile of so many columns.
pub const fn bytes(cols: usize) -> usize {
    TILE * (cols + cols / 32 * 12)
}

/// Where the piece of a tile is that begins with a token and a column, of rows of `cols`.
pub const fn at(cols: usize, token: usize, column: usize) -> usize {
    let columns = if cols - column < PIECE { cols - column } else { PIECE };
    let group = token / GROUP * TILES_OF_GROUP * bytes(cols);
    group + TILES_OF_GROUP * bytes(column) + token % GROUP / TILE * bytes(columns)
}

/// As [`form::Part`].
fn part(_: Form, cols: usize, columns: Range<usize>, n: usize) -> [Range<usize>; 4] {
    let (piece, start) = (columns.start / PIECE * PIECE, columns.start % PIECE);
    let (of_piece, at) = (PIECE.min(cols - piece), at(cols, n * TILE, piece));
    let codes = at + start * TILE..at + (start + columns.len()) * TILE;
    let plane = |plane: usize| {
        let at = at + TILE * of_piece + (plane * of_piece + start) / 32 * TILE * 4;
        at..at + columns.len() / 32 * TILE * 4
    };
    [codes, plane(0), plane(1), plane(2)]
}

/// Rows of `cols` numbers to tiles.
#[target_feature(enable = "avx2,fma")]
pub fn quantize(x: &[f32], cols: usize, out: &mut [u8]) {
    let tokens = x.len() / cols;
    for token in (0..tokens.next_multiple_of(GROUP)).step_by(TILE) {
        for start in (0..cols).step_by(PIECE) {
            let columns = PIECE.min(cols - start);
            let piece = &mut out[at(cols, token, start)..][..bytes(columns)];
            if token + TILE > tokens {
                // Tokens that are not there become zeros.
                piece.fill(0);
            }
            let (codes, planes) = piece.split_at_mut(TILE * columns);
            for (t, row) in x.chunks_exact(cols).skip(token).take(TILE).enumerate() {
                let runs = row[start..start + columns].as_chunks::<32>().0;
                let of_runs = best_scales(runs);
                for (g, x) in runs.iter().enumerate() {
                    let [scale, inverse] = of_runs[g];
                    let coded = to_codes(x, inverse);
                    for (i, four) in coded.as_chunks::<4>().0.iter().enumerate() {
                        codes[((8 * g + i) * TILE + t) * 4..][..4].copy_from_slice(four);
                    }
                    let second = sum(&coded[16..]);
                    let sums = [scale, scale * (sum(&coded[..16]) + second) as f32, scale * second as f32];
                    for (plane, sum) in sums.into_iter().enumerate() {
                        planes[((plane * columns / 32 + g) * TILE + t) * 4..][..4].copy_from_slice(&sum.to_le_bytes());
                    }
                }
            }
        }
    }
}
