//! What others are told of the governor: plain fields that `serve` and the daemon format as JSON, D-Bus properties and metrics.

use super::observation::{Decision, Observation};
use crate::units::{Celsius, Hertz, TokensPerSecond, Watts};
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
}
