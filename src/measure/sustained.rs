//! Sustained against peak: the rule, applied to a series of seconds. Pure: the series comes from a model on this machine, from a
//! simulated board, or from a test, and says which.
//!
//! - **Peak**: the best 10 s of the first 60 s; longer where 10 s have not made 20 tokens.
//! - **Turns** of a mixed load: time to the first token at first and over the window, and the length of a turn.
//! - **Sustained**: tokens ÷ time over the window that [`super::steady`] finds steady, with the 95 % interval of a moving-block bootstrap.
//!   A run that is not steady at its limit says so, with its drift.

use super::contention::Contention;
use super::series::{Second, contention, each, joules_per_token, rate_of, room, totals, values, window_rates};
use super::statistics::{mean, mean_of_any, percentile, ratio_interval};
use super::steady::{ColdStart, Steadiness, Times, is_cold, is_done};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

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
    /// 5th percentile of windows of 10 s; 0 where no 10 s had work enough to tell.
    pub p5_tok_s: f64,
    pub steady: bool,
    /// Why it is not; empty when it is.
    pub unsteady_because: String,
    /// A signal ended the run before its time.
    #[serde(default)]
    pub cut_short: bool,
    /// What the verdict rests on: `temperature and speed`, or `speed alone` where no thermometer told of the window.
    #[serde(default)]
    pub judged_by: String,
    /// Of the speed, percent in 10 min over the window.
    pub drift_percent: f64,
    pub window_s: usize,
    pub run_s: usize,
    pub tau_s: f64,
    /// Whether the run told τ; without a thermometer it is assumed.
    pub tau_known: bool,
    /// Of what swings in seconds: the clock between its limits, or the turns of a load; 0 where nothing does.
    #[serde(default)]
    pub period_s: usize,
    /// Milliseconds between tokens over the window.
    pub token_ms: Option<TokenMs>,
    /// Of a load that alternates between prompts and answers.
    #[serde(default)]
    pub turns: Option<Turns>,
    /// What others took of the machine over the window, and over the first minute that the peak is of.
    #[serde(default)]
    pub contention: Option<Contention>,
    #[serde(default)]
    pub peak_contention: Option<Contention>,
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
    /// All energy of the window, that of prompts and silence included, over the tokens that count.
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

/// Turns over the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    pub count: usize,
    /// From the begin of a turn to its first token, in the first turns: those whose first token came within the first minute, or the
    /// very first. The median.
    pub first_token_ms_at_first: f64,
    pub first_token_ms: FirstTokenMs,
    /// How fast prompts were read.
    pub prompt_tok_s: f64,
    /// Mean length in seconds, silence included.
    pub turn_s: f64,
    pub joules_per_turn: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirstTokenMs {
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

/// Rests until cold, works until steady or the plan's end. `tell` is called with what there is so far, and whether it is work; its break
/// ends the run with that.
pub fn run<R: Runner>(
    runner: &mut R,
    plan: Plan,
    mut tell: impl FnMut(&mut R, &[Second], bool) -> ControlFlow<()>,
) -> Result<(Vec<Second>, Vec<Second>), R::Error> {
    let mut cold = Vec::new();
    let mut hot: Vec<Second> = Vec::new();
    while cold.len() < plan.cool_s && !is_cold(&cold) {
        cold.push(runner.rest()?);
        if tell(runner, &cold, false).is_break() {
            return Ok((cold, hot));
        }
    }
    let mut looked = 0;
    while hot.len() < plan.run_s {
        runner.work(&mut hot)?;
        if tell(runner, &hot, true).is_break() {
            break;
        }
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
    let times = Times::of(hot);
    let window = times.end_of(hot);
    let peak = peak(hot);
    let (tokens, seconds): (Vec<f64>, Vec<f64>) = window.iter().map(|s| (s.tokens, s.seconds)).unzip();
    let sustained = rate_of(window);
    let of_peak = |speed: f64| if peak > 0.0 { speed / peak } else { 0.0 };
    // Of a run too short for three such blocks at least three: one block's interval would be a point, which nothing is.
    let block = BLOCK_MIN_S.max(2 * times.period_s).min(window.len().div_ceil(3));
    let (low, high) = ratio_interval(&tokens, &seconds, block, DRAWS, SEED);
    let steadiness = Steadiness::of(window);
    let too_short = (hot.len() < times.shortest_s()).then(|| {
        let asked = times.shortest_s().div_ceil(60);
        format!("{} are too short: the rule asks for {asked} min ({})", length_words(hot.len()), steadiness.words())
    });
    let unsteady_because = too_short.or_else(|| steadiness.why_not()).unwrap_or_default();
    let average = |pick: fn(&Second) -> Option<f64>| mean_of_any(&values(window, pick));
    let measured = values(window, |s| s.measured_mhz);
    let watts = average(|s| s.watts);
    let idle_watts = mean_of_any(&values(&cold[cold.len().saturating_sub(120)..], |s| s.watts));
    let per_token = |watts: f64| joules_per_token(watts, window);
    Sustained {
        cold_start: ColdStart::of(cold),
        peak_tok_s: peak,
        sustained_tok_s: sustained,
        sustained_95: [low, high],
        ratio: of_peak(sustained),
        ratio_95: [of_peak(low), of_peak(high)],
        p5_tok_s: percentile(&window_rates(window, TEN_S), 0.05),
        steady: unsteady_because.is_empty(),
        unsteady_because,
        cut_short: false,
        judged_by: if steadiness.kelvin_per_min.is_some() { "temperature and speed" } else { "speed alone" }.into(),
        drift_percent: steadiness.drift_percent,
        window_s: window.len(),
        run_s: hot.len(),
        tau_s: times.tau_s,
        tau_known: times.tau_known,
        period_s: times.period_s,
        token_ms: TokenMs::of(window),
        turns: Turns::of(hot, window, watts),
        contention: contention(window),
        peak_contention: contention(&hot[..hot.len().min(PEAK_WITHIN_S)]),
        start_c: cold.last().or(hot.first()).and_then(|s| s.celsius),
        steady_c: average(|s| s.celsius),
        max_c: values(hot, |s| s.celsius).into_iter().reduce(f64::max),
        t80_s: hot.iter().position(|s| s.celsius.is_some_and(|c| c >= EIGHTY_C)),
        room_c: room(hot),
        first_throttled_s: hot.iter().position(|s| !s.throttled.is_empty()),
        requested_mhz: average(|s| s.requested_mhz),
        measured_p5_mhz: (!measured.is_empty()).then(|| percentile(&measured, 0.05)),
        measured_mhz: mean_of_any(&measured),
        throttled: shares(window),
        watts,
        idle_watts,
        joules_per_token: watts.and_then(per_token),
        joules_per_token_net: watts.zip(idle_watts).and_then(|(w, idle)| per_token(w - idle)),
    }
}

impl Sustained {
    /// The same figures, of a run that a signal ended, `when` in words: whatever they look like, nobody waited for them to be steady.
    pub fn cut_short(self, when: &str) -> Sustained {
        let also = if self.unsteady_because.is_empty() { String::new() } else { format!("; {}", self.unsteady_because) };
        let unsteady_because = format!("cut short by a signal {when}{also}");
        Sustained { steady: false, cut_short: true, unsteady_because, ..self }
    }
}

/// The best window of the first minute: 10 s, or as much longer as 20 tokens take. A machine that makes no 20 tokens in the minute has
/// the minute's rate; one that reads its prompt all that time has the rate of its first 20 tokens.
pub fn peak(hot: &[Second]) -> f64 {
    let mut first = &hot[..hot.len().min(PEAK_WITHIN_S)];
    if totals(first).1 <= 0.0 {
        let mut tokens = 0.0;
        let enough = hot.iter().position(|s| {
            tokens += s.tokens;
            tokens >= PEAK_TOKENS
        });
        first = &hot[..enough.map_or(hot.len(), |at| at + 1)];
    }
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

/// `45 s`, `150 s`, `25 min`.
pub fn length_words(seconds: usize) -> String {
    if seconds < 300 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

impl Turns {
    /// `None` without a turn that had its first token in the window and one that ended in it.
    fn of(hot: &[Second], window: &[Second], watts: Option<f64>) -> Option<Turns> {
        let first_token = each(window, |s| &s.first_token_ms);
        let turns = each(window, |s| &s.turn_s);
        if first_token.is_empty() || turns.is_empty() {
            return None;
        }
        let first_minute = each(&hot[..hot.len().min(PEAK_WITHIN_S)], |s| &s.first_token_ms);
        let early = if first_minute.is_empty() { each(hot, |s| &s.first_token_ms).into_iter().take(1).collect() } else { first_minute };
        let (prompt_tokens, prompt_s) = window.iter().fold((0.0, 0.0), |(t, s), w| (t + w.prompt_tokens, s + w.prompt_seconds));
        let at = |share| percentile(&first_token, share);
        let turn_s = mean(&turns);
        Some(Turns {
            count: turns.len(),
            first_token_ms_at_first: percentile(&early, 0.5),
            first_token_ms: FirstTokenMs { p50: at(0.50), p95: at(0.95), max: at(1.0) },
            prompt_tok_s: if prompt_s > 0.0 { prompt_tokens / prompt_s } else { 0.0 },
            turn_s,
            joules_per_turn: watts.map(|w| w * turn_s),
        })
    }
}

impl TokenMs {
    fn of(window: &[Second]) -> Option<TokenMs> {
        let all = each(window, |s| &s.token_ms);
        let at = |share| percentile(&all, share);
        (!all.is_empty()).then(|| TokenMs { p50: at(0.50), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
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
        assert!(s.unsteady_because.contains("temperature still moves") && s.window_s == 150, "{s:?}");
        assert!(!judge(&[], &[]).steady);
    }

    #[test]
    fn without_a_thermometer_the_speed_alone_is_judged_and_a_short_run_says_what_it_is() {
        let blind = |n: usize, contention| -> Vec<Second> {
            let noise = |i: usize| 0.02 * ((i * 7919 % 13) as f64 / 6.0 - 1.0);
            (0..n).map(|i| Second { tokens: 10.0 + noise(i), seconds: 1.0, contention, ..Second::default() }).collect()
        };
        let long = judge(&[], &blind(1200, None));
        assert!(long.steady && long.judged_by == "speed alone" && !long.tau_known && long.cold_start.is_cold.is_none(), "{long:?}");
        assert_eq!(judge(&[], &board(1500)).judged_by, "temperature and speed");
        // A thermometer that fell silent after five minutes has no part in what the last ten are judged by.
        let fell_silent: Vec<Second> =
            blind(1500, None).into_iter().enumerate().map(|(i, s)| Second { celsius: (i < 300).then_some(50.0), ..s }).collect();
        assert_eq!(judge(&[], &fell_silent).judged_by, "speed alone");
        let short = judge(&[], &blind(300, None));
        assert_eq!(short.unsteady_because, "5 min are too short: the rule asks for 20 min (the speed is level at its end)");
        assert!(short.sustained_95[0] < 10.0 && short.sustained_95[1] > 10.0 && short.window_s == 150);
        let crowd = |others| Some(Contention { others, stolen: 0.0 });
        let shared = judge(&[], &blind(1200, crowd(0.2)));
        assert!(!shared.steady && shared.unsteady_because == "others took 20.0 % of the machine", "{}", shared.unsteady_because);
        assert!(judge(&[], &blind(1200, crowd(0.02))).steady);
    }

    #[test]
    fn a_run_without_a_token_has_no_energy_per_token_and_no_share_of_its_peak() {
        let silent = judge(&[], &vec![Second { watts: Some(5.0), ..Second::default() }; 1500]);
        assert_eq!((silent.joules_per_token, silent.ratio, silent.steady), (None, 0.0, false));
        assert_eq!(silent.unsteady_because, "no token was made");
    }

    #[test]
    fn turns_tell_how_long_the_first_token_takes_cold_and_warm_and_what_a_turn_costs() {
        // Turns of 20 s: a prompt of 100 tokens in 4 s, later 8 s; 40 tokens in 8 s; the rest silence.
        let turn = |n: usize| {
            let prompt_s = if n < 10 { 4 } else { 8 };
            (0..20).map(move |i| Second {
                tokens: if (prompt_s..prompt_s + 8).contains(&i) { 5.0 } else { 0.0 },
                seconds: if (prompt_s..prompt_s + 8).contains(&i) { 1.0 } else { 0.0 },
                prompt_tokens: if i < prompt_s { 100.0 / prompt_s as f64 } else { 0.0 },
                prompt_seconds: if i < prompt_s { 1.0 } else { 0.0 },
                first_token_ms: if i == prompt_s { vec![prompt_s as f32 * 1000.0] } else { vec![] },
                turn_s: if i == 19 { vec![20.0] } else { vec![] },
                watts: Some(6.0),
                ..Second::default()
            })
        };
        let hot: Vec<Second> = (0..75).flat_map(turn).collect();
        let s = judge(&[], &hot);
        let turns = s.turns.clone().unwrap();
        assert_eq!((turns.first_token_ms_at_first, turns.first_token_ms.p50, turns.first_token_ms.p95), (4000.0, 8000.0, 8000.0));
        assert!((turns.prompt_tok_s - 12.5).abs() < 1e-9 && turns.count == 30 && turns.turn_s == 20.0);
        assert_eq!(turns.joules_per_turn, Some(120.0));
        // 40 tokens a turn.
        assert!((s.joules_per_token.unwrap() - 3.0).abs() < 1e-9 && s.sustained_tok_s == 5.0 && s.peak_tok_s == 5.0, "{s:?}");
        // A prompt that takes more than the first minute: the peak is that of what follows.
        let slow: Vec<Second> = (0..90).map(|_| Second::default()).chain(hot).collect();
        assert_eq!(peak(&slow), 5.0);
    }

    #[test]
    fn the_peak_window_has_twenty_tokens_and_a_slower_machine_its_first_minute() {
        let at = |rate: f64| vec![Second { tokens: rate, seconds: 1.0, ..Second::default() }; 120];
        assert_eq!(peak(&at(5.0)), 5.0);
        // 1 tok/s with one lucky second: 20 tokens take 17 s.
        let mut slow = at(1.0);
        slow[30].tokens = 4.0;
        assert!((peak(&slow) - 20.0 / 17.0).abs() < 1e-9);
        assert!((peak(&at(0.2)) - 0.2).abs() < 1e-9);
    }
}
