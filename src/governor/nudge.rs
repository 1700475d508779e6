//! A rest on a lower grade of a slow zone, perhaps a tenth of a kelvin above where the board would give its clock back: nobody knows how
//! near. A nudge finds out at a bounded price: half of the threads in some answers, until the clock comes back or so much work is lost.
//!
//! A rest half a kelvin below the trip leaves room for a hold there (see [`super::answers`]) that is worth 9 to 15 % of speed, and a first
//! token a quarter to a third sooner, for as long as the room stays as it is: the price is back where one nudge in a dozen succeeds.
//! Simulated, phone with graded caps, voice at 32 °C, 360 draws: of 13 that rest where a thread less would be given the next grade and win
//! 1 to 7 %, five come free. 60 s free six of the seven among 160 draws, and lose over 1 % of 90 min where they do not.

use super::mechanism::{Grade, is_near};

/// The skin moves by no more than this in so long: a rest.
const REST_C: f32 = 0.1;
const REST_S: f64 = 600.0;
/// And it is so far below the trip.
const AIR_C: f32 = 0.5;
/// What a nudge may lose, in seconds of answers.
const LOST_MAX_S: f32 = 30.0;
/// From one to the next; after one in vain only where the skin rests as low as it was brought.
const AGAIN_S: f64 = 7200.0;

#[derive(Clone, Debug, Default)]
pub struct Nudge {
    /// Seconds of answers lost by the one under way.
    lost_s: Option<f32>,
    /// Since when the skin has been where it is, and where.
    still: Option<(f64, f32)>,
    in_vain: Option<InVain>,
    not_before_s: f64,
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
    /// Of an answer, the share of it that a nudge has cost.
    pub lost_s: f32,
    pub now_s: f64,
}

impl Nudge {
    pub fn is_under_way(&self) -> bool {
        self.lost_s.is_some()
    }

    /// Threads of the answer in a nudge, where `all` are best.
    pub fn threads(all: u8) -> u8 {
        (all / 2).max(1)
    }

    pub fn stop(&mut self) {
        (self.lost_s, self.still) = (None, None);
    }

    pub fn tick(&mut self, second: Second) {
        let Second { grade, clock_mhz, skin_c, now_s, .. } = second;
        if !is_near(clock_mhz, grade.to_mhz) {
            self.stop();
        } else if let Some(lost_s) = &mut self.lost_s {
            *lost_s += second.lost_s;
            if *lost_s >= LOST_MAX_S {
                self.in_vain = Some(InVain { trip_c: grade.at_c, skin_c });
                self.stop();
            }
        } else {
            let (since_s, at_c) = *self.still.get_or_insert((now_s, skin_c));
            if (skin_c - at_c).abs() > REST_C {
                self.still = Some((now_s, skin_c));
            }
            let rests = now_s - since_s >= REST_S && skin_c < grade.at_c - AIR_C && now_s >= self.not_before_s;
            let in_vain = self.in_vain.is_some_and(|v| v.trip_c == grade.at_c && skin_c > v.skin_c - 0.5 * REST_C);
            if rests && !in_vain {
                self.lost_s = Some(0.0);
                self.not_before_s = now_s + AGAIN_S;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRADE: Grade = Grade { at_c: 45.0, from_mhz: 1100.0, to_mhz: 700.0, cycle: None };

    /// Seconds of nudging in an hour at rest.
    fn rest(nudge: &mut Nudge, from_s: usize, skin_c: f32, clock_mhz: f32) -> usize {
        let is_nudged = |second: usize| {
            let lost_s = if nudge.is_under_way() { 0.5 } else { 0.0 };
            nudge.tick(Second { grade: GRADE, clock_mhz, skin_c, lost_s, now_s: second as f64 });
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
        let second = |clock_mhz: f32, s: usize| Second { grade: GRADE, clock_mhz, skin_c: 44.2, lost_s: 0.0, now_s: s as f64 };
        (0..=600).for_each(|s| nudge.tick(second(700.0, s)));
        assert!(nudge.is_under_way());
        nudge.tick(second(1100.0, 601));
        assert!(!nudge.is_under_way());
    }
}
