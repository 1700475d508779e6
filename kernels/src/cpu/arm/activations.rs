//! Activations in the forms that products want.

use super::panel::tokens::{self, TILE_SCALE_BYTES};
use super::panel::{Order, TOKENS, groups, panel_bytes};
use crate::cpu::form::{Form, Planes, SMALLEST};
use crate::cpu::plain;
use std::arch::aarch64::*;

/// `x` `[tokens, cols]` in any form; panels of tiles in the tier's order.
pub fn quantize<O: Order>(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    match form {
        Form::Int8By32 => rows::<32>(x, cols, out),
        Form::Int8By256 => rows::<256>(x, cols, out),
        Form::PanelBy64 => {
            let tile_bytes = panel_bytes(cols) + groups(cols) * TILE_SCALE_BYTES;
            for (x, tile) in x.chunks(TOKENS * cols).zip(out.chunks_exact_mut(tile_bytes)) {
                // SAFETY: every ARM64 CPU has NEON.
                unsafe { tokens::pack_tokens::<O>(x, cols, tile) };
            }
        }
        other => plain::linear::quantize(other, x, cols, out),
    }
}

/// One token in [`Form::Int8By32`] or [`Form::Int8By256`].
#[derive(Clone, Copy)]
pub struct Int8<'a> {
    pub codes: &'a [u8],
    /// i16: sums of 16 codes.
    pub sums: &'a [u8],
    /// f32: of each run.
    pub scales: &'a [u8],
}

impl<'a> Int8<'a> {
    /// Token `t` of activations of rows of `cols` with a scale per `per`.
    pub fn token(activations: &'a [u8], cols: usize, per: usize, t: usize) -> Int8<'a> {
        let planes = Planes::new(cols, per);
        let row = &activations[t * planes.stride..][..planes.stride];
        Int8 { codes: &row[..cols], sums: &row[planes.sums..planes.scales], scales: &row[planes.scales..][..cols / per * 4] }
    }

    /// Runs that have a scale of their own.
    pub fn runs(&self) -> usize {
        self.scales.len() / 4
    }
}

/// The planes of [`Form::Int8By32`] or [`Form::Int8By256`].
fn rows<const PER: usize>(x: &[f32], cols: usize, out: &mut [u8]) {
    let planes = Planes::new(cols, PER);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(planes.stride)) {
        let (codes, rest) = out.split_at_mut(planes.sums);
        let (sums, scales) = rest.split_at_mut(planes.scales - planes.sums);
        let runs = x.as_chunks::<PER>().0.iter().zip(codes.as_chunks_mut::<PER>().0);
        for ((x, codes), (sums, scale)) in runs.zip(sums.chunks_exact_mut(PER / 8).zip(scales.chunks_exact_mut(4))) {
            // SAFETY: every ARM64 CPU has NEON.
            scale.copy_from_slice(&unsafe { run(x, codes, sums) }.to_le_bytes());
        }
    }
}

/// One run of numbers to codes and sums of 16 of them; the scale. Rounds to the nearest, ties to even.
#[target_feature(enable = "neon")]
fn run<const PER: usize>(x: &[f32; PER], codes: &mut [u8; PER], sums: &mut [u8]) -> f32 {
    assert_eq!(sums.len(), PER / 8);
    let mut largest = [vdupq_n_f32(0.0); 4];
    for chunk in x.as_chunks::<16>().0 {
        for (i, largest) in largest.iter_mut().enumerate() {
            // SAFETY: four floats of sixteen.
            *largest = vmaxq_f32(*largest, vabsq_f32(unsafe { vld1q_f32(chunk.as_ptr().add(4 * i)) }));
        }
    }
    let largest = vmaxvq_f32(vmaxq_f32(vmaxq_f32(largest[0], largest[1]), vmaxq_f32(largest[2], largest[3])));
    let (scale, inverse) = scale_and_inverse(largest);
    let chunks = x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0);
    for ((x, codes), sum) in chunks.zip(sums.chunks_exact_mut(2)) {
        let q = sixteen_codes(x, inverse);
        // SAFETY: sixteen codes.
        unsafe { vst1q_s8(codes.as_mut_ptr().cast(), q) };
        sum.copy_from_slice(&vaddlvq_s8(q).to_le_bytes());
    }
    scale
}

/// Of a run whose largest magnitude is given: NaN and 0 where it is NaN or infinite, so that all codes are 0; 0 and 0 below [`SMALLEST`].
#[inline]
pub fn scale_and_inverse(largest: f32) -> (f32, f32) {
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    }
}

/// x · inverse, rounded to the nearest, ties to even. NaN (of 0 · ∞) becomes 0.
#[inline]
#[target_feature(enable = "neon")]
pub fn sixteen_codes(x: &[f32; 16], inverse: f32) -> int8x16_t {
    // SAFETY: four times four floats of sixteen.
    let words = unsafe {
        let word = |i: usize| vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x.as_ptr().add(4 * i)), inverse));
        [word(0), word(1), word(2), word(3)]
    };
    let low = vqmovn_high_s32(vqmovn_s32(words[0]), words[1]);
    let high = vqmovn_high_s32(vqmovn_s32(words[2]), words[3]);
    vqmovn_high_s16(vqmovn_s16(low), high)
}
