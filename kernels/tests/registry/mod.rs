//! What there is to compute: every product by tier, format, columns, rows and tokens, with its inputs. Tests hold each case to the
//! plain kernels; the bench times the same cases.

use hearth_kernels::cpu::form::SMALLEST;
use hearth_kernels::cpu::linear::Product;
use hearth_kernels::cpu::{Activations, Columns, Form, Kernels, Tier, Weights, plain};
use hearth_kernels::quant::{self, Format};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The tiers to hold to the plain kernels: all that this processor runs. Where `HEARTH_TEST_TIER` names one, it alone, and it must be the
/// best there is: an emulated processor is told what it has to be found to be, and need not repeat what another one does.
#[allow(dead_code)] // the bench has tiers of its own
pub fn tiers() -> Vec<Tier> {
    let available: Vec<Tier> = Tier::available().collect();
    let Ok(name) = std::env::var("HEARTH_TEST_TIER") else { return available };
    let best = available.last().expect("the generic one is always there");
    assert_eq!(best.name(), name, "this processor is taken for another one");
    vec![*best]
}

/// One product.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub tier: Tier,
    pub format: Format,
    pub cols: usize,
    pub rows: usize,
    pub tokens: usize,
    /// [`Form::F32`] instead of the form that the kernels ask for.
    pub exact: bool,
}

/// Deterministic numbers, roughly normal, with a period that is no power of two.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    pub fn number(&mut self) -> f32 {
        (0..4).map(|_| self.bits() as f32 / (1u64 << 31) as f32 - 0.5).sum::<f32>() * 1.7
    }

    pub fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }
}

/// Weights and activations of a product.
pub struct Inputs {
    pub weights: Vec<u8>,
    pub x: Vec<f32>,
}

impl Case {
    pub fn kernels(&self) -> Kernels {
        Kernels::for_tier(self.tier).expect("an available tier")
    }

    /// Noise, encoded.
    pub fn inputs(&self) -> Inputs {
        let weights = few_rows(self.format, self.cols);
        let bytes = self.rows * weights.len() / FEW_ROWS;
        let weights = weights.iter().copied().cycle().take(bytes).collect();
        Inputs { weights, x: Noise::new(self.cols as u64 + 7).numbers(self.cols * self.tokens) }
    }

    pub fn form(&self, k: &Kernels) -> Form {
        if self.exact { Form::F32 } else { k.form(self.format, self.tokens) }
    }

    /// `[tokens, rows]` by the tier, from activations that begin `shift` bytes into a buffer.
    fn compute(&self, weights: &[u8], x: &[f32], shift: usize) -> Vec<f32> {
        let k = self.kernels();
        let form = self.form(&k);
        let mut activations = vec![0; shift + form.bytes(self.cols, self.tokens)];
        k.quantize(form, self.cols, x, &mut activations[shift..]);
        let mut out = vec![f32::NAN; self.rows * self.tokens];
        let mut scratch = vec![0; k.scratch_bytes(self.format, form, self.cols, self.tokens)];
        k.mat_mul(
            Weights { format: self.format, bytes: weights, cols: self.cols },
            Activations { form, bytes: &activations[shift..], tokens: self.tokens },
            Columns::of(&mut out, self.rows),
            &mut scratch,
        );
        out
    }

    /// The same with the tier's own rounding of activations, by the plain kernels.
    fn plain(&self, weights: &[u8], x: &[f32]) -> Vec<f32> {
        let form = self.form(&self.kernels()).rows();
        let mut activations = vec![0; form.bytes(self.cols, self.tokens)];
        self.kernels().quantize(form, self.cols, x, &mut activations);
        let mut out = vec![f32::NAN; self.rows * self.tokens];
        plain::linear::mat_mul(&mut Product {
            format: self.format,
            weights,
            cols: self.cols,
            rows: self.rows,
            row_bytes: self.format.row_bytes(self.cols).expect("whole blocks"),
            form,
            activations: &activations,
            tokens: self.tokens,
            out: Columns::of(&mut out, self.rows),
            scratch: &mut [],
        });
        out
    }

    /// Holds the tier to the plain kernels; activations begin `shift` bytes into a buffer.
    pub fn check(&self, weights: &[u8], x: &[f32], shift: usize) {
        let (want, got) = (self.plain(weights, x), self.compute(weights, x, shift));
        let bounds = self.bounds(weights, x);
        for (i, ((want, got), bound)) in want.iter().zip(&got).zip(bounds).enumerate() {
            let (token, row) = (i / self.rows, i % self.rows);
            if bound.is_infinite() {
                // At the end of f32's range: whether a term or a sum leaves it depends on the order.
                continue;
            }
            if want.is_finite() {
                assert!((want - got).abs() <= bound, "{self:?} token {token} row {row}: plain {want:e}, got {got:e}, bound {bound:e}");
            } else {
                assert!(!got.is_finite(), "{self:?} token {token} row {row}: plain {want:e}, got {got:e}");
            }
        }
    }

    /// `[tokens, rows]`: how far a kernel may be from the plain one. Weights are `scale · code + offset` with unsigned codes, so a term is
    /// at most four times the run's largest weight times `|x|`; a sum of f32 loses at most its length (over 16 lanes, with four additions a
    /// run of 256 and eight at the end) times ε of the terms' magnitudes. Panels may round weights to 1/254 of the largest of each run
    /// besides; such errors are independent, so six of their root mean square are allowed. Runs of weights below [`SMALLEST`] may be taken
    /// for zeros there, which loses at most √64 · largest · √Σ x².
    fn bounds(&self, weights: &[u8], x: &[f32]) -> Vec<f32> {
        let form = self.form(&self.kernels());
        let by_64 = form == Form::PanelBy64;
        let rounds = by_64 || form.is_panel() && rounds_in_panel(self.format);
        let run = if by_64 { 64 } else { 32 };
        let largest = |w: &[f32]| w.iter().fold(0.0, |a: f32, w| a.max(w.abs()));
        let lost = |largest: f32| if largest < SMALLEST { 2.0 * largest } else { largest / 254.0 };
        let mut w = vec![0.0; self.cols];
        // Of every row and of every token what its runs of 256, and those that a panel rounds, have to say.
        let rows: Vec<(Vec<f32>, Vec<f64>)> = weights
            .chunks_exact(self.format.row_bytes(self.cols).expect("whole blocks"))
            .map(|row| {
                quant::decode(self.format, row, &mut w);
                (w.chunks(256).map(|w| 4.0 * largest(w)).collect(), w.chunks(run).map(|w| square(lost(largest(w)))).collect())
            })
            .collect();
        let tokens = x.chunks_exact(self.cols).map(|x| {
            let magnitudes: Vec<f32> = x.chunks(256).map(|x| x.iter().map(|x| x.abs()).sum()).collect();
            let squares: Vec<f64> = x.chunks(run).map(|x| x.iter().map(|x| square(*x)).sum()).collect();
            (magnitudes, squares)
        });
        let bound = |(w, w_squares): &(Vec<f32>, Vec<f64>), (x, x_squares): &(Vec<f32>, Vec<f64>)| {
            let magnitude: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
            let rounding = magnitude * f32::EPSILON * (16.0 + self.cols as f32 / 64.0);
            let squares: f64 = w_squares.iter().zip(x_squares).map(|(w, x)| w * x).sum();
            let panel = if rounds { 6.0 * squares.sqrt() as f32 } else { 0.0 };
            rounding + panel + f32::MIN_POSITIVE
        };
        tokens.flat_map(|token| rows.iter().map(move |row| bound(row, &token)).collect::<Vec<_>>()).collect()
    }
}

fn square(x: f32) -> f64 {
    f64::from(x).powi(2)
}

/// Encoded rows, shared by the cases of a format.
type Rows = Arc<[u8]>;

/// Rows that are repeated.
const FEW_ROWS: usize = 5;

/// Rows of noise. Encoded once, since encoding is slow.
fn few_rows(format: Format, cols: usize) -> Rows {
    static KEPT: Mutex<BTreeMap<(Format, usize), Rows>> = Mutex::new(BTreeMap::new());
    let key = (format, cols);
    if let Some(rows) = KEPT.lock().expect("nobody panics with it").get(&key) {
        return rows.clone();
    }
    let mut rows = vec![0; FEW_ROWS * format.row_bytes(cols).expect("whole blocks")];
    quant::encode(format, &Noise::new(cols as u64 + 8).numbers(FEW_ROWS * cols), &mut rows);
    let rows: Rows = rows.into();
    KEPT.lock().expect("nobody panics with it").insert(key, rows.clone());
    rows
}

/// Formats whose scales are finer than a panel's runs of 32.
fn rounds_in_panel(format: Format) -> bool {
    !matches!(
        format,
        Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q8_0 | Format::IQ4_NL | Format::IQ4_XS | Format::MXFP4
    )
}
