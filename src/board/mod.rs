//! The board at hand: what it is, what its sensors say, and the few levers there are. Every path stands under one [`Root`], so that a
//! captured tree is a board. Nothing is decided here; the governor gets readings with their age and their source.
//!
//! - [`detect`]: device tree or DMI, cores and clusters. [`root`]: reading one file, and why it failed. [`numbered`]: finding a folder
//!   again after the kernel gave it another number.
//! - Sources of readings: [`thermal`] (zones, trips, cooling devices, fan), [`clock`] (cpufreq, devfreq, the processor's own counter of
//!   slow-downs), [`meter`] (INA3221, RAPL, the supply's alarm), [`mailbox`] (the Raspberry Pi's firmware), [`nvidia`] (NVML),
//!   [`pressure`] (PSI, load).
//! - [`poll`]: reads them all on a thread of its own, with a deadline: a sensor that hangs is left behind, not waited for. [`stuck`]:
//!   tells a thermometer that has died from a board that is steady. [`sense`]: what the readings mean, put together.
//! - [`lever`]: the clock cap, put back when it is dropped. [`capture`] and [`tree`]: a board as one text that a user can send.
//!   [`fake`]: boards built in code, for `hearth board play` and for tests.

pub mod capture;
pub mod clock;
pub mod detect;
pub mod fake;
pub mod lever;
pub mod mailbox;
pub mod meter;
pub mod numbered;
pub mod nvidia;
pub mod poll;
pub mod pressure;
pub mod root;
pub mod sense;
pub mod stuck;
pub mod thermal;
pub mod tree;

pub use detect::{Identity, Kind};
pub use root::{Miss, Root};
pub use sense::Sense;

/// What a reading is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// °C of a zone or a hwmon sensor, by its type or label.
    Temperature(String),
    /// °C of the room, by a thermometer that the caller names.
    Room,
    /// Hz that cpufreq was asked for, by policy.
    Requested(String),
    /// Hz as measured, by policy; `firmware` where the board's firmware counted them.
    Measured(String),
    /// Hz of a devfreq device or a GPU, by its name: `dmc`, `17000000.gpu`, `nvidia0`.
    Device(String),
    /// W at a place: `pmic`, a rail's label, `package-0`, `nvidia0` … Which place is the board's meter, [`sense`] knows.
    Power(String),
    /// J at a place since reading began; rises only.
    Energy(String),
    /// 1 while the kernel says that the supply is too low.
    UnderVoltage,
    /// The firmware's throttle bits, without the sticky ones.
    ThrottleBits,
    /// NVML's reasons for a lower clock, as bits, by device.
    GpuThrottle(String),
    /// Level of a cooling device, by its type; above 0 it takes something away (or blows).
    Cooling(String),
    /// Level of the fan's cooling device.
    FanLevel,
    /// Revolutions per minute.
    FanSpeed,
    /// The fan's duty, 0–1.
    FanDuty,
    /// Share of the last 10 s in which something waited for memory.
    MemoryPressure,
    /// … for a processor.
    CpuPressure,
    /// … for a disk.
    IoPressure,
    /// Share of all processors' time that was worked since the reading before.
    Busy,
    /// Slow-downs for heat that the processor counted since start.
    ThrottleCount,
    /// 1 while that count rises.
    Slowed,
    /// 1 while the board slows itself since it draws too much.
    OverCurrent,
}

/// One value with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub what: What,
    pub value: f64,
    /// The file or the firmware's command it came from.
    pub source: String,
    /// Of something that is no part of what computes: it is shown, and nothing is decided by it. See [`Sensor::is_aside`].
    pub aside: bool,
}

impl Reading {
    pub fn new(what: What, value: f64, source: impl ToString) -> Reading {
        Reading { what, value, source: source.to_string(), aside: false }
    }
}

/// A source of readings that can be asked again and again. A read may take its time, or hang: see [`poll`].
pub trait Sensor: Send {
    /// For notices.
    fn name(&self) -> String;
    fn read(&mut self) -> Result<Vec<Reading>, Miss>;
    /// Whether it meters power, and so is worth asking more often while joules are counted.
    fn is_meter(&self) -> bool {
        false
    }
    /// Whether it tells what the machine works at, which means nothing while it rests.
    fn tells_of_work(&self) -> bool {
        false
    }
    /// Whether all that it tells is [aside](Reading::aside), so that nothing is decided later when it is asked rarely.
    fn is_aside(&self) -> bool {
        false
    }
}

/// The readings that could be had: one file or question that is refused takes nothing from the others. Where none could, the first
/// reason.
fn those_read(asked: impl IntoIterator<Item = Result<Reading, Miss>>) -> Result<Vec<Reading>, Miss> {
    let (mut readings, mut first) = (Vec::new(), None);
    for answer in asked {
        match answer {
            Ok(reading) => readings.push(reading),
            Err(miss) => first = first.or(Some(miss)),
        }
    }
    match first {
        Some(miss) if readings.is_empty() => Err(miss),
        _ => Ok(readings),
    }
}

/// Every source that this board has.
pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    let mut all: Vec<Box<dyn Sensor>> = Vec::new();
    all.extend(thermal::sources(root));
    all.extend(clock::sources(root));
    all.extend(meter::sources(root));
    all.extend(pressure::sources(root));
    all.extend(nvidia::sources(root));
    if let Some(firmware) = mailbox::Firmware::open(root) {
        all.push(Box::new(firmware));
    }
    all
}
