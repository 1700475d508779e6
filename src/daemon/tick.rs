//! Once a second: the board's readings and the engine's figures become an observation, the governor decides, and its limits go to the
//! engine. Neither knows the other; this is the only place that knows both. What was seen and decided is published for clients.
//!
//! On a PC the governor only watches: threads were measured at the start, and its cooling is not ours to reason about.

use super::config::{Config, Policy as Rule};
use crate::board::poll::{EVERY, Latest, Poll};
use crate::board::{Identity, Kind, Root, What, sources, thermal};
use crate::governor::observation::{Aged, Flags};
use crate::governor::profile::Profile;
use crate::governor::report::{Report, Speed};
use crate::governor::{self, Admission, Goal, KernelPolicy, Observation, Phase, Policy, Prior, State};
use crate::serve::Shared;
use crate::serve::thermal::{Holds, Mode, Thermal};
use crate::service::{Limits, Model, Pace, Telemetry};
use crate::units::{Celsius, Hertz, Seconds, TokensPerSecond, Watts};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The governor's beat; `decide` is made for about this.
const BEAT: Duration = Duration::from_secs(1);
/// Words in the type of a zone that is on the die.
const DIE: [&str; 9] = ["cpu", "soc", "pkg", "core", "package", "firmware", "k10temp", "zenpower", "bigcore"];
/// Time constant of the sustained rate, in seconds.
const SUSTAINED_S: f64 = 120.0;
/// Bits of the firmware's throttle word: 0 under-voltage, 2 throttled, 3 soft limit. Source: Raspberry Pi documentation, `get_throttled`.
const THROTTLED_BITS: u64 = 0b1100;

pub struct Tick {
    poll: Poll,
    policy: Policy,
    state: State,
    kind: Kind,
    /// The cpufreq policy of the strongest cores.
    cluster: String,
    ceiling: Celsius,
    /// Threads as the configuration has them; then nobody else chooses.
    fixed_threads: bool,
    last: Instant,
    before: Telemetry,
    /// The model that `before` and `limited` are of, by its address.
    of: usize,
    /// Told to the engine last, which is not woken to hear it again.
    limited: Option<Limits>,
    speed: Speed,
    published: watch::Sender<Arc<Thermal>>,
}

impl Tick {
    /// Finds the board, and begins to read its sensors.
    pub fn new(config: &Config, published: watch::Sender<Arc<Thermal>>) -> Self {
        let root = Root::new(&config.governor.root);
        let identity = Identity::of(&root);
        let policy = Policy { goal: goal(config.governor.policy), prior: prior(&root, &identity) };
        tracing::info!("board: {}", identity.model);
        Self {
            poll: Poll::start(sources(&root), EVERY),
            state: State::new(&policy),
            policy,
            kind: identity.kind,
            cluster: identity.big().map(|c| c.policy.clone()).unwrap_or_default(),
            ceiling: Celsius(config.governor.ceiling_celsius),
            fixed_threads: config.model.threads.is_some(),
            last: Instant::now(),
            before: Telemetry::default(),
            of: 0,
            limited: None,
            speed: Speed::default(),
            published,
        }
    }

    /// Beats until it is ended.
    pub async fn run(mut self, shared: Shared) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let holds = shared.holds.borrow().clone();
            self.beat(shared.service.model().ok().as_ref(), &holds);
        }
    }

    fn beat(&mut self, model: Option<&Arc<Model>>, holds: &Holds) {
        let now = Instant::now();
        let dt = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let latest = self.poll.latest(now);
        for notice in &latest.notices {
            tracing::info!("{notice}");
        }
        let mut seen = self.readings(&latest, now);
        seen.dt = Seconds(dt.as_secs_f64());
        seen.power_saver = matches!(holds.mode(), Some(Mode::Eco | Mode::Quiet));
        seen.hold_performance = holds.mode() == Some(Mode::Performance);
        self.engine(model, dt, &mut seen);
        let (state, decision) = governor::decide(&self.policy, self.state.clone(), &seen);
        self.state = state;
        if let Some(model) = model {
            let limits = self.limits(&decision, seen.soc.map(|t| t.value));
            if self.limited.replace(limits) != Some(limits) {
                model.limit(limits);
            }
        }
        let source = if self.kind == Kind::Pc { "pc" } else { "real" };
        let place = power(&latest).map(|(place, ..)| place);
        self.published.send_replace(Arc::new(told(Report::new(&seen, decision, self.speed, source, place))));
    }

    fn readings(&self, latest: &Latest, now: Instant) -> Observation {
        let aged = |what: &What| latest.value(what, now).map(|(value, age)| (value, Seconds(age)));
        let die = |name: &str| DIE.iter().any(|word| name.to_lowercase().contains(word));
        let zones = latest.readings.keys().filter(|w| matches!(w, What::Temperature(name) if die(name)));
        let soc = zones.filter_map(aged).max_by(|a, b| a.0.total_cmp(&b.0));
        let bits = aged(&What::ThrottleBits).map(|(bits, _)| bits as u64);
        let under_voltage = aged(&What::UnderVoltage).map(|(v, _)| v > 0.0);
        Observation {
            soc: soc.map(|(c, age)| Aged { value: Celsius(c as f32), age }),
            requested: aged(&What::Requested(self.cluster.clone())).map(|(hertz, _)| Hertz(hertz as u64)),
            measured: aged(&What::Measured(self.cluster.clone())).map(|(hertz, age)| Aged { value: Hertz(hertz as u64), age }),
            flags: (bits.is_some() || under_voltage.is_some()).then(|| Flags {
                under_voltage: under_voltage.unwrap_or(false),
                power_limit: false,
                thermal: bits.is_some_and(|b| b & THROTTLED_BITS != 0),
            }),
            fan_level: aged(&What::FanLevel).map(|(level, _)| level as u8),
            power: power(latest).and_then(|(_, what, _)| aged(&what)).map(|(w, age)| Aged { value: Watts(w as f32), age }),
            memory_pressure: aged(&What::MemoryPressure).map_or(0.0, |(share, _)| share as f32),
            ..Observation::default()
        }
    }

    /// What the engine did since the last beat.
    fn engine(&mut self, model: Option<&Arc<Model>>, dt: Duration, seen: &mut Observation) {
        let Some(model) = model else {
            self.speed.now = TokensPerSecond(0.0);
            return;
        };
        let after = model.telemetry().borrow().clone();
        // Another model counts from 0 again.
        let of = Arc::as_ptr(model) as usize;
        if std::mem::replace(&mut self.of, of) != of {
            self.before = Telemetry::default();
            self.limited = None;
        }
        let before = std::mem::replace(&mut self.before, after.clone());
        let prefill = after.prefill_time.saturating_sub(before.prefill_time);
        let decode = after.decode_time.saturating_sub(before.decode_time);
        let generated = after.generated.saturating_sub(before.generated);
        let threads = if after.step_threads > 0 { after.step_threads } else { model.info().threads };
        seen.threads = u8::try_from(threads).unwrap_or(u8::MAX);
        (seen.phase, seen.tokens, seen.busy) = if prefill.is_zero() && decode.is_zero() {
            (Phase::Idle, 0.0, Seconds(0.0))
        } else if prefill > decode {
            (Phase::Prefill, after.prompt_computed.saturating_sub(before.prompt_computed) as f32, Seconds(prefill.as_secs_f64()))
        } else {
            (Phase::Decode, generated as f32, Seconds(decode.as_secs_f64()))
        };
        let busy = (prefill + decode).as_secs_f64();
        let rate = if busy > 0.0 { generated as f64 / busy } else { 0.0 };
        self.speed.now = TokensPerSecond(rate as f32);
        if seen.phase == Phase::Decode {
            self.speed.peak = TokensPerSecond(self.speed.peak.0.max(rate as f32));
            let share = if self.speed.sustained.0 == 0.0 { 1.0 } else { 1.0 - (-dt.as_secs_f64() / SUSTAINED_S).exp() };
            self.speed.sustained.0 += share as f32 * (rate as f32 - self.speed.sustained.0);
        }
    }

    fn limits(&self, decision: &governor::Decision, soc: Option<Celsius>) -> Limits {
        if self.policy.goal == Goal::Off {
            return Limits::default();
        }
        let too_hot = decision.admission == Admission::Stop || soc.is_some_and(|t| t >= self.ceiling);
        // All cores is where the governor begins, not a choice: then what the backend measured holds.
        let chosen = |limits: governor::Limits| limits.threads < self.policy.prior.cores;
        let may = self.kind == Kind::Board && !self.fixed_threads;
        let threads = |limits: governor::Limits| (may && chosen(limits)).then_some(limits.threads.max(1).into());
        let pace = Pace { decode_threads: threads(decision.decode), prefill_threads: threads(decision.prefill) };
        Limits { pace, open: !too_hot, ..Limits::default() }
    }
}

/// What clients are told.
fn told(report: Report) -> Thermal {
    let number = |v: f32| f64::from(v);
    Thermal {
        metrics: report.metrics(),
        temperature: report.temperature.map(|t| number(t.0)),
        clock: report.measured.or(report.requested).map(|f| f.0),
        level: report.level.clone(),
        cause: report.cause.clone(),
        degraded: report.degraded.clone(),
        headroom: report.headroom(0).map(number),
        headroom_10_s: report.headroom(10).map(number),
        headroom_60_s: report.headroom(60).map(number),
        speed: number(report.speed.now.0),
        peak: number(report.speed.peak.0),
        sustained: number(report.speed.sustained.0),
        report: serde_json::to_value(&report).unwrap_or_default(),
    }
}

/// The meter nearest to the supply: its place, and its value.
fn power(latest: &Latest) -> Option<(String, What, f64)> {
    let rank = |place: &str| ["supply", "pmic", "VDD_IN", "package"].iter().position(|p| *p == place).unwrap_or(usize::MAX);
    let meters = latest.readings.iter().filter_map(|(what, (reading, _))| match what {
        What::Power(place) => Some((place.clone(), what.clone(), reading.value)),
        _ => None,
    });
    meters.min_by_key(|(place, ..)| rank(place))
}

fn goal(rule: Rule) -> Goal {
    match rule {
        Rule::Observe => Goal::Observe,
        Rule::Performance => Goal::Performance,
        Rule::Eco => Goal::Eco,
        Rule::Quiet => Goal::Quiet,
        Rule::Off => Goal::Off,
    }
}

/// What is known of the board before the first reading.
fn prior(root: &Root, identity: &Identity) -> Prior {
    let zones = thermal::zones(root);
    let zone = zones.iter().find(|z| z.caps_clock()).or_else(|| zones.iter().find(|z| z.passive_c().is_some()));
    let (trip, critical) = (zone.and_then(|z| z.passive_c()), zone.and_then(|z| z.critical_c()));
    let kernel = match zone {
        Some(z) if z.caps_clock() && z.policy == "power_allocator" => KernelPolicy::PowerAllocator,
        Some(z) if z.caps_clock() => KernelPolicy::StepWise,
        _ => KernelPolicy::NotTheKernel,
    };
    if let Some(profile) = Profile::for_compatible(&identity.compatible) {
        return Prior::of(&profile, kernel, trip, critical);
    }
    let cluster = identity.big();
    let cores = cluster.map_or(1, |c| c.cpus.len()).clamp(1, 255) as u8;
    let mhz = |khz: u64| khz as f32 / 1000.0;
    let mut steps: Vec<f32> = cluster.map(|c| c.steps_khz.iter().copied().map(mhz).collect()).unwrap_or_default();
    if steps.is_empty() {
        steps.push(cluster.and_then(|c| c.max_khz).map_or(1000.0, mhz));
    }
    Prior { trip_c: trip, critical_c: critical, ..Prior::unknown(cores, steps) }
}
