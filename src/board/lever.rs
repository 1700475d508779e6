//! The clock cap: `scaling_max_freq` of the clusters that work, where a rule has given write access. What stood there before is kept in
//! a file and put back on drop; after a crash `hearth board release` (the unit's ExecStopPost) puts it back from that file.
//!
//! The owner's limit is never exceeded, also where it changes while we hold ours. A read of `scaling_max_freq` gives the lowest of all
//! limits, the kernel's own thermal one among them, so a low value is the owner's word only while no cooling device holds the clock.

use super::root::{Miss, Root, number, text};
use super::thermal;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

/// The file of a cpufreq policy that limits its clock.
const FILE: &str = "scaling_max_freq";

/// Why a cap cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum LeverError {
    #[error("{path}: {source}; the clock stays as it is")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: cannot be kept ({source}), so the clock is not capped: nobody could put it back after a crash")]
    Keep { path: PathBuf, source: std::io::Error },
    #[error("{0}; a clock that was capped before may still be: `hearth board release`, run as root, gives it back")]
    Kept(Miss),
}

/// The right to cap some policies, and the duty to put them back.
#[derive(Debug)]
pub struct ClockCap {
    root: Root,
    policies: Vec<Limit>,
    keep: PathBuf,
    /// What was asked for last; nothing is written while it stays, unless it could not be had.
    asked_khz: Option<u64>,
}

/// One policy's file.
#[derive(Debug)]
struct Limit {
    path: PathBuf,
    /// What the owner wants there.
    owners_khz: u64,
    ours: Option<Ours>,
}

/// A cap of ours.
#[derive(Clone, Copy, Debug)]
struct Ours {
    wrote_khz: u64,
    /// What stood there then: the kernel rounds down to a step. Unknown where it throttled.
    stood_khz: Option<u64>,
}

impl ClockCap {
    /// `None` where no policy's file can be written. What a predecessor that died has left is put back first. `keep`: where the owner's
    /// values are kept for [`release`] while a cap is set.
    pub fn open(root: &Root, policies: &[&str], keep: impl Into<PathBuf>) -> Result<Option<ClockCap>, LeverError> {
        let keep = keep.into();
        release(root, &keep)?;
        let writable = |path: &PathBuf| std::fs::OpenOptions::new().write(true).open(path).is_ok();
        let files = policies.iter().map(|policy| root.at(format!("sys/devices/system/cpu/cpufreq/{policy}/{FILE}")));
        let throttled = kernel_throttles(root);
        let limit = |path: PathBuf| Some(Limit { owners_khz: owners_khz(&path, throttled)?, path, ours: None });
        let policies: Vec<Limit> = files.filter(writable).filter_map(limit).collect();
        Ok((!policies.is_empty()).then(|| ClockCap { root: root.clone(), policies, keep, asked_khz: None }))
    }

    /// Caps at `hertz`; `None` puts back what the owner had, and where that failed tries again. Writes only what changes. After an error
    /// nothing is capped any more, as far as that can be had.
    pub fn set(&mut self, hertz: Option<u64>) -> Result<(), LeverError> {
        let asked = hertz.map(|f| f / 1000);
        let left_behind = asked.is_none() && self.policies.iter().any(|limit| limit.ours.is_some());
        if asked == self.asked_khz && !left_behind {
            return Ok(());
        }
        self.heed_owner();
        self.asked_khz = asked;
        let Some(asked) = asked else { return self.give_back() };
        let throttled = kernel_throttles(&self.root);
        let cap = |limit: &mut Limit| limit.cap(asked.min(limit.owners_khz), throttled);
        let set = self.keep_owners().and_then(|()| self.policies.iter_mut().try_for_each(cap));
        if set.is_err() {
            self.asked_khz = None;
            let _ = self.give_back(); // the first error is the one to tell
        }
        set
    }

    /// The cap that holds: what was written, also where it could not be given back.
    pub fn hertz(&self) -> Option<u64> {
        self.policies.iter().filter_map(|limit| limit.ours).map(|ours| ours.wrote_khz * 1000).min()
    }

    /// The owner may have changed a limit since we wrote: then that is what counts.
    fn heed_owner(&mut self) {
        let throttled = kernel_throttles(&self.root);
        for limit in &mut self.policies {
            let Some(stands) = khz(&limit.path) else { continue };
            let changed = match limit.ours {
                Some(ours) => stands > ours.wrote_khz || !throttled && ours.stood_khz.is_some_and(|stood| stands < stood),
                None => stands > limit.owners_khz || !throttled,
            };
            if changed {
                (limit.owners_khz, limit.ours) = (stands, None);
            }
        }
    }

    /// Before the first write of a cap, so that a crash in between loses nothing.
    fn keep_owners(&self) -> Result<(), LeverError> {
        let lines: String = self.policies.iter().map(|l| format!("{} {}\n", l.owners_khz, l.path.display())).collect();
        let failed = |source| LeverError::Keep { path: self.keep.clone(), source };
        let new = self.keep.with_added_extension("new");
        std::fs::File::create(&new).and_then(|mut file| file.write_all(lines.as_bytes())).map_err(failed)?;
        std::fs::rename(&new, &self.keep).map_err(failed)
    }

    fn give_back(&mut self) -> Result<(), LeverError> {
        let mut result = Ok(());
        for limit in self.policies.iter_mut().filter(|limit| limit.ours.is_some()) {
            let written = limit.write(limit.owners_khz).map(|()| limit.ours = None);
            result = result.and(written);
        }
        if result.is_ok() {
            let _ = std::fs::remove_file(&self.keep); // left behind it says the same as the files
        }
        result
    }
}

impl Limit {
    fn cap(&mut self, khz: u64, throttled: bool) -> Result<(), LeverError> {
        self.write(khz)?;
        self.ours = Some(Ours { wrote_khz: khz, stood_khz: self::khz(&self.path).filter(|_| !throttled) });
        Ok(())
    }

    fn write(&self, khz: u64) -> Result<(), LeverError> {
        std::fs::write(&self.path, khz.to_string()).map_err(|source| LeverError::Write { path: self.path.clone(), source })
    }
}

impl Drop for ClockCap {
    fn drop(&mut self) {
        // Nobody is left to tell of a failure here; the kept file stays for `release` then.
        let _ = self.set(None);
    }
}

/// What its owner lets a policy's cores run at, in Hz.
pub fn owners_limit(root: &Root, policy: &str) -> Option<u64> {
    let path = root.at(format!("sys/devices/system/cpu/cpufreq/{policy}/{FILE}"));
    owners_khz(&path, kernel_throttles(root)).map(|khz| khz * 1000)
}

/// Under a thermal limit the owner's cannot be read; the hardware's is what nearly everybody has.
fn owners_khz(path: &Path, throttled: bool) -> Option<u64> {
    let stands = khz(path)?;
    let hardware = || path.parent().and_then(|p| khz(&p.join("cpuinfo_max_freq")));
    Some(if throttled { hardware().unwrap_or(stands) } else { stands })
}

/// Puts back what a daemon that is gone has left capped. Returns how many files were written; a missing `keep` means nothing to do. One that
/// names none of our files is none of ours, and stays as it is.
pub fn release(root: &Root, keep: &Path) -> Result<usize, LeverError> {
    let kept = match text(keep) {
        Ok(kept) => kept,
        Err(Miss::Absent { .. }) => return Ok(0),
        Err(miss) => return Err(LeverError::Kept(miss)),
    };
    let cpufreq = root.at("sys/devices/system/cpu/cpufreq");
    let (mut written, mut named, mut result) = (0, false, Ok(()));
    for (khz, path) in kept.lines().filter_map(|l| l.split_once(' ')) {
        let path = PathBuf::from(path);
        // The file was ours, but whoever could write it must not choose what else is written.
        let is_ours = path.starts_with(&cpufreq) && path.ends_with(FILE) && !path.components().any(|c| c == Component::ParentDir);
        let (Ok(owners), true) = (khz.parse::<u64>(), is_ours) else { continue };
        named = true;
        // Higher than what was kept: its owner has raised it since.
        if self::khz(&path).is_some_and(|stands| stands < owners) {
            match std::fs::write(&path, khz) {
                Ok(()) => written += 1,
                // The first to tell; the other files are given back all the same.
                Err(source) => result = result.and(Err(LeverError::Write { path, source })),
            }
        }
    }
    result?;
    if named {
        let _ = std::fs::remove_file(keep); // found again it would change nothing
    }
    Ok(written)
}

fn khz(path: &Path) -> Option<u64> {
    number(path).ok().and_then(|khz| u64::try_from(khz).ok())
}

/// Whether a cooling device holds a processor's clock down at present.
fn kernel_throttles(root: &Root) -> bool {
    let is_clock = |path: &PathBuf| text(&path.join("type")).is_ok_and(|kind| thermal::is_clock(&kind));
    let holds = |path: &PathBuf| number(&path.join("cur_state")).is_ok_and(|state| state > 0);
    root.numbered("sys/class/thermal", "cooling_device").iter().any(|path| is_clock(path) && holds(path))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    struct Tree {
        root: Root,
        file: PathBuf,
        keep: PathBuf,
        folder: tempfile::TempDir,
    }

    impl Tree {
        fn of(board: &fake::Fake, policy: &str) -> Tree {
            let folder = tempfile::tempdir().unwrap();
            fake::build(folder.path(), board).unwrap();
            let root = Root::new(folder.path());
            let file = root.at(format!("sys/devices/system/cpu/cpufreq/{policy}/{FILE}"));
            Tree { root, file, keep: folder.path().join("keep"), folder }
        }

        fn pi5() -> Tree {
            Tree::of(&fake::PI5, "policy0")
        }

        fn cap(&self) -> ClockCap {
            let policy = self.file.parent().unwrap().file_name().unwrap().to_str().unwrap();
            ClockCap::open(&self.root, &[policy], &self.keep).unwrap().unwrap()
        }

        fn stands(&self) -> u64 {
            khz(&self.file).unwrap()
        }
    }

    #[test]
    fn the_old_cap_comes_back_on_drop() {
        let tree = Tree::pi5();
        let mut cap = tree.cap();
        cap.set(Some(1_800_000_000)).unwrap();
        assert_eq!(tree.stands(), 1_800_000);
        drop(cap);
        assert_eq!(tree.stands(), 2_400_000);
        assert!(!tree.keep.exists());
    }

    #[test]
    fn after_a_crash_release_puts_it_back_and_writes_nothing_else() {
        let tree = Tree::pi5();
        let mut cap = tree.cap();
        cap.set(Some(1_500_000_000)).unwrap();
        std::mem::forget(cap);
        let other = tree.folder.path().join("passwd");
        std::fs::write(&other, "0").unwrap();
        let mut kept = std::fs::read_to_string(&tree.keep).unwrap();
        kept += &format!("1 {}\nnonsense\n", other.display());
        std::fs::write(&tree.keep, kept).unwrap();
        assert_eq!(release(&tree.root, &tree.keep).unwrap(), 1);
        assert_eq!((tree.stands(), std::fs::read_to_string(&other).unwrap()), (2_400_000, "0".to_owned()));
        assert_eq!(release(&tree.root, &tree.keep).unwrap(), 0);
    }

    #[test]
    fn the_next_daemon_takes_no_cap_of_a_dead_one_for_the_owners() {
        let tree = Tree::pi5();
        let mut cap = tree.cap();
        cap.set(Some(1_500_000_000)).unwrap();
        std::mem::forget(cap);
        let mut cap = tree.cap();
        assert_eq!(tree.stands(), 2_400_000);
        cap.set(Some(1_600_000_000)).unwrap();
        drop(cap);
        assert_eq!(tree.stands(), 2_400_000);
    }

    #[test]
    fn a_cap_is_never_above_what_the_owner_had_set() {
        let tree = Tree::pi5();
        std::fs::write(&tree.file, "2000000").unwrap();
        let mut cap = tree.cap();
        cap.set(Some(2_400_000_000)).unwrap();
        assert_eq!((tree.stands(), cap.hertz()), (2_000_000, Some(2_000_000_000)));
        // And not above what the owner sets meanwhile, which is also what comes back.
        std::fs::write(&tree.file, "1700000").unwrap();
        cap.set(Some(2_300_000_000)).unwrap();
        assert_eq!(tree.stands(), 1_700_000);
        drop(cap);
        assert_eq!(tree.stands(), 1_700_000);
    }

    #[test]
    fn an_owner_who_raises_the_limit_is_not_overruled_at_the_end() {
        let tree = Tree::pi5();
        std::fs::write(&tree.file, "2000000").unwrap();
        let mut cap = tree.cap();
        cap.set(Some(1_500_000_000)).unwrap();
        std::fs::write(&tree.file, "2200000").unwrap();
        drop(cap);
        assert_eq!(tree.stands(), 2_200_000);
    }

    #[test]
    fn the_kernels_own_throttle_is_not_taken_for_the_owners_limit() {
        let tree = Tree::of(&fake::RK3588_VENDOR, "policy4");
        let state = tree.root.at("sys/class/thermal/cooling_device1/cur_state");
        std::fs::write(&state, "5").unwrap();
        std::fs::write(&tree.file, "1008000").unwrap();
        let mut cap = tree.cap();
        cap.set(Some(1_800_000_000)).unwrap();
        assert_eq!(tree.stands(), 1_800_000);
        // While it throttles on, a lower value than ours is the kernel's; when it ends, ours shows again. Neither is the owner's.
        std::fs::write(&tree.file, "1008000").unwrap();
        cap.set(Some(1_600_000_000)).unwrap();
        std::fs::write(&state, "0").unwrap();
        cap.set(Some(1_700_000_000)).unwrap();
        drop(cap);
        assert_eq!(tree.stands(), 2_352_000);
    }

    #[test]
    fn a_cap_that_cannot_be_kept_is_not_set() {
        let tree = Tree::pi5();
        let mut cap = ClockCap::open(&tree.root, &["policy0"], "/no/such/folder/keep").unwrap().unwrap();
        assert!(matches!(cap.set(Some(1_500_000_000)), Err(LeverError::Keep { .. })));
        assert_eq!(tree.stands(), 2_400_000);
    }

    #[test]
    fn a_cap_that_could_not_be_given_back_is_tried_again() {
        for by_drop in [false, true] {
            let tree = Tree::pi5();
            let mut cap = tree.cap();
            cap.set(Some(1_800_000_000)).unwrap();
            // A folder in the file's place refuses to be written, for root too.
            std::fs::remove_file(&tree.file).unwrap();
            std::fs::create_dir(&tree.file).unwrap();
            assert!(matches!(cap.set(None), Err(LeverError::Write { .. })));
            assert_eq!(cap.hertz(), Some(1_800_000_000), "it holds on");
            std::fs::remove_dir(&tree.file).unwrap();
            std::fs::write(&tree.file, "1800000").unwrap();
            if by_drop {
                drop(cap)
            } else {
                cap.set(None).unwrap();
                assert_eq!(cap.hertz(), None);
            }
            assert_eq!(tree.stands(), 2_400_000);
            assert!(!tree.keep.exists());
        }
    }

    #[test]
    fn what_was_kept_and_cannot_be_read_is_told() {
        let tree = Tree::pi5();
        assert_eq!(release(&tree.root, &tree.keep).unwrap(), 0, "nothing was kept");
        std::fs::create_dir(&tree.keep).unwrap();
        let told = release(&tree.root, &tree.keep).unwrap_err().to_string();
        assert!(told.contains(tree.keep.to_str().unwrap()) && told.contains("hearth board release"), "{told}");
    }

    #[test]
    fn a_file_that_keeps_no_clock_is_left_as_it_is() {
        let tree = Tree::pi5();
        for text in ["", "root:x:0:0:root:/root:/bin/bash\n", "1800000 /etc/passwd\n"] {
            std::fs::write(&tree.keep, text).unwrap();
            assert_eq!(release(&tree.root, &tree.keep).unwrap(), 0);
            assert_eq!(std::fs::read_to_string(&tree.keep).unwrap(), text);
        }
        tree.cap().set(Some(1_800_000_000)).unwrap();
        assert_eq!(tree.stands(), 2_400_000, "nor does it keep anybody from the lever");
    }

    #[test]
    fn one_file_that_refuses_does_not_keep_the_others_capped() {
        let tree = Tree::of(&fake::RK3588_VENDOR, "policy6");
        let mut cap = ClockCap::open(&tree.root, &["policy4", "policy6"], &tree.keep).unwrap().unwrap();
        cap.set(Some(1_800_000_000)).unwrap();
        std::mem::forget(cap);
        // A number that can be read, and that the kernel lets nobody write.
        let refuses = tree.root.at("sys/devices/system/cpu/cpufreq/policy4").join(FILE);
        std::fs::remove_file(&refuses).unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/cap_last_cap", &refuses).unwrap();
        assert!(matches!(release(&tree.root, &tree.keep), Err(LeverError::Write { .. })));
        assert_eq!(tree.stands(), 2_352_000);
        assert!(tree.keep.exists(), "there is one left to give back");
    }

    #[test]
    fn a_file_that_is_not_there_is_no_lever() {
        let tree = Tree::pi5();
        assert!(ClockCap::open(&tree.root, &["policy9"], &tree.keep).unwrap().is_none());
    }
}
