//! The board at hand: what it is, what its sensors say, and the few levers there are. Every path stands under one [`Root`], so that a
//! captured tree is a board. Nothing is decided here; the governor gets readings with their age and their source.
//!
//! - [`detect`]: device tree or DMI, cores and clusters. [`root`]: reading one file, and why it failed.
//! - Sources of readings: [`thermal`] (zones, trips, fan), [`clock`] (cpufreq), [`meter`] (hwmon, INA3221, RAPL, under-voltage),
//!   [`mailbox`] (the Raspberry Pi's firmware), [`pressure`] (PSI).
//! - [`poll`]: reads them all on a thread of its own, with a deadline: a sensor that hangs is left behind, not waited for.
//! - [`lever`]: the clock cap, put back when it is dropped. [`capture`]: a tree that a user can send. [`fake`]: such trees for tests.

pub mod capture;
pub mod clock;
pub mod detect;
pub mod fake;
pub mod lever;
pub mod mailbox;
pub mod meter;
pub mod poll;
pub mod pressure;
pub mod root;
pub mod thermal;

pub use detect::{Identity, Kind};
pub use root::{Miss, Root};

/// What a reading is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// °C of a zone or a hwmon sensor, by its type or label.
    Temperature(String),
    /// Hz that cpufreq was asked for, by policy.
    Requested(String),
    /// Hz as measured.
    Measured(String),
    /// W at a place: `pmic`, a rail's label, `package` …
    Power(String),
    /// 1 while the supply is too low.
    UnderVoltage,
    /// The firmware's throttle bits, without the sticky ones.
    ThrottleBits,
    /// Level of the fan's cooling device.
    FanLevel,
    /// Revolutions per minute.
    FanSpeed,
    /// Share of the last 10 s in which something waited for memory.
    MemoryPressure,
    /// Throttle events counted by the processor since start.
    ThrottleCount,
}

/// One value with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub what: What,
    pub value: f64,
    /// The file or the firmware's command it came from.
    pub source: String,
}

/// Something that can be read again and again. A read may take its time, or hang: see [`poll`].
pub trait Source: Send {
    /// For notices.
    fn name(&self) -> String;
    fn read(&mut self) -> Result<Vec<Reading>, Miss>;
}

/// Every source that this board has.
pub fn sources(root: &Root) -> Vec<Box<dyn Source>> {
    let mut all: Vec<Box<dyn Source>> = Vec::new();
    all.extend(thermal::sources(root));
    all.extend(clock::sources(root));
    all.extend(meter::sources(root));
    all.extend(pressure::sources(root));
    if let Some(firmware) = mailbox::Firmware::open(root) {
        all.push(Box::new(firmware));
    }
    all
}
