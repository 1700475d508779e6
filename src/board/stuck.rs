//! A thermometer that always says the same is either dead or the board is steady. The load tells which: no board keeps its temperature to
//! the last digit while its processors go from rest to work.

use super::What;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Unchanged for this long is suspicious: the junction of every known board follows its load within 10 s.
const UNCHANGED: Duration = Duration::from_secs(180);
/// … if the load, averaged, moved by this share of all processors meanwhile. On the boards known that is worth 5 K and more.
const LOAD_MOVED: f64 = 0.4;
/// Time constant of that average: short bursts heat nothing. Until three of them have passed it says more of its first value than of the
/// load.
const AVERAGE_S: f64 = 20.0;

/// What is known of all thermometers of a board.
#[derive(Debug, Default)]
pub struct Watch {
    /// The average, when it was last moved, and when it began.
    busy: Option<(f64, Instant, Instant)>,
    same: BTreeMap<What, Same>,
}

#[derive(Debug)]
struct Same {
    value: f64,
    since: Instant,
    /// The averaged load since then: its least and most.
    busy: [f64; 2],
    stuck: bool,
}

/// What a new reading says about its thermometer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Moves,
    Stuck,
    /// For the first time since it moved.
    StuckNow,
    /// For the first time since it was stuck.
    MovesAgain,
}

impl Watch {
    /// The share of all processors that worked since the reading before.
    pub fn busy(&mut self, share: f64, at: Instant) {
        let (average, since) = self.busy.map_or((share, at), |(before, then, since)| {
            let weight = 1.0 - (-at.saturating_duration_since(then).as_secs_f64() / AVERAGE_S).exp();
            (before + weight * (share - before), since)
        });
        self.busy = Some((average, at, since));
    }

    pub fn see(&mut self, what: &What, value: f64, at: Instant) -> Verdict {
        let busy = self.busy.filter(|(_, _, since)| at.saturating_duration_since(*since).as_secs_f64() >= 3.0 * AVERAGE_S).map(|b| b.0);
        let same = self.same.entry(what.clone()).or_insert(Same { value, since: at, busy: [1.0, 0.0], stuck: false });
        if same.value != value {
            let was_stuck = same.stuck;
            *same = Same { value, since: at, busy: busy.map_or([1.0, 0.0], |b| [b, b]), stuck: false };
            return if was_stuck { Verdict::MovesAgain } else { Verdict::Moves };
        }
        if let Some(busy) = busy {
            same.busy = [same.busy[0].min(busy), same.busy[1].max(busy)];
        }
        let was_stuck = same.stuck;
        same.stuck |= at.saturating_duration_since(same.since) >= UNCHANGED && same.busy[1] - same.busy[0] >= LOAD_MOVED;
        match (was_stuck, same.stuck) {
            (false, true) => Verdict::StuckNow,
            (true, _) => Verdict::Stuck,
            (false, false) => Verdict::Moves,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts over `seconds`, with the load and the temperature of each.
    fn follow(seconds: u64, busy: impl Fn(u64) -> f64, celsius: impl Fn(u64) -> f64) -> Vec<Verdict> {
        let start = Instant::now();
        let mut watch = Watch::default();
        (0..seconds)
            .map(|s| {
                let at = start + Duration::from_secs(s);
                watch.busy(busy(s), at);
                watch.see(&What::Temperature("cpu-thermal".into()), celsius(s), at)
            })
            .collect()
    }

    #[test]
    fn a_reading_that_ignores_work_is_stuck_said_once_and_comes_back() {
        let said = follow(600, |s| f64::from(u8::from(s >= 100)), |s| if s < 500 { 47.0 } else { 61.0 });
        assert_eq!(said.iter().filter(|v| **v == Verdict::StuckNow).count(), 1);
        assert_eq!(said[499], Verdict::Stuck);
        assert_eq!((said[500], said[501]), (Verdict::MovesAgain, Verdict::Moves));
    }

    #[test]
    fn a_steady_board_is_not_stuck() {
        for load in [0.0, 1.0] {
            assert!(follow(3600, |_| load, |_| 47.0).iter().all(|v| *v == Verdict::Moves), "{load}");
        }
        // Short bursts, as of a clock's face being drawn, heat nothing.
        assert!(follow(3600, |s| if s % 60 < 3 { 1.0 } else { 0.0 }, |_| 47.0).iter().all(|v| *v == Verdict::Moves));
    }

    #[test]
    fn a_coarse_sensor_that_follows_is_not_stuck() {
        let steps = |s: u64| 45.0 + (f64::from(u32::try_from(s % 400).unwrap()) / 40.0).floor();
        assert!(follow(3600, |s| if s % 400 < 200 { 1.0 } else { 0.0 }, steps).iter().all(|v| *v == Verdict::Moves));
    }
}
