//! A simulated board as a runner for the sustained measurement: decode on a plant, governed or left alone. Its figures are simulated.

use super::series::Second;
use super::sustained::Runner;
use super::versus::Governed;
use crate::governor::observation::{Aged, Observation, Phase};
use crate::governor::plant::speed::Work;
use crate::governor::plant::{GB_PER_TOKEN, Model, Plant, TICK_S};
use crate::governor::simulate::prior_of;
use crate::governor::{Goal, Policy, State, decide};
use crate::units::{Celsius, Hertz, Seconds};
use std::convert::Infallible;

pub struct SimulatedBoard {
    plant: Plant,
    policy: Policy,
    state: Option<State>,
    room_c: f32,
    threads: u8,
    cap: Option<Hertz>,
}

impl SimulatedBoard {
    /// A plant in a room, cold, with the governor at `goal`.
    pub fn new(model: Model, ambient_c: f32, goal: Goal, seed: u64) -> SimulatedBoard {
        let policy = Policy { goal, prior: prior_of(&model) };
        let threads = model.soc.cores;
        SimulatedBoard { state: None, plant: Plant::new(model, ambient_c, seed), policy, room_c: ambient_c, threads, cap: None }
    }

    fn second(&mut self, work: Work) -> Second {
        let max = self.plant.model().soc.max_mhz();
        let request = self.cap.map_or(max, |f| f.megahertz());
        let ticks = (1.0 / TICK_S).round() as usize;
        let (mut gigabytes, mut joules) = (0.0, 0.0);
        for _ in 0..ticks {
            let done = self.plant.tick(work, self.threads, request);
            gigabytes += done.rate * TICK_S;
            joules += done.input_w * TICK_S;
        }
        let tokens = gigabytes / GB_PER_TOKEN;
        let hertz = |mhz: f32| Hertz((mhz as f64 * 1e6) as u64);
        let busy = if work == Work::Idle { 0.0 } else { 1.0 };
        let threads = self.threads;
        let seen = Observation {
            dt: Seconds(1.0),
            soc: Some(Aged { value: Celsius(self.plant.reading_c()), age: Seconds(0.1) }),
            skin: self.plant.skin_c().map(|t| Aged { value: Celsius(t), age: Seconds(0.1) }),
            requested: Some(hertz(request)),
            measured: Some(Aged { value: hertz(self.plant.clock_mhz()), age: Seconds(0.1) }),
            phase: if work == Work::Idle { Phase::Idle } else { Phase::Decode },
            tokens,
            busy: Seconds(busy),
            threads,
            may_cap: true,
            ..Observation::default()
        };
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, &seen);
        self.state = Some(state);
        (self.threads, self.cap) = (decision.decode.threads, decision.decode.cap);
        Second {
            tokens: tokens as f64,
            seconds: busy,
            celsius: Some(self.plant.reading_c() as f64),
            skin_celsius: self.plant.skin_c().map(f64::from),
            room_celsius: Some(self.room_c as f64),
            requested_mhz: Some(request as f64),
            measured_mhz: Some(self.plant.clock_mhz() as f64),
            throttled: if self.plant.is_throttling() { "thermal".into() } else { String::new() },
            watts: Some(joules as f64),
            threads: Some(threads),
            // The plant knows rates, not single tokens.
            token_ms: Vec::new(),
        }
    }
}

impl Runner for SimulatedBoard {
    type Error = Infallible;

    fn work(&mut self, done: &mut Vec<Second>) -> Result<(), Infallible> {
        done.push(self.second(Work::Decode));
        Ok(())
    }

    fn rest(&mut self) -> Result<Second, Infallible> {
        Ok(self.second(Work::Idle))
    }
}

impl Governed for SimulatedBoard {
    type Setting = Goal;

    fn govern(&mut self, goal: Goal) {
        self.policy.goal = goal;
        self.state = None;
        (self.threads, self.cap) = (self.plant.model().soc.cores, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::sustained::{Plan, judge, run};
    use super::super::versus::{self, Legs};
    use super::*;

    const PLAN: Plan = Plan { cool_s: 1200, run_s: 3600 };

    #[test]
    fn a_bare_pi_5_keeps_nine_tenths_of_its_peak_at_22_degrees() {
        let mut board = SimulatedBoard::new(Model::named("pi5-bare").unwrap(), 22.0, Goal::Observe, 1);
        let (cold, hot) = run(&mut board, PLAN, |_, _, _| ()).unwrap();
        let s = judge(&cold, &hot);
        assert!(s.steady && (s.ratio - 0.90).abs() < 0.02, "{s:?}");
        assert!(cold.len() < 600 && s.first_throttled_s.is_some_and(|t| t > 60));
    }

    #[test]
    fn two_runs_agree_within_two_percent() {
        let sustained = |seed| {
            let mut board = SimulatedBoard::new(Model::named("rk3588-bare").unwrap(), 25.0, Goal::Observe, seed);
            let (cold, hot) = run(&mut board, PLAN, |_, _, _| ()).unwrap();
            judge(&cold, &hot).sustained_tok_s
        };
        assert!((sustained(1) / sustained(2) - 1.0).abs() < 0.02);
    }

    #[test]
    fn legs_in_turn_show_what_a_governor_wins_below_a_cliff_and_that_observing_costs_nothing() {
        let against_off = |plant: &str, goal| {
            let mut board = SimulatedBoard::new(Model::named(plant).unwrap(), 30.0, Goal::Off, 1);
            let Ok((versus, series)) = versus::run(&mut board, [Goal::Off, goal], Legs { leg_s: 1800, cool_s: 3600 }, |_, _, _, _| ());
            assert!(versus.pairs.iter().all(|p| p.rejected.is_empty()) && series.iter().all(|(_, leg)| leg.len() == 1800), "{versus:?}");
            versus
        };
        let cliff = against_off("rk3588-cliff75", Goal::Performance);
        assert!(cliff.speed.unwrap().low > 0.05, "{:?}", cliff.speed);
        let bare = against_off("pi5-bare", Goal::Observe);
        assert_eq!(bare.not_worse, Some(true), "{:?}", bare.speed);
    }
}
