//! A rest on a lower grade of a slow zone, perhaps a tenth of a kelvin above where the board would give its clock back: nobody knows how
//! near. A nudge finds out at a bounded price: half of the threads in some answers, until the clock comes back or so much work is lost.
//!
//! A rest half a kelvin below the trip leaves room for a hold there (see [`super::answers`]) that is worth 9 to 15 % of speed, and a first
//! token a quarter to a third sooner, for as long as the room stays as it is: the price is back where one nudge in a dozen succeeds.
//! Simulated, phone with graded caps, voice at 32 °C, 360 draws: of 13 that rest where a thread less would be given the next grade and win
//! 1 to 7 %, five come free. Tried on another set, of 160 draws with seven such: 60 s free six of them, and lose over 1 % of 90 min where
//! they free none.

use super::mechanism::{Grade, is_near};

/// The skin moves by no more than this in so long: a rest.
const REST_C: f32 = 0.1;
const REST_S: f64 = 600.0;
/// And it is so far below the trip.
const AIR_C: f32 = 0.5;
/// What a nudge may lose, in seconds of answers; and how many it lasts at most. (Half of the threads lose half or more, so that 60 s are
/// enough where they are obeyed.)
const LOST_MAX_S: f32 = 30.0;
const ANSWERS_MAX_S: f32 = 90.0;
/// From one to the next; after one in vain only where the skin rests as low as it was brought.
const AGAIN_S: f64 = 7200.0;

#[derive(Clone, Debug, Default)]
pub struct Nudge {
    under_way: Option<UnderWay>,
    /// Of the last answer.
    threads: u8,
    /// Since when the skin has been where it is, and where.
    still: Option<(f64, f32)>,
    in_vain: Option<InVain>,
    not_before_s: f64,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// In use as it began.
    threads: u8,
    answers_s: f32,
    lost_s: f32,
}

/// The board did not let go of a grade that begins at `trip_c`, down to `skin_c`.
#[derive(Clone, Copy, Debug)]
struct InVain {
    trip_c: f32,
    skin_c: f32,
}

/// A busy second of a board left alone.
#[derive(Clone, Copy, Debug)]
pub struct Second {
    pub grade: Grade,
    pub clock_mhz: f32,
    pub skin_c: f32,
    /// Of an answer: the threads in use, and busy seconds.
    pub answer: Option<(u8, f32)>,
    pub now_s: f64,
}

impl Nudge {
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Threads of the answer while a nudge is under way: half of those in use, which need not be as many as would be best.
    pub fn threads(&self) -> Option<u8> {
        self.under_way.map(|u| u.threads / 2)
    }

    pub fn stop(&mut self) {
        (self.under_way, self.still) = (None, None);
    }

    pub fn tick(&mut self, second: Second) {
        let Second { grade, clock_mhz, skin_c, answer, now_s } = second;
        if !is_near(clock_mhz, grade.to_mhz) {
            self.stop();
        } else if let Some(u) = &mut self.under_way {
            if let Some((threads, busy_s)) = answer {
                u.answers_s += busy_s;
                // No answer loses more than in proportion.
                u.lost_s += busy_s * (1.0 - f32::from(threads) / f32::from(u.threads)).max(0.0);
            }
            if u.lost_s >= LOST_MAX_S || u.answers_s >= ANSWERS_MAX_S {
                self.in_vain = Some(InVain { trip_c: grade.at_c, skin_c });
                self.stop();
            }
        } else {
            self.threads = answer.map_or(self.threads, |(threads, _)| threads);
            let (since_s, at_c) = *self.still.get_or_insert((now_s, skin_c));
            if (skin_c - at_c).abs() > REST_C {
                self.still = Some((now_s, skin_c));
                return;
            }
            let rests = now_s - since_s >= REST_S && skin_c < grade.at_c - AIR_C && now_s >= self.not_before_s;
            let in_vain = self.in_vain.is_some_and(|v| v.trip_c == grade.at_c && skin_c > v.skin_c - 0.5 * REST_C);
            if rests && !in_vain && self.threads > 1 {
                self.under_way = Some(UnderWay { threads: self.threads, answers_s: 0.0, lost_s: 0.0 });
                self.not_before_s = now_s + AGAIN_S;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRADE: Grade = Grade { at_c: 45.0, from_mhz: 1100.0, to_mhz: 700.0, cycle: None };

    /// A second of an answer that runs with this many threads.
    fn second(at_s: usize, threads: u8, skin_c: f32, clock_mhz: f32) -> Second {
        Second { grade: GRADE, clock_mhz, skin_c, answer: Some((threads, 1.0)), now_s: at_s as f64 }
    }

    /// Seconds of nudging in an hour at rest, four threads in use but where a nudge asks for less.
    fn rest(nudge: &mut Nudge, from_s: usize, skin_c: f32, clock_mhz: f32) -> usize {
        let is_nudged = |at_s: usize| {
            nudge.tick(second(at_s, nudge.threads().unwrap_or(4), skin_c, clock_mhz));
            nudge.is_under_way()
        };
        (from_s..from_s + 3600).map(is_nudged).filter(|&nudged| nudged).count()
    }

    #[test]
    fn a_rest_is_nudged_once_for_what_a_nudge_may_lose_and_hours_later_only_lower() {
        let mut nudge = Nudge::default();
        assert_eq!(rest(&mut nudge, 0, 44.2, 700.0), 60);
        assert_eq!(rest(&mut nudge, 3600, 44.1, 700.0), 0, "too soon");
        assert_eq!(rest(&mut nudge, 10_800, 44.2, 700.0), 0, "no lower");
        assert_eq!(rest(&mut nudge, 14_400, 44.1, 700.0), 60);
    }

    #[test]
    fn a_rest_near_the_trip_and_a_board_with_its_clock_are_left_alone() {
        assert_eq!(rest(&mut Nudge::default(), 0, 44.6, 700.0), 0);
        assert_eq!(rest(&mut Nudge::default(), 0, 44.2, 1100.0), 0);
    }

    #[test]
    fn a_nudge_ends_as_the_clock_comes_back() {
        let mut nudge = Nudge::default();
        (0..=600).for_each(|s| nudge.tick(second(s, 4, 44.2, 700.0)));
        assert!(nudge.is_under_way());
        nudge.tick(second(601, 4, 44.2, 1100.0));
        assert!(!nudge.is_under_way());
    }

    #[test]
    fn a_skin_that_moved_in_the_last_second_does_not_rest() {
        let mut nudge = Nudge::default();
        let begins = (0..2000).find(|&s| {
            nudge.tick(second(s, 4, if s < 600 { 44.2 } else { 44.05 }, 700.0));
            nudge.is_under_way()
        });
        assert_eq!(begins, Some(1200));
    }

    #[test]
    fn half_of_the_threads_in_use_is_what_is_asked_for_and_one_is_not_halved() {
        for (in_use, asked) in [(8, Some(4)), (4, Some(2)), (3, Some(1)), (1, None)] {
            let mut nudge = Nudge::default();
            (0..=600).for_each(|s| nudge.tick(second(s, in_use, 44.2, 700.0)));
            assert_eq!(nudge.threads(), asked, "{in_use} in use");
        }
    }

    #[test]
    fn a_nudge_that_nobody_obeys_ends() {
        let mut nudge = Nudge::default();
        let nudged = |s: usize| {
            nudge.tick(second(s, 4, 44.2, 700.0));
            nudge.is_under_way()
        };
        assert_eq!((0..3600).map(nudged).filter(|&nudged| nudged).count(), 90);
    }
}
