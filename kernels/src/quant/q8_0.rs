//! `Q8_0`: 32 weights in 34 bytes (8.5 bits each).
//!
//! | bytes | field | type    | meaning            |
//! |-------|-------|---------|--------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · q` |
//! | 2–33  | `qs`  | i8 × 32 | `q`                |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [i8; 32],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (w, &q) in out.iter_mut().zip(&self.qs) {
            *w = d * f32::from(q);
        }
    }

    /// The weight of largest magnitude becomes ±127.
    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::extreme(x).abs() / 127.0);
        let inverse = fit::inverse(d.get());
        Block { d, qs: std::array::from_fn(|i| fit::nearest(x[i] * inverse).clamp(-127.0, 127.0) as i8) }
    }
}
