//! Whether a run had its machine to itself: the share of all processors' time that other processes took, and that the host of a virtual
//! machine kept. A figure of a shared machine is not the machine's.

use super::statistics::mean_of_any;
use crate::board::Root;
use crate::board::pressure::Ticks;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A run that others took more of than this is no measurement of its machine. A thread that loses its core holds the others up, so the
/// speed falls by at least as much: three times what a steady run may drift (guess; a desktop at rest takes 1 to 2 %).
pub const SHARE_MAX: f64 = 0.03;
/// `USER_HZ`, the unit of `/proc/stat`: a hundredth of a second on every architecture that Hearth runs on.
const TICKS_PER_S: f64 = 100.0;
/// Shorter spans have too few ticks to tell a share.
const SPAN_MIN: Duration = Duration::from_millis(900);

/// Shares (0–1) of all processors' time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contention {
    /// Other processes and the kernel's own work.
    pub others: f64,
    /// Kept by the host of a virtual machine (steal).
    pub stolen: f64,
}

impl Contention {
    pub fn total(self) -> f64 {
        self.others + self.stolen
    }

    pub fn is_too_much(self) -> bool {
        self.total() > SHARE_MAX
    }

    /// `others took 12 % of the machine` with what its host kept, for a sentence.
    pub fn words(self) -> String {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let stolen = if self.stolen >= 0.0005 { format!(", its host {}", percent(self.stolen)) } else { String::new() };
        format!("others took {} of the machine{stolen}", percent(self.others))
    }

    /// The mean over those seconds that know it.
    pub fn mean(of: impl Iterator<Item = Contention>) -> Option<Contention> {
        let (others, stolen): (Vec<f64>, Vec<f64>) = of.map(|c| (c.others, c.stolen)).unzip();
        Some(Contention { others: mean_of_any(&others)?, stolen: mean_of_any(&stolen)? })
    }

    /// What was not ours between two looks. The kernel charges whole ticks, so that a little of ours may look like others', or theirs
    /// like less than nothing.
    fn between(passed: Ticks, own_s: f64) -> Option<Contention> {
        let all = passed.all as f64;
        let worked = passed.all.saturating_sub(passed.idle).saturating_sub(passed.stolen) as f64;
        let share = |ticks: f64| (ticks / all).clamp(0.0, 1.0);
        (passed.all > 0).then(|| Contention { others: share(worked - own_s * TICKS_PER_S), stolen: share(passed.stolen as f64) })
    }
}

/// Looks again and again, from its making on.
pub struct Watch {
    root: Root,
    last: Option<Look>,
}

#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    ticks: Ticks,
    own_s: f64,
}

impl Watch {
    pub fn new(root: &Root) -> Watch {
        let mut watch = Watch { root: root.clone(), last: None };
        watch.last = watch.take();
        watch
    }

    /// What others took since the last look that told something; `None` where `/proc/stat` is hidden, or too soon after it.
    pub fn look(&mut self) -> Option<Contention> {
        let now = self.take()?;
        let last = *self.last.get_or_insert(now);
        if now.at.saturating_duration_since(last.at) < SPAN_MIN {
            return None;
        }
        self.last = Some(now);
        Contention::between(now.ticks.since(last.ticks), now.own_s - last.own_s)
    }

    fn take(&self) -> Option<Look> {
        let ticks = Ticks::of(&self.root.text("proc/stat").ok()?)?;
        let own = clock_gettime(ClockId::ProcessCPUTime);
        Some(Look { at: Instant::now(), ticks, own_s: own.tv_sec as f64 + own.tv_nsec as f64 * 1e-9 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_took_is_what_was_worked_and_is_not_ours() {
        // Four processors for a second: 150 ticks rest, 10 stolen, 240 worked, of which 2 s are ours.
        let c = Contention::between(Ticks { idle: 150, stolen: 10, all: 400 }, 2.0).unwrap();
        assert!((c.others - 0.1).abs() < 1e-9 && (c.stolen - 0.025).abs() < 1e-9 && c.is_too_much());
        assert_eq!(c.words(), "others took 10.0 % of the machine, its host 2.5 %");
        // More of ours than the kernel counted.
        let alone = Contention::between(Ticks { idle: 200, stolen: 0, all: 400 }, 2.004).unwrap();
        assert_eq!(alone, Contention::default());
        assert!(!alone.is_too_much());
        assert_eq!(Contention::between(Ticks::default(), 0.0), None);
    }

    #[test]
    fn a_mean_is_of_the_seconds_that_know() {
        assert_eq!(Contention::mean(std::iter::empty()), None);
        let each = [0.02, 0.04].map(|others| Contention { others, stolen: 0.0 });
        assert!((Contention::mean(each.into_iter()).unwrap().others - 0.03).abs() < 1e-12);
    }

    #[test]
    fn a_machine_that_hides_its_count_is_not_judged_and_one_that_tells_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&Root::new(dir.path()));
        assert_eq!(watch.look(), None);
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let put = |text: &str| std::fs::write(dir.path().join("proc/stat"), text).unwrap();
        put("cpu  100 0 0 900 0 0 0 0 0 0\n");
        assert_eq!(watch.look(), None, "a first look tells no share");
        // As if that had been two seconds ago, and this process had rested.
        put("cpu  10200 0 0 30800 0 0 0 50 0 0\n");
        if let Some(last) = watch.last.as_mut() {
            last.at -= Duration::from_secs(2);
        }
        let c = watch.look().unwrap();
        assert!((0.2..=0.2526).contains(&c.others) && (c.stolen - 50.0 / 40050.0).abs() < 1e-9, "{c:?}");
        assert_eq!(watch.look(), None, "too soon");
    }
}
