//! How one zone answers to power, learned while it runs, and what it will be.
//!
//! The slow node obeys `Tb' = α·Tb + b·P + c` over steps of 10 s and the sensor sits `Rjb·P` above it, so
//! `T' = α·T + β·P' + γ·P + δ` with β = Rjb, γ = b - α·Rjb: linear in four numbers.
//! P is taken through the junction's own lag first, or a step of power would look like a fast board. Recursive least squares,
//! started from the board's profile with its uncertainty and forgetting over half an hour. It learns only while something
//! changes: a steady board says nothing about its time constant.

use super::policy::Prior;

const STEP_S: f64 = 10.0;
/// Lag of the junction behind its power: Rjb·Cj of the boards known is 3.6 to 8.7 s.
const JUNCTION_S: f64 = 6.0;
/// Half an hour of memory.
const FORGET: f64 = 0.9945;
/// Variance of a mean over 10 s of a reading in steps of about 0.5 K.
const NOISE: f64 = 0.04;

/// What is known of one zone.
#[derive(Clone, Debug)]
pub struct Estimator {
    /// α, β, γ, δ.
    x: [f64; 4],
    covariance: [[f64; 4]; 4],
    sum_t: f64,
    sum_p: f64,
    sum_s: f64,
    last: Option<(f64, f64)>,
    recent_p: f64,
    recent_t: f64,
    /// Power behind the junction's lag.
    felt_p: f64,
    samples: u32,
    quiet_steps: u32,
}

impl Estimator {
    pub fn new(prior: &Prior) -> Estimator {
        let tau = prior.tau_s.max(60.0) as f64;
        let alpha = (-STEP_S / tau).exp();
        let rjb = prior.rjb as f64;
        let b = (1.0 - alpha) * prior.rba as f64;
        let sigma = prior.sigma as f64;
        let spread = [
            0.7 * (1.0 - alpha),
            0.6 * sigma * rjb,
            0.6 * sigma * rjb + 0.5 * b,
            (1.0 - alpha) * (12.0 + 35.0 * sigma),
        ];
        let mut covariance = [[0.0; 4]; 4];
        for i in 0..4 {
            covariance[i][i] = spread[i] * spread[i];
        }
        // γ = b - α·β: what is not known of β is not known of γ either, with the other sign.
        covariance[1][2] = -(0.6 * sigma * rjb).powi(2);
        covariance[2][1] = covariance[1][2];
        let board_w = 2.0;
        Estimator {
            x: [alpha, rjb, b - alpha * rjb, (1.0 - alpha) * (25.0 + prior.rba as f64 * board_w)],
            covariance,
            sum_t: 0.0,
            sum_p: 0.0,
            sum_s: 0.0,
            last: None,
            recent_p: 0.0,
            recent_t: 0.0,
            felt_p: prior.idle_w as f64,
            samples: 0,
            quiet_steps: 0,
        }
    }

    /// Takes in `dt` seconds at temperature `t` and power `p`.
    pub fn feed(&mut self, t: f32, p: f32, dt: f64) {
        let (t, p) = (t as f64, p as f64);
        if self.samples == 0 {
            (self.recent_t, self.recent_p) = (t, p);
            self.last = Some((t, self.felt_p));
        }
        self.samples = self.samples.saturating_add(1);
        self.recent_t += (t - self.recent_t) * (dt / 4.0).min(1.0);
        self.recent_p += (p - self.recent_p) * (dt / 10.0).min(1.0);
        self.felt_p += (p - self.felt_p) * (1.0 - (-dt / JUNCTION_S).exp());
        self.sum_t += t * dt;
        self.sum_p += self.felt_p * dt;
        self.sum_s += dt;
        if self.sum_s < STEP_S {
            return;
        }
        let (mean_t, mean_p) = (self.sum_t / self.sum_s, self.sum_p / self.sum_s);
        (self.sum_t, self.sum_p, self.sum_s) = (0.0, 0.0, 0.0);
        if let Some((last_t, last_p)) = self.last {
            let excited = (mean_p - last_p).abs() >= 0.3 || (mean_t - last_t).abs() >= 0.25;
            self.quiet_steps = if excited { 0 } else { self.quiet_steps + 1 };
            if self.quiet_steps < 6 {
                self.learn([last_t, mean_p, last_p, 1.0], mean_t);
            }
        }
        self.last = Some((mean_t, mean_p));
    }

    /// A gap in time: the next step starts afresh.
    pub fn break_off(&mut self) {
        self.last = None;
        (self.sum_t, self.sum_p, self.sum_s) = (0.0, 0.0, 0.0);
    }

    fn learn(&mut self, phi: [f64; 4], t: f64) {
        let mut pphi = [0.0; 4];
        for i in 0..4 {
            pphi[i] = (0..4).map(|j| self.covariance[i][j] * phi[j]).sum();
        }
        let denominator = NOISE + (0..4).map(|i| phi[i] * pphi[i]).sum::<f64>();
        let error = t - (0..4).map(|i| phi[i] * self.x[i]).sum::<f64>();
        // One wild reading must not bend the model: an error beyond five sigma counts as five.
        let bound = 5.0 * denominator.sqrt();
        let error = error.clamp(-bound, bound);
        for i in 0..4 {
            self.x[i] += pphi[i] / denominator * error;
        }
        self.x[0] = self.x[0].clamp(0.80, 0.9985);
        self.x[1] = self.x[1].max(0.0);
        for i in 0..4 {
            for j in 0..4 {
                self.covariance[i][j] -= pphi[i] * pphi[j] / denominator;
            }
        }
        // Forgetting adds uncertainty, but never beyond ten times the noise in what the present regressor predicts.
        if denominator < 10.0 * NOISE {
            self.covariance.iter_mut().flatten().for_each(|c| *c /= FORGET);
        }
    }

    /// Temperature after `seconds` at power `p`, and one sigma of it. `None` before three samples.
    pub fn after(&self, seconds: f32, p: f32) -> Option<(f32, f32)> {
        if self.samples < 3 {
            return None;
        }
        let [alpha, beta, ..] = self.x;
        let p = p as f64;
        let steps = seconds as f64 / STEP_S;
        // The junction follows a new power within the horizon.
        let now = self.recent_t + beta * (p - self.felt_p);
        let decay = alpha.powf(steps);
        let t = self.settles_at(p) + (now - self.settles_at(p)) * decay;
        // A fresh model errs by its own parameters: the sigma of one step, added up over the steps.
        let phi = [self.recent_t, p, self.recent_p, 1.0];
        let one: f64 = (0..4).map(|i| phi[i] * (0..4).map(|j| self.covariance[i][j] * phi[j]).sum::<f64>()).sum();
        let sigma = (one.max(0.0).sqrt() * steps).min(15.0) + NOISE.sqrt();
        Some((t as f32, sigma as f32))
    }

    /// Where the zone ends up at power `p`.
    pub fn settles_at(&self, p: f64) -> f64 {
        let [alpha, beta, gamma, delta] = self.x;
        ((beta + gamma) * p + delta) / (1.0 - alpha)
    }

    /// Seconds until the zone reaches `trip` at the present power; `None` when it never will, or nobody knows yet.
    pub fn seconds_until(&self, trip: f32) -> Option<f64> {
        if self.samples < 3 {
            return None;
        }
        let end = self.settles_at(self.recent_p);
        let (trip, now) = (trip as f64, self.recent_t + self.x[1] * (self.recent_p - self.felt_p));
        if now >= trip || self.recent_t >= trip {
            return Some(0.0);
        }
        if end <= trip + 0.1 {
            return None;
        }
        Some(self.time_constant_s() * ((end - now) / (end - trip)).ln())
    }

    pub fn time_constant_s(&self) -> f64 {
        -STEP_S / self.x[0].ln()
    }

    /// K/W from the processor's power to this zone, at the end.
    pub fn resistance(&self) -> f64 {
        (self.x[1] + self.x[2]) / (1.0 - self.x[0])
    }

    /// The zone with no processor power: room plus what the rest of the board adds.
    pub fn base_c(&self) -> f64 {
        self.x[3] / (1.0 - self.x[0])
    }

    pub fn power_w(&self) -> f32 {
        self.recent_p as f32
    }

    /// The smoothed reading.
    pub fn temperature_c(&self) -> f32 {
        self.recent_t as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A two-node board by its textbook equations, 1 s steps.
    fn board(p: impl Fn(usize) -> f64, seconds: usize, rba: f64, cb: f64) -> (Estimator, f64) {
        let prior = Prior { rjb: 3.0, rba: 6.0, tau_s: 300.0, sigma: 0.5, ..Prior::unknown(4, vec![1000.0]) };
        let mut e = Estimator::new(&prior);
        let (mut tb, mut tj) = (45.0, 50.0);
        for i in 0..seconds {
            let flow = (tj - tb) / 2.6;
            tj += (p(i) - flow) / 2.2;
            tb += (flow + 2.0 - (tb - 22.0) / rba) / cb;
            e.feed(tj as f32, p(i) as f32, 1.0);
        }
        (e, tb)
    }

    #[test]
    fn resistance_and_time_constant_are_found_from_varied_load() {
        let (e, _) = board(|i| if (i / 300) % 2 == 0 { 5.0 } else { 1.0 }, 2400, 8.2, 38.0);
        assert!((e.resistance() - 10.8).abs() < 2.0, "resistance {}", e.resistance());
        assert!((e.time_constant_s() - 311.0).abs() < 125.0, "time constant {}", e.time_constant_s());
    }

    #[test]
    fn a_minute_ahead_is_within_a_kelvin_after_five_minutes() {
        let (e, tb) = board(|_| 5.0, 300, 8.2, 38.0);
        let mut later = tb;
        (0..60).for_each(|_| later += (7.0 - (later - 22.0) / 8.2) / 38.0);
        let (t, _) = e.after(60.0, 5.0).unwrap();
        assert!((t as f64 - (later + 13.0)).abs() < 1.0, "{t} against {}", later + 13.0);
    }

    #[test]
    fn nothing_is_foretold_before_three_samples() {
        let mut e = Estimator::new(&Prior::unknown(4, vec![1000.0]));
        e.feed(40.0, 2.0, 1.0);
        assert!(e.after(60.0, 2.0).is_none() && e.seconds_until(80.0).is_none());
    }
}
