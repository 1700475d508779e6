//! Whether a worker lost its core in the middle of a chunk: time that passed on the clock but not for its thread, sleeping left aside.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Chunks that took longer are looked at: was the core lost, or was it just a large chunk? Longer than most take, and shorter than one whose
/// worker was lent a core.
const SUSPICIOUS: Duration = Duration::from_micros(150);
/// Less than this is an interrupt, not a neighbour.
const LOSS: Duration = Duration::from_micros(100);

/// One worker's time on its core.
#[derive(Debug)]
pub struct Watch {
    /// The clock and this thread's own time, last looked at together.
    looked: Instant,
    ran: Duration,
}

impl Watch {
    /// Of the calling thread.
    pub fn new() -> Watch {
        Watch { looked: Instant::now(), ran: own_time() }
    }

    /// This thread slept of its own will, or was not looked at for a while.
    pub fn begin(&mut self) {
        self.look();
    }

    /// Whether the core was lost in the last chunk, which took so long.
    pub fn lost_in(&mut self, chunk: Duration) -> bool {
        chunk > SUSPICIOUS && self.look() > LOSS
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
    fn computing_is_no_loss_and_standing_still_is() {
        let mut watch = Watch::new();
        let look = |watch: &mut Watch| {
            let before = watch.looked;
            let lost = watch.look();
            (watch.looked - before, lost)
        };
        look(&mut watch);
        let start = own_time();
        while own_time() - start < 5 * MS {}
        let (passed, lost) = look(&mut watch);
        assert!(lost + 5 * MS <= passed, "{lost:?} of {passed:?} lost, of which 5 ms were computed");
        // However long it really takes, this thread does not run meanwhile.
        std::thread::park_timeout(5 * MS);
        let (passed, lost) = look(&mut watch);
        assert!(lost + MS >= passed.min(5 * MS), "{lost:?} of {passed:?} lost, of which 5 ms were slept");
    }

    #[test]
    fn only_a_long_chunk_is_looked_at() {
        let mut watch = Watch::new();
        std::thread::park_timeout(5 * MS);
        assert!(!watch.lost_in(SUSPICIOUS), "an ordinary chunk asks nobody for the time");
        // Spurious wakes aside, the sleep above is still to be found.
        while watch.looked.elapsed() < 5 * MS {
            std::thread::park_timeout(5 * MS);
        }
        assert!(watch.lost_in(SUSPICIOUS + MS));
    }
}
