//! A simulated board as a runner for the sustained measurement: decode on a plant, governed or left alone. Its figures are simulated.

use super::sustained::{Runner, Second};
use crate::governor::observation::{Aged, Observation, Phase};
use crate::governor::plant::speed::Work;
use crate::governor::plant::{GB_PER_TOKEN, Model, Plant, TICK_S};
use crate::governor::simulate::prior_of;
use crate::governor::{Goal, Policy, State, decide};
use crate::units::{Celsius, Hertz, Seconds};

pub struct SimulatedBoard {
    plant: Plant,
    policy: Policy,
    state: Option<State>,
    threads: u8,
    cap: Option<Hertz>,
}

impl SimulatedBoard {
    /// A plant in a room, cold, with the governor at `goal`.
    pub fn new(model: Model, ambient_c: f32, goal: Goal, seed: u64) -> SimulatedBoard {
        let policy = Policy { goal, prior: prior_of(&model) };
        let threads = model.soc.cores;
        SimulatedBoard { state: Some(State::new(&policy)), plant: Plant::new(model, ambient_c, seed), policy, threads, cap: None }
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
        let seen = Observation {
            dt: Seconds(1.0),
            soc: Some(Aged { value: Celsius(self.plant.reading_c()), age: Seconds(0.1) }),
            skin: self.plant.skin_c().map(|t| Aged { value: Celsius(t), age: Seconds(0.1) }),
            requested: Some(hertz(request)),
            measured: Some(Aged { value: hertz(self.plant.clock_mhz()), age: Seconds(0.1) }),
            phase: if work == Work::Idle { Phase::Idle } else { Phase::Decode },
            tokens,
            busy: Seconds(if work == Work::Idle { 0.0 } else { 1.0 }),
            threads: self.threads,
            may_cap: true,
            ..Observation::default()
        };
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, &seen);
        self.state = Some(state);
        (self.threads, self.cap) = (decision.decode.threads, decision.decode.cap);
        Second {
            tokens: tokens as f64,
            seconds: 1.0,
            celsius: Some(self.plant.reading_c() as f64),
            skin_celsius: self.plant.skin_c().map(f64::from),
            requested_mhz: Some(request as f64),
            measured_mhz: Some(self.plant.clock_mhz() as f64),
            throttled: if self.plant.is_throttling() { "thermal".into() } else { String::new() },
            watts: Some(joules as f64),
        }
    }
}

impl Runner for SimulatedBoard {
    type Error = std::convert::Infallible;

    fn work(&mut self) -> Result<Second, Self::Error> {
        Ok(self.second(Work::Decode))
    }

    fn rest(&mut self) -> Result<Second, Self::Error> {
        Ok(self.second(Work::Idle))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sustained::{Plan, judge, run};
    use super::*;

    const PLAN: Plan = Plan { cool_s: 600, run_s: 3600 };

    #[test]
    fn a_bare_pi_5_keeps_nine_tenths_of_its_peak_at_22_degrees() {
        let mut board = SimulatedBoard::new(Model::named("pi5-bare").unwrap(), 22.0, Goal::Observe, 1);
        let (cold, hot) = run(&mut board, PLAN, |_, _| ()).unwrap();
        let s = judge(&cold, &hot);
        assert!(s.steady && (s.ratio - 0.90).abs() < 0.02, "{s:?}");
        assert!(cold.len() < 200 && s.first_throttled_s.is_some_and(|t| t > 60));
    }

    #[test]
    fn two_runs_agree_within_two_percent() {
        let sustained = |seed| {
            let mut board = SimulatedBoard::new(Model::named("rk3588-bare").unwrap(), 25.0, Goal::Observe, seed);
            let (cold, hot) = run(&mut board, PLAN, |_, _| ()).unwrap();
            judge(&cold, &hot).sustained_tok_s
        };
        assert!((sustained(1) / sustained(2) - 1.0).abs() < 0.02);
    }
}
