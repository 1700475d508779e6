//! Two settings of the governor against each other, in eight legs ABBA BAAB: the order cancels a room that warms steadily, within each
//! four and between them. What counts is the paired difference; a pair whose legs started unlike, whose room moved, or who shared the
//! machine with others, is rejected.

use super::contention::Contention;
use super::series::{Second, contention, each, joules_per_token, rate_of, room, values};
use super::statistics::{mean, mean_of_any, percentile};
use super::steady::{is_cold, tau_s};
use super::sustained::{Runner, shares};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Which setting each leg has: 0 is A, 1 is B.
const ORDER: [usize; 8] = [0, 1, 1, 0, 1, 0, 0, 1];
/// The legs of each pair, A first.
const PAIRS: [(usize, usize); 4] = [(0, 1), (3, 2), (5, 4), (6, 7)];
/// Legs of one pair start alike within this, in kelvin, unless they are so long that the start is forgotten.
const START_K: f64 = 1.0;
const ROOM_K: f64 = 1.0;
const FORGOTTEN_TAU: f64 = 5.0;
/// Of each leg the first part only warms the board.
const COUNTED_SHARE: f64 = 0.4;
/// Student's t at 97.5 % for 1, 2, 3 degrees of freedom.
const T_975: [f64; 3] = [12.706, 4.303, 3.182];
/// Not worse, if with 97.5 % certainty less than this is lost.
const NON_INFERIOR: f64 = -0.01;

/// A runner whose governor can be set.
pub trait Governed: Runner {
    type Setting: Clone;
    /// Takes effect at once; what the governor had learned is forgotten, so that legs are alike.
    fn govern(&mut self, setting: Self::Setting);
}

/// How long to go on, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Legs {
    pub leg_s: usize,
    /// Longest wait for the start of a leg.
    pub cool_s: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// `a` or `b`.
    pub setting: char,
    pub tok_s: f64,
    pub joules_per_token: Option<f64>,
    /// Of a mixed load: the median time to the first token, and the mean length of a turn.
    #[serde(default)]
    pub first_token_ms: Option<f64>,
    #[serde(default)]
    pub turn_s: Option<f64>,
    /// What others took of the machine.
    #[serde(default)]
    pub contention: Option<Contention>,
    pub start_c: Option<f64>,
    pub end_c: Option<f64>,
    /// The room before and after, where it is measured.
    pub room_c: Option<[f64; 2]>,
    pub measured_mhz: Option<f64>,
    pub throttled: Vec<(String, f64)>,
}

/// B against A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// Those that are whole: eight, or fewer where a signal ended the run.
    pub legs: Vec<Leg>,
    pub leg_s: usize,
    /// The first leg's slow time constant in seconds; legs of 5 of them forget their start.
    pub tau_s: f64,
    pub pairs: Vec<Pair>,
    /// Mean of the pairs that count, relative, with its 95 % interval; `None` with fewer than two.
    pub speed: Option<Difference>,
    pub joules: Option<Difference>,
    #[serde(default)]
    pub first_token: Option<Difference>,
    #[serde(default)]
    pub turn: Option<Difference>,
    /// What could not be seen and so was not checked, a sentence each.
    #[serde(default)]
    pub unchecked: Vec<String>,
    /// Whether B is not worse than A; `None` while that cannot be said.
    pub not_worse: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub speed: f64,
    pub joules: Option<f64>,
    #[serde(default)]
    pub first_token: Option<f64>,
    #[serde(default)]
    pub turn: Option<f64>,
    /// Why it does not count; empty when it does.
    pub rejected: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// Rest, and the work after it.
pub type Seconds = (Vec<Second>, Vec<Second>);

/// Runs all legs. Returns the rest before and the work of each beside the verdict. `tell` is called with the leg's number, its seconds so
/// far, and whether they are work; its break ends the run with the legs that are whole, and the seconds of the one that is not come last.
pub fn run<R: Governed>(
    runner: &mut R,
    settings: [R::Setting; 2],
    legs: Legs,
    mut tell: impl FnMut(&mut R, usize, &[Second], bool) -> ControlFlow<()>,
) -> Result<(Versus, Vec<Seconds>), R::Error> {
    let mut done: Vec<Leg> = Vec::new();
    let mut series: Vec<Seconds> = Vec::new();
    'legs: for (number, which) in ORDER.into_iter().enumerate() {
        // Rest is the same for both, and so is what they start from.
        runner.govern(settings[0].clone());
        let mut rest = Vec::new();
        let start = done.first().and_then(|leg: &Leg| leg.start_c);
        while rest.len() < legs.cool_s && !is_cold(&rest) {
            rest.push(runner.rest()?);
            if tell(runner, number, &rest, false).is_break() {
                series.push((rest, Vec::new()));
                break 'legs;
            }
            // As cold as the first leg was is cold enough.
            if start.zip(rest.last().and_then(|s| s.celsius)).is_some_and(|(first, now)| now <= first + 0.3) {
                break;
            }
        }
        runner.govern(settings[which].clone());
        let mut hot: Vec<Second> = Vec::new();
        while hot.len() < legs.leg_s {
            runner.work(&mut hot)?;
            if tell(runner, number, &hot, true).is_break() && hot.len() < legs.leg_s {
                series.push((rest, hot));
                break 'legs;
            }
        }
        hot.truncate(legs.leg_s);
        done.push(Leg::of(['a', 'b'][which], &rest, &hot));
        series.push((rest, hot));
    }
    Ok((Versus::of(done, legs.leg_s, tau_s(&series[0].1).0), series))
}

impl Leg {
    fn of(setting: char, rest: &[Second], hot: &[Second]) -> Leg {
        let counted = &hot[hot.len() - (COUNTED_SHARE * hot.len() as f64) as usize..];
        let tok_s = rate_of(counted);
        let average = |pick: fn(&Second) -> Option<f64>| mean_of_any(&values(counted, pick));
        let first_token = each(counted, |s| &s.first_token_ms);
        Leg {
            setting,
            tok_s,
            joules_per_token: average(|s| s.watts).and_then(|watts| joules_per_token(watts, counted)),
            first_token_ms: (!first_token.is_empty()).then(|| percentile(&first_token, 0.5)),
            turn_s: mean_of_any(&each(counted, |s| &s.turn_s)),
            contention: contention(counted),
            start_c: rest.last().or(hot.first()).and_then(|s| s.celsius),
            end_c: hot.last().and_then(|s| s.celsius),
            room_c: room(hot),
            measured_mhz: average(|s| s.measured_mhz),
            throttled: shares(counted),
        }
    }
}

impl Versus {
    /// Whether all legs are there.
    pub fn is_whole(&self) -> bool {
        self.legs.len() == ORDER.len()
    }

    fn of(legs: Vec<Leg>, leg_s: usize, tau: f64) -> Versus {
        let forgotten = leg_s as f64 >= FORGOTTEN_TAU * tau;
        let whole = PAIRS.iter().filter_map(|&(a, b)| legs.get(a).zip(legs.get(b)));
        let pairs: Vec<Pair> = whole.map(|(a, b)| Pair::of(a, b, forgotten)).collect();
        let cut_short = legs.len() < ORDER.len();
        let counted = || pairs.iter().filter(|p| p.rejected.is_empty());
        let of = |pick: fn(&Pair) -> Option<f64>| difference(&counted().filter_map(pick).collect::<Vec<_>>());
        let speed = of(|p| Some(p.speed));
        let (joules, first_token, turn) = (of(|p| p.joules), of(|p| p.first_token), of(|p| p.turn));
        let hidden = |why: &str, tells: fn(&Leg) -> bool| legs.iter().any(|l| !tells(l)).then(|| why.to_owned());
        let unchecked = [
            hidden("whether the legs started alike: there is no thermometer", |l| l.start_c.is_some()),
            hidden("whether the room moved: it has no thermometer (--room-sensor)", |l| l.room_c.is_some()),
            cut_short.then(|| format!("whether the room moved between the pairs: only {} of {} legs were run", legs.len(), ORDER.len())),
        ];
        Versus {
            // Only all eight cancel a room that warms.
            not_worse: speed.filter(|_| !cut_short).map(|d| d.low >= NON_INFERIOR),
            unchecked: unchecked.into_iter().flatten().collect(),
            legs,
            leg_s,
            tau_s: tau,
            pairs,
            speed,
            joules,
            first_token,
            turn,
        }
    }
}

impl Pair {
    fn of(a: &Leg, b: &Leg, forgotten: bool) -> Pair {
        let apart = |x: Option<f64>, y: Option<f64>| x.zip(y).map_or(0.0, |(x, y)| (x - y).abs());
        let rooms: Vec<f64> = [a, b].iter().flat_map(|leg| leg.room_c).flatten().collect();
        let moved = rooms.iter().copied().fold(f64::NEG_INFINITY, f64::max) - rooms.iter().copied().fold(f64::INFINITY, f64::min);
        let starts = apart(a.start_c, b.start_c);
        let rejected = if a.tok_s <= 0.0 || b.tok_s <= 0.0 {
            "a leg made no token".into()
        } else if moved > ROOM_K {
            format!("the room moved by {moved:.1} K")
        } else if starts > START_K && !forgotten {
            format!("the starts are {starts:.1} K apart")
        } else if let Some(crowded) = [a, b].iter().filter_map(|leg| leg.contention).find(|c| c.is_too_much()) {
            crowded.words()
        } else {
            String::new()
        };
        let change = |pick: fn(&Leg) -> Option<f64>| pick(a).zip(pick(b)).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a - 1.0);
        Pair {
            speed: change(|l| Some(l.tok_s)).unwrap_or(0.0),
            joules: change(|l| l.joules_per_token),
            first_token: change(|l| l.first_token_ms),
            turn: change(|l| l.turn_s),
            rejected,
        }
    }
}

fn difference(values: &[f64]) -> Option<Difference> {
    let t = T_975.get(values.len().checked_sub(2)?)?;
    let middle = mean(values);
    let variance = values.iter().map(|v| (v - middle).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    let half = t * (variance / values.len() as f64).sqrt();
    Some(Difference { mean: middle, low: middle - half, high: middle + half })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(setting: char, tok_s: f64) -> Leg {
        let room = Some([22.0, 22.0]);
        Leg {
            setting,
            tok_s,
            joules_per_token: Some(8.0 / tok_s),
            first_token_ms: Some(1e4 / tok_s),
            turn_s: None,
            contention: Some(Contention { others: 0.01, stolen: 0.0 }),
            start_c: Some(45.0),
            end_c: None,
            room_c: room,
            measured_mhz: None,
            throttled: vec![],
        }
    }

    /// Truth: B is 5 % faster; each leg loses 1 % to the warming room.
    fn legs() -> Vec<Leg> {
        let speed = |i: usize, b: usize| 10.0 * (1.0 + 0.05 * b as f64) * (1.0 - 0.01 * i as f64);
        ORDER.iter().enumerate().map(|(i, &b)| leg(['a', 'b'][b], speed(i, b))).collect()
    }

    #[test]
    fn the_order_cancels_a_room_that_warms() {
        let versus = Versus::of(legs(), 1500, 300.0);
        let speed = versus.speed.unwrap();
        assert!((speed.mean - 0.05).abs() < 0.001 && speed.low < 0.05 && speed.high > 0.05, "{speed:?}");
        assert_eq!(versus.not_worse, Some(true));
        assert!((versus.joules.unwrap().mean + 0.0476).abs() < 0.001 && (versus.first_token.unwrap().mean + 0.0476).abs() < 0.001);
        assert!(versus.turn.is_none() && versus.unchecked.is_empty());
    }

    #[test]
    fn pairs_that_are_unlike_do_not_count() {
        let mut unlike = legs();
        unlike[1].start_c = Some(47.0);
        unlike[4].room_c = Some([22.0, 23.5]);
        let rejected = |versus: &Versus| versus.pairs.iter().filter(|p| !p.rejected.is_empty()).count();
        assert_eq!(rejected(&Versus::of(unlike.clone(), 600, 300.0)), 2);
        assert_eq!(rejected(&Versus::of(unlike.clone(), 1500, 300.0)), 1, "five τ forget the start");
        unlike[0].room_c = Some([20.0, 22.0]);
        unlike[7].room_c = Some([20.0, 22.0]);
        let versus = Versus::of(unlike, 600, 300.0);
        assert_eq!((rejected(&versus), versus.speed, versus.not_worse), (3, None, None));
    }

    #[test]
    fn a_leg_without_a_token_is_compared_with_nothing() {
        let mut legs = legs();
        (legs[0].tok_s, legs[0].joules_per_token) = (0.0, None);
        let versus = Versus::of(legs, 1500, 300.0);
        assert_eq!((versus.pairs[0].rejected.as_str(), versus.pairs[0].speed), ("a leg made no token", 0.0));
        assert!(versus.speed.is_some_and(|d| d.mean.abs() < 0.1) && versus.pairs[0].joules.is_none());
    }

    #[test]
    fn a_pair_beside_somebody_elses_work_does_not_count_and_what_nobody_sees_is_named() {
        let mut legs = legs();
        legs[5].contention = Some(Contention { others: 0.3, stolen: 0.0 });
        let versus = Versus::of(legs.clone(), 1500, 300.0);
        assert_eq!(versus.pairs.iter().map(|p| p.rejected.as_str()).collect::<Vec<_>>(), ["", "", "others took 30.0 % of the machine", ""]);
        legs.iter_mut().for_each(|leg| (leg.start_c, leg.room_c) = (None, None));
        assert_eq!(Versus::of(legs, 1500, 300.0).unchecked.len(), 2);
    }
}
