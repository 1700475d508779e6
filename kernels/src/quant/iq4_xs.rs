//! `IQ4_XS`: 256 weights in 136 bytes (4.25 bits each): eight groups of 32 on the levels of [`iq4_nl`], each with a 6-bit scale.
//!
//! | bytes | field      | type     | meaning                                                                                |
//! |-------|------------|----------|----------------------------------------------------------------------------------------|
//! | 0–1   | `d`        | f16      | scale of the scales: in group `j`, `w = d · (S[j] − 32) · LEVELS[q]`                   |
//! | 2–3   | `scales_h` | u16 LE   | bits `2j`, `2j + 1` are the high two bits of `S[j]`                                    |
//! | 4–7   | `scales_l` | u8 × 4   | nibble `j % 2` of byte `j / 2` is the low four bits of `S[j]`                          |
//! | 8–135 | `qs`       | u8 × 128 | 16 bytes a group: low nibbles are its weights 0–15, high nibbles its weights 16–31     |

use super::iq4_nl::{LEVELS, decode_32, encode_32};
use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub scales_h: [u8; 2],
    pub scales_l: [u8; 4],
    pub qs: [u8; 128],
}

impl Block {
    /// `S − 32` of group `j` < 8.
    pub fn scale(&self, j: usize) -> i8 {
        let low = self.scales_l[j / 2] >> (j % 2 * 4) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * j) & 3) as u8;
        (low | high << 4) as i8 - 32
    }
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (j, (group, qs)) in out.chunks_exact_mut(32).zip(self.qs.chunks_exact(16)).enumerate() {
            decode_32(self.d.get() * f32::from(self.scale(j)), qs, group);
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [f32; 8] = std::array::from_fn(|j| fit::codebook_scale(&x[32 * j..][..32], &LEVELS));
        let d = F16::saturating(fit::extreme(&fits) / -32.0);
        let inverse = fit::inverse(d.get());
        let scales = fits.map(|s| fit::nearest(s * inverse).clamp(-32.0, 31.0));
        let mut qs = [0; 128];
        for (j, qs) in qs.chunks_exact_mut(16).enumerate() {
            qs.copy_from_slice(&encode_32(d.get() * scales[j], &x[32 * j..][..32]));
        }
        let s = scales.map(|s| (s + 32.0) as u8);
        let scales_h = (0..8).map(|j| u16::from(s[j] >> 4) << (2 * j)).sum::<u16>().to_le_bytes();
        Block { d, scales_h, scales_l: std::array::from_fn(|b| s[2 * b] & 15 | s[2 * b + 1] << 4), qs }
    }
}
