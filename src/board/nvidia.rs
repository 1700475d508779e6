//! NVIDIA GPUs by NVML, the library of their driver. It is opened at run time: where there is none, there are no such readings.
//! They stand aside: no backend computes on such a card, so neither its heat nor its watts nor what slows it belong to a token.

use super::root::{Miss, Root};
use super::{Reading, Sensor, What, those_read};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use std::sync::Arc;

/// The library, beside the name it is asked for by default: distributions differ.
const LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// GPUs looked at.
const GPUS_MAX: u32 = 16;
/// Reasons for a lower clock, as NVML has them (`nvmlClocksEventReasons`). 0x8, the hardware's slow-down, is heat or power: not told which.
const SW_POWER_CAP: u64 = 0x4;
const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;

pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    // Opening the library wakes every GPU, so first a look whether a driver is there. A captured tree has no library.
    if !root.is_machine() || !root.at("proc/driver/nvidia").exists() && !root.at("dev/nvidiactl").exists() {
        return Vec::new();
    }
    LIBRARIES.iter().find_map(|name| open(name).ok()).unwrap_or_default()
}

/// All GPUs of a library. A driver that does not fit its library is an error.
fn open(library: &str) -> Result<Vec<Box<dyn Sensor>>, NvmlError> {
    let nvml = Arc::new(Nvml::builder().lib_path(library.as_ref()).init()?);
    let count = nvml.device_count()?.min(GPUS_MAX);
    Ok((0..count).map(|index| Box::new(Gpu { nvml: nvml.clone(), index, first_mj: None }) as Box<dyn Sensor>).collect())
}

struct Gpu {
    nvml: Arc<Nvml>,
    index: u32,
    /// The driver counts since it was loaded, we since our first look.
    first_mj: Option<u64>,
}

impl Sensor for Gpu {
    fn name(&self) -> String {
        format!("nvidia{}", self.index)
    }

    fn is_aside(&self) -> bool {
        true
    }

    /// What this GPU tells; a consumer's card may refuse one question and answer the others.
    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let name = self.name();
        let lost = |error: NvmlError| Miss::Library { library: "NVML".into(), reason: error.to_string() };
        let gpu = self.nvml.device_by_index(self.index).map_err(lost)?;
        let asked = [
            gpu.temperature(TemperatureSensor::Gpu).map(|c| (What::Temperature(name.clone()), f64::from(c), "temperature")),
            gpu.clock_info(Clock::SM).map(|mhz| (What::Device(name.clone()), f64::from(mhz) * 1e6, "SM clock")),
            gpu.power_usage().map(|mw| (What::Power(name.clone()), f64::from(mw) / 1000.0, "power")),
            gpu.total_energy_consumption().map(|mj| {
                let since = mj.saturating_sub(*self.first_mj.get_or_insert(mj));
                (What::Energy(name.clone()), since as f64 / 1000.0, "energy")
            }),
            gpu.current_throttle_reasons().map(|r| (What::GpuThrottle(name.clone()), r.bits() as f64, "throttle reasons")),
        ];
        let reading = |(what, value, of): (What, f64, &str)| Reading { aside: true, ..Reading::new(what, value, format!("NVML: {of}")) };
        those_read(asked.into_iter().map(|asked| asked.map(reading).map_err(lost)))
    }
}

/// What reasons of [`What::GpuThrottle`] mean; empty for rest, the owner's own limits, and a slow-down of which NVML does not tell why.
pub fn words(reasons: u64) -> &'static str {
    match (reasons & (SW_THERMAL | HW_THERMAL) != 0, reasons & (SW_POWER_CAP | HW_POWER_BRAKE) != 0) {
        (true, true) => "heat and a power limit",
        (true, false) => "heat",
        (false, true) => "a power limit",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_machine_without_the_library_has_no_such_readings() {
        assert!(open("libhearth-no-such-library.so").is_err());
        assert!(sources(&Root::new("/nonexistent")).is_empty());
    }

    #[test]
    fn reasons_are_told_apart() {
        let cases = [(0x1, ""), (0x20, "heat"), (0x40, "heat"), (0x44, "heat and a power limit"), (0x80, "a power limit"), (0x8, "")];
        for (reasons, want) in cases {
            assert_eq!(words(reasons), want, "{reasons:#x}");
        }
    }

    /// The answers of a library of NVML's shape, for one GPU that refuses to tell its power.
    const LIBRARY: &str = r#"
        int nvmlInit_v2(void) { return 0; }
        int nvmlShutdown(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned *n) { *n = 1; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)1; return i ? 2 : 0; }
        int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *t) { *t = 83; return 0; }
        int nvmlDeviceGetClockInfo(void *d, int type, unsigned *mhz) { *mhz = 1410; return 0; }
        int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { return 3; }
        int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) { static int n; *mj = 7000000 + 250 * n++; return 0; }
        int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *r) { *r = 0x24; return 0; }
    "#;

    #[test]
    fn a_gpu_is_read_through_the_library() {
        let dir = tempfile::tempdir().unwrap();
        let (source, library) = (dir.path().join("nvml.c"), dir.path().join("libnvml.so"));
        std::fs::write(&source, LIBRARY).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&library).arg(&source).status();
        assert!(built.unwrap().success(), "Rust links by `cc`, so it is there");
        let mut gpus = open(library.to_str().unwrap()).unwrap();
        assert_eq!(gpus.len(), 1);
        let mut told = || {
            let readings = gpus[0].read().unwrap();
            assert!(readings.iter().all(|r| r.aside));
            readings.into_iter().map(|r| (r.what, r.value)).collect::<Vec<_>>()
        };
        let name = || "nvidia0".to_owned();
        let want = |joules| {
            [
                (What::Temperature(name()), 83.0),
                (What::Device(name()), 1.41e9),
                (What::Energy(name()), joules),
                (What::GpuThrottle(name()), 36.0),
            ]
        };
        assert_eq!(told(), want(0.0), "what the driver counted before is none of ours");
        assert_eq!(told(), want(0.25));
    }
}
