//! What anybody can reach on a plant: exhaustive search over threads × clock, held constant from start to end. With all threads and one
//! less also clocks between two steps, played as their mean, since a governor may alternate between them.

use super::Cell;
use crate::governor::observation::{Limits, Observation};
use crate::governor::simulate::{Constant, Control, Outcome, Scenario, run};
use crate::units::Hertz;

/// Clocks between two neighbouring steps.
const BETWEEN: u8 = 4;

/// Alternates second by second between two clock steps, `share` of the time on the upper one.
struct Between {
    steps: [Limits; 2],
    share: f32,
    owed: f32,
}

impl Control for Between {
    fn step(&mut self, _: &Observation) -> [Limits; 2] {
        self.owed += self.share;
        let up = self.owed >= 1.0;
        self.owed -= f32::from(u8::from(up));
        [self.steps[usize::from(up)]; 2]
    }
}

/// Every constant setting on the clock's steps, as it would have run.
pub fn on_steps(cell: &Cell, scenario: &Scenario) -> Vec<Outcome> {
    let soc = &cell.model.soc;
    let settings = (1..=soc.cores).flat_map(|threads| soc.f_mhz.iter().map(move |&mhz| (threads, mhz)));
    settings.map(|(threads, mhz)| run(&cell.model, scenario, &mut Constant([limits(cell, threads, mhz); 2]), &mut |_, _, _| ())).collect()
}

/// And every one between them, with all threads or one less.
pub fn between_steps(cell: &Cell, scenario: &Scenario) -> Vec<Outcome> {
    let soc = &cell.model.soc;
    let mut outcomes = Vec::new();
    for threads in soc.cores.saturating_sub(1).max(1)..=soc.cores {
        for pair in soc.f_mhz.windows(2) {
            for i in 1..BETWEEN {
                let steps = [limits(cell, threads, pair[0]), limits(cell, threads, pair[1])];
                let mut between = Between { steps, share: i as f32 / BETWEEN as f32, owed: 0.0 };
                outcomes.push(run(&cell.model, scenario, &mut between, &mut |_, _, _| ()));
            }
        }
    }
    outcomes
}

/// All of them.
pub fn reachable(cell: &Cell, scenario: &Scenario) -> Vec<Outcome> {
    let mut all = on_steps(cell, scenario);
    all.extend(between_steps(cell, scenario));
    all
}

fn limits(cell: &Cell, threads: u8, mhz: f32) -> Limits {
    let free = mhz >= cell.model.soc.max_mhz();
    Limits { threads, cap: (!free).then_some(Hertz((mhz as f64 * 1e6) as u64)) }
}
