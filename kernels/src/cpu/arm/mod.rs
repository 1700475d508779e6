//! Kernels for ARM64, lowest tier first: [`neon`] (every ARMv8: Cortex-A72), [`dotprod`] (`sdot`: Cortex-A76), [`i8mm`] (`smmla`: Cortex-A720).
//!
//! - [`activations`]: to int8, for one token. · [`panel`]: matrices times many tokens, what the tiers share of it.
//! - [`decoded`]: what no tier has a kernel of its own for, through the plain decoder.

pub mod activations;
pub mod decoded;
pub mod dotprod;
mod instructions;
pub mod panel;

use super::{Kernels, Tier, place};
use crate::quant::FORMATS;

/// Overrides in the table what its tier and those below do better than plain code.
pub fn fill(k: &mut Kernels) {
    if k.tier >= Tier::Neon {
        for layout in FORMATS {
            k.products[place(layout.format)] = decoded::routes(layout.format);
        }
        k.quantize = activations::quantize::<panel::Whole>;
    }
    if k.tier >= Tier::Dotprod {
        k.quantize = activations::quantize::<panel::Fours>;
        dotprod::fill(&mut k.products);
    }
}
