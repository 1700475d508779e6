//! Kernels for ARM64, lowest tier first: [`neon`] (every ARMv8: Cortex-A72), [`dotprod`] (`sdot`: Cortex-A76), [`i8mm`] (`smmla`:
//! Cortex-A720).
//!
//! - [`activations`]: to int8. · [`panel`]: matrices times many tokens, what the tiers share of it.
//! - [`k_quants`], [`blocks_of_32`]: matrices times one token.

mod activations;
mod blocks_of_32;
mod dotprod;
mod i8mm;
mod instructions;
mod k_quants;
mod neon;
mod panel;
mod vector;

use super::linear::Product;
use super::{Kernels, Tier};
use activations::Int8;

/// Overrides in the table what its tier and those below do better than plain code.
pub fn fill(k: &mut Kernels) {
    if k.tier >= Tier::Neon {
        k.quantize = activations::quantize::<panel::Whole>;
        k.tiles = panel::tokens::TILES;
        neon::fill(k);
    }
    if k.tier >= Tier::Dotprod {
        k.quantize = activations::quantize::<panel::Fours>;
        dotprod::fill(k);
    }
    if k.tier >= Tier::I8mm {
        k.quantize = activations::quantize::<panel::Eights>;
        i8mm::fill(k);
    }
}

/// The products of few tokens, from a function for rows and one token; `$per` activations share a scale.
macro_rules! one_token {
    ($k:ident, $per:literal, $($format:ident $dots:path),*) => {
        $(
            let route = Route {
                form: if $per == 32 { Form::Int8By32 } else { Form::Int8By256 },
                row_tile: 8,
                scratch: |_| 0,
                // SAFETY: the table's caller checked the lengths, and whoever filled it that this CPU has the tier.
                run: |p| unsafe { each_token(p, $per, $dots) },
            };
            let routes = $k.routes_mut(Format::$format);
            (routes.one, routes.few) = (route, route);
        )*
    };
}
use one_token;

/// A product of few tokens by a function that takes rows, one token, and where their dots go. All tokens meet eight rows at a time, so that
/// these are read from memory once.
///
/// # Safety
/// The function's feature is there; the product's lengths fit one another.
unsafe fn each_token(p: &mut Product, per: usize, dots: unsafe fn(&[u8], Int8, &mut [f32])) {
    let rows = if p.tokens == 1 { p.rows } else { 8 };
    for first in (0..p.rows).step_by(rows) {
        let n = rows.min(p.rows - first);
        for t in 0..p.tokens {
            let x = Int8::token(p.activations, p.cols, per, t);
            // SAFETY: the caller's promise.
            unsafe { dots(&p.weights[first * p.row_bytes..][..n * p.row_bytes], x, &mut p.out.token(t)[first..][..n]) };
        }
    }
}
