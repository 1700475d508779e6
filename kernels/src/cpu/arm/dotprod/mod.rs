//! Kernels for CPUs with `sdot` (Cortex-A76 and its kin).

pub mod blocks_of_32;
pub mod k_quants;
pub mod panel;

use super::activations::each_token;
use super::panel::product::{decoded_route, route};
use super::panel::sources;
use crate::cpu::form::Form;
use crate::cpu::linear::{Route, Routes};
use crate::cpu::place;
use crate::quant::{FORMATS, Format};
use panel::Sdot;

/// The products of a format for few tokens, from its function for one.
macro_rules! one_token {
    ($per:literal, $dots:path) => {
        |p| {
            // SAFETY: the table's caller checked the lengths, and whoever filled it that this CPU has `dotprod`.
            unsafe { each_token(p, $per, $dots) }
        }
    };
}

/// From so many tokens on a panel is cheaper than one token after the other: converting a weight takes about two instructions, its product
/// with a tile two thirds of one, and a third to a half with a single token.
const MANY: usize = 5;

/// Overrides the products of all quantized formats.
pub fn fill(products: &mut [Routes; FORMATS.len()]) {
    for layout in FORMATS.iter().filter(|l| l.weights > 1) {
        let routes = &mut products[place(layout.format)];
        routes.many = decoded_route::<Sdot>();
        routes.many_from = MANY;
    }
    let mut set = |format, form, run, many| {
        let one = Route { form, row_tile: 8, scratch: |_| 0, run };
        products[place(format)] = Routes { one, few: one, many, many_from: MANY };
    };
    set(Format::Q4_0, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_q4_0), route::<sources::Q4_0, Sdot>());
    set(Format::Q4_1, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_q4_1), route::<sources::Q4_1, Sdot>());
    set(Format::Q5_0, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_q5_0), route::<sources::Q5_0, Sdot>());
    set(Format::Q5_1, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_q5_1), route::<sources::Q5_1, Sdot>());
    set(Format::Q8_0, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_q8_0), route::<sources::Q8_0, Sdot>());
    set(Format::IQ4_NL, Form::Int8By32, one_token!(32, blocks_of_32::mat_vec_iq4_nl), route::<sources::Iq4Nl, Sdot>());
    set(Format::Q4_K, Form::Int8By256, one_token!(256, k_quants::mat_vec_q4_k), route::<sources::Q4K, Sdot>());
    set(Format::Q5_K, Form::Int8By256, one_token!(256, k_quants::mat_vec_q5_k), route::<sources::Q5K, Sdot>());
    set(Format::Q6_K, Form::Int8By256, one_token!(256, k_quants::mat_vec_q6_k), route::<sources::Q6K, Sdot>());
    products[place(Format::IQ4_XS)].many = route::<sources::Iq4Xs, Sdot>();
}
