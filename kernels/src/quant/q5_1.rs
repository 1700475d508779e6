//! `Q5_1`: 32 weights in 24 bytes (6 bits each).
//!
//! | bytes | field | type    | meaning                                                                        |
//! |-------|-------|---------|--------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · q + m`                                                         |
//! | 2–3   | `m`   | f16     | minimum                                                                        |
//! | 4–7   | `qh`  | u32 LE  | bit `i` is the fifth bit of weight `i`                                         |
//! | 8–23  | `qs`  | u8 × 16 | low four bits of `q`: low nibbles are weights 0–15, high nibbles weights 16–31 |

use super::{F16, fit, q5_0};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub m: F16,
    pub qh: [u8; 4],
    pub qs: [u8; 16],
}

impl Block {
    /// The 5-bit code of weight `i`.
    pub fn code(&self, i: usize) -> u8 {
        q5_0::code(&self.qh, &self.qs, i)
    }
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (i, w) in out.iter_mut().enumerate() {
            *w = d * f32::from(self.code(i)) + m;
        }
    }

    /// The codes 0 and 31 stand for the smallest and the largest weight.
    fn encode(x: &[f32]) -> Block {
        let (lo, hi) = fit::range(x);
        let (d, m) = (F16::saturating((hi - lo) / 31.0), F16::saturating(lo));
        let (inverse, lo) = (fit::inverse(d.get()), m.get());
        let (qh, qs) = q5_0::pack(std::array::from_fn(|i| fit::nearest((x[i] - lo) * inverse).clamp(0.0, 31.0) as u8));
        Block { d, m, qh, qs }
    }
}
