//! What is believed of one look at the board: the temperature to act on, and which phases the load has had lately.

use super::observation::{Observation, Phase};
use super::policy::Prior;
use super::turns;

/// A reading older than this is no reading.
pub(super) const STALE_S: f64 = 5.0;
/// No die moves faster than this in one second; a reading that does is a lie until it has lasted.
const JUMP_C: f32 = 12.0;
const JUMP_BELIEVED_S: f64 = 10.0;
/// Readings outside are sentinels: no board computes there.
const PLAUSIBLE_C: std::ops::Range<f32> = -25.0..125.0;

/// Busy seconds over which a phase's power is a mean: a dozen turns of a board that throttles.
const DRAWN_S: f64 = 150.0;
/// A hold is some tenths of a kelvin cooler than the board alone; it begins with this share of its power.
const LESS: f64 = 0.97;

/// What the thermometer last said, and how far it is believed.
#[derive(Clone, Debug, Default)]
pub(super) struct Sensor {
    good: Option<f32>,
    pub skin: Option<f32>,
    doubted_s: f64,
    unread_s: f64,
    unchanged_s: f64,
    power_at_change: f32,
}

impl Sensor {
    /// The temperature to act on: the reading, the worst it may have become since, or `None` when nobody knows.
    pub fn believe(&mut self, seen: &Observation, dt: f64, power_w: f32) -> Option<f32> {
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

/// Which phases the load has had lately.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadMix {
    last: Phase,
    pub in_phase_s: f64,
    share: [f64; 2],
    /// Mean W of the busy seconds of each, the idle power aside.
    drawn_w: [f64; 2],
    switches: f64,
    mixed: bool,
    /// Since this tick prompts and answers alternate.
    pub begins_to_mix: bool,
}

impl LoadMix {
    /// Returns whether the phase was entered just now.
    pub fn note(&mut self, phase: Phase, dt: f64) -> bool {
        let fade = dt / 300.0;
        for (i, p) in [Phase::Prefill, Phase::Decode].into_iter().enumerate() {
            self.share[i] += (f64::from(u8::from(phase == p)) - self.share[i]) * fade;
        }
        let entered = phase != self.last;
        self.switches += (if entered { 1.0 } else { 0.0 }) - self.switches * fade;
        self.in_phase_s = if entered { 0.0 } else { self.in_phase_s + dt };
        self.last = phase;
        let mixed = self.switches >= 4.0 && self.share.iter().all(|&s| s >= 0.08);
        self.begins_to_mix = mixed && !self.mixed;
        self.mixed = mixed;
        entered
    }

    /// A busy second in a phase drew this much, the idle power aside.
    pub fn draws(&mut self, phase: usize, dynamic_w: f32, dt: f64) {
        self.drawn_w[phase] += (dynamic_w as f64 - self.drawn_w[phase]) * (dt / DRAWN_S).min(1.0);
    }

    /// The prompt's clock in MHz at which the load would draw what it drew of late, the answer's at [`turns::RATIO`] of it.
    pub fn level_of_equal_power_mhz(&self, prior: &Prior) -> f32 {
        let mean = |w: [f64; 2]| self.share[0] * w[0] + self.share[1] * w[1];
        let drawn_w = LESS * mean(self.drawn_w);
        let at = |act: f32, mhz: f32| (prior.power_w(act, prior.cores, mhz.min(prior.max_mhz())) - prior.idle_w) as f64;
        let level_w = |mhz: f32| mean([at(prior.act_prefill, mhz), at(prior.act_decode, turns::RATIO * mhz)]);
        let (mut low, mut high) = (prior.min_mhz(), prior.max_mhz() / turns::RATIO);
        while high - low > 10.0 {
            let middle = 0.5 * (low + high);
            if level_w(middle) <= drawn_w { low = middle } else { high = middle }
        }
        low
    }

    pub fn is_mixed(&self) -> bool {
        self.mixed
    }
}
