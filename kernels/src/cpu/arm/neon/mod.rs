//! What every ARMv8 has (Cortex-A72): products of bytes as 16-bit numbers, `smull` and `smlal`, then sums in 32 bits.

pub mod panel;

use super::blocks_of_32::neon::*;
use super::k_quants::{Dot, mat_vec_iq4_xs, mat_vec_q4_k, mat_vec_q5_k, mat_vec_q6_k};
use super::panel::product;
use super::{each_token, one_token};
use crate::cpu::kv::Cache;
use crate::cpu::lanes::elementwise;
use crate::cpu::linear::Route;
use crate::cpu::partial::{Partial, Scoring, Span};
use crate::cpu::{Form, Kernels, attention, exact};
use crate::quant::Format;
use panel::Smull;
use std::arch::aarch64::*;

attention::attention!("neon", float32x4_t, 4, attend);
elementwise!("neon");
exact::exact!("neon", float32x4_t, 4);

/// The fewest tokens that go by a panel, for all formats. Counted (instructions as a Cortex-A72; no board at hand), up to eight tokens by a
/// panel cost as much as 5.9 one after the other of `Q6_K`, 6.6 of `Q4_K`, 8.3 of `Q4_0` and 8.7 of `Q8_0`.
const MANY: usize = 6;

/// Overrides all products, attention, and the kernels of vectors.
pub fn fill(k: &mut Kernels) {
    elementwise::fill(k);
    k.attend = attend;
    fill_exact(k);
    product::fill::<Smull>(k, MANY);
    one_token!(
        k, 32, Q4_0 mat_vec_q4_0, Q4_1 mat_vec_q4_1, Q5_0 mat_vec_q5_0, Q5_1 mat_vec_q5_1, Q8_0 mat_vec_q8_0, IQ4_NL mat_vec_iq4_nl
    );
    one_token!(k, 256, Q4_K mat_vec_q4_k::<Smull>, Q5_K mat_vec_q5_k::<Smull>, Q6_K mat_vec_q6_k::<Smull>, IQ4_XS mat_vec_iq4_xs::<Smull>);
}

impl Dot for Smull {
    /// A lane of 16 bits holds four products, then eight: 8 · 31 · 127 < 2¹⁵.
    #[inline(always)]
    unsafe fn groups(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t {
        // SAFETY: every ARMv8 has these.
        unsafe {
            let dot = |w: [int8x16_t; 2], x0, x1| {
                let sum = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x0));
                let sum = vmlal_s8(vmlal_high_s8(sum, w[0], x0), vget_low_s8(w[1]), vget_low_s8(x1));
                vmlal_high_s8(sum, w[1], x1)
            };
            vpaddlq_s16(vpaddq_s16(dot(e, x[0], x[1]), dot(o, x[2], x[3])))
        }
    }

    /// A lane of 16 bits holds two products: 2 · 127 · 127 < 2¹⁵.
    #[inline(always)]
    unsafe fn bytes(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t {
        // SAFETY: every ARMv8 has these.
        unsafe {
            let two = |w, x| vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
            let dot = |w: [int8x16_t; 2], x0, x1| vpadalq_s16(vpaddlq_s16(two(w[0], x0)), two(w[1], x1));
            vpaddq_s32(dot(e, x[0], x[1]), dot(o, x[2], x[3]))
        }
    }

    /// A lane of 16 bits holds two products, then four: 4 · 63 · 127 < 2¹⁵.
    #[inline(always)]
    unsafe fn sixteens(w: [int8x16_t; 4], x: [int8x16_t; 4]) -> [int32x4_t; 2] {
        // SAFETY: every ARMv8 has these.
        unsafe {
            let dot = |w, x| vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
            [vpaddlq_s16(vpaddq_s16(dot(w[0], x[0]), dot(w[1], x[1]))), vpaddlq_s16(vpaddq_s16(dot(w[2], x[2]), dot(w[3], x[3])))]
        }
    }
}
