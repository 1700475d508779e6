//! Reading off the loop: one thread asks every source in turn; whoever needs a value takes the latest, with its age. A source that
//! hangs (a powered-down zone can) holds that thread only: it is left behind, the source dropped, and a new thread goes on.

use super::{Reading, Source, What};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// From the end of a round of all sources to the next: the usual value for [`Poll::start`].
pub const EVERY: Duration = Duration::from_millis(500);
/// A source that takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// A source that fails this often in a row is asked only every tenth round, until it answers again.
const MISSES: u32 = 3;
/// Threads left behind in a hanging source; with more, nothing is read any more and all readings age.
const LEFT_BEHIND_MAX: usize = 3;

/// The latest value of everything, and what became of the sources since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    pub readings: BTreeMap<What, (Reading, Instant)>,
    /// Said once each: a source that failed, hung, or came back.
    pub notices: Vec<String>,
}

impl Latest {
    /// A value with its age in seconds, however old.
    pub fn value(&self, what: &What, now: Instant) -> Option<(f64, f64)> {
        let (reading, at) = self.readings.get(what)?;
        Some((reading.value, now.saturating_duration_since(*at).as_secs_f64()))
    }
}

/// What the reading thread and its owner share. A lock, since a thread that hangs can take no message; it is held for copies only.
#[derive(Default)]
struct Shared {
    latest: Latest,
    /// The source being asked, since when.
    asking: Option<(usize, Instant)>,
    /// Threads older than this have been left behind and must touch nothing.
    generation: usize,
    /// Sources waiting for their next turn; a source that hangs is with its thread, and so is gone.
    idle: Vec<Option<Asked>>,
    /// The owner is gone.
    stop: bool,
}

struct Asked {
    source: Box<dyn Source>,
    misses: u32,
}

/// The reader of one board.
pub struct Poll {
    shared: Arc<Mutex<Shared>>,
    every: Duration,
    left_behind: usize,
}

impl Poll {
    pub fn start(sources: Vec<Box<dyn Source>>, every: Duration) -> Poll {
        let idle = sources.into_iter().map(|source| Some(Asked { source, misses: 0 })).collect();
        let poll = Poll { shared: Arc::new(Mutex::new(Shared { idle, ..Shared::default() })), every, left_behind: 0 };
        poll.spawn(0);
        poll
    }

    /// The latest readings; never waits for a sensor. Leaves a thread behind whose source has passed its deadline.
    pub fn latest(&mut self, now: Instant) -> Latest {
        let mut shared = lock(&self.shared);
        let hanging = shared.asking.filter(|(_, since)| now.saturating_duration_since(*since) > DEADLINE);
        let mut next = None;
        if let (Some((index, _)), true) = (hanging, self.left_behind < LEFT_BEHIND_MAX) {
            self.left_behind += 1;
            shared.generation += 1;
            shared.asking = None;
            shared.latest.notices.push(format!("sensor {index} hangs; it is not asked again"));
            next = Some(shared.generation);
        }
        let answer = Latest { readings: shared.latest.readings.clone(), notices: std::mem::take(&mut shared.latest.notices) };
        drop(shared);
        if let Some(generation) = next {
            self.spawn(generation);
        }
        answer
    }

    fn spawn(&self, generation: usize) {
        let (shared, every) = (self.shared.clone(), self.every);
        let thread = std::thread::Builder::new().name("sensors".into());
        if let Err(error) = thread.spawn(move || rounds(&shared, generation, every)) {
            lock(&self.shared).latest.notices.push(format!("sensors cannot be read: {error}"));
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        lock(&self.shared).stop = true;
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rounds(shared: &Mutex<Shared>, generation: usize, every: Duration) {
    for round in 0u64.. {
        let count = lock(shared).idle.len();
        for index in 0..count {
            let asked = {
                let mut shared = lock(shared);
                if shared.stop || shared.generation != generation {
                    return;
                }
                let due = shared.idle[index].as_ref().is_some_and(|a| a.misses < MISSES || round % 10 == 0);
                let asked = if due { shared.idle[index].take() } else { None };
                shared.asking = asked.as_ref().map(|_| (index, Instant::now()));
                asked
            };
            let Some(mut asked) = asked else { continue };
            let answer = asked.source.read();
            let mut shared = lock(shared);
            if shared.generation != generation {
                return;
            }
            shared.asking = None;
            let at = Instant::now();
            match answer {
                Ok(readings) => {
                    if asked.misses >= MISSES {
                        shared.latest.notices.push(format!("{} is back", asked.source.name()));
                    }
                    asked.misses = 0;
                    for reading in readings {
                        shared.latest.readings.insert(reading.what.clone(), (reading, at));
                    }
                }
                Err(miss) => {
                    asked.misses = asked.misses.saturating_add(1);
                    if asked.misses == MISSES {
                        shared.latest.notices.push(format!("{}: {miss}", asked.source.name()));
                    }
                }
            }
            shared.idle[index] = Some(asked);
        }
        std::thread::park_timeout(every);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Miss;
    use super::*;
    use std::sync::mpsc;

    /// Answers what it is told to, one message a read; hangs while there is none.
    struct Told {
        name: &'static str,
        answers: mpsc::Receiver<Result<f64, Miss>>,
        asked: mpsc::Sender<()>,
    }

    impl Source for Told {
        fn name(&self) -> String {
            self.name.into()
        }
        fn read(&mut self) -> Result<Vec<Reading>, Miss> {
            let _ = self.asked.send(());
            let value = self.answers.recv().unwrap_or(Err(Miss::Absent { path: "gone".into() }))?;
            Ok(vec![Reading { what: What::Temperature(self.name.into()), value, source: "test".into() }])
        }
    }

    fn told(name: &'static str) -> (Box<dyn Source>, mpsc::Sender<Result<f64, Miss>>, mpsc::Receiver<()>) {
        let (answer, answers) = mpsc::channel();
        let (asked, was_asked) = mpsc::channel();
        (Box::new(Told { name, answers, asked }), answer, was_asked)
    }

    #[test]
    fn a_source_that_hangs_is_left_behind_and_the_others_go_on() {
        let (hanging, _never, hanging_asked) = told("cv0-thermal");
        let (good, answer, good_asked) = told("cpu-thermal");
        let mut poll = Poll::start(vec![hanging, good], Duration::ZERO);
        hanging_asked.recv().unwrap();
        // Time is an argument: later than the deadline, though no second has passed.
        let later = Instant::now() + DEADLINE * 2;
        let notices = poll.latest(later).notices;
        assert_eq!(notices, ["sensor 0 hangs; it is not asked again"]);
        answer.send(Ok(52.9)).unwrap();
        good_asked.recv().unwrap();
        good_asked.recv().unwrap();
        let latest = poll.latest(Instant::now());
        assert_eq!(latest.value(&What::Temperature("cpu-thermal".into()), Instant::now()).unwrap().0, 52.9);
        drop(answer);
    }

    #[test]
    fn a_failing_source_is_told_once_and_its_reading_ages() {
        let (source, answer, asked) = told("cpu-thermal");
        let mut poll = Poll::start(vec![source], Duration::ZERO);
        answer.send(Ok(50.0)).unwrap();
        // From now on every read fails.
        drop(answer);
        (0..5).for_each(|_| asked.recv().unwrap());
        let latest = poll.latest(Instant::now());
        let later = Instant::now() + Duration::from_secs(7);
        assert_eq!(latest.notices, ["cpu-thermal: gone: not there"]);
        assert!(latest.value(&What::Temperature("cpu-thermal".into()), later).unwrap().1 >= 7.0);
        assert!(poll.latest(Instant::now()).notices.is_empty());
    }
}
