//! What a record says of the machine that a run was on: what it is, and where and how the threads wait and run. Two boards of one model
//! differ by memory, boot loader and clock driver; the same board by where its threads may run.

use super::record::Machine;
use crate::backend::DeviceInfo;
use crate::backend::cpu::pool::wait_policy;
use crate::board::Identity;
use std::collections::BTreeSet;

/// The machine, while a model is loaded: its workers are among this process's threads.
pub fn machine(identity: &Identity, device: &DeviceInfo) -> Machine {
    let cluster = identity.big();
    Machine {
        memory_bytes: identity.memory_bytes,
        kernel: identity.kernel.clone(),
        firmware: identity.firmware.clone(),
        clock_governor: cluster.map(|c| c.governor.clone()).unwrap_or_default(),
        clock_driver: cluster.map(|c| c.driver.clone()).unwrap_or_default(),
        cores: identity.clusters.iter().map(|c| c.cpus.len()).sum(),
        device: device.detail.clone(),
        affinity: affinity(),
        wait_policy: if device.backend == "cpu" { wait_policy() } else { String::new() },
    }
}

/// The processors that this process's threads may run on, as the kernel lists them (`4-7`); several lists where threads differ.
fn affinity() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists: BTreeSet<String> = tasks.filter_map(|task| allowed(&std::fs::read_to_string(task.path().join("status")).ok()?)).collect();
    lists.into_iter().collect::<Vec<_>>().join(" and ")
}

/// From `/proc/PID/status`.
fn allowed(status: &str) -> Option<String> {
    Some(status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Root, fake};

    #[test]
    fn a_machine_is_told_with_its_clock_driver_and_where_its_threads_are() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::RK3588_VENDOR).unwrap();
        let device = DeviceInfo { backend: "cpu", detail: "dotprod".into(), threads: 4, decode_threads: 4, prefill_threads: 4 };
        let machine = machine(&Identity::of(&Root::new(dir.path())), &device);
        assert_eq!((machine.cores, machine.device.as_str(), machine.clock_governor.as_str()), (8, "dotprod", "ondemand"));
        assert_eq!(machine.clock_driver, fake::RK3588_VENDOR.driver);
        assert!(machine.affinity.starts_with(|c: char| c.is_ascii_digit()), "{}", machine.affinity);
        assert!(machine.wait_policy.contains("µs, then sleeps"));
        assert_eq!(allowed("Name:\tx\nCpus_allowed_list:\t4-7\n").as_deref(), Some("4-7"));
    }
}
