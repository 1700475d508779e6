//! `NVFP4`: 64 weights in 36 bytes (4.5 bits each): E2M1 numbers, sixteen under one E4M3 scale.
//!
//! | bytes | field    | type    | meaning                                                                                  |
//! |-------|----------|---------|------------------------------------------------------------------------------------------|
//! | 0–3   | `scales` | E4M3    | in group `j` of 16, `w = scales[j] / 2 · DOUBLED[q]` with `DOUBLED` of [`mxfp4`]         |
//! | 4–35  | `qs`     | u8 × 32 | 8 bytes a group: low nibbles are its weights 0–7, high nibbles its weights 8–15          |

use super::fit;
use super::mxfp4::{DOUBLED, nearest_code};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub scales: [u8; 4],
    pub qs: [u8; 32],
}

/// Half the value of an E4M3 number whose sign is ignored: exponent bias 7, no infinity; 0x7F (NaN elsewhere) counts as 0.
pub fn half_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    if byte == 0x7F {
        0.0
    } else if exponent == 0 {
        mantissa * 2f32.powi(-10)
    } else {
        (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 8)
    }
}

/// The E4M3 number nearest to `v` ≥ 0, saturating at 448; halves round up.
fn e4m3(v: f32) -> u8 {
    (0..0x7Eu8).filter(|&b| v >= half_e4m3(b) + half_e4m3(b + 1)).count() as u8
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 64;

    fn decode(&self, out: &mut [f32]) {
        for (j, (group, qs)) in out.chunks_exact_mut(16).zip(self.qs.chunks_exact(8)).enumerate() {
            let d = half_e4m3(self.scales[j]);
            for (i, &byte) in qs.iter().enumerate() {
                group[i] = d * f32::from(DOUBLED[usize::from(byte & 15)]);
                group[i + 8] = d * f32::from(DOUBLED[usize::from(byte >> 4)]);
            }
        }
    }

    /// The scale brings a group's largest magnitude to 6.
    fn encode(x: &[f32]) -> Block {
        let (mut scales, mut qs) = ([0; 4], [0; 32]);
        for (j, (group, qs)) in x.chunks_exact(16).zip(qs.chunks_exact_mut(8)).enumerate() {
            scales[j] = e4m3(fit::extreme(group).abs() / 6.0);
            let inverse = fit::inverse(half_e4m3(scales[j]));
            for (i, byte) in qs.iter_mut().enumerate() {
                *byte = nearest_code(group[i] * inverse) | nearest_code(group[i + 8] * inverse) << 4;
            }
        }
        Block { scales, qs }
    }
}
