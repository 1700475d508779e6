//! Heat decides the pace: `decide(&Policy, State, &Observation) -> (State, Decision)`, pure, once a second.
//! No clock, file, log or chance in here: time comes in as `dt` and ages, so a simulated hour runs in milliseconds and a trace replays.
//!
//! ```text
//!              three samples            the board throttles, well or unsure
//!   Learning ───────────────▶ Free ──────────────────────────────────▶ Ride
//!                              │ ▲   cliff (any goal) · a ladder that is   │ ▲  the hold loses, has no effect, or is
//!          goal eco, cool      │ │   coarse or under mixed load, grades    │ │  compared anew: free, held, free again
//!                              ▼ │   that swing (performance, on trial) ·  ▼ │
//!                              Eco   no throttle at all                    Stay ──▶ breaking free: one thread alone,
//!                                                                            ◀──── until the board gives its clock back
//!   any ──── no thermometer for 5 s ───▶ Blind ──── a reading again ───▶ where it was
//! ```
//!
//! A tick goes through the rooms `senses` (what is believed), `analyse` (what follows from it), `mode` (the arrows above), `act` (the law
//! of the mode) and `answer` (in words). They know: [`estimate`] (the slow node), [`mechanism`] (who throttles), [`threads`], [`stay`],
//! `turns` and `answers` (its laws for prompts and answers in turn), `nudge` (a board that might give its clock back), [`dither`], [`eco`],
//! `curve` (how speed falls with the clock, for eco), [`harm`], `rates` (means and their errors), `kalman` (what estimate and curve learn
//! by). In and out: [`observation`], [`policy`], [`profile`] (boards), [`report`] (told to others), [`replay`] (traces). Around it:
//! [`plant`] and [`simulate`] (virtual boards for tests and `make thermal`), [`faults`] (lying sensors), [`naive`] (governors that lose).

mod act;
mod analyse;
mod answer;
mod answers;
mod curve;
pub mod dither;
pub mod eco;
pub mod estimate;
pub mod faults;
pub mod harm;
mod kalman;
pub mod mechanism;
mod mode;
pub mod naive;
mod nudge;
pub mod observation;
pub mod plant;
pub mod policy;
pub mod profile;
mod rates;
pub mod replay;
pub mod report;
mod senses;
pub mod simulate;
pub mod stay;
pub mod threads;
mod turns;

use crate::units::{Celsius, Seconds};
use act::act;
use analyse::analyse;
use answer::answer;
use estimate::{Estimator, Sampling};
use harm::Watch;
use mechanism::{Evidence, Zone};
use mode::{Mode, change_mode};
use nudge::Nudge;
pub use observation::{Admission, Cause, Decision, Degraded, Forecast, Level, Limits, Mechanism, Observation, Phase};
pub use policy::{Goal, KernelPolicy, Policy, Prior};
use senses::{LoadMix, Sensor};
use threads::Crew;

/// Readings scatter; the highest of a minute's lies this many sigmas above their mean.
const PEAK_SIGMAS: f32 = 2.0;

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
    nudge: Nudge,
    load: LoadMix,
    sensor: Sensor,
    bursting: bool,
    too_hot: bool,
    unheeded_s: f64,
}

impl State {
    pub fn new(policy: &Policy) -> State {
        let prior = &policy.prior;
        // The skin answers later and less than the die; nothing is known of it but that.
        let skin_prior = Prior { rjb: 0.2, sigma: 0.9, fan: None, ..prior.clone() };
        State {
            mode: Mode::Learning,
            now_s: 0.0,
            die: Estimator::new(prior, Sampling::DIE),
            skin: Estimator::new(&skin_prior, Sampling::SKIN),
            evidence: Evidence::new(prior),
            crews: [Crew::new(prior.cores), Crew::new(prior.cores)],
            watch: Watch::default(),
            nudge: Nudge::default(),
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

    /// Fewer threads than are best, until the board gives its clock back.
    fn is_breaking_free(&self) -> bool {
        self.nudge.is_under_way() || matches!(&self.mode, Mode::Stay { hold, .. } if hold.is_breaking_free())
    }

    /// Where a smooth course of the temperature meets the board's throttle: what a forecast is held against.
    fn onset_c(&self, prior: &Prior) -> Option<f32> {
        let seen = self.evidence.onset_c.map(|zones| zones[usize::from(self.evidence.zone == Zone::Skin)]);
        let cliff = self.evidence.zone == Zone::Skin || self.evidence.verdict == Mechanism::Cliff;
        match (seen, prior.trips_on_peaks) {
            (Some(seen), peaks) if cliff || peaks => Some(seen),
            // A kernel acts on the first peak of what its sensor reads.
            (None, true) => self.trip_c(prior).map(|t| t - PEAK_SIGMAS * self.die.scatter_c()),
            _ => self.trip_c(prior),
        }
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

#[cfg(test)]
mod tests;
