//! One root for every `/sys`, `/proc` and `/dev` path, and small files read with a reason when they cannot be.

use super::tree::{Tree, TreeError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files longer than this are no sensors.
const BYTES_MAX: u64 = 64 << 10;
/// Most are read at once with room for so much.
const BYTES_USUAL: usize = 2 << 10;

/// Where the tree of the board stands: `/`, or a captured one.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
    /// A captured tree that came as one file was unpacked for this root and goes with its last clone.
    _unpacked: Option<Arc<Unpacked>>,
}

/// A folder of ours among the system's temporary ones.
#[derive(Debug)]
struct Unpacked(PathBuf);

impl Drop for Unpacked {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure; what stays is small and temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Why a value is not there.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    #[error("{path}: not there")]
    Absent { path: PathBuf },
    #[error("{path}: no permission to read it; root has it, or a udev rule may give it to a group")]
    Denied { path: PathBuf },
    #[error("{path}: not ready ({reason})")]
    NotReady { path: PathBuf, reason: std::io::Error },
    #[error("{path}: `{text}` is no reading")]
    Nonsense { path: PathBuf, text: String },
    #[error("{library} does not answer: {reason}")]
    Library { library: String, reason: String },
    #[error("the firmware did not answer `{command}`: {reason}")]
    Firmware { command: String, reason: std::io::Error },
}

impl Root {
    /// A folder; nothing is looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root { path: path.into(), _unpacked: None }
    }

    /// A folder, or a captured tree in one file, which is unpacked.
    pub fn open(path: &Path) -> Result<Root, TreeError> {
        let facts = std::fs::metadata(path).map_err(|source| TreeError::File { path: path.to_owned(), source })?;
        if facts.is_dir() {
            return Ok(Root::new(path));
        }
        let tree = Tree::load(path)?;
        let folder = fresh_folder().map_err(|source| TreeError::File { path: std::env::temp_dir(), source })?;
        let unpacked = Unpacked(folder.clone());
        tree.unpack(&folder)?;
        Ok(Root { path: folder, _unpacked: Some(Arc::new(unpacked)) })
    }

    /// The machine itself.
    pub fn machine() -> Root {
        Root::new("/")
    }

    pub fn is_machine(&self) -> bool {
        self.path == Path::new("/")
    }

    /// A path below the root; `path` without a leading slash.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
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

/// A new folder that only we may enter, among the system's temporary ones.
fn fresh_folder() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let mut last = std::io::ErrorKind::AlreadyExists.into();
    for n in 0..100 {
        let path = std::env::temp_dir().join(format!("hearth-tree-{}-{n}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Miss {
    /// Why a file could not be read. `EAGAIN`, `ENODATA`, `EIO`, `ENODEV` and their like mean that its hardware is off or asleep.
    pub fn of(path: &Path, reason: std::io::Error) -> Miss {
        let path = path.to_owned();
        match reason.kind() {
            std::io::ErrorKind::NotFound => Miss::Absent { path },
            std::io::ErrorKind::PermissionDenied => Miss::Denied { path },
            _ => Miss::NotReady { path, reason },
        }
    }
}

/// The text of a small file at a full path.
pub fn text(path: &Path) -> Result<String, Miss> {
    let miss = |reason| Miss::of(path, reason);
    let file = std::fs::File::open(path).map_err(miss)?;
    let mut bytes = Vec::with_capacity(BYTES_USUAL);
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
    fn what_the_kernel_answers_for_parts_that_are_off_is_not_ready() {
        for code in [libc::EAGAIN, libc::ENODATA, libc::EIO, libc::ENODEV, libc::EINVAL, libc::ETIMEDOUT] {
            assert!(matches!(Miss::of(Path::new("temp"), std::io::Error::from_raw_os_error(code)), Miss::NotReady { .. }), "{code}");
        }
        for code in [libc::EACCES, libc::EPERM] {
            assert!(matches!(Miss::of(Path::new("temp"), std::io::Error::from_raw_os_error(code)), Miss::Denied { .. }));
        }
        // Reading this process's memory at 0 is EIO, a folder is EISDIR: real answers of this kernel.
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/self/mem", dir.path().join("eio")).unwrap();
        for name in ["eio", "."] {
            assert!(matches!(number(&dir.path().join(name)), Err(Miss::NotReady { .. })), "{name}");
        }
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
