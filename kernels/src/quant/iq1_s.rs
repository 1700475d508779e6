//! `IQ1_S`: 256 weights in 50 bytes (1.5625 bits each): eight groups of 32, each of four ternary codewords with a 3-bit scale and a shift.
//!
//! | bytes | field | type       | meaning                                                                                     |
//! |-------|-------|------------|---------------------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16        | scale: in a group, `w = d · (2·S + 1) · (grid ± ⅛)`                                         |
//! | 2–33  | `qs`  | u8 × 32    | low eight bits of the index into [`grid::IQ1`] of eight weights                             |
//! | 34–49 | `qh`  | u16 LE × 8 | a group's: four times the index's high 3 bits, 3-bit `S`, top bit set: −⅛                   |

use super::{F16, fit, grid};

/// How far the levels are shifted, up or down.
pub const SHIFT: f32 = 0.125;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 32],
    pub qh: [[u8; 2]; 8],
}

/// The codewords nearest to eights of weights, for `w = scale · (grid + shift)`: indices and the squared error in units of `scale²`.
pub(super) fn codewords<const N: usize>(x: &[f32], scale: f32, shift: f32) -> ([usize; N], f32) {
    let inverse = fit::inverse(scale);
    let mut error = 0.0;
    let indices = std::array::from_fn(|k| {
        let target: [f32; 8] = std::array::from_fn(|i| x[8 * k + i] * inverse - shift);
        let index = grid::nearest(&grid::IQ1, &target);
        error += (0..8).map(|i| (target[i] - f32::from(grid::IQ1[index][i])).powi(2)).sum::<f32>();
        index
    });
    (indices, error)
}

/// The better of the two shifts: (indices, shifted down).
pub(super) fn shifted_codewords<const N: usize>(x: &[f32], scale: f32) -> ([usize; N], bool) {
    let (up, down) = (codewords(x, scale, SHIFT), codewords(x, scale, -SHIFT));
    if down.1 < up.1 { (down.0, true) } else { (up.0, false) }
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (k, eight) in out.chunks_exact_mut(8).enumerate() {
            let word = u16::from_le_bytes(self.qh[k / 4]);
            let scale = self.d.get() * f32::from(2 * (word >> 12 & 7) + 1);
            let shift = if word >> 15 == 1 { -SHIFT } else { SHIFT };
            let high = usize::from(word >> (k % 4 * 3) & 7);
            let values = grid::IQ1[usize::from(self.qs[k]) | high << 8];
            for (i, w) in eight.iter_mut().enumerate() {
                *w = scale * (f32::from(values[i]) + shift);
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [f32; 8] = std::array::from_fn(|j| fit::ternary_scale(&x[32 * j..][..32]).abs());
        let d = F16::saturating(fit::extreme(&fits) / 15.0);
        let (mut qs, mut qh) = ([0; 32], [[0; 2]; 8]);
        for j in 0..8 {
            let s = fit::nearest((fits[j] * fit::inverse(d.get()) - 1.0) / 2.0).clamp(0.0, 7.0);
            let (indices, down) = shifted_codewords::<4>(&x[32 * j..], d.get() * (2.0 * s + 1.0));
            let mut word = (s as u16) << 12 | u16::from(down) << 15;
            for (k, index) in indices.into_iter().enumerate() {
                qs[4 * j + k] = index as u8;
                word |= ((index >> 8) as u16) << (3 * k);
            }
            qh[j] = word.to_le_bytes();
        }
        Block { d, qs, qh }
    }
}
