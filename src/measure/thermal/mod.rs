//! What the governor promises, held against the simulator: the rows that `make thermal` prints. All figures from here are simulated.
//!
//! The baseline is always the board's own mechanism with the best static thread count for that phase, in the same room, with the same
//! start: 45 minutes from cold, the last 15 counted (longer under a skin, see [`Cell::scenario`]). [`harmless`]: nowhere worse than that.
//! [`gains`]: where it must be better. [`oracle`]: what anybody can reach. [`insight`]: verdicts, forecasts, faults, and what a simulated
//! hour costs.

pub mod gains;
pub mod harmless;
pub mod insight;
pub mod oracle;

use crate::governor::plant::Model;
use crate::governor::profile::Throttle;
use crate::governor::simulate::{Constant, Governor, Load, Outcome, Scenario, prior_of, run};
use crate::governor::{Goal, Policy};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub verdict: Verdict,
    pub name: String,
    pub figure: String,
    pub target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Short,
    /// The target lies beyond what any constant setting reaches on this plant: it would be dishonest. The figure says the bound, and the
    /// row is held to that instead.
    Bound,
}

impl Row {
    pub fn new(reached: bool, name: impl Into<String>, figure: impl Into<String>, target: impl Into<String>) -> Row {
        let verdict = if reached { Verdict::Ok } else { Verdict::Short };
        Row { verdict, name: name.into(), figure: figure.into(), target: target.into() }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Short => "SHORT",
            Verdict::Bound => "bound",
        };
        write!(f, "{word:7}  {:58}  {:52}  {}", self.name, self.figure, self.target)
    }
}

/// Which chance a table is made with: the plants as written run with the noise of `first`, the draws are `first` and those after it.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    pub first: u64,
    pub draws: u64,
}

impl Seeds {
    pub fn draws(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.draws
    }
}

/// Thread counts within this of the fastest are compared over four noises, and count as alike within half of what is asked for.
const NEAR: f32 = 0.98;
const TIE: f32 = 1.005;

/// Noises over which a plant as written is compared where its own ladder wanders by nearly as much as is asked for ([`Cell::stock`] says by
/// how much): at 30 °C the governor leaves the RK3588 with step_wise alone from the first minute on, and two of 32 noises have it beyond -1 %.
const NOISES_OF_A_LADDER: u64 = 4;

/// A plant in a room under a load.
#[derive(Clone, Debug)]
pub struct Cell {
    pub model: Model,
    pub ambient_c: f32,
    pub load: Load,
}

/// Every plant × three rooms × three loads. A hand-held device is asked about rooms in which hands hold it.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for model in Model::all() {
        let rooms = if model.name.starts_with("phone") { [20.0, 25.0, 32.0] } else { [22.0, 30.0, 40.0] };
        for ambient_c in rooms {
            for load in [Load::Decode, Load::Prefill, Load::Voice] {
                cells.push(Cell { model: model.clone(), ambient_c, load });
            }
        }
    }
    cells
}

impl Cell {
    pub fn of(name: &str, load: Load, ambient_c: f32) -> Cell {
        Cell { model: Model::named(name).unwrap_or_else(|| panic!("no plant `{name}`")), ambient_c, load }
    }

    /// 45 min, the last 15 counted; 2 h, the last 90 min, where a slow zone throttles: the board alone swings over many minutes there, and
    /// a short window catches any part of a swing. (Draw 27 of a phone with graded caps under voice at 32 °C: three threads are 13 % faster
    /// than four in minutes 30 to 45, and 0.8 % in hours 2 to 5.)
    pub fn scenario(&self, seed: u64) -> Scenario {
        let swings = matches!(&self.model.throttle, Throttle::Skin { .. });
        let (minutes, window_minutes) = if swings { (120.0, 90.0) } else { (45.0, 15.0) };
        Scenario { minutes, window_minutes, ..Scenario::new(self.load, self.ambient_c, seed) }
    }

    /// The board alone, with the thread count that is best here: found in runs of other noises, since nobody chooses a count after the run
    /// that it is for. (An RK3588 with step_wise wanders by 0.5 to 0.8 % from one noise to another at its lowest clocks: the luckiest of
    /// four counts of one noise is 1 to 1.3 % ahead where the mean of 16 noises knows no difference.)
    pub fn stock(&self, seed: u64) -> Outcome {
        let n = self.model.soc.cores;
        let at = |threads: u8, seed: u64| {
            let (prefill, decode) = if self.load == Load::Prefill { (threads, n) } else { (n, threads) };
            run(&self.model, &self.scenario(seed), &mut Constant::threads(prefill, decode), &mut |_, _, _| ())
        };
        let other = |threads: u8, noise: u64| at(threads, seed ^ noise << 32).speed;
        let once: Vec<(u8, f32)> = (1..=n).rev().map(|threads| (threads, other(threads, 1))).collect();
        let most = once.iter().map(|o| o.1).fold(0.0, f32::max);
        let near: Vec<(u8, f32)> = once.into_iter().filter(|o| o.1 >= NEAR * most).collect();
        let mean = |(threads, first): (u8, f32)| (threads, (first + (2..=4).map(|noise| other(threads, noise)).sum::<f32>()) / 4.0);
        // Of counts that are alike, all threads: the other one would be chance's choice.
        let best = match near[..] {
            [(only, _)] => only,
            _ => near.into_iter().map(mean).reduce(|a, b| if b.1 > TIE * a.1 { b } else { a }).expect("the fastest is near").0,
        };
        at(best, seed)
    }

    /// The governor against `stock`, the board alone with the same noise; where the board's own ladder wanders, the mean over
    /// [`NOISES_OF_A_LADDER`].
    pub fn compared(&self, goal: Goal, stock: &Outcome, seed: u64) -> Difference {
        let first = Difference::between(&self.governed(goal, seed), stock);
        let noises = if matches!(self.model.throttle, Throttle::StepWise { .. }) { NOISES_OF_A_LADDER } else { 1 };
        let further = (1..noises).map(|noise| {
            let seed = seed ^ noise << 40;
            Difference::between(&self.governed(goal, seed), &self.stock(seed))
        });
        Difference::mean(&std::iter::once(first).chain(further).collect::<Vec<_>>())
    }

    pub fn governed(&self, goal: Goal, seed: u64) -> Outcome {
        self.governed_for(goal, &self.scenario(seed))
    }

    /// As [`Cell::governed`], for another length and window.
    pub fn governed_for(&self, goal: Goal, scenario: &Scenario) -> Outcome {
        let mut governor = Governor::new(Policy { goal, prior: prior_of(&self.model) });
        run(&self.model, scenario, &mut governor, &mut |_, _, _| ())
    }

    /// Draw `k` of everything uncertain; 0 is the plant as written.
    pub fn draw(&self, k: u64) -> Cell {
        Cell { model: self.model.draw(k), ..self.clone() }
    }

    pub fn words(&self) -> String {
        format!("{} {} {:.0} °C", self.model.name, self.load.word(), self.ambient_c)
    }
}

/// Relative differences of a run to its baseline, in percent; temperature in kelvin.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub speed: f32,
    pub ttft: f32,
    pub turn: f32,
    pub joules: f32,
    pub hotter_c: f32,
}

impl Difference {
    pub fn between(with: &Outcome, without: &Outcome) -> Difference {
        let percent = |a: f32, b: f32| if b > 0.0 { 100.0 * (a / b - 1.0) } else { 0.0 };
        Difference {
            speed: percent(with.speed, without.speed),
            ttft: percent(with.ttft_s, without.ttft_s),
            turn: percent(with.turn_s, without.turn_s),
            joules: percent(with.joules, without.joules),
            hotter_c: with.max_c - without.max_c,
        }
    }

    /// Of at least one.
    pub fn mean(of: &[Difference]) -> Difference {
        let mean = |pick: fn(&Difference) -> f32| of.iter().map(pick).sum::<f32>() / of.len() as f32;
        Difference {
            speed: mean(|d| d.speed),
            ttft: mean(|d| d.ttft),
            turn: mean(|d| d.turn),
            joules: mean(|d| d.joules),
            hotter_c: mean(|d| d.hotter_c),
        }
    }
}

/// Median, 10 % and 90 % of some values.
pub fn spread(mut values: Vec<f32>) -> [f32; 3] {
    values.sort_by(f32::total_cmp);
    let at = |q: f32| values.get(((values.len().max(1) - 1) as f32 * q).round() as usize).copied().unwrap_or(0.0);
    [at(0.5), at(0.1), at(0.9)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_what_fell_short() {
        let row = Row::new(false, "pi4 decode 22 °C", "+0.4 %", "≥ +1 %");
        assert!(row.to_string().starts_with("SHORT    pi4 decode 22 °C"));
    }

    /// The quick part of `make thermal`: one plant a mechanism, in the middle room.
    #[test]
    fn no_mechanism_is_made_worse() {
        for (name, load) in [
            ("pi5-bare", Load::Voice),
            ("pi5-active", Load::Prefill),
            ("pi4-bare", Load::Decode),
            ("zero2w-case", Load::Decode),
            ("rk3588-bare", Load::Voice),
            ("rk3588-bare-stepwise", Load::Voice),
            ("rk3588-cliff75", Load::Prefill),
            ("phone-graded", Load::Decode),
            ("phone-hardcliff", Load::Voice),
        ] {
            let ambient = if name.starts_with("phone") { 25.0 } else { 30.0 };
            let cell = Cell::of(name, load, ambient);
            let d = Difference::between(&cell.governed(Goal::Performance, 1), &cell.stock(1));
            assert!(harmless::is_harmless(&d), "{}: {d:?}", cell.words());
        }
    }

    /// Two boards that swing between two grades, and one that rests a tenth of a kelvin above the next.
    #[test]
    fn where_a_thread_less_is_given_the_next_grade_the_governor_is_no_slower() {
        for draw in [11, 24, 26] {
            let cell = Cell::of("phone-graded", Load::Voice, 32.0).draw(draw);
            let d = Difference::between(&cell.governed(Goal::Performance, draw), &cell.stock(draw));
            assert!(harmless::is_harmless(&d), "draw {draw}: {d:?}");
        }
    }

    #[test]
    fn the_naive_governors_fail_the_same_test() {
        let cell = Cell::of("rk3588-bare", Load::Decode, 30.0);
        let stock = cell.stock(1);
        assert!(!harmless::is_harmless(&Difference::between(&harmless::ceiling_holder(&cell, 1), &stock)));
        let cell = Cell::of("pi5-bare", Load::Decode, 30.0);
        assert!(!harmless::is_harmless(&Difference::between(&harmless::duty_cycler(&cell, 1), &cell.stock(1))));
    }
}
