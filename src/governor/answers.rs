//! Prompts and answers in turn on a board that swings between two grades of a slow zone: prompts at the upper grade's clock, answers below.
//!
//! Left alone, such a board answers its prompts on the lower grade half of the time, and a listener waits for the prompt. A skin moves by
//! minutes and feels a turn's mean, so it can be held just below the trip by the answer's clock alone, between those of the two grades.
//! Below the lower one it never goes: no turn is slower than the board's own on that grade. And as the skin is held half a kelvin warmer
//! than the swing's mean, the turns are shorter as well.
//!
//! Simulated, phone with graded caps, voice, 360 draws each at 20, 25 and 32 °C: in 180, 179 and 131 of them the first token comes sooner, by
//! 9, 12 and 16 % in the middle, at 1.4, 2.1 and 4.6 % more speed; no other loses more than 0.9 %. (A thread less all the time wins 1 to 7 %
//! in one draw of twelve at 32 °C and loses 3 to 17 % in the others: at one clock fewer threads draw more for the same work than all of them
//! do at a lower one.) No constant in here, halved or doubled, moves the mean by more than a tenth of a point.

use super::dither::Dither;
use super::policy::Prior;

/// Below the trip: at first, at least and at most; more after a trip, less after so many busy seconds without.
const MARGIN_C: f32 = 0.2;
const MARGIN_MIN_C: f32 = 0.1;
const MARGIN_MAX_C: f32 = 1.0;
const WIDER_C: f32 = 0.1;
const NARROWER_C: f32 = 0.05;
const QUIET_S: f32 = 600.0;
/// The hold begins this far below the ceiling: what lies beneath the skin is still warmer than it will be.
const NEAR_C: f32 = 0.15;
/// MHz a kelvin and second, and a kelvin, as shares of the highest clock.
const INTEGRAL: f32 = 0.0002;
const PROPORTIONAL: f32 = 0.3;
/// Above the ceiling by this much the clock goes down without waiting.
const URGENT_C: f32 = 0.2;

/// Two grades of a board, and where it falls from one to the other.
#[derive(Clone, Copy, Debug)]
pub struct Grades {
    pub trip_c: f32,
    pub upper_mhz: f32,
    pub lower_mhz: f32,
}

/// The answer's clock, and what it is learned from.
#[derive(Clone, Debug)]
pub struct Answers {
    grades: Grades,
    margin_c: f32,
    quiet_s: f32,
    cap_mhz: f32,
    asked: Dither,
    course: Course,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Course {
    /// The board gives the upper grade's clock, and the skin is below the ceiling: nothing is asked.
    Warming,
    Holding,
    /// The board has taken the lower grade.
    Gripped,
}

/// One second, of a prompt (0) or an answer (1).
#[derive(Clone, Copy, Debug)]
pub struct Second {
    pub phase: usize,
    pub t: f32,
    pub measured_mhz: f32,
    pub request_mhz: f32,
    /// The phase is old enough for the clock to be its own.
    pub settled: bool,
    pub dt: f32,
}

impl Answers {
    /// Begins in the middle of the two clocks.
    pub fn new(prior: &Prior, grades: Grades) -> Answers {
        let cap_mhz = (grades.lower_mhz * grades.upper_mhz).sqrt();
        let asked = Answers::asked_at(prior, grades, cap_mhz);
        Answers { grades, margin_c: MARGIN_C, quiet_s: 0.0, cap_mhz, asked, course: Course::Warming }
    }

    fn asked_at(prior: &Prior, grades: Grades, mhz: f32) -> Dither {
        Dither::at(prior.step_at_or_below(mhz).max(grades.lower_mhz))
    }

    /// The cap of a phase in MHz; `None` where the board is left alone.
    pub fn cap_mhz(&self, phase: usize) -> Option<f32> {
        let held = self.course == Course::Holding && phase == 1;
        (held && self.asked.mhz < self.grades.upper_mhz).then_some(self.asked.mhz)
    }

    pub fn tick(&mut self, prior: &Prior, second: Second) {
        let Grades { trip_c, upper_mhz, lower_mhz } = self.grades;
        let e = trip_c - self.margin_c - second.t;
        let taken = second.settled && second.measured_mhz < 0.97 * second.request_mhz.min(upper_mhz);
        self.quiet_s += second.dt;
        if self.quiet_s >= QUIET_S {
            self.quiet_s = 0.0;
            self.margin_c = (self.margin_c - NARROWER_C).max(MARGIN_MIN_C);
        }
        match self.course {
            Course::Gripped if second.measured_mhz >= 0.97 * upper_mhz => self.course = Course::Warming,
            Course::Gripped => (),
            Course::Warming | Course::Holding if taken => {
                if self.course == Course::Holding {
                    self.margin_c = (self.margin_c + WIDER_C).min(MARGIN_MAX_C);
                }
                self.quiet_s = 0.0;
                self.course = Course::Gripped;
            }
            Course::Warming if e < NEAR_C => {
                self.asked = Answers::asked_at(prior, self.grades, self.cap_mhz);
                self.course = Course::Holding;
            }
            Course::Holding if second.phase == 1 => {
                let max = prior.max_mhz();
                self.cap_mhz = (self.cap_mhz + INTEGRAL * max * e * second.dt).clamp(lower_mhz, upper_mhz);
                let wanted = (self.cap_mhz + PROPORTIONAL * max * e).clamp(lower_mhz, upper_mhz);
                self.asked.tick(prior, wanted, lower_mhz, e < -URGENT_C, second.dt);
            }
            Course::Warming | Course::Holding => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRADES: Grades = Grades { trip_c: 43.5, upper_mhz: 1500.0, lower_mhz: 1100.0 };

    fn prior() -> Prior {
        Prior::unknown(4, vec![700.0, 900.0, 1100.0, 1300.0, 1500.0, 1800.0, 2100.0])
    }

    /// Turns of a prompt of 10 s and an answer of 30 s, for as long, on a board that gives `grade` and whose skin is `t`.
    fn turns(answers: &mut Answers, seconds: usize, grade: f32, t: f32) {
        for second in 0..seconds {
            let phase = usize::from(second % 40 >= 10);
            let request_mhz = answers.cap_mhz(phase).unwrap_or(2100.0);
            let measured_mhz = request_mhz.min(grade);
            answers.tick(&prior(), Second { phase, t, measured_mhz, request_mhz, settled: second % 40 > 1, dt: 1.0 });
        }
    }

    #[test]
    fn the_answer_alone_is_slowed_and_not_below_the_lower_grade() {
        let mut answers = Answers::new(&prior(), GRADES);
        turns(&mut answers, 100, 1500.0, 42.8);
        assert_eq!((answers.cap_mhz(0), answers.cap_mhz(1)), (None, None), "far from the trip nothing is asked");
        turns(&mut answers, 100, 1500.0, 43.3);
        assert_eq!(answers.cap_mhz(0), None);
        assert!(answers.cap_mhz(1).is_some_and(|mhz| (1100.0..1500.0).contains(&mhz)), "{answers:?}");
        turns(&mut answers, 2000, 1500.0, 43.45);
        assert_eq!((answers.cap_mhz(0), answers.cap_mhz(1)), (None, Some(1100.0)));
    }

    #[test]
    fn a_skin_that_cools_gives_the_answer_its_clock_back() {
        let mut answers = Answers::new(&prior(), GRADES);
        turns(&mut answers, 100, 1500.0, 43.4);
        assert!(answers.cap_mhz(1).is_some());
        turns(&mut answers, 2000, 1500.0, 42.9);
        assert_eq!(answers.cap_mhz(1), None);
    }

    #[test]
    fn a_board_that_took_the_lower_grade_is_left_alone_until_it_gives_the_upper_back_and_is_stayed_away_from() {
        let mut answers = Answers::new(&prior(), GRADES);
        turns(&mut answers, 100, 1500.0, 43.4);
        let before_c = answers.margin_c;
        turns(&mut answers, 100, 1100.0, 43.5);
        assert!(answers.course == Course::Gripped && answers.cap_mhz(1).is_none() && answers.margin_c > before_c, "{answers:?}");
        turns(&mut answers, 100, 1500.0, 42.5);
        assert_eq!(answers.course, Course::Warming);
    }
}
