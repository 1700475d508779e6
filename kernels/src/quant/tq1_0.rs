//! `TQ1_0`: 256 weights in 54 bytes (1.6875 bits each): ternary, five digits of base 3 in a byte.
//!
//! | bytes | field | type    | meaning                                    |
//! |-------|-------|---------|--------------------------------------------|
//! | 0–47  | `qs`  | u8 × 48 | five digits a byte                         |
//! | 48–51 | `qh`  | u8 × 4  | four digits a byte                         |
//! | 52–53 | `d`   | f16     | scale: `w = d · (t − 1)`, `t` = 0, 1 or 2  |
//!
//! A byte is a fraction of 256; multiplying by 3 carries the next digit out at the top. Weights go digit by digit over `qs[0..32]`, then
//! over `qs[32..48]`, then over `qh`.

use super::{F16, fit};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    pub qs: [u8; 48],
    pub qh: [u8; 4],
    pub d: F16,
}

/// (first byte, bytes, digits, first weight) of each run; bytes are counted through `qs` into `qh`.
const RUNS: [(usize, usize, u32, usize); 3] = [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)];

/// (byte, digit) of every weight of a run, in the order of the weights, with the weight's index.
fn places() -> impl Iterator<Item = (usize, u32, usize)> {
    RUNS.into_iter().flat_map(|(start, bytes, digits, first)| {
        (0..digits).flat_map(move |n| (0..bytes).map(move |b| (start + b, n, first + n as usize * bytes + b)))
    })
}

// SAFETY: only bytes.
unsafe impl super::Block for Block {
    const WEIGHTS: usize = 256;

    fn decode(&self, out: &mut [f32]) {
        let d = self.d.get();
        for (byte, n, i) in places() {
            let byte = if byte < 48 { self.qs[byte] } else { self.qh[byte - 48] };
            let fraction = byte.wrapping_mul(3u8.pow(n));
            let digit = (u16::from(fraction) * 3) >> 8;
            out[i] = d * (f32::from(digit) - 1.0);
        }
    }

    fn encode(x: &[f32]) -> Block {
        let d = F16::saturating(fit::ternary_scale(x));
        let inverse = fit::inverse(d.get());
        let mut value = [0u16; 52]; // the digits as one number below 3^5
        for (byte, n, i) in places() {
            let digit = (fit::nearest(x[i] * inverse) + 1.0).clamp(0.0, 2.0) as u16;
            value[byte] += digit * 3u16.pow(4 - n);
        }
        // Rounded up, so that the digits carried out are the digits put in.
        let fraction = value.map(|v| (v * 256).div_ceil(243) as u8);
        Block { qs: std::array::from_fn(|b| fraction[b]), qh: std::array::from_fn(|b| fraction[48 + b]), d }
    }
}
