//! Products of weights with activations: every tier of this CPU × every format × sizes around every tile, against sums in f64 over the
//! activations as their form has them and the weights as the plain decoder has them.

use hearth_kernels::cpu::plain::linear::{dequantize, quantize};
use hearth_kernels::cpu::{Activations, Columns, Form, Kernels, Tier, Weights};
use hearth_kernels::quant::{self, FORMATS, Format};

/// Deterministic numbers, roughly normal, deviation 1.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..6).map(|_| uniform()).sum::<f32>() * 1.41 - 4.23).collect()
}

/// Three encoded rows that all cases of a format are cut from: encoding to a codebook is the slow part.
struct Pool {
    format: Format,
    rows: Vec<Vec<u8>>,
}

impl Pool {
    const COLS: usize = 1280;

    fn new(format: Format, scale: f32) -> Pool {
        let bytes = format.row_bytes(Self::COLS).expect("whole blocks");
        let encoded = |seed| {
            let mut row = vec![0; bytes];
            let w: Vec<f32> = noise(Self::COLS, seed).iter().map(|w| w * scale).collect();
            quant::encode(format, &w, &mut row);
            row
        };
        Pool { format, rows: (3..6).map(encoded).collect() }
    }
}

/// One product with all that is needed to judge it.
struct Case {
    tier: Tier,
    format: Format,
    cols: usize,
    rows: usize,
    tokens: usize,
    weights: Vec<u8>,
    x: Vec<f32>,
}

impl Case {
    fn new(tier: Tier, pool: &Pool, [cols, rows, tokens]: [usize; 3]) -> Case {
        let bytes = pool.format.row_bytes(cols).expect("whole blocks");
        let weights = (0..rows).flat_map(|r| &pool.rows[r % 3][..bytes]).copied().collect();
        Case { tier, format: pool.format, cols, rows, tokens, weights, x: noise(tokens * cols, 5) }
    }

    fn form(&self) -> Form {
        self.kernels().form(self.format, self.tokens)
    }

    fn kernels(&self) -> Kernels {
        Kernels::for_tier(self.tier).expect("an available tier")
    }

    /// `[tokens, rows]`, by the tier; operands at odd addresses.
    fn run(&self) -> Vec<f32> {
        let (kernels, form) = (self.kernels(), self.form());
        let bytes = form.bytes(self.cols, self.tokens);
        let mut activations = vec![0; bytes + 1];
        kernels.quantize(form, self.cols, &self.x, &mut activations[1..]);
        let mut moved = vec![0];
        moved.extend(&self.weights);
        let mut scratch = vec![0; kernels.scratch_bytes(self.format, form, self.cols, self.tokens)];
        let mut out = vec![f32::MAX; self.tokens * self.rows];
        kernels.mat_mul(
            Weights { format: self.format, bytes: &moved[1..], cols: self.cols },
            Activations { form, bytes: &activations[1..], tokens: self.tokens },
            Columns::of(&mut out, self.rows),
            &mut scratch,
        );
        out
    }

    /// What each is to be, and by how much it may differ.
    fn expected(&self) -> Vec<(f64, f64)> {
        let form = self.form();
        let rows = form.rows();
        let mut activations = vec![0; rows.bytes(self.cols, self.tokens)];
        quantize(rows, &self.x, self.cols, &mut activations);
        let mut w = vec![0.0; self.rows * self.cols];
        quant::decode(self.format, &self.weights, &mut w);
        let mut x = vec![0.0; self.cols];
        let mut out = Vec::new();
        for t in 0..self.tokens {
            dequantize(rows, &activations, self.cols, t, 0, &mut x);
            for w in w.chunks(self.cols) {
                let dot = w.iter().zip(&x).map(|(&w, &x)| f64::from(w) * x).sum();
                out.push((dot, bound(self.format, form, w, &x)));
            }
        }
        out
    }

    fn name(&self) -> String {
        let Case { tier, format, cols, rows, tokens, .. } = self;
        format!("{} {} {:?}: {rows} rows of {cols}, {tokens} tokens", tier.name(), format.name(), self.form())
    }

    fn check(&self) {
        let got = self.run();
        for (i, (got, (want, bound))) in got.iter().zip(self.expected()).enumerate() {
            let (t, r) = (i / self.rows, i % self.rows);
            assert!((f64::from(*got) - want).abs() <= bound, "{}: token {t}, row {r}: {got}, not {want} ± {bound}", self.name());
        }
    }
}

/// How far a dot may be off: the roundings of f32 sums over blocks (offsets and minima are sums of their own, so a weight counts as the
/// largest of its run), and where weights become a panel with a scale per 64, half a step of that for each weight, a quarter for the
/// int16 factors, and a quarter for a range wider than the codes that occur; half a step where a panel has a scale per 32.
fn bound(format: Format, form: Form, w: &[f32], x: &[f64]) -> f64 {
    let run = format.layout().weights.max(64);
    let mut bound = f64::from(f32::MIN_POSITIVE);
    for (w, x) in w.chunks(run).zip(x.chunks(run)) {
        let largest = w.iter().fold(0.0, |a: f64, &w| a.max(f64::from(w).abs()));
        let sum: f64 = x.iter().map(|x| x.abs()).sum();
        let step = match form {
            Form::PanelBy64 => 1.0 / 120.0,
            Form::PanelBy32 => 1.0 / 254.0,
            _ => 0.0,
        };
        bound += sum * largest * (step + 16.0 * f64::from(f32::EPSILON));
    }
    bound
}

/// Widths of rows: around tiles of 64 and 256 and beyond where a format's blocks allow it.
fn widths(format: Format) -> &'static [usize] {
    match format.layout().weights {
        256 => &[256, 512, 1280],
        128 => &[128, 384],
        64 => &[64, 192, 320],
        _ => &[32, 64, 96, 160, 288, 544],
    }
}

#[test]
fn every_tier_matches_plain_at_every_size() {
    for layout in FORMATS {
        let pool = Pool::new(layout.format, 1.0);
        for tier in Tier::available() {
            for &cols in widths(layout.format) {
                for [rows, tokens] in [[1, 1], [2, 1], [3, 1], [5, 2], [7, 4], [8, 5], [9, 8], [17, 9], [6, 25]] {
                    Case::new(tier, &pool, [cols, rows, tokens]).check();
                }
            }
        }
    }
}

#[test]
fn extreme_and_denormal_scales_are_right() {
    for layout in FORMATS {
        for scale in [0.0, 1e-6, 3e-5, 1e4] {
            let pool = Pool::new(layout.format, scale);
            for tier in Tier::available() {
                for tokens in [1, 9] {
                    Case::new(tier, &pool, [256, 5, tokens]).check();
                }
            }
        }
    }
}

#[test]
fn products_of_many_tokens_lose_less_than_a_percent() {
    for layout in FORMATS {
        let pool = Pool::new(layout.format, 1.0);
        for tier in Tier::available() {
            let case = Case::new(tier, &pool, [1280, 3, 32]);
            let (mut error, mut norm) = (0.0, 0.0);
            for (got, (want, _)) in case.run().iter().zip(case.expected()) {
                error += (f64::from(*got) - want).powi(2);
                norm += want.powi(2);
            }
            let loss = (error / norm).sqrt();
            assert!(loss < 0.01, "{}: loses {loss}", case.name());
        }
    }
}

#[test]
fn a_token_that_is_no_number_spoils_only_itself() {
    for layout in FORMATS {
        let pool = Pool::new(layout.format, 1.0);
        for tier in Tier::available() {
            for bad in [f32::NAN, f32::INFINITY] {
                for tokens in [2, 9] {
                    let mut case = Case::new(tier, &pool, [256, 3, tokens]);
                    let clean = case.run();
                    case.x[256 + 77] = bad;
                    for (i, (got, clean)) in case.run().iter().zip(&clean).enumerate() {
                        if i / 3 == 1 {
                            assert!(!got.is_finite(), "{}: {got} from {bad}", case.name());
                        } else {
                            assert_eq!(got.to_bits(), clean.to_bits(), "{}: token {} changed", case.name(), i / 3);
                        }
                    }
                }
            }
        }
    }
}
