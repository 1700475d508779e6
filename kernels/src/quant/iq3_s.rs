//! `IQ3_S`: 256 weights in 110 bytes (3.4375 bits each): eight groups of 32, each of eight codewords with free signs and a 4-bit scale.
//!
//! | bytes   | field    | type    | meaning                                                                |
//! |---------|----------|---------|------------------------------------------------------------------------|
//! | 0–1     | `d`      | f16     | scale: in group `j`, `w = ± d · (1 + 2·S[j]) · grid`                   |
//! | 2–65    | `qs`     | u8 × 64 | low eight bits of the index into [`grid::IQ3_S`] of the 4 weights `k`  |
//! | 66–73   | `qh`     | u8 × 8  | bit `k % 8` of byte `k / 8`: the index's ninth bit                     |
//! | 74–105  | `signs`  | u8 × 32 | bit `i % 8` of byte `i / 8` set: weight `i` is negative                |
//! | 106–109 | `scales` | u8 × 4  | nibble `j % 2` of byte `j / 2` is `S[j]`                               |

use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 64],
    pub qh: [u8; 8],
    pub signs: [u8; 32],
    pub scales: [u8; 4],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (k, four) in out.chunks_exact_mut(4).enumerate() {
            let s = self.scales[k / 16] >> (k / 8 % 2 * 4) & 15;
            let scale = self.d.get() * f32::from(1 + 2 * s);
            let ninth = usize::from(self.qh[k / 8] >> (k % 8) & 1);
            let magnitudes = grid::IQ3_S[usize::from(self.qs[k]) | ninth << 8];
            for (i, w) in four.iter_mut().enumerate() {
                *w = grid::signed(scale * f32::from(magnitudes[i]), self.signs[k / 2], k % 2 * 4 + i);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let eights: [([f32; 8], u8); 32] = std::array::from_fn(|k| grid::split_signs(&x[8 * k..][..8]));
        let fits: [f32; 8] = std::array::from_fn(|j| {
            let group: [[f32; 8]; 4] = std::array::from_fn(|k| eights[4 * j + k].0);
            fit::codebook_scale(group.as_flattened(), &grid::IQ3_S_LEVELS)
        });
        let d = F16::saturating(fit::extreme(&fits) / 31.0);
        let s = fits.map(|f| fit::nearest((f * fit::inverse(d.get()) - 1.0) / 2.0).clamp(0.0, 15.0));
        let index: [usize; 64] = std::array::from_fn(|k| {
            let inverse = fit::inverse(d.get() * (1.0 + 2.0 * s[k / 8]));
            let magnitudes = eights[k / 2].0;
            grid::nearest::<4>(&grid::IQ3_S, &std::array::from_fn(|i| magnitudes[k % 2 * 4 + i] * inverse))
        });
        Block {
            d,
            qs: index.map(|i| i as u8),
            qh: std::array::from_fn(|b| (0..8).map(|p| ((index[8 * b + p] >> 8) as u8) << p).sum()),
            signs: eights.map(|(_, signs)| signs),
            scales: std::array::from_fn(|b| s[2 * b] as u8 | (s[2 * b + 1] as u8) << 4),
        }
    }
}
