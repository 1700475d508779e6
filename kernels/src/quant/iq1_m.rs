//! `IQ1_M`: 256 weights in 56 bytes (1.75 bits each): ternary codewords of 8, each with its shift; sixteen groups of 16 with a 3-bit scale.
//!
//! | bytes | field    | type       | meaning                                                                                          |
//! |-------|----------|------------|--------------------------------------------------------------------------------------------------|
//! | 0–31  | `qs`     | u8 × 32    | low eight bits of the index into [`grid::IQ1`] of the 8 weights `k`                              |
//! | 32–47 | `qh`     | u8 × 16    | nibble `k % 2` of byte `k / 2`: the index's high 3 bits, top bit set: shift −⅛ (else +⅛)         |
//! | 48–55 | `scales` | u16 LE × 4 | 3-bit field `j % 4` of word `j / 4` is `S[j]`; the words' top nibbles, first lowest, are the f16 `d` |
//!
//! In group `j`, `w = d · (2·S[j] + 1) · (grid ± ⅛)`.

use super::iq1_s::{SHIFT, shifted_codewords};
use super::{F16, fit, grid};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub qs: [u8; 32],
    pub qh: [u8; 16],
    pub scales: [[u8; 2]; 4],
}

impl Block {
    /// The scale that stands scattered over the top nibbles.
    pub fn d(&self) -> F16 {
        F16::from_bits((0..4).map(|n| u16::from_le_bytes(self.scales[n]) >> 12 << (4 * n)).sum())
    }
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d().get();
        for (k, eight) in out.chunks_exact_mut(8).enumerate() {
            let s = u16::from_le_bytes(self.scales[k / 8]) >> (k / 2 % 4 * 3) & 7;
            let scale = d * f32::from(2 * s + 1);
            let nibble = self.qh[k / 2] >> (k % 2 * 4) & 15;
            let shift = if nibble & 8 != 0 { -SHIFT } else { SHIFT };
            let values = grid::IQ1[usize::from(self.qs[k]) | usize::from(nibble & 7) << 8];
            for (i, w) in eight.iter_mut().enumerate() {
                *w = scale * (f32::from(values[i]) + shift);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [f32; 16] = std::array::from_fn(|j| fit::ternary_scale(&x[16 * j..][..16]).abs());
        let d = F16::saturating(fit::extreme(&fits) / 15.0);
        let s = fits.map(|f| fit::nearest((f * fit::inverse(d.get()) - 1.0) / 2.0).clamp(0.0, 7.0));
        let words: [([usize; 1], bool); 32] = std::array::from_fn(|k| shifted_codewords(&x[8 * k..], d.get() * (2.0 * s[k / 2] + 1.0)));
        let nibble = |k: usize| (words[k].0[0] >> 8) as u8 | u8::from(words[k].1) << 3;
        let scales = std::array::from_fn(|n| {
            let word = (0..4).map(|p| (s[4 * n + p] as u16) << (3 * p)).sum::<u16>();
            (word | (d.to_bits() >> (4 * n) & 15) << 12).to_le_bytes()
        });
        Block { qs: words.map(|w| w.0[0] as u8), qh: std::array::from_fn(|b| nibble(2 * b) | nibble(2 * b + 1) << 4), scales }
    }
}
