//! What the readings mean, put together: one temperature of the die, one clock of the cores that work, why the board is slowed, whether
//! its fan turns, and the meter nearest to the supply. Whoever decides or measures starts from here.

use super::poll::{Latest, age_s};
use super::{Reading, What, thermal};
use std::time::Instant;

/// Readings older than this, in seconds, are not the present any more.
pub const FRESH_S: f64 = 5.0;
/// Words in the type of a zone that is on the die.
const DIE: [&str; 9] = ["cpu", "soc", "pkg", "core", "package", "firmware", "k10temp", "zenpower", "tj"];
/// Words in the type of a zone under a hand.
const SKIN: [&str; 2] = ["skin", "case"];
/// The firmware's throttle word: under-voltage, clock capped, throttled, soft temperature limit.
const BIT_UNDER_VOLTAGE: u64 = 1;
const BITS_CAPPED: u64 = 0b0010;
const BITS_THERMAL: u64 = 0b1100;
/// Meters that see the whole board, most first. A place that is neither here nor a package is no meter of the board: one rail among several
/// (whether it holds others or is held by one differs by board), or a card that nothing is computed on. Its watts are shown, and no token
/// is charged with them.
const WHOLE: [&str; 3] = ["pmic", "VDD_IN", "psys"];
/// RAPL's processors: one place a socket, and the machine works with all of them.
const PACKAGE: &str = "package";
/// A fan that is told to turn at least this hard should.
const FAN_DUTY: f64 = 0.3;

/// The board at one moment. Values come with their age in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sense {
    /// °C of the hottest zone on the die whose reading is fresh; with none fresh, of the one read last.
    pub soc: Option<(f64, f64)>,
    pub skin: Option<(f64, f64)>,
    pub room: Option<(f64, f64)>,
    /// Hz that the working cores' policies were asked for, and that they were measured at: the mean over their policies with a fresh
    /// reading; with none fresh, over all.
    pub requested: Option<(f64, f64)>,
    pub measured: Option<(f64, f64)>,
    /// `None` where the board does not say.
    pub slowed: Option<Slowed>,
    pub fan_level: Option<u8>,
    /// The fan is told to turn and stands still: it has failed, or is about to start. Whoever warns waits a little.
    pub fan_failed: bool,
    pub power: Option<Power>,
    /// Share of the last 10 s in which something waited for memory; 0 where it is not known.
    pub memory_pressure: f64,
}

/// Why the board is slowed, by the word of its firmware, its kernel or its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowed {
    pub under_voltage: bool,
    pub thermal: bool,
    pub power_limit: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Power {
    /// As its reading names it; several that were added up are joined by `+`.
    pub place: String,
    pub watts: f64,
    pub age_s: f64,
    /// Since reading began.
    pub joules: f64,
}

impl Slowed {
    /// One word for a table: the cause that explains the others.
    pub fn word(self) -> &'static str {
        match self {
            Slowed { under_voltage: true, .. } => "under-voltage",
            Slowed { thermal: true, .. } => "thermal",
            Slowed { power_limit: true, .. } => "power-limit",
            _ => "",
        }
    }
}

impl Sense {
    /// `policies`: the cpufreq policies of the cores that work, see [`super::Identity::working_policies`].
    pub fn of(latest: &Latest, now: Instant, policies: &[String]) -> Sense {
        let value = |what: &What| latest.value(what, now);
        let fresh = |what: &What| value(what).filter(|v| v.1 <= FRESH_S).map(|v| v.0);
        let mean = |pick: fn(String) -> What| {
            let mut values: Vec<(f64, f64)> = policies.iter().filter_map(|p| value(&pick(p.clone()))).collect();
            // A policy whose processors went offline is not asked any more: it must not make the others look old.
            if values.iter().any(|v| v.1 <= FRESH_S) {
                values.retain(|v| v.1 <= FRESH_S);
            }
            let age = values.iter().map(|v| v.1).reduce(f64::max)?;
            Some((values.iter().map(|v| v.0).sum::<f64>() / values.len() as f64, age))
        };
        let counted = value(&What::Measured("firmware".into())).filter(|v| v.1 <= FRESH_S);
        let fan_level = fresh(&What::FanLevel);
        let told_to_turn = fan_level.is_some_and(|l| l > 0.0) || fresh(&What::FanDuty).is_some_and(|d| d >= FAN_DUTY);
        Sense {
            soc: hottest(latest, now, |name| has_word(name, &DIE)).or_else(|| hottest(latest, now, |name| !has_word(name, &SKIN))),
            skin: hottest(latest, now, |name| has_word(name, &SKIN)),
            room: value(&What::Room),
            requested: mean(What::Requested),
            measured: counted.or_else(|| mean(What::Measured)),
            slowed: slowed(latest, &fresh),
            fan_level: fan_level.map(|l| l.clamp(0.0, 255.0) as u8),
            fan_failed: told_to_turn && fresh(&What::FanSpeed) == Some(0.0),
            power: power(latest, now),
            memory_pressure: fresh(&What::MemoryPressure).unwrap_or(0.0),
        }
    }
}

fn has_word(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    words.iter().any(|word| name.contains(word))
}

/// The hottest fresh reading of the zones picked: one stale zone must not hide those that answer. With none fresh the youngest, whose
/// age tells how blind the board is.
fn hottest(latest: &Latest, now: Instant, pick: impl Fn(&str) -> bool) -> Option<(f64, f64)> {
    let is_zone = |reading: &Reading| matches!(&reading.what, What::Temperature(name) if pick(name)) && !reading.aside;
    let zones = || latest.readings.values().filter(|(r, _)| is_zone(r)).map(|(r, at)| (r.value, age_s(*at, now)));
    let fresh = zones().filter(|v| v.1 <= FRESH_S).max_by(|a, b| a.0.total_cmp(&b.0));
    fresh.or_else(|| zones().min_by(|a, b| a.1.total_cmp(&b.1)))
}

fn slowed(latest: &Latest, fresh: &impl Fn(&What) -> Option<f64>) -> Option<Slowed> {
    let bits = fresh(&What::ThrottleBits).map(|b| b as u64);
    let alarm = fresh(&What::UnderVoltage);
    let counted = fresh(&What::Slowed);
    let levels: Vec<f64> =
        latest.readings.keys().filter(|w| matches!(w, What::Cooling(kind) if thermal::is_clock(kind))).filter_map(fresh).collect();
    let over_current = fresh(&What::OverCurrent);
    if bits.is_none() && alarm.is_none() && counted.is_none() && over_current.is_none() && levels.is_empty() {
        return None;
    }
    let bit = |mask: u64| bits.is_some_and(|b| b & mask != 0);
    let under_voltage = bit(BIT_UNDER_VOLTAGE) || alarm.is_some_and(|v| v > 0.0);
    let capped = bit(BITS_THERMAL) || (bit(BITS_CAPPED) && !under_voltage);
    Some(Slowed {
        under_voltage,
        thermal: capped || counted.is_some_and(|c| c > 0.0) || levels.iter().any(|l| *l > 0.0),
        power_limit: over_current.is_some_and(|c| c > 0.0),
    })
}

/// The fresh meter that sees most of the board; without one, all packages together, so long as each is fresh.
fn power(latest: &Latest, now: Instant) -> Option<Power> {
    let meter = |place: &str| {
        let (watts, age_s) = latest.value(&What::Power(place.into()), now).filter(|v| v.1 <= FRESH_S)?;
        let joules = latest.value(&What::Energy(place.into()), now).map_or(0.0, |v| v.0);
        Some(Power { place: place.into(), watts, age_s, joules })
    };
    let packages = || {
        let places = latest.readings.keys().filter_map(|what| match what {
            What::Power(place) if place.starts_with(PACKAGE) => Some(place),
            _ => None,
        });
        let all: Option<Vec<Power>> = places.map(|place| meter(place)).collect();
        all?.into_iter().reduce(|a, b| Power {
            place: format!("{}+{}", a.place, b.place),
            watts: a.watts + b.watts,
            age_s: a.age_s.max(b.age_s),
            joules: a.joules + b.joules,
        })
    };
    WHOLE.into_iter().find_map(meter).or_else(packages)
}

#[cfg(test)]
mod tests {
    use super::super::Reading;
    use super::*;
    use std::time::Duration;

    /// The sense of readings with their ages in seconds, on a board whose policies 4 and 6 work.
    fn sense(readings: &[(What, f64, u64)]) -> Sense {
        let now = Instant::now() + Duration::from_secs(3600);
        let mut latest = Latest::default();
        for (what, value, age) in readings {
            latest.readings.insert(what.clone(), (Reading::new(what.clone(), *value, "test"), now - Duration::from_secs(*age)));
        }
        Sense::of(&latest, now, &["policy4".into(), "policy6".into()])
    }

    fn zone(name: &str, celsius: f64, age: u64) -> (What, f64, u64) {
        (What::Temperature(name.into()), celsius, age)
    }

    #[test]
    fn one_stale_zone_does_not_hide_the_others_and_all_stale_is_told_by_age() {
        assert_eq!(sense(&[zone("bigcore0-thermal", 99.0, 60), zone("soc-thermal", 70.0, 1)]).soc, Some((70.0, 1.0)));
        assert_eq!(sense(&[zone("bigcore0-thermal", 99.0, 60), zone("soc-thermal", 70.0, 30)]).soc, Some((70.0, 30.0)));
        assert_eq!(sense(&[zone("gpu-thermal", 50.0, 0), zone("tj-thermal", 49.0, 0), zone("skin-therm", 38.0, 0)]).soc, Some((49.0, 0.0)));
        assert_eq!(sense(&[zone("skin-therm", 38.0, 2)]).skin, Some((38.0, 2.0)));
        assert_eq!(sense(&[]), Sense::default());
    }

    #[test]
    fn a_zone_aside_is_not_the_board() {
        let now = Instant::now();
        let mut latest = Latest::default();
        let mut keep = |name: &str, celsius, aside| {
            let reading = Reading { aside, ..Reading::new(What::Temperature(name.into()), celsius, "test") };
            latest.readings.insert(reading.what.clone(), (reading, now));
        };
        keep("card with a core", 80.0, true);
        keep("acpitz", 40.0, false);
        assert_eq!(Sense::of(&latest, now, &[]).soc, Some((40.0, 0.0)));
    }

    #[test]
    fn the_clock_is_that_of_the_cores_that_work_and_the_firmware_knows_best() {
        let measured = |policy: &str, hertz| (What::Measured(policy.into()), hertz, 1);
        let two = [measured("policy0", 1.8e9), measured("policy4", 1.0e9), measured("policy6", 2.0e9)];
        assert_eq!(sense(&two).measured, Some((1.5e9, 1.0)));
        assert_eq!(sense(&[measured("policy4", 2.4e9), measured("firmware", 1.7e9)]).measured, Some((1.7e9, 1.0)));
        assert_eq!(sense(&two[..1]).measured, None);
        let offline = (What::Measured("policy4".into()), 1.0e9, 60);
        assert_eq!(sense(&[offline.clone(), measured("policy6", 2.0e9)]).measured, Some((2.0e9, 1.0)));
        assert_eq!(sense(&[offline]).measured, Some((1.0e9, 60.0)));
    }

    #[test]
    fn the_cause_of_a_slow_board_is_found_in_every_place_that_knows_one() {
        let word = |readings: &[_]| sense(readings).slowed.map(Slowed::word);
        assert_eq!(word(&[]), None);
        for (bits, want) in [
            (0, ""),
            (0b1, "under-voltage"),
            (0b11, "under-voltage"),
            (0b10, "thermal"),
            (0b110, "thermal"),
            (0b1000, "thermal"),
            (0b1101, "under-voltage"),
        ] {
            assert_eq!(word(&[(What::ThrottleBits, f64::from(bits), 0)]), Some(want), "{bits:#b}");
        }
        assert_eq!(word(&[(What::UnderVoltage, 1.0, 0), (What::ThrottleBits, 0.0, 0)]), Some("under-voltage"));
        assert_eq!(word(&[(What::Cooling("cpufreq-cpu4".into()), 3.0, 0)]), Some("thermal"));
        assert_eq!(word(&[(What::Cooling("thermal-cpufreq-0".into()), 1.0, 0)]), Some("thermal"));
        assert_eq!(word(&[(What::Cooling("devfreq-fb000000.gpu".into()), 3.0, 0), (What::Slowed, 0.0, 0)]), Some(""));
        assert_eq!(word(&[(What::Slowed, 1.0, 0)]), Some("thermal"));
        assert_eq!(word(&[(What::OverCurrent, 1.0, 0)]), Some("power-limit"));
        assert_eq!(word(&[(What::OverCurrent, 0.0, 0)]), Some(""));
        assert_eq!(word(&[(What::GpuThrottle("nvidia0".into()), 36.0, 0)]), None, "a card's clock is not the processor's");
        assert_eq!(word(&[(What::ThrottleBits, 6.0, 60)]), None, "an old word is none");
    }

    #[test]
    fn a_fan_that_should_turn_and_does_not_has_failed() {
        let fan = |level, duty, rpm| sense(&[(What::FanLevel, level, 0), (What::FanDuty, duty, 0), (What::FanSpeed, rpm, 0)]).fan_failed;
        assert!(fan(4.0, 1.0, 0.0) && fan(0.0, 1.0, 0.0));
        assert!(!fan(0.0, 0.0, 0.0) && !fan(4.0, 1.0, 2900.0));
        assert!(!sense(&[(What::FanLevel, 4.0, 0)]).fan_failed, "no tachometer, no verdict");
    }

    #[test]
    fn the_meter_that_sees_most_counts() {
        let watts = |place: &str, w, age| (What::Power(place.into()), w, age);
        let found = sense(&[watts("VDD_SOC", 2.0, 0), watts("VDD_IN", 7.5, 0), (What::Energy("VDD_IN".into()), 99.0, 0)]).power.unwrap();
        assert_eq!(found, Power { place: "VDD_IN".into(), watts: 7.5, age_s: 0.0, joules: 99.0 });
        assert_eq!(sense(&[watts("package-0", 20.0, 0), watts("psys", 31.0, 9)]).power.unwrap().place, "package-0");
        assert_eq!(sense(&[watts("nvidia0", 72.0, 0)]).power, None, "a card that nothing is computed on");
        let agx_orin = ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"].map(|rail| watts(rail, 5.0, 0));
        assert_eq!(sense(&agx_orin).power, None, "no rail sees the board, and which of them to add up is not known");
    }

    #[test]
    fn two_sockets_are_one_meter_while_both_answer() {
        let socket = |n: u32, w, j, age| {
            let place = format!("package-{n}");
            [(What::Power(place.clone()), w, age), (What::Energy(place), j, age)]
        };
        let both = sense(&[socket(0, 20.0, 100.0, 1), socket(1, 30.0, 200.0, 2)].concat()).power.unwrap();
        assert_eq!(both, Power { place: "package-0+package-1".into(), watts: 50.0, age_s: 2.0, joules: 300.0 });
        assert_eq!(sense(&[socket(0, 20.0, 100.0, 1), socket(1, 30.0, 200.0, 60)].concat()).power, None, "half is not the machine");
    }
}
