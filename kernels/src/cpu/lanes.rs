//! Norms, activations, rotations and sums of vectors, written so that a compiler turns them into vector code of whatever width: no
//! branch in a loop, sums in [`LANES`] independent parts, fused multiply-adds written out. Each tier compiles them under its own features
//! with [`elementwise!`](super::elementwise); a CPU needs fused multiply-add, or `mul_add` becomes a call.
//!
//! Within 4 ε of the plain kernels, sums within their length / [`LANES`] + 8 times ε of the terms' magnitudes.

use super::{Activation, Pairing, plain};

/// Sums kept side by side: enough to hide an addition's latency at any width.
const LANES: usize = 64;

/// Σ f(i) over `n`, in [`LANES`] parts.
#[inline(always)]
fn sum(n: usize, f: impl Fn(f32, usize) -> f32) -> f32 {
    let mut parts = [0.0; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, part) in parts.iter_mut().enumerate() {
            *part = f(*part, i + lane);
        }
        i += LANES;
    }
    for i in whole..n {
        parts[i - whole] = f(parts[i - whole], i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            parts[i] += parts[i + width];
        }
        width /= 2;
    }
    parts[0]
}

/// Σ x²
#[inline(always)]
fn squares(x: &[f32]) -> f32 {
    sum(x.len(), |part, i| x[i].mul_add(x[i], part))
}

#[inline(always)]
pub fn add_scaled(y: &mut [f32], by: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x.mul_add(by, *y);
    }
}

#[inline(always)]
pub fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    plain::elementwise::add(a, b, out);
}

#[inline(always)]
pub fn mul(a: &[f32], b: &[f32], out: &mut [f32]) {
    plain::elementwise::mul(a, b, out);
}

#[inline(always)]
pub fn scale(x: &[f32], by: f32, out: &mut [f32]) {
    plain::elementwise::scale(x, by, out);
}

#[inline(always)]
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let by = 1.0 / (squares(x) / x.len() as f32 + eps).sqrt();
    times(x, by, weight, out);
}

#[inline(always)]
pub fn l2_norm(x: &[f32], eps: f32, out: &mut [f32]) {
    times(x, 1.0 / (squares(x) + eps).sqrt(), None, out);
}

#[inline(always)]
fn times(x: &[f32], by: f32, weight: Option<&[f32]>, out: &mut [f32]) {
    match weight {
        Some(weight) => {
            for ((x, w), out) in x.iter().zip(weight).zip(out) {
                *out = x * by * w;
            }
        }
        None => scale(x, by, out),
    }
}

#[inline(always)]
pub fn layer_norm(x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x.len(), |part, i| part + x[i]) / n;
    let squares = sum(x.len(), |part, i| (x[i] - mean).mul_add(x[i] - mean, part));
    let by = 1.0 / (squares / n + eps).sqrt();
    for (x, out) in x.iter().zip(out.iter_mut()) {
        *out = (x - mean) * by;
    }
    if let Some(weight) = weight {
        for (w, out) in weight.iter().zip(out.iter_mut()) {
            *out *= w;
        }
    }
    if let Some(bias) = bias {
        for (b, out) in bias.iter().zip(out.iter_mut()) {
            *out += b;
        }
    }
}

#[inline(always)]
pub fn rope(pairing: Pairing, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    match pairing {
        Pairing::Neighbours => {
            for ((pair, c), s) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                *pair = [pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c];
            }
        }
        Pairing::Halves => {
            let (first, second) = x.split_at_mut(cos.len());
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
    }
}

/// eˣ within 2 ε from −87.3 on; below that results are denormal, and it is 0 from −87.7 on. Infinite above 88, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let y = exp_up_to_88(if x > 88.0 { 88.0 } else { x });
    if x > 88.0 { f32::INFINITY } else { y }
}

/// The same for x ≤ 88. Cody and Waite's reduction, x = n · ln 2 + r with |r| ≤ ln 2 / 2, and of the polynomials 1 + r + … + c·r⁵ the one
/// whose largest relative error from eʳ is least (1.05·10⁻⁷, by Lawson's iteration). The least power of two, for n = −127, has the bits of
/// 0.
#[inline(always)]
pub fn exp_up_to_88(x: f32) -> f32 {
    // The low bits of this sum's mantissa are the nearest integer.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³
    const LEAST: f32 = -127.0 * std::f32::consts::LN_2;
    let inside = if x < LEAST { LEAST } else { x };
    let rounded = inside.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-1.428_606_8e-6, n.mul_add(-0.693_145_75, inside));
    let p = r.mul_add(8.312_521e-3, 4.189_015_6e-2);
    let p = r.mul_add(p, 1.666_711_4e-1);
    let p = r.mul_add(p, 4.999_923e-1);
    let p = r.mul_add(p, 1.0);
    let p = r.mul_add(p, 1.0);
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

/// Softplus needs a logarithm and is rare: it stays plain.
#[inline(always)]
pub fn activate(f: Activation, x: &[f32], out: &mut [f32]) {
    match f {
        Activation::Silu => each(x, out, silu),
        Activation::GeluTanh => each(x, out, gelu),
        Activation::Sigmoid => each(x, out, sigmoid),
        Activation::Softplus => plain::elementwise::activate(f, x, out),
    }
}

#[inline(always)]
pub fn gated(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match f {
        Activation::Silu => pairs(gate, up, out, silu),
        Activation::GeluTanh => pairs(gate, up, out, gelu),
        Activation::Sigmoid => pairs(gate, up, out, sigmoid),
        Activation::Softplus => plain::elementwise::gated(f, gate, up, out),
    }
}

#[inline(always)]
pub fn soft_cap(x: &[f32], cap: f32, out: &mut [f32]) {
    each(x, out, |x| capped(x, cap));
}

/// `cap · tanh(x / cap)`, with tanh y = 1 − 2 / (e²ʸ + 1).
#[inline(always)]
pub fn capped(x: f32, cap: f32) -> f32 {
    cap - 2.0 * cap / (exp(2.0 * (x / cap)) + 1.0)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x/2 · (1 + tanh u) = x / (1 + e⁻²ᵘ), u = √(2/π) · (x + 0.044715 x³)
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

#[inline(always)]
fn each(x: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
    for (x, out) in x.iter().zip(out) {
        *out = f(*x);
    }
}

#[inline(always)]
fn pairs(a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(f32) -> f32) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = f(*a) * b;
    }
}

/// A function `fill` that puts all kernels of this file, compiled with these features, into a table.
macro_rules! elementwise {
    ($features:literal) => {
        /// Kernels of vectors, compiled for this tier.
        mod elementwise {
            use crate::cpu::{Activation, Kernels, Pairing, lanes};

            $crate::cpu::lanes::elementwise!(@ $features
                add_scaled(y: &mut [f32], by: f32, x: &[f32]);
                add(a: &[f32], b: &[f32], out: &mut [f32]);
                mul(a: &[f32], b: &[f32], out: &mut [f32]);
                scale(x: &[f32], by: f32, out: &mut [f32]);
                rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]);
                layer_norm(x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, out: &mut [f32]);
                l2_norm(x: &[f32], eps: f32, out: &mut [f32]);
                rope(pairing: Pairing, x: &mut [f32], cos: &[f32], sin: &[f32]);
                activate(f: Activation, x: &[f32], out: &mut [f32]);
                gated(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]);
                soft_cap(x: &[f32], cap: f32, out: &mut [f32]);
            );
        }
    };
    (@ $features:literal $($name:ident($($arg:ident: $type:ty),*);)*) => {
        $(
            #[target_feature(enable = $features)]
            fn $name($($arg: $type),*) {
                lanes::$name($($arg),*)
            }
        )*

        pub fn fill(k: &mut Kernels) {
            $(k.$name = $name;)*
        }
    };
}
pub(in crate::cpu) use elementwise;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_epsilon_and_keeps_the_ends() {
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        }
        for (x, most) in [(-87.5, 1.1e-38), (-87.6, 1e-38), (-87.7, 0.0), (-88.1, 0.0)] {
            assert!((0.0..=most).contains(&exp(x)), "{x}: {}", exp(x));
        }
        assert_eq!((exp(f32::NEG_INFINITY), exp(-100.0), exp(f32::INFINITY), exp(0.0)), (0.0, 0.0, f32::INFINITY, 1.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
