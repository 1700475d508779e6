//! What board this is: the device tree's word, or DMI's on a PC, with its cores and clusters.

use super::root::{Root, number};
use crate::units::Capacity;
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
    /// The boot loader or BIOS with its date, where it says so: two boards of one model differ by it.
    pub firmware: Option<String>,
    pub clusters: Vec<Cluster>,
}

/// Cores that share a clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cluster {
    /// The cpufreq policy: `policy4`; empty without cpufreq.
    pub policy: String,
    /// `schedutil`, `ondemand`, `performance` …; empty without cpufreq.
    pub governor: String,
    /// The driver that sets the clock: `cpufreq-dt`, `intel_pstate` …; empty without cpufreq.
    pub driver: String,
    pub cpus: Vec<u32>,
    /// 0–1024 against the strongest core, where the kernel says.
    pub capacity: Option<u32>,
    pub min_khz: Option<u64>,
    pub max_khz: Option<u64>,
    /// Clock steps, ascending; empty where the driver lists none.
    pub steps_khz: Vec<u64>,
}

/// The device tree, as `/proc` shows it and as it stands when `/proc` is hidden (systemd's `ProcSubset=pid`).
const TREES: [&str; 2] = ["proc/device-tree", "sys/firmware/devicetree/base"];

impl Identity {
    pub fn of(root: &Root) -> Identity {
        let tree = |file: &str| TREES.iter().find_map(|tree| std::fs::read(root.at(format!("{tree}/{file}"))).ok());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned();
        let compatible: Vec<String> = tree("compatible").map(text).unwrap_or_default().split('\0').map(|s| s.trim().to_owned()).collect();
        let compatible: Vec<String> = compatible.into_iter().filter(|s| !s.is_empty()).collect();
        let model = tree("model").map(text).filter(|m| !m.is_empty());
        let kind = if model.is_some() || !compatible.is_empty() { Kind::Board } else { Kind::Pc };
        let dmi = |file: &str| root.text(format!("sys/class/dmi/id/{file}")).ok().filter(|s| !s.is_empty());
        let pc = || dmi("product_name").map(|product| [dmi("sys_vendor").unwrap_or_default(), product].join(" ").trim().to_owned());
        let bios = || Some(format!("BIOS {} of {}", dmi("bios_version")?, dmi("bios_date")?));
        let boot_loader = tree("chosen/u-boot,version").map(text).map(|v| format!("U-Boot {v}"));
        Identity {
            kind,
            model: model.or_else(pc).unwrap_or_else(|| cpu_name(root)),
            compatible,
            memory_bytes: memory_bytes(root),
            kernel: kernel(root),
            firmware: tree("chosen/bootloader/build-timestamp").and_then(|b| built(&b)).or(boot_loader).or_else(bios),
            clusters: clusters(root),
        }
    }

    /// The cluster that language models run on: the one of the strongest cores.
    pub fn big(&self) -> Option<&Cluster> {
        self.clusters.iter().max_by_key(|c| c.strength())
    }

    /// The clusters whose cores work: the strongest, and those of its kind. An RK3588's four big cores are two clusters.
    pub fn working(&self) -> impl Iterator<Item = &Cluster> {
        self.big().into_iter().flat_map(move |big| self.clusters.iter().filter(move |c| c.works_beside(big)))
    }

    /// The cpufreq policies of the cores that work.
    pub fn working_policies(&self) -> Vec<String> {
        self.working().filter(|c| !c.policy.is_empty()).map(|c| c.policy.clone()).collect()
    }
}

impl Cluster {
    fn strength(&self) -> (u32, u64) {
        (self.capacity.unwrap_or(0), self.max_khz.unwrap_or(0))
    }

    /// By the rule that the CPU backend sorts its cores by. Where the kernel names no capacity, by the clock, and within a tenth: bins of
    /// one kind of core differ by a few per cent (RK3588: 2256 to 2400 MHz), and kinds of core lie nearer by their clocks than by their
    /// strengths.
    fn works_beside(&self, big: &Cluster) -> bool {
        let within_a_tenth = |ours: u64, bigs: u64| ours.saturating_mul(10) >= bigs.saturating_mul(9);
        match (self.capacity, big.capacity) {
            (Some(ours), Some(bigs)) => Capacity(ours).works_beside(Capacity(bigs)),
            _ => within_a_tenth(self.max_khz.unwrap_or(0), big.max_khz.unwrap_or(0)),
        }
    }
}

/// A Raspberry Pi's boot loader: seconds since 1970, big-endian.
fn built(bytes: &[u8]) -> Option<String> {
    let seconds = u32::from_be_bytes(bytes.try_into().ok()?);
    let date = jiff::Timestamp::from_second(seconds.into()).ok()?;
    Some(format!("boot loader of {}", date.strftime("%Y-%m-%d")))
}

fn kernel(root: &Root) -> String {
    let hidden = || root.is_machine().then(|| rustix::system::uname().release().to_string_lossy().into_owned());
    root.text("proc/sys/kernel/osrelease").ok().or_else(hidden).unwrap_or_default()
}

fn cpu_name(root: &Root) -> String {
    let info = root.text("proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.trim() == "model name").map(|(_, v)| v.trim().to_owned()));
    named.unwrap_or_else(|| "unknown machine".into())
}

fn memory_bytes(root: &Root) -> u64 {
    let info = root.text("proc/meminfo").unwrap_or_default();
    let told = info.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let by_call = || {
        let system = rustix::system::sysinfo();
        // Wider or narrower by the machine's word.
        #[expect(clippy::useless_conversion, reason = "not so on machines of 32 bits")]
        u64::from(system.totalram).saturating_mul(system.mem_unit.into())
    };
    told.map(|kb| kb * 1024).unwrap_or_else(|| if root.is_machine() { by_call() } else { 0 })
}

/// By cpufreq policy, since such cores share a clock; without cpufreq by strength.
fn clusters(root: &Root) -> Vec<Cluster> {
    let capacity =
        |cpu: u32| number(&root.at(format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"))).ok().and_then(|c| u32::try_from(c).ok());
    let mut found: Vec<Cluster> = root
        .numbered("sys/devices/system/cpu/cpufreq", "policy")
        .iter()
        .map(|path| {
            let list = |file: &str| super::root::text(&path.join(file)).unwrap_or_default();
            // Related, not affected: a core that is offline at the moment belongs to its cluster all the same.
            let named = [list("related_cpus"), list("affected_cpus")].into_iter().find(|l| !l.is_empty()).unwrap_or_default();
            let cpus: Vec<u32> = named.split_whitespace().filter_map(|c| c.parse().ok()).collect();
            let mut steps_khz: Vec<u64> = list("scaling_available_frequencies").split_whitespace().filter_map(|f| f.parse().ok()).collect();
            steps_khz.sort_unstable();
            let khz = |file: &str| number(&path.join(file)).ok().and_then(|f| u64::try_from(f).ok());
            Cluster {
                policy: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                governor: list("scaling_governor"),
                driver: list("scaling_driver"),
                capacity: cpus.first().and_then(|&c| capacity(c)),
                cpus,
                min_khz: khz("cpuinfo_min_freq"),
                max_khz: khz("cpuinfo_max_freq"),
                steps_khz,
            }
        })
        .collect();
    if found.is_empty() {
        let mut online = cpu_list(&root.text("sys/devices/system/cpu/online").unwrap_or_default());
        if online.is_empty() && root.is_machine() {
            online = (0..std::thread::available_parallelism().map_or(1, |n| n.get() as u32)).collect();
        }
        for cpu in online {
            let capacity = capacity(cpu);
            match found.iter_mut().find(|c| c.capacity == capacity) {
                Some(cluster) => cluster.cpus.push(cpu),
                None => found.push(Cluster { capacity, cpus: vec![cpu], ..Cluster::default() }),
            }
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
    fn a_board_is_known_where_proc_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("sys/firmware/devicetree/base");
        std::fs::create_dir_all(tree.join("chosen/bootloader")).unwrap();
        std::fs::write(tree.join("model"), "Raspberry Pi 5 Model B Rev 1.1\0").unwrap();
        std::fs::write(tree.join("compatible"), "raspberrypi,5-model-b\0brcm,bcm2712\0").unwrap();
        std::fs::write(tree.join("chosen/bootloader/build-timestamp"), 1_758_000_000u32.to_be_bytes()).unwrap();
        let found = Identity::of(&Root::new(dir.path()));
        assert_eq!((found.kind, found.model.as_str()), (Kind::Board, "Raspberry Pi 5 Model B Rev 1.1"));
        assert_eq!(found.compatible, ["raspberrypi,5-model-b", "brcm,bcm2712"]);
        assert_eq!(found.firmware.as_deref(), Some("boot loader of 2025-09-16"));
    }

    #[test]
    fn cores_without_cpufreq_are_told_apart_by_strength_and_an_offline_one_stays_in_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let cpu = dir.path().join("sys/devices/system/cpu");
        for (n, capacity) in [(0, "530"), (1, "530"), (2, "1024")] {
            std::fs::create_dir_all(cpu.join(format!("cpu{n}"))).unwrap();
            std::fs::write(cpu.join(format!("cpu{n}/cpu_capacity")), capacity).unwrap();
        }
        std::fs::write(cpu.join("online"), "0-2\n").unwrap();
        let root = Root::new(dir.path());
        assert_eq!(Identity::of(&root).big().unwrap().cpus, [2]);
        let policy = cpu.join("cpufreq/policy0");
        std::fs::create_dir_all(&policy).unwrap();
        std::fs::write(policy.join("affected_cpus"), "0\n").unwrap();
        std::fs::write(policy.join("related_cpus"), "0 1\n").unwrap();
        assert_eq!(Identity::of(&root).clusters[0].cpus, [0, 1]);
    }

    #[test]
    fn all_policies_of_the_strongest_cores_work() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::RK3588_VENDOR).unwrap();
        assert_eq!(Identity::of(&Root::new(dir.path())).working_policies(), ["policy4", "policy6"]);
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(cpu_list("").is_empty());
        assert!(cpu_list("0-4294967295").len() <= 4096);
    }

    #[test]
    fn bins_of_one_kind_of_core_work_together_and_weaker_kinds_do_not() {
        let working = |clusters: &[(&str, Option<u32>, u64)]| {
            let cluster = |&(policy, capacity, mhz): &(&str, Option<u32>, u64)| Cluster {
                policy: policy.into(),
                capacity,
                max_khz: Some(mhz * 1000),
                ..Cluster::default()
            };
            let clusters = clusters.iter().map(cluster).collect();
            Identity { clusters, ..Identity::of(&Root::new("/nonexistent")) }.working_policies()
        };
        let little = ("policy0", Some(530), 1800);
        assert_eq!(working(&[little, ("policy4", Some(1024), 2352), ("policy6", Some(1008), 2304)]), ["policy4", "policy6"]);
        assert_eq!(working(&[little, ("policy4", Some(1008), 2256), ("policy6", Some(1024), 2400)]), ["policy4", "policy6"]);
        assert_eq!(working(&[("policy0", Some(1024), 2400), ("policy4", Some(660), 2400)]), ["policy0"], "capacity counts, not the clock");
        let three_clocks = [("policy0", Some(402), 1900), ("policy4", Some(892), 2400), ("policy7", Some(1024), 2700)];
        assert_eq!(working(&three_clocks), ["policy4", "policy7"], "one core's faster clock makes no kind of its own");
        assert_eq!(working(&[("policy0", None, 1800), ("policy4", None, 2400), ("policy6", None, 2256)]), ["policy4", "policy6"]);
        assert!(working(&[]).is_empty());
    }
}
