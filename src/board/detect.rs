//! What board this is: the device tree's word, or DMI's on a PC, with its cores and clusters.

use super::root::{Root, number};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It has a device tree.
    Board,
    /// It has DMI tables or nothing.
    Pc,
}

/// The board's name and shape. Which profile fits it, the governor's `Profile::for_compatible` knows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Identity {
    pub kind: Kind,
    /// For people: `Raspberry Pi 5 Model B Rev 1.0`.
    pub model: String,
    /// The device tree's list, most telling first.
    pub compatible: Vec<String>,
    pub memory_bytes: u64,
    pub kernel: String,
    pub clusters: Vec<Cluster>,
}

/// Cores that share a clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    /// The cpufreq policy: `policy4`; empty without cpufreq.
    pub policy: String,
    pub cpus: Vec<u32>,
    /// 0–1024 against the strongest core, where the kernel says.
    pub capacity: Option<u32>,
    pub min_khz: Option<u64>,
    pub max_khz: Option<u64>,
    /// Clock steps, ascending; empty where the driver lists none.
    pub steps_khz: Vec<u64>,
}

impl Identity {
    pub fn of(root: &Root) -> Identity {
        let compatible: Vec<String> = std::fs::read(root.at("proc/device-tree/compatible"))
            .map(|bytes| bytes.split(|&b| b == 0).filter_map(|s| std::str::from_utf8(s).ok()).map(str::to_owned).collect())
            .unwrap_or_default();
        let compatible: Vec<String> = compatible.into_iter().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect();
        let model = root.text("proc/device-tree/model").ok().filter(|m| !m.is_empty());
        let kind = if model.is_some() || !compatible.is_empty() { Kind::Board } else { Kind::Pc };
        let dmi = |file: &str| root.text(format!("sys/class/dmi/id/{file}")).ok().filter(|s| !s.is_empty());
        let model = model.or_else(|| Some(format!("{} {}", dmi("sys_vendor")?, dmi("product_name")?))).unwrap_or_else(|| cpu_name(root));
        Identity {
            kind,
            model,
            compatible,
            memory_bytes: memory_bytes(root),
            kernel: root.text("proc/sys/kernel/osrelease").unwrap_or_default(),
            clusters: clusters(root),
        }
    }

    /// The cluster that language models run on: the one of the strongest cores.
    pub fn big(&self) -> Option<&Cluster> {
        self.clusters.iter().max_by_key(|c| (c.capacity.unwrap_or(0), c.max_khz.unwrap_or(0)))
    }
}

fn cpu_name(root: &Root) -> String {
    let info = root.text("proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == "model name").map(|(_, v)| v.trim().to_owned()));
    named.unwrap_or_else(|| "unknown machine".into())
}

fn memory_bytes(root: &Root) -> u64 {
    let info = root.text("proc/meminfo").unwrap_or_default();
    let kb = info.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kb.unwrap_or(0) * 1024
}

fn clusters(root: &Root) -> Vec<Cluster> {
    let capacity = |cpu: u32| number(&root.at(format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"))).ok().and_then(|c| u32::try_from(c).ok());
    let mut found: Vec<Cluster> = root
        .numbered("sys/devices/system/cpu/cpufreq", "policy")
        .iter()
        .map(|path| {
            let list = |file: &str| super::root::text(&path.join(file)).unwrap_or_default();
            let cpus: Vec<u32> = list("affected_cpus").split_whitespace().filter_map(|c| c.parse().ok()).collect();
            let mut steps_khz: Vec<u64> = list("scaling_available_frequencies").split_whitespace().filter_map(|f| f.parse().ok()).collect();
            steps_khz.sort_unstable();
            let khz = |file: &str| number(&path.join(file)).ok().and_then(|f| u64::try_from(f).ok());
            Cluster {
                policy: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                capacity: cpus.first().and_then(|&c| capacity(c)),
                cpus,
                min_khz: khz("cpuinfo_min_freq"),
                max_khz: khz("cpuinfo_max_freq"),
                steps_khz,
            }
        })
        .collect();
    if found.is_empty() {
        let cpus = cpu_list(&root.text("sys/devices/system/cpu/online").unwrap_or_default());
        if !cpus.is_empty() {
            let capacity = capacity(cpus[0]);
            found.push(Cluster { policy: String::new(), cpus, capacity, min_khz: None, max_khz: None, steps_khz: Vec::new() });
        }
    }
    found
}

/// The kernel's list format: `0-3,6`. At most 4096 cpus.
fn cpu_list(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(a), Ok(b)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend((a..=b.min(4095)).take(4096));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn every_fake_board_is_known_by_its_tree() {
        for board in fake::ALL {
            let dir = tempfile::tempdir().unwrap();
            fake::build(dir.path(), board).unwrap();
            let found = Identity::of(&Root::new(dir.path()));
            assert_eq!(found.model, board.model);
            assert_eq!(found.clusters.iter().map(|c| c.cpus.len()).sum::<usize>(), board.cpus());
        }
    }

    #[test]
    fn the_big_cluster_is_the_one_with_the_strongest_cores() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::RK3588_VENDOR).unwrap();
        let big = Identity::of(&Root::new(dir.path())).big().cloned().unwrap();
        assert!(big.policy == "policy4" || big.policy == "policy6");
        assert_eq!(big.max_khz, Some(2_352_000));
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(cpu_list("").is_empty());
        assert!(cpu_list("0-4294967295").len() <= 4096);
    }
}
