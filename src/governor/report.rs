//! What others are told of the governor: plain fields that `serve` and the daemon format as JSON, D-Bus properties and metrics.

use super::observation::{Decision, Observation};
use crate::units::{Celsius, Hertz, Seconds, TokensPerSecond, Watts};
use serde::{Deserialize, Serialize};

/// The state of board and governor at one moment; `GET /v1/thermal` is this as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub temperature: Option<Celsius>,
    pub skin: Option<Celsius>,
    pub requested: Option<Hertz>,
    pub measured: Option<Hertz>,
    pub power: Option<Watts>,
    /// The meter's place: `supply`, `pmic`, `rail`, `package` …
    pub power_place: Option<String>,
    /// `real`, `pc` or `simulated`.
    pub source: String,
    pub speed: Speed,
    /// Words for people, such as `board-throttles-well`; see [`super::observation::Cause`].
    pub level: String,
    pub cause: String,
    pub degraded: String,
    pub mechanism: String,
    pub decision: Decision,
}

/// Tokens per second: now, at best, and over the last minutes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Speed {
    pub now: TokensPerSecond,
    pub peak: TokensPerSecond,
    pub sustained: TokensPerSecond,
}

/// Counts that only rise, for the metrics: a scrape in between misses nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Seconds throttled by reason: `thermal`, `under-voltage`, `power-limit`.
    pub throttled: [(String, Seconds); 3],
    /// Energy since start, with the meter's place.
    pub joules: f64,
}

impl Report {
    pub fn new(seen: &Observation, decision: Decision, speed: Speed, source: &str, power_place: Option<String>) -> Report {
        Report {
            temperature: seen.soc.map(|r| r.value),
            skin: seen.skin.map(|r| r.value),
            requested: seen.requested,
            measured: seen.measured.map(|r| r.value),
            power: seen.power.map(|r| r.value),
            power_place,
            source: source.to_owned(),
            speed,
            level: decision.level.word(),
            cause: decision.cause.word(),
            degraded: decision.degraded.word(),
            mechanism: decision.mechanism.word(),
            decision,
        }
    }

    /// Headroom `seconds` ahead for `Governor1.Headroom`: of the two horizons the nearer; `None` while it is unknown.
    pub fn headroom(&self, seconds: u32) -> Option<f32> {
        match seconds {
            0..=4 => self.decision.headroom,
            5..=34 => self.decision.in_10_s.map(|f| f.headroom),
            _ => self.decision.in_60_s.map(|f| f.headroom),
        }
    }

    /// Gauges in the Prometheus text format, without counters.
    pub fn metrics(&self) -> String {
        let mut out = String::new();
        let mut gauge = |name: &str, help: &str, rows: &[(String, Option<f64>)]| {
            if rows.iter().all(|r| r.1.is_none()) {
                return;
            }
            out += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in rows {
                if let Some(v) = value {
                    out += &format!("{name}{labels} {v}\n");
                }
            }
        };
        let c = |t: Option<Celsius>| t.map(|t| t.0 as f64);
        let hz = |f: Option<Hertz>| f.map(|f| f.0 as f64);
        gauge("hearth_soc_temperature_celsius", "Temperature of the die.", &[("{zone=\"soc\"}".into(), c(self.temperature))]);
        gauge("hearth_skin_temperature_celsius", "Temperature of case or skin.", &[(String::new(), c(self.skin))]);
        gauge("hearth_cpu_frequency_hertz", "Clock, as asked for and as measured.", &[
            ("{cluster=\"0\",kind=\"requested\"}".into(), hz(self.requested)),
            ("{cluster=\"0\",kind=\"measured\"}".into(), hz(self.measured)),
        ]);
        let throttled = [("thermal", "high-operating-temperature"), ("under-voltage", "under-voltage"), ("power-limit", "power-limit"), ("stuck-cap", "stuck-cap")];
        let rows: Vec<_> = throttled.iter().map(|(reason, word)| (format!("{{reason=\"{reason}\"}}"), Some(f64::from(u8::from(self.degraded == *word))))).collect();
        gauge("hearth_throttled", "1 while the board is held back for this reason.", &rows);
        gauge("hearth_thermal_headroom_ratio", "1 = throttling begins, 0 = 30 K below.", &[(String::new(), self.decision.headroom.map(f64::from))]);
        let place = self.power_place.as_deref().unwrap_or("unknown");
        gauge("hearth_power_watts", "Power at the meter's place.", &[(format!("{{place=\"{place}\"}}"), self.power.map(|w| w.0 as f64))]);
        let d = &self.decision;
        let phases = [("prefill", d.prefill), ("decode", d.decode)];
        let mut rows: Vec<_> = phases.iter().map(|(p, l)| (format!("{{kind=\"threads\",phase=\"{p}\"}}"), Some(l.threads as f64))).collect();
        rows.extend(phases.iter().map(|(p, l)| (format!("{{kind=\"clock_hertz\",phase=\"{p}\"}}"), l.cap.map(|f| f.0 as f64))));
        gauge("hearth_governor_limit", "Limits of the governor; no row = none.", &rows);
        out
    }
}
