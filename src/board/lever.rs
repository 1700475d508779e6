//! The clock cap: `scaling_max_freq` of the cluster that works, where a rule has given write access. What stood there before is kept in
//! a file and put back on drop; after a crash `hearth board release` (the unit's ExecStopPost) puts it back from that file.

use super::root::{Root, number};
use std::path::{Path, PathBuf};

/// Why a cap cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LeverError {
    #[error("{path}: {source}; the clock stays as it is")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: the value that stood there cannot be read, so it is not changed")]
    Unknown { path: PathBuf },
}

/// The right to cap some policies, and the duty to put them back.
#[derive(Debug)]
pub struct ClockCap {
    /// File and the value that stood there, in kHz.
    policies: Vec<(PathBuf, i64)>,
    keep: PathBuf,
    last_khz: Option<i64>,
}

impl ClockCap {
    /// `None` where no policy's file can be written. `keep`: where the old values are kept for [`release`].
    pub fn open(root: &Root, policies: &[&str], keep: impl Into<PathBuf>) -> Result<Option<ClockCap>, LeverError> {
        let mut held = Vec::new();
        for policy in policies {
            let path = root.at(format!("sys/devices/system/cpu/cpufreq/{policy}/scaling_max_freq"));
            if std::fs::OpenOptions::new().write(true).open(&path).is_err() {
                continue;
            }
            let khz = number(&path).map_err(|_| LeverError::Unknown { path: path.clone() })?;
            held.push((path, khz));
        }
        if held.is_empty() {
            return Ok(None);
        }
        let keep = keep.into();
        let text: String = held.iter().map(|(path, khz)| format!("{khz} {}\n", path.display())).collect();
        std::fs::write(&keep, text).map_err(|source| LeverError::Write { path: keep.clone(), source })?;
        Ok(Some(ClockCap { policies: held, keep, last_khz: None }))
    }

    /// Caps at `hertz`; `None` puts back what stood there. Writes only what changes.
    pub fn set(&mut self, hertz: Option<u64>) -> Result<(), LeverError> {
        let khz = hertz.map(|f| i64::try_from(f / 1000).unwrap_or(i64::MAX));
        if khz == self.last_khz {
            return Ok(());
        }
        for (path, before) in &self.policies {
            let value = khz.map_or(*before, |k| k.min(*before));
            std::fs::write(path, value.to_string()).map_err(|source| LeverError::Write { path: path.clone(), source })?;
        }
        self.last_khz = khz;
        Ok(())
    }
}

impl Drop for ClockCap {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure here; the kept file stays for `release` then.
        if self.set(None).is_ok() {
            let _ = std::fs::remove_file(&self.keep);
        }
    }
}

/// Puts back what a daemon that is gone has left capped. Returns how many files were written; a missing `keep` means nothing to do.
pub fn release(root: &Root, keep: &Path) -> Result<usize, LeverError> {
    let Ok(text) = std::fs::read_to_string(keep) else { return Ok(0) };
    let cpufreq = root.at("sys/devices/system/cpu/cpufreq");
    let mut written = 0;
    for (khz, path) in text.lines().filter_map(|l| l.split_once(' ')) {
        let path = PathBuf::from(path);
        // The file was ours, but whoever could write it must not choose what else is written.
        let is_ours = path.starts_with(&cpufreq) && path.ends_with("scaling_max_freq") && !path.components().any(|c| c == std::path::Component::ParentDir);
        if let (Ok(khz), true) = (khz.parse::<i64>(), is_ours) {
            std::fs::write(&path, khz.to_string()).map_err(|source| LeverError::Write { path, source })?;
            written += 1;
        }
    }
    let _ = std::fs::remove_file(keep);
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    fn tree() -> (tempfile::TempDir, Root, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::PI5).unwrap();
        let root = Root::new(dir.path());
        let file = root.at("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq");
        let keep = dir.path().join("keep");
        (dir, root, file, keep)
    }

    #[test]
    fn the_old_cap_comes_back_on_drop() {
        let (_dir, root, file, keep) = tree();
        let mut cap = ClockCap::open(&root, &["policy0"], &keep).unwrap().unwrap();
        cap.set(Some(1_800_000_000)).unwrap();
        assert_eq!(number(&file).unwrap(), 1_800_000);
        drop(cap);
        assert_eq!(number(&file).unwrap(), 2_400_000);
        assert!(!keep.exists());
    }

    #[test]
    fn after_a_crash_release_puts_it_back_and_writes_nothing_else() {
        let (dir, root, file, keep) = tree();
        let mut cap = ClockCap::open(&root, &["policy0"], &keep).unwrap().unwrap();
        cap.set(Some(1_500_000_000)).unwrap();
        std::mem::forget(cap);
        let other = dir.path().join("passwd");
        let mut text = std::fs::read_to_string(&keep).unwrap();
        text += &format!("1 {}\nnonsense\n", other.display());
        std::fs::write(&keep, text).unwrap();
        assert_eq!(release(&root, &keep).unwrap(), 1);
        assert_eq!(number(&file).unwrap(), 2_400_000);
        assert!(!other.exists());
        assert_eq!(release(&root, &keep).unwrap(), 0);
    }

    #[test]
    fn a_cap_is_never_above_what_the_owner_had_set() {
        let (_dir, root, file, keep) = tree();
        std::fs::write(&file, "2000000").unwrap();
        let mut cap = ClockCap::open(&root, &["policy0"], &keep).unwrap().unwrap();
        cap.set(Some(2_400_000_000)).unwrap();
        assert_eq!(number(&file).unwrap(), 2_000_000);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_lever() {
        let (_dir, root, _file, keep) = tree();
        assert!(ClockCap::open(&root, &["policy9"], &keep).unwrap().is_none());
    }
}
