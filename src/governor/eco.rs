//! The knee: the least power whose speed is within ε of the best, found by measuring while the board is cool.
//!
//! Decode is bound by memory, so the clock can fall before the speed does. The reference (best threads, full clock) and a candidate take
//! turns, six seconds each, and [`super::curve`] learns from them how speed falls with the clock. First one thread less is compared at full
//! clock: is it faster, it is the reference. Then the candidate is the clock that loses ε as far as the curve says by now; then the same
//! with one thread less, if that many are fast enough at all. The cheapest by the power table is measured on until its loss is known to a
//! tenth of a percent. What then stands is the clock, between two steps if need be, that loses ε less two sigma. Prefill is left alone.
//!
//! Later looks at the reference are short, or the looking would cost what the knee saves: 40 s at full clock every half hour ate 0.6 of
//! 12.5 % J. And they wait while full clock would make the fan turn faster, which its hysteresis would keep for good: that ate 1.2 of
//! 10.7 % J.

use super::curve::{Crew, Curve};
use super::policy::Prior;

/// Busy seconds on a setting before the other has its turn. The first is not counted: it may belong to both.
const STINT_S: f32 = 6.0;
const SKIP_S: f32 = 1.0;
/// A later look at the reference.
pub const LOOK_S: f32 = 18.0;
/// The reference is measured anew this often: context grows, rooms warm. (Every half hour, over three hours, `quiet` saves
/// 0.1 points less, and `eco` the same within 0.04: simulated, twelve noises.)
const REFRESH_S: f32 = 3600.0;
/// Or this often at last, whatever the fan does.
const REFRESH_LAST_S: f32 = 2.0 * REFRESH_S;
/// A search that the fan broke off goes on after this.
const RESUME_S: f32 = 120.0;
/// Between two corrections of a knee by what was seen since.
const REVIEW_S: f32 = 60.0;
/// One sigma of a loss that is enough to choose by; and of the chosen candidate's that is enough to stay.
const COARSE: f32 = 0.0045;
const FINE: f32 = 0.001;
/// A candidate's clock is no further below those that were measured than by this share.
const STRIDE: f32 = 0.85;
/// A search ends after this, however sure it is: rates scatter more than was thought.
const SEARCH_MAX_S: f32 = 900.0;
/// Sigmas of the loss that are kept between it and ε: one board in forty loses more.
const GUARD_SIGMAS: f32 = 2.0;
/// Sigmas by which one thread less must be faster, or too slow: this is asked after every stint.
const CLEAR_SIGMAS: f32 = 3.0;

/// A setting for decode; the clock may lie between two steps (see [`super::dither`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    pub threads: u8,
    pub mhz: f32,
}

/// The share of speed that may be lost, against all threads or against fewer that were faster.
#[derive(Clone, Copy, Debug)]
pub struct Epsilon {
    pub all: f32,
    pub fewer: f32,
}

/// One busy second of decode.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    /// The clock step that was asked for.
    pub mhz: f32,
    pub tokens: f32,
    pub busy_s: f32,
    /// The first of an answer.
    pub begins: bool,
    pub may_cap: bool,
    /// Full clock for [`Eco::looks_s`] would make the fan turn faster.
    pub turns_fan: bool,
}

/// What the present seconds are for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    /// The reference and a candidate in turn.
    Search,
    /// The reference alone, once.
    Look,
    /// The knee stands.
    Rest,
}

#[derive(Clone, Debug)]
pub struct Eco {
    epsilon: Epsilon,
    /// Of the reference, at least one.
    threads: u8,
    cores: u8,
    curve: Curve,
    /// The lowest clock that was stood on, by [`Crew`].
    lowest_mhz: [f32; 2],
    task: Task,
    /// What stands at rest, and what is stood on otherwise.
    best: Setting,
    trying: Setting,
    /// The clock step of the last second, and how long it has stood.
    stood_on: Setting,
    stood_s: f32,
    stints: u32,
    searched_s: f32,
    /// Enough, or as far as time allowed.
    is_sure: bool,
    rested_s: f32,
    since_review_s: f32,
}

impl Eco {
    pub fn new(prior: &Prior, epsilon: Epsilon, threads: u8) -> Eco {
        let threads = threads.max(1);
        let full = Setting { threads, mhz: prior.max_mhz() };
        Eco {
            epsilon,
            threads,
            cores: prior.cores,
            curve: Curve::new(),
            lowest_mhz: [full.mhz; 2],
            task: Task::Search,
            best: full,
            trying: full,
            stood_on: full,
            stood_s: 0.0,
            stints: 0,
            searched_s: 0.0,
            is_sure: false,
            rested_s: 0.0,
            since_review_s: 0.0,
        }
    }

    /// What decode runs at now.
    pub fn setting(&self) -> Setting {
        if self.task == Task::Rest { self.best } else { self.trying }
    }

    pub fn is_searching(&self) -> bool {
        self.task != Task::Rest
    }

    /// The reference: best threads, full clock.
    pub fn full(&self, prior: &Prior) -> Setting {
        Setting { threads: self.threads, mhz: prior.max_mhz() }
    }

    /// Seconds that the next look at the reference takes.
    pub fn looks_s(&self) -> f32 {
        if self.task == Task::Rest && self.is_sure { LOOK_S } else { STINT_S }
    }

    /// Takes in one busy second of decode that ran as [`Eco::setting`] says.
    pub fn feed(&mut self, prior: &Prior, second: Second) {
        let setting = self.setting();
        let now = Setting { mhz: second.mhz, ..setting };
        let crew = self.crew_of(setting);
        if now != self.stood_on {
            (self.stood_on, self.stood_s) = (now, 0.0);
        }
        self.stood_s += second.busy_s;
        if second.begins {
            self.curve.another_answer();
        }
        if self.stood_s > SKIP_S && second.tokens > 0.0 {
            self.curve.learn(crew, below_full(prior, second.mhz), second.tokens / second.busy_s.max(1e-3));
            self.lowest_mhz[crew as usize] = self.lowest_mhz[crew as usize].min(second.mhz);
        }
        match self.task {
            Task::Search => {
                self.searched_s += second.busy_s;
                if self.stood_s >= STINT_S {
                    self.next(prior, &second);
                }
            }
            Task::Look if self.stood_s >= LOOK_S => self.rest(self.best),
            Task::Look => (),
            Task::Rest => {
                self.rested_s += second.busy_s;
                self.since_review_s += second.busy_s;
                if self.since_review_s >= REVIEW_S {
                    self.since_review_s = 0.0;
                    let mhz = self.knee(prior, crew, GUARD_SIGMAS, second.may_cap);
                    self.best = mhz.map_or(self.full(prior), |mhz| Setting { mhz, ..self.best });
                }
                let due_s = match (second.turns_fan, self.is_sure) {
                    (true, _) => REFRESH_LAST_S,
                    (false, true) => REFRESH_S,
                    (false, false) => RESUME_S,
                };
                if self.rested_s >= due_s {
                    self.task = if self.is_sure { Task::Look } else { Task::Search };
                    self.trying = self.full(prior);
                }
            }
        }
    }

    /// A stint of a search ends.
    fn next(&mut self, prior: &Prior, second: &Second) {
        self.stints += 1;
        let (behind, sigma) = self.curve.loss(Crew::Fewer, 0.0);
        if behind < -CLEAR_SIGMAS * sigma {
            // Fewer threads are faster: what may be lost counts from there.
            *self = Eco::new(prior, self.epsilon, self.threads - 1);
            return;
        }
        if self.trying != self.full(prior) {
            self.trying = self.full(prior);
            return;
        }
        let out_of_time = self.searched_s >= SEARCH_MAX_S;
        let fewer = Setting { threads: self.threads - 1, ..self.full(prior) };
        let is_open = fewer.threads > 0 && sigma > COARSE && behind - CLEAR_SIGMAS * sigma <= self.epsilon();
        let unsure = is_open.then_some(fewer).or_else(|| {
            let crews = [Crew::All, Crew::Fewer];
            crews.into_iter().find_map(|crew| self.candidate(prior, crew, COARSE, second.may_cap))
        });
        if let Some(unsure) = unsure.filter(|_| !out_of_time) {
            self.trying = unsure;
            return;
        }
        let best = self.cheapest(prior, second.may_cap);
        let unsure = self.candidate(prior, self.crew_of(best), FINE, second.may_cap).filter(|_| !out_of_time);
        match unsure {
            Some(setting) if !second.turns_fan => self.trying = setting,
            _ => {
                self.is_sure = unsure.is_none();
                self.rest(best);
            }
        }
    }

    fn rest(&mut self, best: Setting) {
        (self.task, self.best) = (Task::Rest, best);
        (self.rested_s, self.since_review_s) = (0.0, 0.0);
    }

    /// Where a crew is to be measured next; `None` once the loss at its knee is known to `enough`, or where it has no knee.
    fn candidate(&self, prior: &Prior, crew: Crew, enough: f32, may_cap: bool) -> Option<Setting> {
        let threads = match crew {
            Crew::All => self.threads,
            Crew::Fewer if self.threads > 1 => self.threads - 1,
            Crew::Fewer => return None,
        };
        let (behind, sigma) = self.curve.loss(crew, 0.0);
        if behind - GUARD_SIGMAS * sigma > self.epsilon() {
            return None;
        }
        let knee = self.knee(prior, crew, 0.0, may_cap).unwrap_or(prior.max_mhz());
        let low = prior.step_at_or_below(knee);
        let lowest = self.lowest_mhz[crew as usize];
        if low < lowest - 0.5 {
            let mhz = low.max(prior.step_at_or_below(STRIDE * lowest)).min(prior.step_below(lowest));
            return Some(Setting { threads, mhz });
        }
        let (_, sigma) = self.curve.loss(crew, below_full(prior, knee));
        // The two steps about the knee in turn.
        let mhz = if knee > low + 0.5 && self.stints % 4 < 2 { prior.step_above(low) } else { low };
        (sigma > enough).then_some(Setting { threads, mhz })
    }

    /// The lowest clock of a crew that loses no more than ε, so many sigmas of the loss added; `None` where even full clock loses more.
    fn knee(&self, prior: &Prior, crew: Crew, sigmas: f32, may_cap: bool) -> Option<f32> {
        // One thread less that is faster, though not clearly so, is what the loss counts from.
        let epsilon = self.epsilon() + self.curve.loss(Crew::Fewer, 0.0).0.min(0.0);
        let mut fast: Option<(f32, f32)> = None;
        for &mhz in prior.steps_mhz.iter().rev() {
            let (loss, sigma) = self.curve.loss(crew, below_full(prior, mhz));
            let loss = loss + sigmas * sigma;
            if loss > epsilon {
                return fast.map(|(above, lost)| above - (epsilon - lost) / (loss - lost) * (above - mhz));
            }
            fast = Some((mhz, loss));
            if !may_cap {
                break;
            }
        }
        fast.map(|(mhz, _)| mhz)
    }

    /// The knee with the fewest joules a token by the power table.
    fn cheapest(&self, prior: &Prior, may_cap: bool) -> Setting {
        let kept = |s: Setting| 1.0 - self.curve.loss(self.crew_of(s), below_full(prior, s.mhz)).0;
        let full = self.full(prior);
        let knees = [(Crew::All, self.threads), (Crew::Fewer, self.threads.saturating_sub(1))].into_iter().filter_map(|(crew, threads)| {
            let mhz = self.knee(prior, crew, GUARD_SIGMAS, may_cap).filter(|_| threads > 0)?;
            Some(Setting { threads, mhz })
        });
        let knees: Vec<Setting> = std::iter::once(full).chain(knees).collect();
        // Where a thread gives most tokens a GHz it hardly waits for memory.
        let densest = knees.iter().map(|&s| density(s, kept(s))).fold(1e-6, f32::max);
        let joules = |s: Setting| {
            // A thread that waits for memory draws half of what one that computes does.
            let activity = prior.act_decode * (2.0 + 2.0 * density(s, kept(s)) / densest) / 3.0;
            (prior.board_w + prior.power_w(activity, s.threads, s.mhz)) / kept(s).max(1e-6)
        };
        knees.into_iter().min_by(|&a, &b| joules(a).total_cmp(&joules(b))).unwrap_or(full)
    }

    fn crew_of(&self, setting: Setting) -> Crew {
        if setting.threads == self.threads { Crew::All } else { Crew::Fewer }
    }

    fn epsilon(&self) -> f32 {
        if self.threads < self.cores { self.epsilon.fewer } else { self.epsilon.all }
    }
}

/// ln(full clock / clock).
fn below_full(prior: &Prior, mhz: f32) -> f32 {
    (prior.max_mhz() / mhz.max(1.0)).ln()
}

/// Tokens a thread and GHz.
fn density(s: Setting, rate: f32) -> f32 {
    rate / (s.threads as f32 * s.mhz / 1000.0).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::super::plant::noise::Noise;
    use super::*;

    fn second(mhz: f32, tokens: f32) -> Second {
        Second { mhz, tokens, busy_s: 1.0, begins: false, may_cap: true, turns_fan: false }
    }

    fn knee(epsilon: f32, may_cap: bool, rate: impl Fn(Setting) -> f32) -> Setting {
        let prior = Prior::unknown(4, vec![1500.0, 1600.0, 1700.0, 1800.0, 1900.0, 2000.0, 2100.0, 2200.0, 2300.0, 2400.0]);
        let mut eco = Eco::new(&prior, Epsilon { all: epsilon, fewer: epsilon }, 4);
        // A search, and a quarter of an hour: later the loss is less sure, and the clock higher.
        for _ in 0..1800 {
            let setting = eco.setting();
            // Between two steps, the nearer: its loss is what the tests ask about.
            let mhz = prior.step_at_or_below(setting.mhz + 50.0);
            eco.feed(&prior, Second { may_cap, ..second(mhz, rate(Setting { mhz, ..setting })) });
        }
        assert!(!eco.is_searching());
        eco.setting()
    }

    #[test]
    fn the_clock_falls_as_far_as_the_loss_allows() {
        let rate = |s: Setting| 10.0 * (1.0 - 0.0001 * (2400.0 - s.mhz)) * if s.threads < 4 { 0.8 } else { 1.0 };
        let (eco, quiet) = (knee(0.02, true, rate), knee(0.08, true, rate));
        assert!(eco.threads == 4 && (2200.0..2220.0).contains(&eco.mhz), "{eco:?}");
        assert!(quiet.threads == 4 && (1600.0..1650.0).contains(&quiet.mhz), "{quiet:?}");
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
            assert!(found.threads == 4 && loss(found.mhz) > 0.014, "seed {seed}: {found:?}");
            beyond += usize::from(loss(found.mhz) > 0.0201);
        }
        // One in forty is meant to.
        assert!(beyond <= 4, "{beyond} of 40");
    }

    #[test]
    fn an_answer_that_slows_as_it_grows_is_no_loss_of_the_clock() {
        // A tenth in an answer of 300 s, which no clock is to blame for; then another answer, quick again.
        let second = std::cell::Cell::new(0);
        let rate = |s: Setting| {
            second.set(second.get() + 1);
            let context = 1.0 - 0.1 * (second.get() % 300) as f32 / 300.0;
            10.0 * context * (1.0 - 0.0001 * (2400.0 - s.mhz)) * if s.threads < 4 { 0.8 } else { 1.0 }
        };
        let found = knee(0.02, true, rate);
        assert!(found.threads == 4 && (2180.0..2240.0).contains(&found.mhz), "{found:?}");
    }

    #[test]
    fn fewer_threads_that_are_faster_become_the_reference() {
        let rate = |s: Setting| [4.0, 8.0, 10.3, 10.0][usize::from(s.threads) - 1] * (0.4 + 0.6 * s.mhz / 2400.0);
        let found = knee(0.02, true, rate);
        assert!(found.threads == 3 && rate(found) >= 0.979 * 10.3, "{found:?}");
    }

    #[test]
    fn against_fewer_threads_that_are_hardly_faster_no_more_is_lost_than_may_be() {
        let noise = std::cell::RefCell::new(Noise::new(5));
        let loss = |s: Setting| 0.0001 * (2400.0 - s.mhz) + [0.5, 0.2, 0.0, 0.006][usize::from(s.threads) - 1];
        let found = knee(0.02, true, |s| 10.0 * (1.0 - loss(s)) * (1.0 + 0.01 * noise.borrow_mut().normal()));
        assert!(loss(found) < 0.022, "{found:?}");
    }

    #[test]
    fn a_later_look_waits_while_it_would_turn_the_fan_but_not_for_ever() {
        let prior = Prior::unknown(4, vec![1800.0, 2400.0]);
        let mut eco = Eco::new(&prior, Epsilon { all: 0.3, fewer: 0.3 }, 4);
        let looks_after = |eco: &mut Eco, turns_fan: bool| {
            (0..20_000).find(|_| {
                let rested = !eco.is_searching();
                let mhz = prior.step_at_or_below(eco.setting().mhz);
                eco.feed(&prior, Second { turns_fan, ..second(mhz, 10.0 * mhz / 2400.0) });
                rested && eco.is_searching()
            })
        };
        let (quiet, turning) = (looks_after(&mut eco, false).unwrap(), looks_after(&mut eco, true).unwrap());
        assert!((3600..4000).contains(&quiet) && (7000..8000).contains(&turning), "{quiet} s, {turning} s");
    }

    #[test]
    fn a_search_among_rates_that_scatter_too_much_ends_and_keeps_its_distance() {
        let noise = std::cell::RefCell::new(Noise::new(3));
        let rate = |s: Setting| 10.0 * (1.0 - 0.0001 * (2400.0 - s.mhz)) * (1.0 + 0.2 * noise.borrow_mut().normal());
        let found = knee(0.02, true, rate);
        assert!(found.threads >= 3 && found.mhz >= 2200.0, "{found:?}");
    }

    #[test]
    fn without_the_right_to_cap_only_threads_are_tried() {
        assert_eq!(knee(0.08, false, |s| if s.threads < 3 { 5.0 } else { 10.0 }), Setting { threads: 3, mhz: 2400.0 });
    }
}
