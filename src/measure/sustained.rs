//! Sustained against peak: the rule, applied to a series of seconds. Pure: the series comes from a model on this machine, from a
//! simulated board, or from a test, and says which.
//!
//! - **Peak**: the best 10 s of the first 60 s; longer where 10 s have not made 20 tokens.
//! - **Sustained**: tokens ÷ time over the window that [`super::steady`] finds steady, with the 95 % interval of a moving-block bootstrap.
//!   A run that is not steady at its limit says so, with its drift.

use super::series::{Second, rate_of, totals, values, window_rates};
use super::statistics::{mean, percentile, ratio_interval};
use super::steady::{ColdStart, Steadiness, is_cold, is_done, shortest_s, tau_s, window_s};
use serde::{Deserialize, Serialize};

const PEAK_WITHIN_S: usize = 60;
const TEN_S: usize = 10;
const PEAK_TOKENS: f64 = 20.0;
/// The bootstrap: blocks hold what neighbours have in common, twice the period of a limit cycle at least.
const BLOCK_MIN_S: usize = 60;
const DRAWS: usize = 2000;
const SEED: u64 = 1;
/// Where the firmware of the commonest boards begins to take the clock away; the time to it is a figure people know.
const EIGHTY_C: f64 = 80.0;
/// Between two looks whether a run is done, in seconds.
const LOOK_EVERY_S: usize = 30;

/// Whoever can work for a second at a time.
pub trait Runner {
    type Error;
    /// Generates tokens until at least one more second is full, and appends it.
    fn work(&mut self, done: &mut Vec<Second>) -> Result<(), Self::Error>;
    /// Rests for a second.
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
    pub cold_start: ColdStart,
    pub peak_tok_s: f64,
    /// Over the last window, steady or not; `steady` says whether it may be called sustained.
    pub sustained_tok_s: f64,
    pub sustained_95: [f64; 2],
    pub ratio: f64,
    pub ratio_95: [f64; 2],
    /// 5th percentile of windows of 10 s.
    pub p5_tok_s: f64,
    pub steady: bool,
    /// Why it is not; empty when it is.
    pub unsteady_because: String,
    /// Of the speed, percent in 10 min over the window.
    pub drift_percent: f64,
    pub window_s: usize,
    pub run_s: usize,
    pub tau_s: f64,
    /// Whether the run told τ; without a thermometer it is assumed.
    pub tau_known: bool,
    /// Milliseconds between tokens over the window.
    pub token_ms: Option<TokenMs>,
    pub start_c: Option<f64>,
    pub steady_c: Option<f64>,
    pub max_c: Option<f64>,
    /// Seconds until 80 °C.
    pub t80_s: Option<usize>,
    pub room_c: Option<[f64; 2]>,
    pub first_throttled_s: Option<usize>,
    pub requested_mhz: Option<f64>,
    pub measured_mhz: Option<f64>,
    pub measured_p5_mhz: Option<f64>,
    /// Share of the window by cause.
    pub throttled: Vec<(String, f64)>,
    pub watts: Option<f64>,
    pub idle_watts: Option<f64>,
    pub joules_per_token: Option<f64>,
    /// Less what the board draws at rest.
    pub joules_per_token_net: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenMs {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// Rests until cold, works until steady or the plan's end. `tell` is called with what there is so far, and whether it is work.
pub fn run<R: Runner>(
    runner: &mut R,
    plan: Plan,
    mut tell: impl FnMut(&mut R, &[Second], bool),
) -> Result<(Vec<Second>, Vec<Second>), R::Error> {
    let mut cold = Vec::new();
    while cold.len() < plan.cool_s && !is_cold(&cold) {
        cold.push(runner.rest()?);
        tell(runner, &cold, false);
    }
    let mut hot: Vec<Second> = Vec::new();
    let mut looked = 0;
    while hot.len() < plan.run_s {
        runner.work(&mut hot)?;
        tell(runner, &hot, true);
        if hot.len() >= looked + LOOK_EVERY_S {
            looked = hot.len();
            if is_done(&hot) {
                break;
            }
        }
    }
    Ok((cold, hot))
}

/// The figures of a run; `cold` is what was seen at rest before it.
pub fn judge(cold: &[Second], hot: &[Second]) -> Sustained {
    let (tau, tau_known) = tau_s(hot);
    let window = &hot[hot.len() - window_s(tau).min(hot.len())..];
    let peak = peak(hot);
    let (tokens, seconds): (Vec<f64>, Vec<f64>) = window.iter().map(|s| (s.tokens, s.seconds)).unzip();
    let sustained = rate_of(window);
    let (low, high) = ratio_interval(&tokens, &seconds, BLOCK_MIN_S.max(2 * cycle_s(window)), DRAWS, SEED);
    let steadiness = Steadiness::of(window);
    let length = |s: usize| if s < 120 { format!("{s} s") } else { format!("{} min", s / 60) };
    let too_short = (hot.len() < shortest_s(tau))
        .then(|| format!("{} are too short: the rule asks for {} min", length(hot.len()), shortest_s(tau).div_ceil(60)));
    let unsteady_because = too_short.or_else(|| steadiness.why_not()).unwrap_or_default();
    let average = |values: Vec<f64>| (!values.is_empty()).then(|| mean(&values));
    let measured = values(window, |s| s.measured_mhz);
    let watts = average(values(window, |s| s.watts));
    let idle_watts = average(values(&cold[cold.len().saturating_sub(120)..], |s| s.watts));
    let room = values(hot, |s| s.room_celsius);
    let per_token = |watts: f64| watts / sustained.max(1e-9);
    Sustained {
        cold_start: ColdStart::of(cold),
        peak_tok_s: peak,
        sustained_tok_s: sustained,
        sustained_95: [low, high],
        ratio: sustained / peak.max(1e-9),
        ratio_95: [low / peak.max(1e-9), high / peak.max(1e-9)],
        p5_tok_s: percentile(&window_rates(window, TEN_S), 0.05),
        steady: unsteady_because.is_empty(),
        unsteady_because,
        drift_percent: steadiness.drift_percent,
        window_s: window.len(),
        run_s: hot.len(),
        tau_s: tau,
        tau_known,
        token_ms: TokenMs::of(window),
        start_c: cold.last().or(hot.first()).and_then(|s| s.celsius),
        steady_c: average(values(window, |s| s.celsius)),
        max_c: values(hot, |s| s.celsius).into_iter().reduce(f64::max),
        t80_s: hot.iter().position(|s| s.celsius.is_some_and(|c| c >= EIGHTY_C)),
        room_c: room.first().zip(room.last()).map(|(a, b)| [*a, *b]),
        first_throttled_s: hot.iter().position(|s| !s.throttled.is_empty()),
        requested_mhz: average(values(window, |s| s.requested_mhz)),
        measured_p5_mhz: (!measured.is_empty()).then(|| percentile(&measured, 0.05)),
        measured_mhz: average(measured),
        throttled: shares(window),
        watts,
        idle_watts,
        joules_per_token: watts.map(per_token),
        joules_per_token_net: watts.zip(idle_watts).map(|(w, idle)| per_token(w - idle)),
    }
}

/// The best window of the first minute: 10 s, or as much longer as 20 tokens take. A machine that makes no 20 tokens in the minute has
/// the minute's rate.
pub fn peak(hot: &[Second]) -> f64 {
    let first = &hot[..hot.len().min(PEAK_WITHIN_S)];
    let best = (0..first.len()).filter_map(|from| {
        let to = (from + TEN_S..=first.len()).find(|&to| totals(&first[from..to]).0 >= PEAK_TOKENS)?;
        Some(rate_of(&first[from..to]))
    });
    best.reduce(f64::max).unwrap_or_else(|| rate_of(first))
}

/// Share of a window by cause of throttling, in the order of first sight.
pub fn shares(window: &[Second]) -> Vec<(String, f64)> {
    let mut shares: Vec<(String, f64)> = Vec::new();
    for s in window.iter().filter(|s| !s.throttled.is_empty()) {
        match shares.iter_mut().find(|t| t.0 == s.throttled) {
            Some(t) => t.1 += 1.0 / window.len() as f64,
            None => shares.push((s.throttled.clone(), 1.0 / window.len() as f64)),
        }
    }
    shares
}

impl TokenMs {
    fn of(window: &[Second]) -> Option<TokenMs> {
        let all: Vec<f64> = window.iter().flat_map(|s| s.token_ms.iter().map(|&ms| f64::from(ms))).collect();
        let at = |share| percentile(&all, share);
        (!all.is_empty()).then(|| TokenMs { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
}

/// Period of a limit cycle: twice the mean distance of crossings of the mean clock; 0 without one.
fn cycle_s(window: &[Second]) -> usize {
    let clock = values(window, |s| s.measured_mhz);
    let middle = mean(&clock);
    let swing = clock.iter().any(|c| (c - middle).abs() > 0.1 * middle);
    let crossings = clock.windows(2).filter(|w| (w[0] < middle) != (w[1] < middle)).count();
    if swing && crossings >= 2 { 2 * clock.len() / crossings } else { 0 }
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
                let token_ms = vec![if i % 20 == 0 { 300.0 } else { 100.0 }; 10];
                Second { tokens, seconds: 1.0, celsius: Some(celsius), throttled, watts: Some(8.0), token_ms, ..Second::default() }
            })
            .collect()
    }

    #[test]
    fn peak_is_early_sustained_is_late() {
        let cold = vec![Second { celsius: Some(45.0), watts: Some(3.0), ..Second::default() }; 320];
        let s = judge(&cold, &board(2400));
        assert!((s.peak_tok_s - 10.0).abs() < 0.1 && (s.sustained_tok_s - 7.0).abs() < 0.05, "{s:?}");
        assert!(s.steady && s.sustained_95[0] <= 7.0 + 0.05 && s.sustained_95[1] >= 7.0 - 0.05, "{s:?}");
        assert_eq!(s.throttled.len(), 1);
        assert!(s.throttled[0].0 == "thermal" && (s.throttled[0].1 - 1.0).abs() < 1e-9);
        assert!((s.joules_per_token.unwrap() - 8.0 / 7.0).abs() < 0.02 && (s.joules_per_token_net.unwrap() - 5.0 / 7.0).abs() < 0.02);
        assert!(s.tau_known && (s.tau_s - 200.0).abs() < 40.0 && s.cold_start.is_cold == Some(true));
        assert_eq!(s.t80_s, Some(416));
        let ms = s.token_ms.unwrap();
        assert_eq!((ms.p50, ms.p99, ms.max), (100.0, 300.0, 300.0));
    }

    #[test]
    fn a_run_that_still_drifts_is_not_called_steady() {
        let drifting: Vec<Second> =
            board(2400).into_iter().enumerate().map(|(i, s)| Second { tokens: s.tokens * (1.0 - i as f64 / 12_000.0), ..s }).collect();
        let s = judge(&[], &drifting);
        // A speed that falls on and on looks like a board of a very long time constant.
        assert!(!s.steady && s.drift_percent < -1.0 && s.tau_s > 600.0, "{s:?}");
    }

    #[test]
    fn a_run_too_short_is_not_called_steady() {
        let s = judge(&[], &board(300));
        assert!(!s.steady && s.unsteady_because.contains("5 min are too short"), "{}", s.unsteady_because);
        assert!(!judge(&[], &[]).steady);
    }

    #[test]
    fn the_peak_window_has_twenty_tokens_and_a_slower_machine_its_first_minute() {
        let at = |rate: f64| vec![Second { tokens: rate, seconds: 1.0, ..Second::default() }; 120];
        assert_eq!(peak(&at(5.0)), 5.0);
        // 1 tok/s with one lucky second: 20 tokens take 17 s.
        let mut slow = at(1.0);
        slow[30].tokens = 4.0;
        assert!((peak(&slow) - 20.0 / 17.0).abs() < 1e-9);
        slow[30].tokens = 1.0;
        assert!((peak(&at(0.2)) - 0.2).abs() < 1e-9);
    }
}
