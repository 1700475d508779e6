//! The closed loop on virtual time: a load runs on a [`Plant`], somebody holds the levers, and the figures of the last minutes come out.
//! Figures from here are simulated and say so wherever they are printed.

use super::observation::{Aged, Decision, Flags, Limits, Observation, Phase};
use super::plant::speed::Work;
use super::plant::{GB_PER_TOKEN, Model, Plant, TICK_S};
use super::policy::{KernelPolicy, Policy, Prior};
use super::profile::{Profile, Throttle};
use super::{Cause, Level, Mechanism, State, decide};
use crate::units::{Celsius, Hertz, Seconds};
use serde::{Deserialize, Serialize};

/// Noise of a measured rate, rms of one second (assumed).
const RATE_NOISE: f32 = 0.01;
/// A voice turn at peak speed: prompt, answer, silence.
pub const TURN_S: [f32; 3] = [5.0, 12.0, 8.0];
/// Prefill tokens per second at peak, only to give prompts a length.
pub const PREFILL_TOKENS_S: f32 = 100.0;

/// What the board is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    Decode,
    Prefill,
    /// Turns of prompt, answer and silence.
    Voice,
}

impl Load {
    /// Its name wherever people see it.
    pub fn word(self) -> &'static str {
        match self {
            Load::Decode => "decode",
            Load::Prefill => "prefill",
            Load::Voice => "voice",
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub ambient_c: f32,
    pub load: Load,
    pub minutes: f32,
    /// Figures are of the last part of the run.
    pub window_minutes: f32,
    pub seed: u64,
    /// Whether a clock cap can be written.
    pub may_cap: bool,
    /// Nothing is asked of the board in these seconds of the run.
    pub pauses: Vec<std::ops::Range<f32>>,
}

impl Scenario {
    /// 45 min, the last 15 counted.
    pub fn new(load: Load, ambient_c: f32, seed: u64) -> Scenario {
        Scenario { ambient_c, load, minutes: 45.0, window_minutes: 15.0, seed, may_cap: true, pauses: Vec::new() }
    }
}

/// Who holds the levers.
pub trait Control {
    /// Limits for prefill and decode until the next second.
    fn step(&mut self, seen: &Observation) -> [Limits; 2];
    /// Whether the engine rests for the next second.
    fn rests(&self) -> bool {
        false
    }
    /// What the governor decided last, where one decides.
    fn decision(&self) -> Option<&Decision> {
        None
    }
}

/// Constant settings; with all cores and no cap this is the board's own mechanism alone.
#[derive(Clone, Copy, Debug)]
pub struct Constant(pub [Limits; 2]);

impl Constant {
    pub fn threads(prefill: u8, decode: u8) -> Constant {
        Constant([prefill, decode].map(|threads| Limits { threads, cap: None }))
    }
}

impl Control for Constant {
    fn step(&mut self, _: &Observation) -> [Limits; 2] {
        self.0
    }
}

/// The governor in the loop.
pub struct Governor {
    policy: Policy,
    state: Option<State>,
    decision: Option<Decision>,
}

impl Governor {
    pub fn new(policy: Policy) -> Governor {
        Governor { state: Some(State::new(&policy)), policy, decision: None }
    }
}

impl Control for Governor {
    fn step(&mut self, seen: &Observation) -> [Limits; 2] {
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = decide(&self.policy, state, seen);
        self.state = Some(state);
        let limits = [decision.prefill, decision.decode];
        self.decision = Some(decision);
        limits
    }
    fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }
}

/// What one second looked like, for whoever follows a run.
pub struct Second<'a> {
    pub at_s: f32,
    pub plant: &'a Plant,
    pub seen: &'a Observation,
    pub decision: Option<&'a Decision>,
    pub input_w: f32,
}

/// Figures of the counted part of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Tokens per second of wall-clock time (decode: of the reference model; prefill and voice: in work units).
    pub speed: f32,
    /// `speed` as a share of the peak with all cores at full clock.
    pub share: f32,
    /// Voice: seconds to the first token, and of a whole turn with its silence; means.
    pub ttft_s: f32,
    pub turn_s: f32,
    /// J per token, or per turn in a mixed load.
    pub joules: f32,
    pub mean_c: f32,
    /// Highest mean of ten seconds in the whole run, of the zone that the board's own mechanism looks at.
    pub max_c: f32,
    pub mean_mhz: f32,
    /// Share of the time in which the board's own mechanism took clock away.
    pub throttled: f32,
    pub mechanism: Mechanism,
    pub level: Level,
    pub cause: Cause,
    /// Seconds from the first throttling to the verdict that stood at the end.
    pub verdict_after_s: f32,
}

/// What the governor would know of this board before it starts: profile without cooling, and the kernel's word. A board with a cliff
/// claims to be well governed, as the one in the logs does.
pub fn prior_of(model: &Model) -> Prior {
    let profile = Profile::all().into_iter().find(|p| model.name.starts_with(&format!("{}-", p.id)));
    let (kernel, trip, critical) = match &model.throttle {
        Throttle::PowerAllocator { target_c, .. } => (KernelPolicy::PowerAllocator, Some(*target_c), Some(115.0)),
        Throttle::StepWise { trip_c, .. } => (KernelPolicy::StepWise, Some(*trip_c), Some(trip_c + 15.0)),
        Throttle::Cliff { .. } => (KernelPolicy::PowerAllocator, Some(85.0), Some(115.0)),
        Throttle::Skin { .. } => (KernelPolicy::NotTheKernel, None, None),
        Throttle::Progressive { .. } | Throttle::Ladder { .. } => (KernelPolicy::NotTheKernel, None, Some(110.0)),
    };
    match profile {
        Some(p) => {
            let mut prior = Prior::of(&p, kernel, trip, critical);
            let keep = prior.steps_mhz.partition_point(|&f| f <= model.soc.max_mhz() + 0.5);
            prior.steps_mhz.truncate(keep);
            prior.volts.truncate(keep);
            prior
        }
        None => Prior::unknown(model.soc.cores, model.soc.f_mhz.clone()),
    }
}

/// Runs a scenario; `each` sees every second and may tamper with the plant and with what is seen of it.
pub fn run(
    model: &Model,
    scenario: &Scenario,
    control: &mut dyn Control,
    each: &mut dyn FnMut(f32, &mut Plant, &mut Observation),
) -> Outcome {
    follow(model, scenario, control, each, &mut |_| ())
}

/// As [`run`], and `watch` sees what came of each second.
pub fn follow(
    model: &Model,
    scenario: &Scenario,
    control: &mut dyn Control,
    each: &mut dyn FnMut(f32, &mut Plant, &mut Observation),
    watch: &mut dyn FnMut(Second),
) -> Outcome {
    let mut plant = Plant::new(model.clone(), scenario.ambient_c, scenario.seed);
    let mut noise = super::plant::noise::Noise::new(scenario.seed ^ 0xabcd);
    let peak = [model.peak(Work::Prefill), model.peak(Work::Decode)];
    let mut load = Course::new(scenario.load, peak);
    let mut tally = Tally::default();
    let max_hz = mhz(model.soc.max_mhz());
    let by_skin = matches!(model.throttle, Throttle::Skin { .. });
    let has_fan = !model.cooling.fan_trip_c.is_empty();
    let mut limits = [Limits { threads: model.soc.cores, cap: None }; 2];
    let seconds = (scenario.minutes * 60.0) as usize;
    let counted_from = seconds.saturating_sub((scenario.window_minutes * 60.0) as usize);
    let ticks = (1.0 / TICK_S).round() as usize;
    for second in 0..seconds {
        let counting = second >= counted_from;
        let paused = scenario.pauses.iter().any(|p| p.contains(&(second as f32)));
        let mut in_phase = [(0.0f32, 0.0f32); 3];
        let (mut hot, mut input_w) = (0.0, 0.0);
        for _ in 0..ticks {
            let rests = paused || control.rests();
            let phase = if rests { Phase::Idle } else { load.phase() };
            let lever = limits[usize::from(phase != Phase::Prefill)];
            let work = [Work::Idle, Work::Prefill, Work::Decode][phase as usize];
            let done = plant.tick(work, lever.threads, lever.cap.map_or(model.soc.max_mhz(), |f| f.megahertz()));
            in_phase[phase as usize].0 += TICK_S;
            in_phase[phase as usize].1 += done.rate * TICK_S;
            hot += if by_skin { plant.skin_c().unwrap_or(0.0) } else { plant.junction_c() } / ticks as f32;
            input_w += done.input_w / ticks as f32;
            let turn = load.advance(done.rate, rests);
            if counting {
                tally.add(&plant, phase, done.rate * TICK_S, done.input_w * TICK_S, turn);
            }
        }
        tally.heat(hot);
        let phase = [Phase::Idle, Phase::Prefill, Phase::Decode]
            .into_iter()
            .max_by(|a, b| in_phase[*a as usize].0.total_cmp(&in_phase[*b as usize].0))
            .unwrap_or_default();
        let (busy, worked) = if phase == Phase::Idle { (0.0, 0.0) } else { in_phase[phase as usize] };
        let unit = if phase == Phase::Prefill { PREFILL_TOKENS_S / peak[0] } else { 1.0 / GB_PER_TOKEN };
        let lever = limits[usize::from(phase != Phase::Prefill)];
        let mut seen = Observation {
            dt: Seconds(1.0),
            soc: Some(Aged { value: Celsius(plant.reading_c()), age: Seconds(0.1) }),
            skin: plant.skin_c().map(|t| Aged { value: Celsius((t * 10.0).round() / 10.0), age: Seconds(0.1) }),
            requested: Some(limits[usize::from(load.phase() != Phase::Prefill)].cap.unwrap_or(max_hz)),
            measured: Some(Aged { value: mhz(plant.clock_mhz()), age: Seconds(0.1) }),
            flags: Some(Flags { thermal: plant.is_throttling(), ..Flags::default() }),
            fan_level: has_fan.then_some(plant.fan_level() as u8),
            phase,
            remaining: load.prefill_left_s(),
            tokens: worked * unit * (1.0 + RATE_NOISE * noise.normal()),
            busy: Seconds(busy as f64),
            threads: lever.threads,
            may_cap: scenario.may_cap,
            ..Observation::default()
        };
        each(second as f32, &mut plant, &mut seen);
        limits = control.step(&seen);
        if !scenario.may_cap {
            limits.iter_mut().for_each(|l| l.cap = None);
        }
        if let Some(d) = control.decision() {
            tally.verdict(second as f32, d, plant.is_throttling());
        }
        watch(Second { at_s: second as f32, plant: &plant, seen: &seen, decision: control.decision(), input_w });
    }
    tally.outcome(scenario, peak)
}

fn mhz(value: f32) -> Hertz {
    Hertz((value as f64 * 1e6) as u64)
}

/// The load over time.
#[derive(Clone, Debug)]
pub struct Course {
    load: Load,
    peak: [f32; 2],
    /// 0 prompt, 1 answer, 2 silence.
    part: usize,
    left: f32,
    at_s: f32,
    ttft_s: f32,
    rate: f32,
}

impl Course {
    /// `peak`: rates of prefill and decode with all cores at full clock, which give the parts of a turn their lengths.
    pub fn new(load: Load, peak: [f32; 2]) -> Course {
        Course { load, peak, part: 0, left: TURN_S[0] * peak[0], at_s: 0.0, ttft_s: 0.0, rate: peak[0] }
    }

    pub fn phase(&self) -> Phase {
        match (self.load, self.part) {
            (Load::Decode, _) | (Load::Voice, 1) => Phase::Decode,
            (Load::Prefill, _) | (Load::Voice, 0) => Phase::Prefill,
            _ => Phase::Idle,
        }
    }

    /// Prompt length is known; the answer's is not.
    pub fn prefill_left_s(&self) -> Option<Seconds> {
        (self.load == Load::Voice && self.part == 0).then(|| Seconds((self.left / self.peak[0]) as f64))
    }

    /// One tick at `rate`; returns (seconds to first token, seconds of the turn) when a turn ends.
    pub fn advance(&mut self, rate: f32, resting: bool) -> Option<(f32, f32)> {
        if resting && self.part < 2 {
            self.at_s += TICK_S;
            return None;
        }
        if self.load != Load::Voice {
            return None;
        }
        self.rate = rate;
        let step = if self.part == 2 { TICK_S } else { rate * TICK_S };
        self.left -= step;
        self.at_s += TICK_S;
        if self.left > 0.0 {
            return None;
        }
        // The part ended within the tick: the rest of the tick belongs to the next one.
        let over_s = -self.left / step * TICK_S;
        if self.part == 0 {
            self.ttft_s = self.at_s - over_s;
        }
        let ended = (self.part == 2).then_some((self.ttft_s, self.at_s - over_s));
        self.part = (self.part + 1) % 3;
        if self.part == 0 {
            self.at_s = over_s;
        }
        let unit = if self.part < 2 { self.peak[self.part] } else { 1.0 };
        self.left = TURN_S[self.part] * unit - over_s * unit;
        ended
    }
}

#[derive(Default)]
struct Tally {
    seconds: f64,
    work: [f64; 2],
    energy: f64,
    t: f64,
    mhz: f64,
    busy: f64,
    throttled: f64,
    turns: u32,
    ttft: f64,
    turn: f64,
    ten: std::collections::VecDeque<f32>,
    ten_sum: f32,
    max_c: f32,
    first_throttle_s: Option<f32>,
    verdict: (Mechanism, f32),
    last: (Level, Cause),
}

impl Tally {
    fn add(&mut self, plant: &Plant, phase: Phase, work: f32, joules: f32, turn: Option<(f32, f32)>) {
        self.seconds += TICK_S as f64;
        self.energy += joules as f64;
        self.t += (plant.junction_c() * TICK_S) as f64;
        if phase != Phase::Idle {
            self.work[usize::from(phase == Phase::Decode)] += work as f64;
            self.busy += TICK_S as f64;
            self.mhz += (plant.clock_mhz() * TICK_S) as f64;
            self.throttled += if plant.is_throttling() { TICK_S as f64 } else { 0.0 };
        }
        if let Some((ttft, turn)) = turn {
            self.turns += 1;
            self.ttft += ttft as f64;
            self.turn += turn as f64;
        }
    }

    fn heat(&mut self, t: f32) {
        self.ten.push_back(t);
        self.ten_sum += t;
        if self.ten.len() > 10 {
            self.ten_sum -= self.ten.pop_front().unwrap_or(0.0);
        }
        if self.ten.len() == 10 {
            self.max_c = self.max_c.max(self.ten_sum / 10.0);
        }
    }

    fn verdict(&mut self, at_s: f32, d: &Decision, throttling: bool) {
        if throttling {
            self.first_throttle_s.get_or_insert(at_s);
        }
        if d.mechanism != self.verdict.0 {
            self.verdict = (d.mechanism, at_s);
        }
        self.last = (d.level, d.cause);
    }

    fn outcome(&self, scenario: &Scenario, peak: [f32; 2]) -> Outcome {
        let n = self.turns.max(1) as f64;
        let (work, unit) = match scenario.load {
            Load::Decode => (self.work[1], peak[1]),
            Load::Prefill => (self.work[0], peak[0]),
            Load::Voice => (self.work[0] / peak[0] as f64 + self.work[1] / peak[1] as f64, 1.0),
        };
        let rate = work / self.seconds;
        let joules = match scenario.load {
            Load::Decode => self.energy / (work / GB_PER_TOKEN as f64).max(1e-9),
            Load::Prefill => self.energy / (work / peak[0] as f64 * PREFILL_TOKENS_S as f64).max(1e-9),
            Load::Voice => self.energy / n,
        };
        Outcome {
            speed: (if scenario.load == Load::Decode { rate / GB_PER_TOKEN as f64 } else { rate }) as f32,
            share: (rate / unit as f64) as f32,
            ttft_s: (self.ttft / n) as f32,
            turn_s: (self.turn / n) as f32,
            joules: joules as f32,
            mean_c: (self.t / self.seconds) as f32,
            max_c: self.max_c,
            mean_mhz: (self.mhz / self.busy.max(1e-9)) as f32,
            throttled: (self.throttled / self.busy.max(1e-9)) as f32,
            mechanism: self.verdict.0,
            level: self.last.0,
            cause: self.last.1,
            verdict_after_s: self.first_throttle_s.map_or(0.0, |first| (self.verdict.1 - first).max(0.0)),
        }
    }
}
