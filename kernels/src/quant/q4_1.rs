//! `Q4_1`: 32 weights in 20 bytes (5 bits each).
//!
//! | bytes | field | type    | meaning                                                             |
//! |-------|-------|---------|---------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · q + m`                                              |
//! | 2–3   | `m`   | f16     | minimum                                                             |
//! | 4–19  | `qs`  | u8 × 16 | 4-bit `q`: low nibbles are weights 0–15, high nibbles weights 16–31 |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub m: F16,
    pub qs: [u8; 16],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (i, &byte) in self.qs.iter().enumerate() {
            out[i] = d * f32::from(byte & 15) + m;
            out[i + 16] = d * f32::from(byte >> 4) + m;
        }
    }

    /// The codes 0 and 15 stand for the smallest and the largest weight.
    fn encode(x: &[f32]) -> Block {
        let (lo, hi) = fit::range(x);
        let (d, m) = (F16::saturating((hi - lo) / 15.0), F16::saturating(lo));
        let (inverse, lo) = (fit::inverse(d.get()), m.get());
        let q = |v: f32| fit::nearest((v - lo) * inverse).clamp(0.0, 15.0) as u8;
        Block { d, m, qs: std::array::from_fn(|i| q(x[i]) | q(x[i + 16]) << 4) }
    }
}
