//! What thermometers, clocks and levers do in the field, played to the governor while it holds a board below its cliff.

use super::observation::{Aged, Degraded, Flags, Level, Observation};
use super::plant::{Model, Plant};
use super::policy::{Goal, Policy};
use super::simulate::{Governor, Load, Scenario, Second, follow, prior_of};
use crate::units::{Celsius, Hertz, Seconds};

/// One way in which what is seen differs from what is.
pub struct Fault {
    pub name: &'static str,
    pub expect: Expect,
    /// Tampers with an observation, `seconds` after the fault set in.
    pub play: fn(&mut Observation, seconds: f32),
}

/// What the governor must make of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The temperature is lost: stock behaviour within ten seconds, `sensor-lost` said, back within five.
    Blind,
    /// Nothing that matters for the hold: it goes on.
    HoldsOn,
    /// It goes on, and this is said.
    Told(Degraded),
    /// The lever has no effect: it is let go.
    LetsGo,
    /// What is seen is consistent and false; the board's own throttle is what protects. Whatever is decided, the hold is there afterwards.
    Survives,
}

fn reads(celsius: f32, age_s: f32) -> Option<Aged<Celsius>> {
    Some(Aged { value: Celsius(celsius), age: Seconds(age_s as f64) })
}

/// Missing file, EACCES, EAGAIN, ENODATA, EIO, empty text and a vanished zone are all one to the governor: no reading.
pub const FAULTS: [Fault; 19] = [
    Fault { name: "no reading", expect: Expect::Blind, play: |o, _| o.soc = None },
    Fault { name: "-256 °C", expect: Expect::Blind, play: |o, _| o.soc = reads(-256.0, 0.1) },
    Fault { name: "-40 °C", expect: Expect::Blind, play: |o, _| o.soc = reads(-40.0, 0.1) },
    Fault { name: "127 °C", expect: Expect::Blind, play: |o, _| o.soc = reads(127.0, 0.1) },
    Fault { name: "not a number", expect: Expect::Blind, play: |o, _| o.soc = reads(f32::NAN, 0.1) },
    Fault { name: "reader hangs", expect: Expect::Blind, play: |o, s| o.soc = reads(73.0, s + 1.0) },
    Fault {
        name: "every other reading missing",
        expect: Expect::HoldsOn,
        play: |o, s| {
            if (s as u32).is_multiple_of(2) {
                o.soc = None
            }
        },
    },
    Fault { name: "readings three seconds old", expect: Expect::HoldsOn, play: |o, _| o.soc.iter_mut().for_each(|r| r.age = Seconds(3.0)) },
    Fault { name: "stuck reading", expect: Expect::Survives, play: |o, _| o.soc = reads(73.6, 0.1) },
    Fault {
        name: "another zone after a sleep",
        expect: Expect::Survives,
        play: |o, s| {
            o.resumed = s < 1.0;
            o.soc.iter_mut().for_each(|r| r.value.0 -= 15.0);
        },
    },
    Fault { name: "clock unreadable", expect: Expect::HoldsOn, play: |o, _| o.measured = None },
    Fault { name: "request unreadable", expect: Expect::HoldsOn, play: |o, _| o.requested = None },
    Fault { name: "flags unreadable", expect: Expect::HoldsOn, play: |o, _| o.flags = None },
    Fault {
        name: "throttled since boot, by the flags alone",
        expect: Expect::HoldsOn,
        play: |o, _| {
            o.flags = Some(Flags { thermal: true, ..Flags::default() });
        },
    },
    Fault {
        name: "under-voltage without heat",
        expect: Expect::Told(Degraded::UnderVoltage),
        play: |o, _| {
            o.flags = Some(Flags { under_voltage: true, ..Flags::default() });
        },
    },
    Fault {
        name: "a write without effect",
        expect: Expect::LetsGo,
        play: |o, _| {
            o.measured = Some(Aged { value: Hertz(2_352_000_000), age: Seconds(0.1) });
        },
    },
    Fault { name: "fan stands still", expect: Expect::HoldsOn, play: |o, _| (o.fan_level, o.fan_failed) = (Some(4), true) },
    Fault {
        name: "the clock jumps, as after a sleep",
        expect: Expect::HoldsOn,
        play: |o, s| {
            if s < 1.0 {
                (o.dt, o.resumed) = (Seconds(7200.0), true);
            }
        },
    },
    Fault {
        name: "a core goes offline",
        expect: Expect::HoldsOn,
        play: |o, _| {
            o.threads = 3;
            o.tokens *= 0.75;
        },
    },
];

/// What came of a fault that lasted a minute.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// From its start until nothing was capped any more, where the temperature was lost; else 0.
    pub until_stock_s: f32,
    /// From its end until the board was held again.
    pub until_back_s: f32,
    /// Seconds of the fault in which the board was held.
    pub held_s: f32,
    /// What `Degraded` said most of the time.
    pub told: Degraded,
}

impl Seen {
    pub fn is_as(&self, fault: &Fault) -> bool {
        let back = self.until_back_s <= 5.0;
        match fault.expect {
            Expect::Blind => self.until_stock_s <= 10.0 && back && self.told == Degraded::SensorLost,
            Expect::HoldsOn => self.held_s >= 55.0 && back && self.told == Degraded::HighTemperature,
            Expect::Told(word) => self.held_s >= 55.0 && back && self.told == word,
            // Ten minutes until it is tried again.
            Expect::LetsGo => self.held_s <= 30.0,
            Expect::Survives => back,
        }
    }
}

/// 20 min on the RK3588 with a cliff at 32 °C, the fault from minute 15 to 16.
pub fn under_fault(load: Load, fault: &Fault) -> Seen {
    let model = Model::named("rk3588-cliff75").expect("a built-in board");
    let mut governor = Governor::new(Policy { goal: Goal::Performance, prior: prior_of(&model) });
    let scenario = Scenario { minutes: 20.0, window_minutes: 5.0, ..Scenario::new(load, 32.0, 1) };
    let span = 900.0..960.0f32;
    let mut seen = Seen { until_stock_s: 0.0, until_back_s: f32::INFINITY, held_s: 0.0, told: Degraded::No };
    let mut words = Vec::new();
    let mut tamper = |t: f32, _: &mut Plant, o: &mut Observation| {
        if span.contains(&t) {
            (fault.play)(o, t - span.start);
        }
    };
    follow(&model, &scenario, &mut governor, &mut tamper, &mut |s: Second| {
        let Some(d) = s.decision else { return };
        let held = d.level == Level::Stay;
        if span.contains(&s.at_s) {
            if fault.expect == Expect::Blind && (d.decode.cap.is_some() || d.prefill.cap.is_some()) {
                seen.until_stock_s = s.at_s - span.start;
            }
            seen.held_s += f32::from(u8::from(held));
            words.push(d.degraded);
        }
        if s.at_s >= span.end && held {
            seen.until_back_s = seen.until_back_s.min(s.at_s - span.end);
        }
    });
    let count = |word: &Degraded| words.iter().filter(|w| *w == word).count();
    seen.told = words.iter().copied().max_by_key(|w| count(w)).unwrap_or_default();
    seen
}
