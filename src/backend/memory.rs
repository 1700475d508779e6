//! How much memory can be had: what the machine has left, and what the control groups of this process leave of it.

use super::LoadError;
use crate::units::Bytes;
use std::fs;
use std::path::{Component, Path};

/// The control groups of this process, and where the system shows them.
const LIST: &str = "/proc/self/cgroup";
const MOUNT: &str = "/sys/fs/cgroup";

/// Bytes that can be had without swapping. What the page cache holds counts as free: the system gives it up, and it is mostly the model.
/// Where the system doesn't tell, there is no limit.
pub fn available() -> u64 {
    of_this_machine().min(of_groups(Path::new(LIST), Path::new(MOUNT), u64::saturating_sub))
}

/// Whether memory has room for a file of `bytes` beside all else that runs: three quarters of what the machine has, or of what a control
/// group allows, whatever is taken of it now.
pub fn holds(bytes: u64) -> bool {
    bytes <= by_call().total.min(of_groups(Path::new(LIST), Path::new(MOUNT), |limit, _| limit)) / 4 * 3
}

/// Refuses caches that could never be filled.
pub fn check_caches(need: Bytes) -> Result<(), LoadError> {
    let have = available();
    if need.0 > have {
        return Err(LoadError::NoMemory { what: "its caches", need: need.0 >> 20, have: have >> 20 });
    }
    Ok(())
}

fn of_this_machine() -> u64 {
    sysinfo::System::new().map_or(u64::MAX, |mut system| {
        system.refresh_memory();
        if system.total_memory() == 0 { by_call().available } else { system.available_memory() }
    })
}

/// The machine's memory in bytes.
struct Told {
    total: u64,
    available: u64,
}

/// Also where hardening hides /proc/meminfo (systemd's `ProcSubset=pid`). The call counts no page cache, most of which could be had: so at
/// least half of all is available.
fn by_call() -> Told {
    let system = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "not so on machines of 32 bits")]
    let [free, total] = [system.freeram, system.totalram].map(|n| u64::from(n).saturating_mul(system.mem_unit.into()));
    Told { total, available: free.max(total / 2) }
}

/// The least that the control groups of a process (`list`: its /proc/PID/cgroup) come to by `figure`, which is given a group's limit and
/// what of it is taken, without the page cache. Read here and not by the crate that reads the machine's figures: that counts page cache as
/// taken, so that a model that was read once seems to be in memory twice, and looks at the root group alone, which is ours inside of a
/// container only.
fn of_groups(list: &Path, mount: &Path, figure: fn(u64, u64) -> u64) -> u64 {
    let list = fs::read_to_string(list).unwrap_or_default();
    let left = list.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(least(mount, path, ["memory.max", "anon"], figure)),
            list if list.split(',').any(|c| c == "memory") => {
                Some(least(&mount.join("memory"), path, ["memory.limit_in_bytes", "total_rss"], figure))
            }
            _ => None,
        }
    });
    left.min().unwrap_or(u64::MAX)
}

/// The least `figure` of the group at `path` and those above it. (Inside a container the path may begin further up than
/// what is mounted: those parts of it are not there.)
fn least(mount: &Path, path: &str, [limit, anonymous]: [&str; 2], figure: fn(u64, u64) -> u64) -> u64 {
    let below = Path::new(path).strip_prefix("/").unwrap_or(Path::new(""));
    if below.components().any(|part| part == Component::ParentDir) {
        // Of a group outside of what this process may see.
        return u64::MAX;
    }
    let of = |group: &Path| {
        let limit = fs::read_to_string(group.join(limit)).ok()?.trim().parse::<u64>().ok()?;
        let figures = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let taken = figures.lines().find_map(|line| line.strip_prefix(anonymous)?.trim().parse::<u64>().ok());
        Some(figure(limit, taken.unwrap_or(0)))
    };
    below.ancestors().filter_map(|group| of(&mount.join(group))).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_that_no_machine_has_room_for_are_refused_with_both_figures() {
        assert!(check_caches(Bytes(1)).is_ok());
        let refusal = check_caches(Bytes(1 << 60)).expect_err("an exbibyte").to_string();
        assert!(refusal.contains("needs 1099511627776 MiB") && refusal.contains("smaller context"), "{refusal}");
    }

    #[test]
    fn memory_is_known_where_proc_is_hidden() {
        let by_call = by_call().available;
        assert!((1 << 20..1 << 50).contains(&by_call), "{by_call}");
    }

    /// What is left to a process with this list, in a tree of these files.
    fn left(list: &str, files: &[(&str, &str)]) -> u64 {
        figure(list, files, u64::saturating_sub)
    }

    fn figure(list: &str, files: &[(&str, &str)], figure: fn(u64, u64) -> u64) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(folder.path().join("list"), list).unwrap();
        of_groups(&folder.path().join("list"), folder.path(), figure)
    }

    #[test]
    fn the_least_generous_group_counts_and_page_cache_is_free() {
        let unit = [
            ("system.slice/memory.max", "max\n"),
            ("system.slice/hearthd.service/memory.max", "1000\n"),
            ("system.slice/hearthd.service/memory.current", "990\n"),
            ("system.slice/hearthd.service/memory.stat", "anon_thp 5\nanon 100\nfile 890\n"),
        ];
        assert_eq!(left("0::/system.slice/hearthd.service\n", &unit), 900);
        let above = [unit[1], ("system.slice/memory.max", "700"), ("system.slice/memory.stat", "anon 400\n")];
        assert_eq!(left("0::/system.slice/hearthd.service\n", &above), 300);
    }

    #[test]
    fn a_file_may_lie_in_what_a_group_allows_however_full_it_is() {
        let group = [("a/memory.max", "1000\n"), ("a/memory.stat", "anon 900\n"), ("memory.max", "max\n")];
        assert_eq!(figure("0::/a\n", &group, |limit, _| limit), 1000);
        assert!(holds(0) && !holds(1 << 60));
    }

    #[test]
    fn groups_of_the_first_version_and_containers_are_read_too() {
        let first = [("memory/a/memory.limit_in_bytes", "500\n"), ("memory/a/memory.stat", "rss 1\ntotal_rss 20\n")];
        assert_eq!(left("9:name=systemd:/\n4:cpu,memory:/a\n0::/\n", &first), 480);
        // A container's own group is mounted at the root, whatever the list says above it.
        assert_eq!(left("0::/docker/abc\n", &[("memory.max", "300\n"), ("memory.stat", "anon 30\n")]), 270);
    }

    #[test]
    fn where_nothing_is_told_there_is_no_limit() {
        assert_eq!(left("0::/\n", &[]), u64::MAX);
        assert_eq!(left("", &[]), u64::MAX);
        assert_eq!(left("0::/../outside\n", &[("memory.max", "1")]), u64::MAX);
        assert_eq!(left("0::/a\n", &[("a/memory.max", "many")]), u64::MAX);
    }
}
