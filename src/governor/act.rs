//! The second half of a tick: moves the law of the present mode, and what it means for each phase.

use super::State;
use super::dither::Dither;
use super::eco;
use super::estimate::Estimator;
use super::mechanism::Zone;
use super::mode::{Mode, Rising, is_deep, may_nudge};
use super::nudge;
use super::observation::{Limits, Observation, Phase};
use super::policy::{Goal, Policy};
use super::senses::STALE_S;
use super::stay::{self, Stay};
use crate::units::Hertz;

/// After a lost sensor, caps stay as they are for this long, then go.
const BLIND_HOLD_S: f64 = 9.0;
/// A board gives its clock back this far below the trip, or sooner.
const RETURN_C: f32 = 3.0;

/// Moves the law of the present mode by one tick.
pub(super) fn act(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>, dt: f64, entered: bool) {
    let prior = &policy.prior;
    let phase = seen.phase.index();
    state.bursting = false;
    let trip = state.trip_c(prior);
    let measured_mhz = seen.measured.map_or(prior.max_mhz(), |m| m.value.megahertz());
    nudge(policy, state, seen);
    let settled = state.load.in_phase_s >= 2.0;
    match &mut state.mode {
        Mode::Stay { hold, .. } => {
            let (t, estimator) = match hold.zone() {
                Zone::Die => (t, &state.die),
                Zone::Skin => (state.sensor.skin, &state.skin),
            };
            let Some(t) = t else { return };
            hold.alternates(prior, state.load.is_mixed(), || state.load.level_of_equal_power_mhz(prior));
            if let (true, Some(p)) = (entered, phase) {
                hold.enter(prior, p, t);
            }
            let full = prior.power_w(prior.act_prefill, prior.cores, prior.max_mhz());
            let to_ceiling_s = seen.remaining.and_then(|left| {
                if hold.zone() == Zone::Skin {
                    // A prompt is over before a skin has moved.
                    return Some(if t < hold.burst_ends_c() { 30.0 } else { 0.0 });
                }
                let (then, _) = estimator.after(left.0 as f32, full)?;
                Some(if then < hold.burst_ends_c() { left.0 as f32 + 1.0 } else { 0.0 })
            });
            let free_pays = free_pays(policy, hold, estimator, phase, t);
            hold.tick(
                prior,
                stay::Tick {
                    phase,
                    t,
                    measured_mhz,
                    request_mhz: seen.requested.map_or(prior.max_mhz(), |f| f.megahertz()),
                    settled,
                    tripped: state.evidence.is_capped() && settled,
                    remaining_s: seen.remaining.map(|r| r.0 as f32),
                    to_ceiling_s,
                    free_pays,
                    dt: dt as f32,
                },
            );
            state.bursting = hold.bursting;
        }
        Mode::Eco { eco, asked } => {
            let setting = eco.setting();
            let as_asked = seen.threads == setting.threads && (!seen.may_cap || measured_mhz <= 1.03 * asked.mhz);
            if phase == Some(1) && state.load.in_phase_s >= dt && as_asked {
                let watts = |s: eco::Setting| prior.power_w(prior.act_decode, s.threads, s.mhz);
                let full_w = state.die.power_w() * watts(eco.full(prior)) / watts(setting);
                eco.feed(
                    prior,
                    eco::Second {
                        mhz: asked.mhz,
                        tokens: seen.tokens,
                        busy_s: seen.busy.0 as f32,
                        begins: state.load.in_phase_s < 2.0 * dt,
                        may_cap: seen.may_cap,
                        turns_fan: state.die.turns_fan_up(eco.looks_s(), full_w),
                    },
                );
            }
            if eco.is_searching() {
                *asked = Dither::at(eco.setting().mhz);
            } else {
                asked.tick(prior, eco.setting().mhz, prior.min_mhz(), false, dt as f32);
            }
        }
        Mode::Ride { rising: rising @ Some(_), .. } => {
            let near = trip.zip(t).is_some_and(|(trip, t)| t > trip - 2.0);
            if let Some(r) = rising {
                r.wait_s -= dt;
                if r.wait_s <= 0.0 {
                    *r = Rising { mhz: prior.step_above(r.mhz), wait_s: Rising::STEP_EVERY_S[usize::from(near)] };
                }
            }
            *rising = rising.filter(|r| r.mhz < prior.max_mhz());
        }
        _ => (),
    }
}

/// Follows a board that rests on a lower grade of its skin, and nudges it.
fn nudge(policy: &Policy, state: &mut State, seen: &Observation) {
    let Some(grade) = state.evidence.grade.filter(|_| may_nudge(policy, state, seen)) else {
        state.nudge.stop();
        return;
    };
    let answer = match seen.phase {
        Phase::Idle => return,
        Phase::Prefill => None,
        Phase::Decode => Some((seen.threads, seen.busy.0 as f32)),
    };
    let (clock_mhz, skin_c) = (state.evidence.clock_mhz(), state.skin.temperature_c());
    state.nudge.tick(nudge::Second { grade, clock_mhz, skin_c, answer, now_s: state.now_s });
}

/// Whether one thread alone would make a gripping board let go, soon enough to be worth it.
fn free_pays(policy: &Policy, hold: &Stay, estimator: &Estimator, phase: Option<usize>, t: f32) -> bool {
    let prior = &policy.prior;
    let limit = hold.limit();
    let act = if phase == Some(0) { prior.act_prefill } else { prior.act_decode };
    let alone = prior.power_w(act, 1, limit.floor_mhz);
    match limit.zone {
        // Seconds, and at once.
        Zone::Die if limit.steps => true,
        Zone::Die => estimator.settles_at(alone as f64) < (limit.trip_c - RETURN_C) as f64,
        // Minutes: only where the owner asked for all there is, and the clock to win is a step or more.
        Zone::Skin => {
            let more = prior.power_w(act, prior.cores, prior.step_above(limit.floor_mhz));
            let falls_s = estimator.seconds_to_fall(t, limit.trip_c - RETURN_C, alone);
            is_deep(policy.goal)
                && estimator.settles_at(more as f64) < limit.trip_c as f64
                && falls_s.is_some_and(|s| s < stay::FREE_AFTER_S[1] as f64)
        }
    }
}

/// The limits of a phase (0 prefill, 1 decode) in the present mode.
pub(super) fn limits_of(policy: &Policy, state: &State, phase: usize) -> Limits {
    let prior = &policy.prior;
    let all = state.crews[phase].threads();
    let threads = match policy.goal {
        Goal::Off => prior.cores,
        _ if phase == 1 => state.nudge.threads().map_or(all, |fewer| fewer.min(all)),
        _ => all,
    };
    let cap = |mhz: f32| (mhz < prior.max_mhz() - 0.5).then_some(Hertz((mhz as f64 * 1e6) as u64));
    match &state.mode {
        Mode::Stay { hold, .. } => Limits { threads: if hold.is_breaking_free() { 1 } else { threads }, cap: cap(hold.applied_mhz(phase)) },
        Mode::Ride { rising: Some(r), .. } => Limits { threads, cap: cap(r.mhz) },
        Mode::Eco { eco, asked } if phase == 1 => Limits { threads: eco.setting().threads, cap: cap(asked.mhz) },
        Mode::Blind { since_s, last, .. } if state.now_s - since_s < BLIND_HOLD_S - STALE_S => last[phase],
        Mode::Blind { .. } => Limits { threads: prior.cores, cap: None },
        _ => Limits { threads, cap: None },
    }
}
