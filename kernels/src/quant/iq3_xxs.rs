//! `IQ3_XXS`: 256 weights in 98 bytes (3.0625 bits each): eight groups of 32, each of eight codewords with even signs and a 4-bit scale.
//!
//! | bytes | field   | type       | meaning                                                                            |
//! |-------|---------|------------|------------------------------------------------------------------------------------|
//! | 0–1   | `d`     | f16        | scale: in group `j`, `w = ± d · (S + ½) / 2 · grid`                                |
//! | 2–65  | `qs`    | u8 × 64    | index into [`grid::IQ3_XXS`] of four weights                                       |
//! | 66–97 | `signs` | u32 LE × 8 | a group's: four times 7 sign bits (8 weights each), 4-bit `S` on top               |

use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 64],
    pub signs: [[u8; 4]; 8],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (i, w) in out.iter_mut().enumerate() {
            let word = u32::from_le_bytes(self.signs[i / 32]);
            let scale = self.d.get() * (0.5 + (word >> 28) as f32) * 0.5;
            let signs = grid::even_signs((word >> (i % 32 / 8 * 7)) as u8);
            let magnitude = grid::IQ3_XXS[usize::from(self.qs[i / 4])][i % 4];
            *w = grid::signed(scale * f32::from(magnitude), signs, i % 8);
        }
    }

    fn encode(x: &[f32]) -> Block {
        let groups: [[([f32; 8], u8); 4]; 8] =
            std::array::from_fn(|j| std::array::from_fn(|k| grid::split_even_signs(&x[32 * j + 8 * k..][..8])));
        let fits = groups.map(|g| fit::codebook_scale(g.map(|(m, _)| m).as_flattened(), &grid::IQ3_XXS_LEVELS).abs());
        let d = F16::saturating(fit::extreme(&fits) * 2.0 / 15.5);
        let s = fits.map(|f| fit::nearest(f * fit::inverse(d.get()) * 2.0 - 0.5).clamp(0.0, 15.0));
        let qs = std::array::from_fn(|b| {
            let inverse = fit::inverse(d.get() * (0.5 + s[b / 8]) * 0.5);
            let (magnitudes, _) = groups[b / 8][b / 2 % 4];
            grid::nearest::<4>(&grid::IQ3_XXS, &std::array::from_fn(|i| magnitudes[b % 2 * 4 + i] * inverse)) as u8
        });
        let signs = std::array::from_fn(|j| {
            let seven = |k: usize| u32::from(groups[j][k].1 & 127) << (7 * k);
            ((s[j] as u32) << 28 | seven(0) | seven(1) | seven(2) | seven(3)).to_le_bytes()
        });
        Block { d, qs, signs }
    }
}
