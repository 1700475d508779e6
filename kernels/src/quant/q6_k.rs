//! `Q6_K`: 256 weights in 210 bytes (6.5625 bits each): sixteen groups of 16, each with an 8-bit scale.
//!
//! | bytes   | field    | type     | meaning                                        |
//! |---------|----------|----------|------------------------------------------------|
//! | 0–127   | `ql`     | u8 × 128 | low four bits of `q`                           |
//! | 128–191 | `qh`     | u8 × 64  | high two bits of `q`                           |
//! | 192–207 | `scales` | i8 × 16  | in group `j`, `w = d · scales[j] · (q − 32)`   |
//! | 208–209 | `d`      | f16      | scale of the scales                            |
//!
//! Each half of 128 weights has 64 bytes of `ql` and 32 of `qh`. In a half, quarter `p` of 32 weights takes the low (`p` < 2) or high
//! nibbles of the bytes `32·(p % 2)…` of `ql`, and the bits `2p`, `2p + 1` of all bytes of `qh`.

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub ql: [u8; 128],
    pub qh: [u8; 64],
    pub scales: [i8; 16],
    pub d: F16,
}

impl Block {
    /// The 6-bit code of weight `i`.
    pub fn code(&self, i: usize) -> u8 {
        let (half, quarter, column) = (i / 128, i % 128 / 32, i % 32);
        let low = self.ql[64 * half + 32 * (quarter % 2) + column] >> (4 * (quarter / 2)) & 15;
        low | (self.qh[32 * half + column] >> (2 * quarter) & 3) << 4
    }
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (j, group) in out.chunks_exact_mut(16).enumerate() {
            let d = self.d.get() * f32::from(self.scales[j]);
            for (i, w) in group.iter_mut().enumerate() {
                *w = d * (f32::from(self.code(16 * j + i)) - 32.0);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [f32; 16] = std::array::from_fn(|j| fit::signed_scale(&x[16 * j..][..16], -32.0, 31.0));
        let d = F16::saturating(fit::extreme(&fits) / -128.0);
        let inverse = fit::inverse(d.get());
        let scales = fits.map(|s| fit::nearest(s * inverse).clamp(-128.0, 127.0) as i8);
        let mut q = [0u8; 256];
        for (j, &s) in scales.iter().enumerate() {
            let inverse = fit::inverse(d.get() * f32::from(s));
            for i in 16 * j..16 * j + 16 {
                q[i] = (fit::nearest(x[i] * inverse) + 32.0).clamp(0.0, 63.0) as u8;
            }
        }
        let ql = std::array::from_fn(|b| {
            let i = b / 64 * 128 + b % 64;
            q[i] & 15 | q[i + 64] << 4
        });
        let qh = std::array::from_fn(|b| {
            let i = b / 32 * 128 + b % 32;
            (0..4).map(|p| (q[i + 32 * p] >> 4) << (2 * p)).sum()
        });
        Block { ql, qh, scales, d }
    }
}
