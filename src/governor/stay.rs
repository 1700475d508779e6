//! The Stay law: hold the clock just below a throttle that is worse than holding it.
//!
//! Per phase, with e = ceiling - T: `cap += i·fmax·e·dt`, wanted `cap + p·fmax·e`; i = 0.0003, p = 0.01 for a die, whose slow node answers
//! after minutes (with i = 0.0012 the loop swung for five minutes a time and lost half a percent; with p = 0.02 the noise of the sensor
//! moved the clock, and 0.1 % went), but p = 0.02 below a ladder and while phases alternate, which swing by kelvins; i = 0.0001, p = 0.1 for
//! a skin. What is wanted lies between two clock steps and is played as their mean ([`super::dither`]). Never below the board's own low
//! clock: staying under it would cost more than the cliff does. The ceiling is the trip less a margin that is learned: wider after a trip,
//! narrower after quiet minutes, so that on a die, where a trip costs a few seconds, there is about one in five minutes, and on a skin,
//! where it costs minutes, hardly any.
//!
//! A board that was caught may never let go: at its low clock it stays warmer than its own threshold of return. Then the law breaks free
//! ([`Grip::BreakingFree`]): one thread alone until the clock comes back, where that is foretold to pay within the hour.

use super::answers::{self, Answers, Grades};
use super::dither::Dither;
use super::mechanism::Zone;
use super::policy::Prior;
use super::turns::Turns;

/// Where a hold below one of several grades begins.
pub const GRADE_MARGIN_C: f32 = 0.3;
/// Below a cliff, 40 draws each at 30 and 40 °C: the first token 7 and 12 % sooner for turns 3 and 5 % shorter, where no air had 3 and 7 %,
/// and 3 and 8 %.
const ANSWER_AIR_C: f32 = 1.0;
/// What a cliff's trip leaves of the cap, which was too high: on a die under steady work, where a trip costs a few seconds; and else.
/// (RK3588, decode at 22 °C, twelve noises: +6.2 % where 0.97 had +6.1; 0.99 loses 0.3 against 0.985. In turns at 40 °C 0.985 lost 1 of
/// 5.6 %, and under a phone's hard cliff one draw of eight a third of what it wins.)
const TRIP_CUT: [f32; 2] = [0.985, 0.97];
/// How much more the clock follows the temperature on a die while phases alternate.
const MIXED_FOLLOWS: f32 = 2.0;
/// Between two trips that count for the margin.
const LESSON_S: f32 = 60.0;
const MARGIN_MAX_C: f32 = 4.0;
/// Above the ceiling by this much the clock goes down without waiting.
const URGENT_C: f32 = 1.0;
/// The board has held the clock below what was asked for, without moving it, for this long: it will not let go by itself.
const GRIPPED_S: [f32; 2] = [20.0, 60.0];
/// The longest way to freedom, and from one to the next: a die answers in seconds, a skin in minutes. One that led nowhere is not tried
/// again under a skin, and rarely under a die.
pub const FREE_AFTER_S: [f32; 2] = [20.0, 1500.0];
const FREE_AGAIN_S: [f32; 2] = [30.0, 3600.0];
const FREE_IN_VAIN_S: [f32; 2] = [600.0, f32::INFINITY];

/// A share of the busy seconds is one of about the last five minutes.
const SHARE_S: f32 = 300.0;
/// A hold that stands on the board's own low clock for more than this share of its time holds nothing. (RK3588 cliff, prompts and answers
/// in turn at 40 °C, 60 draws: up to 0.63 the hold is as quick or quicker, +7 % in the middle; of 14 draws from 0.75 on 6 lose 1 to 1.8 %
/// and wait 4 to 6 % longer for the first token, since the board alone runs at full clock for seconds after each silence.)
const NOTHING_HELD: f32 = 0.7;

/// What a tick tells the law.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// 0 prefill, 1 decode; `None` while idle.
    pub phase: Option<usize>,
    pub t: f32,
    pub measured_mhz: f32,
    pub request_mhz: f32,
    /// The phase is old enough for the clock to be its own.
    pub settled: bool,
    /// The board took clock away in this second.
    pub tripped: bool,
    /// Work left in this phase, where known, and the time to the ceiling at full clock, where it can be foretold.
    pub remaining_s: Option<f32>,
    pub to_ceiling_s: Option<f32>,
    /// Whether breaking free from a gripping board is foretold to pay.
    pub free_pays: bool,
    pub dt: f32,
}

/// The law's memory.
#[derive(Clone, Debug)]
pub struct Stay {
    limit: Limit,
    margin: Margin,
    integral: f32,
    proportional: f32,
    /// Below the ceiling by this much a prefill may start at full clock: a die rises by kelvins within a prompt; a skin does not, and
    /// may even be a little above.
    burst_c: f32,
    /// Without a trip, since the last one or since the margin was made narrower.
    quiet_s: f32,
    since_trip_s: f32,
    cap_mhz: [f32; 2],
    asked: [Dither; 2],
    tripped: bool,
    grip: Grip,
    free_again_s: f32,
    /// Of the busy seconds.
    share_on_floor: f32,
    pub bursting: bool,
    /// Prompts and answers alternate.
    mixed: bool,
    /// And a ladder is what is stayed below.
    turns: Option<Turns>,
    /// Or a grade.
    answers: Option<Answers>,
    max_mhz: f32,
}

/// Whose doing the clock is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Grip {
    Ours,
    /// The board holds it lower; for how long at one clock.
    Boards {
        mhz: f32,
        since_s: f32,
    },
    /// One thread alone, until the clock comes back.
    BreakingFree {
        since_s: f32,
    },
}

/// What is stayed below.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub zone: Zone,
    pub trip_c: f32,
    /// The board's own low clock.
    pub floor_mhz: f32,
    /// What it gives below the trip.
    pub upper_mhz: f32,
    /// A ladder, not a cliff.
    pub steps: bool,
    /// One of several grades of a slow zone: its fall is less deep than a cliff's.
    pub grade: bool,
}

/// How far below the trip, and how that is learned.
#[derive(Clone, Copy, Debug)]
struct Margin {
    now_c: f32,
    min_c: f32,
    /// After a trip.
    wider_c: f32,
    /// After each `quiet_s` without one.
    narrower_c: f32,
    quiet_s: f32,
}

impl Grip {
    /// Of a hold that begins: the board's, until its clock shows otherwise.
    const UNKNOWN: Grip = Grip::Boards { mhz: f32::INFINITY, since_s: 0.0 };
}

impl Stay {
    /// Starts at `start_mhz`, the constant clock that draws what the board's own throttle lets through.
    pub fn new(prior: &Prior, limit: Limit, start_mhz: f32) -> Stay {
        let (integral, proportional, margin) = match limit.zone {
            // A rung of a ladder costs little and is taken back at once: nothing to learn from it, and hardly a reason to stay away.
            Zone::Die if limit.steps => (0.0003, 0.02, Margin { now_c: 0.1, min_c: 0.1, wider_c: 0.0, narrower_c: 0.0, quiet_s: 600.0 }),
            Zone::Die => (0.0003, 0.01, Margin { now_c: 0.8, min_c: 0.1, wider_c: 0.1, narrower_c: 0.05, quiet_s: 120.0 }),
            // Between two grades the board's own mean is half a kelvin below the trip: a kelvin would lose more than steadiness wins.
            Zone::Skin if limit.grade => {
                (0.0001, 0.1, Margin { now_c: GRADE_MARGIN_C, min_c: 0.2, wider_c: 0.2, narrower_c: 0.1, quiet_s: 600.0 })
            }
            Zone::Skin => (0.0001, 0.1, Margin { now_c: 1.0, min_c: 0.3, wider_c: 0.5, narrower_c: 0.1, quiet_s: 600.0 }),
        };
        // A board may run above all the steps that are known of it, and so may its low clock be.
        let limit = Limit { floor_mhz: limit.floor_mhz.min(prior.max_mhz()), ..limit };
        let start_mhz = start_mhz.clamp(limit.floor_mhz, prior.max_mhz());
        Stay {
            limit,
            margin,
            integral,
            proportional,
            burst_c: if limit.zone == Zone::Skin { -1.0 } else { 3.0 },
            quiet_s: 0.0,
            since_trip_s: 0.0,
            cap_mhz: [start_mhz; 2],
            asked: [Dither::at(prior.step_at_or_below(start_mhz).max(limit.floor_mhz)); 2],
            tripped: false,
            grip: Grip::UNKNOWN,
            free_again_s: 0.0,
            share_on_floor: 0.0,
            bursting: false,
            mixed: false,
            turns: None,
            answers: None,
            max_mhz: prior.max_mhz(),
        }
    }

    pub fn zone(&self) -> Zone {
        self.limit.zone
    }

    pub fn limit(&self) -> Limit {
        self.limit
    }

    pub fn ceiling_c(&self) -> f32 {
        self.limit.trip_c - self.margin.now_c
    }

    /// Below a cliff of the die in a mixed load the answer leaves air for the next prompt, which is what a listener waits for.
    fn ceiling_of(&self, phase: usize) -> f32 {
        let air = if self.mixed && self.limit.zone == Zone::Die { ANSWER_AIR_C } else { 0.0 };
        self.ceiling_c() - [0.0, air][phase]
    }

    /// Whether prompts and answers alternate. Below a ladder they share a level then, which begins at `level_mhz`; below a grade the answer
    /// makes room for the prompt.
    pub fn alternates(&mut self, prior: &Prior, mixed: bool, level_mhz: impl FnOnce() -> f32) {
        self.mixed = mixed;
        if mixed && self.limit.steps {
            self.turns.get_or_insert_with(|| Turns::new(level_mhz()));
        } else {
            self.turns = None;
        }
        if !(mixed && self.limit.grade) {
            self.answers = None;
        } else if self.answers.is_none() {
            let Limit { trip_c, upper_mhz, floor_mhz: lower_mhz, .. } = self.limit;
            self.answers = Some(Answers::new(prior, Grades { trip_c, upper_mhz, lower_mhz }));
            // The law beneath rests meanwhile: it must not be found in the middle of something, then or now.
            (self.grip, self.tripped, self.bursting) = (Grip::UNKNOWN, false, false);
        }
    }

    /// Divides between prompts and answers what the hold has won.
    pub fn share_out(&mut self, gain: f32) {
        if let Some(turns) = &mut self.turns {
            turns.share_out(gain);
        }
    }

    /// What a prompt at full clock must not reach.
    pub fn burst_ends_c(&self) -> f32 {
        self.ceiling_c() - self.burst_c.min(0.0)
    }

    /// The cap of a phase in MHz.
    pub fn applied_mhz(&self, phase: usize) -> f32 {
        match &self.answers {
            Some(answers) => answers.cap_mhz(phase).unwrap_or(self.max_mhz),
            None => self.asked[phase].mhz,
        }
    }

    /// Where a cap that is let go begins to rise, of both phases. A hold that slows the answer alone leaves the prompt what the board gives
    /// it: there nothing was held that a skin would notice at once.
    pub fn rises_from_mhz(&self) -> f32 {
        match &self.answers {
            Some(answers) => answers.cap_mhz(1).map_or(self.max_mhz, |_| self.limit.upper_mhz),
            None => self.asked[0].mhz.min(self.asked[1].mhz),
        }
    }

    /// Whether prompts and answers take turns below a cliff that leaves nothing to hold: the room is too hot.
    pub fn holds_nothing(&self) -> bool {
        self.mixed && self.limit.zone == Zone::Die && !self.limit.steps && self.share_on_floor > NOTHING_HELD
    }

    pub fn is_breaking_free(&self) -> bool {
        matches!(self.grip, Grip::BreakingFree { .. })
    }

    /// What the law would ask for at `t` if clocks had no steps.
    fn wanted_mhz(&self, prior: &Prior, phase: usize, t: f32) -> f32 {
        let max = prior.max_mhz();
        let wanted = match &self.turns {
            Some(turns) => turns.wanted_mhz(phase),
            None => {
                let follows = if self.mixed && self.limit.zone == Zone::Die { MIXED_FOLLOWS } else { 1.0 };
                self.cap_mhz[phase] + follows * self.proportional * max * (self.ceiling_of(phase) - t)
            }
        };
        wanted.clamp(self.limit.floor_mhz, max)
    }

    pub fn tick(&mut self, prior: &Prior, tick: Tick) {
        if let Some(answers) = &mut self.answers {
            let Tick { t, measured_mhz, request_mhz, settled, dt, .. } = tick;
            if let Some(phase) = tick.phase {
                answers.tick(prior, answers::Second { phase, t, measured_mhz, request_mhz, settled, dt });
            }
            return;
        }
        self.free_again_s -= tick.dt;
        self.learn_margin(&tick);
        self.bursting = false;
        if let Some(turns) = &mut self.turns {
            turns.feel(tick.phase, tick.t, tick.dt);
        }
        let Some(p) = tick.phase else {
            self.prepare_prompt(prior, &tick);
            return;
        };
        if p == 1 {
            self.prepare_prompt(prior, &tick);
        }
        let on_floor = tick.measured_mhz <= 1.03 * self.limit.floor_mhz;
        self.share_on_floor += (f32::from(u8::from(on_floor)) - self.share_on_floor) * (tick.dt / SHARE_S).min(1.0);
        if self.is_gripped(prior, p, &tick) {
            return;
        }
        let (max, floor) = (prior.max_mhz(), self.limit.floor_mhz);
        let e = self.ceiling_of(p) - tick.t;
        let applied = self.asked[p].mhz;
        let obeyed = (tick.measured_mhz / applied - 1.0).abs() < 0.03;
        if obeyed || tick.measured_mhz > applied || self.limit.steps && e < 0.0 {
            self.cap_mhz[p] = (self.cap_mhz[p] + self.integral * max * e * tick.dt).clamp(floor, max);
        }
        let burst =
            p == 0 && e > self.burst_c && tick.remaining_s.zip(tick.to_ceiling_s).is_some_and(|(left, until)| until.min(120.0) >= left);
        if burst {
            self.bursting = true;
            self.asked[0] = Dither::at(max);
            return;
        }
        let wanted = self.wanted_mhz(prior, p, tick.t);
        self.asked[p].tick(prior, wanted, floor, e < -URGENT_C, tick.dt);
    }

    /// A trip widens the margin, quiet narrows it.
    fn learn_margin(&mut self, tick: &Tick) {
        if tick.tripped && !self.tripped && self.grip == Grip::Ours {
            // Trips in a row are one lesson: the cap was still on its way down.
            if self.since_trip_s >= LESSON_S {
                self.margin.now_c = (self.margin.now_c + self.margin.wider_c).min(MARGIN_MAX_C);
            }
            self.quiet_s = 0.0;
            self.since_trip_s = 0.0;
            self.grip = Grip::UNKNOWN;
            if self.turns.is_none() {
                let cut = TRIP_CUT[usize::from(self.mixed || self.limit.zone == Zone::Skin)];
                self.cap_mhz = self.cap_mhz.map(|cap| (cut * cap).max(self.limit.floor_mhz));
            }
        }
        self.tripped = tick.tripped;
        self.quiet_s += tick.dt;
        self.since_trip_s += tick.dt;
        if self.quiet_s >= self.margin.quiet_s {
            self.quiet_s -= self.margin.quiet_s;
            self.margin.now_c = (self.margin.now_c - self.margin.narrower_c).max(self.margin.min_c);
        }
    }

    /// The next prompt starts at full clock below a slow zone, which hardly notices the seconds until the first look at it.
    fn prepare_prompt(&mut self, prior: &Prior, tick: &Tick) {
        if self.limit.zone == Zone::Skin && self.grip == Grip::Ours && self.ceiling_c() - tick.t > self.burst_c {
            self.asked[0] = Dither::at(prior.max_mhz());
        }
    }

    /// While a cliff holds the clock lower the law waits: what it would learn is not its own doing. A ladder holds for seconds only, and
    /// may meanwhile teach it to ask for less. A board that does not let go is left with one thread until it does.
    fn is_gripped(&mut self, prior: &Prior, p: usize, tick: &Tick) -> bool {
        let slow = usize::from(self.limit.zone == Zone::Skin);
        let e = self.ceiling_of(p) - tick.t;
        let floor = self.limit.floor_mhz;
        let asked = self.asked[p].mhz;
        let below = tick.measured_mhz < 0.97 * asked;
        match self.grip {
            Grip::BreakingFree { since_s } => {
                let freed = tick.measured_mhz >= 0.97 * asked;
                if freed || since_s >= FREE_AFTER_S[slow] || !tick.free_pays {
                    self.grip = Grip::Ours;
                    self.free_again_s = if freed { FREE_AGAIN_S[slow] } else { FREE_IN_VAIN_S[slow] };
                } else {
                    self.grip = Grip::BreakingFree { since_s: since_s + tick.dt };
                }
                true
            }
            Grip::Ours if !below || !self.limit.steps => false,
            Grip::Ours => {
                self.grip = Grip::Boards { mhz: tick.measured_mhz, since_s: 0.0 };
                false
            }
            Grip::Boards { mhz, since_s } => {
                let moved = (tick.measured_mhz - mhz).abs() >= 10.0;
                let since_s = if moved { 0.0 } else { since_s + tick.dt };
                if below && e > 0.0 && since_s >= GRIPPED_S[slow] && self.free_again_s <= 0.0 && tick.free_pays {
                    self.grip = Grip::BreakingFree { since_s: 0.0 };
                    return true;
                }
                let held = if self.limit.steps {
                    // As long as no more was asked for than it gives, nobody knows.
                    tick.measured_mhz <= mhz + 10.0
                } else {
                    tick.measured_mhz <= 1.03 * floor && !(asked <= 1.03 * floor && e > 0.0)
                };
                self.grip = if held { Grip::Boards { mhz: tick.measured_mhz, since_s } } else { Grip::Ours };
                if !self.limit.steps {
                    self.asked[p] = Dither::at(prior.step_at_or_below(self.cap_mhz[p]).max(floor));
                }
                !self.limit.steps
            }
        }
    }

    /// A phase begins: it starts from its own cap, above it as far as the temperature allows.
    pub fn enter(&mut self, prior: &Prior, phase: usize, t: f32) {
        if self.answers.is_some() {
            return;
        }
        let ceiling_c = self.ceiling_c();
        if let Some(turns) = &mut self.turns {
            if phase == 0 {
                turns.end(prior, ceiling_c);
            }
            return;
        }
        let bursts = phase == 0 && self.limit.zone == Zone::Skin && self.asked[0].mhz == prior.max_mhz();
        if bursts || self.grip != Grip::Ours && !self.limit.steps {
            return;
        }
        let wanted = self.wanted_mhz(prior, phase, t);
        self.asked[phase] = Dither::at(prior.step_at_or_below(wanted).max(self.limit.floor_mhz));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior() -> Prior {
        Prior::unknown(4, (4..=24).map(|f| f as f32 * 100.0).collect())
    }

    fn limit(floor_mhz: f32) -> Limit {
        Limit { zone: Zone::Die, trip_c: 75.0, floor_mhz, upper_mhz: 2400.0, steps: false, grade: false }
    }

    fn tick(t: f32, mhz: f32) -> Tick {
        Tick {
            phase: Some(1),
            t,
            measured_mhz: mhz,
            request_mhz: mhz,
            settled: true,
            tripped: false,
            remaining_s: None,
            to_ceiling_s: None,
            free_pays: false,
            dt: 1.0,
        }
    }

    /// As of a board whose maker's clocks were raised beyond what its profile knows.
    #[test]
    fn a_low_clock_above_every_step_is_held_to_the_highest() {
        let mut stay = Stay::new(&prior(), limit(2500.0), 3000.0);
        for i in 0..100 {
            stay.tick(&prior(), tick(70.0 + (i % 10) as f32, stay.applied_mhz(1)));
            assert_eq!(stay.applied_mhz(1), 2400.0);
        }
    }

    #[test]
    fn rising_temperature_never_raises_the_cap() {
        for start in [800.0, 1500.0, 2400.0] {
            let (mut warm, mut cool) = (Stay::new(&prior(), limit(600.0), start), Stay::new(&prior(), limit(600.0), start));
            for i in 0..300 {
                let t = 60.0 + (i % 20) as f32;
                cool.tick(&prior(), tick(t, cool.applied_mhz(1)));
                warm.tick(&prior(), tick(t + 1.5, warm.applied_mhz(1)));
                assert!(warm.wanted_mhz(&prior(), 1, t + 1.5) <= cool.wanted_mhz(&prior(), 1, t), "at {i}");
            }
        }
    }

    #[test]
    fn from_the_same_state_a_hotter_reading_never_asks_for_more() {
        let mut stay = Stay::new(&prior(), limit(600.0), 1500.0);
        for i in 0..2000 {
            let t = 74.0 + 1.5 * (i as f32 * 0.05).sin() + [0.0, 0.5, -0.5, 0.2][i % 4];
            let after = |hotter: f32| {
                let mut next = stay.clone();
                next.tick(&prior(), tick(t + hotter, stay.applied_mhz(1)));
                next.applied_mhz(1)
            };
            assert!([0.1, 1.0, 10.0].iter().all(|&k| after(k) <= after(0.0)), "at {i}");
            stay.tick(&prior(), tick(t, stay.applied_mhz(1)));
        }
    }

    #[test]
    fn a_board_that_does_not_let_go_is_left_one_thread_until_it_does() {
        let mut stay = Stay::new(&prior(), Limit { steps: true, ..limit(600.0) }, 1800.0);
        let held = Tick { free_pays: true, ..tick(74.5, 1000.0) };
        (0..30).for_each(|_| stay.tick(&prior(), held));
        assert!(stay.is_breaking_free());
        stay.tick(&prior(), Tick { measured_mhz: 2400.0, t: 72.0, ..held });
        assert!(!stay.is_breaking_free());
    }

    #[test]
    fn prompts_and_answers_in_turn_end_the_way_to_freedom_and_a_burst() {
        let grade = Limit { zone: Zone::Skin, trip_c: 43.5, upper_mhz: 1500.0, grade: true, ..limit(1100.0) };
        let mut stay = Stay::new(&prior(), grade, 1300.0);
        (0..100).for_each(|_| stay.tick(&prior(), Tick { free_pays: true, ..tick(42.9, 1000.0) }));
        assert!(stay.is_breaking_free());
        stay.bursting = true;
        stay.alternates(&prior(), true, || 0.0);
        assert!(!stay.is_breaking_free() && !stay.bursting);
    }

    #[test]
    fn a_hold_that_stands_on_the_boards_low_clock_holds_nothing() {
        let mut stay = Stay::new(&prior(), limit(1000.0), 1200.0);
        stay.alternates(&prior(), true, || 1200.0);
        for (at_floor, of, nothing) in [(2, 4, false), (4, 4, true), (1, 4, false)] {
            for i in 0..1200 {
                stay.tick(&prior(), tick(75.5, if i % of < at_floor { 1000.0 } else { 1200.0 }));
            }
            assert_eq!(stay.holds_nothing(), nothing, "{at_floor} of {of}");
        }
    }

    #[test]
    fn caps_stay_between_the_boards_low_clock_and_its_maximum() {
        let mut stay = Stay::new(&prior(), limit(1000.0), 1800.0);
        for t in [110.0, 20.0] {
            for _ in 0..2000 {
                stay.tick(&prior(), tick(t, stay.applied_mhz(1)));
                assert!((1000.0..=2400.0).contains(&stay.applied_mhz(1)));
            }
        }
    }

    #[test]
    fn one_step_a_second_at_most() {
        let mut stay = Stay::new(&prior(), limit(600.0), 2400.0);
        stay.tick(&prior(), tick(70.0, stay.applied_mhz(1)));
        for _ in 0..5 {
            let before = stay.applied_mhz(1);
            stay.tick(&prior(), tick(120.0, before));
            assert_eq!(before - stay.applied_mhz(1), 100.0);
        }
    }

    #[test]
    fn a_trip_right_after_the_margin_was_made_narrower_is_a_lesson() {
        let mut stay = Stay::new(&prior(), limit(600.0), 1800.0);
        let start = stay.ceiling_c();
        (0..125).for_each(|_| stay.tick(&prior(), tick(74.0, 1800.0)));
        let narrower = stay.ceiling_c();
        assert!(narrower > start);
        stay.tick(&prior(), Tick { tripped: true, ..tick(75.0, 1000.0) });
        assert!(stay.ceiling_c() < narrower);
    }

    #[test]
    fn a_trip_widens_the_margin_and_quiet_narrows_it() {
        let mut stay = Stay::new(&prior(), limit(600.0), 1800.0);
        let start = stay.ceiling_c();
        (0..100).for_each(|_| stay.tick(&prior(), tick(74.0, 1800.0)));
        stay.tick(&prior(), Tick { tripped: true, ..tick(75.0, 1000.0) });
        assert!(stay.ceiling_c() < start);
        (0..6100).for_each(|_| stay.tick(&prior(), tick(70.0, 1800.0)));
        assert!(stay.ceiling_c() > start);
    }
}
