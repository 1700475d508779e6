//! `Q1_0`: 128 weights in 18 bytes (1.125 bits each): a sign each.
//!
//! | bytes | field | type    | meaning                                                       |
//! |-------|-------|---------|---------------------------------------------------------------|
//! | 0–1   | `d`   | f16     | scale: `w = d` where the bit is set, `−d` where it is not     |
//! | 2–17  | `qs`  | u8 × 16 | weight `i` is bit `i % 8` of byte `i / 8`                     |

use super::F16;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub qs: [u8; 16],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 128;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (i, w) in out.iter_mut().enumerate() {
            *w = if self.qs[i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
        }
    }

    /// The scale is the mean magnitude, which for given signs loses least.
    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(x.iter().map(|v| v.abs()).sum::<f32>() / 128.0);
        Block { d, qs: std::array::from_fn(|b| (0..8).map(|i| u8::from(x[8 * b + i] >= 0.0) << i).sum()) }
    }
}
