//! The file's way into memory: a thread reads it in the file's own order, which is what cards and disks do best, while the first steps
//! already run through the layers in the same order. If it came to lie in small pages, which is so where the page cache had it already, it
//! is [gathered](Gguf::gather) into huge ones in the first pause that the steps make.

use crate::backend::{LoadError, Progress, memory};
use crate::gguf::Gguf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes asked for at a time: large enough for a disk's full speed, small enough to stop soon.
const AT_A_TIME: u64 = 8 << 20;
/// Without a step for so long, nobody is being answered.
const PAUSE: Duration = Duration::from_secs(1);

/// The reading thread; dropping it ends the thread.
pub struct Prefetch {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    /// Counts beginnings and ends of steps: odd while one runs.
    steps: AtomicU32,
}

/// A step is running.
pub struct Busy(Arc<State>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.steps.fetch_add(1, SeqCst);
    }
}

impl Prefetch {
    /// Reads `file`. `progress` may refuse; it then hears that nothing is left to wait for.
    pub fn start(file: Arc<Gguf>, progress: &dyn Progress) -> Result<Prefetch, LoadError> {
        let total = file.bytes();
        if !progress.loaded(0, total) {
            return Err(LoadError::Cancelled);
        }
        file.check()?;
        let state = Arc::new(State::default());
        let seen = state.clone();
        let spawn = |file: Arc<Gguf>| std::thread::Builder::new().name("hearth-prefetch".to_owned()).spawn(move || seen.work(&file)).ok();
        // Without a thread the steps fault their pages in: slower, not broken. What memory has no room for is best read so too: its first
        // pages would be gone again before the last had come.
        let thread = if memory::holds(file.bytes()) { spawn(file) } else { None };
        let prefetch = Prefetch { state, thread };
        if progress.loaded(total, total) { Ok(prefetch) } else { Err(LoadError::Cancelled) }
    }

    /// A step runs until the answer is dropped.
    pub fn step(&self) -> Busy {
        self.state.steps.fetch_add(1, SeqCst);
        Busy(self.state.clone())
    }
}

impl State {
    /// A file that was cut short is found by `Gguf::check`, which each step asks; there is nothing more to do here then.
    fn work(&self, file: &Gguf) {
        if self.read(file).is_err() {
            return;
        }
        file.let_go_of_metadata();
        while let Some(seen) = self.pause(PAUSE) {
            let undisturbed = || !self.stop.load(SeqCst) && self.steps.load(SeqCst) == seen;
            match file.gather(&undisturbed) {
                Ok(false) if !undisturbed() => {}
                _ => return,
            }
        }
    }

    /// All of it, in order.
    fn read(&self, file: &Gguf) -> Result<(), crate::gguf::GgufError> {
        let mut at = 0;
        while at < file.bytes() && !self.stop.load(SeqCst) {
            file.prefetch(at..at + AT_A_TIME)?;
            at += AT_A_TIME;
        }
        Ok(())
    }

    /// Waits until no step ran for `long`, and answers the count of steps then; `None` if that is not to come.
    fn pause(&self, long: Duration) -> Option<u32> {
        loop {
            let seen = self.steps.load(SeqCst);
            if self.stop.load(SeqCst) {
                return None;
            }
            std::thread::park_timeout(long);
            let is_resting = seen.is_multiple_of(2) && self.steps.load(SeqCst) == seen;
            if is_resting && !self.stop.load(SeqCst) {
                return Some(seen);
            }
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_none_while_a_step_runs_and_none_comes_after_the_end() {
        let state = Arc::new(State::default());
        assert_eq!(state.pause(Duration::ZERO), Some(0));
        let prefetch = Prefetch { state: state.clone(), thread: None };
        for step in 0..50 {
            let running = prefetch.step();
            let other = state.clone();
            let (begun, begin) = std::sync::mpsc::channel();
            let waiting = std::thread::spawn(move || {
                begun.send(()).unwrap();
                other.pause(Duration::from_micros(10))
            });
            begin.recv().unwrap();
            std::thread::yield_now();
            drop(running);
            // An odd count would be a pause in the middle of the step.
            assert_eq!(waiting.join().unwrap(), Some(2 * step + 2));
        }
        drop(prefetch);
        assert_eq!(state.pause(Duration::ZERO), None);
    }
}
