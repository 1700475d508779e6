//! Where the workers of a crew are: each on a core of its own, while there are enough. Beside a busy neighbour systems don't see to that,
//! and a crew meets some hundred times a token, so what one worker has to wait for, all wait for.
//!
//! - The core is taken from a worker in the middle of a chunk, for some milliseconds, and soon another one waits for nothing but that chunk,
//!   on a core that it doesn't need meanwhile: [`change_with_late`](Spread::change_with_late). So the crew always computes wherever it has
//!   a core, and the neighbour keeps just the share of one core that the system gives it.
//! - Two workers take turns on one core, for a tenth of a second and longer, while the neighbour has another by itself: to systems two on
//!   one and one on the other is even. A worker that finds another one where it is goes to a core that has none: [`settle`](Spread::settle).
//! - There are more workers than cores. One that finds no core without a worker sits the step out: [`enter`](Spread::enter).
//!
//! Where a worker is, is what it last saw itself: it looks when it begins, slept, or lost its core. So once in a while somebody moves
//! without need, which costs some ten microseconds; whoever moves a thread says where to, so they don't chase each other.

use super::pool::Line;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering::*};

/// Where each worker of a crew is.
pub struct Spread {
    places: Box<[Line<Place>]>,
    /// Somebody moves threads: no other one does meanwhile, since a thread that is being moved is held to one core for a moment, and
    /// would be left so.
    moving: AtomicBool,
}

/// What is known of one worker. All of it says where to look, not what may be touched: hence no order among the four.
struct Place {
    /// Its core when it last looked; [`NONE`] while it is in no step.
    core: AtomicUsize,
    /// The system's number of its thread.
    thread: AtomicI32,
    /// The phase that it claims chunks of; [`NONE`] when it has no more of any.
    phase: AtomicUsize,
    /// How often it was lent a core in this phase.
    lent: AtomicU32,
}

const NONE: usize = usize::MAX;

impl Spread {
    pub fn new(workers: usize) -> Spread {
        let place =
            || Place { core: AtomicUsize::new(NONE), thread: AtomicI32::new(0), phase: AtomicUsize::new(NONE), lent: AtomicU32::new(0) };
        Spread { places: (0..workers).map(|_| Line(place())).collect(), moving: AtomicBool::new(false) }
    }

    /// The calling thread is worker `worker` of a step. Whether there is a core for it: where each one that it may use has a worker,
    /// two would only take turns.
    pub fn enter(&self, worker: usize) -> bool {
        let place = &self.places[worker].0;
        place.thread.store(gettid().as_raw_nonzero().get(), Relaxed);
        let here = sched_getcpu();
        let went = if self.is_taken(worker, here) { self.go_to_a_free_core(worker, here) } else { None };
        if went.is_none() {
            place.core.store(here, Relaxed);
        }
        went != Some(false)
    }

    /// The calling thread, worker `worker`, holds no chunk. Whether it went to another core.
    pub fn settle(&self, worker: usize) -> bool {
        let here = sched_getcpu();
        self.places[worker].0.core.store(here, Relaxed);
        self.is_taken(worker, here) && self.go_to_a_free_core(worker, here) == Some(true)
    }

    /// Worker `worker` is through with its step.
    pub fn leave(&self, worker: usize) {
        self.places[worker].0.core.store(NONE, Relaxed);
    }

    /// Worker `worker` begins to claim chunks of `phase`.
    pub fn begin(&self, worker: usize, phase: usize) {
        let place = &self.places[worker].0;
        place.lent.store(0, Relaxed);
        place.phase.store(phase, Relaxed);
    }

    /// Worker `worker` has nothing left to do in its phase.
    pub fn end(&self, worker: usize) {
        self.places[worker].0.phase.store(NONE, Relaxed);
    }

    /// The calling thread, worker `worker`, waits for `phase` longer than a chunk takes: it gives its core to one that is not through with
    /// it, and queues up where that one was. For the `time`th time: nobody is lent a core more often than anybody waited so long, however
    /// many wait.
    pub fn change_with_late(&self, worker: usize, phase: usize, time: u32) {
        let late = |place: &Place| place.phase.load(Relaxed) == phase && place.lent.load(Relaxed) < time;
        self.alone(|| self.fetch(worker, late).map(|its| self.go(worker, |core| core == its)));
    }

    /// The calling thread, worker `worker`, waits for the others to leave the step: one that has not gets this core.
    pub fn fetch_late(&self, worker: usize) {
        self.alone(|| self.fetch(worker, |_| true));
    }

    /// Brings another worker, one that is in the step and `late`, to this core: of several the one that was lent the fewest. Returns where it
    /// was when it last looked.
    fn fetch(&self, worker: usize, late: impl Fn(&Place) -> bool) -> Option<usize> {
        let here = sched_getcpu();
        // One that was here when it last looked may be elsewhere by now.
        let late = self.but(worker).filter(|place| place.core.load(Relaxed) != NONE && late(place)).filter_map(|place| {
            let thread = Pid::from_raw(place.thread.load(Relaxed))?;
            let allowed = sched_getaffinity(Some(thread)).ok()?;
            (here < CpuSet::MAX_CPU && allowed.is_set(here)).then_some((place, thread, allowed))
        });
        let (place, thread, allowed) = late.min_by_key(|(place, ..)| place.lent.load(Relaxed))?;
        place.lent.fetch_add(1, Relaxed);
        // Said before it is done: what that worker says itself, once it is here, is newer.
        let its = place.core.load(Relaxed);
        place.core.compare_exchange(its, here, Relaxed, Relaxed).ok()?;
        let mut this = CpuSet::new();
        this.set(here);
        if its == NONE || sched_setaffinity(Some(thread), &this).is_err() {
            _ = place.core.compare_exchange(here, its, Relaxed, Relaxed);
            return None;
        }
        give_back(Some(thread), &allowed);
        Some(its)
    }

    /// Whether there was one; `None` where somebody else moves threads, or the system refuses.
    fn go_to_a_free_core(&self, worker: usize, here: usize) -> Option<bool> {
        self.alone(|| self.go(worker, |core| core != here && !self.is_taken(worker, core)))?
    }

    /// Brings the calling thread to one of the cores that it may use and that are `wanted`: which, the system knows best. Whether there
    /// was one; `None` where the system refuses.
    fn go(&self, worker: usize, wanted: impl Fn(usize) -> bool) -> Option<bool> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core) && wanted(core)).for_each(|core| cores.set(core));
        if cores.count() == 0 {
            return Some(false);
        }
        sched_setaffinity(None, &cores).ok()?;
        self.places[worker].0.core.store(sched_getcpu(), Relaxed);
        give_back(None, &allowed);
        Some(true)
    }

    /// Whether another worker than `worker` is on `core`.
    fn is_taken(&self, worker: usize, core: usize) -> bool {
        self.but(worker).any(|place| place.core.load(Relaxed) == core)
    }

    #[cfg(test)]
    pub fn lent(&self, worker: usize) -> u32 {
        self.places[worker].0.lent.load(Relaxed)
    }

    /// All places but `worker`'s.
    fn but(&self, worker: usize) -> impl Iterator<Item = &Place> {
        self.places.iter().enumerate().filter(move |(other, _)| *other != worker).map(|(_, place)| &place.0)
    }

    /// Does `work`, unless somebody moves threads already.
    fn alone<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        if self.moving.swap(true, Acquire) {
            return None;
        }
        let done = work();
        self.moving.store(false, Release);
        Some(done)
    }
}

/// Lets a thread (without one, the calling) run where it might before. What its control group allows may grow later: only a thread that was
/// held to fewer cores than that is held to them again.
fn give_back(thread: Option<Pid>, allowed: &CpuSet) {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
    _ = sched_setaffinity(thread, &all);
    if sched_getaffinity(thread).is_ok_and(|now| now != *allowed) {
        // Refused where those have all gone since.
        _ = sched_setaffinity(thread, allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn this_threads_cores() -> CpuSet {
        sched_getaffinity(None).expect("this thread's cores")
    }

    fn cores_of(set: &CpuSet) -> Vec<usize> {
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    }

    fn set_of(cores: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cores.iter().for_each(|&core| set.set(core));
        set
    }

    fn put(spread: &Spread, worker: usize, core: usize) {
        spread.places[worker].0.core.store(core, Relaxed);
    }

    fn told(spread: &Spread, worker: usize) -> usize {
        spread.places[worker].0.core.load(Relaxed)
    }

    #[test]
    fn a_worker_leaves_the_core_of_another_and_may_then_run_where_it_might_before() {
        let before = this_threads_cores();
        let spread = Spread::new(2);
        assert!(!spread.settle(1), "nobody else is there");
        for _ in 0..100 {
            // Wherever this thread runs, somebody says to be there too: on a machine of one core it has to stay.
            let other = sched_getcpu();
            put(&spread, 0, other);
            let went = spread.settle(1);
            // (Between two looks the system may have moved it by itself.)
            assert_eq!(went || told(&spread, 1) != other, before.count() > 1);
            assert!(!went || told(&spread, 1) != other, "it went where it was");
            assert_eq!(this_threads_cores(), before);
        }
        spread.leave(0);
        assert!(!spread.settle(1));
    }

    #[test]
    fn who_finds_a_worker_on_every_core_sits_the_step_out() {
        let cores = cores_of(&this_threads_cores());
        let spread = Spread::new(cores.len() + 1);
        let late = cores.len();
        cores.iter().enumerate().for_each(|(worker, &core)| put(&spread, worker, core));
        assert!(!spread.enter(late));
        assert_eq!(told(&spread, late), NONE);
        spread.leave(0);
        assert!(spread.enter(late), "one core is free again");
        assert_eq!(told(&spread, late), cores[0]);
    }

    #[test]
    fn a_waiting_worker_and_a_late_one_change_cores() {
        let before = this_threads_cores();
        let cores = cores_of(&before);
        let &[first, second, ..] = &cores[..] else { return };
        let spread = Spread::new(2);
        let ((begun, begins), (end, ends)) = (channel(), channel::<()>());
        std::thread::scope(|s| {
            let spread = &spread;
            s.spawn(move || {
                spread.enter(1);
                spread.begin(1, 7);
                put(spread, 1, second);
                begun.send(()).expect("who waits is there");
                _ = ends.recv();
                assert_eq!(this_threads_cores(), before, "the late one may run anywhere again");
            });
            // Ends with this thread, however that ends.
            let end = end;
            begins.recv().expect("who is late is there");
            // Held to one core, so that the system moves nobody meanwhile.
            sched_setaffinity(None, &set_of(&[first])).expect("a core of its own");
            spread.change_with_late(0, 6, 1);
            assert_eq!(told(spread, 1), second, "that phase nobody is late in");
            spread.change_with_late(0, 7, 1);
            assert_eq!((told(spread, 1), told(spread, 0)), (first, NONE), "who may not leave its core still gives it");
            put(spread, 1, second);
            spread.change_with_late(0, 7, 1);
            assert_eq!(told(spread, 1), second, "nobody has waited for it twice as long");
            sched_setaffinity(None, &before).expect("as before");
            for time in 2..100 {
                let here = sched_getcpu();
                let other = if here == first { second } else { first };
                put(spread, 1, other);
                spread.change_with_late(0, 7, time);
                // (Between two looks the system may have moved this thread by itself.)
                assert!(told(spread, 0) == other || told(spread, 1) != here);
                assert_eq!(this_threads_cores(), before, "the waiting one may run anywhere again");
            }
            end.send(()).expect("it waits for this");
        });
    }

    #[test]
    fn a_thread_that_is_held_to_some_cores_stays_held_to_them() {
        let before = cores_of(&this_threads_cores());
        let held = set_of(&before[..1]);
        sched_setaffinity(None, &held).expect("cores of its own");
        give_back(None, &held);
        assert_eq!(this_threads_cores(), held);
    }
}
