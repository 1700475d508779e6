//! Norms, activations, rotations and sums of vectors, in f64.

use crate::cpu::{Activation, Pairing};

/// `y += by · x`
pub fn add_scaled(y: &mut [f32], by: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = (f64::from(*y) + f64::from(by) * f64::from(*x)) as f32;
    }
}

pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = a + b;
    }
}

pub fn mul(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = a * b;
    }
}

pub fn scale(x: &[f32], by: f32, out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = x * by;
    }
}

/// `out = x / √(mean(x²) + eps) (· weight)`
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    let by = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    for (i, (x, out)) in x.iter().zip(out).enumerate() {
        *out = (f64::from(*x) * by * weight.map_or(1.0, |w| f64::from(w[i]))) as f32;
    }
}

/// `out = (x − mean) / √(variance + eps) (· weight) (+ bias)`
pub fn layer_norm(x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let by = 1.0 / (variance + f64::from(eps)).sqrt();
    for (i, (x, out)) in x.iter().zip(out).enumerate() {
        let normed = (f64::from(*x) - mean) * by * weight.map_or(1.0, |w| f64::from(w[i]));
        *out = (normed + bias.map_or(0.0, |b| f64::from(b[i]))) as f32;
    }
}

/// `out = x / √(Σ x² + eps)`
pub fn l2_norm(x: &[f32], eps: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    let by = 1.0 / (squares + f64::from(eps)).sqrt();
    for (x, out) in x.iter().zip(out) {
        *out = (f64::from(*x) * by) as f32;
    }
}

/// Turns pair `i` of `x` by the angle whose cosine and sine (times the magnitude) are `cos[i]` and `sin[i]`; what lies beyond the pairs
/// stays.
pub fn rope(pairing: Pairing, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for i in 0..cos.len() {
        let (first, second) = match pairing {
            Pairing::Neighbours => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + cos.len()),
        };
        let (a, b, c, s) = (f64::from(x[first]), f64::from(x[second]), f64::from(cos[i]), f64::from(sin[i]));
        x[first] = (a * c - b * s) as f32;
        x[second] = (a * s + b * c) as f32;
    }
}

/// `out = f(x)`
pub fn activate(f: Activation, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.iter().zip(out) {
        *out = value(f, f64::from(*x)) as f32;
    }
}

/// `out = f(gate) · up`
pub fn gated(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = (value(f, f64::from(*gate)) * f64::from(*up)) as f32;
    }
}

fn value(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        // ln(1 + eˣ) without overflow.
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    }
}

/// `out = cap · tanh(x / cap)`
pub fn soft_cap(x: &[f32], cap: f32, out: &mut [f32]) {
    let cap = f64::from(cap);
    for (x, out) in x.iter().zip(out) {
        *out = (cap * (f64::from(*x) / cap).tanh()) as f32;
    }
}
