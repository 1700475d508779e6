//! AVX2 with FMA and F16C. [`rows`] multiplies rows as they lie in the file, for few tokens; [`gemm`] a
//! [`panel`] of a strip of rows, for many. Both begin with [`run`], 256 weights unpacked.

mod gemm;
mod panel;
mod quantize;
mod rows;
mod run;
mod tiles;
mod transpose;

use crate::cpu::exact;
use crate::cpu::kv::Cache;
use crate::cpu::lanes::elementwise;
use crate::cpu::linear::Routes;
use crate::cpu::partial::{Partial, Scoring, Span};
use crate::cpu::{Kernels, attention};
use crate::quant::{Format, iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};
use run::Unpack;
use std::arch::x86_64::__m256;

attention::attention!("avx2,fma,f16c", __m256, 2, attend);
elementwise!("avx2,fma,f16c");
exact::exact!("avx2,fma,f16c", __m256, 2);

/// Tokens from which a panel pays. Measured on an Emerald Rapids Xeon, one thread, `Q4_K` in cache, ns a weight: in place 0.31 for 8
/// tokens, 0.04 for each; by panels 0.06, and 0.03 for each three.
const MANY: usize = 6;

/// What AVX2 does better than plain code.
pub fn fill(k: &mut Kernels) {
    elementwise::fill(k);
    k.attend = attend;
    k.quantize = quantize::quantize;
    k.tiles = tiles::TILES;
    products::<q4_0::Block>(k, Format::Q4_0);
    products::<q4_1::Block>(k, Format::Q4_1);
    products::<q5_0::Block>(k, Format::Q5_0);
    products::<q5_1::Block>(k, Format::Q5_1);
    products::<q8_0::Block>(k, Format::Q8_0);
    products::<iq4_nl::Block>(k, Format::IQ4_NL);
    products::<mxfp4::Block>(k, Format::MXFP4);
    products::<q2_k::Block>(k, Format::Q2_K);
    products::<q3_k::Block>(k, Format::Q3_K);
    products::<q4_k::Block>(k, Format::Q4_K);
    products::<q5_k::Block>(k, Format::Q5_K);
    products::<q6_k::Block>(k, Format::Q6_K);
    products::<iq4_xs::Block>(k, Format::IQ4_XS);
    fill_exact(k);
}

fn products<B: Unpack>(k: &mut Kernels, format: Format) {
    let few = rows::route::<B>();
    *k.routes_mut(format) = Routes { one: few, few, many: gemm::route::<B>(), many_from: MANY };
}
