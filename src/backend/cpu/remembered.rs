//! What was measured on this board for a model, kept in the cache folder so that the next start need not measure again:
//! `threads.toml`, a table a model and board. A file that can't be read or written is no error: it is measured again.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "threads.toml";
/// Models kept; the oldest go first.
const ENTRIES_MAX: usize = 32;
/// A longer file is not ours.
const FILE_BYTES_MAX: u64 = 1 << 16;
const HEAD: &str = "# Threads as measured on this board, by model. Removing the file has them measured again.\n\n";

/// Numbers of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// For single tokens.
    pub decode: usize,
    /// For prompts.
    pub prefill: usize,
}

/// Where the numbers of one model on one board are kept.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    board: String,
    model: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    board: String,
    model: String,
    #[serde(flatten)]
    threads: Threads,
}

#[derive(Default, Serialize, Deserialize)]
struct Entries {
    #[serde(default)]
    measured: Vec<Entry>,
}

impl Place {
    pub fn new(folder: &Path, board: String, model: String) -> Place {
        Place { folder: folder.to_owned(), board, model }
    }

    pub fn read(&self) -> Option<Threads> {
        let entries = self.entries();
        entries.measured.iter().rfind(|e| self.is_ours(e)).map(|e| e.threads)
    }

    /// Replaces the file in one go, so that a reader finds the old one or the new one.
    pub fn write(&self, threads: Threads) -> std::io::Result<()> {
        let mut entries = self.entries();
        entries.measured.retain(|e| !self.is_ours(e));
        entries.measured.push(Entry { board: self.board.clone(), model: self.model.clone(), threads });
        let surplus = entries.measured.len().saturating_sub(ENTRIES_MAX);
        entries.measured.drain(..surplus);
        let text = toml::to_string(&entries).map_err(std::io::Error::other)?;
        fs::create_dir_all(&self.folder)?;
        let (path, new) = (self.folder.join(FILE), self.folder.join(format!(".{FILE}.{}", std::process::id())));
        fs::write(&new, HEAD.to_owned() + &text)?;
        fs::rename(&new, &path)
    }

    fn is_ours(&self, entry: &Entry) -> bool {
        entry.board == self.board && entry.model == self.model
    }

    fn entries(&self) -> Entries {
        let path = self.folder.join(FILE);
        let short = fs::metadata(&path).is_ok_and(|about| about.is_file() && about.len() <= FILE_BYTES_MAX);
        let text = short.then(|| fs::read_to_string(&path).ok()).flatten();
        text.and_then(|text| toml::from_str(&text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path, model: &str) -> Place {
        Place::new(folder, "Board \"X\", 4 cores".into(), model.into())
    }

    #[test]
    fn what_was_written_is_read_by_the_same_model_on_the_same_board_only() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("not/there/yet");
        let (a, b) = (place(&inside, "a.gguf, 1 byte"), place(&inside, "b"));
        assert_eq!(a.read(), None);
        a.write(Threads { decode: 3, prefill: 4 }).unwrap();
        b.write(Threads { decode: 1, prefill: 2 }).unwrap();
        a.write(Threads { decode: 2, prefill: 4 }).unwrap();
        assert_eq!(a.read(), Some(Threads { decode: 2, prefill: 4 }));
        assert_eq!(b.read(), Some(Threads { decode: 1, prefill: 2 }));
        let elsewhere = Place::new(&inside, "Board Y".into(), "b".into());
        assert_eq!(elsewhere.read(), None);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), 1, "no half-written file stays");
    }

    #[test]
    fn a_spoiled_file_is_measured_over() {
        let folder = tempfile::tempdir().unwrap();
        let spoiled = ["\u{0}", "measured = 3", "[[measured]]\nboard = 1", &"#".repeat(FILE_BYTES_MAX as usize + 1)];
        for text in spoiled {
            fs::write(folder.path().join(FILE), text).unwrap();
            let place = place(folder.path(), "m");
            assert_eq!(place.read(), None);
            place.write(Threads { decode: 1, prefill: 1 }).unwrap();
            assert!(place.read().is_some());
        }
    }

    #[test]
    fn the_oldest_models_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..ENTRIES_MAX + 3 {
            place(folder.path(), &i.to_string()).write(Threads { decode: i, prefill: i }).unwrap();
        }
        assert_eq!(place(folder.path(), "2").read(), None);
        assert!(place(folder.path(), "3").read().is_some());
    }
}
