//! Rotary position embedding: its parameters, and the one place where they become frequencies. A backend asks [`Rope::frequencies`]
//! once at load and [`Rope::magnitude`] with it; then a pair `(a, b)` at position `p` becomes
//! `(a·c − b·s, a·s + b·c)` with `c = magnitude · cos(p · frequency)`, `s = magnitude · sin(p · frequency)`.

use super::WeightId;

/// Rotates the first `dims` elements of each group; the others stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    pub pairing: Pairing,
    /// Even.
    pub dims: usize,
    /// Pair `i` turns by `base^(−2i / dims)` radians a position, before scaling.
    pub base: f32,
    pub scaling: RopeScaling,
    pub factors: RopeFactors,
    /// Multiplies sine and cosine, besides what the scaling brings.
    pub attention_factor: f32,
}

/// Which elements make pair `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `2i` and `2i + 1`
    Neighbours,
    /// `i` and `i + dims/2`
    Halves,
}

/// How a model trained on short texts is stretched to longer ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// All frequencies divided by `factor`.
    Linear {
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): fast pairs as trained, slow pairs divided by `factor`, a ramp between; the magnitude grows.
    Yarn {
        factor: f32,
        original_context: usize,
        beta_fast: f32,
        beta_slow: f32,
    },
}

/// Divisors per pair from tensors of `dims/2` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeFactors {
    None,
    Always(WeightId),
    /// Phi-3's long rope: `long` when the model is loaded for a context above `original_context`, else `short`. It is decided at load,
    /// since keys already cached can't be turned again.
    ByContext {
        short: WeightId,
        long: WeightId,
        original_context: usize,
    },
}

impl RopeFactors {
    /// The tensor that counts for a model loaded with room for `context` positions.
    pub fn for_context(self, context: usize) -> Option<WeightId> {
        match self {
            RopeFactors::None => None,
            RopeFactors::Always(weight) => Some(weight),
            RopeFactors::ByContext { long, original_context, .. } if context > original_context => Some(long),
            RopeFactors::ByContext { short, .. } => Some(short),
        }
    }
}

impl Rope {
    /// Radians a position for each of the `dims/2` pairs; `factors` are the elements of [`RopeFactors::for_context`]'s tensor.
    pub fn frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let dims = self.dims as f64;
        (0..self.dims / 2)
            .map(|pair| {
                let divisor = factors.map_or(1.0, |f| f64::from(f[pair]));
                let trained = f64::from(self.base).powf(-2.0 * pair as f64 / dims) / divisor;
                let scaled = match self.scaling {
                    RopeScaling::None => trained,
                    RopeScaling::Linear { factor } => trained / f64::from(factor),
                    RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                        let slow_share = self.yarn_ramp(pair as f64, original_context as f64, beta_fast.into(), beta_slow.into());
                        trained * (1.0 - slow_share) + trained / f64::from(factor) * slow_share
                    }
                };
                scaled as f32
            })
            .collect()
    }

    /// What sine and cosine are multiplied by.
    pub fn magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { factor, .. } => self.attention_factor * (1.0 + 0.1 * factor.max(1.0).ln()),
            RopeScaling::None | RopeScaling::Linear { .. } => self.attention_factor,
        }
    }

    /// 0 for pairs that turn more than `beta_fast` times within the original context, 1 below `beta_slow` turns, linear in the
    /// pair's index between (equations 17 to 23 of the paper, with whole indices at both ends as in the authors' code).
    fn yarn_ramp(&self, pair: f64, original_context: f64, beta_fast: f64, beta_slow: f64) -> f64 {
        let dims = self.dims as f64;
        let pair_with_turns =
            |turns: f64| dims * (original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * f64::from(self.base).ln());
        let low = pair_with_turns(beta_fast).floor().max(0.0);
        let high = pair_with_turns(beta_slow).ceil().min(dims - 1.0);
        ((pair - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Rope {
        Rope { pairing: Pairing::Halves, dims: 8, base: 10_000.0, scaling, factors: RopeFactors::None, attention_factor: 1.0 }
    }

    #[test]
    fn plain_frequencies_fall_from_one_by_the_base() {
        let f = rope(RopeScaling::None).frequencies(None);
        for (got, want) in f.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((got - want).abs() < 1e-7, "{f:?}");
        }
    }

    #[test]
    fn linear_scaling_and_factors_divide() {
        let f = rope(RopeScaling::Linear { factor: 4.0 }).frequencies(Some(&[1.0, 2.0, 1.0, 1e30]));
        for (got, want) in f.iter().zip([0.25, 0.0125, 0.0025, 0.0]) {
            assert!((got - want).abs() < 1e-7, "{f:?}");
        }
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_stretches_slow_ones() {
        let yarn = rope(RopeScaling::Yarn { factor: 4.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0 });
        let f = yarn.frequencies(None);
        assert_eq!(f[0], 1.0, "turns 652 times within the context: untouched");
        assert!((f[3] - 0.001 / 4.0).abs() < 1e-8, "turns 0.65 times: divided by the factor, got {}", f[3]);
        assert!(f[2] < 0.01 && f[2] > 0.01 / 4.0, "in between, got {}", f[2]);
        assert!((yarn.magnitude() - (1.0 + 0.1 * 4f32.ln())).abs() < 1e-6);
    }

    #[test]
    fn long_factors_start_above_the_original_context() {
        let factors = RopeFactors::ByContext { short: WeightId(1), long: WeightId(2), original_context: 256 };
        assert_eq!(factors.for_context(256), Some(WeightId(1)));
        assert_eq!(factors.for_context(257), Some(WeightId(2)));
    }
}
