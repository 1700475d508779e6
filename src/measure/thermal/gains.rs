//! Where the governor must be better than the board alone, and how near it comes to the best constant setting.

use super::{Cell, Difference, Row, Seeds, Verdict, cells, oracle, spread};
use crate::governor::Goal;
use crate::governor::observation::{Limits, Observation};
use crate::governor::plant::speed::{Work, rate_and_activity};
use crate::governor::profile::Throttle;
use crate::governor::simulate::{Constant, Control, Load, Scenario, run};
use rayon::prelude::*;

/// What a row looks at, and where that must be.
#[derive(Clone, Copy)]
enum Want {
    SpeedAtLeast(f32),
    /// `aim` is the loss that the goal itself allows; it may be less than what the row would.
    JoulesAtMost {
        joules: f32,
        speed: f32,
        aim: f32,
    },
    TtftAtMost(f32),
    TurnAtMost(f32),
}

/// How far from a bound a row may stay, in points of percent.
const NEAR_BOUND: f32 = 1.0;

struct Gain {
    title: &'static str,
    cell: Cell,
    goal: Goal,
    want: Want,
}

pub fn rows(seeds: &Seeds) -> Vec<Row> {
    let mut rows: Vec<Row> = gains().into_par_iter().map(|g| gain_row(&g, seeds)).collect();
    rows.extend([6.0, 8.0].map(|core_gbs| choice_and_eco(core_gbs, seeds)));
    rows
}

/// Thread choice and eco together, against all cores: with fast kernels the choice is the larger part, and no merit of eco's.
fn choice_and_eco(core_gbs: f32, seeds: &Seeds) -> Row {
    let plain = Cell::of("pi5-active", Load::Decode, 22.0);
    let cell = Cell { model: plain.model.clone().with_kernels(core_gbs), ..plain };
    let all = run(&cell.model, &cell.scenario(seeds.first), &mut Constant::threads(4, 4), &mut |_, _, _| ());
    let d = Difference::between(&cell.governed(Goal::Eco, seeds.first), &all);
    let figure = format!("J {:+.1} %, speed {:+.1} %", d.joules, d.speed);
    let name = format!("thread choice and eco against 4 threads, {core_gbs:.0} GB/s a core");
    Row::new(d.joules <= -10.0 && d.speed >= -3.0, name, figure, "J ≤ -10 %, speed ≥ -3 %")
}

fn gains() -> Vec<Gain> {
    let mut all = Vec::new();
    let mut add = |title, cell, goal, want| all.push(Gain { title, cell, goal, want });
    for room in [22.0, 30.0] {
        let eco = |k: f32| Cell {
            model: Cell::of("pi5-active", Load::Decode, room).model.with_kernels(k),
            ..Cell::of("pi5-active", Load::Decode, room)
        };
        let base = Cell::of("pi5-active", Load::Decode, room);
        add("eco", base.clone(), Goal::Eco, Want::JoulesAtMost { joules: -5.0, speed: -2.0, aim: -2.0 });
        add("eco", Cell::of("pi5-alucase", Load::Decode, room), Goal::Eco, Want::JoulesAtMost { joules: -5.0, speed: -2.0, aim: -2.0 });
        add("eco, kernels of 6 GB/s a core", eco(6.0), Goal::Eco, Want::JoulesAtMost { joules: -10.0, speed: -3.0, aim: -3.0 });
        add("eco, kernels of 8 GB/s a core", eco(8.0), Goal::Eco, Want::JoulesAtMost { joules: -10.0, speed: -3.0, aim: -3.0 });
        add("quiet", base, Goal::Quiet, Want::JoulesAtMost { joules: -12.0, speed: -8.0, aim: -8.0 });
    }
    for (room, decode, prefill) in [(22.0, 6.0, 8.0), (30.0, 10.0, 12.0)] {
        let cliff = |load| Cell::of("rk3588-cliff75", load, room);
        add("cliff", cliff(Load::Decode), Goal::Performance, Want::SpeedAtLeast(decode));
        add("cliff", cliff(Load::Prefill), Goal::Performance, Want::SpeedAtLeast(prefill));
        add("cliff, energy", cliff(Load::Decode), Goal::Performance, Want::JoulesAtMost { joules: -10.0, speed: decode, aim: decode });
    }
    for room in [20.0, 25.0] {
        let hard = |load| Cell::of("phone-hardcliff", load, room);
        add("hard cliff", hard(Load::Decode), Goal::Performance, Want::SpeedAtLeast(25.0));
        add("hard cliff", hard(Load::Prefill), Goal::Performance, Want::SpeedAtLeast(25.0));
        add("hard cliff, TTFT", hard(Load::Voice), Goal::Performance, Want::TtftAtMost(-35.0));
    }
    for room in [22.0, 30.0] {
        let step = Cell::of("rk3588-bare-stepwise", Load::Voice, room);
        add("steps, TTFT", step.clone(), Goal::Performance, Want::TtftAtMost(-15.0));
        add("steps, turn", step, Goal::Performance, Want::TurnAtMost(-2.0));
        add("steps", Cell::of("pi4-bare", Load::Decode, room), Goal::Performance, Want::SpeedAtLeast(1.0));
    }
    all
}

fn gain_row(gain: &Gain, seeds: &Seeds) -> Row {
    let base = gain.cell.compared(gain.goal, &gain.cell.stock(seeds.first), seeds.first);
    let drawn = seeds.draws().map(|k| {
        let cell = gain.cell.draw(k);
        Difference::between(&cell.governed(gain.goal, k), &cell.stock(k))
    });
    let drawn: Vec<Difference> = drawn.collect();
    let with_spread = |value: f32, pick: fn(&Difference) -> f32| {
        let [_, low, high] = spread(drawn.iter().map(pick).collect());
        if drawn.is_empty() { format!("{value:+.1} %") } else { format!("{value:+.1} [{low:+.1} … {high:+.1}] %") }
    };
    let (good, figure, target) = match gain.want {
        Want::SpeedAtLeast(least) => (base.speed >= least, with_spread(base.speed, |d| d.speed), format!("≥ {least:+.0} %")),
        Want::JoulesAtMost { joules, speed, .. } => (
            base.joules <= joules && base.speed >= speed,
            format!("J {}, speed {:+.1} %", with_spread(base.joules, |d| d.joules), base.speed),
            format!("J ≤ {joules:.0} %, speed ≥ {speed:+.0} %"),
        ),
        Want::TtftAtMost(most) => (base.ttft <= most, with_spread(base.ttft, |d| d.ttft), format!("TTFT ≤ {most:.0} %")),
        Want::TurnAtMost(most) => (base.turn <= most, with_spread(base.turn, |d| d.turn), format!("turn ≤ {most:.0} %")),
    };
    let name = format!("{}: {}", gain.title, gain.cell.words());
    let row = Row::new(good, name, figure, target);
    if good { row } else { against_bound(gain, &base, row, seeds.first) }
}

/// A missed target beside what the best setting reaches: beyond that it is nobody's to reach.
fn against_bound(gain: &Gain, base: &Difference, row: Row, seed: u64) -> Row {
    let cell = &gain.cell;
    let stock = cell.stock(seed);
    let all: Vec<Difference> = oracle::reachable(cell, &cell.scenario(seed)).iter().map(|o| Difference::between(o, &stock)).collect();
    match gain.want {
        Want::SpeedAtLeast(least) => {
            let best = all.iter().map(|d| d.speed).fold(f32::NEG_INFINITY, f32::max);
            let near = best < least && base.speed >= best - NEAR_BOUND;
            Row {
                verdict: if near { Verdict::Bound } else { row.verdict },
                figure: format!("{}; no setting beyond {best:+.1} %", row.figure),
                ..row
            }
        }
        Want::JoulesAtMost { joules, speed, aim } => {
            let least = |at_least: f32| all.iter().filter(|d| d.speed >= at_least).map(|d| d.joules).fold(f32::INFINITY, f32::min);
            let (bound, at_aim) = (least(speed), least(aim));
            let near = bound > joules && base.joules <= at_aim + NEAR_BOUND && base.speed >= speed;
            let own = if aim == speed { String::new() } else { format!(", {at_aim:+.1} % within the goal's own {aim:.0} %") };
            let figure = format!("{}; no setting beyond J {bound:+.1} %{own}", row.figure);
            Row { verdict: if near { Verdict::Bound } else { row.verdict }, figure, ..row }
        }
        Want::TtftAtMost(_) | Want::TurnAtMost(_) => row,
    }
}

/// Against exhaustive search over threads × clock, held constant; one row a load, with the worst cell.
pub fn against_best_constant(seeds: &Seeds) -> Vec<Row> {
    let steady: Vec<Cell> = cells().into_iter().filter(|c| c.load != Load::Voice).collect();
    let found: Vec<(f32, &Cell)> = steady.par_iter().map(|cell| (short_of_best(cell, &cell.scenario(seeds.first)), cell)).collect();
    let mut rows = Vec::new();
    for load in [Load::Decode, Load::Prefill] {
        let mut of_load: Vec<_> = found.iter().filter(|(_, c)| c.load == load).collect();
        of_load.sort_by(|a, b| a.0.total_cmp(&b.0));
        let missed: Vec<Row> = of_load.iter().filter(|(d, _)| *d < WITHIN).map(|(d, cell)| transient(cell, *d, seeds.first)).collect();
        let short = missed.iter().filter(|r| r.verdict == Verdict::Short).count();
        let Some((worst, cell)) = of_load.get(missed.len()) else { continue };
        let name = format!("against the best constant setting: {}", load.word());
        let figure = format!("worst {worst:+.1} % in {}; {} of {} apart", cell.words(), missed.len(), of_load.len());
        rows.push(Row::new(short == 0, name, figure, "≥ -1.5 % everywhere"));
        rows.extend(missed);
    }
    rows
}

const WITHIN: f32 = -1.5;

/// Percent that the governor stays behind the best setting on the clock's steps.
fn short_of_best(cell: &Cell, scenario: &Scenario) -> f32 {
    let best = oracle::on_steps(cell, scenario).iter().map(|o| o.speed).fold(0.0, f32::max);
    100.0 * (cell.governed_for(Goal::Performance, scenario).speed / best - 1.0)
}

/// A board that still warms up when the counting begins rewards whoever was slow before it: then the whole run and a steady day count.
/// And a board that catches whoever trips it once rewards whoever knew where: then the way back must be worth it.
fn transient(cell: &Cell, missed: f32, seed: u64) -> Row {
    let run = cell.scenario(seed);
    let whole = short_of_best(cell, &Scenario { window_minutes: run.minutes, ..run.clone() });
    let later = short_of_best(cell, &Scenario { minutes: 300.0, window_minutes: 120.0, ..run });
    let mut bound = whole >= WITHIN && later >= WITHIN;
    let mut figure = format!("{missed:+.1} %; over the whole run {whole:+.1} %, in hours 4 and 5 {later:+.1} %");
    if let Some((minutes, lost)) = captivity(cell, seed).filter(|_| !bound) {
        let hours = minutes * lost / (1.0 / (1.0 + missed / 100.0) - 1.0) / 60.0;
        bound = hours > 1.0;
        figure += &format!("; caught at the first trip, one thread alone is free after {minutes:.0} min, paid back after {hours:.1} h");
    }
    let verdict = if bound { Verdict::Bound } else { Verdict::Short };
    let target = "≥ -1.5 %, or still warming up, or caught";
    Row { verdict, name: format!("  apart: {}", cell.words()), figure, target: target.into() }
}

/// One thread alone from the first throttling until the clock is back.
#[derive(Default)]
struct Alone {
    cores: u8,
    caught_s: f32,
    free: bool,
}

impl Control for Alone {
    fn step(&mut self, seen: &Observation) -> [Limits; 2] {
        let throttled = seen.flags.is_some_and(|f| f.thermal);
        self.free |= self.caught_s > 0.0 && !throttled;
        self.caught_s += if throttled && !self.free { 1.0 } else { 0.0 };
        let threads = if throttled { 1 } else { self.cores };
        [Limits { threads, cap: None }; 2]
    }
}

/// Minutes until a hard skin cliff lets go of one thread alone, and the share of its speed that is lost meanwhile.
fn captivity(cell: &Cell, seed: u64) -> Option<(f32, f32)> {
    let Throttle::Skin { cap_mhz, .. } = &cell.model.throttle else { return None };
    let [low] = cap_mhz[..] else { return None };
    let mut alone = Alone { cores: cell.model.soc.cores, ..Alone::default() };
    run(&cell.model, &cell.scenario(seed), &mut alone, &mut |_, _, _| ());
    let work = if cell.load == Load::Prefill { Work::Prefill } else { Work::Decode };
    let rate = |threads| rate_and_activity(&cell.model.soc, work, threads, low).0;
    let minutes = if alone.free { alone.caught_s / 60.0 } else { f32::INFINITY };
    Some((minutes, 1.0 - rate(1) / rate(alone.cores)))
}
