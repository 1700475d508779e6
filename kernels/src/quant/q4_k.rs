//! `Q4_K`: 256 weights in 144 bytes (4.5 bits each): eight groups of 32, each with a 6-bit scale and a 6-bit minimum.
//!
//! | bytes  | field    | type     | meaning                                                                                     |
//! |--------|----------|----------|---------------------------------------------------------------------------------------------|
//! | 0–1    | `d`      | f16      | scale of the scales: in group `j`, `w = d·S[j]·q − dmin·M[j]`                               |
//! | 2–3    | `dmin`   | f16      | scale of the minima                                                                         |
//! | 4–15   | `scales` | u8 × 12  | `S` and `M`, see [`scale_and_minimum`]                                                      |
//! | 16–143 | `qs`     | u8 × 128 | 4-bit `q`: 32 bytes hold two groups, the even one in the low nibbles, the odd in the high   |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub d: F16,
    pub dmin: F16,
    pub scales: [u8; 12],
    pub qs: [u8; 128],
}

/// (S, M) of group `j` < 8. Bytes 0–3 hold `S` and 4–7 `M` of groups 0–3 in their low six bits; bytes 8–11 hold the low four bits of `S`
/// (low nibble) and `M` (high nibble) of groups 4–7, whose top two bits are the top two bits of bytes 0–3 and 4–7.
pub fn scale_and_minimum(scales: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (scales[j + 4] & 15 | scales[j - 4] >> 6 << 4, scales[j + 4] >> 4 | scales[j] >> 6 << 4)
    }
}

/// The inverse of [`scale_and_minimum`] over all groups; values up to 63.
pub(super) fn pack_scales(s: [u8; 8], m: [u8; 8]) -> [u8; 12] {
    std::array::from_fn(|b| match b {
        0..4 => s[b] | s[b + 4] >> 4 << 6,
        4..8 => m[b - 4] | m[b] >> 4 << 6,
        _ => s[b - 4] & 15 | m[b - 4] << 4,
    })
}

/// Scales, minima and codes of 256 weights with codes up to `top`: what `Q4_K` and `Q5_K` share.
pub(super) fn quantize(x: &[f32], top: f32) -> (F16, F16, [u8; 12], [u8; 256]) {
    let fits: [(f32, f32); 8] = std::array::from_fn(|j| fit::scale_and_minimum(&x[32 * j..][..32], top));
    let d = F16::saturating(fits.iter().fold(0.0, |a, f| f32::max(a, f.0)) / 63.0);
    let dmin = F16::saturating(fits.iter().fold(0.0, |a, f| f32::max(a, f.1)) / 63.0);
    let six_bits = |v: f32, unit: F16| fit::nearest(v * fit::inverse(unit.get())).clamp(0.0, 63.0) as u8;
    let s = fits.map(|f| six_bits(f.0, d));
    let m = fits.map(|f| six_bits(f.1, dmin));
    let mut q = [0; 256];
    for j in 0..8 {
        let inverse = fit::inverse(d.get() * f32::from(s[j]));
        let minimum = dmin.get() * f32::from(m[j]);
        for i in 32 * j..32 * j + 32 {
            q[i] = fit::nearest((x[i] + minimum) * inverse).clamp(0.0, top) as u8;
        }
    }
    (d, dmin, pack_scales(s, m), q)
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        for (j, group) in out.chunks_exact_mut(32).enumerate() {
            let (s, m) = scale_and_minimum(&self.scales, j);
            let (d, m) = (self.d.get() * f32::from(s), self.dmin.get() * f32::from(m));
            for (w, &byte) in group.iter_mut().zip(&self.qs[j / 2 * 32..]) {
                let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                *w = d * f32::from(q) - m;
            }
        }
    }

    fn encode(x: &[f32]) -> Block {
        let (d, dmin, scales, q) = quantize(x, 15.0);
        let qs = std::array::from_fn(|b| {
            let i = b / 32 * 64 + b % 32;
            q[i] | q[i + 32] << 4
        });
        Block { d, dmin, scales, qs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_scales_come_back() {
        let s = [0, 63, 5, 17, 48, 33, 15, 62];
        let m = [63, 1, 32, 0, 16, 47, 31, 2];
        let packed = pack_scales(s, m);
        for j in 0..8 {
            assert_eq!(scale_and_minimum(&packed, j), (s[j], m[j]), "group {j}");
        }
    }
}
