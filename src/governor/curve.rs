//! How speed falls with the clock, for all threads in use and for one less: learned from settings that take turns.
//!
//! With x = ln(full clock / clock), `ln(rate) = level - behind - b1·x - b2·x²`. The level is common to all settings and moves: contexts
//! grow, and a new answer begins with another. So settings are compared by seconds that lie close together, and the longer two take turns
//! the surer their difference. `behind` is what one thread less loses at full clock (below zero if it is faster). b1 is the speed's
//! elasticity at full clock, 1 where a core computes without waiting; b2 bends the curve the way two limits do that take over from each
//! other: `(compute^-p + memory^-p)^(-1/p)` has b2 = p·b1·(1 - b1)/2, and p is about four where that was measured.

use super::kalman;

/// Level; b1, b2 of all threads; behind, b1, b2 of one less.
const N: usize = 6;
/// First guesses and one sigma of each; a level is not known before its first second.
const GUESS: [f64; N] = [0.0, 0.5, 0.35, 0.0, 0.5, 0.35];
const SIGMA: [f64; N] = [10.0, 0.5, 0.3, 0.5, 0.5, 0.3];
/// Variance a second: the level by a context that grows (a twentieth of a percent in a second, one sigma), the loss at a
/// clock a fifth lower by 0.2 % in an hour (guess).
const DRIFT: [f64; N] = [2.5e-7, 2.2e-8, 0.0, 1.1e-9, 2.2e-8, 0.0];
/// What the next answer's context may change (guess).
const ANSWER_SIGMA: f64 = 0.05;

/// All threads in use, or one less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crew {
    All,
    Fewer,
}

/// What was learned, as a Gaussian over the six unknowns.
#[derive(Clone, Debug)]
pub struct Curve {
    mean: [f64; N],
    covariance: [[f64; N]; N],
    scatter: Scatter,
}

impl Curve {
    pub fn new() -> Curve {
        let mut covariance = [[0.0; N]; N];
        for (i, row) in covariance.iter_mut().enumerate() {
            row[i] = SIGMA[i] * SIGMA[i];
        }
        Curve { mean: GUESS, covariance, scatter: SCATTER }
    }

    /// Another answer begins.
    pub fn another_answer(&mut self) {
        self.covariance[0][0] += ANSWER_SIGMA * ANSWER_SIGMA;
        self.scatter.before = None;
    }

    /// Takes in one busy second at `rate` > 0.
    pub fn learn(&mut self, crew: Crew, x: f32, rate: f32) {
        let y = (rate as f64).ln();
        let noise = self.scatter.learn(crew, x, y);
        let by = weights(crew, x as f64, 1.0);
        for (i, row) in self.covariance.iter_mut().enumerate() {
            row[i] += DRIFT[i];
        }
        kalman::learn(&mut self.mean, &mut self.covariance, &by, noise, y);
    }

    /// The share of speed that a setting loses against all threads at full clock, and one sigma of it.
    pub fn loss(&self, crew: Crew, x: f32) -> (f32, f32) {
        let by = weights(crew, x as f64, 0.0);
        let log = -(0..N).map(|i| by[i] * self.mean[i]).sum::<f64>();
        let variance: f64 = (0..N).map(|i| (0..N).map(|j| by[i] * by[j] * self.covariance[i][j]).sum::<f64>()).sum();
        let kept = (-log).exp();
        ((1.0 - kept) as f32, (kept * variance.max(0.0).sqrt()) as f32)
    }
}

/// What each unknown counts for in the logarithm of a rate.
fn weights(crew: Crew, x: f64, level: f64) -> [f64; N] {
    match crew {
        Crew::All => [level, -x, -x * x, 0.0, 0.0, 0.0],
        Crew::Fewer => [level, 0.0, 0.0, -1.0, -x, -x * x],
    }
}

/// Variance of the logarithm of one second's rate, from neighbours at one setting.
#[derive(Clone, Debug)]
struct Scatter {
    before: Option<(Crew, f32, f64)>,
    variance: f64,
    seconds: f64,
}

/// One percent a second (guess), worth so many seconds; later ones count over the last minutes.
const SCATTER: Scatter = Scatter { before: None, variance: 1e-4, seconds: 10.0 };
const SCATTER_SECONDS_MAX: f64 = 200.0;

impl Scatter {
    fn learn(&mut self, crew: Crew, x: f32, y: f64) -> f64 {
        if let Some((_, _, before)) = self.before.filter(|b| (b.0, b.1) == (crew, x)) {
            self.seconds = (self.seconds + 1.0).min(SCATTER_SECONDS_MAX);
            // One wild second is no scatter.
            let apart = (0.5 * (y - before).powi(2)).min(25.0 * self.variance);
            self.variance += (apart - self.variance) / self.seconds;
        }
        self.before = Some((crew, x, y));
        self.variance.max(1e-8)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plant::noise::Noise;
    use super::*;

    /// What is learned in `seconds` of full clock and a clock a quarter lower in turn, six seconds each.
    fn in_turn(seconds: usize, rate: impl Fn(usize, f32) -> f32) -> (f32, f32) {
        let mut curve = Curve::new();
        let low = (1.0f32 / 0.75).ln();
        for second in 0..seconds {
            let x = [0.0, low][second / 6 % 2];
            curve.learn(Crew::All, x, rate(second, x));
        }
        curve.loss(Crew::All, low)
    }

    #[test]
    fn the_loss_is_found_within_its_error() {
        let mut beyond = 0;
        for seed in 0..40 {
            let noise = std::cell::RefCell::new(Noise::new(seed));
            let (loss, sigma) = in_turn(400, |_, x| 10.0 * (-0.1 * x).exp() * (1.0 + 0.01 * noise.borrow_mut().normal()));
            assert!(sigma < 0.0013, "one sigma {sigma}");
            beyond += usize::from((loss - (1.0 - 0.75f32.powf(0.1))).abs() > 2.0 * sigma);
        }
        assert!(beyond <= 5, "{beyond} of 40 beyond two sigma");
    }

    #[test]
    fn a_context_that_grows_is_no_loss_of_the_clock() {
        let (loss, sigma) = in_turn(400, |second, x| 10.0 * (-0.1 * x).exp() * (1.0 - 0.0004 * second as f32));
        assert!((loss - 0.0284).abs() < 0.002, "{loss} ± {sigma}");
    }

    #[test]
    fn a_stalled_second_bends_nothing() {
        let (loss, _) = in_turn(400, |second, x| 10.0 * (-0.1 * x).exp() * if second == 310 { 0.1 } else { 1.0 });
        assert!((loss - 0.0284).abs() < 0.002, "{loss}");
    }
}
