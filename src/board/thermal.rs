//! Thermal zones with their trips, temperatures of hwmon chips, cooling devices and the fan.

use super::numbered::{COOLING, HWMON, Numbered, ZONE};
use super::root::{Miss, Root, number, text};
use super::{Reading, Sensor, What, those_read};
use serde::Serialize;
use std::path::PathBuf;

/// Readings outside are sentinels (`-256000` for a part that is off, `-40000`, `127000`) and count as missing.
const PLAUSIBLE_MC: std::ops::Range<i64> = -25_000..125_000;

/// Where a trip can stand that somebody has set.
const SET_C: std::ops::Range<f32> = 1.0..250.0;

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
    /// It ends this many kelvin below; some governors ignore it.
    pub hysteresis_k: f32,
    /// Whether a cooling device is bound to it. Without one the kernel passes it by.
    pub cools: bool,
}

/// All zones, with what the kernel says of them.
pub fn zones(root: &Root) -> Vec<Zone> {
    root.numbered("sys/class/thermal", "thermal_zone")
        .iter()
        .map(|path| {
            // Which trip each of the zone's cooling devices is for.
            let bound: Vec<i64> = (0..32).map_while(|n| number(&path.join(format!("cdev{n}_trip_point"))).ok()).collect();
            let trip = |n: u32| {
                let kelvin = |what: &str| number(&path.join(format!("trip_point_{n}_{what}"))).map(|mk| mk as f32 / 1000.0);
                let kind = text(&path.join(format!("trip_point_{n}_type"))).unwrap_or_default();
                let cools = bound.contains(&n.into());
                Some(Trip { kind, celsius: kelvin("temp").ok()?, hysteresis_k: kelvin("hyst").unwrap_or(0.0), cools })
            };
            // Trips that nobody has set stand at 0 or below absolute zero.
            let trips = (0..32).map_while(trip).filter(|t| SET_C.contains(&t.celsius));
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
    /// Where throttling begins by the kernel's word: the passive trip that it holds, for `power_allocator` the highest (those below only
    /// switch it on), for all other policies the lowest that has something to cool with; any, where the kernel binds none.
    pub fn passive_c(&self) -> Option<f32> {
        let passive = || self.trips.iter().filter(|t| t.kind == "passive");
        if self.policy == "power_allocator" {
            return passive().map(|t| t.celsius).reduce(f32::max);
        }
        let cooling = passive().filter(|t| t.cools).map(|t| t.celsius).reduce(f32::min);
        cooling.or_else(|| passive().map(|t| t.celsius).reduce(f32::min))
    }

    pub fn critical_c(&self) -> Option<f32> {
        self.trips.iter().filter(|t| t.kind == "critical").map(|t| t.celsius).reduce(f32::min)
    }

    /// Whether the kernel takes clock away by this zone.
    pub fn caps_clock(&self) -> bool {
        self.cooled_by.iter().any(|c| is_clock(c))
    }
}

/// Whether a cooling device of this type holds a processor's clock: `cpufreq-cpu4`, `thermal-cpufreq-0` (older kernels), `Processor`
/// (ACPI), `intel_powerclamp`.
pub fn is_clock(cooling: &str) -> bool {
    cooling.contains("cpufreq") || cooling.starts_with("Processor") || cooling.starts_with("intel_powerclamp")
}

pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    let mut all: Vec<Box<dyn Sensor>> = Vec::new();
    let zones = Numbered::all(root, ZONE);
    let has_zone = |name: &str| zones.iter().any(|(kind, _)| kind.replace('-', "_") == name);
    for (name, at) in Numbered::all(root, HWMON) {
        match name.as_str() {
            "coretemp" | "k10temp" | "zenpower" => all.push(Box::new(Chip(at))),
            // Many zones have a twin here; one without its zone counts.
            twin if twin.ends_with("_thermal") && !has_zone(twin) => all.push(Box::new(Chip(at))),
            "pwmfan" => {
                let level = Numbered::all(root, COOLING).into_iter().find(|(kind, _)| kind == FAN).map(|(_, level)| level);
                all.push(Box::new(Fan { at, level }));
            }
            _ => (),
        }
    }
    all.extend(zones.into_iter().map(|(_, at)| Box::new(ZoneSource(at)) as Box<dyn Sensor>));
    let cooling = Numbered::all(root, COOLING).into_iter().filter(|(kind, _)| kind != FAN);
    all.extend(cooling.map(|(_, at)| Box::new(Cooling(at)) as Box<dyn Sensor>));
    all
}

/// A thermometer of the room: a file with millidegrees, as zones, hwmon and 1-wire sensors (`…/28-*/temperature`) have it.
pub fn room(file: PathBuf) -> Box<dyn Sensor> {
    Box::new(RoomSource(file))
}

struct RoomSource(PathBuf);

impl Sensor for RoomSource {
    fn name(&self) -> String {
        "the room's thermometer".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        Ok(vec![temperature(self.0.clone(), What::Room)?])
    }
}

/// A zone by its type.
struct ZoneSource(Numbered);

impl Sensor for ZoneSource {
    fn name(&self) -> String {
        format!("zone {}", self.0.label())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = self.0.path()?.join("temp");
        Ok(vec![temperature(file, What::Temperature(self.0.label()))?])
    }
}

fn temperature(file: PathBuf, what: What) -> Result<Reading, Miss> {
    let value = number(&file)?;
    if !PLAUSIBLE_MC.contains(&value) {
        return Err(Miss::Nonsense { path: file, text: value.to_string() });
    }
    Ok(Reading::new(what, value as f64 / 1000.0, file.display()))
}

/// A processor's own sensor chip; the hottest of its inputs counts.
struct Chip(Numbered);

impl Sensor for Chip {
    fn name(&self) -> String {
        format!("hwmon {}", self.0.label())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let what = What::Temperature(self.0.label());
        let path = self.0.path()?;
        let inputs = (1..64).map(|n| path.join(format!("temp{n}_input"))).filter(|f| f.exists());
        let read = those_read(inputs.map(|f| temperature(f, what.clone())))?;
        let hottest = read.into_iter().max_by(|a, b| a.value.total_cmp(&b.value));
        hottest.map(|hottest| vec![hottest]).ok_or_else(|| Miss::Absent { path: path.join("temp1_input") })
    }
}

/// What the kernel takes away or blows to cool: its level, 0 for nothing.
struct Cooling(Numbered);

impl Sensor for Cooling {
    fn name(&self) -> String {
        format!("cooling device {}", self.0.label())
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = self.0.path()?.join("cur_state");
        Ok(vec![Reading::new(What::Cooling(self.0.label()), number(&file)? as f64, file.display())])
    }
}

/// The type of a fan's cooling device.
const FAN: &str = "pwm-fan";

/// A fan with its cooling device.
struct Fan {
    at: Numbered,
    level: Option<Numbered>,
}

impl Sensor for Fan {
    fn name(&self) -> String {
        "fan".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let of = |file: PathBuf, what, one: f64| -> Result<Reading, Miss> {
            Ok(Reading::new(what, number(&file)? as f64 / one, file.display()))
        };
        let path = self.at.path()?;
        // Not every fan has a tachometer.
        let (speed, duty) = (path.join("fan1_input"), path.join("pwm1"));
        let speed = speed.exists().then(|| of(speed, What::FanSpeed, 1.0));
        let duty = duty.exists().then(|| of(duty, What::FanDuty, 255.0));
        let level = self.level.as_mut().map(|level| of(level.path()?.join("cur_state"), What::FanLevel, 1.0));
        those_read([speed, duty, level].into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, pi5};
    use super::*;

    fn zone(root: &Root) -> Box<dyn Sensor> {
        sources(root).into_iter().find(|s| s.name() == "zone cpu-thermal").unwrap()
    }

    #[test]
    fn a_zone_is_found_again_after_it_was_renumbered() {
        let (dir, root) = pi5();
        let mut source = zone(&root);
        assert_eq!(source.read().unwrap()[0].value, 52.9);
        let thermal = dir.path().join("sys/class/thermal");
        std::fs::rename(thermal.join("thermal_zone0"), thermal.join("thermal_zone7")).unwrap();
        assert_eq!(source.read().unwrap()[0].value, 52.9);
    }

    #[test]
    fn a_fan_without_one_of_its_files_tells_the_others() {
        let (dir, root) = pi5();
        let mut fan = sources(&root).into_iter().find(|s| s.name() == "fan").unwrap();
        let mut told = || fan.read().map(|readings| readings.into_iter().map(|r| r.what).collect::<Vec<_>>());
        assert_eq!(told().unwrap(), [What::FanSpeed, What::FanDuty, What::FanLevel]);
        let chip = dir.path().join("sys/class/hwmon/hwmon1");
        std::fs::write(chip.join("fan1_input"), "").unwrap();
        assert_eq!(told().unwrap(), [What::FanDuty, What::FanLevel]);
        std::fs::remove_file(chip.join("pwm1")).unwrap();
        std::fs::remove_dir_all(dir.path().join("sys/class/thermal/cooling_device0")).unwrap();
        assert!(matches!(told(), Err(Miss::Nonsense { .. })), "nothing was read");
    }

    #[test]
    fn sentinels_are_no_temperatures() {
        let (dir, root) = pi5();
        let mut source = zone(&root);
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

    #[test]
    fn throttling_begins_at_the_trip_that_the_policy_heeds() {
        let dir = tempfile::tempdir().unwrap();
        // An RK3399: the big cores give way at 70 °C, all at 75 °C.
        let zone = dir.path().join("sys/class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone).unwrap();
        let put = |file: &str, text: &str| std::fs::write(zone.join(file), text).unwrap();
        put("type", "cpu-thermal");
        for (n, mc, kind) in [(0, 70_000, "passive"), (1, 75_000, "passive"), (2, 95_000, "critical")] {
            put(&format!("trip_point_{n}_temp"), &mc.to_string());
            put(&format!("trip_point_{n}_type"), kind);
        }
        let passive_c = |policy: &str| {
            put("policy", policy);
            zones(&Root::new(dir.path()))[0].passive_c()
        };
        assert_eq!((passive_c("step_wise"), passive_c("power_allocator")), (Some(70.0), Some(75.0)));
        // A kernel that binds cooling devices to the upper trip only, as an earlier RK3588's: the lower one does nothing.
        put("cdev0_trip_point", "1");
        put("cdev1_trip_point", "1");
        assert_eq!(passive_c("step_wise"), Some(75.0));
        put("cdev1_trip_point", "0");
        assert_eq!(passive_c("step_wise"), Some(70.0));
    }
}
