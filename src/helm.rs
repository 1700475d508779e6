//! What the governor is told of a board: neither knows the other, and whoever steers by both (the daemon's tick, a measured run) needs the
//! same two translations. Nothing is decided here and nothing is read.

use crate::board::sense::Power;
use crate::board::{Identity, Sense, thermal};
use crate::governor::observation::{Aged, Flags};
use crate::governor::profile::Profile;
use crate::governor::{KernelPolicy, Observation, Prior};
use crate::units::{Celsius, Hertz, Seconds, Watts};

/// The board's part of an observation; what the engine does is the caller's to add. `kernel`: whether the kernel takes the clock away, or
/// a firmware behind its back. `limit`: what the clock is asked for at most, by our cap or else by the owner.
pub fn observation(sense: &Sense, kernel: KernelPolicy, limit: Option<Hertz>) -> Observation {
    let seen = as_read(sense);
    if kernel == KernelPolicy::NotTheKernel {
        return seen;
    }
    // Where the kernel takes the clock away, the driver's clock is what the cores got, and the limit is what was asked for.
    let got = |(hertz, age): (f64, f64)| Aged { value: Hertz(hertz as u64), age: Seconds(age) };
    Observation { measured: seen.measured.or(sense.requested.map(got)), requested: limit, ..seen }
}

fn as_read(sense: &Sense) -> Observation {
    let celsius = |(value, age): (f64, f64)| Aged { value: Celsius(value as f32), age: Seconds(age) };
    let watts = |p: &Power| Aged { value: Watts(p.watts as f32), age: Seconds(p.age_s) };
    Observation {
        soc: sense.soc.map(celsius),
        skin: sense.skin.map(celsius),
        requested: sense.requested.map(|(hertz, _)| Hertz(hertz as u64)),
        measured: sense.measured.map(|(hertz, age)| Aged { value: Hertz(hertz as u64), age: Seconds(age) }),
        flags: sense.slowed.map(|s| Flags { under_voltage: s.under_voltage, power_limit: s.power_limit, thermal: s.thermal }),
        fan_level: sense.fan_level,
        fan_failed: sense.fan_failed,
        power: sense.power.as_ref().map(watts),
        memory_pressure: sense.memory_pressure as f32,
        ..Observation::default()
    }
}

/// What is known of a board before its first reading: its profile where there is one, else what its kernel says.
pub fn prior(zones: &[thermal::Zone], identity: &Identity) -> Prior {
    let zone = zones.iter().find(|z| z.caps_clock()).or_else(|| zones.iter().find(|z| z.passive_c().is_some()));
    let (trip, critical) = (zone.and_then(|z| z.passive_c()), zone.and_then(|z| z.critical_c()));
    if let Some(profile) = Profile::for_compatible(&identity.compatible) {
        return Prior::of(&profile, kernel_policy(zones), trip, critical);
    }
    let cluster = identity.big();
    let cores = identity.working().map(|c| c.cpus.len()).sum::<usize>().clamp(1, 255) as u8;
    let mhz = |khz: u64| khz as f32 / 1000.0;
    let mut steps: Vec<f32> = cluster.map(|c| c.steps_khz.iter().copied().map(mhz).collect()).unwrap_or_default();
    if steps.is_empty() {
        steps.push(cluster.and_then(|c| c.max_khz).map_or(1000.0, mhz));
    }
    Prior { trip_c: trip, critical_c: critical, ..Prior::unknown(cores, steps) }
}

/// Who holds the clock, by the cooling devices of the zones.
pub fn kernel_policy(zones: &[thermal::Zone]) -> KernelPolicy {
    match zones.iter().find(|z| z.caps_clock()) {
        Some(zone) if zone.policy == "power_allocator" => KernelPolicy::PowerAllocator,
        Some(_) => KernelPolicy::StepWise,
        None => KernelPolicy::NotTheKernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::sense::Slowed;
    use crate::board::{Root, fake};
    use crate::governor::Mechanism;

    #[test]
    fn an_observation_says_what_the_board_says_and_no_more() {
        let sense = Sense {
            soc: Some((81.5, 0.4)),
            measured: Some((1.5e9, 0.2)),
            slowed: Some(Slowed { thermal: true, ..Slowed::default() }),
            fan_failed: true,
            ..Sense::default()
        };
        let seen = observation(&sense, KernelPolicy::NotTheKernel, Some(Hertz(1)));
        assert_eq!(seen.soc, Some(Aged { value: Celsius(81.5), age: Seconds(0.4) }));
        assert_eq!(seen.measured.unwrap().value, Hertz(1_500_000_000));
        assert!(seen.flags.unwrap().thermal && seen.fan_failed && seen.requested.is_none() && seen.power.is_none());
        assert_eq!(observation(&Sense::default(), KernelPolicy::StepWise, None).flags, None);
    }

    #[test]
    fn where_the_kernel_throttles_the_drivers_clock_is_what_the_cores_got_and_the_limit_what_was_asked_for() {
        let read = Sense { requested: Some((1.0e9, 0.3)), ..Sense::default() };
        let limit = Some(Hertz(2_200_000_000));
        let seen = observation(&read, KernelPolicy::StepWise, limit);
        assert_eq!((seen.requested, seen.measured), (limit, Some(Aged { value: Hertz(1_000_000_000), age: Seconds(0.3) })));
        let counted = observation(&Sense { measured: Some((0.9e9, 0.1)), ..read.clone() }, KernelPolicy::PowerAllocator, limit);
        assert_eq!(counted.measured.map(|f| f.value), Some(Hertz(900_000_000)), "what is counted goes before");
        let firmware = observation(&read, KernelPolicy::NotTheKernel, limit);
        assert_eq!((firmware.requested, firmware.measured), (Some(Hertz(1_000_000_000)), None));
    }

    #[test]
    fn a_board_begins_with_its_profile_and_its_kernels_word() {
        let of = |board| {
            let dir = tempfile::tempdir().unwrap();
            fake::build(dir.path(), board).unwrap();
            let root = Root::new(dir.path());
            prior(&thermal::zones(&root), &Identity::of(&root))
        };
        let (rk, pi) = (of(&fake::RK3588_VENDOR), of(&fake::PI5));
        assert_eq!((rk.mechanism, rk.cores), (Mechanism::Progressive, 4));
        assert!(rk.trip_c.is_some_and(|c| (75.0..85.0).contains(&c)), "the power allocator begins below its target: {:?}", rk.trip_c);
        assert_eq!((pi.trip_c, pi.ignores_lower_request), (Some(80.0), true), "the firmware's, since the kernel has none");
        let nobody = prior(&[], &Identity { compatible: vec!["acme,unheard-of".into()], ..Identity::of(&Root::new("/nonexistent")) });
        assert_eq!((nobody.cores, nobody.trip_c), (1, None));
        let dir = tempfile::tempdir().unwrap();
        fake::build(dir.path(), &fake::RK3588_VENDOR).unwrap();
        let unprofiled = Identity { compatible: vec!["acme,unheard-of".into()], ..Identity::of(&Root::new(dir.path())) };
        assert_eq!(prior(&[], &unprofiled).cores, 4, "both clusters of big cores");
    }
}
