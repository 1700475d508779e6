//! When a machine is cold, and when its speed may be called steady.
//!
//! - **Cold**: at rest, over the last five minutes the temperature moved by less than 0.1 K/min. So even a heavy case, whose time
//!   constant is 20 min, has less than 2 K left to fall, and a bare board less than 1 K.
//! - **τ**, the slow time constant, is the run's own: from its warming, and from the fall of its speed once it throttles.
//! - **Steady**, over the last W = max(10 min, 2 τ): the temperature moves by less than 0.3 K/min, the speed's slope is less than 1 % in
//!   10 min and not told from 0, and the throttled share of both halves agrees within 5 points. Never sooner than 3 τ + W, nor 20 min.

use super::series::{Second, values};
use super::statistics::{mean, slope};
use serde::{Deserialize, Serialize};

const KELVIN_PER_MIN: f64 = 0.3;
const COLD_KELVIN_PER_MIN: f64 = 0.1;
/// A line is laid through this much rest: at that slope a sensor with steps of 0.5 K takes one.
const COLD_S: usize = 300;
const WINDOW_MIN_S: usize = 600;
/// The shortest run of a bare board; others take what their τ asks for.
pub const RUN_MIN_S: usize = 1200;
const PERCENT_IN_10_MIN: f64 = 1.0;
const HALVES_POINTS: f64 = 0.05;
/// Below this rise a warming tells no time constant.
const RISE_K: f64 = 2.0;
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

/// The window that a run is judged by, in seconds.
pub fn window_s(tau: f64) -> usize {
    WINDOW_MIN_S.max((2.0 * tau).ceil() as usize)
}

/// The shortest run whose end may be called sustained, in seconds.
pub fn shortest_s(tau: f64) -> usize {
    RUN_MIN_S.max((3.0 * tau).ceil() as usize + window_s(tau))
}

/// The slow time constant of a run in seconds, and whether the run tells it.
pub fn tau_s(hot: &[Second]) -> (f64, bool) {
    let heat: Vec<f64> = hot.iter().map_while(|s| s.celsius).collect();
    // Held at its limit, a board gets no hotter; its clock goes on falling.
    let first = hot.iter().position(|s| !s.throttled.is_empty());
    let speed: Vec<f64> = first.map(|from| values(&hot[from..], |s| s.measured_mhz.or(s.rate()).map(|v| -v))).unwrap_or_default();
    let by_speed = settling_s(&speed, 0, 0.03 * speed.first().map_or(f64::INFINITY, |v| v.abs()));
    match settling_s(&heat, JUMPED_S, RISE_K).into_iter().chain(by_speed).reduce(f64::max) {
        Some(tau) => (tau.max(30.0), true),
        None => (if heat.is_empty() { TAU_UNKNOWN_S } else { 60.0 }, false),
    }
}

/// Seconds from `from` until 63 % of the rise to the end of a curve; `None` where it rises by less than `least`.
fn settling_s(curve: &[f64], from: usize, least: f64) -> Option<f64> {
    let smooth = |i: usize| mean(&curve[i.saturating_sub(5)..(i + 5).min(curve.len())]);
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
    pub drift_half: f64,
    /// Throttled share of the first half less that of the second.
    pub halves: f64,
}

impl Steadiness {
    pub fn of(window: &[Second]) -> Steadiness {
        let speed = values(window, Second::rate);
        let (slope_s, half) = slope(&speed);
        let in_10_min = |per_s: f64| 100.0 * 600.0 * per_s / mean(&speed).max(1e-9);
        let t = values(window, |s| s.celsius);
        let share = |half: &[Second]| half.iter().filter(|s| !s.throttled.is_empty()).count() as f64 / half.len().max(1) as f64;
        let (first, second) = window.split_at(window.len() / 2);
        Steadiness {
            kelvin_per_min: (t.len() >= 8).then(|| slope(&t).0 * 60.0),
            drift_percent: in_10_min(slope_s),
            drift_half: in_10_min(half),
            halves: share(first) - share(second),
        }
    }

    pub fn is_steady(&self) -> bool {
        self.why_not().is_none()
    }

    /// In words, the first test that fails.
    pub fn why_not(&self) -> Option<String> {
        let warming =
            self.kelvin_per_min.filter(|k| k.abs() >= KELVIN_PER_MIN).map(|k| format!("the temperature still moves by {k:+.1} K/min"));
        let drifts = self.drift_percent.abs() >= PERCENT_IN_10_MIN || self.drift_percent.abs() > self.drift_half;
        let drifting = drifts.then(|| format!("the speed still moves by {:+.1} ± {:.1} % in 10 min", self.drift_percent, self.drift_half));
        let halves = (self.halves.abs() > HALVES_POINTS)
            .then(|| format!("the throttled share of the halves differs by {:.0} points", 100.0 * self.halves.abs()));
        warming.or(drifting).or(halves)
    }
}

/// Whether a run has gone on long enough and ends in a steady window.
pub fn is_done(hot: &[Second]) -> bool {
    let (tau, _) = tau_s(hot);
    hot.len() >= shortest_s(tau) && Steadiness::of(&hot[hot.len() - window_s(tau)..]).is_steady()
}

#[cfg(test)]
mod tests {
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
        let (tau, _) = tau_s(&(0..3000).map(held).collect::<Vec<_>>());
        assert!((tau - 500.0).abs() < 60.0, "{tau}");
    }

    #[test]
    fn each_test_of_steadiness_names_what_fails_it() {
        let window = |celsius: f64, slowing: f64, late: bool| -> Vec<Second> {
            (0..600)
                .map(|i| Second {
                    tokens: 10.0 - slowing * f64::from(i) + 0.1 * (f64::from(i * 7919 % 13) / 6.0 - 1.0),
                    seconds: 1.0,
                    celsius: Some(60.0 + celsius * f64::from(i)),
                    throttled: if late && i > 300 { "thermal".into() } else { String::new() },
                    ..Second::default()
                })
                .collect()
        };
        let why = |w: &[Second]| Steadiness::of(w).why_not().unwrap_or_default();
        assert_eq!(why(&window(0.0, 0.0, false)), "");
        assert!(why(&window(0.01, 0.0, false)).contains("+0.6 K/min"));
        assert!(why(&window(0.0, 0.001, false)).contains("speed still moves"), "{}", why(&window(0.0, 0.001, false)));
        assert!(why(&window(0.0, 0.0, true)).contains("differs by 100 points"));
    }
}
