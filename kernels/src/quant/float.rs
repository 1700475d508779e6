//! `F32`, `F16`, `BF16`: one plain number a weight, little endian. [`F16`] is also the type of the scales inside other formats' blocks.
//!
//! The types are bytes, not numbers: a block in a mapped file may start at any address.

use super::Block;
use half::{bf16, f16};

#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct F32([u8; 4]);

/// IEEE binary16.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct F16([u8; 2]);

/// The upper half of an [`F32`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct BF16([u8; 2]);

impl F16 {
    pub const fn from_bits(bits: u16) -> F16 {
        F16(bits.to_le_bytes())
    }

    pub const fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }

    /// Exact.
    pub fn get(self) -> f32 {
        f16::from_bits(self.to_bits()).to_f32()
    }

    /// The nearest value, ties to even; past the range the largest finite one, so that a scale never becomes infinite.
    pub fn saturating(x: f32) -> F16 {
        F16::from_bits(f16::from_f32(x.clamp(-65504.0, 65504.0)).to_bits())
    }
}

// SAFETY: transparent over bytes.
unsafe impl Block for F32 {
    const WEIGHTS: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = f32::from_le_bytes(self.0);
    }

    fn encode(x: &[f32]) -> F32 {
        F32(x[0].to_le_bytes())
    }
}

// SAFETY: transparent over bytes.
unsafe impl Block for F16 {
    const WEIGHTS: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = self.get();
    }

    /// The nearest value, ties to even; past the range infinity, as IEEE has it.
    fn encode(x: &[f32]) -> F16 {
        F16::from_bits(f16::from_f32(x[0]).to_bits())
    }
}

// SAFETY: transparent over bytes.
unsafe impl Block for BF16 {
    const WEIGHTS: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16);
    }

    /// The nearest value, ties to even.
    fn encode(x: &[f32]) -> BF16 {
        BF16(bf16::from_f32(x[0]).to_bits().to_le_bytes())
    }
}
