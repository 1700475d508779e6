//! The knee: the least power whose speed is within ε of the best, found by measuring while the board is cool.
//!
//! Decode is bound by memory, so the clock can fall before the speed does. The search stands on each candidate for 40 busy seconds:
//! first the reference (best threads, full clock), then one clock step lower at a time until the loss passes ε; then the same with one
//! thread less, if that many threads are fast enough at all. The cheapest by the power table wins. Prefill is left alone.

use super::policy::Prior;

/// Busy seconds on a candidate; the first two are not counted.
const STAND_S: f32 = 40.0;
const SKIP_S: f32 = 2.0;
/// The reference is measured anew this often: context grows, rooms warm.
const REFRESH_S: f32 = 1800.0;
/// Kept between the measured loss and ε, for the error of both figures.
const GUARD: f32 = 0.0005;

/// A setting for decode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    pub threads: u8,
    pub mhz: f32,
}

/// The first search goes down from the top; a later one starts at the knee found, up if it has become too slow, else one step lower.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Search {
    First,
    Again,
    OneLower,
}

#[derive(Clone, Debug)]
pub struct Eco {
    epsilon: f32,
    best_threads: u8,
    reference: f32,
    best: Setting,
    trying: Option<Setting>,
    search: Search,
    stood_s: f32,
    tokens: f32,
    counted_s: f32,
    since_reference_s: f32,
}

impl Eco {
    pub fn new(prior: &Prior, epsilon: f32, threads: u8) -> Eco {
        let full = Setting { threads, mhz: prior.max_mhz() };
        Eco {
            epsilon,
            best_threads: threads,
            reference: 0.0,
            best: full,
            trying: Some(full),
            search: Search::First,
            stood_s: 0.0,
            tokens: 0.0,
            counted_s: 0.0,
            since_reference_s: 0.0,
        }
    }

    /// What decode runs at now.
    pub fn setting(&self) -> Setting {
        self.trying.unwrap_or(self.best)
    }

    pub fn is_searching(&self) -> bool {
        self.trying.is_some()
    }

    /// Takes in one busy second of decode that ran as [`Eco::setting`] says.
    pub fn feed(&mut self, prior: &Prior, tokens: f32, busy: f32, may_cap: bool) {
        self.since_reference_s += busy;
        let Some(trying) = self.trying else {
            if self.since_reference_s >= REFRESH_S {
                self.reference = 0.0;
                self.search = Search::Again;
                self.stand_on(Setting { threads: self.best_threads, mhz: prior.max_mhz() });
            }
            return;
        };
        self.stood_s += busy;
        if self.stood_s <= SKIP_S {
            return;
        }
        self.tokens += tokens;
        self.counted_s += busy;
        if self.stood_s < STAND_S {
            return;
        }
        let rate = self.tokens / self.counted_s.max(1e-3);
        let full = Setting { threads: self.best_threads, mhz: prior.max_mhz() };
        if self.reference == 0.0 {
            self.reference = rate;
            self.since_reference_s = 0.0;
            return if self.search == Search::Again && self.best != full { self.stand_on(self.best) } else { self.try_below(prior, full, may_cap) };
        }
        let allowed = rate >= (1.0 - self.epsilon + GUARD) * self.reference;
        match (self.search, allowed) {
            (Search::Again, true) => {
                self.best = trying;
                self.search = Search::OneLower;
                let mhz = prior.step_below(trying.mhz);
                if may_cap && mhz < trying.mhz { self.stand_on(Setting { mhz, ..trying }) } else { self.trying = None }
            }
            (Search::Again, false) if trying.mhz < full.mhz => self.stand_on(Setting { mhz: prior.step_above(trying.mhz), ..trying }),
            (Search::Again, false) => (self.best, self.trying) = (full, None),
            (Search::OneLower, _) => {
                self.best = if allowed { trying } else { self.best };
                self.trying = None;
            }
            (Search::First, true) => {
                if self.power(prior, trying) < self.power(prior, self.best) {
                    self.best = trying;
                }
                self.try_below(prior, trying, may_cap);
            }
            (Search::First, false) if trying.threads == self.best_threads && trying.threads > 1 => {
                self.stand_on(Setting { threads: trying.threads - 1, mhz: full.mhz });
            }
            (Search::First, false) => self.trying = None,
        }
    }

    fn try_below(&mut self, prior: &Prior, from: Setting, may_cap: bool) {
        let mhz = prior.step_below(from.mhz);
        if may_cap && mhz < from.mhz {
            self.stand_on(Setting { mhz, ..from });
        } else if from.threads == self.best_threads && from.threads > 1 {
            self.stand_on(Setting { threads: from.threads - 1, mhz: prior.max_mhz() });
        } else {
            self.trying = None;
        }
    }

    fn stand_on(&mut self, setting: Setting) {
        self.trying = Some(setting);
        (self.stood_s, self.tokens, self.counted_s) = (0.0, 0.0, 0.0);
    }

    fn power(&self, prior: &Prior, s: Setting) -> f32 {
        prior.power_w(prior.act_decode, s.threads, s.mhz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knee(epsilon: f32, may_cap: bool, rate: impl Fn(Setting) -> f32) -> Setting {
        let prior = Prior::unknown(4, vec![1500.0, 1600.0, 1700.0, 1800.0, 1900.0, 2000.0, 2100.0, 2200.0, 2300.0, 2400.0]);
        let mut eco = Eco::new(&prior, epsilon, 4);
        for _ in 0..3600 {
            let r = rate(eco.setting());
            eco.feed(&prior, r, 1.0, may_cap);
        }
        assert!(!eco.is_searching());
        eco.setting()
    }

    #[test]
    fn the_clock_falls_as_far_as_the_loss_allows() {
        let rate = |s: Setting| 10.0 * (1.0 - 0.0001 * (2400.0 - s.mhz)) * if s.threads < 4 { 0.8 } else { 1.0 };
        assert_eq!(knee(0.02, true, rate), Setting { threads: 4, mhz: 2300.0 });
        assert_eq!(knee(0.08, true, rate), Setting { threads: 4, mhz: 1700.0 });
    }

    #[test]
    fn a_thread_less_is_taken_when_it_costs_no_speed() {
        let rate = |s: Setting| if s.threads < 3 { 5.0 } else { 10.0 * (s.mhz / 2400.0).powf(0.5) };
        assert_eq!(knee(0.03, true, rate), Setting { threads: 3, mhz: 2300.0 });
    }

    #[test]
    fn without_the_right_to_cap_only_threads_are_tried() {
        assert_eq!(knee(0.08, false, |s| if s.threads < 3 { 5.0 } else { 10.0 }), Setting { threads: 3, mhz: 2400.0 });
    }
}
