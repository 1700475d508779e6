//! Clocks: of the processors by cpufreq, of GPU and memory by devfreq, and the counts that x86 and Jetson keep of their own slow-downs.
//!
//! `scaling_cur_freq` is the request on many boards (a Raspberry Pi throttles behind its back). Measured are `cpuinfo_avg_freq` (Linux
//! 6.15 and later, where the hardware counts cycles), `scaling_cur_freq` of x86, and `cpuinfo_cur_freq` (root only) unless the driver
//! answers with what it asked for.

use super::numbered::{HWMON, Numbered};
use super::root::{Miss, Root, number, text};
use super::{Reading, Sensor, What};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Drivers whose `scaling_cur_freq` comes from counters of the processor.
const MEASURING_DRIVERS: [&str; 5] = ["intel_pstate", "intel_cpufreq", "amd-pstate-epp", "amd-pstate", "acpi-cpufreq"];
/// Processors of boards whose firmware throttles behind the driver's back: its clock is the request, whatever it says.
const FIRMWARE_CLOCKS: &str = "brcm,bcm2";

pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    let mut all: Vec<Box<dyn Sensor>> = Vec::new();
    let compatible = std::fs::read(root.at("proc/device-tree/compatible")).unwrap_or_default();
    let behind_its_back = String::from_utf8_lossy(&compatible).contains(FIRMWARE_CLOCKS);
    for path in root.numbered("sys/devices/system/cpu/cpufreq", "policy") {
        let driver = text(&path.join("scaling_driver")).unwrap_or_default();
        let truth = if behind_its_back {
            Truth::Elsewhere
        } else if MEASURING_DRIVERS.contains(&driver.as_str()) {
            Truth::Current
        } else {
            Truth::Hardware
        };
        all.push(Box::new(Policy { path, truth }));
    }
    for path in devices(root) {
        all.push(Box::new(Device(path)));
    }
    let counts = ["package_throttle_count", "core_throttle_count"].map(|f| root.at("sys/devices/system/cpu/cpu0/thermal_throttle").join(f));
    if let Some(file) = counts.into_iter().find(|f| f.exists()) {
        all.push(Box::new(SlowDowns { file, count: Count::default() }));
    }
    let events = Numbered::all(root, HWMON).into_iter().filter(|(name, _)| name == "soctherm_oc");
    all.extend(events.map(|(_, at)| Box::new(OverCurrent { at, counts: Default::default() }) as Box<dyn Sensor>));
    all
}

/// Where the true clock of a policy can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Truth {
    /// `scaling_cur_freq` itself.
    Current,
    /// `cpuinfo_avg_freq` or `cpuinfo_cur_freq`, where they may be read.
    Hardware,
    /// Not here: the firmware has it.
    Elsewhere,
}

struct Policy {
    path: PathBuf,
    truth: Truth,
}

impl Policy {
    fn id(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Sensor for Policy {
    fn name(&self) -> String {
        format!("cpufreq {}", self.id())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let hertz = |file: &str, what: fn(String) -> What| -> Result<Reading, Miss> {
            let path = self.path.join(file);
            Ok(Reading::new(what(self.id()), number(&path)? as f64 * 1000.0, path.display()))
        };
        if self.truth == Truth::Current {
            return Ok(vec![hertz("scaling_max_freq", What::Requested)?, hertz("scaling_cur_freq", What::Measured)?]);
        }
        let mut readings = vec![hertz("scaling_cur_freq", What::Requested)?];
        if self.truth == Truth::Hardware {
            let measured = ["cpuinfo_avg_freq", "cpuinfo_cur_freq"].into_iter().find_map(|file| hertz(file, What::Measured).ok());
            readings.extend(measured);
        }
        Ok(readings)
    }
}

/// Devices of devfreq: a GPU, an NPU, the memory. Names as the kernel has them; they are few, and foreign ones do no harm.
fn devices(root: &Root) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(root.at("sys/class/devfreq"))
        .map(|d| d.filter_map(|e| Some(e.ok()?.path())).take(16).collect())
        .unwrap_or_default();
    all.sort();
    all
}

struct Device(PathBuf);

impl Sensor for Device {
    fn name(&self) -> String {
        format!("devfreq {}", self.0.file_name().unwrap_or_default().to_string_lossy())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = self.0.join("cur_freq");
        Ok(vec![Reading::new(What::Device(name), number(&file)? as f64, file.display())])
    }
}

/// A count of slow-downs. It rises while the hardware slows itself, so it did for a moment after each rise.
#[derive(Default)]
struct Count {
    last: Option<i64>,
    rose: Option<Instant>,
}

impl Count {
    /// Whether it rises.
    fn see(&mut self, count: i64) -> bool {
        let now = Instant::now();
        if self.last.replace(count).is_some_and(|last| count > last) {
            self.rose = Some(now);
        }
        self.rose.is_some_and(|at| now.duration_since(at) < STILL_SLOWED)
    }
}

/// x86 counts each time it slowed itself for heat.
struct SlowDowns {
    file: PathBuf,
    count: Count,
}

/// The hardware's interrupt comes at most this rarely while it goes on (`CHECK_INTERVAL` of the kernel's therm_throt.c is 5 min for its
/// messages; the count itself moves every few ms).
const STILL_SLOWED: Duration = Duration::from_secs(2);

impl Sensor for SlowDowns {
    fn name(&self) -> String {
        "slow-downs for heat".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let count = number(&self.file)?;
        let slowed = self.count.see(count);
        let source = self.file.display();
        Ok(vec![Reading::new(What::ThrottleCount, count as f64, &source), Reading::new(What::Slowed, f64::from(u8::from(slowed)), source)])
    }
}

/// A Jetson Orin counts each time it slowed itself since its supply gave too little (`oc1`: under-voltage) or it drew too much (`oc2` on
/// average, `oc3` for a moment): the driver `tegra23x-oc-event` of NVIDIA's kernel.
struct OverCurrent {
    at: Numbered,
    counts: [Count; 3],
}

impl Sensor for OverCurrent {
    fn name(&self) -> String {
        "over-current events".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = |path: &Path, n: usize| path.join(format!("oc{n}_event_cnt"));
        let path = self.at.path()?.to_owned();
        let mut rises = [false; 3];
        for (n, count) in self.counts.iter_mut().enumerate() {
            rises[n] = count.see(number(&file(&path, n + 1))?);
        }
        let reading = |what, is: bool, n| Reading::new(what, f64::from(u8::from(is)), file(&path, n).display());
        Ok(vec![reading(What::UnderVoltage, rises[0], 1), reading(What::OverCurrent, rises[1] || rises[2], 2)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy with one file a pair, and a device tree's `compatible`.
    fn read(compatible: &str, files: &[(&str, &str)]) -> Result<Vec<(What, f64)>, Miss> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/device-tree")).unwrap();
        std::fs::write(dir.path().join("proc/device-tree/compatible"), compatible).unwrap();
        let policy = dir.path().join("sys/devices/system/cpu/cpufreq/policy4");
        std::fs::create_dir_all(&policy).unwrap();
        for (file, text) in files {
            std::fs::write(policy.join(file), text).unwrap();
        }
        Ok(sources(&Root::new(dir.path()))[0].read()?.into_iter().map(|r| (r.what, r.value)).collect())
    }

    fn asked(hertz: f64) -> (What, f64) {
        (What::Requested("policy4".into()), hertz)
    }

    fn measured(hertz: f64) -> (What, f64) {
        (What::Measured("policy4".into()), hertz)
    }

    #[test]
    fn the_request_is_not_taken_for_the_truth() {
        let both = [("scaling_driver", "cpufreq-dt"), ("scaling_cur_freq", "2400000"), ("cpuinfo_cur_freq", "2256000")];
        assert_eq!(
            read("raspberrypi,5-model-b\0brcm,bcm2712\0", &both).unwrap(),
            [asked(2.4e9)],
            "a Pi's driver answers with its own wish"
        );
        assert_eq!(read("radxa,rock-5b\0rockchip,rk3588\0", &both).unwrap(), [asked(2.4e9), measured(2.256e9)]);
        assert_eq!(read("", &both[..2]).unwrap(), [asked(2.4e9)], "not root");
        let counted = [both[0], both[1], both[2], ("cpuinfo_avg_freq", "2100000")];
        assert_eq!(read("", &counted).unwrap(), [asked(2.4e9), measured(2.1e9)]);
        let x86 = [("scaling_driver", "intel_pstate"), ("scaling_cur_freq", "3100000"), ("scaling_max_freq", "4500000")];
        assert_eq!(read("", &x86).unwrap(), [asked(4.5e9), measured(3.1e9)]);
    }

    #[test]
    fn a_policy_whose_processors_were_taken_offline_is_a_miss() {
        assert!(matches!(read("", &[("scaling_driver", "cpufreq-dt")]), Err(Miss::Absent { .. })));
        assert!(matches!(read("", &[("scaling_cur_freq", "<unknown>")]), Err(Miss::Nonsense { .. })));
    }

    #[test]
    fn a_count_that_rises_means_slowed_for_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let counts = dir.path().join("sys/devices/system/cpu/cpu0/thermal_throttle");
        std::fs::create_dir_all(&counts).unwrap();
        let mut source = sources_with_count(&dir, &counts, "7");
        let slowed = |source: &mut Box<dyn Sensor>| source.read().unwrap()[1].value;
        assert_eq!(slowed(&mut source), 0.0, "what happened before we looked says nothing");
        std::fs::write(counts.join("core_throttle_count"), "9\n").unwrap();
        assert_eq!(slowed(&mut source), 1.0);
    }

    #[test]
    fn an_orin_tells_too_little_voltage_from_too_much_current() {
        let dir = tempfile::tempdir().unwrap();
        let chip = dir.path().join("sys/class/hwmon/hwmon3");
        std::fs::create_dir_all(&chip).unwrap();
        let put = |file: &str, text: &str| std::fs::write(chip.join(file), text).unwrap();
        put("name", "soctherm_oc\n");
        ["oc1_event_cnt", "oc2_event_cnt", "oc3_event_cnt"].into_iter().for_each(|file| put(file, "37\n"));
        let mut source = sources(&Root::new(dir.path())).remove(0);
        let mut told = || source.read().unwrap().into_iter().map(|r| (r.what, r.value)).collect::<Vec<_>>();
        let want = |voltage, current| [(What::UnderVoltage, voltage), (What::OverCurrent, current)];
        assert_eq!(told(), want(0.0, 0.0), "what happened before we looked says nothing");
        put("oc3_event_cnt", "38\n");
        assert_eq!(told(), want(0.0, 1.0));
        put("oc1_event_cnt", "40\n");
        put("oc2_event_cnt", "39\n");
        assert_eq!(told(), want(1.0, 1.0));
    }

    fn sources_with_count(dir: &tempfile::TempDir, counts: &std::path::Path, count: &str) -> Box<dyn Sensor> {
        std::fs::write(counts.join("core_throttle_count"), count).unwrap();
        sources(&Root::new(dir.path())).remove(0)
    }
}
