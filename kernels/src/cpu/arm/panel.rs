//! Matrices times many tokens: strips of eight rows and tiles of eight tokens as int8 panels, which every tier multiplies with one small
//! kernel of its own, whatever the weights' format. A strip is converted once and used for all tokens, so a format costs one converter.
//!
//! A panel is cut into groups of [`GROUP`] columns; each row (or token) has one float scale a group. Within a group, 16 columns of rows 0–3
//! (64 bytes) are followed by the same columns of rows 4–7. How the 64 bytes lie is the tier's [`Order`].
//!
//! - [`tokens`]: activations to a panel. · [`strip`]: weights to a panel; [`sources`]: what formats differ in; [`decoded`]: the rest.
//! - [`product`]: the loop over both.
//!
//! Why 64: one scale for 256 columns would save 8 instructions of 90 for 1000 multiply-accumulates, but costs a third more error; a scale
//! for 32 is exact for most formats and costs 20 more.

pub mod decoded;
pub mod product;
pub mod sources;
pub mod strip;
pub mod tokens;

use std::arch::aarch64::*;

/// Columns that share a scale.
pub const GROUP: usize = 64;
/// Rows of a strip.
pub const ROWS: usize = 8;
/// Tokens of a tile.
pub const TOKENS: usize = 8;
/// Bytes of a group of a strip or tile.
pub const GROUP_BYTES: usize = 8 * GROUP;

/// Groups of a row; the last may be partly empty, which is filled with zeros.
pub const fn groups(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

/// Bytes of the panel of a strip or tile.
pub const fn panel_bytes(columns: usize) -> usize {
    groups(columns) * GROUP_BYTES
}

/// Scales of the panel of a strip or tile: `[groups, 8]`.
pub const fn panel_scales(columns: usize) -> usize {
    groups(columns) * 8
}

/// How 16 columns of four rows lie.
pub trait Order {
    /// Writes 64 bytes.
    ///
    /// # Safety
    /// `to` may be written.
    unsafe fn store(to: *mut i8, rows: [int8x16_t; 4]);
}

/// Writes half of a group, 64 columns of four rows: `half` 0 or 1 of the eight.
///
/// # Safety
/// `group` may be written for [`GROUP_BYTES`].
#[inline(always)]
pub unsafe fn store_half<O: Order>(group: *mut i8, half: usize, rows: [[int8x16_t; 4]; 4]) {
    let [a, b, c, d] = rows;
    // SAFETY: quads of the two halves take turns, 64 bytes each.
    unsafe {
        let first = group.add(64 * half);
        O::store(first, [a[0], b[0], c[0], d[0]]);
        O::store(first.add(128), [a[1], b[1], c[1], d[1]]);
        O::store(first.add(256), [a[2], b[2], c[2], d[2]]);
        O::store(first.add(384), [a[3], b[3], c[3], d[3]]);
    }
}

/// Four columns of each of the four rows, four times: for `sdot` by element.
pub struct Fours;

/// Eight columns of rows 0 and 1, twice, then of rows 2 and 3: for `smmla`.
pub struct Eights;

/// Row after row: for `smull`.
pub struct Whole;

impl Order for Fours {
    #[inline(always)]
    unsafe fn store(to: *mut i8, rows: [int8x16_t; 4]) {
        // SAFETY: the caller's promise; `st4` interleaves words.
        unsafe {
            let words = int32x4x4_t(
                vreinterpretq_s32_s8(rows[0]),
                vreinterpretq_s32_s8(rows[1]),
                vreinterpretq_s32_s8(rows[2]),
                vreinterpretq_s32_s8(rows[3]),
            );
            vst4q_s32(to.cast(), words);
        }
    }
}

impl Order for Eights {
    #[inline(always)]
    unsafe fn store(to: *mut i8, rows: [int8x16_t; 4]) {
        // SAFETY: the caller's promise; `st2` interleaves halves.
        unsafe {
            vst2q_s64(to.cast(), int64x2x2_t(vreinterpretq_s64_s8(rows[0]), vreinterpretq_s64_s8(rows[1])));
            vst2q_s64(to.add(32).cast(), int64x2x2_t(vreinterpretq_s64_s8(rows[2]), vreinterpretq_s64_s8(rows[3])));
        }
    }
}

impl Order for Whole {
    #[inline(always)]
    unsafe fn store(to: *mut i8, rows: [int8x16_t; 4]) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_s8_x4(to, int8x16x4_t(rows[0], rows[1], rows[2], rows[3])) }
    }
}
