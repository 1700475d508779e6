//! When a machine is cold, and when its speed may be called steady.
//!
//! - **Cold**: at rest, over the last five minutes the temperature moved by less than 0.1 K/min. So even a heavy case, whose time
//!   constant is 20 min, has less than 2 K left to fall, and a bare board less than 1 K.
//! - **τ**, the slow time constant, is the run's own: from its warming, and from the fall of its speed once it throttles.
//! - **Steady**, over the last W = max(10 min, 2 τ, 6 periods of what swings: a limit cycle of the clock, or the turns of a load; 8 pieces
//!   of the work, tokens or prompts): others took no more than 3 % of the machine, the temperature moves by less than 0.3 K/min, the
//!   speed's slope can be told, is less than 1 % in 10 min and not told from 0, and the throttled share of both halves agrees within 5
//!   points. Never sooner than 3 τ + W, nor 20 min.
//! - **Without a thermometer** nobody waits for cold, τ is assumed, and the speed alone is judged, over the same times.

use super::contention::Contention;
use super::series::{Second, contention, curve, each, is_mixed, speeds, totals, values};
use super::statistics::{mean, slope};
use serde::{Deserialize, Serialize};

const KELVIN_PER_MIN: f64 = 0.3;
const COLD_KELVIN_PER_MIN: f64 = 0.1;
/// A line is laid through this much rest: at that slope a sensor with steps of 0.5 K takes one.
const COLD_S: usize = 300;
const WINDOW_MIN_S: usize = 600;
/// Of the work, a window holds so many pieces: tokens, or under the prefill load prompts. All seconds of one piece have the same speed, so
/// that one alone would always look steady.
const PIECES: f64 = 8.0;
/// Of what swings, a window holds so many: three of the bootstrap's blocks of two.
const PERIODS: usize = 6;
/// A clock that crosses its mean fewer times than this in the last half of a run swings slowly, or has dipped once: it swings if it was to
/// either side for this share of the time. (A phone with graded caps swings in 14 min: not known for a swing, ten minutes of it passed for
/// steady, and were 5 % off.)
const CROSSINGS_SURE: usize = 4;
const SIDE_MIN: f64 = 0.06;
/// The shortest run of a bare board; others take what their τ asks for.
pub const RUN_MIN_S: usize = 1200;
const PERCENT_IN_10_MIN: f64 = 1.0;
const HALVES_POINTS: f64 = 0.05;
/// Below this rise a warming tells no time constant.
const RISE_K: f64 = 2.0;
/// Half the width of the mean that stands for a second of warming; under a mixed load the temperature swings with every turn.
const SMOOTH_S: usize = 5;
const SMOOTH_MIXED_S: usize = 30;
/// The die has jumped by then; what follows is the slow part.
const JUMPED_S: usize = 20;
/// Of a machine without a thermometer nothing is known: the τ of a bare board with a small heatsink.
const TAU_UNKNOWN_S: f64 = 200.0;

/// How a run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    pub waited_s: usize,
    pub celsius: Option<f64>,
    pub kelvin_per_min: Option<f64>,
    /// `None` where there is no thermometer to tell.
    pub is_cold: Option<bool>,
}

impl ColdStart {
    pub fn of(rest: &[Second]) -> ColdStart {
        let t = values(&rest[rest.len().saturating_sub(COLD_S)..], |s| s.celsius);
        let slope = (t.len() >= COLD_S / 2).then(|| slope(&t).0 * 60.0);
        ColdStart { waited_s: rest.len(), celsius: t.last().copied(), kelvin_per_min: slope, is_cold: t.last().map(|_| is_cold(rest)) }
    }
}

/// Whether to stop waiting. A machine without a thermometer counts as cold at once: more rest would tell nothing.
pub fn is_cold(rest: &[Second]) -> bool {
    let t = values(rest, |s| s.celsius);
    if t.is_empty() {
        return rest.len() >= 3;
    }
    let Some(from) = t.len().checked_sub(COLD_S) else { return false };
    (slope(&t[from..]).0 * 60.0).abs() < COLD_KELVIN_PER_MIN
}

/// How long things take on this machine, as a run tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// The slow time constant in seconds, and whether the run tells it.
    pub tau_s: f64,
    pub tau_known: bool,
    /// Of what swings, in seconds; 0 where nothing does.
    pub period_s: usize,
    /// A token, or under the prefill load a prompt; 0 where that is not known.
    pub piece_s: f64,
}

impl Times {
    pub fn of(hot: &[Second]) -> Times {
        let (tau_s, tau_known) = tau_s(hot);
        let turn_s = mean(&each(hot, |s| &s.turn_s)).ceil() as usize;
        let pieces = hot.iter().map(|s| f64::from(s.pieces)).sum::<f64>();
        let piece_s = if pieces > 0.0 { totals(hot).1 / pieces } else { 0.0 };
        Times { tau_s, tau_known, period_s: cycle_s(&hot[hot.len() / 2..]).max(turn_s), piece_s }
    }

    /// The window that a run is judged by. Of a swing it holds several periods: from one or two nobody can tell how sure a mean is.
    pub fn window_s(&self) -> usize {
        let least = (2.0 * self.tau_s).max(PIECES * self.piece_s).ceil() as usize;
        WINDOW_MIN_S.max(least).max(PERIODS * self.period_s)
    }

    /// The shortest run whose end may be called sustained.
    pub fn shortest_s(&self) -> usize {
        RUN_MIN_S.max((3.0 * self.tau_s).ceil() as usize + self.window_s())
    }

    /// The part of a run that its end is judged by: the window; of a run too short for the rule its last half, lest the first minute's
    /// peak be counted in.
    pub fn end_of<'a>(&self, hot: &'a [Second]) -> &'a [Second] {
        let is_short = hot.len() < self.shortest_s();
        let length = if is_short { self.window_s().min(hot.len().div_ceil(2)) } else { self.window_s() };
        &hot[hot.len() - length..]
    }
}

/// Period of a limit cycle: twice the mean distance of crossings of the mean clock; 0 without one, or after a single dip.
fn cycle_s(span: &[Second]) -> usize {
    let clock = values(span, |s| s.measured_mhz);
    let middle = mean(&clock);
    let swing = clock.iter().any(|c| (c - middle).abs() > 0.1 * middle);
    let crossings = clock.windows(2).filter(|w| (w[0] < middle) != (w[1] < middle)).count();
    let above = clock.iter().filter(|c| **c >= middle).count();
    let slow = crossings >= 2 && above.min(clock.len() - above) as f64 >= SIDE_MIN * clock.len() as f64;
    if swing && (crossings >= CROSSINGS_SURE || slow) { 2 * clock.len() / crossings } else { 0 }
}

/// The slow time constant of a run in seconds, and whether the run tells it.
pub fn tau_s(hot: &[Second]) -> (f64, bool) {
    let heat = curve(hot, |s| s.celsius);
    // Held at its limit, a board gets no hotter; its clock goes on falling, or where nobody measures that, its speed.
    let throttled = &hot[hot.iter().position(|s| !s.throttled.is_empty()).unwrap_or(hot.len())..];
    let falling = |pick: fn(&Second) -> Option<f64>| curve(throttled, |s| pick(s).map(|v| -v));
    let speed = Some(falling(|s| s.measured_mhz)).filter(|clock| !clock.is_empty()).unwrap_or_else(|| falling(Second::rate));
    let smooth = if is_mixed(hot) { SMOOTH_MIXED_S } else { SMOOTH_S };
    let by_speed = settling_s(&speed, 0, 0.03 * speed.first().map_or(f64::INFINITY, |v| v.abs()), smooth);
    match settling_s(&heat, JUMPED_S, RISE_K, smooth).into_iter().chain(by_speed).reduce(f64::max) {
        Some(tau) => (tau.max(30.0), true),
        None => (if heat.is_empty() { TAU_UNKNOWN_S } else { 60.0 }, false),
    }
}

/// Seconds from `from` until 63 % of the rise to the end of a curve; `None` where it rises by less than `least`. Each value stands for the
/// mean of `half` values to either side.
fn settling_s(curve: &[f64], from: usize, least: f64, half: usize) -> Option<f64> {
    let smooth = |i: usize| mean(&curve[i.saturating_sub(half)..(i + half).min(curve.len())]);
    if curve.len() < from + 100 {
        return None;
    }
    let (first, last) = (smooth(from), mean(&curve[curve.len() - 30..]));
    if last - first < least {
        return None;
    }
    (from..curve.len()).find(|&i| smooth(i) >= first + 0.632 * (last - first)).map(|i| (i - from) as f64)
}

/// What makes a window steady or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steadiness {
    pub kelvin_per_min: Option<f64>,
    /// Of the speed, in percent in ten minutes, and half the width of its 95 % interval.
    pub drift_percent: f64,
    /// Infinite where there are too few speeds to tell.
    pub drift_half: f64,
    /// No token was made.
    pub stands_still: bool,
    /// Throttled share of the first half less that of the second.
    pub halves: f64,
    /// What others took of the machine.
    pub contention: Option<Contention>,
}

impl Steadiness {
    pub fn of(window: &[Second]) -> Steadiness {
        let (speed, step_s) = speeds(window);
        let (slope_step, half) = slope(&speed);
        let in_10_min = |per_step: f64| 100.0 * 600.0 / step_s as f64 * per_step / mean(&speed).max(1e-9);
        let t = values(window, |s| s.celsius);
        let share = |half: &[Second]| half.iter().filter(|s| !s.throttled.is_empty()).count() as f64 / half.len().max(1) as f64;
        let (first, second) = window.split_at(window.len() / 2);
        Steadiness {
            kelvin_per_min: (t.len() >= 8).then(|| slope(&t).0 * 60.0),
            drift_percent: in_10_min(slope_step),
            drift_half: in_10_min(half),
            stands_still: totals(window).0 <= 0.0,
            halves: share(first) - share(second),
            contention: contention(window),
        }
    }

    pub fn is_steady(&self) -> bool {
        self.why_not().is_none()
    }

    /// In words, how the end of a run looks that is too short for the rule: it may be level, and that is no verdict.
    pub fn words(&self) -> String {
        let level = || match self.drift_half {
            half if half < PERCENT_IN_10_MIN => "the speed is level at its end".to_owned(),
            half => format!("whether the speed is level cannot be told (± {half:.0} % in 10 min)"),
        };
        self.why_not().unwrap_or_else(level)
    }

    /// In words, the first test that fails.
    pub fn why_not(&self) -> Option<String> {
        let crowded = self.contention.filter(|c| c.is_too_much()).map(Contention::words);
        let warming =
            self.kelvin_per_min.filter(|k| k.abs() >= KELVIN_PER_MIN).map(|k| format!("the temperature still moves by {k:+.1} K/min"));
        let untold = if self.stands_still {
            Some("no token was made".to_owned())
        } else {
            (!self.drift_half.is_finite()).then(|| "whether the speed is level cannot be told".to_owned())
        };
        let drifts = self.drift_percent.abs() >= PERCENT_IN_10_MIN || self.drift_percent.abs() > self.drift_half;
        let drifting = drifts.then(|| format!("the speed still moves by {:+.1} ± {:.1} % in 10 min", self.drift_percent, self.drift_half));
        let halves = (self.halves.abs() > HALVES_POINTS)
            .then(|| format!("the throttled share of the halves differs by {:.0} points", 100.0 * self.halves.abs()));
        crowded.or(warming).or(untold).or(drifting).or(halves)
    }
}

/// Whether a run has gone on long enough and ends in a steady window.
pub fn is_done(hot: &[Second]) -> bool {
    let times = Times::of(hot);
    hot.len() >= times.shortest_s() && Steadiness::of(times.end_of(hot)).is_steady()
}

#[cfg(test)]
mod tests {
    use super::super::series::Bins;
    use super::*;

    fn rest(seconds: usize, celsius: impl Fn(f64) -> f64) -> Vec<Second> {
        (0..seconds).map(|i| Second { celsius: Some((celsius(i as f64) * 2.0).round() / 2.0), ..Second::default() }).collect()
    }

    #[test]
    fn cold_means_that_little_is_left_to_fall() {
        // A bare board, 30 K above its rest, and an alu case, 12 K above.
        for (above, tau) in [(30.0, 300.0), (12.0, 1000.0)] {
            let cooling = rest(7200, |s| 45.0 + above * (-s / tau).exp());
            let cold = (0..7200).find(|&n| is_cold(&cooling[..n])).unwrap();
            let left = cooling[cold].celsius.unwrap() - 45.0;
            assert!(left <= 2.5 && cold >= COLD_S, "τ {tau}: {left} K left after {cold} s");
            assert!(ColdStart::of(&cooling[..cold]).is_cold.unwrap());
        }
        assert!(!ColdStart::of(&rest(300, |s| 45.0 + 30.0 * (-s / 300.0).exp())).is_cold.unwrap());
        assert_eq!(ColdStart::of(&[]).is_cold, None);
    }

    #[test]
    fn without_a_thermometer_nothing_is_waited_for_and_the_run_takes_twenty_minutes() {
        assert!(is_cold(&vec![Second::default(); 3]));
        let work = |n| vec![Second { tokens: 10.0, seconds: 1.0, ..Second::default() }; n];
        assert!(!is_done(&work(1199)) && is_done(&work(1200)));
    }

    #[test]
    fn tau_is_found_in_the_warming_and_in_the_slowing() {
        let warming: Vec<Second> =
            (0..2000).map(|i| Second { celsius: Some(45.0 + 30.0 * (1.0 - (-f64::from(i) / 400.0).exp())), ..Second::default() }).collect();
        let (tau, known) = tau_s(&warming);
        assert!(known && (tau - 400.0).abs() < 40.0, "{tau}");
        // At its limit after 60 s; the clock falls by 20 % with τ = 500 s.
        let held = |i: i32| Second {
            celsius: Some(85.0_f64.min(45.0 + 0.7 * f64::from(i))),
            throttled: if i >= 60 { "thermal".into() } else { String::new() },
            measured_mhz: Some(2400.0 - 480.0 * (1.0 - (-f64::from((i - 60).max(0)) / 500.0).exp())),
            ..Second::default()
        };
        let held: Vec<Second> = (0..3000).map(held).collect();
        assert!((tau_s(&held).0 - 500.0).abs() < 60.0, "{:?}", tau_s(&held));
        // Every third reading is missing, the first of all too; the speed beside the clock is no part of its curve.
        let gaps = |seconds: &[Second]| -> Vec<Second> {
            let gap = |(i, s): (usize, &Second)| match i % 3 {
                0 => Second { celsius: None, measured_mhz: None, tokens: 10.0, seconds: 1.0, ..s.clone() },
                _ => s.clone(),
            };
            seconds.iter().enumerate().map(gap).collect()
        };
        for (whole, gaps) in [(&warming, gaps(&warming)), (&held, gaps(&held))] {
            let ((tau, _), (same, known)) = (tau_s(whole), tau_s(&gaps));
            assert!(known && (tau - same).abs() < 10.0, "{tau} and {same}");
        }
    }

    #[test]
    fn each_test_of_steadiness_names_what_fails_it() {
        let alone = Some(Contention { others: 0.02, stolen: 0.0 });
        let window = |celsius: f64, slowing: f64, late: bool| -> Vec<Second> {
            (0..600)
                .map(|i| Second {
                    tokens: 10.0 - slowing * f64::from(i) + 0.1 * (f64::from(i * 7919 % 13) / 6.0 - 1.0),
                    seconds: 1.0,
                    celsius: Some(60.0 + celsius * f64::from(i)),
                    throttled: if late && i > 300 { "thermal".into() } else { String::new() },
                    contention: alone,
                    ..Second::default()
                })
                .collect()
        };
        let why = |w: &[Second]| Steadiness::of(w).why_not().unwrap_or_default();
        assert_eq!(why(&window(0.0, 0.0, false)), "");
        assert!(why(&window(0.01, 0.0, false)).contains("+0.6 K/min"));
        assert!(why(&window(0.0, 0.001, false)).contains("speed still moves"), "{}", why(&window(0.0, 0.001, false)));
        assert!(why(&window(0.0, 0.0, true)).contains("differs by 100 points"));
        let mut crowded = window(0.0, 0.0, false);
        crowded.iter_mut().for_each(|s| s.contention = Some(Contention { others: 0.05, stolen: 0.01 }));
        assert_eq!(why(&crowded), "others took 5.0 % of the machine, its host 1.0 %");
        assert_eq!(Steadiness::of(&window(0.0, 0.0, false)).words(), "the speed is level at its end");
        assert_eq!(why(&window(0.0, 0.0, false)[..5]), "whether the speed is level cannot be told");
        let mut still = window(0.0, 0.0, false);
        still.iter_mut().for_each(|s| s.tokens = 0.0);
        assert_eq!(why(&still), "no token was made");
    }

    #[test]
    fn one_long_prompt_is_not_steady_by_itself() {
        // Prompts of 200 s each: all seconds of one have its speed, and ten minutes are three of them.
        let prompts = |count: usize| -> Vec<Second> {
            let mut bins = Bins::default();
            (0..count).flat_map(|n| bins.tokens(200.0 * n as f64, 200.0 * (n + 1) as f64, 512)).collect()
        };
        let run = prompts(7);
        let times = Times::of(&run);
        assert!((times.piece_s - 200.0).abs() < 40.0 && times.window_s() >= 1400, "{times:?}");
        assert!(run.len() > RUN_MIN_S && !is_done(&run));
        assert!(is_done(&prompts(14)), "{:?}", Times::of(&prompts(14)));
    }

    #[test]
    fn a_clock_that_dips_once_does_not_swing_and_one_that_swings_slowly_does() {
        let clock = |dips: &[usize], length: usize| -> Vec<Second> {
            let mhz = |i: usize| if dips.iter().any(|d| (*d..d + length).contains(&i)) { 1000.0 } else { 2400.0 };
            (0..1200).map(|i| Second { measured_mhz: Some(mhz(i)), ..Second::default() }).collect()
        };
        assert_eq!(Times::of(&clock(&[800], 30)).period_s, 0);
        assert!(Times::of(&clock(&[700, 800, 900, 1000], 30)).period_s > 0);
        assert_eq!(Times::of(&clock(&[800], 200)).period_s, 600);
    }

    #[test]
    fn a_mixed_load_is_judged_by_its_minutes_and_its_swings_are_not_taken_for_warming() {
        // Turns of 25 s: 12 of answers, the chip 4 K warmer in them; over it a warming by 30 K with τ = 300 s.
        let second = |i: usize, speed: f64| {
            let works = i % 25 < 12;
            let slow = 30.0 * (1.0 - (-(i as f64) / 300.0).exp());
            Second {
                tokens: if works { speed } else { 0.0 },
                seconds: if works { 1.0 } else { 0.0 },
                celsius: Some(45.0 + slow + if works { 4.0 } else { 0.0 }),
                ..Second::default()
            }
        };
        let run: Vec<Second> = (0..2400).map(|i| second(i, 10.0)).collect();
        let (tau, known) = tau_s(&run);
        assert!(known && (tau - 300.0).abs() < 60.0, "{tau}");
        assert!(is_done(&run), "{:?}", Steadiness::of(Times::of(&run).end_of(&run)));
        let slowing: Vec<Second> = (0..2400).map(|i| second(i, 10.0 - i as f64 / 600.0)).collect();
        let drift = Steadiness::of(&slowing[1800..]).drift_percent;
        assert!((drift + 15.4).abs() < 1.0, "1 tok/s of 6.5 in 10 min: {drift}");
    }

    #[test]
    fn the_end_of_a_short_run_leaves_its_beginning_out() {
        let run = vec![Second::default(); 1300];
        let times = Times { tau_s: 200.0, tau_known: false, period_s: 0, piece_s: 0.1 };
        assert_eq!([0, 1, 5, 300, 1199, 1200, 1300].map(|n| times.end_of(&run[..n]).len()), [0, 1, 3, 150, 600, 600, 600]);
    }

    #[test]
    fn a_window_holds_several_of_the_swings_that_it_is_of() {
        // Two clocks in turn, 150 s each: ten minutes would be two of them.
        let run: Vec<Second> = (0..3000)
            .map(|i| Second {
                tokens: if i / 150 % 2 == 0 { 12.0 } else { 6.0 },
                seconds: 1.0,
                measured_mhz: Some(if i / 150 % 2 == 0 { 2400.0 } else { 1000.0 }),
                ..Second::default()
            })
            .collect();
        let times = Times::of(&run);
        assert!((times.period_s as i64 - 300).abs() <= 40 && times.window_s() >= 1500, "{times:?}");
        assert_eq!(Times::of(&run[..100]).period_s, 0);
    }
}
