//! Sensors as they fail in the field, on every captured board, under the reader that the daemon has: what a fault takes away is told once
//! and comes back, what it does not touch goes on, and nothing waits.

use crate::process::ended;
use crate::{stem, trees};
use hearth::board::poll::Poll;
use hearth::board::tree::Tree;
use hearth::board::{Identity, Root, Sense, What, sources};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Far more than the reader needs, so that a stalled machine does not fail.
const PATIENCE: Duration = Duration::from_secs(60);

/// A board whose files can be tampered with while it is read.
struct Board {
    dir: tempfile::TempDir,
    poll: Poll,
    policies: Vec<String>,
    told: Vec<String>,
}

impl Board {
    fn of(tree: &Path) -> Board {
        let dir = tempfile::tempdir().unwrap();
        Tree::load(tree).unwrap().unpack(dir.path()).unwrap();
        // The firmware's thermometer would go on where a zone fails; here the zones are the question.
        let _ = std::fs::remove_file(dir.path().join("firmware/measure_temp"));
        let root = Root::new(dir.path());
        let poll = Poll::start(sources(&root), Duration::from_millis(2));
        Board { policies: Identity::of(&root).working_policies(), dir, poll, told: Vec::new() }
    }

    /// What the board says once every source that can be read has been.
    fn whole(&mut self) -> Sense {
        let all: Vec<What> =
            sources(&Root::new(self.dir.path())).iter_mut().flat_map(|s| s.read().unwrap_or_default()).map(|r| r.what).collect();
        let start = Instant::now();
        while !all.iter().all(|what| self.poll.latest(Instant::now()).readings.contains_key(what)) {
            assert!(start.elapsed() < PATIENCE, "not all of {all:?} is read");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.until("at first", |s, _| s.soc.is_some())
    }

    /// What the board says, a while ahead of now: readings younger than that were taken after the call before.
    fn sense(&mut self) -> Sense {
        let now = Instant::now();
        let latest = self.poll.latest(now);
        // What no thermometer says here at all (a Jetson's sleeping accelerator, a counter for root) is another question.
        let is_ours = |told: &&String| !told.starts_with("zone cv") && !told.starts_with("rapl");
        self.told.extend(latest.notices.iter().filter(is_ours).cloned());
        Sense::of(&latest, now, &self.policies)
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Sense, &[String]) -> bool) -> Sense {
        let start = Instant::now();
        loop {
            let sense = self.sense();
            if is_so(&sense, &self.told) {
                return sense;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {sense:?}, told {:?}", self.told);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn at(&self, file: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Files with the temperature of the die: zones and chips.
    fn thermometers(&self) -> Vec<PathBuf> {
        let files = self.numbered().into_iter().flat_map(|f| ["temp", "temp1_input", "temp2_input"].map(|name| f.join(name)));
        files.filter(|f| f.exists()).collect()
    }

    /// Folders that the kernel numbers; not every board has chips of hwmon.
    fn numbered(&self) -> Vec<PathBuf> {
        let classes = ["sys/class/thermal", "sys/class/hwmon"].map(|class| std::fs::read_dir(self.at(class)));
        classes.into_iter().flatten().flatten().map(|e| e.unwrap().path()).collect()
    }
}

/// Ways in which a file fails that are files themselves.
fn break_file(file: &Path, how: &str) {
    std::fs::remove_file(file).unwrap();
    match how {
        "missing" => (),
        // Reading this process's memory at 0 is EIO.
        "EIO" => std::os::unix::fs::symlink("/proc/self/mem", file).unwrap(),
        "a folder" => std::fs::create_dir(file).unwrap(),
        text => std::fs::write(file, text).unwrap(),
    }
}

const FAULTS: [&str; 9] = ["missing", "EIO", "a folder", "", "-256000\n", "-40000\n", "127000\n", "nan\n", "99999999999999999999\n"];

#[test]
fn a_thermometer_that_fails_is_told_of_once_and_comes_back() {
    for tree in trees() {
        let mut board = Board::of(&tree);
        let name = stem(&tree);
        let whole = board.whole().soc.unwrap().0;
        let files: Vec<(PathBuf, Vec<u8>)> = board.thermometers().into_iter().map(|f| (f.clone(), std::fs::read(&f).unwrap())).collect();
        for fault in FAULTS {
            board.told.clear();
            files.iter().for_each(|(file, _)| break_file(file, fault));
            // Its last word ages: nothing new comes, and it is told.
            board.until(&format!("{name}, {fault:?}"), |s, told| !told.is_empty() && s.soc.is_some_and(|(_, age)| age > 0.2));
            for (file, text) in &files {
                let _ = std::fs::remove_file(file).or_else(|_| std::fs::remove_dir(file));
                std::fs::write(file, text).unwrap();
            }
            let back = board.until(&format!("{name}, after {fault:?}"), |s, told| {
                let (lost, found) =
                    (told.iter().filter(|t| !t.ends_with("is back")).count(), told.iter().filter(|t| t.ends_with("is back")).count());
                lost == found && s.soc.is_some_and(|(_, age)| age < 0.2)
            });
            assert_eq!(back.soc.unwrap().0, whole, "{name}, after {fault:?}");
            let mut said = board.told.clone();
            said.sort();
            let all = said.len();
            said.dedup();
            assert_eq!(said.len(), all, "{name}, {fault:?}: said twice: {:?}", board.told);
        }
    }
}

#[test]
fn zones_and_chips_that_change_their_numbers_are_read_on() {
    for tree in trees() {
        let mut board = Board::of(&tree);
        let name = stem(&tree);
        let before = board.whole();
        for folder in board.numbered() {
            let mut moved = folder.clone().into_os_string();
            moved.push("7");
            std::fs::rename(&folder, moved).unwrap();
        }
        let changed = Instant::now();
        // Sources are found again one by one: the hottest zone may be the last.
        let hottest = before.soc.unwrap().0;
        let after = board.until(&name, |s, _| {
            s.fan_level == before.fan_level && s.soc.is_some_and(|(c, age)| c == hottest && age < changed.elapsed().as_secs_f64())
        });
        assert!(after.soc.is_some(), "{name}");
    }
}

/// Puts a pipe that nobody writes to in a file's place: opening it hangs. All at once, since a zone that is missing meanwhile would be told
/// of as that.
fn hang(file: &Path) {
    let pipe = file.with_added_extension("pipe");
    assert!(ended(std::process::Command::new("mkfifo").arg(&pipe)).status.success());
    std::fs::rename(&pipe, file).unwrap();
}

#[test]
fn a_zone_that_hangs_holds_up_nothing_and_comes_back() {
    let tree = trees().into_iter().find(|t| stem(t) == "rk3588-vendor").unwrap();
    let mut board = Board::of(&tree);
    board.until("at first", |s, _| s.soc.is_some());
    let hanging = board.at("sys/class/thermal/thermal_zone3/temp");
    hang(&hanging);
    // Asking waits for nothing that hangs, or this would be its end: the pipe has no writer yet.
    board.until("it is told", |_, told| told.iter().any(|t| t.contains("littlecore-thermal") && t.contains("does not answer")));
    let on = board.until("the others go on", |s, _| s.soc.is_some_and(|(_, age)| age < 0.2));
    assert_eq!(on.soc.unwrap().0, 47.153, "the next hottest, since 48.076 hangs");
    // The pipe is given a writer, and a value: the zone answers again.
    let writer = std::fs::OpenOptions::new().write(true).open(&hanging).unwrap();
    std::fs::remove_file(&hanging).unwrap();
    std::fs::write(&hanging, "48076\n").unwrap();
    drop(writer);
    board
        .until("it is back", |s, told| told.iter().any(|t| t == "zone littlecore-thermal is back") && s.soc.is_some_and(|v| v.0 == 48.076));
}

#[test]
fn a_cluster_that_goes_offline_is_told_and_comes_back() {
    let tree = trees().into_iter().find(|t| stem(t) == "rk3588-vendor").unwrap();
    let mut board = Board::of(&tree);
    board.until("at first", |s, _| s.requested.is_some());
    let (policy, away) = (board.at("sys/devices/system/cpu/cpufreq/policy6"), board.at("policy6-away"));
    std::fs::rename(&policy, &away).unwrap();
    board.until("it is told", |_, told| told.iter().any(|t| t.starts_with("cpufreq policy6")));
    std::fs::rename(&away, &policy).unwrap();
    board.until("it is back", |s, told| told.iter().any(|t| t == "cpufreq policy6 is back") && s.requested.is_some_and(|v| v.1 < 0.2));
}
