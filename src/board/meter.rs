//! Watts, each with the place where they are metered: figures from different places are never compared. Also the supply's alarm.

use super::root::{Miss, Root, number, text};
use super::{Reading, Source, What};
use std::path::PathBuf;
use std::time::Instant;

pub fn sources(root: &Root) -> Vec<Box<dyn Source>> {
    let mut all: Vec<Box<dyn Source>> = Vec::new();
    for path in root.numbered("sys/class/hwmon", "hwmon") {
        match text(&path.join("name")).unwrap_or_default().as_str() {
            "ina3221" => all.push(Box::new(Ina3221 { path })),
            "rpi_volt" => all.push(Box::new(SupplyAlarm(path.join("in0_lcrit_alarm")))),
            _ => (),
        }
    }
    let package = root.at("sys/class/powercap/intel-rapl:0");
    let package = if package.exists() { package } else { root.at("sys/devices/virtual/powercap/intel-rapl/intel-rapl:0") };
    if package.join("energy_uj").exists() {
        all.push(Box::new(Rapl { path: package, last: None }));
    }
    all
}

/// Jetson's meter: millivolt and milliampere of each labelled rail.
struct Ina3221 {
    path: PathBuf,
}

impl Source for Ina3221 {
    fn name(&self) -> String {
        "ina3221".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let mut readings = Vec::new();
        for n in 1..=3 {
            let Ok(label) = text(&self.path.join(format!("in{n}_label"))) else { continue };
            let volts = number(&self.path.join(format!("in{n}_input")))? as f64 / 1000.0;
            let file = self.path.join(format!("curr{n}_input"));
            let amperes = number(&file)? as f64 / 1000.0;
            readings.push(Reading { what: What::Power(label), value: volts * amperes, source: file.display().to_string() });
        }
        if readings.is_empty() { Err(Miss::Absent { path: self.path.join("in1_label") }) } else { Ok(readings) }
    }
}

/// A Raspberry Pi's under-voltage bit as the kernel passes it on, readable by all.
struct SupplyAlarm(PathBuf);

impl Source for SupplyAlarm {
    fn name(&self) -> String {
        "supply alarm".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        Ok(vec![Reading { what: What::UnderVoltage, value: number(&self.0)? as f64, source: self.0.display().to_string() }])
    }
}

/// x86: an energy counter in microjoules that wraps. The first read gives no watts yet.
struct Rapl {
    path: PathBuf,
    last: Option<(Instant, i64)>,
}

impl Source for Rapl {
    fn name(&self) -> String {
        "rapl".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let file = self.path.join("energy_uj");
        let now = number(&file)?;
        let range = number(&self.path.join("max_energy_range_uj")).unwrap_or(i64::MAX);
        let at = Instant::now();
        let last = self.last.replace((at, now));
        let Some((then, before)) = last else { return Ok(Vec::new()) };
        let seconds = at.duration_since(then).as_secs_f64();
        if seconds < 0.05 {
            return Ok(Vec::new());
        }
        let watts = risen(before, now, range) as f64 / 1e6 / seconds;
        Ok(vec![Reading { what: What::Power("package".into()), value: watts, source: file.display().to_string() }])
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
    fn a_jetson_tells_its_rails() {
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::JETSON).unwrap();
        let readings = sources(&Root::new(dir.path()))[0].read().unwrap();
        let input = readings.iter().find(|r| r.what == What::Power("VDD_IN".into())).unwrap();
        assert!((input.value - 7.5).abs() < 0.1, "{}", input.value);
    }
}
