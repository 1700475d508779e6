//! What `sdot` does better (Cortex-A76 and its kin): dots of int8 in one instruction for sixteen products.

pub mod panel;

use super::blocks_of_32::ZEROS;
use super::blocks_of_32::dotprod::*;
use super::k_quants::{Dot, mat_vec_iq4_xs, mat_vec_q4_k, mat_vec_q5_k, mat_vec_q6_k};
use super::panel::product;
use super::{each_token, one_token};
use crate::cpu::attention;
use crate::cpu::kv::Cache;
use crate::cpu::linear::Route;
use crate::cpu::partial::{Partial, Scoring, Span};
use crate::cpu::{Form, Kernels};
use crate::quant::Format;
use panel::Sdot;
use std::arch::aarch64::*;
use std::arch::asm;

// `sdot` brings its own feature: see `Dots`. What else there is of it is NEON.
attention::attention!("neon", float32x4_t, 4, attend_by_dots);

/// The fewest tokens that go by a panel, for all formats. Counted (instructions as a Cortex-A76; no board at hand), up to eight tokens by a
/// panel cost as much as 4.6 one after the other of `Q6_K`, 5.7 of `Q4_K`, 6.4 of `Q4_0` and 8.5 of `Q8_0`.
const MANY: usize = 5;

/// Overrides the products of all quantized formats, and attention over an int8 cache.
pub fn fill(k: &mut Kernels) {
    k.attend = attend_by_dots;
    product::fill::<Sdot>(k, MANY);
    one_token!(
        k, 32, Q4_0 mat_vec_q4_0, Q4_1 mat_vec_q4_1, Q5_0 mat_vec_q5_0, Q5_1 mat_vec_q5_1, Q8_0 mat_vec_q8_0, IQ4_NL mat_vec_iq4_nl
    );
    one_token!(k, 256, Q4_K mat_vec_q4_k::<Sdot>, Q5_K mat_vec_q5_k::<Sdot>, Q6_K mat_vec_q6_k::<Sdot>, IQ4_XS mat_vec_iq4_xs::<Sdot>);
}

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn groups(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t {
        let sum;
        // SAFETY: registers only; the caller's promise. Not `pure`: so rows stay in the order they were written in. LLVM, free to move
        // them, interleaves them until registers run out.
        unsafe {
            asm!(".arch_extension dotprod",
                 "movi {sum:v}.4s, #0",
                 "movi {t:v}.4s, #0",
                 "sdot {sum:v}.4s, {e0:v}.16b, {x0:v}.16b",
                 "sdot {t:v}.4s, {o0:v}.16b, {x2:v}.16b",
                 "sdot {sum:v}.4s, {e1:v}.16b, {x1:v}.16b",
                 "sdot {t:v}.4s, {o1:v}.16b, {x3:v}.16b",
                 "addp {sum:v}.4s, {sum:v}.4s, {t:v}.4s",
                 sum = out(vreg) sum, t = out(vreg) _,
                 e0 = in(vreg) e[0], e1 = in(vreg) e[1], o0 = in(vreg) o[0], o1 = in(vreg) o[1],
                 x0 = in(vreg) x[0], x1 = in(vreg) x[1], x2 = in(vreg) x[2], x3 = in(vreg) x[3],
                 options(nomem, nostack, preserves_flags));
        }
        sum
    }

    #[inline(always)]
    unsafe fn bytes(e: [int8x16_t; 2], o: [int8x16_t; 2], x: [int8x16_t; 4]) -> int32x4_t {
        // SAFETY: the caller's promise; `sdot` takes any bytes.
        unsafe { Self::groups(e, o, x) }
    }

    /// The four accumulators are zeroed by one load: vector pipes are the scarce ones, load pipes have time.
    #[inline(always)]
    unsafe fn sixteens(w: [int8x16_t; 4], x: [int8x16_t; 4]) -> [int32x4_t; 2] {
        let (first, second);
        // SAFETY: reads 64 bytes of `ZEROS`; the caller's promise.
        unsafe {
            asm!(".arch_extension dotprod",
                 "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{zeros}]",
                 "sdot v0.4s, {w0:v}.16b, {x0:v}.16b",
                 "sdot v1.4s, {w1:v}.16b, {x1:v}.16b",
                 "sdot v2.4s, {w2:v}.16b, {x2:v}.16b",
                 "sdot v3.4s, {w3:v}.16b, {x3:v}.16b",
                 "addp v0.4s, v0.4s, v1.4s",
                 "addp v2.4s, v2.4s, v3.4s",
                 zeros = in(reg) ZEROS.as_ptr(),
                 w0 = in(vreg) w[0], w1 = in(vreg) w[1], w2 = in(vreg) w[2], w3 = in(vreg) w[3],
                 x0 = in(vreg) x[0], x1 = in(vreg) x[1], x2 = in(vreg) x[2], x3 = in(vreg) x[3],
                 out("v0") first, out("v1") _, out("v2") second, out("v3") _,
                 options(readonly, nostack, preserves_flags));
        }
        [first, second]
    }
}
