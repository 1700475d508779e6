//! Prompts and answers in turn on a board that throttles by a ladder: one clock for the prompt, one for the answer, kept for the whole turn.
//!
//! Within a turn the temperature swings by kelvins: it falls in the silence, and a prompt draws more than an answer. A law that follows it
//! lets the clock swing too, which costs speed (power is convex in the clock). So here the clocks stand still within a turn, the answer's
//! at `ratio` of the prompt's, and from one turn to the next their level follows the hottest seconds: a prompt may end a kelvin above the
//! trip, on the first rungs of the ladder, which is the quickest way through it.
//!
//! The ratio divides what steadiness has won. A listener waits for the prompt: what is won beyond [`WHOLE`] goes there, by a slower answer
//! and so a cooler board when the next prompt comes; what is won less is given back. Simulated on the RK3588 with step_wise at 22 and 30 °C,
//! 24 draws: time to the first token -18 and -20 %, turns -2.9 and -3.6 % in the mean. The law that followed the temperature had -11 and
//! -13 % to the first token, the best pair of constant clocks of each of 40 draws -17 and -25 %.

use super::policy::Prior;

/// The answer's clock over the prompt's, at first. Of all pairs of constant clocks those near two thirds were quickest to the first token
/// among those with shorter turns, at 22, 30 and 40 °C.
pub const RATIO: f32 = 2.0 / 3.0;
const RATIOS: std::ops::RangeInclusive<f32> = 0.5..=1.0;
const RATIO_STEP: f32 = 0.05;
/// Busy seconds between two looks at what was won: half of what the look is a mean of.
const REVIEW_S: f32 = 150.0;
/// What a turn is to win in work a busy second; a third of the turn is silence. (With half a percent less, 16 times four noises at 22 °C had
/// turns of -2.4 % [-2.8 … -2.2] and the first token at -19.9 %; with this -2.7 % [-2.9 … -2.5] and -19.4 %.)
const WHOLE: std::ops::RangeInclusive<f32> = 0.03..=0.045;
/// The hottest seconds may be this far above the ceiling.
const ABOVE_C: f32 = 1.0;
/// MHz a kelvin and second, and a kelvin, as shares of the highest clock.
const INTEGRAL: f32 = 0.0006;
const PROPORTIONAL: f32 = 0.01;
/// The hottest seconds are a mean of so many, once the junction has followed the phase.
const SMOOTH_S: f32 = 3.0;
/// A turn counts for no more than this, and its error for no more than that.
const TURN_MAX_S: f32 = 60.0;
const ERROR_MAX_C: f32 = 4.0;

/// The two clocks and what they are learned from.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The prompt's clock in MHz; may exceed the highest, for the answer's sake.
    level_mhz: f32,
    /// The proportional part, of the turn before.
    ahead_mhz: f32,
    ratio: f32,
    smooth_c: Option<f32>,
    hottest_c: Option<f32>,
    phase: Option<usize>,
    in_phase_s: f32,
    lasted_s: f32,
    since_review_s: f32,
}

impl Turns {
    pub fn new(level_mhz: f32) -> Turns {
        Turns {
            level_mhz,
            ahead_mhz: 0.0,
            ratio: RATIO,
            smooth_c: None,
            hottest_c: None,
            phase: None,
            in_phase_s: 0.0,
            lasted_s: 0.0,
            since_review_s: 0.0,
        }
    }

    /// The clock of a phase (0 prompt, 1 answer), if clocks had no steps and no ends.
    pub fn wanted_mhz(&self, phase: usize) -> f32 {
        (self.level_mhz + self.ahead_mhz) * [1.0, self.ratio][phase]
    }

    /// One second at `t` in a phase, or in silence.
    pub fn feel(&mut self, phase: Option<usize>, t: f32, dt: f32) {
        self.in_phase_s = if phase == self.phase { self.in_phase_s + dt } else { 0.0 };
        self.phase = phase;
        self.lasted_s += dt;
        let smooth = self.smooth_c.get_or_insert(t);
        *smooth += (t - *smooth) * (dt / SMOOTH_S).min(1.0);
        if phase.is_some() {
            self.since_review_s += dt;
            if self.in_phase_s >= SMOOTH_S {
                self.hottest_c = Some(self.hottest_c.map_or(*smooth, |h| h.max(*smooth)));
            }
        }
    }

    /// A turn ends as the next prompt begins.
    pub fn end(&mut self, prior: &Prior, ceiling_c: f32) {
        if let Some(hottest_c) = self.hottest_c.take() {
            let max = prior.max_mhz();
            let e = (ceiling_c + ABOVE_C - hottest_c).clamp(-ERROR_MAX_C, ERROR_MAX_C);
            let more = INTEGRAL * max * e * self.lasted_s.min(TURN_MAX_S);
            self.level_mhz = (self.level_mhz + more).clamp(prior.min_mhz(), max / self.ratio);
            self.ahead_mhz = PROPORTIONAL * max * e;
        }
        self.lasted_s = 0.0;
    }

    /// Divides between prompt and answer what was won, as a share of the speed of the board alone.
    pub fn share_out(&mut self, gain: f32) {
        if self.since_review_s < REVIEW_S {
            return;
        }
        self.since_review_s = 0.0;
        let step = if gain > *WHOLE.end() {
            -RATIO_STEP
        } else if gain < *WHOLE.start() {
            RATIO_STEP
        } else {
            0.0
        };
        self.ratio = (self.ratio + step).clamp(*RATIOS.start(), *RATIOS.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior() -> Prior {
        Prior::unknown(4, (4..=24).map(|f| f as f32 * 100.0).collect())
    }

    /// Turns of a prompt of 6 s and an answer of 18 s, on a die that stands at `at` of the clock.
    fn settle(at: impl Fn(f32) -> f32) -> Turns {
        let mut turns = Turns::new(2000.0);
        for _ in 0..100 {
            turns.end(&prior(), 85.0);
            for second in 0..30 {
                let phase = [Some(0), Some(1), None][usize::from(second >= 6) + usize::from(second >= 24)];
                turns.feel(phase, phase.map_or(70.0, |p| at(turns.wanted_mhz(p))), 1.0);
            }
        }
        turns
    }

    #[test]
    fn the_level_settles_where_the_hottest_seconds_touch_the_ladder() {
        let turns = settle(|mhz| 60.0 + 0.016 * mhz);
        assert!(turns.hottest_c.is_some_and(|c| (c - 86.0).abs() < 0.1), "{turns:?}");
        assert!((turns.wanted_mhz(1) / turns.wanted_mhz(0) - RATIO).abs() < 1e-3);
    }

    #[test]
    fn a_cool_board_runs_both_phases_at_full_clock() {
        let turns = settle(|_| 60.0);
        assert!(turns.wanted_mhz(1) >= 2399.0, "{turns:?}");
    }

    #[test]
    fn what_is_won_beyond_the_turns_share_goes_to_the_prompt() {
        let after = |gain: f32| {
            let mut turns = Turns::new(1500.0);
            (0..2000).for_each(|_| {
                turns.feel(Some(1), 80.0, 1.0);
                turns.share_out(gain);
            });
            turns.ratio
        };
        assert_eq!((after(0.08), after(0.0)), (0.5, 1.0));
        assert_eq!(after(0.035), RATIO);
    }
}
