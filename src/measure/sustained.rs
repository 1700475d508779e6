//! Sustained against peak: the rule, applied to a series of seconds. Pure: the series comes from a model on this machine, from a
//! simulated board, or from a test, and says which.
//!
//! - **Peak**: the best 10 s of the first 60 s, with at least 20 tokens.
//! - **Steady**: over the last W = max(10 min, 2 τ) the temperature moves by less than 0.3 K/min, the speed's slope is less than 1 % in
//!   10 min and not told from 0, and the throttled share of both halves agrees within 5 points. τ is the run's own.
//! - **Sustained**: tokens ÷ time over W, with the 95 % interval of a moving-block bootstrap. Never sooner than 3 τ + W.

use super::statistics::{mean, percentile, ratio_interval, slope};
use serde::{Deserialize, Serialize};

/// What a series was measured on; figures of different sources never stand in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A board in this project's sense.
    Real,
    /// An ordinary computer.
    Pc,
    Simulated,
}

/// One second of work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    pub tokens: f64,
    /// Seconds it really took.
    pub seconds: f64,
    pub celsius: Option<f64>,
    pub skin_celsius: Option<f64>,
    pub requested_mhz: Option<f64>,
    pub measured_mhz: Option<f64>,
    /// Why the clock was taken away: `thermal`, `under-voltage`, `power-limit`; empty when it was not.
    pub throttled: String,
    pub watts: Option<f64>,
}

/// Whoever can work for a second at a time.
pub trait Runner {
    type Error;
    /// Generates tokens for about a second.
    fn work(&mut self) -> Result<Second, Self::Error>;
    /// Rests for about a second.
    fn rest(&mut self) -> Result<Second, Self::Error>;
}

/// How long to go on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Longest wait for a cold start, and longest run, in seconds.
    pub cool_s: usize,
    pub run_s: usize,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sustained {
    pub peak_tok_s: f64,
    /// Over the last window, steady or not; `steady` says whether it may be called sustained.
    pub sustained_tok_s: f64,
    pub sustained_95: [f64; 2],
    pub ratio: f64,
    pub ratio_95: [f64; 2],
    /// 5th percentile of windows of 10 s.
    pub p5_tok_s: f64,
    pub steady: bool,
    /// Percent in 10 min over the window: what to look at when it is not steady.
    pub drift_percent: f64,
    pub window_s: usize,
    pub run_s: usize,
    pub tau_s: f64,
    pub start_c: Option<f64>,
    pub steady_c: Option<f64>,
    pub max_c: Option<f64>,
    pub first_throttled_s: Option<usize>,
    pub requested_mhz: Option<f64>,
    pub measured_mhz: Option<f64>,
    pub measured_p5_mhz: Option<f64>,
    /// Share of the window by reason.
    pub throttled: Vec<(String, f64)>,
    pub watts: Option<f64>,
    pub joules_per_token: Option<f64>,
    /// Less what the board draws at rest.
    pub joules_per_token_net: Option<f64>,
}

const PEAK_WITHIN_S: usize = 60;
const TEN_S: usize = 10;
const PEAK_TOKENS: f64 = 20.0;
const WINDOW_MIN_S: usize = 600;
const KELVIN_PER_MIN: f64 = 0.3;
const PERCENT_IN_10_MIN: f64 = 1.0;
const HALVES_POINTS: f64 = 0.05;
const DRAWS: usize = 2000;
const SEED: u64 = 1;

/// Rests until cold, works until steady or the plan's end. `tell` is called each second with what there is so far.
pub fn run<R: Runner>(runner: &mut R, plan: Plan, mut tell: impl FnMut(&[Second], bool)) -> Result<(Vec<Second>, Vec<Second>), R::Error> {
    let mut cold = Vec::new();
    while cold.len() < plan.cool_s && !is_cold(&cold) {
        cold.push(runner.rest()?);
        tell(&cold, false);
    }
    let mut hot = Vec::new();
    while hot.len() < plan.run_s {
        hot.push(runner.work()?);
        tell(&hot, true);
        if hot.len() % 30 == 0 && is_done(&hot) {
            break;
        }
    }
    Ok((cold, hot))
}

/// Cold: over the last two minutes less than 0.3 K/min. A machine without a thermometer counts as cold at once.
fn is_cold(rest: &[Second]) -> bool {
    if rest.len() >= 3 && rest.iter().all(|s| s.celsius.is_none()) {
        return true;
    }
    let Some(last) = rest.len().checked_sub(120) else { return false };
    let t: Vec<f64> = rest[last..].iter().filter_map(|s| s.celsius).collect();
    (slope(&t).0 * 60.0).abs() < KELVIN_PER_MIN
}

fn is_done(hot: &[Second]) -> bool {
    let tau = tau_s(hot);
    let window = window_s(tau);
    hot.len() as f64 >= 3.0 * tau + window as f64 && steadiness(&hot[hot.len() - window..]).0
}

fn window_s(tau: f64) -> usize {
    WINDOW_MIN_S.max((2.0 * tau) as usize)
}

/// Time constant of the slow part of a warming, in seconds: from 20 s on (the die has jumped by then) to 63 % of what follows.
fn tau_s(hot: &[Second]) -> f64 {
    let t: Vec<f64> = hot.iter().map_while(|s| s.celsius).collect();
    let smooth = |i: usize| mean(&t[i.saturating_sub(5)..(i + 5).min(t.len())]);
    if t.len() < 120 {
        return 60.0;
    }
    let (from, to) = (smooth(20), smooth(t.len() - 1));
    if to - from < 2.0 {
        return 60.0;
    }
    (20..t.len()).find(|&i| smooth(i) >= from + 0.632 * (to - from)).map_or(60.0, |i| (i as f64 - 20.0).max(30.0))
}

/// Whether a window is steady, and the drift of its speed in percent in ten minutes.
fn steadiness(window: &[Second]) -> (bool, f64) {
    let speed: Vec<f64> = window.iter().map(|s| s.tokens / s.seconds.max(1e-6)).collect();
    let (slope_s, half) = slope(&speed);
    let drift = 100.0 * 600.0 * slope_s / mean(&speed).max(1e-9);
    let t: Vec<f64> = window.iter().filter_map(|s| s.celsius).collect();
    let warming = t.len() >= 8 && (slope(&t).0 * 60.0).abs() >= KELVIN_PER_MIN;
    let share = |half: &[Second]| half.iter().filter(|s| !s.throttled.is_empty()).count() as f64 / half.len().max(1) as f64;
    let (first, second) = window.split_at(window.len() / 2);
    let halves = (share(first) - share(second)).abs() <= HALVES_POINTS;
    (!warming && halves && slope_s.abs() <= half && drift.abs() < PERCENT_IN_10_MIN, drift)
}

/// The figures of a run; `cold` is what was seen at rest before it.
pub fn judge(cold: &[Second], hot: &[Second]) -> Sustained {
    let tau = tau_s(hot);
    let window_len = window_s(tau).min(hot.len());
    let window = &hot[hot.len() - window_len..];
    let tens = |part: &[Second]| -> Vec<(f64, f64)> {
        part.windows(TEN_S).map(|w| (w.iter().map(|s| s.tokens).sum(), w.iter().map(|s| s.seconds).sum())).collect()
    };
    let first = tens(&hot[..hot.len().min(PEAK_WITHIN_S)]);
    let peak = first.iter().filter(|w| w.0 >= PEAK_TOKENS).map(|w| w.0 / w.1.max(1e-6)).fold(0.0, f64::max);
    // A slow board makes no 20 tokens in 10 s: then the first minute as a whole.
    let whole = &hot[..hot.len().min(PEAK_WITHIN_S)];
    let total = |part: &[Second], of: fn(&Second) -> f64| part.iter().map(of).sum::<f64>();
    let peak = if peak > 0.0 { peak } else { total(whole, |s| s.tokens) / total(whole, |s| s.seconds).max(1e-6) };
    let (tokens, seconds): (Vec<f64>, Vec<f64>) = window.iter().map(|s| (s.tokens, s.seconds)).unzip();
    let sustained = tokens.iter().sum::<f64>() / seconds.iter().sum::<f64>().max(1e-6);
    let (low, high) = ratio_interval(&tokens, &seconds, 60.max(2 * cycle_s(window)), DRAWS, SEED);
    let (steady, drift) = steadiness(window);
    let of = |pick: fn(&Second) -> Option<f64>| -> Vec<f64> { window.iter().filter_map(pick).collect() };
    let average = |values: &[f64]| (!values.is_empty()).then(|| mean(values));
    let measured = of(|s| s.measured_mhz);
    let watts = average(&of(|s| s.watts));
    let idle_w = average(&cold.iter().rev().take(120).filter_map(|s| s.watts).collect::<Vec<_>>());
    let mut throttled: Vec<(String, f64)> = Vec::new();
    for s in window.iter().filter(|s| !s.throttled.is_empty()) {
        match throttled.iter_mut().find(|t| t.0 == s.throttled) {
            Some(t) => t.1 += 1.0 / window.len() as f64,
            None => throttled.push((s.throttled.clone(), 1.0 / window.len() as f64)),
        }
    }
    Sustained {
        peak_tok_s: peak,
        sustained_tok_s: sustained,
        sustained_95: [low, high],
        ratio: sustained / peak.max(1e-9),
        ratio_95: [low / peak.max(1e-9), high / peak.max(1e-9)],
        p5_tok_s: percentile(&tens(window).iter().map(|w| w.0 / w.1.max(1e-6)).collect::<Vec<_>>(), 0.05),
        steady: steady && hot.len() as f64 >= 3.0 * tau + window_s(tau) as f64,
        drift_percent: drift,
        window_s: window_len,
        run_s: hot.len(),
        tau_s: tau,
        start_c: cold.last().or(hot.first()).and_then(|s| s.celsius),
        steady_c: average(&of(|s| s.celsius)),
        max_c: hot.iter().filter_map(|s| s.celsius).reduce(f64::max),
        first_throttled_s: hot.iter().position(|s| !s.throttled.is_empty()),
        requested_mhz: average(&of(|s| s.requested_mhz)),
        measured_mhz: average(&measured),
        measured_p5_mhz: (!measured.is_empty()).then(|| percentile(&measured, 0.05)),
        throttled,
        watts,
        joules_per_token: watts.map(|w| w / sustained.max(1e-9)),
        joules_per_token_net: watts.zip(idle_w).map(|(w, idle)| (w - idle) / sustained.max(1e-9)),
    }
}

/// Period of a limit cycle: twice the mean distance of crossings of the mean clock; 0 without one.
fn cycle_s(window: &[Second]) -> usize {
    let clock: Vec<f64> = window.iter().filter_map(|s| s.measured_mhz).collect();
    let middle = mean(&clock);
    let swing = clock.iter().any(|c| (c - middle).abs() > 0.1 * middle);
    let crossings = clock.windows(2).filter(|w| (w[0] < middle) != (w[1] < middle)).count();
    if swing && crossings >= 2 { 2 * clock.len() / crossings } else { 0 }
}

/// Eight legs of two settings in the order ABBA BAAB: the four paired differences of B to A, relative. The order cancels a room that
/// warms steadily, within each four and between them.
pub fn abba_baab(legs: &[f64; 8]) -> [f64; 4] {
    [(0, 1), (3, 2), (5, 4), (6, 7)].map(|(a, b)| legs[b] / legs[a].max(1e-9) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Warms from 45 by 40 K with τ = 200 s; slows by 30 % once above 75 °C.
    fn board(seconds: usize) -> Vec<Second> {
        (0..seconds)
            .map(|i| {
                let celsius = 45.0 + 40.0 * (1.0 - (-(i as f64) / 200.0).exp());
                let hot = celsius > 75.0;
                let tokens = if hot { 7.0 } else { 10.0 } + 0.1 * ((i * 7919 % 13) as f64 / 6.0 - 1.0);
                let throttled = if hot { "thermal".into() } else { String::new() };
                Second { tokens, seconds: 1.0, celsius: Some(celsius), throttled, watts: Some(8.0), ..Second::default() }
            })
            .collect()
    }

    #[test]
    fn peak_is_early_sustained_is_late() {
        let cold = vec![Second { celsius: Some(45.0), watts: Some(3.0), seconds: 1.0, ..Second::default() }; 130];
        let s = judge(&cold, &board(2400));
        assert!((s.peak_tok_s - 10.0).abs() < 0.1 && (s.sustained_tok_s - 7.0).abs() < 0.05, "{s:?}");
        assert!(s.steady && s.sustained_95[0] <= 7.0 + 0.05 && s.sustained_95[1] >= 7.0 - 0.05);
        assert_eq!(s.throttled, [("thermal".to_string(), s.throttled[0].1)]);
        assert!((s.joules_per_token.unwrap() - 8.0 / 7.0).abs() < 0.02 && (s.joules_per_token_net.unwrap() - 5.0 / 7.0).abs() < 0.02);
        assert!((s.tau_s - 200.0).abs() < 40.0);
    }

    #[test]
    fn a_run_that_still_drifts_is_not_called_steady() {
        let drifting: Vec<Second> = board(2400).into_iter().enumerate().map(|(i, s)| Second { tokens: s.tokens * (1.0 - i as f64 / 12_000.0), ..s }).collect();
        let s = judge(&[], &drifting);
        assert!(!s.steady && s.drift_percent < -1.0);
    }

    #[test]
    fn a_run_too_short_is_not_called_steady() {
        assert!(!judge(&[], &board(300)).steady);
    }

    #[test]
    fn the_order_abba_baab_cancels_a_room_that_warms() {
        // Truth: B is 5 % faster; each leg loses 1 % to the warming room.
        let order = [0, 1, 1, 0, 1, 0, 0, 1];
        let mut legs = [0.0; 8];
        for (i, b) in order.into_iter().enumerate() {
            legs[i] = 10.0 * (1.0 + 0.05 * b as f64) * (1.0 - 0.01 * i as f64);
        }
        let mean = abba_baab(&legs).iter().sum::<f64>() / 4.0;
        assert!((mean - 0.05).abs() < 0.001, "{mean}");
    }
}
