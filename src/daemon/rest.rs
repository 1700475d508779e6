//! How long the tick may leave the board alone. A beat finds its code and its data in no cache and asks every sensor, so a daemon that has
//! nothing to do makes fewer: when nothing has run for a while, nobody watches, and the board is cool and well.

use crate::governor::{Decision, Degraded};
use crate::units::Celsius;
use std::time::{Duration, Instant};

/// The governor's beat; `decide` is made for about this.
pub const BEAT: Duration = Duration::from_secs(1);
/// … at rest. Where a sensor hangs, those after it are read again within two of them, which is before their readings count as old (5 s).
pub const REST: Duration = Duration::from_secs(2);
/// … at rest on a machine without a thermometer, where there is nothing to see but what a graphics card tells of itself.
pub const BLIND_REST: Duration = Duration::from_secs(60);
/// So long after work a board has given most of its heat away, and the governor's estimates learn nothing more of how it does.
const COOLED: Duration = Duration::from_secs(60);
/// Headroom from which on the board is looked at every second: 15 K below its throttle.
const NEAR: f32 = 0.5;
/// … and where no throttle is known, the temperature: below where any die is held back.
const WARM: Celsius = Celsius(55.0);

/// When there was work last.
#[derive(Debug, Default)]
pub struct Rest {
    worked: Option<Instant>,
}

impl Rest {
    /// From this beat to the next. `hottest`: of die and skin, where there is a thermometer.
    pub fn next(&mut self, now: Instant, works: bool, watched: bool, hottest: Option<Celsius>, decided: &Decision) -> Duration {
        if works {
            self.worked = Some(now);
        }
        let cooled = self.worked.is_none_or(|at| now.saturating_duration_since(at) >= COOLED);
        let cool = decided.headroom.map_or(hottest.is_none_or(|t| t.0 < WARM.0), |headroom| headroom < NEAR);
        match hottest {
            _ if watched || !cooled || !cool || decided.degraded != Degraded::No => BEAT,
            Some(_) => REST,
            None => BLIND_REST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::{Goal, Observation, Policy, Prior, State, decide};

    #[test]
    fn it_rests_from_a_minute_after_work_while_nobody_watches_and_the_board_is_cool_and_well() {
        let policy = Policy { goal: Goal::Observe, prior: Prior::unknown(4, vec![1000.0]) };
        let decided = decide(&policy, State::new(&policy), &Observation::default()).1;
        let of = |headroom, degraded| Decision { headroom, degraded, ..decided.clone() };
        let well = of(None, Degraded::No);
        let (mut rest, start) = (Rest::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let cool = Some(Celsius(40.0));
        assert_eq!(rest.next(at(0), false, false, cool, &well), REST, "nothing has run yet");
        assert_eq!(rest.next(at(0), false, false, None, &well), BLIND_REST);
        assert_eq!(rest.next(at(0), false, false, Some(WARM), &well), BEAT, "who knows when it is held back");
        assert_eq!(rest.next(at(1), true, false, cool, &well), BEAT);
        assert_eq!([60, 61].map(|second| rest.next(at(second), false, false, cool, &well)), [BEAT, REST]);
        assert_eq!(rest.next(at(62), false, true, cool, &well), BEAT, "somebody watches");
        assert_eq!(rest.next(at(63), false, false, Some(WARM), &of(Some(0.4), Degraded::No)), REST);
        assert_eq!(rest.next(at(63), false, false, cool, &of(Some(0.5), Degraded::No)), BEAT, "near its throttle");
        assert_eq!(rest.next(at(63), false, false, None, &of(None, Degraded::UnderVoltage)), BEAT);
    }
}
