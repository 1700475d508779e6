//! Thermal zones with their trips, temperatures of hwmon chips, and the fan. Found by type and name, never by number: numbers change
//! after a resume, and from kernel to kernel.

use super::root::{Miss, Root, number, text};
use super::{Reading, Source, What};
use serde::Serialize;
use std::path::PathBuf;

/// Readings outside are sentinels (`-256000` for a part that is off, `-40000`, `127000`) and count as missing.
const PLAUSIBLE_MC: std::ops::Range<i64> = -25_000..125_000;

/// A thermal zone as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Zone {
    /// `cpu-thermal`, `soc-thermal` …
    pub kind: String,
    /// `step_wise`, `power_allocator` …
    pub policy: String,
    pub trips: Vec<Trip>,
    /// Types of the cooling devices bound to it.
    pub cooled_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trip {
    /// `passive`, `active`, `critical`, `hot`.
    pub kind: String,
    pub celsius: f32,
}

/// All zones, with what the kernel says of them.
pub fn zones(root: &Root) -> Vec<Zone> {
    root.numbered("sys/class/thermal", "thermal_zone")
        .iter()
        .map(|path| {
            let trips = (0..32).map_while(|n| {
                let celsius = number(&path.join(format!("trip_point_{n}_temp"))).ok()? as f32 / 1000.0;
                Some(Trip { kind: text(&path.join(format!("trip_point_{n}_type"))).unwrap_or_default(), celsius })
            });
            let cooled_by = (0..32).map_while(|n| text(&path.join(format!("cdev{n}/type"))).ok());
            Zone {
                kind: text(&path.join("type")).unwrap_or_default(),
                policy: text(&path.join("policy")).unwrap_or_default(),
                trips: trips.collect(),
                cooled_by: cooled_by.collect(),
            }
        })
        .collect()
}

impl Zone {
    /// Where throttling begins by the kernel's word.
    pub fn passive_c(&self) -> Option<f32> {
        self.trips.iter().filter(|t| t.kind == "passive").map(|t| t.celsius).reduce(f32::max)
    }

    pub fn critical_c(&self) -> Option<f32> {
        self.trips.iter().filter(|t| t.kind == "critical").map(|t| t.celsius).reduce(f32::min)
    }

    /// Whether the kernel takes clock away by this zone.
    pub fn caps_clock(&self) -> bool {
        self.cooled_by.iter().any(|c| c.contains("cpufreq"))
    }
}

pub fn sources(root: &Root) -> Vec<Box<dyn Source>> {
    let mut all: Vec<Box<dyn Source>> = Vec::new();
    for zone in zones(root) {
        all.push(Box::new(ZoneSource { root: root.clone(), kind: zone.kind, path: None }));
    }
    for path in root.numbered("sys/class/hwmon", "hwmon") {
        match text(&path.join("name")).unwrap_or_default().as_str() {
            name @ ("coretemp" | "k10temp" | "zenpower") => all.push(Box::new(Chip { name: name.to_owned(), path })),
            "pwmfan" => all.push(Box::new(Fan { root: root.clone(), path })),
            _ => (),
        }
    }
    all
}

/// A zone by its type; its folder is looked for again when it has moved.
struct ZoneSource {
    root: Root,
    kind: String,
    path: Option<PathBuf>,
}

impl Source for ZoneSource {
    fn name(&self) -> String {
        format!("zone {}", self.kind)
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let is_mine = |path: &PathBuf| text(&path.join("type")).is_ok_and(|t| t == self.kind);
        if !self.path.as_ref().is_some_and(is_mine) {
            self.path = self.root.numbered("sys/class/thermal", "thermal_zone").into_iter().find(is_mine);
        }
        let Some(path) = &self.path else {
            return Err(Miss::Absent { path: self.root.at(format!("sys/class/thermal/*/type = {}", self.kind)) });
        };
        let file = path.join("temp");
        temperature(file, What::Temperature(self.kind.clone())).map(|r| vec![r])
    }
}

fn temperature(file: PathBuf, what: What) -> Result<Reading, Miss> {
    let value = number(&file)?;
    if !PLAUSIBLE_MC.contains(&value) {
        return Err(Miss::Nonsense { path: file, text: value.to_string() });
    }
    Ok(Reading { what, value: value as f64 / 1000.0, source: file.display().to_string() })
}

/// A processor's own sensor chip; the hottest of its inputs counts.
struct Chip {
    name: String,
    path: PathBuf,
}

impl Source for Chip {
    fn name(&self) -> String {
        format!("hwmon {}", self.name)
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let what = || What::Temperature(self.name.clone());
        let inputs = (1..64).map(|n| self.path.join(format!("temp{n}_input"))).filter(|f| f.exists());
        let hottest = inputs.filter_map(|f| temperature(f, what()).ok()).max_by(|a, b| a.value.total_cmp(&b.value));
        hottest.map(|r| vec![r]).ok_or_else(|| Miss::Absent { path: self.path.join("temp1_input") })
    }
}

/// A fan with its cooling device: 255 of 255 and no revolutions means that it has failed.
struct Fan {
    root: Root,
    path: PathBuf,
}

impl Source for Fan {
    fn name(&self) -> String {
        "fan".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let speed = self.path.join("fan1_input");
        let mut readings = vec![Reading { what: What::FanSpeed, value: number(&speed)? as f64, source: speed.display().to_string() }];
        for path in self.root.numbered("sys/class/thermal", "cooling_device") {
            if text(&path.join("type")).is_ok_and(|t| t == "pwm-fan") {
                let file = path.join("cur_state");
                readings.push(Reading { what: What::FanLevel, value: number(&file)? as f64, source: file.display().to_string() });
            }
        }
        Ok(readings)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    fn pi5() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::PI5).unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn a_zone_is_found_again_after_it_was_renumbered() {
        let (dir, root) = pi5();
        let mut source = sources(&root).remove(0);
        assert_eq!(source.read().unwrap()[0].value, 52.9);
        let thermal = dir.path().join("sys/class/thermal");
        std::fs::rename(thermal.join("thermal_zone0"), thermal.join("thermal_zone7")).unwrap();
        assert_eq!(source.read().unwrap()[0].value, 52.9);
    }

    #[test]
    fn sentinels_are_no_temperatures() {
        let (dir, root) = pi5();
        let mut source = sources(&root).remove(0);
        for odd in ["-256000", "-40000", "127000", "", "nan"] {
            std::fs::write(dir.path().join("sys/class/thermal/thermal_zone0/temp"), odd).unwrap();
            assert!(matches!(source.read(), Err(Miss::Nonsense { .. })), "{odd}");
        }
    }

    #[test]
    fn trips_and_policy_are_read() {
        let (_dir, root) = pi5();
        let zone = &zones(&root)[0];
        assert_eq!((zone.critical_c(), zone.passive_c(), zone.caps_clock()), (Some(110.0), None, false));
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::RK3588_VENDOR).unwrap();
        let zone = &zones(&Root::new(dir.path()))[0];
        assert_eq!((zone.policy.as_str(), zone.passive_c(), zone.caps_clock()), ("power_allocator", Some(85.0), true));
    }
}
