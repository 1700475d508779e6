//! `Q5_0`: 32 weights in 22 bytes (5.5 bits each).
//!
//! | bytes | field | type    | meaning                                                                                |
//! |-------|-------|---------|----------------------------------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d · (q − 16)`                                                              |
//! | 2–5   | `qh`  | u32 LE  | bit `i` is the fifth bit of weight `i`                                                 |
//! | 6–21  | `qs`  | u8 × 16 | low four bits of `q`: low nibbles are weights 0–15, high nibbles weights 16–31         |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qh: [u8; 4],
    pub qs: [u8; 16],
}

impl Block {
    /// The 5-bit code of weight `i`.
    pub fn code(&self, i: usize) -> u8 {
        code(&self.qh, &self.qs, i)
    }
}

/// The 5-bit code of weight `i`, which `Q5_1` packs alike.
pub(super) fn code(qh: &[u8; 4], qs: &[u8; 16], i: usize) -> u8 {
    let low = if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
    low | (qh[i / 8] >> (i % 8) & 1) << 4
}

/// Splits 32 codes into (fifth bits, nibbles).
pub(super) fn pack(q: [u8; 32]) -> ([u8; 4], [u8; 16]) {
    let qh = std::array::from_fn(|b| (0..8).map(|i| (q[8 * b + i] >> 4) << i).sum());
    (qh, std::array::from_fn(|i| q[i] & 15 | q[i + 16] << 4))
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (i, w) in out.iter_mut().enumerate() {
            *w = d * (f32::from(self.code(i)) - 16.0);
        }
    }

    /// The weight of largest magnitude becomes −16.
    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::extreme(x) / -16.0);
        let inverse = fit::inverse(d.get());
        let (qh, qs) = pack(std::array::from_fn(|i| (fit::nearest(x[i] * inverse) + 16.0).clamp(0.0, 31.0) as u8));
        Block { d, qh, qs }
    }
}
