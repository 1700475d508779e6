//! The Stay law: hold the clock just below a throttle that is worse than holding it.
//!
//! Per phase, with e = ceiling - T: `cap += i·fmax·e·dt`, applied `cap + p·fmax·e`, rounded down to a clock step, at most one step a
//! second; i = 0.0012, p = 0.02 for a die. A skin answers after minutes, so there i = 0.0002 and p = 0.06, or the loop would swing. Never below the board's own low clock: staying under it would cost more than the cliff does. The ceiling is
//! the trip less a margin that is learned: wider after a trip, narrower after quiet minutes, so that on a die, where a trip costs a few
//! seconds, there is about one in six minutes, and on a skin, where it costs minutes, hardly any.

use super::mechanism::Zone;
use super::policy::Prior;

const PROMPT_MARGIN_C: f32 = 0.2;
const ANSWER_MARGIN_C: f32 = 0.8;
/// What a cliff's trip leaves of the cap: it was too high.
const TRIP_CUT: f32 = 0.97;
/// Between two trips that count for the margin.
const LESSON_S: f32 = 60.0;
const MARGIN_MAX_C: f32 = 4.0;

/// What a tick tells the law.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// 0 prefill, 1 decode; `None` while idle.
    pub phase: Option<usize>,
    pub t: f32,
    pub measured_mhz: f32,
    /// The board took clock away in this second.
    pub tripped: bool,
    /// Work left in this phase, where known, and the time to the ceiling at full clock, where it can be foretold.
    pub remaining_s: Option<f32>,
    pub to_ceiling_s: Option<f32>,
    pub dt: f32,
}

/// The law's memory.
#[derive(Clone, Debug)]
pub struct Stay {
    pub zone: Zone,
    pub floor_mhz: f32,
    trip_c: f32,
    steps: bool,
    margin: Margin,
    integral: f32,
    proportional: f32,
    /// Below the ceiling by this much a prefill may start at full clock: a die rises by kelvins within a prompt; a skin does not, and
    /// may even be a little above.
    burst_c: f32,
    quiet_s: f32,
    cap_mhz: [f32; 2],
    applied_mhz: [f32; 2],
    tripped: bool,
    /// The board is at its low clock by its own doing.
    held_by_board: bool,
    pub bursting: bool,
    /// Prompts and answers alternate.
    pub mixed: bool,
}

/// What is stayed below.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub zone: Zone,
    pub trip_c: f32,
    /// The board's own low clock.
    pub floor_mhz: f32,
    /// A ladder, not a cliff.
    pub steps: bool,
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

impl Stay {
    /// Starts at `start_mhz`, the constant clock that draws what the board's own throttle lets through.
    pub fn new(prior: &Prior, limit: Limit, start_mhz: f32) -> Stay {
        let Limit { zone, trip_c, floor_mhz, steps } = limit;
        let (integral, proportional, margin) = match zone {
            // A step costs little and is taken back at once: nothing to learn from it.
            Zone::Die if steps => (0.0012, 0.02, Margin { now_c: 0.5, min_c: 0.5, wider_c: 0.0, narrower_c: 0.0, quiet_s: 600.0 }),
            Zone::Die => (0.0012, 0.02, Margin { now_c: 0.8, min_c: 0.1, wider_c: 0.15, narrower_c: 0.05, quiet_s: 120.0 }),
            Zone::Skin => (0.0002, 0.06, Margin { now_c: 1.5, min_c: 0.6, wider_c: 0.5, narrower_c: 0.1, quiet_s: 600.0 }),
        };
        let start_mhz = start_mhz.clamp(floor_mhz, prior.max_mhz().max(floor_mhz));
        Stay {
            zone,
            floor_mhz,
            trip_c,
            steps,
            margin,
            integral,
            proportional,
            burst_c: if zone == Zone::Skin { -1.0 } else { 3.0 },
            quiet_s: 0.0,
            cap_mhz: [start_mhz; 2],
            applied_mhz: [prior.step_at_or_below(start_mhz).max(floor_mhz); 2],
            tripped: false,
            held_by_board: true,
            bursting: false,
            mixed: false,
        }
    }

    pub fn ceiling_c(&self) -> f32 {
        self.trip_c - self.margin.now_c
    }

    /// Below a ladder in a mixed load the two phases have margins of their own: a prompt may touch the ladder, which is the quickest way
    /// through it; the answer leaves air for the next prompt, which is what a listener waits for.
    fn ceiling_of(&self, phase: usize) -> f32 {
        if self.mixed && self.steps { self.trip_c - [PROMPT_MARGIN_C, ANSWER_MARGIN_C][phase] } else { self.ceiling_c() }
    }

    /// What a prompt at full clock must not reach.
    pub fn burst_ends_c(&self) -> f32 {
        self.ceiling_c() - self.burst_c.min(0.0)
    }

    /// The cap of a phase in MHz.
    pub fn applied_mhz(&self, phase: usize) -> f32 {
        self.applied_mhz[phase]
    }

    pub fn tick(&mut self, prior: &Prior, tick: Tick) {
        let max = prior.max_mhz();
        if tick.tripped && !self.tripped && !self.held_by_board {
            // Trips in a row are one lesson: the cap was still on its way down.
            if self.quiet_s >= LESSON_S {
                self.margin.now_c = (self.margin.now_c + self.margin.wider_c).min(MARGIN_MAX_C);
            }
            self.quiet_s = 0.0;
            self.held_by_board = true;
            if !self.steps {
                self.cap_mhz = self.cap_mhz.map(|cap| (TRIP_CUT * cap).max(self.floor_mhz));
            }
        }
        self.tripped = tick.tripped;
        self.quiet_s += tick.dt;
        if self.quiet_s >= self.margin.quiet_s {
            self.quiet_s -= self.margin.quiet_s;
            self.margin.now_c = (self.margin.now_c - self.margin.narrower_c).max(self.margin.min_c);
        }
        self.bursting = false;
        if tick.phase != Some(0) && self.zone == Zone::Skin && !self.held_by_board && self.ceiling_c() - tick.t > self.burst_c {
            // The next prompt starts at full clock; a slow zone hardly notices the seconds until the first look at it.
            self.applied_mhz[0] = prior.max_mhz();
        }
        let Some(p) = tick.phase else { return };
        let e = self.ceiling_of(p) - tick.t;
        let applied = self.applied_mhz[p];
        let obeyed = (tick.measured_mhz / applied - 1.0).abs() < 0.03;
        // While a cliff holds the clock lower the law waits: what it would learn is not its own doing. A ladder holds for seconds
        // only, and may meanwhile teach it to ask for less.
        if self.held_by_board && !self.steps {
            let asked_no_more = applied <= 1.03 * self.floor_mhz;
            self.held_by_board = tick.measured_mhz <= 1.03 * self.floor_mhz && !(asked_no_more && e > 0.0);
            self.applied_mhz[p] = prior.step_at_or_below(self.cap_mhz[p]).max(self.floor_mhz);
            return;
        }
        if obeyed || tick.measured_mhz > applied || self.steps && e < 0.0 {
            self.cap_mhz[p] = (self.cap_mhz[p] + self.integral * max * e * tick.dt).clamp(self.floor_mhz, max);
        }
        let burst = p == 0
            && e > self.burst_c
            && tick.remaining_s.zip(tick.to_ceiling_s).is_some_and(|(left, until)| until.min(120.0) >= left);
        if burst {
            self.bursting = true;
            self.applied_mhz[0] = max;
            return;
        }
        let wanted = (self.cap_mhz[p] + self.proportional * max * e).clamp(self.floor_mhz, max);
        let up = prior.step_above(applied);
        self.applied_mhz[p] = if wanted >= up {
            up
        } else if wanted < applied {
            prior.step_below(applied).max(self.floor_mhz)
        } else {
            applied
        };
    }

    /// A phase begins: it starts from its own cap, above it as far as the temperature allows.
    pub fn enter(&mut self, prior: &Prior, phase: usize, t: f32) {
        let bursts = phase == 0 && self.zone == Zone::Skin && self.applied_mhz[0] == prior.max_mhz();
        if bursts || self.held_by_board && !self.steps {
            return;
        }
        let wanted = self.cap_mhz[phase] + self.proportional * prior.max_mhz() * (self.ceiling_of(phase) - t);
        self.applied_mhz[phase] = prior.step_at_or_below(wanted).clamp(self.floor_mhz, prior.max_mhz());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior() -> Prior {
        Prior::unknown(4, (4..=24).map(|f| f as f32 * 100.0).collect())
    }

    fn limit(floor_mhz: f32) -> Limit {
        Limit { zone: Zone::Die, trip_c: 75.0, floor_mhz, steps: false }
    }

    fn tick(t: f32, mhz: f32) -> Tick {
        Tick { phase: Some(1), t, measured_mhz: mhz, tripped: false, remaining_s: None, to_ceiling_s: None, dt: 1.0 }
    }

    #[test]
    fn rising_temperature_never_raises_the_cap() {
        for start in [800.0, 1500.0, 2400.0] {
            let (mut warm, mut cool) = (Stay::new(&prior(), limit(600.0), start), Stay::new(&prior(), limit(600.0), start));
            for i in 0..300 {
                let t = 60.0 + (i % 20) as f32;
                cool.tick(&prior(), tick(t, cool.applied_mhz(1)));
                warm.tick(&prior(), tick(t + 1.5, warm.applied_mhz(1)));
                assert!(warm.applied_mhz(1) <= cool.applied_mhz(1), "at {i}");
            }
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
        let before = stay.applied_mhz(1);
        stay.tick(&prior(), tick(70.0, before));
        stay.tick(&prior(), tick(120.0, before));
        assert_eq!(before - stay.applied_mhz(1), 100.0);
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
