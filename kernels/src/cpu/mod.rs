//! Kernels for CPUs: a table of functions, filled once from the lowest tier up, each tier overriding only what it does better.
//! Slices and numbers go in, slices come out: no thread, no allocation, no file. The caller splits rows, heads and tokens over threads.
//!
//! - [`tier`]: what this CPU can do · [`form`]: activations as products want them · [`linear`]: what a product is given ·
//!   [`columns`]: where it goes · [`kv`]: keys and values in the cache · [`partial`]: attention over a part of them.
//! - [`plain`]: every kernel as its formula, the oracle of the others. `lanes` holds vector code for any width; `x86` and `arm` the
//!   tiers.
//!
//! A product takes three calls: [`Kernels::form`] names the form of activations that it wants for that number of tokens;
//! [`Kernels::quantize`] brings activations into it (once for all matrices that want the same); [`Kernels::mat_mul`] computes some rows.

#[cfg(target_arch = "aarch64")]
mod arm;
mod attention;
pub mod columns;
mod exact;
pub mod form;
pub mod kv;
mod lanes;
pub mod linear;
pub mod partial;
pub mod plain;
pub mod tier;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use columns::Columns;
pub use form::Form;
pub use linear::{Activations, Weights};
pub use tier::{BadTier, Tier};

use crate::quant::{FORMATS, Format};
use form::Tiles;
use kv::{Cache, Kind};
use linear::{Product, Route, Routes};
use partial::{Partial, Scoring, Span};
use std::ops::Range;

/// Which elements make pair `i` of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `2i` and `2i + 1`
    Neighbours,
    /// `i` and `i + pairs`
    Halves,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`
    Silu,
    /// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`
    GeluTanh,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `ln(1 + eˣ)`
    Softplus,
}

/// Every kernel of one tier. [`Kernels::for_tier`] is the only way in, so a `Kernels` is proof that this CPU runs it.
#[derive(Clone)]
pub struct Kernels {
    tier: Tier,
    /// By the format's place in [`FORMATS`].
    products: [Routes; FORMATS.len()],
    /// [`Form::F32`], for every format.
    exact: Route,
    quantize: unsafe fn(Form, &[f32], usize, &mut [u8]),
    tiles: Tiles,
    store_key: unsafe fn(Kind, &[f32], &mut [u8], usize),
    store_value: unsafe fn(Kind, &[f32], &mut [u8], usize),
    attend: Attend,
    add_scaled: unsafe fn(&mut [f32], f32, &[f32]),
    add: unsafe fn(&[f32], &[f32], &mut [f32]),
    mul: unsafe fn(&[f32], &[f32], &mut [f32]),
    scale: unsafe fn(&[f32], f32, &mut [f32]),
    rms_norm: RmsNorm,
    layer_norm: LayerNorm,
    l2_norm: unsafe fn(&[f32], f32, &mut [f32]),
    rope: unsafe fn(Pairing, &mut [f32], &[f32], &[f32]),
    activate: unsafe fn(Activation, &[f32], &mut [f32]),
    gated: unsafe fn(Activation, &[f32], &[f32], &mut [f32]),
    soft_cap: unsafe fn(&[f32], f32, &mut [f32]),
}

type Attend = unsafe fn(&Cache, Scoring, &[f32], &[Span], &mut Partial, &mut [u8]);
type RmsNorm = unsafe fn(&[f32], Option<&[f32]>, f32, &mut [f32]);
type LayerNorm = unsafe fn(&[f32], Option<&[f32]>, Option<&[f32]>, f32, &mut [f32]);

impl Kernels {
    /// Those of `tier`; `None` when this CPU lacks it.
    pub fn for_tier(tier: Tier) -> Option<Kernels> {
        if !tier.is_available() {
            return None;
        }
        let mut k = Self::plain();
        k.tier = tier;
        #[cfg(target_arch = "x86_64")]
        {
            if tier >= Tier::Avx2 {
                x86::avx2::fill(&mut k);
            }
            if tier >= Tier::Avx512 {
                x86::avx512::fill(&mut k);
            }
            if tier >= Tier::Avx512Vnni {
                x86::avx512::fill_vnni(&mut k);
            }
        }
        #[cfg(target_arch = "aarch64")]
        arm::fill(&mut k);
        Some(k)
    }

    fn plain() -> Kernels {
        use plain::{attention, elementwise};
        let exact = Route { form: Form::F32, row_tile: 1, scratch: |_| 0, run: plain::linear::mat_mul };
        Kernels {
            tier: Tier::Generic,
            products: [Routes::all(exact); FORMATS.len()],
            exact,
            quantize: plain::linear::quantize,
            tiles: Tiles { tokens: 1, written: 1, part: |form, _, _, _| unreachable!("{form:?} in plain code") },
            store_key: attention::store_key,
            store_value: attention::store_value,
            attend: attention::attend,
            add_scaled: elementwise::add_scaled,
            add: elementwise::add,
            mul: elementwise::mul,
            scale: elementwise::scale,
            rms_norm: elementwise::rms_norm,
            layer_norm: elementwise::layer_norm,
            l2_norm: elementwise::l2_norm,
            rope: elementwise::rope,
            activate: elementwise::activate,
            gated: elementwise::gated,
            soft_cap: elementwise::soft_cap,
        }
    }

    pub fn tier(&self) -> Tier {
        self.tier
    }
}

/// Products.
impl Kernels {
    /// The form of activations that a product of `format` with that many tokens wants. [`Form::F32`] works too, for every format and
    /// number of tokens: the exact product, for reference.
    pub fn form(&self, format: Format, tokens: usize) -> Form {
        self.routes(format).by_tokens(tokens).form
    }

    /// The forms that [`form`](Self::form) gives for one token, for a few, and for many.
    pub fn forms(&self, format: Format) -> [Form; 3] {
        let Routes { one, few, many, .. } = self.routes(format);
        [one.form, few.form, many.form]
    }

    /// The fewest tokens for which [`form`](Self::form) gives the last of [`forms`](Self::forms).
    pub fn many_from(&self, format: Format) -> usize {
        self.routes(format).many_from
    }

    /// Threads should be given rows of a matrix in multiples of this.
    pub fn row_tile(&self, format: Format, form: Form, tokens: usize) -> usize {
        self.route(format, form, tokens).row_tile
    }

    /// Bytes of scratch that a thread needs for [`mat_mul`](Self::mat_mul), whatever the number of rows.
    pub fn scratch_bytes(&self, format: Format, form: Form, cols: usize, tokens: usize) -> usize {
        (self.route(format, form, tokens).scratch)(cols)
    }

    /// Brings activations into a form. `x`: `[tokens, cols]`, all tokens or a part of them that begins at a multiple of [`Form::group`];
    /// `out`: `form.bytes(cols, tokens)` long, best at a multiple of 64 bytes.
    ///
    /// # Panics
    /// When a length is wrong, or `cols` is no multiple of [`Form::step`].
    pub fn quantize(&self, form: Form, cols: usize, x: &[f32], out: &mut [u8]) {
        let tokens = x.len().checked_div(cols).unwrap_or(0);
        assert_eq!(x.len(), tokens * cols, "no whole rows of {cols}");
        assert!(cols.is_multiple_of(form.step()), "rows of {cols} in {form:?}");
        assert_eq!(out.len(), form.bytes(cols, tokens), "{tokens} rows of {cols} in {form:?}");
        // SAFETY: `for_tier` checked that this CPU has the tier.
        unsafe { (self.quantize)(form, x, cols, out) }
    }

    /// Quantizes some columns into a panel, for callers that produce a matrix column by column and never store it as f32. All columns
    /// together give what [`quantize`](Self::quantize) writes, bit for bit. `x`: `[tokens, columns]`, of all tokens and of rows of `cols`;
    /// `spare`: `form.bytes(columns.len(), tokens)` long; `put` is given bytes, and where in the whole panel they belong.
    ///
    /// # Panics
    /// When a length is wrong, `form` is no panel, the columns are not whole runs of scales (except at a row's end), or they cross a
    /// multiple of [`form::PIECE`].
    pub fn quantize_columns(
        &self,
        form: Form,
        cols: usize,
        columns: Range<usize>,
        x: &[f32],
        spare: &mut [u8],
        mut put: impl FnMut(usize, &[u8]),
    ) {
        let per = form.per().filter(|_| form.is_panel()).expect("a panel");
        assert!(columns.start < columns.end && columns.end <= cols && columns.start / form::PIECE == (columns.end - 1) / form::PIECE);
        assert!(columns.start.is_multiple_of(per) && (columns.end.is_multiple_of(per) || columns.end == cols), "{columns:?} of {form:?}");
        let width = columns.len();
        self.quantize(form, width, x, spare);
        let Tiles { tokens, written, part } = self.tiles;
        for tile in 0..(x.len() / width).next_multiple_of(written) / tokens {
            let (from, to) = (part(form, width, 0..width, tile), part(form, cols, columns.clone(), tile));
            for (from, to) in from.into_iter().zip(to).filter(|(from, _)| !from.is_empty()) {
                debug_assert_eq!(from.len(), to.len());
                put(to.start, &spare[from]);
            }
        }
    }

    /// `out[t, r] = Σᵢ w[r, i] · x[t, i]` for the rows given.
    ///
    /// # Panics
    /// When a length is wrong, or the activations are neither in the form that [`form`](Self::form) gives nor in [`Form::F32`].
    pub fn mat_mul(&self, weights: Weights, activations: Activations, out: Columns, scratch: &mut [u8]) {
        let Weights { format, bytes, cols } = weights;
        let Activations { form, bytes: activations, tokens } = activations;
        let row_bytes = format.row_bytes(cols).expect("rows of whole blocks");
        let rows = bytes.len().checked_div(row_bytes).unwrap_or(0);
        assert_eq!(bytes.len(), rows * row_bytes, "no whole rows of {cols} in {}", format.name());
        assert_eq!(activations.len(), form.bytes(cols, tokens), "{tokens} rows of {cols} in {form:?}");
        assert_eq!((out.tokens(), out.width()), (tokens, rows));
        let route = self.route(format, form, tokens);
        assert!(scratch.len() >= (route.scratch)(cols), "{} bytes of scratch", scratch.len());
        if rows == 0 || tokens == 0 {
            return;
        }
        let mut product = Product { format, weights: bytes, cols, rows, row_bytes, form, activations, tokens, out, scratch };
        // SAFETY: `for_tier` checked that this CPU has the tier; the lengths were checked above.
        unsafe { (route.run)(&mut product) }
    }

    /// Whether `other` computes such a product, [exact](Form::F32) or not, by the very same code, so that a test of one covers both.
    pub fn multiplies_as(&self, other: &Kernels, format: Format, exact: bool, tokens: usize) -> bool {
        let route = |k: &Kernels| if exact { k.exact } else { *k.routes(format).by_tokens(tokens) };
        let (a, b) = (route(self), route(other));
        a.form == b.form && std::ptr::fn_addr_eq(a.run, b.run) && std::ptr::fn_addr_eq(a.scratch, b.scratch)
    }

    fn routes(&self, format: Format) -> &Routes {
        &self.products[place(format)]
    }

    fn routes_mut(&mut self, format: Format) -> &mut Routes {
        &mut self.products[place(format)]
    }

    fn route(&self, format: Format, form: Form, tokens: usize) -> &Route {
        if form == Form::F32 {
            return &self.exact;
        }
        let route = self.routes(format).by_tokens(tokens);
        assert_eq!(route.form, form, "{} with {tokens} tokens", format.name());
        route
    }
}

/// The format's row in [`FORMATS`].
pub(crate) fn place(format: Format) -> usize {
    FORMATS.iter().position(|l| l.format == format).expect("every format has a row")
}

/// The cache, and attention over it.
impl Kernels {
    /// Writes one head's key at `position` of a tile.
    pub fn store_key(&self, kind: Kind, x: &[f32], tile: &mut [u8], position: usize) {
        assert_eq!(tile.len(), kind.key_tile(x.len()));
        assert!(position < kv::POSITIONS);
        // SAFETY: as in `quantize`.
        unsafe { (self.store_key)(kind, x, tile, position) }
    }

    /// Writes one head's value at `position` of a tile.
    pub fn store_value(&self, kind: Kind, x: &[f32], tile: &mut [u8], position: usize) {
        assert_eq!(tile.len(), kind.value_tile(x.len()));
        assert!(position < kv::POSITIONS);
        // SAFETY: as in `quantize`.
        unsafe { (self.store_value)(kind, x, tile, position) }
    }

    /// Attention of some queries to one head's cache: for each query the positions of its span, added to what `out` has seen already
    /// ([`Partial::clear`] before the first). `queries`: `[spans, key_dim]`: all query heads that share the key head, of one token or many,
    /// multiplied by the scale of scores; the more come together, the fewer times the cache is read. Tiles that no span touches are not
    /// read.
    ///
    /// # Panics
    /// When lengths don't fit each other, a span ends beyond the last block, or a block beyond the memory that a span touches or that
    /// follows one that a span touches (it is prefetched).
    pub fn attend(&self, cache: &Cache, scoring: Scoring, queries: &[f32], spans: &[Span], out: &mut Partial, scratch: &mut [u8]) {
        assert_eq!(queries.len(), spans.len() * cache.key_dim);
        assert_eq!((out.max.len(), out.sum.len(), out.acc.len()), (spans.len(), spans.len(), spans.len() * cache.value_dim));
        assert!(spans.iter().all(|s| s.to as usize <= cache.blocks.len() * kv::POSITIONS), "a span beyond the last tile");
        assert!(scratch.len() >= self.attend_scratch(cache.key_dim, cache.value_dim, spans.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.attend)(cache, scoring, queries, spans, out, scratch) }
    }

    /// Whether `other` attends by the very same code.
    pub fn attends_as(&self, other: &Kernels) -> bool {
        std::ptr::fn_addr_eq(self.attend, other.attend)
    }

    /// Bytes of scratch that [`attend`](Self::attend) needs.
    pub fn attend_scratch(&self, key_dim: usize, value_dim: usize, queries: usize) -> usize {
        attention::scratch_bytes(key_dim, value_dim, queries)
    }
}

/// Vectors. The slices of one call have the same length unless said otherwise.
impl Kernels {
    /// `y += by · x`
    pub fn add_scaled(&self, y: &mut [f32], by: f32, x: &[f32]) {
        assert_eq!(y.len(), x.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.add_scaled)(y, by, x) }
    }

    /// `out = a + b`
    pub fn add(&self, a: &[f32], b: &[f32], out: &mut [f32]) {
        assert_eq!((a.len(), b.len()), (out.len(), out.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.add)(a, b, out) }
    }

    /// `out = a · b`, element by element
    pub fn mul(&self, a: &[f32], b: &[f32], out: &mut [f32]) {
        assert_eq!((a.len(), b.len()), (out.len(), out.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.mul)(a, b, out) }
    }

    /// `out = by · x`
    pub fn scale(&self, x: &[f32], by: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.scale)(x, by, out) }
    }

    /// `out = x / √(mean(x²) + eps) (· weight)`
    pub fn rms_norm(&self, x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        assert!(weight.is_none_or(|w| w.len() == x.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.rms_norm)(x, weight, eps, out) }
    }

    /// `out = (x − mean) / √(variance + eps) (· weight) (+ bias)`
    pub fn layer_norm(&self, x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        assert!(weight.is_none_or(|w| w.len() == x.len()) && bias.is_none_or(|b| b.len() == x.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.layer_norm)(x, weight, bias, eps, out) }
    }

    /// `out = x / √(Σ x² + eps)`
    pub fn l2_norm(&self, x: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.l2_norm)(x, eps, out) }
    }

    /// Turns pair `i` of `x` by the angle whose cosine and sine (times the magnitude) are `cos[i]` and `sin[i]`. What lies beyond the
    /// pairs is left as it is.
    pub fn rope(&self, pairing: Pairing, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(cos.len() == sin.len() && 2 * cos.len() <= x.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.rope)(pairing, x, cos, sin) }
    }

    /// `out = f(x)`
    pub fn activate(&self, f: Activation, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.activate)(f, x, out) }
    }

    /// `out = f(gate) · up`
    pub fn gated(&self, f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!((gate.len(), up.len()), (out.len(), out.len()));
        // SAFETY: as in `quantize`.
        unsafe { (self.gated)(f, gate, up, out) }
    }

    /// `out = cap · tanh(x / cap)`
    pub fn soft_cap(&self, x: &[f32], cap: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as in `quantize`.
        unsafe { (self.soft_cap)(x, cap, out) }
    }
}
