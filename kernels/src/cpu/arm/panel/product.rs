//! The loop over strips and tiles, for every format and tier.

use super::strip::{Source, pack_strip};
use super::tokens::TILE_SCALE_BYTES;
use super::{Order, ROWS, TOKENS, groups, panel_bytes, panel_scales};
use crate::cpu::arm::decoded;
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};

/// A tier's multiplication of a strip with a tile.
pub trait Tile {
    type Order: Order;

    /// sums[t][r] += Σ over `groups` groups of scale[r]·scale[t]·Σ w·x.
    ///
    /// # Safety
    /// The CPU has the tier; the panels are of `groups` ≥ 1 groups, scales at any address.
    unsafe fn add_product(groups: usize, strip: Panel, tile: Panel, sums: &mut [[f32; ROWS]; TOKENS]);
}

/// Where codes and scales of a strip or tile are.
#[derive(Clone, Copy)]
pub struct Panel {
    pub codes: *const i8,
    pub scales: *const f32,
}

/// The route of a format with a [`Source`].
pub fn route<S: Source, T: Tile>() -> Route {
    Route { form: Form::PanelBy64, row_tile: ROWS, scratch, run: run::<S, T> }
}

/// The route of a quantized format without one.
pub fn decoded_route<T: Tile>() -> Route {
    Route { form: Form::PanelBy64, row_tile: ROWS, scratch, run: run_decoded::<T> }
}

/// A strip's codes and scales, and room to align the latter.
fn scratch(cols: usize) -> usize {
    panel_bytes(cols) + 4 * panel_scales(cols) + 64
}

unsafe fn run<S: Source, T: Tile>(p: &mut Product) {
    // SAFETY: the tier was checked by whoever took the route; every ARM64 CPU has NEON.
    unsafe { strips::<T>(p, |p, strip, q, scales| pack_strip::<S, T::Order>(strip, p.row_bytes, p.cols, q, scales)) }
}

unsafe fn run_decoded<T: Tile>(p: &mut Product) {
    // SAFETY: as in `run`.
    unsafe { strips::<T>(p, |p, strip, q, scales| decoded::pack_strip::<T::Order>(p.format, strip, p.row_bytes, p.cols, q, scales)) }
}

/// # Safety
/// The CPU has the tier; the product's lengths fit one another.
unsafe fn strips<T: Tile>(p: &mut Product, pack: impl Fn(&Product, &[u8], &mut [i8], &mut [f32])) {
    if p.cols == 0 {
        for t in 0..p.tokens {
            p.out.token(t).fill(0.0);
        }
        return;
    }
    let groups = groups(p.cols);
    let tile_bytes = panel_bytes(p.cols) + groups * TILE_SCALE_BYTES;
    let scratch = std::mem::take(&mut p.scratch);
    // SAFETY: floats and bytes both take any bits.
    let (_, aligned, _) = unsafe { scratch.align_to_mut::<f32>() };
    let (scales, codes) = aligned.split_at_mut(panel_scales(p.cols));
    // SAFETY: as above; a byte needs no alignment.
    let (_, codes, _) = unsafe { codes.align_to_mut::<i8>() };
    let codes = &mut codes[..panel_bytes(p.cols)];
    for r in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - r);
        pack(p, &p.weights[r * p.row_bytes..][..rows * p.row_bytes], codes, scales);
        let strip = Panel { codes: codes.as_ptr(), scales: scales.as_ptr() };
        for (i, tile) in p.activations.chunks_exact(tile_bytes).enumerate() {
            let tile = Panel { codes: tile.as_ptr().cast(), scales: tile[panel_bytes(p.cols)..].as_ptr().cast() };
            let mut sums = [[0.0; ROWS]; TOKENS];
            // SAFETY: both are panels of rows of `cols`; the caller checked the tier.
            unsafe { T::add_product(groups, strip, tile, &mut sums) };
            for (t, sums) in sums.iter().enumerate().take(p.tokens - TOKENS * i) {
                let out = &mut p.out.token(TOKENS * i + t)[r..][..rows];
                match out.first_chunk_mut() {
                    Some(whole) => *whole = *sums,
                    None => out.copy_from_slice(&sums[..rows]),
                }
            }
        }
    }
    p.scratch = scratch;
}
