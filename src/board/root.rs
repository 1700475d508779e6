//! One root for every `/sys`, `/proc` and `/dev` path, and small files read with a reason when they cannot be.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Files longer than this are no sensors.
const BYTES_MAX: u64 = 64 << 10;

/// Where the tree of the board stands: `/`, or a captured one.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// Why a value is not there.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    #[error("{path}: not there")]
    Absent { path: PathBuf },
    #[error("{path}: no permission; see systemd/README for the rule that gives it")]
    Denied { path: PathBuf },
    #[error("{path}: not ready ({reason})")]
    NotReady { path: PathBuf, reason: std::io::Error },
    #[error("{path}: `{text}` is no reading")]
    Nonsense { path: PathBuf, text: String },
    #[error("the firmware did not answer `{command}`: {reason}")]
    Firmware { command: String, reason: std::io::Error },
}

impl Root {
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// The machine itself.
    pub fn machine() -> Root {
        Root::new("/")
    }

    pub fn is_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// A path below the root; `path` without a leading slash.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// The text of a small file, without its last newline and NULs.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<String, Miss> {
        text(&self.at(path))
    }

    /// Folders of `dir` whose name begins with `prefix` and a digit, in the order of their numbers.
    pub fn numbered(&self, dir: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.at(dir)) else { return Vec::new() };
        let mut found: Vec<(u32, PathBuf)> = entries
            .filter_map(|e| {
                let e = e.ok()?;
                let number = e.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((number, e.path()))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
    }
}

/// The text of a small file at a full path.
pub fn text(path: &Path) -> Result<String, Miss> {
    let miss = |reason: std::io::Error| {
        let path = path.to_owned();
        match reason.kind() {
            std::io::ErrorKind::NotFound => Miss::Absent { path },
            std::io::ErrorKind::PermissionDenied => Miss::Denied { path },
            _ => Miss::NotReady { path, reason },
        }
    };
    let file = std::fs::File::open(path).map_err(miss)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(miss)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\0', '\n', ' ']).to_owned())
}

/// A whole number in a file.
pub fn number(path: &Path) -> Result<i64, Miss> {
    let text = text(path)?;
    text.trim().parse().map_err(|_| Miss::Nonsense { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_an_empty_and_a_foreign_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        std::fs::write(dir.path().join("word"), "hot\n").unwrap();
        assert!(matches!(number(&dir.path().join("none")), Err(Miss::Absent { .. })));
        assert!(matches!(number(&dir.path().join("empty")), Err(Miss::Nonsense { .. })));
        let told = number(&dir.path().join("word")).unwrap_err().to_string();
        assert!(told.ends_with("word: `hot` is no reading"), "{told}");
    }

    #[test]
    fn numbered_folders_come_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        for n in ["zone10", "zone2", "zonex", "other1"] {
            std::fs::create_dir(dir.path().join(n)).unwrap();
        }
        let found = Root::new(dir.path()).numbered("", "zone");
        assert_eq!(found.len(), 2);
        assert!(found[0].ends_with("zone2"));
    }
}
