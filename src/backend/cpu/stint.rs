//! When a worker gives its core away by itself. Beside a busy neighbour the system takes the core from one of the two every few
//! milliseconds, at any moment: mostly in the middle of a chunk, which the whole crew then waits for. A worker that noticed such a loss
//! gives the core away a little earlier, between two chunks, when nobody waits for it. The neighbour gets its share, the crew what is
//! left, and nobody stands still. On a core of its own giving away returns at once, and the worker stops doing it.
//!
//! Giving away is too kind to a neighbour of low rank (a niced build), which would have got next to nothing: so a worker does it only
//! once it lost a good share of its time, and sees now and then whether it still would.
//!
//! A loss is time that passed on the clock but not for this thread, sleeping left aside.

use rustix::thread::sched_yield;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Chunks that took longer are looked at: was the core lost, or was it just a large chunk? Two to three times what most take.
const SUSPICIOUS: Duration = Duration::from_micros(300);
/// Less than this is an interrupt, not a neighbour.
const LOSS: Duration = Duration::from_micros(200);
/// Losses of less than this share of the time are borne. A guess between a niced neighbour's 1.5 % and an equal's half.
const BORNE: f64 = 0.2;
/// After so long of giving away, losses are looked at anew. A guess, as are the next three's exact values.
const REVIEW: Duration = Duration::from_millis(500);
/// How long a worker keeps its core beside a neighbour: at first, at least and at most. Systems take it after 1 to 10 ms, by their
/// clock's ticks.
const KEPT: Duration = Duration::from_micros(2000);
const KEPT_MIN: Duration = Duration::from_micros(300);
const KEPT_MAX: Duration = Duration::from_millis(8);
/// After giving away this often in a row for nothing, the neighbour is gone.
const FREE_AGAIN: u32 = 4;

/// What became of a worker between two of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    Stayed,
    /// It lost its core in the chunk before.
    WasTaken,
    /// It gave its core away, and got it back at this time.
    Went(Instant),
}

/// One worker's times on its core.
#[derive(Debug)]
pub struct Stint {
    /// When it last got its core.
    since: Instant,
    /// Whether somebody else wants the core too, and for how long it is kept then.
    shared: bool,
    kept: Duration,
    /// Times that giving away returned at once.
    free: u32,
    /// When the last loss was found, or giving away began.
    lost_at: Instant,
    /// The clock and this thread's own time, last looked at together.
    looked: Instant,
    ran: Duration,
}

impl Stint {
    /// Of the calling thread.
    pub fn new() -> Stint {
        let now = Instant::now();
        Stint { since: now, shared: false, kept: KEPT, free: 0, lost_at: now, looked: now, ran: own_time() }
    }

    /// This thread slept of its own will, or was not looked at for a while.
    pub fn begin(&mut self) {
        self.look();
        self.since = self.looked;
    }

    /// Between two chunks: the last took `chunk`, and it is `now`. May give the core away.
    pub fn between(&mut self, now: Instant, chunk: Duration) -> Between {
        let lost = if chunk > SUSPICIOUS { self.look() } else { Duration::ZERO };
        if lost > LOSS {
            self.was_taken(now, lost);
            return Between::WasTaken;
        }
        if !self.is_due(now) {
            return Between::Stayed;
        }
        sched_yield();
        let back = Instant::now();
        self.went(now, back);
        self.begin();
        Between::Went(back)
    }

    fn was_taken(&mut self, now: Instant, lost: Duration) {
        let of = now.saturating_duration_since(std::mem::replace(&mut self.lost_at, now));
        if self.shared {
            // In spite of going early: go earlier.
            self.kept = (self.kept * 3 / 4).max(KEPT_MIN);
        }
        self.shared |= lost.as_secs_f64() > BORNE * of.as_secs_f64();
        (self.free, self.since) = (0, now);
    }

    /// Whether it is time to give the core away.
    fn is_due(&mut self, now: Instant) -> bool {
        if self.shared && now.saturating_duration_since(self.lost_at) > REVIEW {
            (self.shared, self.lost_at) = (false, now);
        }
        self.shared && now.saturating_duration_since(self.since) >= self.kept
    }

    /// The core was given away at `now` and was ours again at `back`.
    fn went(&mut self, now: Instant, back: Instant) {
        if back.saturating_duration_since(now) > LOSS {
            self.free = 0;
            self.kept = (self.kept * 33 / 32).min(KEPT_MAX);
        } else {
            self.free += 1;
            self.shared = self.free < FREE_AGAIN;
        }
        self.since = back;
    }

    /// Time lost since the last look.
    fn look(&mut self) -> Duration {
        let (now, ran) = (Instant::now(), own_time());
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        passed.saturating_sub(ran.saturating_sub(std::mem::replace(&mut self.ran, ran)))
    }
}

/// Processor time of the calling thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_neighbour_of_low_rank_is_borne_one_of_our_own_is_given_way() {
        let mut stint = Stint::new();
        let mut now = stint.since + 1000 * MS;
        // 4 ms of 250, again and again.
        for _ in 0..10 {
            now += 250 * MS;
            stint.was_taken(now, 4 * MS);
            assert!(!stint.is_due(now + 100 * MS));
        }
        // 4 ms of 8.
        now += 8 * MS;
        stint.was_taken(now, 4 * MS);
        assert!(!stint.is_due(now) && stint.is_due(now + KEPT));
    }

    #[test]
    fn who_loses_the_core_all_the_same_goes_earlier_and_who_does_not_stays_longer() {
        let mut stint = Stint::new();
        let mut now = stint.since;
        for _ in 0..3 {
            now += 8 * MS;
            stint.was_taken(now, 4 * MS);
        }
        let early = stint.kept;
        assert!(early < KEPT);
        for _ in 0..100 {
            stint.went(now, now + 4 * MS);
            now += 6 * MS;
        }
        assert!(stint.kept > early && stint.kept <= KEPT_MAX);
        (0..100).for_each(|_| stint.was_taken(now, 4 * MS));
        assert_eq!(stint.kept, KEPT_MIN);
    }

    #[test]
    fn giving_away_ends_when_nobody_takes_and_is_looked_at_anew_after_a_while() {
        let mut stint = Stint::new();
        let now = stint.since + 8 * MS;
        stint.was_taken(now, 4 * MS);
        for _ in 0..FREE_AGAIN {
            assert!(stint.is_due(now + 100 * MS));
            stint.went(now, now);
        }
        assert!(!stint.is_due(now + 100 * MS));
        stint.was_taken(now + 8 * MS, 4 * MS);
        assert!(stint.is_due(now + 100 * MS));
        assert!(!stint.is_due(now + 8 * MS + REVIEW + MS), "the neighbour may be another by now");
    }

    #[test]
    fn computing_is_no_loss_and_standing_still_is() {
        let mut stint = Stint::new();
        stint.begin();
        let start = own_time();
        while own_time() - start < 5 * MS {}
        let (passed, lost) = (stint.looked.elapsed(), stint.look());
        assert!(lost + 4 * MS <= passed + MS, "{lost:?} of {passed:?} lost, of which 5 ms were computed");
        // However long it really takes, this thread does not run meanwhile.
        std::thread::park_timeout(5 * MS);
        let (passed, lost) = (stint.looked.elapsed(), stint.look());
        assert!(lost + MS >= passed.min(5 * MS), "{lost:?} of {passed:?} lost, of which 5 ms were slept");
    }
}
