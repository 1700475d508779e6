//! `hearth board capture`: what describes a board (names, trips, clock tables, one reading of each sensor, the firmware's answers) as a
//! [`Tree`]. No serial number, host name, user or network address is in it, and no file that hangs holds it up for long.

use super::mailbox;
use super::poll::DEADLINE;
use super::root::{Miss, Root, text};
use super::tree::{BYTES_MAX, FILES_MAX, Tree};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

/// Folders looked through and the files taken from them; `*` in a name stands for any run of characters.
const TAKEN: [(&str, &[&str]); 15] = [
    ("proc/device-tree", &["model", "compatible"]),
    ("proc/device-tree/chosen", &["u-boot,version"]),
    ("sys/firmware/devicetree/base", &["model", "compatible"]),
    ("proc", &["cpuinfo", "meminfo", "stat"]),
    ("proc/sys/kernel", &["osrelease"]),
    ("proc/pressure", &["cpu", "memory", "io"]),
    ("sys/class/dmi/id", &["sys_vendor", "product_name", "bios_version", "bios_date"]),
    ("sys/devices/system/cpu", &["online", "possible"]),
    ("sys/devices/system/cpu/cpu*", &["cpu_capacity"]),
    ("sys/devices/system/cpu/cpu*/topology", &["cluster_id", "core_id"]),
    ("sys/devices/system/cpu/cpu0/thermal_throttle", &["*_throttle_count"]),
    (
        "sys/devices/system/cpu/cpufreq/policy*",
        &[
            "related_cpus",
            "affected_cpus",
            "scaling_driver",
            "scaling_governor",
            "scaling_available_frequencies",
            "scaling_cur_freq",
            "scaling_min_freq",
            "scaling_max_freq",
            "cpuinfo_min_freq",
            "cpuinfo_max_freq",
            "cpuinfo_avg_freq",
            "cpuinfo_cur_freq",
        ],
    ),
    (
        "sys/class/thermal/*",
        &[
            "type",
            "temp",
            "policy",
            "mode",
            "trip_point_*_temp",
            "trip_point_*_type",
            "trip_point_*_hyst",
            "cdev*/type",
            "cdev*_trip_point",
            "cur_state",
            "max_state",
        ],
    ),
    (
        "sys/class/hwmon/hwmon*",
        &[
            "name",
            "temp*_input",
            "temp*_label",
            "in*_input",
            "in*_label",
            "curr*_input",
            "curr*_crit",
            "fan*_input",
            "pwm*",
            "in*_lcrit_alarm",
            "oc*_event_cnt",
        ],
    ),
    ("sys/class/devfreq/*", &["cur_freq", "min_freq", "max_freq", "load"]),
];
/// x86's energy counters; apart, since their class folder holds links to all domains at once.
const POWERCAP: (&str, &[&str]) = ("sys/class/powercap/intel-rapl*", &["name", "energy_uj", "max_energy_range_uj"]);
/// Longest text of one file; a long one is cut at a line.
const FILE_BYTES_MAX: usize = 8 << 10;
/// What of a long file with much that is not ours is taken: whole lines that begin so.
const LINES: [(&str, &[&str]); 3] = [
    ("proc/meminfo", &["MemTotal:"]),
    ("proc/stat", &["cpu "]),
    ("proc/cpuinfo", &["processor", "model name", "CPU ", "Features", "Model", "Hardware"]),
];
/// Files that hang before the rest of their folders is no longer looked at.
const HANGING_MAX: usize = 8;

/// The description of the board below `root`.
pub fn capture(root: &Root, comments: Vec<String>) -> Tree {
    let mut tree = Tree { comments, ..Tree::default() };
    // First, since they are few, and no folder full of sensors must crowd them out.
    tree.files.extend(mailbox::answers(root).into_iter().map(|(file, answer)| (file, answer + "\n")));
    let mut reader = Reader::new(DEADLINE);
    let mut bytes: usize = tree.files.iter().map(|(file, text)| file.len() + text.len()).sum();
    for (dir, files) in TAKEN.iter().chain([&POWERCAP]) {
        for dir in expand(root, dir) {
            // A file's pattern may go a folder deeper: `cdev*/type`.
            for file in files.iter().flat_map(|f| expand(root, &format!("{dir}/{f}"))) {
                if tree.files.len() + tree.unread.len() + 1 >= FILES_MAX || bytes >= BYTES_MAX / 2 {
                    tree.unread.push((file, "left out with all that follows: the tree is full".into()));
                    return tree;
                }
                match reader.read(root.at(&file)) {
                    Some(Ok(text)) => {
                        let kept = kept(&file, &text);
                        bytes += file.len() + kept.len();
                        tree.files.push((file, kept));
                    }
                    Some(Err(Miss::Absent { .. })) => (),
                    Some(Err(miss)) => tree.unread.push((file, reason(&miss))),
                    None => tree.unread.push((file, "does not answer".into())),
                }
            }
        }
    }
    tree
}

/// Why a file was not read, without its path.
fn reason(miss: &Miss) -> String {
    match miss {
        Miss::Denied { .. } => "no permission".into(),
        Miss::NotReady { reason, .. } => format!("not ready ({reason})"),
        other => other.to_string(),
    }
}

/// The lines of a file that may leave the house.
fn kept(file: &str, text: &str) -> String {
    let wanted = LINES.iter().find(|(name, _)| *name == file).map(|(_, lines)| *lines);
    let mut out = String::new();
    for line in text.lines().filter(|l| wanted.is_none_or(|w| w.iter().any(|start| l.starts_with(start)))) {
        if out.len() + line.len() > FILE_BYTES_MAX {
            break;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Paths to it, texts from it.
type Thread = (mpsc::Sender<PathBuf>, mpsc::Receiver<Result<String, Miss>>);

/// Reads files on a thread of its own; one that hangs is left behind with its thread.
struct Reader {
    deadline: Duration,
    hanging: usize,
    thread: Option<Thread>,
    /// Folders in which a file hung: their other files are of the same part.
    asleep: BTreeSet<PathBuf>,
}

impl Reader {
    fn new(deadline: Duration) -> Reader {
        Reader { deadline, hanging: 0, thread: None, asleep: BTreeSet::new() }
    }

    /// `None`: it did not answer within the deadline, or is of a part that did not.
    fn read(&mut self, path: PathBuf) -> Option<Result<String, Miss>> {
        let folder = path.parent().map(PathBuf::from).unwrap_or_default();
        if self.hanging >= HANGING_MAX || self.asleep.contains(&folder) {
            return None;
        }
        let (ask, answer) = self.thread.get_or_insert_with(|| {
            let (ask, asked) = mpsc::channel::<PathBuf>();
            let (tell, answer) = mpsc::channel();
            std::thread::spawn(move || asked.into_iter().try_for_each(|path| tell.send(text(&path))));
            (ask, answer)
        });
        let answer = ask.send(path).ok().and_then(|()| answer.recv_timeout(self.deadline).ok());
        if answer.is_none() {
            self.hanging += 1;
            self.asleep.insert(folder);
            self.thread = None;
        }
        answer
    }
}

/// The paths that exist for a pattern, in the order of their numbers.
fn expand(root: &Root, pattern: &str) -> Vec<String> {
    let Some(star) = pattern.find('*') else {
        return if root.at(pattern).exists() { vec![pattern.to_owned()] } else { Vec::new() };
    };
    let from = pattern[..star].rfind('/').map_or(0, |slash| slash + 1);
    let to = pattern[star..].find('/').map_or(pattern.len(), |slash| star + slash);
    let (head, tail) = (&pattern[from..star], &pattern[star + 1..to]);
    let mut names: Vec<String> = std::fs::read_dir(root.at(&pattern[..from]))
        .map(|entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|n| n.len() >= head.len() + tail.len() && n.starts_with(head) && n.ends_with(tail));
    let number = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(u64::MAX);
    names.sort_by(|a, b| (number(a), a).cmp(&(number(b), b)));
    names.truncate(FILES_MAX);
    names.iter().flat_map(|name| expand(root, &format!("{}{name}{}", &pattern[..from], &pattern[to..]))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, fake, sources};
    use super::*;
    use std::path::Path;

    fn facts(at: &Path) -> (Identity, Vec<String>) {
        let root = Root::new(at);
        let mut all: Vec<String> =
            sources(&root).iter_mut().filter_map(|s| s.read().ok()).flatten().map(|r| format!("{:?} {}", r.what, r.value)).collect();
        all.sort();
        (Identity::of(&root), all)
    }

    #[test]
    fn a_captured_board_reads_like_the_board() {
        for board in fake::ALL {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("board"), dir.path().join("captured"));
            fake::build(&from, board).unwrap();
            std::fs::create_dir(&to).unwrap();
            let text = capture(&Root::new(&from), Vec::new()).text();
            Tree::parse(&text).unwrap().unpack(&to).unwrap();
            assert_eq!(facts(&from), facts(&to), "{}", board.model);
        }
    }

    #[test]
    fn what_names_one_single_machine_stays_at_home() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::PI5).unwrap();
        let put = |file: &str, text: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/cpuinfo", "processor: 0\nSerial\t\t: 10000000abcdef\nModel: x\n");
        for file in [
            "proc/device-tree/serial-number",
            "sys/class/dmi/id/product_serial",
            "sys/class/dmi/id/product_uuid",
            "proc/sys/kernel/hostname",
            "etc/hostname",
        ] {
            put(file, "10000000abcdef");
        }
        let text = capture(&Root::new(dir.path()), Vec::new()).text();
        assert!(!text.contains("abcdef") && text.contains("Model: x"), "{text}");
    }

    #[test]
    fn a_file_that_hangs_costs_its_deadline_once_and_the_rest_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::PI5).unwrap();
        let zone = dir.path().join("sys/class/thermal/thermal_zone7");
        std::fs::create_dir(&zone).unwrap();
        std::fs::write(zone.join("type"), "cv0-thermal\n").unwrap();
        // Opening a pipe that nobody writes to hangs.
        let pipe = std::ffi::CString::new(zone.join("temp").to_str().unwrap()).unwrap();
        // SAFETY: the path is a C string that outlives the call.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        let tree = capture(&Root::new(dir.path()), Vec::new());
        assert_eq!(tree.unread, [("sys/class/thermal/thermal_zone7/temp".to_owned(), "does not answer".to_owned())]);
        assert!(tree.files.iter().any(|f| f.0.starts_with("sys/class/hwmon")));
    }

    #[test]
    fn a_tree_stays_within_its_bounds() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::PI5).unwrap();
        std::fs::write(dir.path().join("proc/cpuinfo"), "model name : x\n".repeat(100_000)).unwrap();
        let hwmon = dir.path().join("sys/class/hwmon/hwmon9");
        std::fs::create_dir_all(&hwmon).unwrap();
        for n in 0..500 {
            std::fs::write(hwmon.join(format!("temp{n}_label")), "x".repeat(7000)).unwrap();
        }
        std::fs::create_dir(dir.path().join("firmware")).unwrap();
        std::fs::write(dir.path().join("firmware/get_throttled"), "throttled=0x0\n").unwrap();
        let tree = capture(&Root::new(dir.path()), Vec::new());
        assert!(tree.text().len() <= BYTES_MAX && Tree::parse(&tree.text()).is_ok());
        assert!(tree.files.iter().any(|(file, _)| file == "firmware/get_throttled"), "the firmware's answers have their place");
        let (file, why) = tree.unread.last().unwrap();
        assert!(file.contains("hwmon9") && why.contains("the tree is full"), "{file}: {why}");
    }
}
