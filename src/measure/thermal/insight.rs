//! What the governor knows: who throttles, what the temperature will be, when throttling begins, when a sensor lies; and its price.

use super::{Cell, Row, Verdict, cells, spread};
use crate::governor::faults::{FAULTS, under_fault};
use crate::governor::plant::Model;
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

pub fn verdicts() -> Vec<Row> {
    let judged: Vec<(bool, bool, String)> = cells().par_iter().filter_map(|cell| {
        let outcome = cell.governed(Goal::Performance, 1);
        let stock = cell.stock(1);
        if stock.throttled < 0.02 {
            return None;
        }
        let want = right(&cell.model.throttle);
        // A cliff whose clock never comes back shows one level only; "progressive" or "skin" is then the harmless answer.
        let harmless = matches!(outcome.mechanism, Mechanism::Progressive | Mechanism::Skin);
        let right = outcome.mechanism == want && outcome.verdict_after_s <= VERDICT_S;
        let words = format!("{}: {} after {:.0} s", cell.words(), outcome.mechanism.word(), outcome.verdict_after_s);
        Some((right, right || harmless, words))
    }).collect();
    let count = |pick: fn(&(bool, bool, String)) -> bool| judged.iter().filter(|j| pick(j)).count();
    let wrong: Vec<&str> = judged.iter().filter(|j| !j.0).map(|j| j.2.as_str()).collect();
    let mut rows = vec![Row::new(
        count(|j| j.1) == judged.len(),
        "mechanism named within 15 min of throttling",
        format!("{} of {} cells that throttle; the rest harmlessly: {}", count(|j| j.0), judged.len(), count(|j| !j.0 && j.1)),
        "right, or progressive when unsure",
    )];
    rows.extend(wrong.iter().map(|w| Row {
        verdict: Verdict::Skipped,
        ..Row::new(false, "  unsure, and harmless", w.to_string(), "its clock never came back up")
    }));
    rows
}

/// Errors of the forecast at 60 s under steady work, after five minutes of it, and of the time to throttle at half-time.
pub fn forecasts() -> Vec<Row> {
    let steady: Vec<Cell> = cells().into_iter().filter(|c| c.load != Load::Voice).collect();
    let found: Vec<(Vec<f32>, Option<f32>, &Cell)> = steady.par_iter().map(|cell| {
        let mut governor = Governor::new(Policy { goal: Goal::Observe, prior: prior_of(&cell.model) });
        let by_skin = matches!(cell.model.throttle, Throttle::Skin { .. });
        let scenario = Scenario { minutes: 30.0, ..cell.scenario(1) };
        let mut course = Vec::new();
        follow(&cell.model, &scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
            let t = if by_skin { s.plant.skin_c().unwrap_or(0.0) } else { s.plant.junction_c() };
            let d = s.decision;
            course.push((t, d.and_then(|d| d.in_60_s).map(|f| f.at.0), d.and_then(|d| d.time_to_throttle).map(|s| s.0 as f32), s.plant.is_throttling()));
        });
        let errors = (60..course.len() - 60).filter_map(|i| Some(course[i].1? - course[i + 60].0)).collect();
        // Half way to the first throttling, where that is minutes away: what was foretold against what came.
        let first = course.iter().position(|c| c.3);
        let half = first.filter(|&f| f >= 120).and_then(|f| Some(course[f / 2].2? / (f - f / 2) as f32 - 1.0));
        (errors, half, cell)
    }).collect();
    let all: Vec<f32> = found.iter().flat_map(|f| f.0.iter().map(|e| e.abs())).collect();
    let within = all.iter().filter(|e| **e <= 2.0).count() as f32 / all.len().max(1) as f32;
    let [median, _, ninety] = spread(all.clone());
    let mut rows = vec![Row::new(
        ninety <= 2.0,
        "temperature foretold 60 s ahead, steady work, from 1 min on",
        format!("median {median:.1} K, 90 % within {ninety:.1} K; {:.0} % within 2 K", 100.0 * within),
        "90 % within ± 2 K",
    )];
    let halves: Vec<f32> = found.iter().filter_map(|f| f.1).collect();
    let good = halves.iter().filter(|h| h.abs() <= 0.25).count();
    let worst = found.iter().filter_map(|f| Some((f.1?, f.2))).max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()));
    let worst = worst.map_or(String::new(), |(h, c)| format!(", worst {:+.0} % in {}", 100.0 * h, c.words()));
    rows.push(Row::new(good == halves.len(), "time to throttle, at half of it", format!("{good} of {} within{worst}", halves.len()), "± 25 %"));
    rows
}

pub fn faults() -> Vec<Row> {
    let mut bad = Vec::new();
    let (mut slowest, mut back) = (0.0f32, 0.0f32);
    for load in [Load::Decode, Load::Prefill, Load::Voice] {
        for fault in &FAULTS {
            let seen = under_fault(load, fault);
            slowest = slowest.max(seen.until_stock_s);
            back = back.max(seen.until_back_s);
            if seen.until_stock_s > 10.0 || seen.until_back_s > 5.0 || seen.told != fault.blinds {
                bad.push(format!("{} in {}", fault.name, super::load_word(load)));
            }
        }
    }
    let figure = format!("{} faults × 3 loads: stock after {slowest:.0} s, back after {back:.0} s {}", FAULTS.len(), bad.join(", "));
    vec![Row::new(bad.is_empty(), "sensors that lie, hang or vanish", figure, "stock ≤ 10 s, back ≤ 5 s")]
}

/// CPU time of this thread for an hour of the slowest plant, stock and governed.
pub fn price() -> Vec<Row> {
    let cpu_s = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
    };
    let scenario = Scenario { minutes: 60.0, ..Scenario::new(Load::Voice, 30.0, 1) };
    let worst = Model::all().iter().map(|model| {
        let start = cpu_s();
        run(model, &scenario, &mut Governor::new(Policy { goal: Goal::Performance, prior: prior_of(model) }), &mut |_, _, _| ());
        let governed = cpu_s() - start;
        run(model, &scenario, &mut Constant::threads(model.soc.cores, model.soc.cores), &mut |_, _, _| ());
        (governed, cpu_s() - start - governed)
    }).fold((0.0f64, 0.0f64), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let figure = format!("{:.1} ms governed, {:.1} ms stock", 1000.0 * worst.0, 1000.0 * worst.1);
    vec![Row::new(worst.0 <= 0.05, "a simulated hour, slowest plant", figure, "≤ 50 ms of CPU")]
}
