//! Two governors that lose, kept as negative tests: whoever changes the real one can see that it is not one of these.

use super::observation::{Limits, Observation, Phase};
use super::policy::Prior;
use super::simulate::Control;
use crate::units::Hertz;

/// Holds every board a little below its limit with a clock cap, whatever its mechanism, down to the lowest clock.
pub struct CeilingHolder {
    prior: Prior,
    ceiling_c: f32,
    by_skin: bool,
    cap_mhz: f32,
    threads: u8,
}

impl CeilingHolder {
    pub fn new(prior: Prior, ceiling_c: f32, by_skin: bool) -> CeilingHolder {
        CeilingHolder { cap_mhz: prior.max_mhz(), threads: prior.cores, prior, ceiling_c, by_skin }
    }
}

impl Control for CeilingHolder {
    fn step(&mut self, seen: &Observation) -> [Limits; 2] {
        let max = self.prior.max_mhz();
        let zone = if self.by_skin { seen.skin } else { seen.soc };
        if let (Some(t), true) = (zone, seen.phase != Phase::Idle) {
            let e = self.ceiling_c - t.value.0;
            self.cap_mhz = (self.cap_mhz + 0.0012 * max * e).clamp(self.prior.min_mhz(), max);
            let applied = self.prior.step_at_or_below(self.cap_mhz + 0.02 * max * e);
            return [Limits { threads: self.threads, cap: Some(Hertz((applied * 1e6) as u64)) }; 2];
        }
        [Limits { threads: self.threads, cap: None }; 2]
    }
}

/// Works at full speed up to a limit, rests until it is 5 K cooler.
pub struct DutyCycler {
    limit_c: f32,
    by_skin: bool,
    resting: bool,
    threads: u8,
}

impl DutyCycler {
    pub fn new(prior: &Prior, limit_c: f32, by_skin: bool) -> DutyCycler {
        DutyCycler { limit_c, by_skin, resting: false, threads: prior.cores }
    }
}

impl Control for DutyCycler {
    fn step(&mut self, seen: &Observation) -> [Limits; 2] {
        if let Some(t) = if self.by_skin { seen.skin } else { seen.soc } {
            let limit = if self.resting { self.limit_c - 5.0 } else { self.limit_c };
            self.resting = t.value.0 >= limit;
        }
        [Limits { threads: self.threads, cap: None }; 2]
    }
    fn rests(&self) -> bool {
        self.resting
    }
}
