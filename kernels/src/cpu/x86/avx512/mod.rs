//! AVX-512. [`chunk`] unpacks 256 weights of any fast format; [`rows`] multiplies rows as they lie in the file, for one token by
//! [`quarters`] of vectors and for a few by [`lanes`]; [`gemm`] makes a [`panel`] of a strip of rows, for many.

mod arrangement;
mod chunk;
mod gemm;
mod lanes;
mod panel;
mod quantize;
mod quarters;
mod requantize;
mod rows;
mod tiles;
mod transpose;

use crate::cpu::exact;
use crate::cpu::kv::Cache;
use crate::cpu::lanes::elementwise;
use crate::cpu::linear::{Route, Routes};
use crate::cpu::partial::{Partial, Scoring, Span};
use crate::cpu::{Kernels, attention};
use crate::quant::Format;
use chunk::{Unpack, format};
use lanes::Lanes;
use quarters::Quarters;
use std::arch::x86_64::__m512;

attention::attention!("avx512f,avx512bw,avx512dq,avx512vl", __m512, 4, attend);
attention::attention!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", __m512, 4, attend_by_dots);
exact::exact!("avx512f,avx512bw,avx512dq,avx512vl", __m512, 4);
elementwise!("avx512f,avx512bw,avx512dq,avx512vl");

/// Tokens from which a panel pays. Measured on an Emerald Rapids Xeon, two threads, Llama-3.2-1B Q4_K_M, ms a step: in place 148 for 8
/// tokens, 310 for 16, 403 for 23; by panels 211 for 24, 265 for 48, so about 180 for 10.
const MANY: usize = 10;

/// What AVX-512 without VNNI does better.
pub fn fill(k: &mut Kernels) {
    elementwise::fill(k);
    k.attend = attend;
    fill_exact(k);
}

/// What VNNI adds: products of int8.
pub fn fill_vnni(k: &mut Kernels) {
    k.quantize = quantize::quantize;
    k.tiles = tiles::TILES;
    k.attend = attend_by_dots;
    by_32::<format::Q4_0>(k, Format::Q4_0);
    by_32::<format::Q4_1>(k, Format::Q4_1);
    by_32::<format::Q5_0>(k, Format::Q5_0);
    by_32::<format::Q5_1>(k, Format::Q5_1);
    by_32::<format::Q8_0>(k, Format::Q8_0);
    by_32::<format::Iq4Nl>(k, Format::IQ4_NL);
    by_32::<format::Mxfp4>(k, Format::MXFP4);
    by_16::<format::Q2K>(k, Format::Q2_K);
    by_16::<format::Q3K>(k, Format::Q3_K);
    by_32::<format::Q4K>(k, Format::Q4_K);
    by_32::<format::Q5K>(k, Format::Q5_K);
    by_16::<format::Q6K>(k, Format::Q6_K);
    by_32::<format::Iq4Xs>(k, Format::IQ4_XS);
}

/// Of a format with scales of 32 weights.
fn by_32<F: Unpack>(k: &mut Kernels, format: Format) {
    products::<F>(k, format, rows::one::<Quarters<F>>());
}

/// Of a format with scales of 16.
fn by_16<F: Unpack>(k: &mut Kernels, format: Format) {
    products::<F>(k, format, rows::one::<Lanes<F>>());
}

fn products<F: Unpack>(k: &mut Kernels, format: Format, one: Route) {
    *k.routes_mut(format) = Routes { one, few: rows::few::<Lanes<F>>(), many: gemm::route::<F>(), many_from: MANY };
}
