//! Watts, each with the place where they are metered: figures from different places are never compared. Also the supply's alarm.

use super::numbered::{HWMON, Numbered};
use super::root::{Miss, Root, number, text};
use super::{Reading, Sensor, What, those_read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// No board or PC draws more; a counter that was set back looks like it.
const WATTS_MAX: f64 = 2000.0;

pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    let mut all: Vec<Box<dyn Sensor>> = Vec::new();
    for (name, at) in Numbered::all(root, HWMON) {
        match name.as_str() {
            "ina3221" => all.push(Box::new(Ina3221(at))),
            "rpi_volt" => all.push(Box::new(SupplyAlarm(at))),
            _ => (),
        }
    }
    // The class folder has links to all domains, `intel-rapl:0:1` among them; whole packages have one number.
    for dir in ["sys/class/powercap", "sys/devices/virtual/powercap/intel-rapl"] {
        let packages = root.numbered(dir, "intel-rapl:");
        if !packages.is_empty() {
            all.extend(packages.into_iter().map(|path| Box::new(Rapl::new(path)) as Box<dyn Sensor>));
            break;
        }
    }
    all
}

/// Jetson's meter: millivolt and milliampere of each labelled rail. A rail whose channel is off answers with an error.
struct Ina3221(Numbered);

impl Ina3221 {
    fn rail(path: &Path, n: u32, label: String) -> Result<Reading, Miss> {
        let volts = number(&path.join(format!("in{n}_input")))? as f64 / 1000.0;
        let file = path.join(format!("curr{n}_input"));
        let amperes = number(&file)? as f64 / 1000.0;
        Ok(Reading::new(What::Power(label), volts * amperes, file.display()))
    }
}

impl Sensor for Ina3221 {
    fn name(&self) -> String {
        self.0.label()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let path = self.0.path()?;
        let labelled = (1..=3).filter_map(|n| Some((n, text(&path.join(format!("in{n}_label"))).ok()?)));
        let readings = those_read(labelled.map(|(n, label)| Ina3221::rail(path, n, label)))?;
        if readings.is_empty() { Err(Miss::Absent { path: path.join("in1_label") }) } else { Ok(readings) }
    }

    fn is_meter(&self) -> bool {
        true
    }
}

/// A Raspberry Pi's under-voltage bit as the kernel passes it on, readable by all.
struct SupplyAlarm(Numbered);

impl Sensor for SupplyAlarm {
    fn name(&self) -> String {
        "supply alarm".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = self.0.path()?.join("in0_lcrit_alarm");
        Ok(vec![Reading::new(What::UnderVoltage, number(&file)? as f64, file.display())])
    }
}

/// x86: an energy counter in microjoules that wraps. The first read gives no watts yet.
struct Rapl {
    path: PathBuf,
    /// `package-0`, `psys` …
    place: String,
    last: Option<(Instant, i64)>,
    microjoules: i64,
}

impl Rapl {
    fn new(path: PathBuf) -> Rapl {
        let place = text(&path.join("name")).unwrap_or_else(|_| "package".into());
        Rapl { path, place, last: None, microjoules: 0 }
    }
}

impl Sensor for Rapl {
    fn name(&self) -> String {
        format!("rapl {}", self.place)
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = self.path.join("energy_uj");
        let now = number(&file)?;
        let range = number(&self.path.join("max_energy_range_uj")).unwrap_or(i64::MAX);
        let at = Instant::now();
        let Some((then, before)) = self.last.replace((at, now)) else { return Ok(Vec::new()) };
        let (risen, seconds) = (risen(before, now, range), at.duration_since(then).as_secs_f64());
        let watts = risen as f64 / 1e6 / seconds.max(1e-3);
        if watts > WATTS_MAX {
            return Err(Miss::Nonsense { path: file, text: format!("{before}, then {now} after {seconds:.1} s") });
        }
        self.microjoules = self.microjoules.saturating_add(risen);
        let source = file.display();
        Ok(vec![
            Reading::new(What::Power(self.place.clone()), watts, &source),
            Reading::new(What::Energy(self.place.clone()), self.microjoules as f64 / 1e6, source),
        ])
    }

    fn is_meter(&self) -> bool {
        true
    }
}

/// How far a counter rose that starts again at 0 after `range`.
fn risen(before: i64, now: i64, range: i64) -> i64 {
    if now >= before { now - before } else { now.saturating_add(range.saturating_sub(before)) }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    #[test]
    fn a_counter_that_wraps_still_rises() {
        assert_eq!(risen(10, 25, 100), 15);
        assert_eq!(risen(90, 5, 100), 15);
    }

    #[test]
    fn rapl_counts_through_its_wrap_and_refuses_a_counter_that_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sys/class/powercap/intel-rapl:0");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::create_dir_all(dir.path().join("sys/class/powercap/intel-rapl:0:0")).unwrap();
        let put = |file: &str, text: &str| std::fs::write(path.join(file), text).unwrap();
        put("name", "package-0\n");
        put("max_energy_range_uj", "262143328850\n");
        put("energy_uj", "262143328840\n");
        let mut all = sources(&Root::new(dir.path()));
        assert_eq!(all.len(), 1, "a domain within the package is no place of its own");
        assert!(all[0].read().unwrap().is_empty());
        put("energy_uj", "40\n");
        let energy = |r: &[Reading]| r.iter().find(|r| r.what == What::Energy("package-0".into())).map(|r| r.value);
        assert_eq!(energy(&all[0].read().unwrap()), Some(50e-6));
        put("energy_uj", "20\n");
        assert!(matches!(all[0].read(), Err(Miss::Nonsense { .. })), "a whole turn within a moment");
        put("energy_uj", "21\n");
        assert_eq!(energy(&all[0].read().unwrap()), Some(51e-6));
    }

    #[test]
    fn a_jetson_tells_its_rails() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::JETSON).unwrap();
        let readings = sources(&Root::new(dir.path()))[0].read().unwrap();
        let input = readings.iter().find(|r| r.what == What::Power("VDD_IN".into())).unwrap();
        assert!((input.value - 7.5).abs() < 0.1, "{}", input.value);
    }

    #[test]
    fn a_rail_that_is_off_takes_nothing_from_the_others() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::JETSON).unwrap();
        let mut source = sources(&Root::new(dir.path())).remove(0);
        let chip = dir.path().join("sys/class/hwmon/hwmon0");
        std::fs::remove_file(chip.join("curr2_input")).unwrap();
        let places: Vec<What> = source.read().unwrap().into_iter().map(|r| r.what).collect();
        assert_eq!(places, ["VDD_IN", "VDD_SOC"].map(|rail| What::Power(rail.into())));
        std::fs::remove_file(chip.join("in1_input")).unwrap();
        std::fs::remove_file(chip.join("in3_input")).unwrap();
        assert!(matches!(source.read(), Err(Miss::Absent { path }) if path.ends_with("in1_input")));
    }
}
