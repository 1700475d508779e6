//! `Q2_K`: 256 weights in 84 bytes (2.625 bits each): sixteen groups of 16, each with a 4-bit scale and a 4-bit minimum.
//!
//! | bytes | field    | type    | meaning                                                                                       |
//! |-------|----------|---------|-----------------------------------------------------------------------------------------------|
//! | 0–15  | `scales` | u8 × 16 | group `j`: low nibble `S`, high nibble `M`; `w = d·S·q − dmin·M`                              |
//! | 16–79 | `qs`     | u8 × 64 | 2-bit `q`: each half of 128 weights has 32 bytes, its quarter `p` of 32 weights the bits `2p`, `2p + 1` |
//! | 80–81 | `d`      | f16     | scale of the scales                                                                           |
//! | 82–83 | `dmin`   | f16     | scale of the minima                                                                           |

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub scales: [u8; 16],
    pub qs: [u8; 64],
    pub d: F16,
    pub dmin: F16,
}

/// The 2-bit field of weight `i`, which `Q3_K` and `TQ2_0` pack alike.
pub(super) fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// The inverse of [`two_bits`]; takes the low two bits of each code.
pub(super) fn pack_two_bits(q: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|b| {
        let i = b / 32 * 128 + b % 32;
        (0..4).map(|p| (q[i + 32 * p] & 3) << (2 * p)).sum()
    })
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        for (i, w) in out.iter_mut().enumerate() {
            let scale = self.scales[i / 16];
            let (d, m) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
            *w = d * f32::from(two_bits(&self.qs, i)) - m;
        }
    }

    fn encode(x: &[f32]) -> Block {
        let fits: [(f32, f32); 16] = std::array::from_fn(|j| fit::scale_and_minimum(&x[16 * j..][..16], 3.0));
        let d = F16::saturating(fits.iter().fold(0.0, |a, f| f32::max(a, f.0)) / 15.0);
        let dmin = F16::saturating(fits.iter().fold(0.0, |a, f| f32::max(a, f.1)) / 15.0);
        let four_bits = |v: f32, unit: F16| fit::nearest(v * fit::inverse(unit.get())).clamp(0.0, 15.0) as u8;
        let scales = fits.map(|f| four_bits(f.0, d) | four_bits(f.1, dmin) << 4);
        let q = std::array::from_fn(|i| {
            let scale = scales[i / 16];
            let inverse = fit::inverse(d.get() * f32::from(scale & 15));
            fit::nearest((x[i] + dmin.get() * f32::from(scale >> 4)) * inverse).clamp(0.0, 3.0) as u8
        });
        Block { scales, qs: pack_two_bits(&q), d, dmin }
    }
}
