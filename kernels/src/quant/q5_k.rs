//! `Q5_K`: 256 weights in 176 bytes (5.5 bits each): `Q4_K` with a fifth bit.
//!
//! | bytes  | field    | type     | meaning                                                                                               |
//! |--------|----------|----------|-------------------------------------------------------------------------------------------------------|
//! | 0–1    | `d`      | f16      | scale of the scales: in group `j` of 32, `w = d·S[j]·q − dmin·M[j]`                                   |
//! | 2–3    | `dmin`   | f16      | scale of the minima                                                                                   |
//! | 4–15   | `scales` | u8 × 12  | `S` and `M`, packed as in [`q4_k`]                                                                    |
//! | 16–47  | `qh`     | u8 × 32  | bit `j` of byte `i` is the fifth bit of weight `i` of group `j`                                       |
//! | 48–175 | `qs`     | u8 × 128 | low four bits of `q`: 32 bytes hold two groups, the even one in the low nibbles, the odd in the high  |

use super::{F16, q4_k};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub dmin: F16,
    pub scales: [u8; 12],
    pub qh: [u8; 32],
    pub qs: [u8; 128],
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (j, group) in out.chunks_exact_mut(32).enumerate() {
            let (s, m) = q4_k::scale_and_minimum(&self.scales, j);
            let (d, m) = (self.d.get() * f32::from(s), self.dmin.get() * f32::from(m));
            for (i, w) in group.iter_mut().enumerate() {
                let byte = self.qs[j / 2 * 32 + i];
                let low = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                let q = low | (self.qh[i] >> j & 1) << 4;
                *w = d * f32::from(q) - m;
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let (d, dmin, scales, q) = q4_k::quantize(x, 31.0);
        let qh = std::array::from_fn(|i| (0..8).map(|j| (q[32 * j + i] >> 4) << j).sum());
        let qs = std::array::from_fn(|b| {
            let i = b / 32 * 64 + b % 32;
            q[i] & 15 | q[i + 32] << 4
        });
        Block { d, dmin, scales, qh, qs }
    }
}
