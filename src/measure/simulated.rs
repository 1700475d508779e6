//! A simulated board as a runner for the sustained measurement: a load on a plant, governed or left alone. Its figures are simulated.

use super::load::{Load, Turn};
use super::series::Second;
use super::sustained::Runner;
use super::versus::Governed;
use crate::governor::observation::{Aged, Limits, Observation, Phase};
use crate::governor::plant::speed::Work;
use crate::governor::plant::{GB_PER_TOKEN, Model, Plant, TICK_S};
use crate::governor::simulate::{Course, PREFILL_TOKENS_S, TURN_S, prior_of};
use crate::governor::{Goal, Policy, State, decide};
use crate::units::{Celsius, Hertz, Seconds};
use std::convert::Infallible;

pub struct SimulatedBoard {
    plant: Plant,
    load: Load,
    /// Where in its turn the load is; `None` at rest.
    course: Option<Course>,
    policy: Policy,
    state: Option<State>,
    room_c: f32,
    /// For prefill and decode.
    limits: [Limits; 2],
}

/// What a second did of one phase.
#[derive(Clone, Copy, Default)]
struct Part {
    seconds: f64,
    /// In the unit of the phase's [`Work`].
    work: f64,
}

impl SimulatedBoard {
    /// A plant in a room, cold, with the governor at `goal`.
    pub fn new(model: Model, load: Load, ambient_c: f32, goal: Goal, seed: u64) -> SimulatedBoard {
        let policy = Policy { goal, prior: prior_of(&model) };
        let limits = all_cores(&model);
        SimulatedBoard { state: None, plant: Plant::new(model, ambient_c, seed), load, course: None, policy, room_c: ambient_c, limits }
    }

    /// The turn of its load: so long that it takes the simulator's times at peak speed.
    pub fn turn(&self) -> Turn {
        let answer = TURN_S[1] * self.plant.model().peak(Work::Decode) / GB_PER_TOKEN;
        let tokens = |tokens: f32| Some(tokens.round() as usize);
        match self.load {
            Load::Voice => Turn::of(Load::Voice, tokens(TURN_S[0] * PREFILL_TOKENS_S), tokens(answer)),
            load => Turn::of(load, None, None),
        }
    }

    fn second(&mut self) -> Second {
        let model = self.plant.model();
        let (max, peak) = (model.soc.max_mhz(), [model.peak(Work::Prefill), model.peak(Work::Decode)]);
        let ticks = (1.0 / TICK_S).round() as usize;
        let (mut parts, mut joules) = ([Part::default(); 3], 0.0);
        let mut ended = Vec::new();
        for _ in 0..ticks {
            let phase = self.course.as_ref().map_or(Phase::Idle, Course::phase);
            let lever = self.lever(phase);
            let work = [Work::Idle, Work::Prefill, Work::Decode][phase as usize];
            let done = self.plant.tick(work, lever.threads, lever.cap.map_or(max, |f| f.megahertz()));
            let part = &mut parts[phase as usize];
            (part.seconds, part.work) = (part.seconds + f64::from(TICK_S), part.work + f64::from(done.rate * TICK_S));
            joules += f64::from(done.input_w * TICK_S);
            ended.extend(self.course.as_mut().and_then(|course| course.advance(done.rate, false)));
        }
        let [_, prompt, answer] = parts;
        let prompt_tokens = prompt.work * f64::from(PREFILL_TOKENS_S / peak[0]);
        let answer_tokens = answer.work / f64::from(GB_PER_TOKEN);
        let phase = [Phase::Idle, Phase::Prefill, Phase::Decode]
            .into_iter()
            .max_by(|a, b| parts[*a as usize].seconds.total_cmp(&parts[*b as usize].seconds))
            .unwrap_or_default();
        let lever = self.lever(phase);
        let request = lever.cap.map_or(max, |f| f.megahertz());
        let (tokens, busy) = match phase {
            Phase::Idle => (0.0, 0.0),
            Phase::Prefill => (prompt_tokens, prompt.seconds),
            Phase::Decode => (answer_tokens, answer.seconds),
        };
        let hertz = |mhz: f32| Hertz((mhz as f64 * 1e6) as u64);
        let seen = Observation {
            dt: Seconds(1.0),
            soc: Some(Aged { value: Celsius(self.plant.reading_c()), age: Seconds(0.1) }),
            skin: self.plant.skin_c().map(|t| Aged { value: Celsius(t), age: Seconds(0.1) }),
            requested: Some(hertz(request)),
            measured: Some(Aged { value: hertz(self.plant.clock_mhz()), age: Seconds(0.1) }),
            phase,
            remaining: self.course.as_ref().and_then(Course::prefill_left_s),
            tokens: tokens as f32,
            busy: Seconds(busy),
            threads: lever.threads,
            may_cap: true,
            ..Observation::default()
        };
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, &seen);
        self.state = Some(state);
        self.limits = [decision.prefill, decision.decode];
        // Under the prefill load the prompts are what counts.
        let (counted, before) = if self.load == Load::Prefill { (prompt, Part::default()) } else { (answer, prompt) };
        Second {
            tokens: if self.load == Load::Prefill { prompt_tokens } else { answer_tokens },
            seconds: counted.seconds,
            prompt_tokens: if self.load == Load::Prefill { 0.0 } else { prompt_tokens },
            prompt_seconds: before.seconds,
            celsius: Some(f64::from(self.plant.reading_c())),
            skin_celsius: self.plant.skin_c().map(f64::from),
            room_celsius: Some(f64::from(self.room_c)),
            requested_mhz: Some(f64::from(request)),
            measured_mhz: Some(f64::from(self.plant.clock_mhz())),
            throttled: if self.plant.is_throttling() { "thermal".into() } else { String::new() },
            watts: Some(joules),
            threads: Some(lever.threads),
            first_token_ms: ended.iter().map(|(first_s, _)| first_s * 1000.0).collect(),
            turn_s: ended.into_iter().map(|(_, turn_s)| turn_s).collect(),
            // Nobody else lives there, and the plant knows rates, not single tokens.
            ..Second::default()
        }
    }

    fn lever(&self, phase: Phase) -> Limits {
        self.limits[usize::from(phase != Phase::Prefill)]
    }
}

fn all_cores(model: &Model) -> [Limits; 2] {
    [Limits { threads: model.soc.cores, cap: None }; 2]
}

impl Runner for SimulatedBoard {
    type Error = Infallible;

    fn work(&mut self, done: &mut Vec<Second>) -> Result<(), Infallible> {
        if self.course.is_none() {
            let model = self.plant.model();
            self.course = Some(Course::new(self.load, [model.peak(Work::Prefill), model.peak(Work::Decode)]));
        }
        done.push(self.second());
        Ok(())
    }

    fn rest(&mut self) -> Result<Second, Infallible> {
        self.course = None;
        Ok(self.second())
    }
}

impl Governed for SimulatedBoard {
    type Setting = Goal;

    fn govern(&mut self, goal: Goal) {
        self.policy.goal = goal;
        self.state = None;
        self.limits = all_cores(self.plant.model());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sustained::{Plan, judge, run};
    use super::super::versus::{self, Legs};
    use super::*;
    use std::ops::ControlFlow;

    const PLAN: Plan = Plan { cool_s: 1200, run_s: 3600 };

    #[test]
    fn a_bare_pi_5_keeps_nine_tenths_of_its_peak_at_22_degrees() {
        let mut board = SimulatedBoard::new(Model::named("pi5-bare").unwrap(), Load::Decode, 22.0, Goal::Observe, 1);
        let (cold, hot) = run(&mut board, PLAN, |_, _, _| ControlFlow::Continue(())).unwrap();
        let s = judge(&cold, &hot);
        assert!(s.steady && (s.ratio - 0.90).abs() < 0.02, "{s:?}");
        assert!(cold.len() < 600 && s.first_throttled_s.is_some_and(|t| t > 60));
    }

    #[test]
    fn a_run_that_is_cut_short_keeps_its_seconds_and_is_never_called_steady() {
        let model = Model::named("pi5-bare").unwrap();
        let mut board = SimulatedBoard::new(model, Load::Decode, 22.0, Goal::Off, 1);
        let until = |seconds: usize| {
            move |_: &mut SimulatedBoard, so_far: &[Second], is_work: bool| {
                if is_work && so_far.len() >= seconds { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        };
        let (cold, hot) = run(&mut board, PLAN, until(100)).unwrap();
        let figures = judge(&cold, &hot).cut_short("after 100 s");
        assert_eq!((hot.len(), figures.run_s, figures.steady, figures.cut_short), (100, 100, false, true));
        assert!(figures.unsteady_because.starts_with("cut short by a signal after 100 s; "), "{}", figures.unsteady_because);
        // Not even a run that would have passed, had it ended by itself a moment later.
        let (cold, hot) = run(&mut board, PLAN, |_, _, _| ControlFlow::Continue(())).unwrap();
        assert!(judge(&cold, &hot).steady && !judge(&cold, &hot).cut_short("at the end").steady);
    }

    #[test]
    fn legs_that_are_cut_short_keep_those_that_are_whole() {
        let cut_in = |leg: usize| {
            let model = Model::named("pi5-bare").unwrap();
            let mut board = SimulatedBoard::new(model, Load::Decode, 22.0, Goal::Off, 1);
            let tell = |_: &mut SimulatedBoard, number: usize, so_far: &[Second], is_work: bool| {
                if number == leg && is_work && so_far.len() >= 50 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let legs = Legs { leg_s: 300, cool_s: 600 };
            let Ok((versus, series)) = versus::run(&mut board, [Goal::Off, Goal::Observe], legs, tell);
            (versus, series)
        };
        let (versus, series) = cut_in(5);
        assert_eq!((versus.legs.len(), versus.pairs.len(), series.len(), series[5].1.len()), (5, 2, 6, 50));
        assert_eq!(versus.not_worse, None, "five legs do not cancel a room that warms");
        assert!(versus.unchecked.iter().any(|u| u.contains("only 5 of 8 legs")), "{:?}", versus.unchecked);
        let (versus, series) = cut_in(0);
        assert_eq!((versus.legs.len(), versus.speed, series.len()), (0, None, 1));
    }

    #[test]
    fn two_runs_agree_within_two_percent() {
        let sustained = |seed| {
            let mut board = SimulatedBoard::new(Model::named("rk3588-bare").unwrap(), Load::Decode, 25.0, Goal::Observe, seed);
            let (cold, hot) = run(&mut board, PLAN, |_, _, _| ControlFlow::Continue(())).unwrap();
            judge(&cold, &hot).sustained_tok_s
        };
        assert!((sustained(1) / sustained(2) - 1.0).abs() < 0.02);
    }

    #[test]
    fn legs_in_turn_show_what_a_governor_wins_below_a_cliff_and_that_observing_costs_nothing() {
        let against_off = |plant: &str, goal| {
            let mut board = SimulatedBoard::new(Model::named(plant).unwrap(), Load::Decode, 30.0, Goal::Off, 1);
            let Ok((versus, series)) =
                versus::run(&mut board, [Goal::Off, goal], Legs { leg_s: 1800, cool_s: 3600 }, |_, _, _, _| ControlFlow::Continue(()));
            assert!(versus.pairs.iter().all(|p| p.rejected.is_empty()) && series.iter().all(|(_, leg)| leg.len() == 1800), "{versus:?}");
            versus
        };
        let cliff = against_off("rk3588-cliff75", Goal::Performance);
        assert!(cliff.speed.unwrap().low > 0.05, "{:?}", cliff.speed);
        let bare = against_off("pi5-bare", Goal::Observe);
        assert_eq!(bare.not_worse, Some(true), "{:?}", bare.speed);
    }

    #[test]
    fn a_mixed_load_has_turns_whose_first_token_comes_later_when_the_board_is_hot() {
        let mut board = SimulatedBoard::new(Model::named("rk3588-bare-stepwise").unwrap(), Load::Voice, 22.0, Goal::Off, 1);
        let turn = board.turn();
        let (cold, hot) = run(&mut board, PLAN, |_, _, _| ControlFlow::Continue(())).unwrap();
        let s = judge(&cold, &hot);
        let turns = s.turns.clone().unwrap();
        // Cold, a turn takes the simulator's 5 + 12 + 8 s.
        assert!((turns.first_token_ms_at_first - 5000.0).abs() < 300.0 && turns.first_token_ms.p50 > 5500.0, "{turns:?}");
        assert!(turns.turn_s > 26.0 && turns.first_token_ms.p95 >= turns.first_token_ms.p50, "{turns:?}");
        // What was generated is what turns of that length generate.
        let tokens: f64 = hot.iter().map(|s| s.tokens).sum();
        let ended = hot.iter().map(|s| s.turn_s.len()).sum::<usize>() as f64;
        assert!((tokens / ended / turn.answer_tokens as f64 - 1.0).abs() < 0.05, "{tokens} tokens in {ended} turns of {turn:?}");
        assert!(s.ratio < 0.95 && s.joules_per_token.unwrap() > 0.0);
    }

    #[test]
    fn prompts_alone_are_counted_as_tokens() {
        let mut board = SimulatedBoard::new(Model::named("pi5-bare").unwrap(), Load::Prefill, 22.0, Goal::Off, 1);
        let (cold, hot) = run(&mut board, PLAN, |_, _, _| ControlFlow::Continue(())).unwrap();
        let s = judge(&cold, &hot);
        assert!(s.steady && (s.peak_tok_s - 100.0).abs() < 2.0 && (s.ratio - 0.62).abs() < 0.03 && s.turns.is_none(), "{s:?}");
    }
}
