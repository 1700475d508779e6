//! How many workers a step gets: measured on the board, never assumed.
//!
//! One token is bound by memory, which fewer threads than cores often saturate (a Pi 5 reads 9.3, 13.2 and 11.6 GB/s with 1, 2 and 4);
//! the smallest count that is as fast as any costs the least power. A prompt is bound by arithmetic: all fast cores, and the slow
//! ones too where that was measured to help.
//!
//! Nothing is run for the measurement: the first steps of real work are done with one count after the other, so start-up does not wait
//! for it, an idle daemon stays idle, and what is measured is what will be run. It costs what the slower counts lose, at most
//! [`BUDGET`]. What was found is remembered per model and board ([`remembered`](super::remembered)). Steps that a neighbour disturbed
//! do not count.
//!
//! Who names a number (`-t`, `threads` in the configuration) gets it; a number from the governor goes before a measured one.

use std::time::Duration;

/// What slower counts may lose before the choice is made with what is known.
pub const BUDGET: Duration = Duration::from_millis(300);
/// A smaller count wins when it takes at most this much longer than the fastest: about what two runs of one count differ by.
const NEARLY: f64 = 1.03;
/// Counts that take this much longer in the first round are not tried again, and smaller ones not at all: far beyond what rounds differ by.
const HOPELESS: f64 = 1.2;
const ROUNDS: usize = 3;
/// The first steps find caches cold and pages unmapped.
const WARM_STEPS: usize = 2;
/// After so many disturbed steps nothing more is measured until the next start. A guess.
const DISTURBED_MAX: usize = 64;

/// The counts to choose from for single tokens, with `most` cores: all of them where they are few.
pub fn candidates(most: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = (1..=most).rev().filter(|n| *n == most || *n <= 4 || n.is_multiple_of(most.div_ceil(8))).collect();
    counts.dedup();
    counts
}

/// The choice for one kind of step.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Largest first. One left: chosen.
    candidates: Vec<Candidate>,
    round: usize,
    at: usize,
    warm: usize,
    disturbed: usize,
    lost: f64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    workers: usize,
    /// Seconds a row, the shortest step's.
    seconds: f64,
}

impl Choice {
    /// No choice.
    pub fn fixed(workers: usize) -> Choice {
        Choice::among(&[workers])
    }

    /// To be made among `workers`, largest first.
    ///
    /// # Panics
    /// When there are none.
    pub fn among(workers: &[usize]) -> Choice {
        assert!(!workers.is_empty(), "a count of workers");
        let candidates = workers.iter().map(|&workers| Candidate { workers, seconds: f64::MAX }).collect();
        Choice { candidates, round: 0, at: 0, warm: 0, disturbed: 0, lost: 0.0 }
    }

    /// Workers of the next step of this kind.
    pub fn workers(&self) -> usize {
        self.candidates[self.at].workers
    }

    /// The choice, once it is made.
    pub fn made(&self) -> Option<usize> {
        (self.candidates.len() == 1).then(|| self.candidates[0].workers)
    }

    /// A step of `rows` rows with `workers` took so long. `disturbed`: a worker lost its core in it. Whether the choice was made by this.
    pub fn took(&mut self, workers: usize, rows: usize, time: Duration, disturbed: bool) -> bool {
        if self.made().is_some() || workers != self.workers() {
            return false;
        }
        if self.warm < WARM_STEPS {
            self.warm += 1;
            return false;
        }
        if disturbed {
            self.disturbed += 1;
            if self.disturbed > DISTURBED_MAX {
                self.candidates.truncate(1);
                self.at = 0;
            }
            return false;
        }
        let best = self.best();
        let seconds = time.as_secs_f64() / rows.max(1) as f64;
        let candidate = &mut self.candidates[self.at];
        candidate.seconds = candidate.seconds.min(seconds);
        self.lost += (seconds - best).max(0.0) * rows as f64;
        if self.round == 0 && seconds > best * HOPELESS {
            self.candidates.truncate(self.at);
            self.at = self.candidates.len();
        } else {
            self.at += 1;
        }
        if self.at == self.candidates.len() {
            (self.at, self.round) = (0, self.round + 1);
        }
        if self.candidates.len() > 1 && (self.round == ROUNDS || self.lost > BUDGET.as_secs_f64()) {
            let enough = self.best() * NEARLY;
            let chosen = self.candidates.iter().rfind(|c| c.seconds <= enough).copied();
            self.candidates = chosen.into_iter().collect();
            self.at = 0;
        }
        self.made().is_some()
    }

    fn best(&self) -> f64 {
        self.candidates.iter().map(|c| c.seconds).fold(f64::MAX, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The choice among `candidates(most)` on a board whose steps take `seconds(workers)`, and how many steps it took.
    fn chosen(most: usize, seconds: impl Fn(usize) -> f64) -> (usize, usize) {
        let mut choice = Choice::among(&candidates(most));
        for step in 0..200 {
            let workers = choice.workers();
            // The first steps are slow whatever their count.
            let cold = if step == 0 { 5.0 } else { 1.0 };
            choice.took(workers, 1, Duration::from_secs_f64(seconds(workers) * cold), false);
            if let Some(workers) = choice.made() {
                return (workers, step + 1);
            }
        }
        panic!("never chosen: {choice:?}");
    }

    #[test]
    fn few_cores_are_all_tried_and_many_by_eighths() {
        assert_eq!(candidates(1), [1]);
        assert_eq!(candidates(4), [4, 3, 2, 1]);
        assert_eq!(candidates(6), [6, 5, 4, 3, 2, 1]);
        assert_eq!(candidates(24), [24, 21, 18, 15, 12, 9, 6, 4, 3, 2, 1]);
    }

    #[test]
    fn the_smallest_count_that_is_as_fast_as_any_is_chosen() {
        // A Pi 5 by its read bandwidth, 1B at 4 bits.
        let pi5 = |workers| 0.8 / [9.3, 13.2, 12.9, 11.6][workers - 1];
        assert_eq!(chosen(4, pi5).0, 2);
        assert_eq!(chosen(2, |workers| [0.050, 0.030][workers - 1]).0, 2);
        assert_eq!(chosen(4, |workers| 0.1 / workers as f64).0, 4);
        assert_eq!(chosen(4, |_| 0.001).0, 1);
    }

    #[test]
    fn a_count_that_is_far_behind_is_not_tried_twice() {
        let mut tried = [0; 5];
        let mut choice = Choice::among(&candidates(4));
        while choice.made().is_none() {
            let workers = choice.workers();
            tried[workers] += 1;
            choice.took(workers, 1, Duration::from_secs_f64([1.0, 1.0, 0.05, 0.010, 0.0101][workers]), false);
        }
        assert_eq!((tried[1], tried[2]), (0, 1));
        assert_eq!(choice.made(), Some(3));
    }

    #[test]
    fn the_loss_stays_within_the_budget() {
        // Half a second a step: a large model. One more step than the budget allows may be under way.
        let slow = |workers| [0.9, 0.55, 0.5, 0.56][workers - 1];
        let (workers, steps) = chosen(4, slow);
        assert_eq!(workers, 3);
        assert!(steps <= WARM_STEPS + 4 * 2, "{steps}");
    }

    #[test]
    fn disturbed_steps_do_not_count_and_do_not_go_on_for_ever() {
        let mut choice = Choice::among(&[2, 1]);
        for _ in 0..WARM_STEPS + DISTURBED_MAX {
            assert!(!choice.took(2, 1, Duration::from_millis(1), true));
            assert_eq!((choice.made(), choice.workers()), (None, 2));
        }
        assert!(!choice.took(2, 1, Duration::from_millis(1), true), "nothing was measured, nothing is to be remembered");
        assert_eq!(choice.made(), Some(2));
    }

    #[test]
    fn steps_of_another_count_are_not_mistaken_for_the_one_tried() {
        let mut choice = Choice::among(&[4, 2]);
        for _ in 0..20 {
            assert!(!choice.took(3, 1, Duration::from_millis(1), false));
        }
        assert_eq!(choice.workers(), 4);
    }
}
