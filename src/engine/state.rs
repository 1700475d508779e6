//! What the handle, the answers and the engine's thread share: a place count, a stop word, the heartbeat, and how to wake the thread.
//! All single words written by one side, so no lock is needed; the failure text is written once.

use super::{Refused, Sleeper};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const STOP: u8 = 2;

#[derive(Debug, Default)]
pub struct State {
    word: AtomicU8,
    inside: AtomicUsize,
    heartbeat: AtomicU64,
    failure: OnceLock<String>,
    thread: Sleeper,
}

impl State {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set_thread(&self, thread: std::thread::Thread) {
        // Set once, right after the thread was started.
        let _ = self.thread.set(thread);
        self.wake();
    }

    /// Parking remembers one wake-up, so none is lost between looking for work and falling asleep.
    pub fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub fn accepting(&self) -> Result<(), Refused> {
        match self.failure.get() {
            Some(reason) => Err(Refused::Failed(reason.clone())),
            None if self.word.load(SeqCst) != RUN => Err(Refused::Stopping),
            None => Ok(()),
        }
    }

    pub fn drain(&self) {
        self.word.fetch_max(DRAIN, SeqCst);
        self.wake();
    }

    pub fn stop(&self) {
        self.word.fetch_max(STOP, SeqCst);
        self.wake();
    }

    pub fn draining(&self) -> bool {
        self.word.load(SeqCst) >= DRAIN
    }

    pub fn stopping(&self) -> bool {
        self.word.load(SeqCst) >= STOP
    }

    pub fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
    }

    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub fn beat(&self) {
        self.heartbeat.fetch_add(1, SeqCst);
    }

    pub fn heartbeat(&self) -> u64 {
        self.heartbeat.load(SeqCst)
    }
}

/// One request's place among those that may be inside at once; given back when dropped, wherever that happens.
#[derive(Debug)]
pub struct Place(Arc<State>);

impl Place {
    pub fn take(state: &Arc<State>, most: usize) -> Result<Place, Refused> {
        let taken = state.inside.fetch_update(SeqCst, SeqCst, |n| (n < most).then_some(n + 1));
        taken.map(|_| Place(state.clone())).map_err(|inside| Refused::Busy { inside })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
    }
}
