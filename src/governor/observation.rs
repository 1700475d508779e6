//! What the governor is told each tick and what it answers. Plain values; whoever owns the board or the simulator fills them in.

use crate::units::{Celsius, Hertz, Seconds, Watts};
use serde::{Deserialize, Serialize};

/// A value with the time since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aged<T> {
    pub value: T,
    pub age: Seconds,
}

/// What the engine does for most of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Idle,
    Prefill,
    Decode,
}

impl Phase {
    /// Where a phase stands in what is kept for both: 0 prefill, 1 decode.
    pub(super) fn index(self) -> Option<usize> {
        match self {
            Phase::Idle => None,
            Phase::Prefill => Some(0),
            Phase::Decode => Some(1),
        }
    }
}

/// Bits that the firmware or the kernel sets. `None` where the board does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    pub under_voltage: bool,
    pub power_limit: bool,
    pub thermal: bool,
}

/// One look at the board and the engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Time since the last observation.
    pub dt: Seconds,
    /// The hottest zone that throttling can follow on the die. `None`: no sensor answers.
    pub soc: Option<Aged<Celsius>>,
    /// Case or skin, where there is such a sensor.
    pub skin: Option<Aged<Celsius>>,
    pub requested: Option<Hertz>,
    /// The true clock, not the request. `None` where only the request can be read.
    pub measured: Option<Aged<Hertz>>,
    pub flags: Option<Flags>,
    pub fan_level: Option<u8>,
    /// The fan is told to turn and does not.
    pub fan_failed: bool,
    /// At the board's supply, or the nearest to it that is metered.
    pub power: Option<Aged<Watts>>,
    pub phase: Phase,
    /// Work left in this phase at the present speed, where it is known (a prompt's length is).
    pub remaining: Option<Seconds>,
    /// Tokens finished in this tick, in this phase; a share of one for a chunk that is under way.
    pub tokens: f32,
    /// Time of this tick spent on them.
    pub busy: Seconds,
    /// Threads that did it.
    pub threads: u8,
    /// PSI: share of the last 10 s in which something waited for memory.
    pub memory_pressure: f32,
    /// Whether a clock cap can be written.
    pub may_cap: bool,
    /// The machine was asleep since the last tick, or the clock jumped.
    pub resumed: bool,
    /// Somebody asks for power saving (power-profiles-daemon, battery).
    pub power_saver: bool,
    /// A client holds `performance`.
    pub hold_performance: bool,
}

impl Observation {
    /// Numbers that are none count as zero, so that nothing below need ask.
    pub(super) fn sane(&self) -> Observation {
        let number = |x: f64, most: f64| if x.is_finite() { x.clamp(0.0, most) } else { 0.0 };
        let dt = number(self.dt.0, 10.0);
        Observation {
            dt: Seconds(dt),
            remaining: self.remaining.map(|s| Seconds(number(s.0, 1e6))),
            tokens: number(self.tokens as f64, 1e6) as f32,
            busy: Seconds(number(self.busy.0, dt)),
            memory_pressure: number(self.memory_pressure as f64, 1.0) as f32,
            power: self.power.filter(|p| (0.0..2000.0).contains(&p.value.0)),
            measured: self.measured.filter(|m| (10_000_000..20_000_000_000).contains(&m.value.0)),
            requested: self.requested.filter(|f| (10_000_000..20_000_000_000).contains(&f.0)),
            ..self.clone()
        }
    }
}

/// Where the governor stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Not enough seen yet.
    #[default]
    Learning,
    /// Nothing limits the board.
    Free,
    /// The board throttles itself well: let it.
    Ride,
    /// Held just below the board's own throttle, which is worse.
    Stay,
    /// Held at the speed that costs least energy.
    Eco,
    /// No thermometer: stock behaviour.
    Blind,
}

/// Why the decision is as it is; the words are part of the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    #[default]
    Start,
    PolicyOff,
    PolicyObserve,
    Cool,
    BoardThrottlesWell,
    MechanismUnsure,
    StayingBelowCliff,
    StayingBelowSteps,
    StayingBelowSkinLimit,
    OwnCeiling,
    EcoSearch,
    EcoKnee,
    ThreadProbe,
    RefillBurst,
    /// One thread alone, or half of them, for a while: the board holds its low clock and would not let go otherwise.
    BreakingFree,
    HarmTrial,
    HarmSeen,
    SensorLost,
    TooHot,
    CannotCap,
}

/// What keeps the board from its best, as `Governor1.Degraded` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Degraded {
    #[default]
    #[serde(rename = "")]
    No,
    #[serde(rename = "high-operating-temperature")]
    HighTemperature,
    #[serde(rename = "under-voltage")]
    UnderVoltage,
    #[serde(rename = "power-limit")]
    PowerLimit,
    #[serde(rename = "stuck-cap")]
    StuckCap,
    #[serde(rename = "sensor-lost")]
    SensorLost,
}

/// How the board's own software throttles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Not throttled yet.
    #[default]
    Unknown,
    /// A cut that follows the temperature, or a power budget. Also the answer when unsure.
    Progressive,
    /// A ladder, a rung a poll.
    Step,
    /// Two clocks.
    Cliff,
    /// Caps by a slow zone.
    Skin,
    /// A cap that stays though the board is cool.
    StuckCap,
    /// Hot and not capped at all.
    Missing,
}

/// Limits for one phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    pub threads: u8,
    /// `None`: no cap, the board's maximum.
    pub cap: Option<Hertz>,
}

/// Whether new work is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    #[default]
    Open,
    /// Above the hard ceiling: refuse with `TooHot` until it is cooler.
    Stop,
}

/// The temperature to come, against the one at which throttling begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Expected temperature.
    pub at: Celsius,
    /// One sigma of it.
    pub sigma: Celsius,
    /// 1.0 = throttling begins, 0 = 30 K below (as Android's thermal headroom).
    pub headroom: f32,
}

/// What to do until the next tick, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub prefill: Limits,
    pub decode: Limits,
    pub admission: Admission,
    pub level: Level,
    pub cause: Cause,
    pub degraded: Degraded,
    pub mechanism: Mechanism,
    /// 0–1.
    pub confidence: f32,
    pub headroom: Option<f32>,
    pub in_10_s: Option<Forecast>,
    pub in_60_s: Option<Forecast>,
    /// Until throttling begins at present power; `None` when it will not, or nobody knows.
    pub time_to_throttle: Option<Seconds>,
}

macro_rules! words {
    ($($name:ident),*) => {$(
        impl $name {
            /// The word that JSON, D-Bus and the metrics use.
            pub fn word(self) -> String {
                serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
            }
        }
    )*};
}
words!(Level, Cause, Degraded, Mechanism, Phase);

impl Decision {
    /// The limits of a phase; idle is held to decode's.
    pub fn limits(&self, phase: Phase) -> Limits {
        match phase {
            Phase::Prefill => self.prefill,
            Phase::Decode | Phase::Idle => self.decode,
        }
    }
}
