//! The file's way into memory: a thread reads it in the file's own order, which is what cards and disks do best, while the first steps
//! already run through the layers in the same order. Where the file is in the page cache already it leaves the pages to the steps, which
//! need each once only and would lose the time; but if they are small ones, it [gathers](Gguf::gather) them into huge ones in the first
//! pause that the steps make.

use crate::backend::{LoadError, Progress};
use crate::gguf::Gguf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
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
    steps: AtomicU32,
}

impl Prefetch {
    /// Reads `file`. `progress` may refuse; it then hears that nothing is left to wait for.
    pub fn start(file: Arc<Gguf>, progress: &dyn Progress) -> Result<Prefetch, LoadError> {
        let total = file.bytes();
        if !progress.loaded(0, total) {
            return Err(LoadError::Cancelled);
        }
        file.check().map_err(|e| LoadError::File(e.to_string()))?;
        let state = Arc::new(State::default());
        let seen = state.clone();
        // Without a thread the steps fault their pages in: slower, not broken.
        let thread = std::thread::Builder::new().name("hearth-prefetch".to_owned()).spawn(move || seen.work(&file)).ok();
        let prefetch = Prefetch { state, thread };
        if progress.loaded(total, total) { Ok(prefetch) } else { Err(LoadError::Cancelled) }
    }

    /// A step begins.
    pub fn step(&self) {
        self.state.steps.fetch_add(1, Relaxed);
    }
}

impl State {
    /// A file that was cut short is found by `Gguf::check`, which each step asks; there is nothing more to do here then.
    fn work(&self, file: &Gguf) {
        if self.read(file).is_ok() {
            while self.pause() {
                let before = self.steps.load(Relaxed);
                let undisturbed = || !self.stop.load(Relaxed) && self.steps.load(Relaxed) == before;
                match file.gather(&undisturbed) {
                    Ok(false) if !undisturbed() => {}
                    _ => return,
                }
            }
        }
    }

    /// What is not in memory yet.
    fn read(&self, file: &Gguf) -> Result<(), crate::gguf::GgufError> {
        let mut at = 0;
        while at < file.bytes() && !self.stop.load(Relaxed) {
            let piece = at..at + AT_A_TIME;
            if !file.is_in_memory(piece.clone()) {
                file.prefetch(piece)?;
            }
            at += AT_A_TIME;
        }
        Ok(())
    }

    /// Waits for a time without steps; false if that is not to come.
    fn pause(&self) -> bool {
        loop {
            let before = self.steps.load(Relaxed);
            if self.stop.load(Relaxed) {
                return false;
            }
            std::thread::park_timeout(PAUSE);
            if self.steps.load(Relaxed) == before && !self.stop.load(Relaxed) {
                return true;
            }
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.state.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            _ = thread.join();
        }
    }
}
