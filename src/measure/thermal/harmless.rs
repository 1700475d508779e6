//! Nowhere worse than the board alone: speed ≥ -1 %, time to first token ≤ +3 %, never hotter by more than 1 K. Paired draws of
//! everything uncertain beside the plants as written; two naive governors must fail.

use super::{Cell, Difference, Row, Seeds, cells, spread};
use crate::governor::Goal;
use crate::governor::naive::{CeilingHolder, DutyCycler};
use crate::governor::profile::Throttle;
use crate::governor::simulate::{Load, Outcome, prior_of, run};
use rayon::prelude::*;

const SPEED_PERCENT: f32 = -1.0;
const TTFT_PERCENT: f32 = 3.0;
const HOTTER_C: f32 = 1.0;

pub fn is_harmless(d: &Difference) -> bool {
    d.speed >= SPEED_PERCENT && d.ttft <= TTFT_PERCENT && d.hotter_c <= HOTTER_C
}

/// A clock cap that holds every board 1.5 K (a skin 2.3 K) below its limit.
pub fn ceiling_holder(cell: &Cell, seed: u64) -> Outcome {
    let (limit, skin) = limit(cell);
    let below = if skin { 2.3 } else { 1.5 };
    let mut holder = CeilingHolder::new(prior_of(&cell.model), limit - below, skin);
    run(&cell.model, &cell.scenario(seed), &mut holder, &mut |_, _, _| ())
}

/// Rests at the limit until 5 K cooler.
pub fn duty_cycler(cell: &Cell, seed: u64) -> Outcome {
    let (limit, skin) = limit(cell);
    let mut cycler = DutyCycler::new(&prior_of(&cell.model), limit, skin);
    run(&cell.model, &cell.scenario(seed), &mut cycler, &mut |_, _, _| ())
}

/// Where the board's own mechanism sets in, and whether that is on its skin.
fn limit(cell: &Cell) -> (f32, bool) {
    match &cell.model.throttle {
        Throttle::Progressive { soft_c, .. } | Throttle::Ladder { soft_c, .. } => (*soft_c, false),
        Throttle::PowerAllocator { target_c, .. } => (*target_c, false),
        Throttle::StepWise { trip_c, .. } | Throttle::Cliff { trip_c, .. } => (*trip_c, false),
        Throttle::Skin { trip_c, .. } => (trip_c.iter().copied().find(|&t| t >= 42.0).unwrap_or(42.0), true),
    }
}

struct Judged {
    cell: Cell,
    base: Difference,
    draws: Vec<Difference>,
    holder: Difference,
    cycler: Difference,
}

/// One row a plant and load, its worst room in the figure; `every` prints each cell. Paired draws beside them.
pub fn rows(seeds: &Seeds, every: bool) -> Vec<Row> {
    let judged: Vec<Judged> = cells().into_par_iter().map(|cell| judge(cell, seeds)).collect();
    let mut rows = Vec::new();
    if every {
        rows.extend(judged.iter().map(|j| row(&j.cell.words(), &[j])));
    } else {
        for group in judged.chunk_by(|a, b| a.cell.model.name == b.cell.model.name) {
            for load in [Load::Decode, Load::Prefill, Load::Voice] {
                let of_load: Vec<&Judged> = group.iter().filter(|j| j.cell.load == load).collect();
                let name = group[0].cell.model.name.as_str();
                rows.push(row(&format!("not worse: {name} {}, three rooms", load.word()), &of_load));
            }
        }
    }
    for (name, pick) in [("ceiling holder", (|j| &j.holder) as fn(&Judged) -> &Difference), ("duty cycler", |j| &j.cycler)] {
        let failed = judged.iter().filter(|j| !is_harmless(pick(j))).count();
        let worst = judged.iter().min_by(|a, b| pick(a).speed.total_cmp(&pick(b).speed));
        let worst = worst.map_or(String::new(), |j| format!(", {:+.0} % in {}", pick(j).speed, j.cell.words()));
        rows.push(Row::new(
            failed >= 10,
            format!("the naive {name} fails this test"),
            format!("in {failed} of {} cells{worst}", judged.len()),
            "in ≥ 10 cells",
        ));
    }
    rows
}

fn judge(cell: Cell, seeds: &Seeds) -> Judged {
    let stock = cell.stock(seeds.first);
    let against = |with: &Outcome| Difference::between(with, &stock);
    let base = cell.compared(Goal::Performance, &stock, seeds.first);
    let holder = against(&ceiling_holder(&cell, seeds.first));
    let cycler = against(&duty_cycler(&cell, seeds.first));
    let draws = seeds.draws().map(|k| {
        let drawn = cell.draw(k);
        Difference::between(&drawn.governed(Goal::Performance, k), &drawn.stock(k))
    });
    Judged { base, holder, cycler, draws: draws.collect(), cell }
}

/// The worst of some cells. A draw counts by its 10 % (time and heat: 90 %) point.
fn row(name: &str, judged: &[&Judged]) -> Row {
    let mut speed = (f32::INFINITY, [0.0; 3]);
    let (mut ttft, mut hotter) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    let mut good = true;
    for j in judged {
        let of = |pick: fn(&Difference) -> f32| spread(j.draws.iter().map(pick).collect());
        let (s, t, h) = (of(|d| d.speed), of(|d| d.ttft), of(|d| d.hotter_c));
        let low = if j.draws.is_empty() { j.base.speed } else { j.base.speed.min(s[1]) };
        if low < speed.0 {
            speed = (low, [j.base.speed, s[1], s[2]]);
        }
        ttft = ttft.max(j.base.ttft).max(t[2]);
        hotter = hotter.max(j.base.hotter_c).max(h[2]);
        good &= is_harmless(&j.base) && (j.draws.is_empty() || s[1] >= SPEED_PERCENT && t[2] <= TTFT_PERCENT && h[2] <= HOTTER_C);
    }
    let [base, low, high] = speed.1;
    let voice = judged.iter().any(|j| j.cell.load == Load::Voice);
    let first = if voice { format!(", TTFT {ttft:+.1} %") } else { String::new() };
    let figure = format!("{base:+.1} [{low:+.1} … {high:+.1}] %{first}, {hotter:+.1} K");
    Row::new(good, name, figure, if voice { "≥ -1 %, TTFT ≤ +3 %, ≤ +1 K" } else { "≥ -1 %, ≤ +1 K" })
}
