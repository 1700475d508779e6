//! Where the governor stands, and the arrows between: the enum of the diagram in [`super`], with what each mode must remember.

use super::act::limits_of;
use super::dither::Dither;
use super::eco::{Eco, Epsilon};
use super::mechanism::{Grade, Zone};
use super::observation::{Limits, Mechanism, Observation};
use super::policy::{Goal, Policy, Prior};
use super::stay::{self, Stay};
use super::{State, harm};

/// Where a board without a working throttle is held.
const OWN_CEILING_C: f32 = 95.0;
/// Eco wants this much air below any trip.
const ECO_AIR_C: f32 = 5.0;
/// Trust below this means: treat as progressive.
pub(super) const SURE: f32 = 0.9;
/// A trial below a slow zone's grades takes a quarter of an hour, and must promise more than this.
const PROMISE: f32 = 0.01;
/// And it begins this near to where it is to hold.
const NEAR_CEILING_C: f32 = 0.15;
/// What was throttled within this is throttled still, between two swings.
const LATELY_S: f64 = 300.0;
/// A cap that nobody obeys for so long is let go, and tried again after that; one whose zone cannot be read, sooner.
const UNHEEDED_S: f64 = 10.0;
const UNHEEDED_AGAIN_S: f64 = 600.0;
const UNREAD_AGAIN_S: f64 = 10.0;
/// A hold that loses more than this against free minutes is given up.
const HARM: f32 = 0.01;
/// A board under prompts and answers in turn is still a little on its way when its free minutes are counted, and was faster then than it
/// would be now: where prompts are clearly quicker, this much is put down to that.
const NOT_AT_REST: f32 = 0.02;
/// One that swings between two grades is counted by whole swings: there quicker prompts may cost this much and no more.
const EVEN: f32 = -0.005;

#[derive(Clone, Debug)]
pub(super) enum Mode {
    Learning,
    Free,
    /// Left to its own throttle; after a hold the cap rises a step at a time.
    Ride {
        look: Option<Look>,
        rising: Option<Rising>,
    },
    Stay {
        hold: Box<Stay>,
        since_s: f64,
        on_trial: bool,
        /// What it stays below.
        below: Mechanism,
    },
    Eco {
        eco: Box<Eco>,
        asked: Dither,
    },
    Blind {
        since_s: f64,
        before: Box<Mode>,
        last: [Limits; 2],
    },
}

/// A fresh look at the board left alone, the hold in waiting: it comes back if it was better by `least`.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub hold: Box<Stay>,
    pub least: f32,
}

/// A cap on its way out: let go at once, a hot board would overshoot its own throttle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rising {
    pub mhz: f32,
    pub wait_s: f64,
}

impl Rising {
    /// Far from the trip, and near it: there a ladder of the kernel's must count its own rungs down first.
    pub const STEP_EVERY_S: [f64; 2] = [4.0, 20.0];

    fn from(hold: &Stay) -> Option<Rising> {
        Some(Rising { mhz: hold.rises_from_mhz(), wait_s: Rising::STEP_EVERY_S[0] })
    }
}

/// The arrows of the diagram.
pub(super) fn change_mode(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>) {
    let Some(t) = t else {
        if !matches!(state.mode, Mode::Blind { .. }) {
            let last = [limits_of(policy, state, 0), limits_of(policy, state, 1)];
            let before = Box::new(std::mem::replace(&mut state.mode, Mode::Free));
            state.mode = Mode::Blind { since_s: state.now_s, before, last };
        }
        return;
    };
    let ground = Ground {
        sure: if state.evidence.confidence >= SURE { state.evidence.verdict } else { Mechanism::Progressive },
        zone_t: match state.evidence.zone {
            Zone::Die => Some(t),
            Zone::Skin => state.sensor.skin,
        },
        settle_s: if state.load.is_mixed() { harm::SETTLE_MIXED_S } else { harm::SETTLE_S },
    };
    let wish = wish(policy, state, seen, ground.sure);
    if state.load.begins_to_mix && matches!(state.mode, Mode::Ride { .. }) {
        // What was counted before was of another load.
        count_free_anew(state, ground.settle_s);
    }
    let mode = std::mem::replace(&mut state.mode, Mode::Free);
    state.mode = match mode {
        Mode::Blind { before, .. } => *before,
        Mode::Learning if state.now_s < 3.0 => Mode::Learning,
        Mode::Learning => Mode::Free,
        Mode::Stay { below: Mechanism::Missing, .. } if state.evidence.verdict != Mechanism::Missing => {
            Mode::Ride { look: None, rising: None }
        }
        Mode::Stay { hold, since_s, on_trial, below } => after_a_hold(policy, state, seen, ground, Held { hold, since_s, on_trial, below }),
        // The hold in waiting is not wanted any more.
        Mode::Ride { look: Some(_), rising } if !is_held_below(policy.goal, ground.sure) => Mode::Ride { look: None, rising },
        Mode::Ride { look: Some(look), rising } => after_a_look(state, ground, look, rising),
        Mode::Eco { .. } if wish != Wish::Eco => Mode::Free,
        mode @ Mode::Eco { .. } => mode,
        mode @ (Mode::Free | Mode::Ride { .. }) => match wish {
            Wish::Eco => {
                let eco = Box::new(Eco::new(&policy.prior, epsilon(policy.goal), state.crews[1].best()));
                Mode::Eco { eco, asked: Dither::at(policy.prior.max_mhz()) }
            }
            Wish::Stay { on_trial } => begin_a_hold(&policy.prior, state, ground, on_trial),
            Wish::Leave => leave_alone(state, ground, mode),
        },
    };
}

/// What all arrows go by.
#[derive(Clone, Copy)]
struct Ground {
    /// How the board throttles, as far as that is sure.
    sure: Mechanism,
    /// What the zone that throttles reads.
    zone_t: Option<f32>,
    /// Of a count, before it begins.
    settle_s: f32,
}

/// A [`Mode::Stay`], taken out of it.
struct Held {
    hold: Box<Stay>,
    since_s: f64,
    on_trial: bool,
    below: Mechanism,
}

/// From a hold: on with it, or out of it by one of the ways there are.
fn after_a_hold(policy: &Policy, state: &mut State, seen: &Observation, ground: Ground, held: Held) -> Mode {
    let Held { mut hold, since_s, on_trial, below } = held;
    let now = state.now_s;
    let gain = state.watch.gain();
    // What a listener waits for is the prompt: quicker prompts are worth a trial that is even on the whole.
    let prompts = state.watch.prompt_gain().unwrap_or(0.0);
    if let Some(gain) = gain {
        hold.share_out(gain);
    }
    let lost = state.unheeded_s > UNHEEDED_S || ground.zone_t.is_none() || policy.goal == Goal::Off || !seen.may_cap;
    let in_swings = hold.limit().grade && state.load.is_mixed();
    let (least, least_later) = least_gains(prompts > 0.05, in_swings);
    let loses = gain.is_some_and(|g| if on_trial { g < least || prompts < -HARM } else { g < least_later });
    if lost {
        state.watch.banned_until_s = now + if ground.zone_t.is_none() { UNREAD_AGAIN_S } else { UNHEEDED_AGAIN_S };
        Mode::Ride { look: None, rising: Rising::from(&hold).filter(|_| seen.may_cap && policy.goal != Goal::Off) }
    } else if !is_held_below(policy.goal, below) {
        // The goal is another by now.
        Mode::Ride { look: None, rising: Rising::from(&hold) }
    } else if below == Mechanism::Cliff && hold.holds_nothing() || loses && on_trial {
        state.watch.banned_until_s = now + harm::BAN_S;
        Mode::Ride { look: None, rising: Rising::from(&hold) }
    } else if loses && now - since_s > 600.0 && hold_is_choice(ground.sure) {
        let slow = hold.zone() == Zone::Skin;
        state.watch.free = harm::Side::left_alone(slow, ground.settle_s);
        Mode::Ride { rising: Rising::from(&hold), look: Some(Look { hold, least: -HARM }) }
    } else if on_trial && gain.is_some() && hold.zone() == Zone::Die && !state.load.is_mixed() {
        // The free minutes before the trial may have been of a board not yet at rest: free, held, and free again.
        state.watch.free = harm::Side::begin(ground.settle_s);
        Mode::Ride { rising: Rising::from(&hold), look: Some(Look { hold, least }) }
    } else {
        Mode::Stay { hold, since_s, on_trial: on_trial && gain.is_none(), below }
    }
}

/// What a hold must win on trial, and later: even is enough where prompts are clearly quicker.
fn least_gains(quicker_prompts: bool, in_swings: bool) -> (f32, f32) {
    match (quicker_prompts, in_swings) {
        (true, true) => (EVEN, EVEN),
        (true, false) => (-NOT_AT_REST, -NOT_AT_REST),
        (false, true) => (0.003, EVEN),
        (false, false) => (0.003, -HARM),
    }
}

/// From a fresh look at the board left alone: back to the hold if that was better.
fn after_a_look(state: &mut State, ground: Ground, look: Look, rising: Option<Rising>) -> Mode {
    match state.watch.gain() {
        Some(gain) if gain < look.least => {
            state.watch.banned_until_s = state.now_s + harm::BAN_S;
            Mode::Ride { look: None, rising }
        }
        Some(_) => {
            count_held_anew(state, look.hold.limit(), ground.settle_s);
            Mode::Stay { hold: look.hold, since_s: state.now_s, on_trial: false, below: ground.sure }
        }
        None => Mode::Ride { look: Some(look), rising },
    }
}

/// Into a hold, below what the board showed of its throttle.
fn begin_a_hold(prior: &Prior, state: &mut State, ground: Ground, on_trial: bool) -> Mode {
    let evidence = &state.evidence;
    let (trip_c, floor_mhz) = match (ground.sure, evidence.grade) {
        (Mechanism::Missing, _) => (OWN_CEILING_C, prior.min_mhz()),
        (Mechanism::Skin, Some(grade)) => (grade.at_c, grade.to_mhz),
        _ => (state.trip_c(prior).unwrap_or(OWN_CEILING_C), evidence.low_mhz.unwrap_or(prior.min_mhz())),
    };
    let (steps, grade) = (ground.sure == Mechanism::Step, ground.sure == Mechanism::Skin);
    let upper_mhz = evidence.grade.filter(|_| grade).map_or(prior.max_mhz(), |g| g.from_mhz);
    let limit = stay::Limit { zone: evidence.zone, trip_c, floor_mhz, upper_mhz, steps, grade };
    let hold = Box::new(Stay::new(prior, limit, start_of(prior, state)));
    let slow = on_trial && limit.zone == Zone::Skin;
    if grade && state.load.is_mixed() {
        state.watch.free.swing_ends();
    }
    count_held_anew(state, limit, if slow { harm::SETTLE_SKIN_S } else { ground.settle_s });
    Mode::Stay { hold, since_s: state.now_s, on_trial, below: ground.sure }
}

/// No hold, and none wanted.
fn leave_alone(state: &mut State, ground: Ground, mode: Mode) -> Mode {
    match mode {
        Mode::Free if state.is_throttled_lately(LATELY_S) => {
            count_free_anew(state, ground.settle_s);
            if state.evidence.fell().is_some() {
                // A swing that is counted begins with the fall that showed the throttle.
                state.watch.free.fell(false);
            }
            Mode::Ride { look: None, rising: None }
        }
        mode if state.is_throttled_lately(LATELY_S) => mode,
        // A cap on its way out stays on it, or the ladder that made room for it would be overrun.
        mode @ Mode::Ride { rising: Some(_), .. } => mode,
        _ => Mode::Free,
    }
}

/// The board's speed left alone is counted from now on.
fn count_free_anew(state: &mut State, settle_s: f32) {
    let slow = state.evidence.zone == Zone::Skin || state.sensor.skin.is_some();
    state.watch.free = harm::Side::left_alone(slow, settle_s);
}

/// The speed of a hold is counted from now on: in turns below a grade, where a whole swing is what it is held against, over as long, and
/// from the first second on, since the answer is slowed by no more than it needs.
fn count_held_anew(state: &mut State, limit: stay::Limit, settle_s: f32) {
    let in_swings = limit.grade && state.load.is_mixed();
    state.watch.held = if in_swings { harm::Side::left_alone(true, 0.0) } else { harm::Side::begin(settle_s) };
}

/// What a constant clock below the trip promises over the board's own swings between two grades of a slow zone, as a share of speed:
/// the clock that draws as much as a whole swing, and what may be drawn more since the zone is held warmer than the swing's mean. `None`
/// until a whole swing was seen, and unless the zone is on its way from where the board gave its clock back to where it takes it again:
/// sooner, a hold would only be slower than the board alone, and later, it would begin in the board's grip.
fn promise_of_grades(prior: &Prior, state: &State) -> Option<f32> {
    let grade = state.evidence.grade?;
    let cycle = grade.cycle?;
    if !nears_ceiling(state, grade) {
        return None;
    }
    let ceiling_c = grade.at_c - stay::GRADE_MARGIN_C;
    let mean_w = prior.power_w(prior.act_decode, prior.cores, cycle.equal_power_mhz);
    let more_w = (ceiling_c - cycle.mean_c) / state.skin.resistance().max(0.1) as f32;
    let more = more_w / (3.0 * (mean_w - prior.idle_w).max(0.1));
    Some(cycle.equal_power_mhz / cycle.mean_mhz * (1.0 + more) - 1.0)
}

/// Whether a slow zone is on its way from where the board gave its clock back to where it takes it again, and near that.
fn nears_ceiling(state: &State, grade: Grade) -> bool {
    let near_c = grade.at_c - stay::GRADE_MARGIN_C - NEAR_CEILING_C;
    state.evidence.clock_mhz() >= 0.96 * grade.from_mhz && state.sensor.skin.is_some_and(|skin| (near_c..grade.at_c).contains(&skin))
}

/// Whether a board under prompts and answers in turn that rests on a lower grade of its skin may be nudged.
pub(super) fn may_nudge(policy: &Policy, state: &State, seen: &Observation) -> bool {
    let alone = matches!(state.mode, Mode::Ride { look: None, rising: None }) && state.now_s >= state.watch.banned_until_s;
    let by_skin = state.evidence.verdict == Mechanism::Skin && state.sensor.skin.is_some();
    // What a nudge wins is a hold.
    is_deep(policy.goal) && seen.may_cap && alone && by_skin && state.load.is_mixed()
}

/// Goals for which a trial is worth its price.
pub(super) fn is_deep(goal: Goal) -> bool {
    matches!(goal, Goal::Performance | Goal::Eco | Goal::Quiet)
}

/// Whether a board is held below this at all: a cliff or no throttle is harm for every goal, the rest is a choice.
fn is_held_below(goal: Goal, mechanism: Mechanism) -> bool {
    is_deep(goal) || matches!(mechanism, Mechanism::Cliff | Mechanism::Missing)
}

/// The loss of speed that a goal allows. Where fewer threads are faster than all, they have won more than eco's third percent.
fn epsilon(goal: Goal) -> Epsilon {
    match goal {
        Goal::Quiet => Epsilon { all: 0.08, fewer: 0.08 },
        _ => Epsilon { all: 0.02, fewer: 0.03 },
    }
}

/// Where a hold begins, in MHz. What was seen of a slow zone may be less than a cycle: then not below the middle of its two clocks.
fn start_of(prior: &Prior, state: &State) -> f32 {
    let equal = state.evidence.equal_power_mhz().unwrap_or(prior.max_mhz());
    let cycle = state.evidence.grade.and_then(|g| g.cycle);
    match (state.evidence.zone, state.evidence.low_mhz, cycle) {
        (Zone::Skin, Some(low), _) => equal.max((low * prior.max_mhz()).sqrt()),
        (Zone::Skin, None, Some(cycle)) => cycle.equal_power_mhz,
        _ => equal,
    }
}

/// A missing throttle is no choice: without the hold the board would cook.
fn hold_is_choice(mechanism: Mechanism) -> bool {
    mechanism != Mechanism::Missing
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wish {
    Leave,
    Stay { on_trial: bool },
    Eco,
}

/// What the goal, the mechanism and the load ask for.
fn wish(policy: &Policy, state: &State, seen: &Observation, sure: Mechanism) -> Wish {
    let prior = &policy.prior;
    let now = state.now_s;
    let banned = now < state.watch.banned_until_s;
    if policy.goal == Goal::Off {
        return Wish::Leave;
    }
    let throttled_lately = state.is_throttled_lately(LATELY_S);
    let cool = state.trip_c(prior).is_none_or(|trip| {
        let t = if state.evidence.zone == Zone::Skin { state.skin.temperature_c() } else { state.die.temperature_c() };
        t < trip - ECO_AIR_C
    });
    let saving = matches!(policy.goal, Goal::Eco | Goal::Quiet) || seen.power_saver;
    if saving && !seen.hold_performance && cool && !throttled_lately && now > 60.0 {
        return Wish::Eco;
    }
    if !seen.may_cap || banned {
        return Wish::Leave;
    }
    let deep = is_deep(policy.goal);
    match sure {
        Mechanism::Missing => Wish::Stay { on_trial: false },
        Mechanism::Cliff => Wish::Stay { on_trial: false },
        // A ladder of every clock step settles close to its best under one kind of work; one of a few rungs swings between two of them, and
        // under alternating work both do.
        Mechanism::Step if deep && throttled_lately => {
            let (worth, steady) = if state.load.is_mixed() { (true, 0.05) } else { (state.evidence.skips_steps(prior), 0.006) };
            if worth && state.watch.free.is_steady(steady) { Wish::Stay { on_trial: true } } else { Wish::Leave }
        }
        // Grades far apart swing for minutes between two of them; a clock between the two may win a percent or two.
        Mechanism::Skin if deep && throttled_lately && !state.load.is_mixed() => {
            let promised = state.watch.free.speed().and_then(|_| promise_of_grades(prior, state));
            if promised.is_some_and(|p| p >= PROMISE) { Wish::Stay { on_trial: true } } else { Wish::Leave }
        }
        // In turns the answer alone can make room: the prompt keeps the upper grade. What it is compared with is the swing that ends then.
        Mechanism::Skin if deep && throttled_lately => {
            let swings = state.evidence.grade.is_some_and(|grade| state.evidence.swings() && nears_ceiling(state, grade));
            if swings && state.watch.free.saw_a_fall() { Wish::Stay { on_trial: true } } else { Wish::Leave }
        }
        _ => Wish::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_quicker_prompts_may_cost_anything_on_trial() {
        for in_swings in [false, true] {
            let ((even, even_later), (wins, later)) = (least_gains(true, in_swings), least_gains(false, in_swings));
            assert!(even < 0.0 && even == even_later && wins > 0.0 && later < 0.0, "in swings: {in_swings}");
        }
    }
}
