//! What a person who looks after the board wants to read in the journal, each with its catalogued MESSAGE_ID
//! (`systemd/hearth.catalog`; `journalctl --catalog` shows the texts). One of a kind a minute at most: a board at its cliff flips every
//! few seconds.

use super::log::CATALOGUED;
use crate::governor::{Decision, Degraded, Observation};
use std::time::{Duration, Instant};

/// Between two of the same kind.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// A fan has failed when it was told to turn for this long without turning once: a tachometer reads 0 while the blades get going.
const SPIN_UP: Duration = Duration::from_secs(5);
/// Throttling has ended when there was none for this long.
const CALM: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    ThrottlingBegan,
    ThrottlingEnded,
    UnderVoltage,
    StuckCap,
    SensorLost,
    FanFailed,
}

impl Notice {
    const ALL: [Notice; 6] =
        [Notice::ThrottlingBegan, Notice::ThrottlingEnded, Notice::UnderVoltage, Notice::StuckCap, Notice::SensorLost, Notice::FanFailed];

    /// The catalogue's key: a random number, made once (`systemd-id128 new`), that never changes.
    fn message_id(self) -> &'static str {
        match self {
            Notice::ThrottlingBegan => "74a6554e05164d31bc40663e618ce2f6",
            Notice::ThrottlingEnded => "db4e78f7fcd74190997dcba0cde95112",
            Notice::UnderVoltage => "fb073fc131464c03963b47ab48db79eb",
            Notice::StuckCap => "35e69dc701b449e79cbd679ec53abc68",
            Notice::SensorLost => "e629568710b54a369b82d919ca102735",
            Notice::FanFailed => "fdeaa280d4da485992cecc439307c3ca",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Notice::ThrottlingBegan => "throttling-began",
            Notice::ThrottlingEnded => "throttling-ended",
            Notice::UnderVoltage => "under-voltage",
            Notice::StuckCap => "stuck-cap",
            Notice::SensorLost => "sensor-lost",
            Notice::FanFailed => "fan-failed",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Notice::ThrottlingBegan => "heat holds the board back: answers come slower until it has cooled down",
            Notice::ThrottlingEnded => "heat does not hold the board back any more",
            Notice::UnderVoltage => {
                "the supply's voltage is too low: the firmware slows the processor, and the board may reset; use a stronger supply or a shorter cable"
            }
            Notice::StuckCap => {
                "the clock is limited although the board is cool: something has set a limit and not taken it back; a restart of the board frees it"
            }
            Notice::SensorLost => "no thermometer answers: the clock is left to the board's own protection until one does",
            Notice::FanFailed => "the fan is told to turn and does not: look for dust, a cable, or a fan at its end",
        }
    }

    /// Writes it to the journal.
    pub fn tell(self, seen: &Observation) {
        let celsius = seen.soc.map(|t| t.value.0);
        let (id, kind, words) = (self.message_id(), self.word(), self.sentence());
        if self == Notice::ThrottlingEnded {
            tracing::info!(target: CATALOGUED, MESSAGE_ID = id, HEARTH_KIND = kind, HEARTH_CELSIUS = celsius, "{words}");
        } else {
            tracing::warn!(target: CATALOGUED, MESSAGE_ID = id, HEARTH_KIND = kind, HEARTH_CELSIUS = celsius, "{words}");
        }
    }
}

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Notices {
    last: [Option<Instant>; Notice::ALL.len()],
    /// Faults that last since they were told.
    lasting: [bool; Notice::ALL.len()],
    /// Throttling has been told of, and its end has not.
    throttled: bool,
    hot_at: Option<Instant>,
    /// Since when the fan stands still though it is told to turn.
    fan_still: Option<Instant>,
}

impl Notices {
    /// What is due to be told of this tick.
    pub fn of(&mut self, now: Instant, seen: &Observation, decided: &Decision) -> Vec<Notice> {
        let mut due = Vec::new();
        let hot = decided.degraded == Degraded::HighTemperature;
        if hot {
            self.hot_at = Some(now);
        }
        let calm = self.hot_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM);
        if hot && !self.throttled && self.take(Notice::ThrottlingBegan, now) {
            self.throttled = true;
            due.push(Notice::ThrottlingBegan);
        }
        if calm && self.throttled && self.take(Notice::ThrottlingEnded, now) {
            self.throttled = false;
            due.push(Notice::ThrottlingEnded);
        }
        let still = seen.fan_failed.then(|| *self.fan_still.get_or_insert(now));
        self.fan_still = still;
        let fan_failed = still.is_some_and(|since| now.saturating_duration_since(since) >= SPIN_UP);
        let under_voltage = seen.flags.is_some_and(|f| f.under_voltage);
        for (notice, lasts) in [
            (Notice::UnderVoltage, under_voltage),
            (Notice::StuckCap, decided.degraded == Degraded::StuckCap),
            (Notice::SensorLost, decided.degraded == Degraded::SensorLost),
            (Notice::FanFailed, fan_failed),
        ] {
            let told = self.lasting[notice as usize];
            if lasts && !told && self.take(notice, now) {
                self.lasting[notice as usize] = true;
                due.push(notice);
            } else if !lasts {
                self.lasting[notice as usize] = false;
            }
        }
        due
    }

    /// Whether it may be told again; if so, it is.
    fn take(&mut self, notice: Notice, now: Instant) -> bool {
        let last = &mut self.last[notice as usize];
        let may = last.is_none_or(|at| now.saturating_duration_since(at) >= AT_MOST_EVERY);
        if may {
            *last = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::observation::Flags;
    use crate::governor::{Goal, Policy, Prior, State, decide};
    use std::collections::BTreeSet;
    use std::path::Path;

    fn decided(degraded: Degraded) -> Decision {
        let policy = Policy { goal: Goal::Observe, prior: Prior::unknown(4, vec![1000.0]) };
        let (_, decision) = decide(&policy, State::new(&policy), &Observation::default());
        Decision { degraded, ..decision }
    }

    /// Runs seconds of one kind, `n` each, and gives the seconds at which something was told.
    fn told(course: &[(u64, Degraded)]) -> Vec<(u64, Notice)> {
        let (mut notices, began, mut at, mut all) = (Notices::default(), Instant::now(), 0, Vec::new());
        for (seconds, degraded) in course {
            for _ in 0..*seconds {
                let now = began + Duration::from_secs(at);
                all.extend(notices.of(now, &Observation::default(), &decided(*degraded)).into_iter().map(|n| (at, n)));
                at += 1;
            }
        }
        all
    }

    #[test]
    fn throttling_is_told_when_it_begins_and_when_it_has_ended() {
        let course = [(5, Degraded::No), (20, Degraded::HighTemperature), (30, Degraded::No)];
        assert_eq!(told(&course), [(5, Notice::ThrottlingBegan), (34, Notice::ThrottlingEnded)]);
    }

    #[test]
    fn a_board_that_flips_at_its_cliff_is_told_of_once() {
        let flips: Vec<_> = (0..60).flat_map(|_| [(3, Degraded::HighTemperature), (4, Degraded::No)]).collect();
        assert_eq!(told(&flips), [(0, Notice::ThrottlingBegan)]);
    }

    #[test]
    fn one_of_a_kind_a_minute_and_what_was_held_back_is_told_then() {
        let course = [(1, Degraded::SensorLost), (5, Degraded::No), (100, Degraded::SensorLost)];
        assert_eq!(told(&course), [(0, Notice::SensorLost), (60, Notice::SensorLost)]);
        let again = [(2, Degraded::HighTemperature), (20, Degraded::No), (5, Degraded::HighTemperature), (60, Degraded::No)];
        assert_eq!(told(&again), [(0, Notice::ThrottlingBegan), (11, Notice::ThrottlingEnded)]);
    }

    #[test]
    fn under_voltage_and_a_failed_fan_are_faults_of_their_own() {
        let flags = Some(Flags { under_voltage: true, ..Flags::default() });
        let seen = Observation { flags, fan_failed: true, ..Observation::default() };
        let mut notices = Notices::default();
        let now = Instant::now();
        assert_eq!(notices.of(now, &seen, &decided(Degraded::UnderVoltage)), [Notice::UnderVoltage]);
        assert_eq!(notices.of(now + SPIN_UP, &seen, &decided(Degraded::UnderVoltage)), [Notice::FanFailed]);
        assert!(notices.of(now + Duration::from_secs(300), &seen, &decided(Degraded::UnderVoltage)).is_empty(), "it lasts");
    }

    #[test]
    fn a_fan_that_starts_has_not_failed() {
        let (mut notices, began) = (Notices::default(), Instant::now());
        // Each time it is told to turn, its tachometer reads 0 for 4 s; then it does not turn at all.
        let stands = |s: u64| s >= 60 || s % 10 < 4;
        let mut told = Vec::new();
        for s in 0..120 {
            let seen = Observation { fan_failed: stands(s), ..Observation::default() };
            told.extend(notices.of(began + Duration::from_secs(s), &seen, &decided(Degraded::No)).into_iter().map(|n| (s, n)));
        }
        assert_eq!(told, [(65, Notice::FanFailed)]);
    }

    #[test]
    fn the_catalogue_has_exactly_these() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/hearth.catalog");
        let text = std::fs::read_to_string(file).unwrap();
        let keys: BTreeSet<_> = text.lines().filter_map(|l| l.strip_prefix("-- ")).collect();
        assert_eq!(keys, Notice::ALL.map(Notice::message_id).into());
        assert!(Notice::ALL.iter().enumerate().all(|(i, n)| *n as usize == i));
    }
}
