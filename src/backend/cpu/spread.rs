//! Keeps the workers of a crew on cores of their own while there are enough. Beside a busy neighbour systems let two workers take turns on
//! one core for a tenth of a second and longer, while the neighbour has another by itself: to them two on one and one on the other is
//! even. A worker that finds another one where it is goes to a core that has none, and shares that with the neighbour.
//!
//! Each looks only when it lost its core, gave it away, slept, or begins: so where another one was is what that one last saw, and once in a
//! while a worker goes without need. That costs it a move; whoever moved says where to, so they don't chase each other.

use super::pool::Line;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where each worker was when it last looked.
pub struct Spread {
    at: Box<[Line<AtomicUsize>]>,
}

/// Of a worker that is in no step.
const NOWHERE: usize = usize::MAX;

impl Spread {
    pub fn new(workers: usize) -> Spread {
        Spread { at: (0..workers).map(|_| Line(AtomicUsize::new(NOWHERE))).collect() }
    }

    /// The calling thread, worker `worker`, holds no chunk. Whether it went to another core.
    pub fn settle(&self, worker: usize) -> bool {
        let here = sched_getcpu();
        self.at[worker].0.store(here, Relaxed);
        if !self.others(worker).any(|at| at == here) {
            return false;
        }
        let Ok(allowed) = sched_getaffinity(None) else { return false };
        let Some(free) = self.free(worker, here, &allowed) else { return false };
        // Which of them, the system knows best. Where it refuses, nothing has changed.
        if sched_setaffinity(None, &free).is_err() {
            return false;
        }
        self.at[worker].0.store(sched_getcpu(), Relaxed);
        give_back(&allowed);
        true
    }

    /// The worker is through with its step.
    pub fn leave(&self, worker: usize) {
        self.at[worker].0.store(NOWHERE, Relaxed);
    }

    /// Those of the allowed cores that have no worker of the crew; `None` where there are none.
    fn free(&self, worker: usize, here: usize, allowed: &CpuSet) -> Option<CpuSet> {
        let mut free = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|&cpu| cpu != here && allowed.is_set(cpu)).for_each(|cpu| free.set(cpu));
        self.others(worker).filter(|at| *at < CpuSet::MAX_CPU).for_each(|at| free.unset(at));
        (free.count() > 0).then_some(free)
    }

    fn others(&self, worker: usize) -> impl Iterator<Item = usize> {
        self.at.iter().enumerate().filter(move |(i, _)| *i != worker).map(|(_, at)| at.0.load(Relaxed))
    }
}

/// Lets the calling thread run where it might before. What its control group allows may grow later: only a thread that was held to fewer
/// cores than that is held to them again.
fn give_back(allowed: &CpuSet) {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    _ = sched_setaffinity(None, &all);
    if sched_getaffinity(None).is_ok_and(|now| now != *allowed) {
        // Refused where those have all gone since.
        _ = sched_setaffinity(None, allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores_of(set: &CpuSet) -> Vec<usize> {
        (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
    }

    fn set_of(cores: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cores.iter().for_each(|&cpu| set.set(cpu));
        set
    }

    #[test]
    fn free_are_the_allowed_cores_without_a_worker() {
        let spread = Spread::new(4);
        let places = [2, 1, NOWHERE, 2];
        spread.at.iter().zip(places).for_each(|(at, place)| at.0.store(place, Relaxed));
        let free = |allowed: &[usize]| spread.free(0, 2, &set_of(allowed)).map(|set| cores_of(&set));
        assert_eq!(free(&[0, 1, 2, 3, 6]), Some(vec![0, 3, 6]));
        assert_eq!(free(&[1, 2]), None, "as many workers as cores");
        assert_eq!(free(&[2]), None);
    }

    #[test]
    fn a_worker_leaves_the_core_of_another_and_may_then_run_where_it_might_before() {
        let before = sched_getaffinity(None).expect("this thread's cores");
        let spread = Spread::new(2);
        assert!(!spread.settle(1), "nobody else is there");
        for _ in 0..100 {
            // Wherever this thread runs, somebody says to be there too: on a machine of one core it has to stay.
            let other = sched_getcpu();
            spread.at[0].0.store(other, Relaxed);
            let went = spread.settle(1);
            let told = spread.at[1].0.load(Relaxed);
            // (Between two looks the system may have moved it by itself.)
            assert_eq!(went || told != other, before.count() > 1);
            assert!(!went || told != other, "it went where it was");
            assert_eq!(sched_getaffinity(None).expect("as before"), before);
        }
        spread.leave(0);
        assert!(!spread.settle(1));
    }

    #[test]
    fn a_thread_that_is_held_to_some_cores_stays_held_to_them() {
        let before = cores_of(&sched_getaffinity(None).expect("this thread's cores"));
        let held = set_of(&before[..1]);
        sched_setaffinity(None, &held).expect("cores of its own");
        give_back(&held);
        assert_eq!(sched_getaffinity(None).expect("one core"), held);
    }
}
