//! Activations to panels: tiles of eight tokens, int8 with a scale for [`GROUP`] columns. A tile is its codes, then its scales
//! `[groups, 8]`.

use super::super::activations::{scale_and_inverse, sixteen_codes};
use super::{GROUP, GROUP_BYTES, Order, TOKENS, groups, panel_bytes, store_half};
use crate::cpu::form::{Form, Tiles};
use std::arch::aarch64::*;
use std::ops::Range;

/// Bytes of the scales of one group.
pub const TILE_SCALE_BYTES: usize = 4 * TOKENS;

/// A tile from up to eight tokens of `cols` floats each, in `x` one after the other. Missing tokens and columns become zeros.
///
/// # Panics
/// When `x` is not one to eight rows of `cols`, or the tile has the wrong size.
#[target_feature(enable = "neon")]
pub fn pack_tokens<O: Order>(x: &[f32], cols: usize, tile: &mut [u8]) {
    let tokens = x.len() / cols;
    assert!(x.len() == tokens * cols && (1..=TOKENS).contains(&tokens));
    assert_eq!(tile.len(), panel_bytes(cols) + groups(cols) * TILE_SCALE_BYTES);
    let (codes, scales) = tile.split_at_mut(panel_bytes(cols));
    for (g, (codes, scales)) in codes.chunks_exact_mut(GROUP_BYTES).zip(scales.chunks_exact_mut(TILE_SCALE_BYTES)).enumerate() {
        for half in 0..2 {
            let mut rows = [[vdupq_n_s8(0); 4]; 4];
            for (r, row) in rows.iter_mut().enumerate() {
                let t = 4 * half + r;
                let mut scale = 0.0;
                if t < tokens {
                    let group = &x[t * cols..][..cols][GROUP * g..];
                    (*row, scale) = match group.first_chunk() {
                        Some(whole) => quantize(whole),
                        None => {
                            let mut padded = [0.0; GROUP];
                            padded[..group.len()].copy_from_slice(group);
                            quantize(&padded)
                        }
                    };
                }
                scales[4 * t..][..4].copy_from_slice(&scale.to_le_bytes());
            }
            // SAFETY: the group's 512 bytes.
            unsafe { store_half::<O>(codes.as_mut_ptr().cast(), half, rows) };
        }
    }
}

pub const TILES: Tiles = Tiles { tokens: TOKENS, written: TOKENS, part };

/// As [`form::Part`](crate::cpu::form::Part), of columns from a group's first on.
fn part(_: Form, cols: usize, columns: Range<usize>, n: usize) -> [Range<usize>; 4] {
    let groups_of = columns.start / GROUP..groups(columns.end);
    let tile = n * (panel_bytes(cols) + groups(cols) * TILE_SCALE_BYTES);
    let run = |first: usize, each: usize| tile + first + groups_of.start * each..tile + first + groups_of.end * each;
    [run(0, GROUP_BYTES), run(panel_bytes(cols), TILE_SCALE_BYTES), 0..0, 0..0]
}

/// 64 floats as int8 and their scale.
#[target_feature(enable = "neon")]
#[inline]
pub fn quantize(x: &[f32; GROUP]) -> ([int8x16_t; 4], f32) {
    let mut largest = [vdupq_n_f32(0.0); 4];
    let chunks = x.as_chunks::<16>().0;
    for chunk in chunks {
        for (i, largest) in largest.iter_mut().enumerate() {
            // SAFETY: four floats of sixteen.
            *largest = vmaxq_f32(*largest, vabsq_f32(unsafe { vld1q_f32(chunk.as_ptr().add(4 * i)) }));
        }
    }
    let largest = vmaxvq_f32(vmaxq_f32(vmaxq_f32(largest[0], largest[1]), vmaxq_f32(largest[2], largest[3])));
    let (scale, inverse) = scale_and_inverse(largest);
    let mut q = [vdupq_n_s8(0); 4];
    for (q, chunk) in q.iter_mut().zip(chunks) {
        *q = sixteen_codes(chunk, inverse);
    }
    (q, scale)
}
