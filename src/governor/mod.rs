//! Heat decides the pace: `decide(&Policy, State, &Observation) -> (State, Decision)`, pure, once a second.
//! No clock, file, log or chance in here: time comes in as `dt` and ages, so a simulated hour runs in milliseconds and a trace replays.
//!
//! ```text
//!              three samples            the board throttles, well or unsure
//!   Learning ───────────────▶ Free ──────────────────────────────────▶ Ride
//!                              │ ▲   cliff (any goal) · steps and mixed   │ ▲
//!          goal eco, cool      │ │   load, or a trial that wins           │ │ the hold loses, or can't be applied
//!                              ▼ │   (performance) · no throttle at all   ▼ │
//!                              Eco ◀──────────────────────────────────▶ Stay
//!   any ──── no thermometer for 5 s ───▶ Blind ──── a reading again ───▶ where it was
//! ```
//!
//! Rooms: [`observation`] (what comes in and goes out), [`policy`], [`profile`] (boards), [`estimate`] (the slow node), [`mechanism`]
//! (who throttles), [`threads`], [`stay`], [`eco`], [`harm`]; [`report`] (told to others), [`replay`] (traces);
//! [`plant`] and [`simulate`] (virtual boards for tests and `make thermal`), [`faults`] (lying sensors), [`naive`] (governors that lose).

pub mod eco;
pub mod estimate;
pub mod faults;
pub mod harm;
pub mod mechanism;
pub mod naive;
pub mod observation;
pub mod plant;
pub mod policy;
pub mod profile;
pub mod replay;
pub mod report;
pub mod simulate;
pub mod stay;
pub mod threads;

use crate::units::{Celsius, Hertz, Seconds};
use eco::Eco;
use estimate::Estimator;
use harm::Watch;
use mechanism::{Evidence, Look, Zone};
pub use observation::{Admission, Cause, Decision, Degraded, Forecast, Level, Limits, Mechanism, Observation, Phase};
pub use policy::{Goal, KernelPolicy, Policy, Prior};
use stay::Stay;
use threads::Crew;

/// A reading older than this is no reading.
const STALE_S: f64 = 5.0;
/// After a lost sensor, caps stay as they are for this long, then go.
const BLIND_HOLD_S: f64 = 9.0;
/// No die moves faster than this in one second; a reading that does is a lie until it has lasted.
const JUMP_C: f32 = 12.0;
const JUMP_BELIEVED_S: f64 = 10.0;
/// Readings outside are sentinels: no board computes there.
const PLAUSIBLE_C: std::ops::Range<f32> = -25.0..125.0;
/// Where a board without a working throttle is held.
const OWN_CEILING_C: f32 = 95.0;
/// Eco wants this much air below any trip.
const ECO_AIR_C: f32 = 5.0;
/// Trust below this means: treat as progressive.
const SURE: f32 = 0.9;
/// A hold that loses more than this against free minutes is given up.
const HARM: f32 = 0.01;

/// What the governor remembers between two ticks.
#[derive(Clone, Debug)]
pub struct State {
    mode: Mode,
    now_s: f64,
    die: Estimator,
    skin: Estimator,
    evidence: Evidence,
    crews: [Crew; 2],
    watch: Watch,
    load: LoadMix,
    sensor: Sensor,
    bursting: bool,
    too_hot: bool,
    unheeded_s: f64,
}

#[derive(Clone, Debug)]
enum Mode {
    Learning,
    Free,
    /// Left to its own throttle; after a hold the cap rises a step at a time. `trial`: a fresh look at it, the hold in waiting.
    Ride { trial: Option<Box<Stay>>, rising: Option<Rising> },
    Stay { hold: Box<Stay>, since_s: f64, on_trial: bool },
    Eco(Box<Eco>),
    Blind { since_s: f64, before: Box<Mode>, last: [Limits; 2] },
}

/// A cap on its way out: let go at once, a hot board would overshoot its own throttle.
#[derive(Clone, Copy, Debug)]
struct Rising {
    mhz: f32,
    wait_s: f64,
}

impl Rising {
    /// Far from the trip, and near it: there a ladder of the kernel's must count its own rungs down first.
    const STEP_EVERY_S: [f64; 2] = [4.0, 20.0];

    fn from(hold: &Stay) -> Option<Rising> {
        Some(Rising { mhz: hold.applied_mhz(0).min(hold.applied_mhz(1)), wait_s: Rising::STEP_EVERY_S[0] })
    }
}

/// Which phases the load has had lately.
#[derive(Clone, Debug, Default)]
struct LoadMix {
    last: Phase,
    in_phase_s: f64,
    share: [f64; 2],
    switches: f64,
}

/// What the thermometer last said, and how far it is believed.
#[derive(Clone, Debug, Default)]
struct Sensor {
    good: Option<f32>,
    skin: Option<f32>,
    doubted_s: f64,
    unread_s: f64,
    unchanged_s: f64,
    power_at_change: f32,
}

impl State {
    pub fn new(policy: &Policy) -> State {
        let prior = &policy.prior;
        // The skin answers later and less than the die; nothing is known of it but that.
        let skin_prior = Prior { rjb: 0.2, sigma: 0.9, ..prior.clone() };
        State {
            mode: Mode::Learning,
            now_s: 0.0,
            die: Estimator::new(prior),
            skin: Estimator::new(&skin_prior),
            evidence: Evidence::new(prior),
            crews: [Crew::new(prior.cores), Crew::new(prior.cores)],
            watch: Watch::default(),
            load: LoadMix::default(),
            sensor: Sensor::default(),
            bursting: false,
            too_hot: false,
            unheeded_s: 0.0,
        }
    }

    /// Seconds since the first observation.
    pub fn now(&self) -> Seconds {
        Seconds(self.now_s)
    }

    /// What was learned of the limiting zone: time constant and K/W.
    pub fn learned(&self) -> (Seconds, f32) {
        (Seconds(self.die.time_constant_s()), self.die.resistance() as f32)
    }

    /// Where throttling begins, as far as it is known.
    pub fn trip(&self, prior: &Prior) -> Option<Celsius> {
        self.trip_c(prior).map(Celsius)
    }

    fn is_throttled_lately(&self, seconds: f64) -> bool {
        self.evidence.last_s.is_some_and(|l| self.now_s - l < seconds)
    }

    fn trip_c(&self, prior: &Prior) -> Option<f32> {
        match self.evidence.zone {
            Zone::Skin => self.evidence.trip_c,
            // A cliff's own trip need not be one that the kernel shows; for the rest the kernel's or the maker's word is exact.
            Zone::Die if self.evidence.verdict == Mechanism::Cliff => self.evidence.trip_c.or(prior.trip_c),
            Zone::Die => prior.trip_c.or(self.evidence.trip_c),
        }
    }
}

/// One tick: what was seen in, what to do and why out.
pub fn decide(policy: &Policy, mut state: State, seen: &Observation) -> (State, Decision) {
    let seen = &seen.sane();
    let dt = seen.dt.0;
    state.now_s += dt;
    if seen.resumed {
        state.die.break_off();
        state.skin.break_off();
        state.crews.iter_mut().for_each(Crew::interrupt);
        state.sensor = Sensor::default();
    }
    let entered = state.load.note(seen.phase, dt);
    let t = state.sensor.believe(seen, dt, state.die.power_w());
    if let Some(t) = t {
        analyse(policy, &mut state, seen, t, dt);
    }
    change_mode(policy, &mut state, seen, t);
    act(policy, &mut state, seen, t, dt, entered);
    let decision = answer(policy, &mut state, seen, t);
    (state, decision)
}

impl LoadMix {
    /// Returns whether the phase was entered just now.
    fn note(&mut self, phase: Phase, dt: f64) -> bool {
        let fade = dt / 300.0;
        for (i, p) in [Phase::Prefill, Phase::Decode].into_iter().enumerate() {
            self.share[i] += (f64::from(u8::from(phase == p)) - self.share[i]) * fade;
        }
        let entered = phase != self.last;
        self.switches += (if entered { 1.0 } else { 0.0 }) - self.switches * fade;
        self.in_phase_s = if entered { 0.0 } else { self.in_phase_s + dt };
        self.last = phase;
        entered
    }

    fn is_mixed(&self) -> bool {
        self.switches >= 4.0 && self.share.iter().all(|&s| s >= 0.08)
    }
}

impl Sensor {
    /// The temperature to act on: the reading, the worst it may have become since, or `None` when nobody knows.
    fn believe(&mut self, seen: &Observation, dt: f64, power_w: f32) -> Option<f32> {
        self.skin = seen.skin.filter(|r| r.age.0 <= 30.0 && PLAUSIBLE_C.contains(&r.value.0)).map(|r| r.value.0);
        let reading = seen.soc.filter(|r| r.age.0 <= STALE_S && PLAUSIBLE_C.contains(&r.value.0));
        let Some(reading) = reading else {
            self.unread_s = (self.unread_s + dt).max(seen.soc.map_or(0.0, |r| r.age.0));
            // Up to the limit the last value stands at its worst: it may have risen by 0.3 K/s.
            return self.good.filter(|_| self.unread_s < STALE_S).map(|g| g + 0.3 * self.unread_s as f32);
        };
        self.unread_s = 0.0;
        let value = reading.value.0;
        let jumped = self.good.is_some_and(|g| (value - g).abs() > JUMP_C + 5.0 * dt as f32);
        if jumped && self.doubted_s < JUMP_BELIEVED_S {
            self.doubted_s += dt;
            return self.good.filter(|_| self.doubted_s < STALE_S);
        }
        self.doubted_s = 0.0;
        if self.good == Some(value) && power_w > 0.0 {
            self.unchanged_s += dt;
            // A live die answers 2 W within half a minute on every board.
            if self.unchanged_s > 30.0 && (power_w - self.power_at_change).abs() > 2.0 {
                return None;
            }
        } else {
            self.unchanged_s = 0.0;
            self.power_at_change = power_w;
        }
        self.good = Some(value);
        Some(value + 0.3 * (reading.age.0 as f32 - 1.5).max(0.0))
    }
}

/// Learns from the tick: power and heat, who throttles, how fast.
fn analyse(policy: &Policy, state: &mut State, seen: &Observation, t: f32, dt: f64) {
    let prior = &policy.prior;
    let max = prior.max_mhz();
    let request = seen.requested.map_or(max, |f| f.megahertz());
    let measured = seen.measured.filter(|m| m.age.0 <= STALE_S).map_or(request, |m| m.value.megahertz());
    let busy = (seen.busy.0 / dt.max(1e-3)).clamp(0.0, 1.0) as f32;
    let phase = match seen.phase {
        Phase::Idle => None,
        Phase::Prefill => Some(0),
        Phase::Decode => Some(1),
    };
    let activity = if phase == Some(0) { prior.act_prefill } else { prior.act_decode };
    let power = match seen.power.filter(|p| p.age.0 <= STALE_S) {
        Some(p) => p.value.0,
        None if phase.is_some() => prior.power_w(activity * busy, seen.threads, measured),
        None => prior.idle_w,
    };
    state.die.feed(t, power, dt);
    if let Some(skin) = state.sensor.skin {
        state.skin.feed(skin, power, dt);
    }
    let Some(p) = phase else { return };
    let look = Look {
        soc: t,
        skin: state.sensor.skin,
        mhz: measured,
        request,
        flags: seen.flags,
        same_work: state.load.in_phase_s >= dt,
        now_s: state.now_s,
        dt,
    };
    state.evidence.look(prior, look);
    let rate = seen.tokens / (seen.busy.0 as f32).max(1e-3);
    let steady = state.load.in_phase_s >= 2.0 && busy > 0.9 && !state.bursting;
    if policy.goal != Goal::Off && steady && seen.tokens > 0.0 {
        let calm = seen.memory_pressure < 0.1;
        // While heat sets the clock, seconds with fewer threads buy a clock that minutes would not: such a probe would lie.
        let may_probe = calm && !state.is_throttled_lately(900.0) && !matches!(state.mode, Mode::Eco(_));
        state.crews[p].feed(rate, seen.threads, measured / max, dt, may_probe);
    }
    let probing = state.crews[p].is_probing();
    let held = match &state.mode {
        Mode::Stay { .. } => Some(true),
        Mode::Ride { .. } if state.is_throttled_lately(120.0) => Some(false),
        _ => None,
    };
    state.watch.feed(p, seen.tokens, seen.busy.0 as f32, held.filter(|_| !probing));
    // A cap that nobody obeys is no lever (Pi 5 while its firmware throttles, or a write without effect).
    let asked = match &state.mode {
        Mode::Stay { hold, .. } if seen.may_cap => Some(hold.applied_mhz(p)),
        _ => None,
    };
    state.unheeded_s = match asked {
        Some(mhz) if measured > 1.04 * mhz && state.load.in_phase_s > 2.0 => state.unheeded_s + dt,
        _ => 0.0,
    };
}

/// The arrows of the diagram.
fn change_mode(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>) {
    let prior = &policy.prior;
    let now = state.now_s;
    let Some(t) = t else {
        if !matches!(state.mode, Mode::Blind { .. }) {
            let last = [limits_of(policy, state, 0), limits_of(policy, state, 1)];
            let before = Box::new(std::mem::replace(&mut state.mode, Mode::Free));
            state.mode = Mode::Blind { since_s: now, before, last };
        }
        return;
    };
    let throttled_lately = state.is_throttled_lately(300.0);
    let sure = if state.evidence.confidence >= SURE { state.evidence.verdict } else { Mechanism::Progressive };
    let banned = now < state.watch.banned_until_s;
    let zone_t = match state.evidence.zone {
        Zone::Die => Some(t),
        Zone::Skin => state.sensor.skin,
    };
    let wish = wish(policy, state, seen, sure, banned);
    let settle_s = if state.load.is_mixed() { harm::SETTLE_MIXED_S } else { harm::SETTLE_S };
    let mode = std::mem::replace(&mut state.mode, Mode::Free);
    state.mode = match mode {
        Mode::Blind { before, .. } => *before,
        Mode::Learning if now < 3.0 => Mode::Learning,
        Mode::Learning => Mode::Free,
        Mode::Stay { hold, since_s, on_trial } => {
            let age = now - since_s;
            let gain = state.watch.gain();
            let lost = state.unheeded_s > 10.0 || zone_t.is_none() || policy.goal == Goal::Off || !seen.may_cap;
            // What a listener waits for is the prompt: quicker prompts are worth a trial that is even on the whole.
            let prompts = state.watch.prompt_gain().unwrap_or(0.0);
            let least = if prompts > 0.05 { -0.005 } else { 0.003 };
            let loses = gain.is_some_and(|g| if on_trial { g < least || prompts < -HARM } else { g < -HARM });
            if lost {
                state.watch.banned_until_s = now + if zone_t.is_none() { 10.0 } else { 600.0 };
                Mode::Ride { trial: None, rising: Rising::from(&hold).filter(|_| seen.may_cap && policy.goal != Goal::Off) }
            } else if loses && on_trial {
                state.watch.banned_until_s = now + harm::BAN_S;
                Mode::Ride { trial: None, rising: Rising::from(&hold) }
            } else if loses && age > 600.0 && hold_is_choice(sure) {
                let slow = hold.zone == Zone::Skin;
                state.watch.free = if slow { harm::Side::begin_with_cycle() } else { harm::Side::begin(settle_s) };
                Mode::Ride { rising: Rising::from(&hold), trial: Some(hold) }
            } else {
                let on_trial = on_trial && gain.is_none();
                Mode::Stay { hold, since_s, on_trial }
            }
        }
        Mode::Ride { trial: Some(hold), rising } => match state.watch.gain() {
            Some(gain) if gain < -HARM => {
                state.watch.banned_until_s = now + harm::BAN_S;
                Mode::Ride { trial: None, rising }
            }
            Some(_) => {
                state.watch.held = harm::Side::begin(settle_s);
                Mode::Stay { hold, since_s: now, on_trial: false }
            }
            None => Mode::Ride { trial: Some(hold), rising },
        },
        Mode::Eco(eco) if wish != Wish::Eco => {
            drop(eco);
            Mode::Free
        }
        Mode::Eco(eco) => Mode::Eco(eco),
        mode @ (Mode::Free | Mode::Ride { .. }) => match wish {
            Wish::Eco => {
                let epsilon = if policy.goal == Goal::Quiet { 0.08 } else { 0.02 };
                Mode::Eco(Box::new(Eco::new(prior, epsilon, state.crews[1].best())))
            }
            Wish::Stay { on_trial } => {
                let trip = state.trip_c(prior).unwrap_or(OWN_CEILING_C);
                let (trip, floor) = match sure {
                    Mechanism::Missing => (OWN_CEILING_C, prior.min_mhz()),
                    _ => (trip, state.evidence.low_mhz.unwrap_or(prior.min_mhz())),
                };
                state.watch.held = harm::Side::begin(settle_s);
                let start = start_of(prior, state);
                let limit = stay::Limit { zone: state.evidence.zone, trip_c: trip, floor_mhz: floor, steps: sure == Mechanism::Step };
                let hold = Box::new(Stay::new(prior, limit, start));
                Mode::Stay { hold, since_s: now, on_trial }
            }
            Wish::Leave if throttled_lately => {
                if matches!(mode, Mode::Free) {
                    let slow = state.evidence.zone == Zone::Skin || state.sensor.skin.is_some();
                    state.watch.free = if slow { harm::Side::begin_with_cycle() } else { harm::Side::begin(settle_s) };
                    Mode::Ride { trial: None, rising: None }
                } else {
                    mode
                }
            }
            // A cap on its way out stays on it, or the ladder that made room for it would be overrun.
            Wish::Leave if matches!(mode, Mode::Ride { rising: Some(_), .. }) => mode,
            Wish::Leave => Mode::Free,
        },
    };
}

/// Where a hold begins, in MHz. What was seen of a slow zone may be less than a cycle: then not below the middle of its two clocks.
fn start_of(prior: &Prior, state: &State) -> f32 {
    let equal = state.evidence.equal_power_mhz().unwrap_or(prior.max_mhz());
    match (state.evidence.zone, state.evidence.low_mhz) {
        (Zone::Skin, Some(low)) => equal.max((low * prior.max_mhz()).sqrt()),
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
fn wish(policy: &Policy, state: &State, seen: &Observation, sure: Mechanism, banned: bool) -> Wish {
    let prior = &policy.prior;
    let now = state.now_s;
    if policy.goal == Goal::Off {
        return Wish::Leave;
    }
    let throttled_lately = state.is_throttled_lately(300.0);
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
    let deep = matches!(policy.goal, Goal::Performance | Goal::Eco | Goal::Quiet);
    match sure {
        Mechanism::Missing => Wish::Stay { on_trial: false },
        Mechanism::Cliff => Wish::Stay { on_trial: false },
        // A ladder under one kind of work settles close to its best; under alternating work it swings, and so do the two halves.
        Mechanism::Step if deep && throttled_lately && state.watch.free.is_steady(if state.load.is_mixed() { 0.05 } else { 0.006 }) => {
            Wish::Stay { on_trial: true }
        }
        _ => Wish::Leave,
    }
}

/// Moves the law of the present mode by one tick.
fn act(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>, dt: f64, entered: bool) {
    let prior = &policy.prior;
    let phase = match seen.phase {
        Phase::Idle => None,
        Phase::Prefill => Some(0),
        Phase::Decode => Some(1),
    };
    state.bursting = false;
    let trip = state.trip_c(prior);
    let measured_mhz = seen.measured.map_or(prior.max_mhz(), |m| m.value.megahertz());
    match &mut state.mode {
        Mode::Stay { hold, .. } => {
            let (t, estimator) = match hold.zone {
                Zone::Die => (t, &state.die),
                Zone::Skin => (state.sensor.skin, &state.skin),
            };
            let Some(t) = t else { return };
            hold.mixed = state.load.is_mixed();
            if let (true, Some(p)) = (entered, phase) {
                hold.enter(prior, p, t);
            }
            let full = prior.power_w(prior.act_prefill, prior.cores, prior.max_mhz());
            let to_ceiling_s = seen.remaining.and_then(|left| {
                if hold.zone == Zone::Skin {
                    // A prompt is over before a skin has moved.
                    return Some(if t < hold.burst_ends_c() { 30.0 } else { 0.0 });
                }
                let (then, _) = estimator.after(left.0 as f32, full)?;
                Some(if then < hold.burst_ends_c() { left.0 as f32 + 1.0 } else { 0.0 })
            });
            hold.tick(prior, stay::Tick {
                phase,
                t,
                measured_mhz,
                tripped: state.evidence.is_capped() && state.load.in_phase_s >= 2.0,
                remaining_s: seen.remaining.map(|r| r.0 as f32),
                to_ceiling_s,
                dt: dt as f32,
            });
            state.bursting = hold.bursting;
        }
        Mode::Eco(eco) => {
            let setting = eco.setting();
            let as_asked = seen.threads == setting.threads && (!seen.may_cap || measured_mhz <= 1.03 * setting.mhz);
            if phase == Some(1) && state.load.in_phase_s >= dt && as_asked {
                eco.feed(prior, seen.tokens, seen.busy.0 as f32, seen.may_cap);
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

/// The limits of a phase (0 prefill, 1 decode) in the present mode.
fn limits_of(policy: &Policy, state: &State, phase: usize) -> Limits {
    let prior = &policy.prior;
    let threads = if policy.goal == Goal::Off { prior.cores } else { state.crews[phase].threads() };
    let cap = |mhz: f32| (mhz < prior.max_mhz() - 0.5).then_some(Hertz((mhz as f64 * 1e6) as u64));
    match &state.mode {
        Mode::Stay { hold, .. } => Limits { threads, cap: cap(hold.applied_mhz(phase)) },
        Mode::Ride { rising: Some(r), .. } => Limits { threads, cap: cap(r.mhz) },
        Mode::Eco(eco) if phase == 1 => Limits { threads: eco.setting().threads, cap: cap(eco.setting().mhz) },
        Mode::Blind { since_s, last, .. } if state.now_s - since_s < BLIND_HOLD_S - STALE_S => last[phase],
        Mode::Blind { .. } => Limits { threads: prior.cores, cap: None },
        _ => Limits { threads, cap: None },
    }
}

/// Puts the state into words.
fn answer(policy: &Policy, state: &mut State, seen: &Observation, t: Option<f32>) -> Decision {
    let prior = &policy.prior;
    let ceiling = prior.critical_c.map_or(103.0, |c| c - 6.0);
    state.too_hot = t.is_some_and(|t| t >= ceiling || state.too_hot && t >= ceiling - 5.0);
    let (level, cause) = level_and_cause(policy, state, seen);
    let trip = state.trip_c(prior);
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
        mechanism: if state.evidence.first_s.is_none() && state.evidence.verdict == Mechanism::Unknown { prior.mechanism } else { state.evidence.verdict },
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
        Mode::Ride { trial: Some(_), .. } => (Level::Ride, Cause::HarmTrial),
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
            let cause = match (state.evidence.verdict, hold.zone) {
                _ if hold.bursting => Cause::RefillBurst,
                (Mechanism::Missing, _) => Cause::OwnCeiling,
                (_, Zone::Skin) => Cause::StayingBelowSkinLimit,
                (Mechanism::Cliff, _) => Cause::StayingBelowCliff,
                _ => Cause::StayingBelowSteps,
            };
            (Level::Stay, cause)
        }
        Mode::Eco(eco) => (Level::Eco, if eco.is_searching() { Cause::EcoSearch } else { Cause::EcoKnee }),
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

#[cfg(test)]
mod tests;
