//! The governor as a whole: its promises on boards, and under every fault of a sensor. The full tables are `make thermal`'s.

use super::faults::{FAULTS, under_fault};
use super::observation::{Aged, Flags};
use super::plant::{Model, Plant};
use super::profile::Throttle;
use super::simulate::{Constant, Governor, Load, Outcome, Scenario, Second, follow, prior_of, run};
use super::*;
use crate::units::Hertz;

fn policy(model: &Model, goal: Goal) -> Policy {
    Policy { goal, prior: prior_of(model) }
}

fn governed(model: &Model, load: Load, ambient: f32) -> Outcome {
    let mut governor = Governor::new(policy(model, Goal::Performance));
    run(model, &Scenario::new(load, ambient, 1), &mut governor, &mut |_, _, _| ())
}

fn stock(model: &Model, load: Load, ambient: f32) -> Outcome {
    let n = model.soc.cores;
    run(model, &Scenario::new(load, ambient, 1), &mut Constant::threads(n, n), &mut |_, _, _| ())
}

#[test]
fn a_cliff_is_stayed_below_and_pays() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let (with, without) = (governed(&model, Load::Decode, 30.0), stock(&model, Load::Decode, 30.0));
    assert_eq!(with.mechanism, Mechanism::Cliff);
    assert!(with.speed > 1.08 * without.speed, "{} against {}", with.speed, without.speed);
    assert!(with.max_c <= without.max_c + 1.0);
}

#[test]
fn boards_that_throttle_well_are_left_alone() {
    for name in ["pi5-bare", "zero2w-case", "rk3588-bare", "h618-bare"] {
        let model = Model::named(name).unwrap();
        let mut caps = 0;
        let mut governor = Governor::new(policy(&model, Goal::Performance));
        let scenario = Scenario { minutes: 30.0, ..Scenario::new(Load::Decode, 30.0, 1) };
        let outcome = follow(&model, &scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
            caps += s.decision.map_or(0, |d| usize::from(d.decode.cap.is_some()));
        });
        assert_eq!(caps, 0, "{name}");
        assert_eq!(outcome.mechanism, Mechanism::Progressive, "{name}");
    }
}

#[test]
fn observe_caps_a_proven_cliff_and_nothing_else() {
    for (name, caps) in [("rk3588-cliff75", true), ("pi4-bare", false), ("rk3588-bare-stepwise", false)] {
        let model = Model::named(name).unwrap();
        let mut seen = false;
        let mut governor = Governor::new(policy(&model, Goal::Observe));
        let scenario = Scenario { minutes: 30.0, ..Scenario::new(Load::Decode, 30.0, 1) };
        follow(&model, &scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
            seen |= s.decision.is_some_and(|d| d.decode.cap.is_some());
        });
        assert_eq!(seen, caps, "{name}");
    }
}

#[test]
fn off_changes_nothing() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let mut governor = Governor::new(policy(&model, Goal::Off));
    let off = run(&model, &Scenario::new(Load::Decode, 30.0, 1), &mut governor, &mut |_, _, _| ());
    assert_eq!(off.speed, stock(&model, Load::Decode, 30.0).speed);
}

#[test]
fn every_fault_of_the_field_is_taken_as_what_it_is_in_every_phase() {
    for load in [Load::Decode, Load::Prefill, Load::Voice] {
        for fault in &FAULTS {
            let seen = under_fault(load, fault);
            assert!(seen.is_as(fault), "{} in {load:?}: wanted {:?}, {seen:?}", fault.name, fault.expect);
        }
    }
}

/// What was seen and decided in a run.
fn recorded(model: &Model, goal: Goal, scenario: &Scenario) -> Vec<(Observation, Decision)> {
    let mut governor = Governor::new(policy(model, goal));
    let mut ticks = Vec::new();
    follow(model, scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
        ticks.push((s.seen.clone(), s.decision.cloned().unwrap()));
    });
    ticks
}

#[test]
fn the_same_state_and_observation_give_the_same_decision() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let policy = policy(&model, Goal::Performance);
    let scenario = Scenario { minutes: 15.0, ..Scenario::new(Load::Voice, 32.0, 1) };
    let mut state = State::new(&policy);
    for (seen, _) in recorded(&model, Goal::Performance, &scenario) {
        let (once, twice) = (decide(&policy, state.clone(), &seen), decide(&policy, state, &seen));
        assert_eq!(once.1, twice.1);
        assert_eq!(format!("{:?}", once.0), format!("{:?}", twice.0));
        state = once.0;
    }
}

#[test]
fn caps_are_clock_steps_and_stand_five_seconds_before_they_rise() {
    for (name, ambient) in [("rk3588-cliff75", 30.0), ("pi4-bare", 30.0), ("phone-hardcliff", 25.0), ("pi5-active", 22.0)] {
        let model = Model::named(name).unwrap();
        let goal = if name == "pi5-active" { Goal::Eco } else { Goal::Performance };
        let ticks = recorded(&model, goal, &Scenario { minutes: 40.0, ..Scenario::new(Load::Decode, ambient, 1) });
        let full = model.soc.max_mhz();
        let clock = |d: &Decision| d.decode.cap.map_or(full, |c| c.megahertz());
        let (mut last, mut since, mut changes) = (full, 100, 0);
        for (i, (_, d)) in ticks.iter().enumerate() {
            let now = clock(d);
            let on_step = model.soc.f_mhz.iter().any(|f| (f - now).abs() < 1.0);
            assert!(on_step, "{name}: {now} MHz at {i} s is no step of the clock");
            if now != last {
                changes += 1;
                // Down is always allowed, and so is the first move of a hold and after the board let go; else the way back up waits.
                let lately = &ticks[i.saturating_sub(5)..=i];
                let held = lately.iter().all(|t| t.1.level == Level::Stay);
                let board = lately.iter().any(|t| t.0.flags.is_some_and(|f| f.thermal));
                assert!(now < last || since >= 4 || !held || board, "{name}: up after {since} s at {i} s");
                (last, since) = (now, 0);
            } else {
                since += 1;
            }
        }
        assert!(changes >= 4, "{name}: only {changes} changes");
    }
}

#[test]
fn levels_do_not_flap() {
    for (name, load) in
        [("pi5-bare", Load::Voice), ("pi4-bare", Load::Decode), ("rk3588-bare-stepwise", Load::Voice), ("rk3588-cliff75", Load::Decode)]
    {
        let ticks = recorded(&Model::named(name).unwrap(), Goal::Performance, &Scenario::new(load, 30.0, 1));
        let changes: Vec<usize> = (4..ticks.len()).filter(|&i| ticks[i].1.level != ticks[i - 1].1.level).collect();
        assert!(changes.windows(2).all(|w| w[1] - w[0] >= 5), "{name}: {changes:?}");
    }
}

#[test]
fn a_ladder_that_never_lets_go_is_broken_free_from_and_gains() {
    // At 30 °C this board rests on its third rung half a kelvin above where it would climb again.
    let model = Model::named("pi4-bare").unwrap();
    let ticks = recorded(&model, Goal::Performance, &Scenario { minutes: 20.0, ..Scenario::new(Load::Decode, 30.0, 1) });
    let alone = ticks.iter().filter(|t| t.1.cause == Cause::BreakingFree).count();
    assert!((1..60).contains(&alone), "{alone} s with one thread");
    let (with, without) = (governed(&model, Load::Decode, 30.0), stock(&model, Load::Decode, 30.0));
    assert!(with.speed >= 1.01 * without.speed, "{} against {}", with.speed, without.speed);
}

#[test]
fn a_trial_below_grades_waits_for_a_whole_swing_and_wins() {
    let model = Model::named("phone-graded").unwrap();
    let ticks = recorded(&model, Goal::Performance, &Scenario { minutes: 45.0, ..Scenario::new(Load::Decode, 25.0, 1) });
    let mhz = |i: usize| ticks[i].0.measured.map_or(0.0, |m| m.value.megahertz());
    let first = ticks.iter().position(|t| t.1.level == Level::Stay).expect("its grades lie far apart");
    let to = |i: usize| (mhz(i) < 0.95 * mhz(i - 1)).then(|| mhz(i));
    let falls: Vec<f32> = (1..first).filter_map(to).collect();
    assert!(falls.len() >= 2 && falls[falls.len() - 1] == falls[falls.len() - 2], "{falls:?}");
    let (with, without) = (governed(&model, Load::Decode, 25.0), stock(&model, Load::Decode, 25.0));
    assert!(with.speed > 1.015 * without.speed, "{} against {}", with.speed, without.speed);
}

#[test]
fn a_throttle_that_comes_late_is_not_missing() {
    // The die of this draw passes 110 °C before its skin has moved.
    let model = Model::named("phone-graded").unwrap().draw(2);
    let ticks = recorded(&model, Goal::Performance, &Scenario { minutes: 30.0, ..Scenario::new(Load::Prefill, 20.0, 2) });
    assert!(ticks.iter().any(|t| t.1.cause == Cause::OwnCeiling || t.1.mechanism == Mechanism::Missing));
    let last = &ticks[ticks.len() - 1].1;
    assert!(last.mechanism == Mechanism::Skin && last.cause != Cause::OwnCeiling, "{:?} {:?}", last.mechanism, last.cause);
}

#[test]
fn headroom_is_spent_when_a_noisy_sensor_trips_not_a_kelvin_later() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let scenario = Scenario { minutes: 50.0, pauses: vec![600.0..2100.0], ..Scenario::new(Load::Prefill, 30.0, 1) };
    let ticks = recorded(&model, Goal::Off, &scenario);
    let throttled = |i: &usize| ticks[*i].0.flags.is_some_and(|f| f.thermal);
    let again = (2100..ticks.len()).find(throttled).expect("it trips again");
    let before: Vec<f32> = ticks[again - 5..again].iter().filter_map(|t| t.1.headroom).collect();
    let mean = before.iter().sum::<f32>() / before.len() as f32;
    assert!((mean - 1.0).abs() < 0.015, "{mean} in the seconds before {again} s");
}

#[test]
fn a_cap_that_is_written_without_effect_is_given_up() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let mut governor = Governor::new(policy(&model, Goal::Performance));
    let mut causes = std::collections::BTreeSet::new();
    let scenario = Scenario { minutes: 20.0, may_cap: false, ..Scenario::new(Load::Decode, 30.0, 1) };
    // The board says that caps can be written; the scenario drops them.
    follow(&model, &scenario, &mut governor, &mut |_, _, seen| seen.may_cap = true, &mut |s: Second| {
        causes.extend(s.decision.map(|d| format!("{:?}", d.level)));
    });
    assert!(causes.contains("Stay") && causes.contains("Ride"), "{causes:?}");
}

#[test]
fn a_cap_that_never_returns_is_reported_as_stuck_and_recovers() {
    let model = Model::named("h618-bare").unwrap();
    let mut governor = Governor::new(policy(&model, Goal::Observe));
    let mut words = Vec::new();
    let mut stick = |t: f32, plant: &mut Plant, _: &mut Observation| plant.stick_cap((t < 120.0).then_some(480.0));
    let scenario = Scenario { minutes: 4.0, ..Scenario::new(Load::Decode, 5.0, 1) };
    follow(&model, &scenario, &mut governor, &mut stick, &mut |s: Second| words.extend(s.decision.map(|d| d.degraded)));
    assert_eq!(words[100], Degraded::StuckCap);
    assert_ne!(words[200], Degraded::StuckCap);
}

#[test]
fn a_board_without_a_throttle_is_held_below_95_degrees() {
    let mut model = Model::named("rk3588-bare").unwrap();
    model.throttle = Throttle::Cliff { trip_c: 500.0, hyst_c: 1.0, low_mhz: 408.0, poll_s: 1.0 };
    let mut governor = Governor::new(Policy { goal: Goal::Observe, prior: Prior { trip_c: None, ..prior_of(&model) } });
    let outcome = run(&model, &Scenario::new(Load::Decode, 30.0, 1), &mut governor, &mut |_, _, _| ());
    assert_eq!((outcome.mechanism, outcome.cause), (Mechanism::Missing, Cause::OwnCeiling));
    assert!(outcome.mean_c < 95.5 && stock(&model, Load::Decode, 30.0).mean_c > 100.0, "{}", outcome.mean_c);
}

#[test]
fn above_the_hard_ceiling_nothing_is_let_in_until_it_is_cooler() {
    let model = Model::named("pi5-bare").unwrap();
    let policy = policy(&model, Goal::Off);
    let mut state = State::new(&policy);
    let mut at = |t: f32| {
        let seen = Observation { dt: Seconds(1.0), soc: Some(Aged { value: Celsius(t), age: Seconds(0.1) }), ..Observation::default() };
        let (next, decision) = decide(&policy, state.clone(), &seen);
        state = next;
        decision.admission
    };
    assert_eq!(at(100.0), Admission::Open);
    assert_eq!(at(105.0), Admission::Stop);
    assert_eq!(at(101.0), Admission::Stop);
    assert_eq!(at(98.0), Admission::Open);
}

#[test]
fn under_voltage_is_its_own_fault_and_no_heat() {
    let model = Model::named("pi5-active").unwrap();
    let mut governor = Governor::new(policy(&model, Goal::Observe));
    let mut last = None;
    let scenario = Scenario { minutes: 5.0, ..Scenario::new(Load::Decode, 22.0, 1) };
    let mut sag = |_: f32, plant: &mut Plant, seen: &mut Observation| {
        plant.stick_cap(Some(1500.0));
        seen.flags = Some(Flags { under_voltage: true, ..Flags::default() });
    };
    follow(&model, &scenario, &mut governor, &mut sag, &mut |s: Second| last = s.decision.cloned());
    let last = last.unwrap();
    assert_eq!((last.degraded, last.level), (Degraded::UnderVoltage, Level::Free));
}

#[test]
fn a_trace_replays_to_the_same_decisions() {
    let model = Model::named("rk3588-cliff75").unwrap();
    let policy = policy(&model, Goal::Performance);
    let mut governor = Governor::new(policy.clone());
    let header = replay::Header { kind: "hearth-trace".into(), version: 1, source: "simulated".into(), board: model.name.clone(), policy };
    let mut lines = vec![serde_json::to_string(&header).unwrap()];
    let scenario = Scenario { minutes: 12.0, ..Scenario::new(Load::Voice, 35.0, 1) };
    follow(&model, &scenario, &mut governor, &mut |_, _, _| (), &mut |s: Second| {
        let tick = replay::Tick { seen: s.seen.clone(), decided: s.decision.cloned().unwrap() };
        lines.push(serde_json::to_string(&tick).unwrap());
    });
    let mut different = 0;
    replay::replay(&lines.join("\n"), |r| different += usize::from(r.recorded != r.decided)).unwrap();
    assert_eq!((different, lines.len()), (0, 721));
}

#[test]
fn what_comes_in_never_panics() {
    let model = Model::named("pi4-bare").unwrap();
    let policy = policy(&model, Goal::Eco);
    let mut noise = plant::noise::Noise::new(3);
    let mut state = State::new(&policy);
    let odd = [0.0, -1.0, 1e30, f32::NAN, f32::INFINITY, 55.0];
    for i in 0..20_000usize {
        let mut pick = || odd[noise.bits() as usize % odd.len()];
        let seen = Observation {
            dt: Seconds(pick() as f64),
            soc: (i % 3 > 0).then(|| Aged { value: Celsius(pick()), age: Seconds(pick() as f64) }),
            skin: (i % 5 == 0).then(|| Aged { value: Celsius(pick()), age: Seconds(pick() as f64) }),
            measured: (i % 2 == 0).then(|| Aged { value: Hertz(pick() as u64), age: Seconds(0.0) }),
            tokens: pick(),
            busy: Seconds(pick() as f64),
            phase: [Phase::Idle, Phase::Prefill, Phase::Decode][i % 7 % 3],
            threads: (i % 256) as u8,
            memory_pressure: pick(),
            may_cap: i % 4 > 0,
            resumed: i % 97 == 0,
            ..Observation::default()
        };
        let (next, d) = decide(&policy, state, &seen);
        state = next;
        assert!((1..=4).contains(&d.decode.threads), "{}", d.decode.threads);
        assert!(d.decode.cap.is_none_or(|c| (600e6 as u64..1_800_000_000).contains(&c.0)));
    }
}

/// A phone whose skin and grade are told, second by second, under answers alone or in turn with prompts and silence.
struct Phone {
    policy: Policy,
    state: State,
    second: usize,
    last: Option<Decision>,
}

impl Phone {
    const FULL_MHZ: f32 = 2100.0;

    fn new() -> Phone {
        let prior = Prior::unknown(4, vec![600.0, 1100.0, 1500.0, 1700.0, 1800.0, 1900.0, 2000.0, Phone::FULL_MHZ]);
        let policy = Policy { goal: Goal::Performance, prior };
        Phone { state: State::new(&policy), policy, second: 0, last: None }
    }

    /// So many seconds at a grade of the board's, the skin on its way between two temperatures.
    fn run(&mut self, seconds: usize, in_turns: bool, grade_mhz: f32, skin: [f32; 2]) {
        for i in 0..seconds {
            let skin_c = skin[0] + (skin[1] - skin[0]) * i as f32 / seconds as f32;
            let phase = match self.second % 40 {
                0..10 if in_turns => Phase::Prefill,
                34..40 if in_turns => Phase::Idle,
                _ => Phase::Decode,
            };
            self.tick(phase, grade_mhz, skin_c);
        }
    }

    fn tick(&mut self, phase: Phase, grade_mhz: f32, skin_c: f32) {
        let limits = self.last.as_ref().map(|d| if phase == Phase::Prefill { d.prefill } else { d.decode });
        let request_mhz = limits.and_then(|l| l.cap).map_or(Phone::FULL_MHZ, |cap| cap.megahertz());
        let threads = limits.map_or(4, |l| l.threads);
        let is_busy = phase != Phase::Idle;
        let mhz = if is_busy { request_mhz.min(grade_mhz) } else { 600.0 };
        let rate = [0.1, 0.01][usize::from(phase == Phase::Decode)] * mhz * f32::from(threads) / 4.0;
        let hertz = |mhz: f32| Hertz((mhz * 1e6) as u64);
        let seen = Observation {
            dt: Seconds(1.0),
            soc: Some(Aged { value: Celsius(60.0 + 0.5 * (self.second % 2) as f32), age: Seconds(0.1) }),
            skin: Some(Aged { value: Celsius(skin_c), age: Seconds(0.1) }),
            requested: Some(hertz(request_mhz)),
            measured: Some(Aged { value: hertz(mhz), age: Seconds(0.1) }),
            phase,
            tokens: if is_busy { rate } else { 0.0 },
            busy: Seconds(f64::from(u8::from(is_busy))),
            threads,
            may_cap: true,
            ..Observation::default()
        };
        let (state, decision) = decide(&self.policy, self.state.clone(), &seen);
        (self.state, self.last) = (state, Some(decision));
        self.second += 1;
    }

    fn holds(&self) -> bool {
        matches!(self.state.mode, Mode::Stay { .. })
    }

    fn is_on_trial(&self) -> bool {
        matches!(self.state.mode, Mode::Stay { on_trial: true, .. })
    }

    /// Held below the second of two grades, in turns, and on trial.
    fn held() -> Phone {
        let mut phone = Phone::new();
        phone.run(400, false, Phone::FULL_MHZ, [40.0, 42.5]);
        phone.run(100, false, 1900.0, [42.5, 43.5]);
        phone.run(100, false, 1700.0, [43.5, 42.6]);
        phone.run(300, true, 1900.0, [42.6, 42.6]);
        phone.run(100, true, 1900.0, [42.6, 43.4]);
        assert!(!phone.holds(), "what was seen of the swing was another load's");
        phone.run(100, true, 1700.0, [43.5, 42.6]);
        phone.run(100, true, 1900.0, [42.6, 43.3]);
        assert!(phone.is_on_trial(), "{:?}", phone.last);
        phone
    }
}

#[test]
fn a_hold_below_grades_in_turns_is_judged_where_the_fall_before_it_was_the_first() {
    let mut phone = Phone::new();
    // The fall comes in the middle of an answer.
    phone.run(620, true, Phone::FULL_MHZ, [40.0, 43.5]);
    phone.run(120, true, 1700.0, [43.5, 42.5]);
    phone.run(60, true, Phone::FULL_MHZ, [42.5, 43.3]);
    assert!(phone.is_on_trial(), "{:?}", phone.last);
    phone.run(1600, true, Phone::FULL_MHZ, [43.3, 43.3]);
    assert!(!phone.is_on_trial());
}

#[test]
fn a_hold_below_grades_in_turns_waits_for_a_fall_under_turns_and_is_judged() {
    let mut phone = Phone::held();
    phone.run(1600, true, 1900.0, [43.3, 43.3]);
    assert!(!phone.is_on_trial());
}

#[test]
fn a_hold_of_choice_ends_with_the_goal_that_chose_it_and_may_come_back_with_it() {
    let mut phone = Phone::held();
    phone.run(40, true, 1900.0, [43.4, 43.4]);
    let below = |d: &Decision, mhz: f32| [d.prefill, d.decode].map(|l| l.cap.is_some_and(|cap| cap.megahertz() < mhz));
    assert!(phone.last.as_ref().is_some_and(|d| below(d, 1900.0) == [false, true]), "{:?}", phone.last);
    phone.policy.goal = Goal::Observe;
    phone.run(1, true, 1900.0, [43.3, 43.3]);
    assert!(!phone.holds());
    assert!(phone.last.as_ref().is_some_and(|d| below(d, 1900.0) == [false; 2]), "prompts were not slowed before: {:?}", phone.last);
    phone.run(100, true, 1900.0, [43.3, 43.3]);
    assert!(phone.last.as_ref().is_some_and(|d| d.decode.cap.is_none() && d.prefill.cap.is_none()), "{:?}", phone.last);
    phone.policy.goal = Goal::Performance;
    phone.run(100, true, 1700.0, [43.5, 42.6]);
    phone.run(100, true, 1900.0, [42.6, 43.3]);
    assert!(phone.holds());
}
