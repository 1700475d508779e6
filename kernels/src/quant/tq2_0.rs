//! `TQ2_0`: 256 weights in 66 bytes (2.0625 bits each): ternary in two bits.
//!
//! | bytes | field | type    | meaning                                                     |
//! |-------|-------|---------|-------------------------------------------------------------|
//! | 0–63  | `qs`  | u8 × 64 | 2-bit `q`, packed as in [`q2_k`]                            |
//! | 64–65 | `d`   | f16     | scale: `w = d · (q − 1)`; `q` = 3 is not written but decodes |

use super::{F16, fit, q2_k};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub qs: [u8; 64],
    pub d: F16,
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (i, w) in out.iter_mut().enumerate() {
            *w = d * (f32::from(q2_k::two_bits(&self.qs, i)) - 1.0);
        }
    }

    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::ternary_scale(x));
        let inverse = fit::inverse(d.get());
        let q = std::array::from_fn(|i| (fit::nearest(x[i] * inverse) + 1.0).clamp(0.0, 2.0) as u8);
        Block { qs: q2_k::pack_two_bits(&q), d }
    }
}
