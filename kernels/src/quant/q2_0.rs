//! `Q2_0`: 64 weights in 18 bytes (2.25 bits each).
//!
//! | bytes | field | type    | meaning                                                                   |
//! |-------|-------|---------|---------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · (q − 1)`, so −1, 0, 1 or 2 times `d`                      |
//! | 2–17  | `qs`  | u8 × 16 | 2-bit `q`: weight `i` is the bit pair `i % 4` of byte `i / 4`             |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 16],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 64;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (i, w) in out.iter_mut().enumerate() {
            *w = d * (f32::from(self.qs[i / 4] >> (2 * (i % 4)) & 3) - 1.0);
        }
    }

    /// Ternary: 2·d is left unused, since the side it would serve is one block's chance.
    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::ternary_scale(x));
        let inverse = fit::inverse(d.get());
        let q = |v: f32| (fit::nearest(v * inverse) + 1.0).clamp(0.0, 2.0) as u8;
        Block { d, qs: std::array::from_fn(|b| (0..4).map(|i| q(x[4 * b + i]) << (2 * i)).sum()) }
    }
}
