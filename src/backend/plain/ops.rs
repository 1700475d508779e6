//! The formulas of [`Op`](crate::program::Op), on one row at a time unless said otherwise. Sums and square roots are in f64.

use crate::program::{Activation, Gating, Matrix, Pairing};
use hearth_kernels::cpu::plain::sums::{add, dot};
use hearth_kernels::quant::{Format, decode};

/// Rows of a tensor as they lie in the file.
pub struct Rows<'a> {
    pub format: Format,
    pub bytes: &'a [u8],
    pub row_bytes: usize,
}

impl Rows<'_> {
    /// Decodes row `index`.
    pub fn decode(&self, index: usize, out: &mut [f32]) {
        decode(self.format, &self.bytes[index * self.row_bytes..][..self.row_bytes], out);
    }
}

/// All rows at once: `y[r, o] = Σᵢ weight[o, i] · x[r, i] (+ bias[o])`.
pub fn linear(weight: &Rows, part: Matrix, bias: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
    let mut row = vec![0.0; part.columns];
    for o in 0..part.rows {
        weight.decode(part.first_row + o, &mut row);
        let bias = bias.map_or(0.0, |b| f64::from(b[o]));
        for (x, y) in x.chunks_exact(part.columns).zip(y.chunks_exact_mut(part.rows)) {
            y[o] = (dot(&row, x) + bias) as f32;
        }
    }
}

/// One group.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        *y = (f64::from(*x) * scale * weight.map_or(1.0, |w| f64::from(w[i]))) as f32;
    }
}

/// One group.
pub fn layer_norm(x: &[f32], weight: Option<&[f32]>, bias: Option<&[f32]>, eps: f32, y: &mut [f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let normed = (f64::from(*x) - mean) * scale;
        *y = (normed * weight.map_or(1.0, |w| f64::from(w[i])) + bias.map_or(0.0, |b| f64::from(b[i]))) as f32;
    }
}

/// One group.
pub fn l2_norm(x: &[f32], eps: f32, y: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) + f64::from(eps)).sqrt();
    for (x, y) in x.iter().zip(y) {
        *y = (f64::from(*x) * scale) as f32;
    }
}

/// One group at one position; elements beyond the pairs stay.
pub fn rope(x: &[f32], pairing: Pairing, frequencies: &[f32], magnitude: f32, position: usize, y: &mut [f32]) {
    y.copy_from_slice(x);
    for (i, frequency) in frequencies.iter().enumerate() {
        let angle = position as f64 * f64::from(*frequency);
        let (sin, cos) = (angle.sin() * f64::from(magnitude), angle.cos() * f64::from(magnitude));
        let (first, second) = match pairing {
            Pairing::Neighbours => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + frequencies.len()),
        };
        let (a, b) = (f64::from(x[first]), f64::from(x[second]));
        y[first] = (a * cos - b * sin) as f32;
        y[second] = (a * sin + b * cos) as f32;
    }
}

/// One head over the lines `keys` `[count, k_dim]` and `values` `[count, v_dim]` that it may see.
pub struct Attend<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub scale: f32,
    pub softcap: Option<f32>,
    /// This head's sink.
    pub sink: Option<f32>,
}

impl Attend<'_> {
    pub fn head(&self, q: &[f32], y: &mut [f32]) {
        let mut scores: Vec<f64> = self.keys.chunks_exact(q.len()).map(|k| dot(q, k) * f64::from(self.scale)).collect();
        if let Some(cap) = self.softcap.map(f64::from) {
            scores.iter_mut().for_each(|s| *s = cap * (*s / cap).tanh());
        }
        let largest = scores.iter().copied().chain(self.sink.map(f64::from)).fold(f64::NEG_INFINITY, f64::max);
        scores.iter_mut().for_each(|s| *s = (*s - largest).exp());
        let sink = self.sink.map_or(0.0, |sink| (f64::from(sink) - largest).exp());
        let sum = scores.iter().sum::<f64>() + sink;
        let mut total = vec![0.0f64; y.len()];
        for (weight, v) in scores.iter().zip(self.values.chunks_exact(y.len())) {
            add(&mut total, weight / sum, v);
        }
        for (y, total) in y.iter_mut().zip(total) {
            *y = total as f32;
        }
    }
}

/// `f(x)`
pub fn activate(activation: Activation, x: f32) -> f32 {
    let x = f64::from(x);
    let y = match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        // ln(1 + eˣ) without overflow.
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    };
    y as f32
}

/// `cap · tanh(x / cap)`
pub fn soft_cap(x: f32, cap: f32) -> f32 {
    let cap = f64::from(cap);
    (cap * (f64::from(x) / cap).tanh()) as f32
}

/// The experts of one row and their weights, the largest first.
pub fn pick_experts(router: &[f32], used: usize, gating: Gating, normalise: bool, scale: f32) -> Vec<(usize, f32)> {
    let largest = router.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<(usize, f64)> = router
        .iter()
        .map(|&s| match gating {
            Gating::Softmax => (f64::from(s) - f64::from(largest)).exp(),
            Gating::Sigmoid => 1.0 / (1.0 + (-f64::from(s)).exp()),
        })
        .enumerate()
        .collect();
    if gating == Gating::Softmax {
        let sum: f64 = p.iter().map(|(_, p)| p).sum();
        p.iter_mut().for_each(|(_, p)| *p /= sum);
    }
    // Stable, so of equals the lower index comes first. By an order of all numbers, NaN too: sorting by any other may panic.
    p.sort_by(|a, b| b.1.total_cmp(&a.1));
    p.truncate(used);
    let sum = if normalise { p.iter().map(|(_, p)| p).sum() } else { 1.0 };
    p.into_iter().map(|(e, p)| (e, (p / sum * f64::from(scale)) as f32)).collect()
}

/// One row through a causal convolution. `kernel` `[channels, length]`; `tail` `[length − 1, channels]` moves on by one.
pub fn short_conv(kernel: &[f32], tail: &mut [f32], x: &[f32], y: &mut [f32]) {
    let channels = x.len();
    let length = kernel.len() / channels;
    for c in 0..channels {
        let inputs = (0..length - 1).map(|j| tail[j * channels + c]).chain([x[c]]);
        y[c] = inputs.zip(&kernel[c * length..]).map(|(x, k)| f64::from(x) * f64::from(*k)).sum::<f64>() as f32;
    }
    tail.copy_within(channels.., 0);
    let newest = tail.len() - channels;
    tail[newest..].copy_from_slice(x);
}

/// One row, one head of the gated delta rule.
pub struct Delta<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub decay: f32,
    pub beta: f32,
    pub scale: f32,
}

impl Delta<'_> {
    /// Moves `state` `[k_dim, v_dim]` on by this row, and reads it.
    pub fn advance(&self, state: &mut [f32], y: &mut [f32]) {
        let v_dim = self.v.len();
        let keep = f64::from(self.decay).exp();
        let mut recalled = vec![0.0f64; v_dim];
        for (row, k) in state.chunks_exact_mut(v_dim).zip(self.k) {
            for (s, recalled) in row.iter_mut().zip(&mut recalled) {
                *s = (f64::from(*s) * keep) as f32;
                *recalled += f64::from(*s) * f64::from(*k);
            }
        }
        let correction: Vec<f64> = self.v.iter().zip(&recalled).map(|(v, r)| f64::from(self.beta) * (f64::from(*v) - r)).collect();
        let mut total = vec![0.0f64; v_dim];
        for ((row, k), q) in state.chunks_exact_mut(v_dim).zip(self.k).zip(self.q) {
            for (i, s) in row.iter_mut().enumerate() {
                *s = (f64::from(*s) + f64::from(*k) * correction[i]) as f32;
                total[i] += f64::from(*s) * f64::from(*q);
            }
        }
        for (y, total) in y.iter_mut().zip(total) {
            *y = (total * f64::from(self.scale)) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-6), "{got:?}, not {want:?}");
    }

    #[test]
    fn a_sink_takes_its_share_of_the_softmax_and_gives_nothing() {
        // Two equal scores of 0 and a sink of 0: a third each.
        let attend = Attend { keys: &[0.0, 0.0], values: &[3.0, 6.0], scale: 1.0, softcap: None, sink: Some(0.0) };
        let mut y = [0.0];
        attend.head(&[1.0], &mut y);
        close(&y, &[3.0]);
    }

    #[test]
    fn layer_norm_takes_mean_and_deviation_away() {
        let mut y = [0.0; 2];
        layer_norm(&[1.0, 3.0], Some(&[2.0, 2.0]), Some(&[0.5, 0.5]), 0.0, &mut y);
        close(&y, &[-1.5, 2.5]);
    }

    #[test]
    fn sigmoid_experts_are_weighed_by_themselves_and_ties_go_to_the_lower_index() {
        let picked = pick_experts(&[0.0, 100.0, 0.0], 2, Gating::Sigmoid, false, 2.0);
        assert_eq!(picked, [(1, 2.0), (0, 1.0)]);
        let normalised = pick_experts(&[0.0, 0.0, -100.0], 2, Gating::Softmax, true, 1.0);
        assert_eq!(normalised, [(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn nan_scores_still_pick_experts_that_exist() {
        let picked = pick_experts(&[f32::NAN; 4], 2, Gating::Softmax, true, 1.0);
        assert!(picked.len() == 2 && picked.iter().all(|(e, _)| *e < 4));
        // Some of many; among these seeds are lists that a sort by `partial_cmp`, NaN equal to all, panics on.
        for seed in 0..400u64 {
            let mut state = seed;
            let mut scores = [0.0f32; 128];
            for score in &mut scores {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let bits = state >> 33;
                *score = if bits.is_multiple_of(4) { f32::NAN } else { bits as f32 / (1u64 << 31) as f32 };
            }
            assert_eq!(pick_experts(&scores, 8, Gating::Sigmoid, true, 1.0).len(), 8);
        }
    }

    #[test]
    fn a_convolution_reads_its_tail_oldest_first() {
        // Two channels, a kernel of 3: y = k0·x[t-2] + k1·x[t-1] + k2·x[t].
        let kernel = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0];
        let mut tail = [1.0, 1.0, 2.0, 2.0];
        let mut y = [0.0; 2];
        short_conv(&kernel, &mut tail, &[3.0, 3.0], &mut y);
        close(&y, &[321.0, 642.0]);
        assert_eq!(tail, [2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn the_delta_rule_replaces_what_its_key_recalls() {
        // An orthonormal key, full strength, no decay: the state then answers the key with the value, whatever it held.
        let mut state = [5.0, 6.0, 7.0, 8.0];
        let mut y = [0.0; 2];
        let delta = Delta { q: &[1.0, 0.0], k: &[1.0, 0.0], v: &[-1.0, 2.0], decay: 0.0, beta: 1.0, scale: 1.0 };
        delta.advance(&mut state, &mut y);
        close(&y, &[-1.0, 2.0]);
        close(&state, &[-1.0, 2.0, 7.0, 8.0]);
    }

    #[test]
    fn activations_stay_finite_far_from_zero() {
        let far = |activation, x| activate(activation, x);
        assert_eq!(far(Activation::Silu, -1e4), 0.0);
        assert_eq!(far(Activation::Softplus, 1e4), 1e4);
        assert_eq!(far(Activation::GeluTanh, 100.0), 100.0);
        assert_eq!(far(Activation::Sigmoid, -1e4), 0.0);
    }
}
