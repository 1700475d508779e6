//! `IQ4_NL`: 32 weights in 18 bytes (4.5 bits each), on sixteen levels that lie closer together near zero.
//!
//! | bytes | field | type    | meaning                                                                         |
//! |-------|-------|---------|---------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · LEVELS[q]`                                                      |
//! | 2–17  | `qs`  | u8 × 16 | 4-bit `q`: low nibbles are weights 0–15, high nibbles weights 16–31             |

use super::{F16, fit};

/// The sixteen levels, ascending; `IQ4_XS` uses them too.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 16],
}

/// 32 weights on the levels, times `d`: nibbles low then high.
pub(super) fn decode_32(d: f32, qs: &[u8], out: &mut [f32]) {
    for (i, &byte) in qs.iter().enumerate() {
        out[i] = d * f32::from(LEVELS[usize::from(byte & 15)]);
        out[i + 16] = d * f32::from(LEVELS[usize::from(byte >> 4)]);
    }
}

/// The inverse of [`decode_32`]: the levels nearest to `x / d`.
pub(super) fn encode_32(d: f32, x: &[f32]) -> [u8; 16] {
    let inverse = fit::inverse(d);
    let q = |v: f32| fit::nearest_code(v * inverse, &LEVELS) as u8;
    std::array::from_fn(|i| q(x[i]) | q(x[i + 16]) << 4)
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        decode_32(self.d.get(), &self.qs, out);
    }

    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::codebook_scale(x, &LEVELS));
        Block { d, qs: encode_32(d.get(), x) }
    }
}
