//! The first half of a tick: learns from what was seen, before anything is decided.

use super::State;
use super::mechanism::{Look, Zone};
use super::mode::Mode;
use super::observation::Observation;
use super::policy::{Goal, Policy};
use super::senses::STALE_S;

/// Threads are probed while hardly anything waits for memory (PSI), and so long after heat last set the clock.
const CALM: f32 = 0.1;
const COOLED_S: f64 = 900.0;

/// Learns from the tick: power and heat, who throttles, how fast.
pub(super) fn analyse(policy: &Policy, state: &mut State, seen: &Observation, t: f32, dt: f64) {
    let prior = &policy.prior;
    let max = prior.max_mhz();
    let request = seen.requested.map_or(max, |f| f.megahertz());
    let measured = seen.measured.filter(|m| m.age.0 <= STALE_S).map_or(request, |m| m.value.megahertz());
    let busy = (seen.busy.0 / dt.max(1e-3)).clamp(0.0, 1.0) as f32;
    let phase = seen.phase.index();
    let activity = if phase == Some(0) { prior.act_prefill } else { prior.act_decode };
    let power = match seen.power.filter(|p| p.age.0 <= STALE_S) {
        Some(p) => p.value.0,
        None if phase.is_some() => prior.power_w(activity * busy, seen.threads, measured),
        None => prior.idle_w,
    };
    if let Some(level) = seen.fan_level {
        state.die.fan(prior, usize::from(level));
    }
    state.die.feed(t, power, dt);
    if let Some(skin) = state.sensor.skin {
        state.skin.feed(skin, power, dt);
    }
    let Some(p) = phase else { return };
    state.load.draws(p, power - prior.idle_w, dt);
    let look = Look {
        soc: t,
        skin: state.sensor.skin,
        smooth: [state.die.temperature_c(), state.skin.temperature_c()],
        mhz: measured,
        request,
        flags: seen.flags,
        same_work: state.load.in_phase_s >= dt,
        now_s: state.now_s,
        dt,
    };
    state.evidence.look(prior, look);
    if let (Some(same), Mode::Ride { .. }) = (state.evidence.fell(), &state.mode) {
        state.watch.free.fell(same);
    }
    let rate = seen.tokens / (seen.busy.0 as f32).max(1e-3);
    let steady = state.load.in_phase_s >= 2.0 && busy > 0.9 && !state.bursting && !state.is_breaking_free();
    if policy.goal != Goal::Off && steady && seen.tokens > 0.0 {
        let calm = seen.memory_pressure < CALM;
        // While heat sets the clock, seconds with fewer threads buy a clock that minutes would not: such a probe would lie.
        let may_probe = calm && !state.is_throttled_lately(COOLED_S) && !matches!(state.mode, Mode::Eco { .. } | Mode::Stay { .. });
        state.crews[p].feed(rate, seen.threads, measured / max, dt, may_probe);
    }
    // A hold is not judged by a probe, nor by the long way to freedom from a skin, which was weighed before it was taken.
    let aside = state.crews[p].is_probing() || state.is_breaking_free() && state.evidence.zone == Zone::Skin;
    let held = match &state.mode {
        Mode::Stay { .. } => Some(true),
        Mode::Ride { .. } if state.is_throttled_lately(120.0) => Some(false),
        _ => None,
    };
    state.watch.feed(p, seen.tokens, seen.busy.0 as f32, held.filter(|_| !aside));
    // A cap that nobody obeys is no lever (Pi 5 while its firmware throttles, or a write without effect).
    let asked = match &state.mode {
        Mode::Stay { hold, .. } if seen.may_cap => Some(hold.applied_mhz(p)),
        _ => None,
    };
    state.unheeded_s = match asked {
        Some(_) if state.load.in_phase_s <= 2.0 => state.unheeded_s,
        Some(mhz) if measured > 1.04 * mhz => state.unheeded_s + dt,
        _ => 0.0,
    };
}
