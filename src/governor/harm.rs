//! Do no harm: whether being held below the throttle pays, measured against the board left alone.
//!
//! Speed is work per busy second, each phase in units of its own first rate, so that prompts and answers add up. A hold must beat
//! the last free minutes; when it seems not to, the board is left alone for a fresh look, and if free wins, the hold is off for an hour.
//! A throttle that swings for minutes is compared by a whole swing: five minutes of it are faster or slower than it is.

/// Seconds of one side of a comparison.
pub const SIDE_S: f32 = 300.0;
/// Busy seconds after a change that count for neither side; a mixed load needs some turns to find its two caps.
pub const SETTLE_S: f32 = 90.0;
pub const SETTLE_MIXED_S: f32 = 400.0;
/// A skin moves by minutes.
pub const SETTLE_SKIN_S: f32 = 600.0;
/// The longest swing that is waited for.
const SWING_MAX_S: f32 = 1200.0;
pub const BAN_S: f64 = 3600.0;

/// Work and busy seconds of one tick, and whether it was a prompt's.
type Slot = (f32, f32, bool);

/// Speed over the last minutes on one side.
#[derive(Clone, Debug, Default)]
pub struct Side {
    slots: std::collections::VecDeque<Slot>,
    work: f32,
    busy: f32,
    prompts: (f32, f32),
    settle_s: f32,
    /// For a throttle that swings for minutes: whole swings are counted, from one fall of its clock to the next.
    swings: Option<Swings>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Swings {
    /// Work and busy seconds since the last fall, once there was one.
    since: Option<(f32, f32)>,
    /// Speed over the last whole swing.
    whole: Option<f32>,
}

impl Swings {
    /// Speed since the last fall.
    fn speed(&self) -> Option<f32> {
        self.since.filter(|&(_, busy)| busy > 0.0).map(|(work, busy)| work / busy)
    }
}

impl Side {
    /// A side that begins now and leaves out its first busy seconds.
    pub fn begin(settle_s: f32) -> Side {
        Side { settle_s, ..Side::default() }
    }

    /// The board left alone: one that a slow zone throttles is counted by whole swings.
    pub fn left_alone(by_slow_zone: bool, settle_s: f32) -> Side {
        if by_slow_zone { Side { swings: Some(Swings::default()), ..Side::default() } } else { Side::begin(settle_s) }
    }

    /// The board's clock fell, the same fall as before or another: a swing ends, or what went before was none.
    pub fn fell(&mut self, same: bool) {
        if let Some(swings) = &mut self.swings {
            swings.whole = swings.speed().filter(|_| same);
            swings.since = Some((0.0, 0.0));
        }
    }

    /// The board is about to fall as it did before: what was seen since is a whole swing.
    pub fn swing_ends(&mut self) {
        if let Some(swings) = &mut self.swings {
            swings.whole = swings.speed().or(swings.whole);
        }
    }

    /// Whether [`Side::swing_ends`] would leave something to compare with.
    pub fn saw_a_fall(&self) -> bool {
        self.swings.is_some_and(|swings| swings.speed().or(swings.whole).is_some())
    }

    fn add(&mut self, work: f32, busy: f32, prompt: bool) {
        // Seconds without work would never push out an old one.
        if busy <= 0.0 {
            return;
        }
        if self.settle_s > 0.0 {
            self.settle_s -= busy;
            return;
        }
        if let Some((w, b)) = self.swings.as_mut().and_then(|s| s.since.as_mut()) {
            (*w, *b) = (*w + work, *b + busy);
        }
        self.slots.push_back((work, busy, prompt));
        self.count((work, busy, prompt), 1.0);
        while self.busy > if self.swings.is_some() { SWING_MAX_S } else { SIDE_S } {
            let Some(slot) = self.slots.pop_front() else { break };
            self.count(slot, -1.0);
        }
    }

    fn count(&mut self, (work, busy, prompt): Slot, sign: f32) {
        self.work += sign * work;
        self.busy += sign * busy;
        if prompt {
            self.prompts.0 += sign * work;
            self.prompts.1 += sign * busy;
        }
    }

    /// Speed of the prompts alone, once there are some.
    fn prompt_speed(&self) -> Option<f32> {
        (self.prompts.1 >= 20.0).then(|| self.prompts.0 / self.prompts.1)
    }

    /// Whether both halves of a full side agree within `share`: the board has come to rest, or to a cycle.
    pub fn is_steady(&self, share: f32) -> bool {
        let half = self.slots.len() / 2;
        let mean = |slots: &mut dyn Iterator<Item = &Slot>| {
            let (work, busy) = slots.fold((0.0, 0.0), |(w, b), s| (w + s.0, b + s.1));
            work / busy.max(1e-3)
        };
        let (first, second) = (mean(&mut self.slots.iter().take(half)), mean(&mut self.slots.iter().skip(half)));
        self.speed().is_some() && (second / first.max(1e-6) - 1.0).abs() < share
    }

    /// Work per busy second once the side is full: over a whole swing, or so long that there is none.
    pub fn speed(&self) -> Option<f32> {
        let mean = |least: f32| (self.busy >= least).then(|| self.work / self.busy);
        match self.swings {
            Some(swings) => swings.whole.or_else(|| mean(0.95 * SWING_MAX_S)),
            None => mean(0.95 * SIDE_S),
        }
    }
}

/// Both sides, and the unit of each phase.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    unit: [(f32, f32); 2],
    pub free: Side,
    pub held: Side,
    pub banned_until_s: f64,
}

impl Watch {
    /// Takes in a busy second: `held` says whose side it counts for (`None` for neither).
    pub fn feed(&mut self, phase: usize, tokens: f32, busy: f32, held: Option<bool>) {
        let unit = &mut self.unit[phase];
        if unit.1 < 10.0 {
            unit.0 += tokens;
            unit.1 += busy;
        }
        let work = tokens / (unit.0 / unit.1.max(1e-3)).max(1e-3);
        match held {
            Some(true) => self.held.add(work, busy, phase == 0),
            Some(false) => self.free.add(work, busy, phase == 0),
            None => (),
        }
    }

    /// Held against free, as a relative gain, when both sides are full.
    pub fn gain(&self) -> Option<f32> {
        Some(self.held.speed()? / self.free.speed()? - 1.0)
    }

    /// The same for prompts alone, where both sides have had some beside answers.
    pub fn prompt_gain(&self) -> Option<f32> {
        Some(self.held.prompt_speed()? / self.free.prompt_speed()? - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_in_their_own_units() {
        let mut watch = Watch::default();
        for i in 0..800 {
            let (phase, rate) = if i % 2 == 0 { (0, 100.0) } else { (1, 10.0) };
            watch.feed(phase, rate, 1.0, Some(false));
            watch.feed(phase, rate * 1.1, 1.0, Some(true));
        }
        assert!((watch.gain().unwrap() - 0.1).abs() < 0.06);
    }

    #[test]
    fn a_throttle_that_swings_is_counted_by_whole_swings() {
        let mut side = Side::left_alone(true, SETTLE_S);
        for swing in 0..3 {
            side.fell(swing > 0);
            assert_eq!(side.speed().is_some(), swing > 0, "swing {swing}");
            (0..100).for_each(|_| side.add(0.5, 1.0, false));
            (0..300).for_each(|_| side.add(1.0, 1.0, false));
        }
        assert!((side.speed().unwrap() - 0.875).abs() < 1e-3, "{:?}", side.speed());
        side.fell(false);
        assert!(side.speed().is_some_and(|s| s < 0.9), "another fall: only what was seen for long is known");
    }

    #[test]
    fn a_swing_that_is_cut_off_before_it_falls_counts() {
        let mut side = Side::left_alone(true, SETTLE_S);
        side.fell(false);
        (0..100).for_each(|_| side.add(0.5, 1.0, false));
        (0..100).for_each(|_| side.add(1.0, 1.0, false));
        assert_eq!(side.speed(), None);
        side.swing_ends();
        assert_eq!(side.speed(), Some(0.75));
    }

    #[test]
    fn a_swing_without_a_busy_second_is_none() {
        let mut side = Side::left_alone(true, SETTLE_S);
        side.fell(false);
        side.swing_ends();
        assert_eq!((side.saw_a_fall(), side.speed()), (false, None));
        side.fell(true);
        assert_eq!(side.speed(), None);
        side.add(0.5, 1.0, false);
        assert!(side.saw_a_fall());
    }

    #[test]
    fn a_side_remembers_its_minutes_and_no_more() {
        let mut side = Side::begin(0.0);
        for i in 0..100_000 {
            side.add(1.0, [0.0, 1.0][i % 2], false);
        }
        assert!(side.slots.len() <= SIDE_S as usize + 1, "{} slots", side.slots.len());
        (0..100_000).for_each(|_| side.add(0.0, 0.0, false));
        assert!(side.slots.len() <= SIDE_S as usize + 1 && side.speed() == Some(1.0), "{} slots", side.slots.len());
    }

    #[test]
    fn an_unfilled_side_says_nothing() {
        let mut watch = Watch::default();
        (0..100).for_each(|_| watch.feed(1, 10.0, 1.0, Some(false)));
        assert_eq!(watch.gain(), None);
    }
}
