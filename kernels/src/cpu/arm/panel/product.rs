//! The loop over strips and tiles, for every format and tier.

use super::strip::{Source, pack_strip};
use super::tokens::TILE_SCALE_BYTES;
use super::{Order, ROWS, TOKENS, decoded, groups, panel_bytes, panel_scales, sources};
use crate::cpu::Kernels;
use crate::cpu::form::Form;
use crate::cpu::linear::{Product, Route};
use crate::quant::{FORMATS, Format};

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

/// Sets, for all quantized formats, the route for `from` tokens and more.
pub fn fill<T: Tile>(k: &mut Kernels, from: usize) {
    for layout in FORMATS.iter().filter(|l| l.weights > 1) {
        let run = match layout.format {
            Format::Q4_0 => run::<sources::Q4_0, T>,
            Format::Q4_1 => run::<sources::Q4_1, T>,
            Format::Q5_0 => run::<sources::Q5_0, T>,
            Format::Q5_1 => run::<sources::Q5_1, T>,
            Format::Q8_0 => run::<sources::Q8_0, T>,
            Format::IQ4_NL => run::<sources::Iq4Nl, T>,
            Format::Q4_K => run::<sources::Q4K, T>,
            Format::Q5_K => run::<sources::Q5K, T>,
            Format::Q6_K => run::<sources::Q6K, T>,
            Format::IQ4_XS => run::<sources::Iq4Xs, T>,
            _ => run_decoded::<T>,
        };
        let routes = k.routes_mut(layout.format);
        routes.many = Route { form: Form::PanelBy64, row_tile: STRIPS * ROWS, scratch, run };
        routes.many_from = from;
    }
}

/// Strips that meet a tile one after the other, so that it is fetched once for all of them: the tiles of many tokens overflow the
/// second-level cache (512 tokens of 2048 columns are 1 MiB; a Cortex-A76 has 512 KiB). The strips fit there: 64 KiB at 2048 columns.
const STRIPS: usize = 4;

/// The strips' codes and scales, and room to align the latter.
fn scratch(cols: usize) -> usize {
    STRIPS * (panel_bytes(cols) + 4 * panel_scales(cols)) + 64
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
    let (codes_bytes, scales_count) = (panel_bytes(p.cols), panel_scales(p.cols));
    let tile_bytes = codes_bytes + groups * TILE_SCALE_BYTES;
    let scratch = std::mem::take(&mut p.scratch);
    // SAFETY: floats and bytes both take any bits.
    let (_, aligned, _) = unsafe { scratch.align_to_mut::<f32>() };
    let (scales, codes) = aligned.split_at_mut(STRIPS * scales_count);
    // SAFETY: as above; a byte needs no alignment.
    let (_, codes, _) = unsafe { codes.align_to_mut::<i8>() };
    for first in (0..p.rows).step_by(STRIPS * ROWS) {
        let starts = (first..p.rows.min(first + STRIPS * ROWS)).step_by(ROWS);
        let panels = codes.chunks_exact_mut(codes_bytes).zip(scales.chunks_exact_mut(scales_count));
        for (r, (codes, scales)) in starts.clone().zip(panels) {
            let rows = ROWS.min(p.rows - r);
            pack(p, &p.weights[r * p.row_bytes..][..rows * p.row_bytes], codes, scales);
        }
        for (i, tile) in p.activations.chunks_exact(tile_bytes).take(p.tokens.div_ceil(TOKENS)).enumerate() {
            let tile = Panel { codes: tile.as_ptr().cast(), scales: tile[codes_bytes..].as_ptr().cast() };
            let tokens = TOKENS.min(p.tokens - TOKENS * i);
            for (k, r) in starts.clone().enumerate() {
                let mut sums = [[0.0; ROWS]; TOKENS];
                // SAFETY: panel `k` was written above; all are panels of rows of `cols`; the caller checked the tier.
                unsafe {
                    let strip = Panel { codes: codes.as_ptr().add(k * codes_bytes), scales: scales.as_ptr().add(k * scales_count) };
                    T::add_product(groups, strip, tile, &mut sums);
                }
                let rows = ROWS.min(p.rows - r);
                for (t, sums) in sums[..tokens].iter().enumerate() {
                    let out = &mut p.out.token(TOKENS * i + t)[r..r + rows];
                    match out.first_chunk_mut() {
                        Some(whole) => *whole = *sums,
                        None => out.copy_from_slice(&sums[..rows]),
                    }
                }
            }
        }
    }
    p.scratch = scratch;
}
