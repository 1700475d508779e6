//! What thermometers and clocks do in the field, played to the governor while it holds a board below its cliff.

use super::observation::{Aged, Degraded, Level, Observation};
use super::plant::{Model, Plant};
use super::policy::{Goal, Policy};
use super::simulate::{Governor, Load, Scenario, Second, follow, prior_of};
use crate::units::{Celsius, Seconds};

/// One way in which what is seen differs from what is.
pub struct Fault {
    pub name: &'static str,
    /// Whether the temperature is lost, so that the governor must go blind and say so.
    pub blinds: bool,
    /// Tampers with an observation, `seconds` after the fault set in.
    pub play: fn(&mut Observation, seconds: f32),
}

fn reads(celsius: f32, age_s: f32) -> Option<Aged<Celsius>> {
    Some(Aged { value: Celsius(celsius), age: Seconds(age_s as f64) })
}

/// Missing file, EACCES, EAGAIN, ENODATA, EIO, empty text and a vanished zone are all one to the governor: no reading.
pub const FAULTS: [Fault; 11] = [
    Fault { name: "no reading", blinds: true, play: |o, _| o.soc = None },
    Fault { name: "-256 °C", blinds: true, play: |o, _| o.soc = reads(-256.0, 0.1) },
    Fault { name: "-40 °C", blinds: true, play: |o, _| o.soc = reads(-40.0, 0.1) },
    Fault { name: "127 °C", blinds: true, play: |o, _| o.soc = reads(127.0, 0.1) },
    Fault { name: "not a number", blinds: true, play: |o, _| o.soc = reads(f32::NAN, 0.1) },
    Fault { name: "reader hangs", blinds: true, play: |o, s| o.soc = reads(73.0, s + 1.0) },
    Fault { name: "every other reading missing", blinds: false, play: |o, s| if s as u32 % 2 == 0 { o.soc = None } },
    Fault { name: "clock unreadable", blinds: false, play: |o, _| o.measured = None },
    Fault { name: "request unreadable", blinds: false, play: |o, _| o.requested = None },
    Fault { name: "flags unreadable", blinds: false, play: |o, _| o.flags = None },
    Fault { name: "resumed from sleep", blinds: false, play: |o, s| o.resumed = s < 1.0 },
];

/// What came of a fault that lasted a minute.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// From its start until nothing was capped any more, where the temperature was lost; else 0.
    pub until_stock_s: f32,
    /// From its end until the board was held again.
    pub until_back_s: f32,
    /// `Degraded` said that the sensor was lost.
    pub told: bool,
}

/// 20 min on the RK3588 with a cliff at 32 °C, the fault from minute 15 to 16.
pub fn under_fault(load: Load, fault: &Fault) -> Seen {
    let model = Model::named("rk3588-cliff75").expect("a built-in board");
    let mut governor = Governor::new(Policy { goal: Goal::Performance, prior: prior_of(&model) });
    let scenario = Scenario { minutes: 20.0, window_minutes: 5.0, ..Scenario::new(load, 32.0, 1) };
    let span = 900.0..960.0f32;
    let mut seen = Seen { until_stock_s: 0.0, until_back_s: f32::INFINITY, told: false };
    let mut tamper = |t: f32, _: &mut Plant, o: &mut Observation| {
        if span.contains(&t) {
            (fault.play)(o, t - span.start);
        }
    };
    follow(&model, &scenario, &mut governor, &mut tamper, &mut |s: Second| {
        let Some(d) = s.decision else { return };
        if span.contains(&s.at_s) {
            if fault.blinds && (d.decode.cap.is_some() || d.prefill.cap.is_some()) {
                seen.until_stock_s = s.at_s - span.start;
            }
            seen.told |= d.degraded == Degraded::SensorLost;
        }
        if s.at_s >= span.end && d.level == Level::Stay {
            seen.until_back_s = seen.until_back_s.min(s.at_s - span.end);
        }
    });
    seen
}
