//! `IQ2_XXS`: 256 weights in 66 bytes (2.0625 bits each): eight groups of 32, each of four codewords with even signs and a 4-bit scale.
//!
//! | bytes | field | type    | meaning                                                                                     |
//! |-------|-------|---------|---------------------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: in group `j`, `w = ± d · (S + ½) / 4 · grid`                                         |
//! | 2–65  | `qs`  | u8 × 64 | 8 bytes a group: four indices of [`grid::IQ2_XXS`], then a u32: four times 7 sign bits, 4-bit `S` on top |

use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 64],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (group, qs) in out.chunks_exact_mut(32).zip(self.qs.as_chunks::<8>().0) {
            let [indices @ .., a, b, c, d] = *qs;
            let word = u32::from_le_bytes([a, b, c, d]);
            let scale = self.d.get() * (0.5 + (word >> 28) as f32) * 0.25;
            for (k, eight) in group.chunks_exact_mut(8).enumerate() {
                let magnitudes = grid::IQ2_XXS[usize::from(indices[k])];
                let signs = grid::even_signs((word >> (7 * k)) as u8);
                for (i, w) in eight.iter_mut().enumerate() {
                    *w = grid::signed(scale * f32::from(magnitudes[i]), signs, i);
                }
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let groups: [[([f32; 8], u8); 4]; 8] =
            std::array::from_fn(|j| std::array::from_fn(|k| grid::split_even_signs(&x[32 * j + 8 * k..][..8])));
        let fits = groups.map(|g| fit::codebook_scale(g.map(|(m, _)| m).as_flattened(), &grid::IQ2_LEVELS).abs());
        let d = F16::saturating(fit::extreme(&fits) * 4.0 / 15.5);
        let mut qs = [0; 64];
        for (j, qs) in qs.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let s = fit::nearest(fits[j] * fit::inverse(d.get()) * 4.0 - 0.5).clamp(0.0, 15.0);
            let inverse = fit::inverse(d.get() * (0.5 + s) * 0.25);
            let mut word = (s as u32) << 28;
            for (k, (magnitudes, signs)) in groups[j].iter().enumerate() {
                qs[k] = grid::nearest(&grid::IQ2_XXS, &magnitudes.map(|m| m * inverse)) as u8;
                word |= u32::from(signs & 127) << (7 * k);
            }
            qs[4..].copy_from_slice(&word.to_le_bytes());
        }
        Block { d, qs }
    }
}
