//! `hearth board capture`: copies what describes a board (names, trips, clock tables, one reading of each sensor) into a folder that its
//! owner can send. No serial number, host name, user or network address is in it.

use super::root::Root;
use std::io;
use std::path::{Path, PathBuf};

/// Folders looked through and the files taken from them; `*` in a name stands for a number.
const TAKEN: [(&str, &[&str]); 12] = [
    ("proc/device-tree", &["model", "compatible"]),
    ("proc", &["cpuinfo", "meminfo"]),
    ("proc/sys/kernel", &["osrelease"]),
    ("proc/pressure", &["cpu", "memory", "io"]),
    ("sys/class/dmi/id", &["sys_vendor", "product_name"]),
    ("sys/devices/system/cpu", &["online", "possible"]),
    ("sys/devices/system/cpu/cpu*", &["cpu_capacity", "topology/cluster_id", "topology/core_id", "thermal_throttle/package_throttle_count"]),
    (
        "sys/devices/system/cpu/cpufreq/policy*",
        &["affected_cpus", "scaling_driver", "scaling_governor", "scaling_available_frequencies", "scaling_cur_freq", "scaling_min_freq",
          "scaling_max_freq", "cpuinfo_min_freq", "cpuinfo_max_freq"],
    ),
    (
        "sys/class/thermal/thermal_zone*",
        &["type", "temp", "policy", "mode", "trip_point_*_temp", "trip_point_*_type", "trip_point_*_hyst", "cdev*/type"],
    ),
    ("sys/class/thermal/cooling_device*", &["type", "cur_state", "max_state"]),
    ("sys/class/hwmon/hwmon*", &["name", "temp*_input", "temp*_label", "in*_input", "in*_label", "curr*_input", "fan*_input", "pwm*", "in*_lcrit_alarm"]),
    ("sys/class/devfreq", &["dmc/cur_freq", "17000000.gpu/cur_freq"]),
];
/// Numbers tried for a `*`.
const NUMBERS: u32 = 64;
/// Lines of `/proc/cpuinfo` that name one single machine.
const SECRET_LINES: [&str; 2] = ["Serial", "Hardware UUID"];

/// Copies the description of the board below `root` into `to`, which must not exist yet. Returns the number of files.
pub fn capture(root: &Root, to: &Path) -> io::Result<usize> {
    std::fs::create_dir(to)?;
    let mut count = 0;
    for (dir, files) in TAKEN {
        for dir in expand(root, dir) {
            for file in files.iter().flat_map(|f| expand(root, &format!("{dir}/{f}"))) {
                let Ok(text) = super::root::text(&root.at(&file)) else { continue };
                let out: PathBuf = to.join(&file);
                if let Some(parent) = out.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                let kept: String = text.lines().filter(|l| !SECRET_LINES.iter().any(|s| l.starts_with(s))).map(|l| format!("{l}\n")).collect();
                std::fs::write(&out, kept)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// The paths that exist for a pattern with at most one `*` left.
fn expand(root: &Root, pattern: &str) -> Vec<String> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return if root.at(pattern).exists() { vec![pattern.to_owned()] } else { Vec::new() };
    };
    (0..NUMBERS).map(|n| format!("{head}{n}{tail}")).filter(|p| root.at(p).exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, fake, sources};
    use super::*;

    #[test]
    fn a_captured_board_reads_like_the_board() {
        for board in fake::ALL {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("board"), dir.path().join("captured"));
            fake::build(&from, board).unwrap();
            capture(&Root::new(&from), &to).unwrap();
            let read = |at: &Path| {
                let root = Root::new(at);
                let mut all: Vec<_> = sources(&root).iter_mut().filter_map(|s| s.read().ok()).flatten().map(|r| (r.what, r.value)).collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                (Identity::of(&root), format!("{all:?}"))
            };
            assert_eq!(read(&from), read(&to), "{}", board.model);
        }
    }

    #[test]
    fn serial_numbers_stay_at_home() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("board");
        fake::build(&from, &fake::PI5).unwrap();
        std::fs::write(from.join("proc/cpuinfo"), "processor: 0\nSerial\t\t: 10000000abcdef\nModel: x\n").unwrap();
        capture(&Root::new(&from), &dir.path().join("out")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("out/proc/cpuinfo")).unwrap();
        assert!(!text.contains("abcdef") && text.contains("Model: x"));
    }
}
