//! What the governor knows: who throttles, what the temperature will be, when throttling begins, when a sensor lies; and its price.

use super::{Cell, Row, Seeds, Verdict, cells, spread};
use crate::governor::faults::{Expect, FAULTS, under_fault};
use crate::governor::plant::{Model, SENSOR_NOISE_C};
use crate::governor::profile::Throttle;
use crate::governor::simulate::{Constant, Governor, Load, Scenario, Second, follow, prior_of, run};
use crate::governor::{Goal, Mechanism, Policy};
use rayon::prelude::*;

/// A verdict counts when it stood within this many seconds of the first throttling.
const VERDICT_S: f32 = 900.0;

/// What the mechanism of a plant is called when it is judged right.
fn right(throttle: &Throttle) -> Mechanism {
    match throttle {
        Throttle::Progressive { .. } | Throttle::PowerAllocator { .. } => Mechanism::Progressive,
        Throttle::Ladder { .. } | Throttle::StepWise { .. } => Mechanism::Step,
        Throttle::Cliff { .. } => Mechanism::Cliff,
        Throttle::Skin { cap_mhz, .. } if cap_mhz.len() == 1 => Mechanism::Cliff,
        Throttle::Skin { .. } => Mechanism::Skin,
    }
}

pub fn verdicts(seeds: &Seeds) -> Vec<Row> {
    let judged: Vec<(bool, String)> = cells()
        .par_iter()
        .filter_map(|cell| {
            let outcome = cell.governed(Goal::Performance, seeds.first);
            if cell.stock(seeds.first).throttled < 0.02 {
                return None;
            }
            let right = outcome.mechanism == right(&cell.model.throttle) && outcome.verdict_after_s <= VERDICT_S;
            Some((right, format!("{}: {} after {:.0} s", cell.words(), outcome.mechanism.word(), outcome.verdict_after_s)))
        })
        .collect();
    let wrong: Vec<&str> = judged.iter().filter(|j| !j.0).map(|j| j.1.as_str()).collect();
    let figure = format!("{} of {} cells that throttle {}", judged.len() - wrong.len(), judged.len(), wrong.join(", "));
    vec![Row::new(wrong.is_empty(), "mechanism named within 15 min of throttling", figure, "right on every plant")]
}

/// Idle, first heating, idle, second heating, in seconds of the run.
const COURSE_S: [usize; 4] = [300, 1500, 3300, 6000];

/// What one plant was foretold under steady work.
struct Foretold {
    words: String,
    /// Errors of the temperature 60 s ahead, from a minute into each heating on.
    errors: Vec<f32>,
    /// Time to throttle at half of it, as a share too much, for each heating that lasted two minutes until then; NaN: nothing was foretold.
    halves: [Option<f32>; 2],
    /// The board says beforehand where it throttles.
    announced: bool,
    /// One sigma of the first of `halves` that nobody gets below who learns the board from its readings alone.
    least_sigma: Option<f32>,
}

/// Cramér and Rao's bound on the time to throttle, as a share of it, for `T = T∞ - A·exp(-t/τ)` read once a second until half time with
/// the noise of the sensor, all three unknown. τ is the plant's, T∞ and A follow from where it was then and at the end.
fn least_sigma(cell: &Cell, half_s: f64, [start, half, trip]: [f64; 3]) -> Option<f32> {
    let c = &cell.model.cooling;
    let rba = c.fan_rba.last().copied().unwrap_or(c.rba) + c.rca.unwrap_or(0.0);
    let tau = (rba * (c.cb + c.cc.unwrap_or(0.0))) as f64;
    let fade = (-half_s / tau).exp();
    let end = (trip - half * fade) / (1.0 - fade);
    let a = end - half + (half - start).max(1.0);
    if end <= trip {
        return None;
    }
    let step = cell.model.soc.sensor_step_c as f64;
    let variance = (SENSOR_NOISE_C as f64).powi(2) + step * step / 12.0;
    let mut information = [[0.0; 3]; 3];
    for second in 0..half_s as usize {
        let t = second as f64;
        let g = [1.0, -(-t / tau).exp(), -a * t / (tau * tau) * (-t / tau).exp()];
        for (i, row) in information.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                *cell += g[i] * g[j] / variance;
            }
        }
    }
    let to_trip = [-tau / (end - trip), tau / a, (a / (end - trip)).ln()];
    let x = solve(information, to_trip)?;
    let sigma_s = (0..3).map(|i| x[i] * to_trip[i]).sum::<f64>().max(0.0).sqrt();
    Some((sigma_s / half_s) as f32)
}

/// `m·x = b` by elimination with pivots.
fn solve(mut m: [[f64; 3]; 3], mut b: [f64; 3]) -> Option<[f64; 3]> {
    for k in 0..3 {
        let pivot = (k..3).max_by(|&i, &j| m[i][k].abs().total_cmp(&m[j][k].abs()))?;
        m.swap(k, pivot);
        b.swap(k, pivot);
        if m[k][k].abs() < 1e-30 {
            return None;
        }
        for i in (0..3).filter(|&i| i != k) {
            let share = m[i][k] / m[k][k];
            m[i] = std::array::from_fn(|j| m[i][j] - share * m[k][j]);
            b[i] -= share * b[k];
        }
    }
    Some(std::array::from_fn(|i| b[i] / m[i][i]))
}

fn foretell(cell: &Cell, seed: u64) -> Foretold {
    let mut governor = Governor::new(Policy { goal: Goal::Off, prior: prior_of(&cell.model) });
    let by_skin = matches!(cell.model.throttle, Throttle::Skin { .. });
    let [first, pause, second, end] = COURSE_S;
    let pauses = vec![0.0..first as f32, pause as f32..second as f32];
    let scenario = Scenario { minutes: end as f32 / 60.0, pauses, ..cell.scenario(seed) };
    let mut course = Vec::new();
    follow(&cell.model, &scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
        let t = if by_skin { s.plant.skin_c().unwrap_or(0.0) } else { s.plant.junction_c() };
        let d = s.decision;
        let later = d.and_then(|d| d.in_60_s).map(|f| f.at.0);
        course.push((t, later, d.and_then(|d| d.time_to_throttle).map(|s| s.0 as f32), s.plant.is_throttling()));
    });
    let steady = (first + 60..pause - 60).chain(second + 60..end - 60);
    let errors = steady.filter_map(|i| Some((course[i].1? - course[i + 60].0).abs())).collect();
    let half = |from: usize, to: usize| {
        let lasted = course[from..to].iter().position(|c| c.3).filter(|&s| s >= 120)?;
        let i = from + lasted / 2;
        Some(course[i].2.map_or(f32::NAN, |foretold| foretold / (from + lasted - i) as f32 - 1.0))
    };
    let least_sigma = course[first..pause].iter().position(|c| c.3).and_then(|lasted| {
        // From where the junction has followed.
        let at = |s: usize| course[first + s].0 as f64;
        least_sigma(cell, (lasted / 2) as f64, [at(15.min(lasted)), at(lasted / 2), at(lasted)])
    });
    let announced = !by_skin && !matches!(cell.model.throttle, Throttle::Cliff { .. });
    Foretold { words: cell.words(), errors, halves: [half(first, pause), half(second, end)], announced, least_sigma }
}

/// Forecasts under steady work: five idle minutes, a heating, half an hour's rest, a second heating. Where a board does not say where it
/// throttles, nobody can know before the first time.
pub fn forecasts(seeds: &Seeds) -> Vec<Row> {
    let steady: Vec<Cell> = cells().into_iter().filter(|c| c.load != Load::Voice).collect();
    let found: Vec<Foretold> = steady.par_iter().map(|cell| foretell(cell, seeds.first)).collect();
    let drawn: Vec<Foretold> = seeds
        .draws()
        .flat_map(|k| steady.iter().map(move |c| (c.draw(k), k)))
        .collect::<Vec<_>>()
        .par_iter()
        .map(|(cell, k)| foretell(cell, *k))
        .collect();
    let all: Vec<f32> = found.iter().flat_map(|f| f.errors.iter().copied()).collect();
    let within = all.iter().filter(|e| **e <= 2.0).count() as f32 / all.len().max(1) as f32;
    let [median, _, ninety] = spread(all);
    let [_, _, ninety_drawn] = spread(drawn.iter().flat_map(|f| f.errors.iter().copied()).collect());
    let figure = format!("median {median:.1} K, 90 % within {ninety:.1} K (draws {ninety_drawn:.1} K); {:.0} % within 2 K", 100.0 * within);
    let mut rows =
        vec![Row::new(ninety <= 2.0, "temperature foretold 60 s ahead, steady work, from 1 min on", figure, "90 % within ± 2 K")];
    rows.extend([0, 1].map(|heating| throttle_row(heating, &found, &drawn)));
    rows
}

/// A heating counts as unknowable when two sigma of the bound are more than what is asked for.
const ASKED: f32 = 0.25;

fn throttle_row(heating: usize, found: &[Foretold], drawn: &[Foretold]) -> Row {
    let good = |half: f32| half.abs() <= ASKED;
    let asked = |f: &&Foretold| f.halves[heating].is_some() && (heating == 1 || f.announced);
    let here: Vec<&Foretold> = found.iter().filter(asked).collect();
    let draws: Vec<f32> = drawn.iter().filter(asked).filter_map(|f| f.halves[heating]).collect();
    let half = |f: &Foretold| f.halves[heating].unwrap_or(f32::NAN);
    let missed: Vec<&&Foretold> = here.iter().filter(|f| !good(half(f))).collect();
    let nobody = |f: &Foretold| heating == 0 && f.least_sigma.is_some_and(|s| 2.0 * s > ASKED);
    let words = missed.iter().map(|f| {
        let foretold = if half(f).is_nan() { "never".into() } else { format!("{:+.0} %", 100.0 * half(f)) };
        let bound = if nobody(f) { format!(" (± {:.0} % is the bound)", 200.0 * f.least_sigma.unwrap_or(0.0)) } else { String::new() };
        format!("{} {foretold}{bound}", f.words)
    });
    let words: Vec<String> = words.collect();
    let share = 100.0 * draws.iter().filter(|h| good(**h)).count() as f32 / draws.len().max(1) as f32;
    let figure = format!("{} of {} within; draws {share:.0} %; {}", here.len() - missed.len(), here.len(), words.join(", "));
    let title =
        ["time to throttle at half of it, board unknown, trip announced", "time to throttle at half of it, once it has throttled"][heating];
    let verdict = if missed.is_empty() {
        Verdict::Ok
    } else if missed.iter().all(|f| nobody(f)) {
        Verdict::Bound
    } else {
        Verdict::Short
    };
    Row { verdict, ..Row::new(true, title, figure, "± 25 %") }
}

pub fn faults() -> Vec<Row> {
    let mut bad = Vec::new();
    let (mut slowest, mut back) = (0.0f32, 0.0f32);
    for load in [Load::Decode, Load::Prefill, Load::Voice] {
        for fault in &FAULTS {
            let seen = under_fault(load, fault);
            slowest = slowest.max(seen.until_stock_s);
            if fault.expect != Expect::LetsGo {
                back = back.max(seen.until_back_s);
            }
            if !seen.is_as(fault) {
                bad.push(format!("{} in {}", fault.name, load.word()));
            }
        }
    }
    let figure = format!("{} faults × 3 loads: stock after {slowest:.0} s, back after {back:.0} s {}", FAULTS.len(), bad.join(", "));
    vec![Row::new(bad.is_empty(), "sensors and levers that lie, hang or vanish", figure, "stock ≤ 10 s, back ≤ 5 s")]
}

/// CPU time of this thread for an hour of the slowest plant, stock and governed.
pub fn price() -> Vec<Row> {
    let cpu_s = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    };
    let scenario = Scenario { minutes: 60.0, ..Scenario::new(Load::Voice, 30.0, 1) };
    let worst = Model::all()
        .iter()
        .map(|model| {
            let start = cpu_s();
            run(model, &scenario, &mut Governor::new(Policy { goal: Goal::Performance, prior: prior_of(model) }), &mut |_, _, _| ());
            let governed = cpu_s() - start;
            run(model, &scenario, &mut Constant::threads(model.soc.cores, model.soc.cores), &mut |_, _, _| ());
            (governed, cpu_s() - start - governed)
        })
        .fold((0.0f64, 0.0f64), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let figure = format!("{:.1} ms governed, {:.1} ms stock", 1000.0 * worst.0, 1000.0 * worst.1);
    vec![Row::new(worst.0 <= 0.05, "a simulated hour, slowest plant", figure, "≤ 50 ms of CPU")]
}
