//! Keeps the workers of a crew on cores of their own while there are enough. Beside a busy neighbour systems let two workers take turns on
//! one core for a tenth of a second and longer, while the neighbour has another by itself: to them two on one and one on the other is
//! even. A worker that finds another one where it is goes to a core that has none, and shares that with the neighbour.

use super::pool::Line;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where each worker was when it last looked.
pub struct Spread {
    at: Box<[Line<AtomicUsize>]>,
}

/// Not in a step.
const NOWHERE: usize = usize::MAX;

impl Spread {
    pub fn new(workers: usize) -> Spread {
        Spread { at: (0..workers).map(|_| Line(AtomicUsize::new(NOWHERE))).collect() }
    }

    /// The calling thread, worker `worker`, holds no chunk. Whether it went to another core; it may still go wherever it might before.
    pub fn settle(&self, worker: usize) -> bool {
        let here = sched_getcpu();
        self.at[worker].0.store(here, Relaxed);
        if !self.others(worker).any(|at| at == here) {
            return false;
        }
        let Ok(allowed) = sched_getaffinity(None) else { return false };
        let free = |cpu: &usize| allowed.is_set(*cpu) && !self.others(worker).any(|at| at == *cpu);
        let Some(free) = (0..CpuSet::MAX_CPU).filter(|&cpu| cpu != here).find(free) else { return false };
        let mut there = CpuSet::new();
        there.set(free);
        // Where the system refuses, nothing has changed.
        let went = sched_setaffinity(None, &there).is_ok();
        if went {
            self.at[worker].0.store(free, Relaxed);
            _ = sched_setaffinity(None, &allowed);
        }
        went
    }

    /// The worker is through with its step.
    pub fn leave(&self, worker: usize) {
        self.at[worker].0.store(NOWHERE, Relaxed);
    }

    fn others(&self, worker: usize) -> impl Iterator<Item = usize> {
        self.at.iter().enumerate().filter(move |(i, _)| *i != worker).map(|(_, at)| at.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_leaves_the_core_of_another_for_a_free_one_and_keeps_its_freedom() {
        let Ok(allowed) = sched_getaffinity(None) else { panic!("this thread's cores are not told") };
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let spread = Spread::new(2);
        assert!(!spread.settle(1), "nobody else is there");
        // Wherever this thread runs, somebody says to be there too: on a machine of one core it has to stay.
        for _ in 0..100 {
            spread.at[0].0.store(sched_getcpu(), Relaxed);
            let other = spread.at[0].0.load(Relaxed);
            let went = spread.settle(1);
            let here = spread.at[1].0.load(Relaxed);
            // (Between two looks the system may have moved it by itself.)
            assert_eq!(went || here != other, cores.len() > 1);
            assert!(cores.contains(&here));
            assert_eq!(sched_getaffinity(None).expect("as before"), allowed);
        }
        spread.leave(0);
        assert!(!spread.settle(1));
    }
}
