//! `IQ2_XS`: 256 weights in 74 bytes (2.3125 bits each): sixteen groups of 16, each of two codewords with even signs and a 4-bit scale.
//!
//! | bytes | field    | type         | meaning                                                                          |
//! |-------|----------|--------------|----------------------------------------------------------------------------------|
//! | 0–1   | `d`      | f16          | scale: in group `j`, `w = ± d · (S[j] + ½) / 4 · grid`                           |
//! | 2–65  | `qs`     | u16 LE × 32  | low nine bits an index of [`grid::IQ2_XS`], high seven the signs of its 8 weights |
//! | 66–73 | `scales` | u8 × 8       | nibble `j % 2` of byte `j / 2` is `S[j]`                                         |

use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [[u8; 2]; 32],
    pub scales: [u8; 8],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (k, eight) in out.chunks_exact_mut(8).enumerate() {
            let s = self.scales[k / 4] >> (k / 2 % 2 * 4) & 15;
            let scale = self.d.get() * (0.5 + f32::from(s)) * 0.25;
            let word = u16::from_le_bytes(self.qs[k]);
            let magnitudes = grid::IQ2_XS[usize::from(word & 511)];
            let signs = grid::even_signs((word >> 9) as u8);
            for (i, w) in eight.iter_mut().enumerate() {
                *w = grid::signed(scale * f32::from(magnitudes[i]), signs, i);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let eights: [([f32; 8], u8); 32] = std::array::from_fn(|k| grid::split_even_signs(&x[8 * k..][..8]));
        let fits: [f32; 16] = std::array::from_fn(|j| {
            let group = [eights[2 * j].0, eights[2 * j + 1].0];
            fit::codebook_scale(group.as_flattened(), &grid::IQ2_LEVELS).abs()
        });
        let d = F16::saturating(fit::extreme(&fits) * 4.0 / 15.5);
        let s = fits.map(|f| fit::nearest(f * fit::inverse(d.get()) * 4.0 - 0.5).clamp(0.0, 15.0));
        let qs = std::array::from_fn(|k| {
            let inverse = fit::inverse(d.get() * (0.5 + s[k / 2]) * 0.25);
            let (magnitudes, signs) = eights[k];
            let index = grid::nearest(&grid::IQ2_XS, &magnitudes.map(|m| m * inverse)) as u16;
            (index | u16::from(signs & 127) << 9).to_le_bytes()
        });
        Block { d, qs, scales: std::array::from_fn(|b| s[2 * b] as u8 | (s[2 * b + 1] as u8) << 4) }
    }
}
