//! Which cores a crew of threads should use: those this process may run on, fastest class first.
//!
//! Classes come from the kernel's `cpu_capacity` (relative speed, 1024 = fastest), never from core numbers: on an RK3588 the big cores
//! are 4–7, on others 0–3. Single tokens leave little cores out: they add no bandwidth, and whoever shares a phase with them waits.
//! For prompts [`counts`](super::counts) measures whether they help.

use crate::units::Capacity;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::path::Path;

/// The cores a crew may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Cores of the fastest class that this process may run on, ascending.
    pub fast: Vec<usize>,
    /// The others that it may run on.
    pub slow: Vec<usize>,
}

impl Cores {
    /// The cores of this machine, within this process's affinity (cpusets and `taskset` included).
    pub fn of_this_machine() -> Cores {
        let allowed = match sched_getaffinity(None) {
            Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
            Err(_) => vec![0],
        };
        Cores::classify(Path::new("/sys/devices/system/cpu"), allowed)
    }

    /// Sorts `allowed` cores into classes by the files under `root` (`cpuN/cpu_capacity`). A core without the file counts as fast:
    /// machines whose cores are all alike have none.
    pub fn classify(root: &Path, allowed: Vec<usize>) -> Cores {
        let capacity = |cpu: usize| {
            let text = fs::read_to_string(root.join(format!("cpu{cpu}/cpu_capacity"))).ok()?;
            text.trim().parse().ok().map(Capacity)
        };
        let capacities: Vec<Option<Capacity>> = allowed.iter().map(|&cpu| capacity(cpu)).collect();
        let best = capacities.iter().flatten().max_by_key(|c| c.0).copied();
        let is_fast = |c: &Option<Capacity>| match (c, best) {
            (Some(c), Some(best)) => c.works_beside(best),
            _ => true,
        };
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        for (cpu, c) in allowed.into_iter().zip(&capacities) {
            if is_fast(c) { fast.push(cpu) } else { slow.push(cpu) }
        }
        Cores { fast, slow }
    }

    /// How many workers make sense: one a fast core, and no more than the control group's quota pays for.
    pub fn workers(&self) -> usize {
        let paid = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        self.fast.len().min(paid).max(1)
    }

    /// With the slow cores, where there are some and the quota pays for all.
    pub fn workers_of_all(&self) -> usize {
        let all = self.fast.len() + self.slow.len();
        let paid = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
        if paid < all { self.workers() } else { all.max(1) }
    }

    /// Keeps the calling thread, worker `index` of a crew, on the cores of its class: the first workers on the fast ones, those beyond
    /// them on the slow ones. The system places it among them. Does nothing where all cores are alike or the system refuses: affinity
    /// is a hint for speed, not a condition.
    pub fn keep(&self, index: usize) {
        if self.slow.is_empty() {
            return;
        }
        let mut set = CpuSet::new();
        for &cpu in if index < self.fast.len() { &self.fast } else { &self.slow } {
            set.set(cpu);
        }
        _ = sched_setaffinity(None, &set);
    }

    /// This machine in a line: what the firmware or the processor calls it, if anything does, and its fast and slow cores.
    pub fn board(&self) -> String {
        let firmware = fs::read_to_string("/sys/firmware/devicetree/base/model").ok();
        let processor = || {
            let text = fs::read_to_string("/proc/cpuinfo").ok()?;
            let line = text.lines().find(|l| l.starts_with("model name"))?;
            Some(line.split_once(':')?.1.to_owned())
        };
        let name = firmware.or_else(processor).unwrap_or_default();
        format!("{}, {}+{} cores", name.trim_matches(['\0', ' ', '\n']), self.fast.len(), self.slow.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(capacities: &[u32]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (cpu, c) in capacities.iter().enumerate() {
            let folder = root.path().join(format!("cpu{cpu}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("cpu_capacity"), format!("{c}\n")).unwrap();
        }
        root
    }

    #[test]
    fn big_cores_are_found_by_capacity_not_by_number() {
        let rk3588 = tree(&[414, 414, 414, 414, 1024, 1024, 1008, 1008]);
        let cores = Cores::classify(rk3588.path(), (0..8).collect());
        assert_eq!(cores, Cores { fast: vec![4, 5, 6, 7], slow: vec![0, 1, 2, 3] });
    }

    #[test]
    fn a_faster_clock_alone_makes_no_class() {
        let three_clocks = tree(&[402, 402, 402, 402, 892, 892, 892, 1024]);
        let cores = Cores::classify(three_clocks.path(), (0..8).collect());
        assert_eq!(cores, Cores { fast: vec![4, 5, 6, 7], slow: vec![0, 1, 2, 3] });
    }

    #[test]
    fn a_cpuset_of_little_cores_makes_them_the_fast_ones() {
        let rk3588 = tree(&[414, 414, 414, 414, 1024, 1024, 1008, 1008]);
        let cores = Cores::classify(rk3588.path(), vec![1, 2]);
        assert_eq!(cores, Cores { fast: vec![1, 2], slow: vec![] });
    }

    #[test]
    fn cores_without_capacities_are_all_fast() {
        let cores = Cores::classify(tree(&[]).path(), vec![0, 1, 5]);
        assert_eq!(cores, Cores { fast: vec![0, 1, 5], slow: vec![] });
    }
}
