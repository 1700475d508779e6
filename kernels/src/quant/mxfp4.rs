//! `MXFP4`: 32 weights in 17 bytes (4.25 bits each): E2M1 numbers under a power of two. Source: OCP Microscaling Formats specification 1.0.
//!
//! | bytes | field | type    | meaning                                                                     |
//! |-------|-------|---------|-----------------------------------------------------------------------------|
//! | 0     | `e`   | E8M0    | `w = 2^(e − 128) · DOUBLED[q]`                                              |
//! | 1–16  | `qs`  | u8 × 16 | 4-bit `q`: low nibbles are weights 0–15, high nibbles weights 16–31         |

use super::fit;

/// Twice the E2M1 values, so that they are integers; the upper eight are the negatives. `NVFP4` uses them too.
pub const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub e: u8,
    pub qs: [u8; 16],
}

/// 2^(e − 128), exact; the lowest two are denormal.
pub fn half_power(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// The code whose value is nearest to `v`, in units of [`DOUBLED`].
pub(super) fn nearest_code(v: f32) -> u8 {
    let above = |limit: f32| u8::from(v.abs() > limit);
    let magnitude = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0].map(above).iter().sum::<u8>();
    magnitude | u8::from(v < 0.0 && magnitude > 0) << 3
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let d = half_power(self.e);
        for (i, &byte) in self.qs.iter().enumerate() {
            out[i] = d * f32::from(DOUBLED[usize::from(byte & 15)]);
            out[i + 16] = d * f32::from(DOUBLED[usize::from(byte >> 4)]);
        }
    }

    /// The exponent that brings the largest magnitude into [4, 8), as the specification has it: above 6 saturates.
    fn encode(x: &[f32]) -> Block {
        let largest = fit::extreme(x).abs();
        let exponent = (largest.to_bits() >> 23) as u8; // of a denormal 0, of infinity 255
        let e = exponent.saturating_sub(2);
        let inverse = if largest == 0.0 { 0.0 } else { 1.0 / half_power(e) };
        let q = |v: f32| nearest_code(v * inverse);
        Block { e, qs: std::array::from_fn(|i| q(x[i]) | q(x[i + 16]) << 4) }
    }
}
