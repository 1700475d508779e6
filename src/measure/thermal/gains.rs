//! Where the governor must be better than the board alone, and how near it comes to the best constant setting.

use super::{Cell, Difference, Row, cells, load_word, spread};
use crate::governor::observation::Limits;
use crate::governor::simulate::{Constant, Load, run};
use crate::governor::Goal;
use crate::units::Hertz;
use rayon::prelude::*;

/// What a row looks at, and where that must be.
#[derive(Clone, Copy)]
enum Want {
    SpeedAtLeast(f32),
    JoulesAtMost { joules: f32, speed: f32 },
    TtftAtMost(f32),
    TurnAtMost(f32),
}

struct Gain {
    title: &'static str,
    cell: Cell,
    goal: Goal,
    want: Want,
}

pub fn rows(draws: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = gains().into_par_iter().map(|g| gain_row(&g, draws)).collect();
    rows.extend([6.0, 8.0].map(choice_and_eco));
    rows
}

/// Thread choice and eco together, against all cores: with fast kernels the choice is the larger part, and no merit of eco's.
fn choice_and_eco(core_gbs: f32) -> Row {
    let plain = Cell::of("pi5-active", Load::Decode, 22.0);
    let cell = Cell { model: plain.model.clone().with_kernels(core_gbs), ..plain };
    let all = run(&cell.model, &cell.scenario(1), &mut Constant::threads(4, 4), &mut |_, _, _| ());
    let d = Difference::between(&cell.governed(Goal::Eco, 1), &all);
    let figure = format!("J {:+.1} %, speed {:+.1} %", d.joules, d.speed);
    let name = format!("thread choice and eco against 4 threads, {core_gbs:.0} GB/s a core");
    Row::new(d.joules <= -10.0 && d.speed >= -3.0, name, figure, "J ≤ -10 %, speed ≥ -3 %")
}

fn gains() -> Vec<Gain> {
    let mut all = Vec::new();
    let mut add = |title, cell, goal, want| all.push(Gain { title, cell, goal, want });
    for room in [22.0, 30.0] {
        let eco = |k: f32| Cell { model: Cell::of("pi5-active", Load::Decode, room).model.with_kernels(k), ..Cell::of("pi5-active", Load::Decode, room) };
        let base = Cell::of("pi5-active", Load::Decode, room);
        add("eco", base.clone(), Goal::Eco, Want::JoulesAtMost { joules: -5.0, speed: -2.0 });
        add("eco", Cell::of("pi5-alucase", Load::Decode, room), Goal::Eco, Want::JoulesAtMost { joules: -5.0, speed: -2.0 });
        add("eco, kernels of 6 GB/s a core", eco(6.0), Goal::Eco, Want::JoulesAtMost { joules: -10.0, speed: -3.0 });
        add("eco, kernels of 8 GB/s a core", eco(8.0), Goal::Eco, Want::JoulesAtMost { joules: -10.0, speed: -3.0 });
        add("quiet", base, Goal::Quiet, Want::JoulesAtMost { joules: -12.0, speed: -8.0 });
    }
    for (room, decode, prefill) in [(22.0, 6.0, 8.0), (30.0, 10.0, 12.0)] {
        let cliff = |load| Cell::of("rk3588-cliff75", load, room);
        add("cliff", cliff(Load::Decode), Goal::Performance, Want::SpeedAtLeast(decode));
        add("cliff", cliff(Load::Prefill), Goal::Performance, Want::SpeedAtLeast(prefill));
        add("cliff, energy", cliff(Load::Decode), Goal::Performance, Want::JoulesAtMost { joules: -10.0, speed: decode });
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

fn gain_row(gain: &Gain, draws: u64) -> Row {
    let difference = |k: u64| {
        let cell = gain.cell.draw(k);
        Difference::between(&cell.governed(gain.goal, k.max(1)), &cell.stock(k.max(1)))
    };
    let base = difference(0);
    let drawn: Vec<Difference> = (1..=draws).map(difference).collect();
    let with_spread = |value: f32, pick: fn(&Difference) -> f32| {
        let [_, low, high] = spread(drawn.iter().map(pick).collect());
        if drawn.is_empty() { format!("{value:+.1} %") } else { format!("{value:+.1} [{low:+.1} … {high:+.1}] %") }
    };
    let (good, figure, target) = match gain.want {
        Want::SpeedAtLeast(least) => (base.speed >= least, with_spread(base.speed, |d| d.speed), format!("≥ {least:+.0} %")),
        Want::JoulesAtMost { joules, speed } => (
            base.joules <= joules && base.speed >= speed,
            format!("J {}, speed {:+.1} %", with_spread(base.joules, |d| d.joules), base.speed),
            format!("J ≤ {joules:.0} %, speed ≥ {speed:+.0} %"),
        ),
        Want::TtftAtMost(most) => (base.ttft <= most, with_spread(base.ttft, |d| d.ttft), format!("TTFT ≤ {most:.0} %")),
        Want::TurnAtMost(most) => (base.turn <= most, with_spread(base.turn, |d| d.turn), format!("turn ≤ {most:.0} %")),
    };
    Row::new(good, format!("{}: {}", gain.title, gain.cell.words()), figure, target)
}

/// Against exhaustive search over threads × clock, held constant; one row a load, with the worst cell.
pub fn against_best_constant() -> Vec<Row> {
    let steady: Vec<Cell> = cells().into_iter().filter(|c| c.load != Load::Voice).collect();
    let found: Vec<(f32, &Cell)> = steady.par_iter().map(|cell| {
        let mut best = 0.0f32;
        for threads in 1..=cell.model.soc.cores {
            for &mhz in &cell.model.soc.f_mhz {
                let cap = (mhz < cell.model.soc.max_mhz()).then_some(Hertz((mhz as f64 * 1e6) as u64));
                let mut constant = Constant([Limits { threads, cap }; 2]);
                best = best.max(run(&cell.model, &cell.scenario(1), &mut constant, &mut |_, _, _| ()).speed);
            }
        }
        (100.0 * (cell.governed(Goal::Performance, 1).speed / best - 1.0), cell)
    }).collect();
    let mut rows = Vec::new();
    for load in [Load::Decode, Load::Prefill] {
        let mut of_load: Vec<_> = found.iter().filter(|(_, c)| c.load == load).collect();
        of_load.sort_by(|a, b| a.0.total_cmp(&b.0));
        let missed: Vec<_> = of_load.iter().filter(|(d, _)| *d < -1.5).map(|(d, c)| format!("{} {d:+.1} %", c.words())).collect();
        let name = format!("against the best constant setting: {}", load_word(load));
        let Some((worst, cell)) = of_load.first() else { continue };
        let figure = format!("worst {worst:+.1} % in {}; {} of {} below", cell.words(), missed.len(), of_load.len());
        rows.push(Row::new(missed.is_empty(), name, figure, "≥ -1.5 % everywhere"));
        rows.extend(missed.iter().skip(1).map(|m| Row::new(false, "  also below", m.clone(), "≥ -1.5 %")));
    }
    rows
}
