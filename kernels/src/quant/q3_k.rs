//! `Q3_K`: 256 weights in 110 bytes (3.4375 bits each): sixteen groups of 16, each with a 6-bit scale.
//!
//! | bytes   | field    | type    | meaning                                                                      |
//! |---------|----------|---------|------------------------------------------------------------------------------|
//! | 0–31    | `hmask`  | u8 × 32 | bit `i / 32` of byte `i % 32` is the high bit of weight `i`                  |
//! | 32–95   | `qs`     | u8 × 64 | low two bits, packed as in [`q2_k`]                                          |
//! | 96–107  | `scales` | u8 × 12 | 6-bit `S`, see [`scale`]; `w = d · (S − 32) · (q − 4)`, `q` of three bits    |
//! | 108–109 | `d`      | f16     | scale of the scales                                                          |

use super::{F16, fit, q2_k};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub hmask: [u8; 32],
    pub qs: [u8; 64],
    pub scales: [u8; 12],
    pub d: F16,
}

/// `S − 32` of group `j` < 16: low four bits in the nibbles of bytes 0–7 (groups 0–7 low, 8–15 high), high two bits in the bit pair `j / 4`
/// of byte `8 + j % 4`.
pub fn scale(scales: &[u8; 12], j: usize) -> i8 {
    let low = if j < 8 { scales[j] & 15 } else { scales[j - 8] >> 4 };
    let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

fn pack_scales(s: [i8; 16]) -> [u8; 12] {
    let s = s.map(|s| (s + 32) as u8);
    std::array::from_fn(|b| match b {
        0..8 => s[b] & 15 | (s[b + 8] & 15) << 4,
        _ => (0..4).map(|p| (s[4 * p + b - 8] >> 4) << (2 * p)).sum(),
    })
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (i, w) in out.iter_mut().enumerate() {
            let d = self.d.get() * f32::from(scale(&self.scales, i / 16));
            let high = self.hmask[i % 32] >> (i / 32) & 1;
            *w = d * (f32::from(q2_k::two_bits(&self.qs, i) | high << 2) - 4.0);
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [f32; 16] = std::array::from_fn(|j| fit::signed_scale(&x[16 * j..][..16], -4.0, 3.0));
        let d = F16::saturating(fit::extreme(&fits) / -32.0);
        let inverse = fit::inverse(d.get());
        let scales = fits.map(|s| fit::nearest(s * inverse).clamp(-32.0, 31.0) as i8);
        let q: [u8; 256] = std::array::from_fn(|i| {
            let inverse = fit::inverse(d.get() * f32::from(scales[i / 16]));
            (fit::nearest(x[i] * inverse) + 4.0).clamp(0.0, 7.0) as u8
        });
        let hmask = std::array::from_fn(|b| (0..8).map(|p| (q[32 * p + b] >> 2) << p).sum());
        Block { hmask, qs: q2_k::pack_two_bits(&q), scales: pack_scales(scales), d }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_scales_come_back() {
        let s = [-32, 31, 0, -1, 15, 16, -16, -17, 7, -8, 30, -31, 1, 2, -3, 21];
        let packed = pack_scales(s);
        for (j, &s) in s.iter().enumerate() {
            assert_eq!(scale(&packed, j), s, "group {j}");
        }
    }
}
