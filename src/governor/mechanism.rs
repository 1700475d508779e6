//! Which mechanism throttles this board: first the kernel's and the profile's word, then what temperature and clock show.
//!
//! | seen over up to 30 min, our own caps aside | verdict |
//! |---|---|
//! | two clocks, the lower < 75 % of the upper, three flips; on a slow zone one fall and two minutes there | cliff (of the die, or of the skin) |
//! | capped while the die is far below any trip, a slow zone is hot | skin |
//! | the clock's *change* goes with the temperature, its level does not | step |
//! | < 95 % of the request, 10 K below the lowest trip, 30 s, no power bit | stuck cap |
//! | 95 °C (or 3 K above the known trip) and no cap, ours or the board's | missing, until one is seen |
//! | anything else | progressive: the answer that can do no harm |

use super::observation::{Flags, Mechanism};
use super::policy::Prior;
use std::collections::VecDeque;

const WINDOW: usize = 1800;
const FLIP: f32 = 0.75;
/// A clock below this share of the request is a cap; measured clocks differ by up to a step's rounding.
const CAPPED: f32 = 0.97;
const STUCK_S: f64 = 30.0;
/// Throttling this long after the last is none of its own swings.
const FRESH_S: f64 = 60.0;
const MISSING_C: f32 = 95.0;

/// Where a limit is felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Zone {
    #[default]
    Die,
    Skin,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    soc: f32,
    skin: Option<f32>,
    mhz: f32,
    request: f32,
    /// The sample before it is one second older, at the same request and work.
    follows: bool,
}

/// What was seen and what follows from it.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    samples: VecDeque<Sample>,
    throttled_s: f64,
    stuck_s: f64,
    missing_s: f64,
    since_review_s: f64,
    last_sample_s: f64,
    before: Before,
    settled: Option<Settled>,
    capped: bool,
    pub verdict: Mechanism,
    pub confidence: f32,
    pub zone: Zone,
    /// Temperature of `zone` at which the board took clock away, as its sensor read.
    pub trip_c: Option<f32>,
    /// Die and skin, smoothed, when a board took clock away that had been free for a while. Below the trip where it trips on the peaks of
    /// a noisy sensor: a forecast, which is smooth, meets this and not the other.
    pub onset_c: Option<[f32; 2]>,
    /// The lower clock of a cliff.
    pub low_mhz: Option<f32>,
    /// The last step down of a slow zone's graded caps.
    pub grade: Option<Grade>,
    since_fall: Option<Since>,
    /// In the last look.
    fell: bool,
    /// When throttling was first seen, in seconds of governor time.
    pub first_s: Option<f64>,
    /// Last time it was seen.
    pub last_s: Option<f64>,
}

/// A slow zone's cap fell: at this temperature, to this clock.
#[derive(Clone, Copy, Debug)]
pub struct Grade {
    pub at_c: f32,
    pub from_mhz: f32,
    pub to_mhz: f32,
    /// What lay between the last two falls, when both were this one.
    pub cycle: Option<Cycle>,
}

/// Whether two measured clocks are one step of the board's.
pub(super) fn is_near(a_mhz: f32, b_mhz: f32) -> bool {
    (a_mhz / b_mhz - 1.0).abs() < 0.04
}

/// From one fall to the next, the board left alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cycle {
    pub mean_mhz: f32,
    /// The constant clock that draws as much.
    pub equal_power_mhz: f32,
    pub mean_c: f32,
}

/// Sums over the cycle under way.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    seconds: f32,
    mhz: f32,
    cubes: f32,
    c: f32,
    /// The board gave its clock back.
    rose: bool,
}

impl Since {
    fn add(&mut self, mhz: f32, c: f32, dt: f32) {
        self.seconds += dt;
        self.mhz += mhz * dt;
        self.cubes += (mhz / 1000.0).powi(3) * dt;
        self.c += c * dt;
    }

    fn cycle(self) -> Cycle {
        let n = self.seconds.max(1e-3);
        Cycle { mean_mhz: self.mhz / n, equal_power_mhz: 1000.0 * (self.cubes / n).cbrt(), mean_c: self.c / n }
    }
}

/// The look before.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    soc: f32,
    skin: f32,
    smooth: [f32; 2],
}

/// The clock and the request of the last look at the same work as the look before it. A phase's first second may still show the clock of the
/// silence before, which is a governor's idle clock and no cap.
#[derive(Clone, Copy, Debug)]
struct Settled {
    mhz: f32,
    request: f32,
}

/// One busy second.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub soc: f32,
    pub skin: Option<f32>,
    /// Both smoothed over some seconds.
    pub smooth: [f32; 2],
    pub mhz: f32,
    pub request: f32,
    pub flags: Option<Flags>,
    pub same_work: bool,
    pub now_s: f64,
    pub dt: f64,
}

impl Evidence {
    pub fn new(prior: &Prior) -> Evidence {
        Evidence { confidence: if prior.mechanism == Mechanism::Unknown { 0.0 } else { 0.7 }, ..Evidence::default() }
    }

    /// Whether the last look was capped by the board.
    pub fn is_capped(&self) -> bool {
        self.capped
    }

    /// The clock as last measured under work.
    pub fn clock_mhz(&self) -> f32 {
        self.settled.map_or(0.0, |s| s.mhz)
    }

    /// The constant clock that would draw as much as the board's own throttle lets through: power goes with about the third power
    /// of the clock, so this is the cubic mean of what was measured since throttling began.
    pub fn equal_power_mhz(&self) -> Option<f32> {
        let sum: f32 = self.samples.iter().map(|s| (s.mhz / 1000.0).powi(3)).sum();
        (!self.samples.is_empty()).then(|| (sum / self.samples.len() as f32).cbrt() * 1000.0)
    }

    /// Whether the board's ladder leaves out steps of the clock that lie between those it visits: a hold can then be finer than it.
    pub fn skips_steps(&self, prior: &Prior) -> bool {
        let mut visited: Vec<usize> = self.samples.iter().map(|s| prior.steps_mhz.partition_point(|&f| f < s.mhz - 5.0)).collect();
        visited.sort_unstable();
        visited.dedup();
        visited.windows(2).any(|pair| pair[1] - pair[0] >= 3)
    }

    /// Takes in one look of a working board.
    pub fn look(&mut self, prior: &Prior, look: Look) {
        let was = self.capped;
        let power = look.flags.is_some_and(|f| f.under_voltage || f.power_limit);
        self.capped = look.mhz < CAPPED * look.request && !power;
        let lowest_trip = self.trip_c.filter(|_| self.zone == Zone::Die).or(prior.trip_c).unwrap_or(75.0);
        let skin_explains = look.skin.is_some_and(|s| s >= 36.0);
        let cool = look.soc < lowest_trip - 10.0 && !skin_explains;
        self.stuck_s = if look.mhz < 0.95 * look.request && cool && !power { self.stuck_s + look.dt } else { 0.0 };
        // A hand-held device watches its skin, and its die may well be hotter than a board's.
        let missing_c = prior.trip_c.map_or(MISSING_C, |t| MISSING_C.max(t + 3.0)) + if look.skin.is_some() { 15.0 } else { 0.0 };
        // Under a cap of ours nobody can say that the board would not have throttled.
        let full = look.request >= 0.99 * prior.max_mhz();
        self.missing_s = if look.soc >= missing_c && !self.capped && full { self.missing_s + look.dt } else { 0.0 };
        if self.stuck_s >= STUCK_S {
            (self.verdict, self.confidence) = (Mechanism::StuckCap, 0.95);
            return;
        }
        if self.verdict == Mechanism::StuckCap && self.stuck_s == 0.0 {
            (self.verdict, self.confidence) = (Mechanism::Unknown, 0.0);
        }
        if self.missing_s >= 5.0 && self.verdict != Mechanism::Missing {
            (self.verdict, self.confidence) = (Mechanism::Missing, 0.9);
        }
        // It came late, or from another zone, but it came.
        if self.capped && !cool && self.verdict == Mechanism::Missing {
            (self.verdict, self.confidence) = (Mechanism::Unknown, 0.0);
        }
        if self.capped && !cool {
            let from_below = self.last_s.is_none_or(|l| look.now_s - l > FRESH_S);
            self.first_s.get_or_insert(look.now_s);
            self.last_s = Some(look.now_s);
            self.throttled_s += look.dt;
            if !was && look.same_work {
                self.note_trip(look, from_below);
            }
        }
        self.watch_grades(prior, look);
        let Look { soc, skin, smooth, mhz, request, .. } = look;
        self.before = Before { soc, skin: skin.unwrap_or(soc), smooth };
        // Before the first throttling only the last look is kept: the fall itself is evidence.
        if self.samples.len() == if self.first_s.is_none() { 1 } else { WINDOW } {
            self.samples.pop_front();
        }
        // Under a cap of ours the board shows our steps, not its own.
        if !full {
            return;
        }
        let follows = look.same_work && look.now_s - self.last_sample_s < 1.5;
        self.last_sample_s = look.now_s;
        self.samples.push_back(Sample { soc, skin, mhz, request, follows });
        if self.first_s.is_none() {
            return;
        }
        self.since_review_s += look.dt;
        if self.since_review_s >= 10.0 {
            self.since_review_s = 0.0;
            self.review(prior);
        }
    }

    /// A slow zone's cap fell and rose again, the board left alone: under the same work it will fall once more.
    pub fn swings(&self) -> bool {
        self.since_fall.is_some_and(|s| s.rose)
    }

    /// Whether a slow zone's cap fell in the last look, and whether it was the same fall as before.
    pub fn fell(&self) -> Option<bool> {
        let grade = self.grade.filter(|_| self.fell)?;
        Some(grade.cycle.is_some())
    }

    /// The falls of a slow zone's caps, and what lies between two of them while the board is left alone.
    fn watch_grades(&mut self, prior: &Prior, look: Look) {
        self.fell = false;
        let full = look.request >= 0.99 * prior.max_mhz();
        if !full {
            self.since_fall = None;
        }
        // A fall in a silence shows in the second look of the phase after it.
        if !look.same_work {
            return;
        }
        let before = self.settled.replace(Settled { mhz: look.mhz, request: look.request });
        let Some(skin) = look.skin else { return };
        let Some(before) = before.filter(|b| full && b.request == look.request) else {
            self.since_fall = None;
            return;
        };
        if let Some(since) = &mut self.since_fall {
            since.add(look.mhz, skin, look.dt as f32);
            since.rose |= self.grade.is_some_and(|g| is_near(look.mhz, g.from_mhz));
        }
        if self.capped && look.mhz < 0.95 * before.mhz {
            let again = self.grade.is_some_and(|g| is_near(g.from_mhz, before.mhz) && is_near(g.to_mhz, look.mhz));
            let cycle = self.since_fall.filter(|_| again).map(Since::cycle);
            self.grade = Some(Grade { at_c: skin, from_mhz: before.mhz, to_mhz: look.mhz, cycle });
            self.since_fall = Some(Since::default());
            self.fell = true;
        }
    }

    /// A cap set in: the trip is what the zone read just before or after, the mean over what was seen so far.
    fn note_trip(&mut self, look: Look, from_below: bool) {
        let seen = match self.zone {
            Zone::Die => look.soc.max(self.before.soc),
            Zone::Skin => look.skin.unwrap_or(look.soc).max(self.before.skin),
        };
        self.trip_c = Some(self.trip_c.map_or(seen, |t| t + 0.25 * (seen - t)));
        if from_below {
            // Without the reading that tripped it: that was a peak.
            self.onset_c = Some(self.before.smooth);
        }
    }

    fn review(&mut self, prior: &Prior) {
        if self.verdict == Mechanism::Missing || self.throttled_s < 10.0 {
            return;
        }
        let capped = || self.samples.iter().filter(|s| s.mhz < CAPPED * s.request);
        let count = capped().count();
        if count < 5 {
            return;
        }
        let mean_soc = capped().map(|s| s.soc).sum::<f32>() / count as f32;
        let far_below_die_trip = mean_soc < prior.trip_c.unwrap_or(80.0) - 5.0;
        let zone = if far_below_die_trip && capped().all(|s| s.skin.is_some()) { Zone::Skin } else { Zone::Die };
        if zone != self.zone {
            self.zone = zone;
            let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
            let onset = pairs.filter(|(a, b)| a.mhz >= CAPPED * a.request && b.mhz < CAPPED * b.request).map(|(_, b)| b);
            self.trip_c = onset.chain(capped().take(1)).find_map(|s| if zone == Zone::Skin { s.skin } else { Some(s.soc) });
        }
        if let Some(low) = self.cliff(zone) {
            self.low_mhz = Some(low);
            (self.verdict, self.confidence) = (Mechanism::Cliff, 0.95);
        } else if zone == Zone::Skin {
            (self.verdict, self.confidence) = (Mechanism::Skin, 0.9);
        } else if self.verdict != Mechanism::Cliff {
            (self.verdict, self.confidence) = self.step_or_progressive(prior);
        }
    }

    /// The lower clock, when there are two clocks only. A slow zone takes minutes for each flip between them: there one fall at once to
    /// the lower clock, and nothing in between for two minutes, must do.
    fn cliff(&self, zone: Zone) -> Option<f32> {
        let low: Vec<f32> = self.samples.iter().filter(|s| s.mhz < FLIP * s.request).map(|s| s.mhz).collect();
        let mut sorted = low.clone();
        sorted.sort_by(f32::total_cmp);
        let level = *sorted.get(sorted.len() / 2)?;
        let at_low = |s: &&Sample| (s.mhz / level - 1.0).abs() < 0.04;
        let full = |s: &&Sample| s.mhz >= 0.95 * s.request;
        let on_two = self.samples.iter().filter(|s| at_low(s) || full(s)).count();
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let flips = pairs.filter(|(a, b)| full(a) && at_low(b) || at_low(a) && full(b)).count();
        let two_only = |share: f32| on_two as f32 >= share * self.samples.len() as f32;
        let fell = zone == Zone::Skin && flips >= 1 && low.len() >= 120 && two_only(0.98);
        (fell || flips >= 3 && two_only(0.9)).then_some(level)
    }

    fn step_or_progressive(&self, prior: &Prior) -> (Mechanism, f32) {
        let pairs: Vec<_> = self.samples.iter().zip(self.samples.iter().skip(1)).filter(|(_, b)| b.follows).collect();
        let level = correlation(pairs.iter().map(|(a, _)| (a.soc, a.mhz)));
        let change = correlation(
            pairs.iter().filter(|(a, b)| a.mhz < 0.97 * a.request || b.mhz < 0.97 * b.request).map(|(a, b)| (a.soc, b.mhz - a.mhz)),
        );
        let stepping = pairs.len() >= 60 && change < -0.25 && change < level - 0.05;
        match (prior.mechanism, stepping) {
            (Mechanism::Step, true) => (Mechanism::Step, 0.95),
            (Mechanism::Step, false) => (Mechanism::Step, 0.9),
            (Mechanism::Progressive, _) => (Mechanism::Progressive, 0.9),
            (_, true) if pairs.len() >= 180 => (Mechanism::Step, 0.9),
            _ => (Mechanism::Progressive, 0.6),
        }
    }
}

/// Pearson's r, 0 when either side does not vary.
fn correlation(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let (mut n, mut sx, mut sy, mut sxx, mut syy, mut sxy) = (0.0f64, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x as f64, y as f64);
        n += 1.0;
        sx += x;
        sy += y;
        sxx += x * x;
        syy += y * y;
        sxy += x * y;
    }
    let (vx, vy) = (sxx - sx * sx / n.max(1.0), syy - sy * sy / n.max(1.0));
    if vx <= 1e-6 || vy <= 1e-6 { 0.0 } else { ((sxy - sx * sy / n) / (vx * vy).sqrt()) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at these clocks, the first of them the first of a phase; returns at which of them the clock fell.
    fn falls(evidence: &mut Evidence, clocks: &[f32]) -> Vec<usize> {
        let prior = Prior::unknown(4, vec![600.0, 1100.0, 1500.0, 2100.0]);
        let mut fell = |i: usize| {
            let look = Look {
                soc: 60.0,
                skin: Some(43.0),
                smooth: [60.0, 43.0],
                mhz: clocks[i],
                request: 2100.0,
                flags: None,
                same_work: i > 0,
                now_s: 0.0,
                dt: 1.0,
            };
            evidence.look(&prior, look);
            evidence.fell().is_some()
        };
        (0..clocks.len()).filter(|&i| fell(i)).collect()
    }

    #[test]
    fn a_silences_idle_clock_is_no_grade() {
        let mut evidence = Evidence::default();
        falls(&mut evidence, &[1500.0; 5]);
        assert_eq!(falls(&mut evidence, &[600.0, 1500.0, 1500.0]), [0; 0]);
        assert!(evidence.grade.is_none() && !evidence.swings(), "{evidence:?}");
        falls(&mut evidence, &[600.0]);
        assert_eq!(evidence.clock_mhz(), 1500.0);
    }

    #[test]
    fn a_fall_in_a_silence_shows_in_the_second_look_after_it_and_a_swing_goes_on_through_silences() {
        let mut evidence = Evidence::default();
        falls(&mut evidence, &[1500.0; 5]);
        assert_eq!(falls(&mut evidence, &[600.0, 1100.0, 1100.0]), [1]);
        assert!(evidence.grade.is_some_and(|g| (g.from_mhz, g.to_mhz) == (1500.0, 1100.0)), "{evidence:?}");
        falls(&mut evidence, &[600.0, 1100.0, 1100.0]);
        falls(&mut evidence, &[600.0, 1500.0, 1500.0]);
        assert!(evidence.swings());
    }
}
