//! Clocks by cpufreq. `scaling_cur_freq` is the request on many boards (a Raspberry Pi throttles behind its back); `cpuinfo_cur_freq`
//! is measured, but for root only, unless the driver asks the hardware.

use super::root::{Miss, Root, number, text};
use super::{Reading, Source, What};
use std::path::PathBuf;

/// Drivers whose `scaling_cur_freq` comes from counters of the processor.
const MEASURING_DRIVERS: [&str; 4] = ["intel_pstate", "intel_cpufreq", "amd-pstate-epp", "amd-pstate"];

pub fn sources(root: &Root) -> Vec<Box<dyn Source>> {
    let policies = root.numbered("sys/devices/system/cpu/cpufreq", "policy");
    let mut all: Vec<Box<dyn Source>> = Vec::new();
    for path in policies {
        let driver = text(&path.join("scaling_driver")).unwrap_or_default();
        all.push(Box::new(Policy { path, measuring: MEASURING_DRIVERS.contains(&driver.as_str()) }));
    }
    let events = root.at("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count");
    if events.exists() {
        all.push(Box::new(Events(events)));
    }
    all
}

struct Policy {
    path: PathBuf,
    measuring: bool,
}

impl Policy {
    fn id(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Source for Policy {
    fn name(&self) -> String {
        format!("cpufreq {}", self.id())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let hertz = |file: &str| -> Result<(f64, String), Miss> {
            let path = self.path.join(file);
            Ok((number(&path)? as f64 * 1000.0, path.display().to_string()))
        };
        let (value, source) = hertz("scaling_cur_freq")?;
        let mut readings = Vec::new();
        let measured = hertz("cpuinfo_cur_freq").ok().or_else(|| self.measuring.then(|| (value, source.clone())));
        if self.measuring {
            let (cap, source) = hertz("scaling_max_freq")?;
            readings.push(Reading { what: What::Requested(self.id()), value: cap, source });
        } else {
            readings.push(Reading { what: What::Requested(self.id()), value, source });
        }
        if let Some((value, source)) = measured {
            readings.push(Reading { what: What::Measured(self.id()), value, source });
        }
        Ok(readings)
    }
}

/// x86 counts each time it slowed itself for heat.
struct Events(PathBuf);

impl Source for Events {
    fn name(&self) -> String {
        "throttle events".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        Ok(vec![Reading { what: What::ThrottleCount, value: number(&self.0)? as f64, source: self.0.display().to_string() }])
    }
}
