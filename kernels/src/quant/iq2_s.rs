//! `IQ2_S`: 256 weights in 82 bytes (2.5625 bits each): sixteen groups of 16, each of two codewords with free signs and a 4-bit scale.
//!
//! | bytes | field    | type    | meaning                                                                                  |
//! |-------|----------|---------|------------------------------------------------------------------------------------------|
//! | 0–1   | `d`      | f16     | scale: in group `j`, `w = ± d · (S[j] + ½) / 4 · grid`                                   |
//! | 2–33  | `qs`     | u8 × 32 | low eight bits of the index into [`grid::IQ2_S`] of the 8 weights `k`                    |
//! | 34–65 | `signs`  | u8 × 32 | bit `i % 8` of byte `i / 8` set: weight `i` is negative                                  |
//! | 66–73 | `qh`     | u8 × 8  | bit pair `k % 4` of byte `k / 4`: the index's high two bits                              |
//! | 74–81 | `scales` | u8 × 8  | nibble `j % 2` of byte `j / 2` is `S[j]`                                                 |

use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 32],
    pub signs: [u8; 32],
    pub qh: [u8; 8],
    pub scales: [u8; 8],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (k, eight) in out.chunks_exact_mut(8).enumerate() {
            let s = self.scales[k / 4] >> (k / 2 % 2 * 4) & 15;
            let scale = self.d.get() * (0.5 + f32::from(s)) * 0.25;
            let high = usize::from(self.qh[k / 4] >> (k % 4 * 2) & 3);
            let magnitudes = grid::IQ2_S[usize::from(self.qs[k]) | high << 8];
            for (i, w) in eight.iter_mut().enumerate() {
                *w = grid::signed(scale * f32::from(magnitudes[i]), self.signs[k], i);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let eights: [([f32; 8], u8); 32] = std::array::from_fn(|k| grid::split_signs(&x[8 * k..][..8]));
        let fits: [f32; 16] = std::array::from_fn(|j| {
            let group = [eights[2 * j].0, eights[2 * j + 1].0];
            fit::codebook_scale(group.as_flattened(), &grid::IQ2_LEVELS)
        });
        let d = F16::saturating(fit::extreme(&fits) * 4.0 / 15.5);
        let s = fits.map(|f| fit::nearest(f * fit::inverse(d.get()) * 4.0 - 0.5).clamp(0.0, 15.0));
        let index: [usize; 32] = std::array::from_fn(|k| {
            let inverse = fit::inverse(d.get() * (0.5 + s[k / 2]) * 0.25);
            grid::nearest(&grid::IQ2_S, &eights[k].0.map(|m| m * inverse))
        });
        Block {
            d,
            qs: index.map(|i| i as u8),
            signs: eights.map(|(_, signs)| signs),
            qh: std::array::from_fn(|b| (0..4).map(|p| ((index[4 * b + p] >> 8) as u8) << (2 * p)).sum()),
            scales: std::array::from_fn(|b| s[2 * b] as u8 | (s[2 * b + 1] as u8) << 4),
        }
    }
}
