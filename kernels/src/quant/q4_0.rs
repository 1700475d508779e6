//! `Q4_0`: 32 weights in 18 bytes (4.5 bits each).
//!
//! | bytes | field | type    | meaning                                                                       |
//! |-------|-------|---------|-------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · (q − 8)`                                                      |
//! | 2–17  | `qs`  | u8 × 16 | 4-bit `q`: low nibbles are weights 0–15, high nibbles weights 16–31           |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 16],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (i, &byte) in self.qs.iter().enumerate() {
            out[i] = d * (f32::from(byte & 15) - 8.0);
            out[i + 16] = d * (f32::from(byte >> 4) - 8.0);
        }
    }

    /// The weight of largest magnitude becomes −8.
    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::extreme(x) / -8.0);
        let inverse = fit::inverse(d.get());
        let q = |v: f32| (fit::nearest(v * inverse) + 8.0).clamp(0.0, 15.0) as u8;
        Block { d, qs: std::array::from_fn(|i| q(x[i]) | q(x[i + 16]) << 4) }
    }
}
