//! What clients are told of board and governor: the fields of the bus, the report of `/v1/thermal`, and the metrics, whose durations and
//! energy are counters, so that no scrape misses anything.

use crate::board::What;
use crate::board::poll::{ASIDE, Latest, age_s};
use crate::board::sense::FRESH_S;
use crate::governor::report::Report;
use crate::governor::{Decision, Degraded, Observation};
use crate::serve::counts::{family, row};
use crate::serve::thermal::{Account, Thermal};
use crate::units::{Celsius, Hertz};
use serde_json::{Value, json};
use std::time::Instant;

/// Reasons for which a board is held back, as the label `reason` has them.
const REASONS: [&str; 4] = ["thermal", "under-voltage", "power-limit", "stuck-cap"];

/// What is counted since the start.
#[derive(Debug, Default)]
pub struct Told {
    throttled_s: [f64; REASONS.len()],
}

impl Told {
    pub fn thermal(&mut self, latest: Latest, now: Instant, seen: Observation, report: Report) -> Thermal {
        let held_back = held_back(&seen, &report.decision);
        for (seconds, _) in self.throttled_s.iter_mut().zip(held_back).filter(|(_, held)| *held) {
            *seconds += seen.dt.0;
        }
        let number = |v: f32| f64::from(v);
        Thermal {
            temperature: report.temperature.map(|t| number(t.0)),
            clock: report.measured.or(report.requested).map(|f| f.0),
            level: report.level.clone(),
            cause: report.cause.clone(),
            degraded: report.degraded.clone(),
            headroom: report.headroom(0).map(number),
            headroom_10_s: report.headroom(10).map(number),
            headroom_60_s: report.headroom(60).map(number),
            speed: number(report.speed.now.0),
            peak: number(report.speed.peak.0),
            sustained: number(report.speed.sustained.0),
            account: Some(Box::new(Moment { latest, now, seen, report, held_back, throttled_s: self.throttled_s })),
        }
    }
}

/// All that was known at one moment, to be written when somebody asks.
#[derive(Debug)]
struct Moment {
    latest: Latest,
    now: Instant,
    seen: Observation,
    report: Report,
    held_back: [bool; REASONS.len()],
    throttled_s: [f64; REASONS.len()],
}

impl Account for Moment {
    fn report(&self) -> Value {
        let readings = Readings::of(&self.latest, self.now);
        // By way of text, which has 59.8 where the nearest number of twice the bits is 59.79999923706055.
        let text = serde_json::to_string(&self.report).unwrap_or_default();
        let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
        let by_name = |rows: &[(String, f64)]| Value::Object(rows.iter().map(|(name, v)| (name.clone(), json!(v))).collect());
        if let Value::Object(fields) = &mut value {
            fields.insert("zones".into(), by_name(&readings.zones));
            fields.insert("watts".into(), by_name(&readings.power));
            let throttled = REASONS.iter().zip(self.throttled_s).map(|(reason, s)| ((*reason).to_owned(), s)).collect::<Vec<_>>();
            fields.insert("throttled_seconds".into(), by_name(&throttled));
        }
        value
    }

    fn metrics(&self) -> String {
        let readings = Readings::of(&self.latest, self.now);
        let decision = &self.report.decision;
        let mut out = String::new();
        let celsius = |t: Celsius| f64::from(t.0);
        let hertz = |f: Hertz| f.0 as f64;
        let zones = labelled("zone", &readings.zones);
        gauge(&mut out, "hearth_soc_temperature_celsius", "Temperatures of the processor and what lies around it.", &zones);
        let skin: Vec<_> = self.seen.skin.map(|t| (String::new(), celsius(t.value))).into_iter().collect();
        gauge(&mut out, "hearth_skin_temperature_celsius", "Temperature of case or skin.", &skin);
        gauge(&mut out, "hearth_cpu_frequency_hertz", "Clock by cluster, as asked for and as measured.", &readings.clocks);
        let reasons = |values: [f64; REASONS.len()]| -> Vec<(String, f64)> {
            REASONS.iter().zip(values).map(|(reason, v)| (format!("{{reason=\"{reason}\"}}"), v)).collect()
        };
        gauge(
            &mut out,
            "hearth_throttled",
            "1 while the board is held back for this reason.",
            &reasons(self.held_back.map(|held| f64::from(u8::from(held)))),
        );
        counter(&mut out, "hearth_throttled_seconds_total", "Time in which the board was held back.", &reasons(self.throttled_s));
        let headroom: Vec<_> = decision.headroom.map(|h| (String::new(), f64::from(h))).into_iter().collect();
        gauge(&mut out, "hearth_thermal_headroom_ratio", "1 where throttling begins, 0 at 30 K below.", &headroom);
        gauge(&mut out, "hearth_power_watts", "Power at the meter's place.", &labelled("place", &readings.power));
        counter(
            &mut out,
            "hearth_energy_joules_total",
            "Energy at the meter's place since the start.",
            &labelled("place", &readings.energy),
        );
        let phases = [("prefill", decision.prefill), ("decode", decision.decode)];
        let mut limits: Vec<_> =
            phases.iter().map(|(phase, l)| (format!("{{kind=\"threads\",phase=\"{phase}\"}}"), f64::from(l.threads))).collect();
        limits.extend(phases.iter().filter_map(|(phase, l)| Some((format!("{{kind=\"clock_hertz\",phase=\"{phase}\"}}"), hertz(l.cap?)))));
        gauge(&mut out, "hearth_governor_limit", "Limits that the governor sets; no row where there is none.", &limits);
        out
    }
}

/// By reason, in the order of [`REASONS`].
fn held_back(seen: &Observation, decision: &Decision) -> [bool; REASONS.len()] {
    let flags = seen.flags.unwrap_or_default();
    [
        decision.degraded == Degraded::HighTemperature || flags.thermal,
        flags.under_voltage,
        flags.power_limit,
        decision.degraded == Degraded::StuckCap,
    ]
}

/// Fresh readings by name.
#[derive(Debug, Default)]
struct Readings {
    zones: Vec<(String, f64)>,
    /// Labels and Hz.
    clocks: Vec<(String, f64)>,
    power: Vec<(String, f64)>,
    energy: Vec<(String, f64)>,
}

impl Readings {
    fn of(latest: &Latest, now: Instant) -> Readings {
        let mut all = Readings::default();
        let fresh = latest.readings.values().filter(|(reading, at)| is_present(reading.aside, age_s(*at, now)));
        for (what, value) in fresh.map(|(reading, _)| (&reading.what, reading.value)) {
            let clock =
                |policy: &str, kind: &str| (format!("{{cluster=\"{}\",kind=\"{kind}\"}}", policy.trim_start_matches("policy")), value);
            match what {
                What::Temperature(zone) => all.zones.push((zone.clone(), value)),
                What::Requested(policy) => all.clocks.push(clock(policy, "requested")),
                What::Measured(policy) => all.clocks.push(clock(policy, "measured")),
                What::Power(place) => all.power.push((place.clone(), value)),
                What::Energy(place) => all.energy.push((place.clone(), value)),
                _ => {}
            }
        }
        all
    }
}

/// Whether a reading of that age is still the present; one aside is until it is asked again.
fn is_present(aside: bool, age_s: f64) -> bool {
    age_s <= if aside { ASIDE.as_secs_f64() + FRESH_S } else { FRESH_S }
}

/// Names come from kernel and device tree: what would end a label is left out.
fn labelled(label: &str, rows: &[(String, f64)]) -> Vec<(String, f64)> {
    let clean = |name: &str| name.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect::<String>();
    rows.iter().map(|(name, value)| (format!("{{{label}=\"{}\"}}", clean(name)), *value)).collect()
}

fn gauge(out: &mut String, name: &str, help: &str, rows: &[(String, f64)]) {
    metric(out, "gauge", name, help, rows);
}

fn counter(out: &mut String, name: &str, help: &str, rows: &[(String, f64)]) {
    metric(out, "counter", name, help, rows);
}

/// A metric without rows is not mentioned.
fn metric(out: &mut String, kind: &str, name: &str, help: &str, rows: &[(String, f64)]) {
    if rows.is_empty() {
        return;
    }
    family(out, name, kind, help);
    for (labels, value) in rows {
        row(out, &format!("{name}{labels}"), *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Reading;
    use std::time::Duration;

    #[test]
    fn what_stands_aside_is_present_until_it_is_asked_again_and_all_else_for_seconds() {
        let present = |aside, age_s| {
            let now = Instant::now() + Duration::from_secs(3600);
            let reading = Reading { aside, ..Reading::new(What::Power("pmic".into()), 5.0, "test") };
            let mut latest = Latest::default();
            latest.readings.insert(reading.what.clone(), (reading, now - Duration::from_secs(age_s)));
            Readings::of(&latest, now).power == [("pmic".to_owned(), 5.0)]
        };
        assert_eq!([present(true, 30), present(true, 36), present(false, 4), present(false, 6)], [true, false, true, false]);
    }
}
