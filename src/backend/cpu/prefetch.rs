//! The file's way into memory: a thread reads ahead in the file's own order, which is what cards and disks do best, while the first
//! steps already run through the layers in the same order. It maps no page: where the file is in the page cache already, that would take
//! time from the steps, which need it once only.

use crate::backend::{LoadError, Progress};
use crate::gguf::Gguf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Bytes asked for at a time: large enough for a disk's full speed, small enough to stop soon.
const AT_A_TIME: u64 = 8 << 20;

/// The reading thread; dropping it ends the thread.
pub struct Prefetch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Reads `file` ahead. `progress` may refuse; it then hears that nothing is left to wait for.
    pub fn start(file: Arc<Gguf>, progress: &dyn Progress) -> Result<Prefetch, LoadError> {
        let total = file.bytes();
        if !progress.loaded(0, total) {
            return Err(LoadError::Cancelled);
        }
        file.check().map_err(|e| LoadError::File(e.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let read = move || {
            let mut at = 0;
            while at < total && !seen.load(Relaxed) {
                let end = (at + AT_A_TIME).min(total);
                // A file that was cut short is found by `Gguf::check`, which each step asks; there is nothing to do here.
                if file.read_ahead(at..end).is_err() {
                    return;
                }
                at = end;
            }
        };
        // Without a thread the steps fault their pages in: slower, not broken.
        let thread = std::thread::Builder::new().name("hearth-prefetch".to_owned()).spawn(read).ok();
        let prefetch = Prefetch { stop, thread };
        if progress.loaded(total, total) { Ok(prefetch) } else { Err(LoadError::Cancelled) }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
