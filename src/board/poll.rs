//! Reading off the loop: one thread asks every source in turn; whoever needs a value takes the latest, with its age. A source that
//! hangs (a powered-down zone can) holds that thread only: it is left behind, and a new thread goes on with the others. When the source
//! answers after all, it is asked again.
//!
//! Joules are counted here too, from the watts of each meter, by the trapezoid rule, unless the meter has a counter of its own.

use super::stuck::{Verdict, Watch};
use super::{Miss, Reading, Sensor, What};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// From one question to a source to the next.
pub const EVERY: Duration = Duration::from_millis(500);
/// … and to a meter, while joules are counted. The Raspberry Pi's firmware refuses to be asked more often than every 150 ms.
pub const METERING: Duration = Duration::from_millis(200);
/// … and to one that is shown only ([`Sensor::is_aside`]), where nobody waits for it: what a question to a graphics card's driver takes,
/// 4 ms on an H100, is 0.8 % of a processor at twice a second, and 0.01 % so.
pub const ASIDE: Duration = Duration::from_secs(30);
/// What tells of the machine's work is asked rarer by this than all else while a [pace](Poll::pace) is kept: nobody wants to know it then.
const RESTING: u32 = 15;
/// A source that falls due so soon is asked with those that are due: each wake of a processor takes some 0.1 ms.
const TOGETHER: Duration = Duration::from_millis(20);
/// A source that takes longer hangs.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// A source that fails this often in a row is told of, and asked more rarely, until it answers again.
const MISSES: u32 = 3;
/// It counts as back after so many good answers in a row, so that one that comes and goes is told of once.
const GOOD: u32 = 3;
/// How much more rarely a failing source is asked.
const RARELY: u32 = 10;
/// Threads left behind in hanging sources; with more, nothing is read until one of them answers, and all readings age.
const LEFT_BEHIND_MAX: usize = 8;
/// Between readings further apart than this nothing is known of the power.
const POWER_GAP: Duration = Duration::from_secs(5);
/// The machine slept if its clock that counts sleep is ahead by this much.
const SLEPT: Duration = Duration::from_secs(1);

/// The latest value of everything, and what became of the sources since it was last asked.
#[derive(Clone, Debug, Default)]
pub struct Latest {
    pub readings: BTreeMap<What, (Reading, Instant)>,
    /// Said once each: a source that failed, hung, is stuck, or came back.
    pub notices: Vec<String>,
    /// How long the machine was asleep since it was last asked. Readings from before are gone.
    pub slept: Option<Duration>,
    /// A source is being asked right now, and may hang: whoever looks rarely should look again within [`DEADLINE`].
    pub asking: bool,
}

impl Latest {
    /// A value with its age in seconds, however old.
    pub fn value(&self, what: &What, now: Instant) -> Option<(f64, f64)> {
        let (reading, at) = self.readings.get(what)?;
        Some((reading.value, age_s(*at, now)))
    }
}

/// Seconds since a reading was taken.
pub fn age_s(at: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(at).as_secs_f64()
}

/// The reader of one board.
pub struct Poll {
    shared: Arc<Mutex<Shared>>,
    /// The thread that asks, where one could be started.
    thread: Option<Thread>,
    /// How far the clock that counts sleep was ahead of the one that does not.
    asleep: Duration,
}

/// What the reading thread and its owner share. A lock, since a thread that hangs can take no message; it is held for copies only.
struct Shared {
    latest: Latest,
    seats: Vec<Seat>,
    /// The seat whose source is being asked, since when.
    asking: Option<(usize, Instant)>,
    /// Threads older than this have been left behind: they bring their source back and end.
    generation: usize,
    left_behind: usize,
    watch: Watch,
    joules: BTreeMap<String, Joules>,
    /// No source is asked more often, see [`Poll::pace`].
    pace: Duration,
    /// The owner is gone.
    stop: bool,
}

/// A source's place; the source itself is away while it is asked.
struct Seat {
    name: String,
    every: Duration,
    /// See [`Sensor::tells_of_work`].
    of_work: bool,
    source: Option<Box<dyn Sensor>>,
    due: Instant,
    /// When it answered last, and how often it has, well or not.
    answered: Option<Instant>,
    asked: u32,
    misses: u32,
    good: u32,
    /// It has been told of as failing.
    told: bool,
}

#[derive(Default)]
struct Joules {
    last: Option<(f64, Instant)>,
    sum: f64,
}

impl Poll {
    /// Asks every source once in `every`, for somebody who waits for the answers.
    pub fn start(sources: Vec<Box<dyn Sensor>>, every: Duration) -> Poll {
        Poll::with(sources, |_| every)
    }

    /// Asks for months: as often as a governor needs, and what is shown only rarely.
    pub fn start_lasting(sources: Vec<Box<dyn Sensor>>) -> Poll {
        Poll::with(sources, |source| if source.is_aside() { ASIDE } else { EVERY })
    }

    /// Asks meters more often, for a run whose joules count.
    pub fn start_metering(sources: Vec<Box<dyn Sensor>>) -> Poll {
        Poll::with(sources, |source| match (source.is_aside(), source.is_meter()) {
            (true, _) => ASIDE,
            (false, true) => METERING,
            (false, false) => EVERY,
        })
    }

    fn with(sources: Vec<Box<dyn Sensor>>, pace: impl Fn(&dyn Sensor) -> Duration) -> Poll {
        let due = Instant::now();
        let seat = |source: Box<dyn Sensor>| Seat::new(pace(&*source), source, due);
        let shared = Shared {
            latest: Latest::default(),
            seats: sources.into_iter().map(seat).collect(),
            asking: None,
            generation: 0,
            left_behind: 0,
            watch: Watch::default(),
            joules: BTreeMap::new(),
            pace: Duration::ZERO,
            stop: false,
        };
        let mut poll = Poll { shared: Arc::new(Mutex::new(shared)), thread: None, asleep: asleep() };
        poll.spawn(0);
        poll
    }

    /// The latest readings; never waits for a sensor. Leaves a thread behind whose source has passed its deadline.
    pub fn latest(&mut self, now: Instant) -> Latest {
        self.latest_at(now, asleep())
    }

    /// `asleep`: how long the machine has slept since its start.
    fn latest_at(&mut self, now: Instant, asleep: Duration) -> Latest {
        let slept = asleep.saturating_sub(self.asleep);
        let mut shared = lock(&self.shared);
        if slept > SLEPT {
            self.asleep += slept;
            shared.wake(slept);
        }
        let next = shared.leave_behind(now);
        let answer = Latest {
            readings: shared.latest.readings.clone(),
            notices: std::mem::take(&mut shared.latest.notices),
            slept: shared.latest.slept.take(),
            asking: shared.asking.is_some(),
        };
        drop(shared);
        if let Some(generation) = next {
            self.spawn(generation);
        }
        answer
    }

    /// From here on no source is asked more often than once in `pace`, however often it is by itself: where there is nothing to follow
    /// closely, as often as somebody looks will do, and what tells of work is of no use. With a quicker pace than before those that are asked more often now are asked at once.
    pub fn pace(&self, pace: Duration) {
        let mut shared = lock(&self.shared);
        let before = std::mem::replace(&mut shared.pace, pace);
        if pace < before {
            let now = Instant::now();
            for seat in shared.seats.iter_mut().filter(|s| s.every < s.every_at(before) && !s.told) {
                // But not twice at once: a meter needs time between two questions.
                seat.due = seat.due.min(seat.answered.map_or(now, |at| now.max(at + METERING)));
            }
            drop(shared);
            self.thread.iter().for_each(Thread::unpark);
        }
    }

    /// Whether every source has been asked `times` times, or has been told of as failing.
    pub fn is_settled(&self, times: u32) -> bool {
        lock(&self.shared).seats.iter().all(|s| s.told || s.asked >= times)
    }

    fn spawn(&mut self, generation: usize) {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("sensors".into());
        match thread.spawn(move || rounds(&shared, generation)) {
            Ok(handle) => self.thread = Some(handle.thread().clone()),
            Err(error) => lock(&self.shared).latest.notices.push(format!("sensors cannot be read: {error}")),
        }
    }
}

impl Seat {
    fn new(every: Duration, source: Box<dyn Sensor>, due: Instant) -> Seat {
        let (name, of_work) = (source.name(), source.tells_of_work());
        Seat { name, every, of_work, source: Some(source), due, answered: None, asked: 0, misses: 0, good: 0, told: false }
    }

    /// From one question to the next, while no source is asked more often than once in `pace`.
    fn every_at(&self, pace: Duration) -> Duration {
        self.every.max(if self.of_work { pace * RESTING } else { pace })
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

/// Time this machine has spent asleep since its start.
fn asleep() -> Duration {
    let now = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    now(ClockId::Boottime).saturating_sub(now(ClockId::Monotonic))
}

/// Asks sources as they fall due, until a younger thread has taken over.
fn rounds(shared: &Mutex<Shared>, generation: usize) {
    loop {
        let next = {
            let mut shared = lock(shared);
            if shared.stop || shared.generation != generation {
                return;
            }
            shared.next(Instant::now())
        };
        let (index, mut source) = match next {
            Ok(due) => due,
            Err(wait) => {
                std::thread::park_timeout(wait);
                continue;
            }
        };
        let answer = source.read();
        let mut shared = lock(shared);
        if shared.generation != generation {
            shared.bring_back(index, source);
            return;
        }
        shared.take(index, source, answer, Instant::now());
    }
}

impl Shared {
    /// The source that is due longest, or how long to wait for the next.
    fn next(&mut self, now: Instant) -> Result<(usize, Box<dyn Sensor>), Duration> {
        let first = self.seats.iter_mut().enumerate().filter(|(_, s)| s.source.is_some()).min_by_key(|(_, s)| s.due);
        match first {
            Some((index, seat)) if seat.due <= now + TOGETHER => {
                let source = seat.source.take().ok_or(EVERY)?;
                self.asking = Some((index, now));
                Ok((index, source))
            }
            Some((_, seat)) => Err(seat.due - now),
            None => Err(EVERY),
        }
    }

    /// If the source being asked has passed its deadline: the generation of the thread that goes on without it.
    fn leave_behind(&mut self, now: Instant) -> Option<usize> {
        let (index, since) = self.asking?;
        if now.saturating_duration_since(since) <= DEADLINE || self.left_behind >= LEFT_BEHIND_MAX {
            return None;
        }
        self.left_behind += 1;
        self.generation += 1;
        self.asking = None;
        self.failed(index, "does not answer; it is left alone until it does".into(), true);
        Some(self.generation)
    }

    /// A source that hung has answered; what it said is old by now.
    fn bring_back(&mut self, index: usize, source: Box<dyn Sensor>) {
        self.left_behind -= 1;
        let seat = &mut self.seats[index];
        seat.due = Instant::now() + seat.every * RARELY;
        seat.source = Some(source);
    }

    fn take(&mut self, index: usize, source: Box<dyn Sensor>, answer: Result<Vec<Reading>, Miss>, at: Instant) {
        self.asking = None;
        match answer {
            Ok(readings) => {
                let seat = &mut self.seats[index];
                (seat.misses, seat.good) = (0, seat.good.saturating_add(1));
                if seat.told && seat.good >= GOOD {
                    seat.told = false;
                    self.latest.notices.push(format!("{} is back", seat.name));
                }
                for reading in readings {
                    self.keep(reading, at);
                }
            }
            // Permission does not come by waiting.
            Err(miss) => self.failed(index, miss.to_string(), matches!(miss, Miss::Denied { .. })),
        }
        let seat = &mut self.seats[index];
        (seat.answered, seat.asked) = (Some(at), seat.asked.saturating_add(1));
        // A fault is told of as soon as ever.
        let every = if seat.misses > 0 { seat.every } else { seat.every_at(self.pace) };
        // One good answer is enough to be asked as often as before.
        seat.due = at + if seat.told && seat.good == 0 { seat.every * RARELY } else { every };
        seat.source = Some(source);
    }

    fn failed(&mut self, index: usize, why: String, at_once: bool) {
        let seat = &mut self.seats[index];
        (seat.misses, seat.good) = (seat.misses.saturating_add(1), 0);
        if !seat.told && (at_once || seat.misses >= MISSES) {
            seat.told = true;
            self.latest.notices.push(format!("{}: {why}", seat.name));
        }
    }

    /// One reading: a thermometer that is stuck is no longer believed, so that its last word ages; watts become joules.
    fn keep(&mut self, reading: Reading, at: Instant) {
        match &reading.what {
            What::Busy => self.watch.busy(reading.value, at),
            // What stands aside does not follow the processors' load.
            What::Temperature(name) if !reading.aside => {
                let verdict = self.watch.see(&reading.what, reading.value, at);
                let notices = &mut self.latest.notices;
                match verdict {
                    Verdict::StuckNow => {
                        let value = reading.value;
                        notices.push(format!("{name} has read {value:.1} °C for minutes while the load changed: it counts as stuck"));
                    }
                    Verdict::MovesAgain => notices.push(format!("{name} moves again")),
                    _ => (),
                }
                if matches!(verdict, Verdict::Stuck | Verdict::StuckNow) {
                    return;
                }
            }
            What::Power(place) => {
                let joules = self.joules.entry(place.clone()).or_default();
                let span = joules.last.map(|(watts, then)| (watts, at.saturating_duration_since(then)));
                if let Some((watts, span)) = span.filter(|(_, span)| *span <= POWER_GAP) {
                    joules.sum += 0.5 * (watts + reading.value) * span.as_secs_f64();
                }
                joules.last = Some((reading.value, at));
                let energy = Reading { what: What::Energy(place.clone()), value: joules.sum, ..reading.clone() };
                // A counter of the meter's own comes after its watts and takes this one's place.
                self.latest.readings.insert(energy.what.clone(), (energy, at));
            }
            _ => (),
        }
        self.latest.readings.insert(reading.what.clone(), (reading, at));
    }

    /// What was read before a sleep is of another time.
    fn wake(&mut self, slept: Duration) {
        self.latest.readings.clear();
        self.latest.slept = Some(slept);
        self.latest.notices.push(format!("the machine was asleep for {} s; its sensors are read anew", slept.as_secs()));
        self.joules.values_mut().for_each(|j| j.last = None);
        self.watch = Watch::default();
        let now = Instant::now();
        self.seats.iter_mut().for_each(|s| s.due = now);
    }
}

#[cfg(test)]
mod tests;
