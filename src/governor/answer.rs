//! The state in words: level, cause, what keeps the board from its best, and what its temperature will be.

use super::State;
use super::act::limits_of;
use super::mechanism::Zone;
use super::mode::{Mode, SURE};
use super::observation::{Admission, Cause, Decision, Degraded, Forecast, Level, Mechanism, Observation, Phase};
use super::policy::{Goal, Policy};
use crate::units::{Celsius, Seconds};

/// Admission stops this far below where the kernel switches off, or here where nobody says where that is, and opens again when it is
/// cooler by so much.
const BELOW_CRITICAL_C: f32 = 6.0;
const TOO_HOT_C: f32 = 103.0;
const COOLER_C: f32 = 5.0;

/// Puts the state into words.
pub(super) fn answer(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>) -> Decision {
    let prior = &policy.prior;
    let ceiling = prior.critical_c.map_or(TOO_HOT_C, |c| c - BELOW_CRITICAL_C);
    state.too_hot = t.is_some_and(|t| t >= ceiling || state.too_hot && t >= ceiling - COOLER_C);
    let (level, cause) = level_and_cause(policy, state, seen);
    let trip = state.onset_c(prior);
    let zone = if state.evidence.zone == Zone::Skin { &state.skin } else { &state.die };
    let headroom_of = |at: f32| trip.map_or(0.0, |trip| (at - (trip - 30.0)) / 30.0);
    let forecast = |seconds: f32| {
        let (at, sigma) = zone.after(seconds, zone.power_w()).filter(|_| t.is_some() && trip.is_some())?;
        Some(Forecast { at: Celsius(at), sigma: Celsius(sigma), headroom: headroom_of(at) })
    };
    let flags = seen.flags.unwrap_or_default();
    let degraded = if t.is_none() {
        Degraded::SensorLost
    } else if flags.under_voltage {
        Degraded::UnderVoltage
    } else if state.evidence.verdict == Mechanism::StuckCap {
        Degraded::StuckCap
    } else if flags.power_limit {
        Degraded::PowerLimit
    } else if state.too_hot || state.evidence.is_capped() || level == Level::Stay {
        Degraded::HighTemperature
    } else {
        Degraded::No
    };
    let in_60_s = forecast(60.0);
    Decision {
        prefill: limits_of(policy, state, 0),
        decode: limits_of(policy, state, 1),
        admission: if state.too_hot { Admission::Stop } else { Admission::Open },
        level,
        cause,
        degraded,
        mechanism: if state.evidence.first_s.is_none() && state.evidence.verdict == Mechanism::Unknown {
            prior.mechanism
        } else {
            state.evidence.verdict
        },
        confidence: state.evidence.confidence,
        headroom: in_60_s.map(|_| headroom_of(zone.temperature_c())),
        in_10_s: forecast(10.0),
        in_60_s,
        time_to_throttle: trip.and_then(|trip| zone.seconds_until(trip)).filter(|_| t.is_some()).map(Seconds),
    }
}

fn level_and_cause(policy: &Policy, state: &State, seen: &Observation) -> (Level, Cause) {
    let sure = state.evidence.confidence >= SURE;
    let active = if seen.phase == Phase::Prefill { 0 } else { 1 };
    let (level, cause) = match &state.mode {
        Mode::Learning => (Level::Learning, Cause::Start),
        Mode::Free => (Level::Free, Cause::Cool),
        Mode::Ride { .. } if state.nudge.is_under_way() => (Level::Ride, Cause::BreakingFree),
        Mode::Ride { look: Some(_), .. } => (Level::Ride, Cause::HarmTrial),
        Mode::Ride { .. } if state.unheeded_s > 0.0 => (Level::Ride, Cause::CannotCap),
        Mode::Ride { .. } if state.now_s < state.watch.banned_until_s => (Level::Ride, Cause::HarmSeen),
        Mode::Ride { .. } if !sure => (Level::Ride, Cause::MechanismUnsure),
        Mode::Ride { .. } if matches!(state.evidence.verdict, Mechanism::Cliff | Mechanism::Step) => match policy.goal {
            Goal::Observe => (Level::Ride, Cause::PolicyObserve),
            _ if !seen.may_cap => (Level::Ride, Cause::CannotCap),
            _ => (Level::Ride, Cause::BoardThrottlesWell),
        },
        Mode::Ride { .. } => (Level::Ride, Cause::BoardThrottlesWell),
        Mode::Stay { hold, .. } => {
            let cause = match (state.evidence.verdict, hold.zone()) {
                _ if hold.is_breaking_free() => Cause::BreakingFree,
                _ if hold.bursting => Cause::RefillBurst,
                (Mechanism::Missing, _) => Cause::OwnCeiling,
                (_, Zone::Skin) => Cause::StayingBelowSkinLimit,
                (Mechanism::Cliff, _) => Cause::StayingBelowCliff,
                _ => Cause::StayingBelowSteps,
            };
            (Level::Stay, cause)
        }
        Mode::Eco { eco, .. } => (Level::Eco, if eco.is_searching() { Cause::EcoSearch } else { Cause::EcoKnee }),
        Mode::Blind { .. } => (Level::Blind, Cause::SensorLost),
    };
    let cause = match cause {
        _ if state.too_hot => Cause::TooHot,
        _ if policy.goal == Goal::Off => Cause::PolicyOff,
        Cause::Cool | Cause::BoardThrottlesWell if state.crews[active].is_probing() => Cause::ThreadProbe,
        other => other,
    };
    (level, cause)
}
