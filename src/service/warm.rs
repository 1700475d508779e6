//! A model's file, brought into memory before anybody asks: in the file's own order, which is what cards and disks do best, and told of
//! as it goes. A daemon that starts cold would otherwise read the whole file inside its first step, seconds to minutes in which nobody
//! knows how far it is. What is in memory already costs next to nothing.

use super::open::OpenError;
use crate::backend::{LoadError, Progress};
use crate::gguf::Gguf;

/// Bytes waited for at a time: large enough for a disk's full speed, small enough to tell of and to be given up soon.
const AT_A_TIME: u64 = 8 << 20;

/// Reads `file` from its beginning, as much of it as `room` bytes hold: of a file larger than memory the first pages would be gone again
/// before the last had come, so it is read as it is needed. Returns whether all of it is there.
pub fn warm(file: &Gguf, room: u64, progress: &dyn Progress) -> Result<bool, OpenError> {
    let total = file.bytes();
    if total > room {
        return Ok(false);
    }
    let mut at = 0;
    while at < total {
        if !progress.loaded(at, total) {
            return Err(OpenError::Load { path: file.path().display().to_string(), source: LoadError::Cancelled });
        }
        let end = (at + AT_A_TIME).min(total);
        file.prefetch(at..end)?;
        at = end;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tiny::Tiny;
    use std::sync::Mutex;

    /// Remembers what it was told; gives up at the n-th time.
    struct Heard(Mutex<Vec<(u64, u64)>>, usize);

    impl Progress for Heard {
        fn loaded(&self, done: u64, total: u64) -> bool {
            let mut heard = self.0.lock().unwrap();
            heard.push((done, total));
            heard.len() < self.1
        }
    }

    /// A model with a hole behind its last tensor, which takes no room on the disk.
    fn large() -> (Tiny, Gguf) {
        let tiny = Tiny::llama();
        std::fs::OpenOptions::new().write(true).open(tiny.file().path()).unwrap().set_len(3 * AT_A_TIME + 5).unwrap();
        let file = tiny.file();
        (tiny, file)
    }

    #[test]
    fn progress_rises_piece_by_piece() {
        let (_tiny, file) = large();
        let heard = Heard(Mutex::default(), usize::MAX);
        assert!(warm(&file, u64::MAX, &heard).unwrap());
        let total = file.bytes();
        assert_eq!(*heard.0.lock().unwrap(), [(0, total), (AT_A_TIME, total), (2 * AT_A_TIME, total), (3 * AT_A_TIME, total)]);
    }

    #[test]
    fn it_is_given_up_between_two_pieces() {
        let (_tiny, file) = large();
        let heard = Heard(Mutex::default(), 2);
        assert!(matches!(warm(&file, u64::MAX, &heard), Err(OpenError::Load { source: LoadError::Cancelled, .. })));
        assert_eq!(heard.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_file_larger_than_memory_is_left_where_it_is() {
        let (_tiny, file) = large();
        let heard = Heard(Mutex::default(), usize::MAX);
        assert!(!warm(&file, file.bytes() - 1, &heard).unwrap());
        assert!(heard.0.lock().unwrap().is_empty());
    }
}
