//! What a product of weights and activations is given, and which route it takes.

use super::columns::Columns;
use super::form::Form;
use crate::quant::Format;

/// Rows of a weight matrix as they lie in the file, at any address.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    pub format: Format,
    /// `[rows, cols]` in whole blocks; the number of rows follows from the length.
    pub bytes: &'a [u8],
    pub cols: usize,
}

/// Activations `[tokens, cols]` as [`Kernels::quantize`](super::Kernels::quantize) wrote them.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    pub form: Form,
    pub bytes: &'a [u8],
    pub tokens: usize,
}

/// One call of a kernel, its lengths checked: `out[t, r] = Σᵢ w[r, i] · x[t, i]`.
pub struct Product<'a> {
    pub format: Format,
    pub weights: &'a [u8],
    pub cols: usize,
    pub rows: usize,
    pub row_bytes: usize,
    pub form: Form,
    pub activations: &'a [u8],
    pub tokens: usize,
    /// `[tokens, rows]`
    pub out: Columns<'a>,
    /// As long as [`Route::scratch`] asks.
    pub scratch: &'a mut [u8],
}

/// A way to compute a product.
#[derive(Clone, Copy)]
pub struct Route {
    pub form: Form,
    /// Rows that are computed together: threads cut at multiples of it.
    pub row_tile: usize,
    /// Bytes of scratch for rows of `cols` columns.
    pub scratch: fn(cols: usize) -> usize,
    /// Unsafe where it needs a CPU's feature, which whoever fills the table has checked.
    pub run: unsafe fn(&mut Product),
}

/// The routes of one format, by the number of tokens.
#[derive(Clone, Copy)]
pub struct Routes {
    pub one: Route,
    pub few: Route,
    pub many: Route,
    /// The fewest tokens that go by `many`.
    pub many_from: usize,
}

impl Routes {
    pub fn all(route: Route) -> Routes {
        Routes { one: route, few: route, many: route, many_from: 2 }
    }

    pub fn by_tokens(&self, tokens: usize) -> &Route {
        match tokens {
            ..=1 => &self.one,
            n if n < self.many_from => &self.few,
            _ => &self.many,
        }
    }
}
