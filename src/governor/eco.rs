//! The knee: the least power whose speed is within ε of the best, found by measuring while the board is cool.
//!
//! Decode is bound by memory, so the clock can fall before the speed does. The search stands on each candidate for 40 busy seconds:
//! first the reference (best threads, full clock), then one clock step lower at a time until the loss passes ε; then the same with one
//! thread less, if that many threads are fast enough at all. The cheapest by the power table wins, and where the step below was measured
//! as too slow, the clock between the two that loses just ε less what the two looks may be wrong by. Prefill is left alone. Later looks
//! are short, or the looking would cost what the knee saves: 40 s at full clock every half hour ate 0.6 of 12.5 % J. And they wait while
//! full clock would make the fan turn faster, which its hysteresis would keep for good: that ate 1.2 of 10.7 % J.

use super::policy::Prior;
use super::rates::Rates;

/// Busy seconds on a candidate in the first search; the first two are not counted.
const STAND_S: f32 = 40.0;
/// A later look at the reference, and at a candidate then.
pub const LOOK_S: f32 = 18.0;
const SKIP_S: f32 = 2.0;
/// The reference is measured anew this often: context grows, rooms warm.
const REFRESH_S: f32 = 1800.0;
/// Or this often at last, whatever the fan does.
const REFRESH_LAST_S: f32 = 4.0 * REFRESH_S;
/// Sigmas of the measured loss that are kept between it and ε: one look in ten loses more than it seems to.
const GUARD_SIGMAS: f32 = 1.3;
/// A knee that was found stays unless a later, shorter look has it lose this much more: twice the error of that look.
const DOUBT: f32 = 0.005;

/// A setting for decode; the clock may lie between two steps (see [`super::dither`]).
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

/// The share of speed that may be lost, against all threads or against fewer that were faster.
#[derive(Clone, Copy, Debug)]
pub struct Epsilon {
    pub all: f32,
    pub fewer: f32,
}

#[derive(Clone, Debug)]
pub struct Eco {
    epsilon: Epsilon,
    best_threads: u8,
    reference: f32,
    /// One sigma of the reference, as a share of it.
    reference_error: f32,
    best: Setting,
    best_rate: f32,
    /// Most tokens a thread and GHz has given: there a thread hardly waits for memory.
    densest: f32,
    trying: Option<Setting>,
    search: Search,
    stood_s: f32,
    rates: Rates,
    since_reference_s: f32,
    /// The last candidate that was allowed, and its loss.
    allowed: Option<(Setting, f32)>,
}

impl Eco {
    pub fn new(prior: &Prior, epsilon: Epsilon, threads: u8) -> Eco {
        let full = Setting { threads, mhz: prior.max_mhz() };
        Eco {
            epsilon,
            best_threads: threads,
            reference: 0.0,
            reference_error: 0.0,
            best: full,
            best_rate: 0.0,
            densest: 0.0,
            trying: Some(full),
            search: Search::First,
            stood_s: 0.0,
            rates: Rates::default(),
            since_reference_s: 0.0,
            allowed: None,
        }
    }

    /// What decode runs at now.
    pub fn setting(&self) -> Setting {
        self.trying.unwrap_or(self.best)
    }

    pub fn is_searching(&self) -> bool {
        self.trying.is_some()
    }

    /// The reference: best threads, full clock.
    pub fn full(&self, prior: &Prior) -> Setting {
        Setting { threads: self.best_threads, mhz: prior.max_mhz() }
    }

    /// Whether the reference is due to be measured anew; `turns_fan`: full clock for a look would make the fan turn faster.
    pub fn look_again(&mut self, prior: &Prior, turns_fan: bool) {
        let due_s = if turns_fan { REFRESH_LAST_S } else { REFRESH_S };
        if self.trying.is_none() && self.since_reference_s >= due_s {
            self.reference = 0.0;
            self.search = Search::Again;
            self.stand_on(self.full(prior));
        }
    }

    /// Takes in one busy second of decode that ran as [`Eco::setting`] says.
    pub fn feed(&mut self, prior: &Prior, tokens: f32, busy: f32, may_cap: bool) {
        self.since_reference_s += busy;
        let Some(trying) = self.trying else { return };
        self.stood_s += busy;
        if self.stood_s <= SKIP_S {
            return;
        }
        self.rates.add(tokens / busy.max(1e-3));
        if self.stood_s < if self.search == Search::First { STAND_S } else { LOOK_S } {
            return;
        }
        let rate = self.rates.mean();
        self.densest = self.densest.max(density(trying, rate));
        let full = self.full(prior);
        if self.reference == 0.0 {
            self.reference = rate;
            self.reference_error = self.rates.error_of_mean() / rate.max(1e-6);
            self.best_rate = if self.best == full { rate } else { self.best_rate };
            self.since_reference_s = 0.0;
            self.allowed = Some((full, 0.0));
            return if self.search == Search::Again && self.best != full {
                self.stand_on(self.step_of_best(prior))
            } else {
                self.try_below(prior, full, may_cap)
            };
        }
        if trying.mhz == full.mhz && rate > self.reference * (1.0 + self.guard(prior)) {
            // Fewer threads are faster: what may be lost counts from there.
            (self.best_threads, self.reference, self.reference_error) = (trying.threads, rate, self.rates.error_of_mean() / rate);
            (self.best, self.best_rate, self.allowed) = (trying, rate, Some((trying, 0.0)));
            return self.try_below(prior, trying, may_cap);
        }
        let epsilon = self.epsilon(prior);
        let loss = 1.0 - rate / self.reference;
        let guard = self.guard(prior);
        let slack = if self.search == Search::Again && trying == self.step_of_best(prior) { DOUBT } else { -guard };
        let allowed = loss <= epsilon + slack;
        let below = self.between(trying, loss, epsilon - guard).filter(|_| !allowed);
        if allowed {
            self.allowed = Some((trying, loss));
        }
        match (self.search, allowed) {
            (Search::Again, true) => {
                self.search = Search::OneLower;
                let mhz = prior.step_below(trying.mhz);
                if may_cap && mhz < trying.mhz { self.stand_on(Setting { mhz, ..trying }) } else { self.trying = None }
            }
            (Search::Again, false) if trying.mhz < full.mhz => self.stand_on(Setting { mhz: prior.step_above(trying.mhz), ..trying }),
            (Search::Again, false) => (self.best, self.trying) = (full, None),
            (Search::OneLower, _) => {
                self.best = match below {
                    _ if allowed => trying,
                    // A short look moves what a long one found, but does not replace it.
                    Some(b) => Setting { mhz: (STAND_S * self.best.mhz + LOOK_S * b.mhz) / (STAND_S + LOOK_S), ..b },
                    None => self.best,
                };
                self.trying = None;
            }
            (Search::First, true) => {
                self.take_if_cheaper(prior, trying, rate);
                self.try_below(prior, trying, may_cap);
            }
            (Search::First, false) => {
                if let Some(between) = below {
                    self.take_if_cheaper(prior, between, (1.0 - epsilon + guard) * self.reference);
                }
                if trying.threads == self.best_threads && trying.threads > 1 {
                    self.stand_on(Setting { threads: trying.threads - 1, mhz: full.mhz });
                } else {
                    self.trying = None;
                }
            }
        }
    }

    /// What a measured loss may be wrong by, at most half of what may be lost.
    fn guard(&self, prior: &Prior) -> f32 {
        let error = self.rates.error_of_mean() / self.reference.max(1e-6);
        (GUARD_SIGMAS * error.hypot(self.reference_error)).min(0.5 * self.epsilon(prior))
    }

    fn epsilon(&self, prior: &Prior) -> f32 {
        if self.best_threads < prior.cores { self.epsilon.fewer } else { self.epsilon.all }
    }

    /// The clock that loses just `aim`, between the last step that lost less and this one that loses more.
    fn between(&self, slow: Setting, loss: f32, aim: f32) -> Option<Setting> {
        let (fast, fast_loss) = self.allowed.filter(|(s, _)| s.threads == slow.threads && s.mhz > slow.mhz)?;
        let share = ((aim - fast_loss) / (loss - fast_loss)).clamp(0.0, 1.0);
        Some(Setting { mhz: fast.mhz - share * (fast.mhz - slow.mhz), ..fast })
    }

    /// The clock step from which a later search starts.
    fn step_of_best(&self, prior: &Prior) -> Setting {
        let low = prior.step_at_or_below(self.best.mhz);
        Setting { mhz: if self.best.mhz > low + 0.5 { prior.step_above(low) } else { low }, ..self.best }
    }

    fn take_if_cheaper(&mut self, prior: &Prior, setting: Setting, rate: f32) {
        if self.joules(prior, setting, rate) < self.joules(prior, self.best, self.best_rate) {
            (self.best, self.best_rate) = (setting, rate);
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
        (self.stood_s, self.rates) = (0.0, Rates::default());
    }

    /// Joules a token by the power table. A thread that waits for memory draws half of what one that computes does, and how much it waits
    /// shows in its tokens a GHz.
    fn joules(&self, prior: &Prior, s: Setting, rate: f32) -> f32 {
        let computing = density(s, rate) / self.densest.max(1e-6);
        let activity = prior.act_decode * (2.0 + 2.0 * computing.min(1.0)) / 3.0;
        (prior.board_w + prior.power_w(activity, s.threads, s.mhz)) / rate.max(1e-6)
    }
}

/// Tokens a thread and GHz.
fn density(s: Setting, rate: f32) -> f32 {
    rate / (s.threads as f32 * s.mhz / 1000.0).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::super::plant::noise::Noise;
    use super::*;

    fn knee(epsilon: f32, may_cap: bool, rate: impl Fn(Setting) -> f32) -> Setting {
        let prior = Prior::unknown(4, vec![1500.0, 1600.0, 1700.0, 1800.0, 1900.0, 2000.0, 2100.0, 2200.0, 2300.0, 2400.0]);
        let mut eco = Eco::new(&prior, Epsilon { all: epsilon, fewer: epsilon }, 4);
        for _ in 0..3600 {
            let r = rate(eco.setting());
            eco.feed(&prior, r, 1.0, may_cap);
            eco.look_again(&prior, false);
        }
        assert!(!eco.is_searching());
        eco.setting()
    }

    #[test]
    fn the_clock_falls_as_far_as_the_loss_allows() {
        let rate = |s: Setting| 10.0 * (1.0 - 0.0001 * (2400.0 - s.mhz)) * if s.threads < 4 { 0.8 } else { 1.0 };
        let (eco, quiet) = (knee(0.02, true, rate), knee(0.08, true, rate));
        assert!(eco.threads == 4 && (eco.mhz - 2200.0).abs() < 5.0, "{eco:?}");
        assert!(quiet.threads == 4 && (quiet.mhz - 1600.0).abs() < 5.0, "{quiet:?}");
    }

    #[test]
    fn a_thread_less_is_taken_when_it_costs_no_speed() {
        let rate = |s: Setting| if s.threads < 3 { 5.0 } else { 10.0 * (s.mhz / 2400.0).powf(0.5) };
        let knee = knee(0.03, true, rate);
        assert!(knee.threads == 3 && (2250.0..=2300.0).contains(&knee.mhz), "{knee:?}");
    }

    #[test]
    fn what_is_lost_stays_within_what_may_be_lost_though_rates_are_noisy() {
        let loss = |mhz: f32| 0.0001 * (2400.0 - mhz);
        let mut beyond = 0;
        for seed in 0..40 {
            let noise = std::cell::RefCell::new(Noise::new(seed));
            let rate = |s: Setting| {
                10.0 * (1.0 - loss(s.mhz)) * if s.threads < 4 { 0.8 } else { 1.0 } * (1.0 + 0.01 * noise.borrow_mut().normal())
            };
            let found = knee(0.02, true, rate);
            assert!(found.threads == 4 && loss(found.mhz) > 0.008, "seed {seed}: {found:?}");
            beyond += usize::from(loss(found.mhz) > 0.0201);
        }
        // One in ten is meant to; half of them did when a fixed twentieth of a percent was kept.
        assert!(beyond <= 8, "{beyond} of 40");
    }

    #[test]
    fn fewer_threads_that_are_faster_become_the_reference() {
        let rate = |s: Setting| [4.0, 8.0, 10.3, 10.0][usize::from(s.threads) - 1] * (0.4 + 0.6 * s.mhz / 2400.0);
        let found = knee(0.02, true, rate);
        assert!(found.threads == 3 && rate(found) >= 0.979 * 10.3, "{found:?}");
    }

    #[test]
    fn a_later_look_waits_while_it_would_turn_the_fan_but_not_for_ever() {
        let prior = Prior::unknown(4, vec![1800.0, 2400.0]);
        let mut eco = Eco::new(&prior, Epsilon { all: 0.3, fewer: 0.3 }, 4);
        let looks_after = |eco: &mut Eco, turns_fan: bool| {
            (0..20_000).find(|_| {
                eco.feed(&prior, 10.0 * eco.setting().mhz / 2400.0, 1.0, true);
                let rested = !eco.is_searching();
                eco.look_again(&prior, turns_fan);
                rested && eco.is_searching()
            })
        };
        let (quiet, turning) = (looks_after(&mut eco, false).unwrap(), looks_after(&mut eco, true).unwrap());
        assert!(quiet < 2000 && (7000..8000).contains(&turning), "{quiet} s, {turning} s");
    }

    #[test]
    fn without_the_right_to_cap_only_threads_are_tried() {
        assert_eq!(knee(0.08, false, |s| if s.threads < 3 { 5.0 } else { 10.0 }), Setting { threads: 3, mhz: 2400.0 });
    }
}
