//! Once a second: the board's readings and the engine's figures become an observation, the governor decides, and its limits go to the
//! engine. Neither knows the other; this is the only place that knows both. What was seen and decided is published for clients.
//!
//! On a PC the governor only watches: threads were measured at the start, and its cooling is not ours to reason about.

use super::config::{Config, Policy as Rule};
use crate::board::poll::{EVERY, Poll};
use crate::board::{Identity, Kind, Root, Sense, sources, thermal};
use crate::governor::report::{Report, Speed};
use crate::governor::{self, Admission, Goal, Observation, Phase, Policy, State};
use crate::helm;
use crate::serve::Shared;
use crate::serve::thermal::{Holds, Mode, Thermal};
use crate::service::{Limits, Model, Pace, Telemetry};
use crate::units::{Celsius, Seconds, TokensPerSecond};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// The governor's beat; `decide` is made for about this.
const BEAT: Duration = Duration::from_secs(1);
/// Time constant of the sustained rate, in seconds.
const SUSTAINED_S: f64 = 120.0;

pub struct Tick {
    poll: Poll,
    policy: Policy,
    state: State,
    kind: Kind,
    /// The cpufreq policies of the strongest cores.
    policies: Vec<String>,
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
        let policy = Policy { goal: goal(config.governor.policy), prior: helm::prior(&thermal::zones(&root), &identity) };
        tracing::info!("board: {}", identity.model);
        Self {
            poll: Poll::start(sources(&root), EVERY),
            state: State::new(&policy),
            policy,
            kind: identity.kind,
            policies: identity.working_policies(),
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
        let sense = Sense::of(&latest, now, &self.policies);
        let mut seen = helm::observation(&sense);
        seen.resumed = latest.slept.is_some();
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
        let place = sense.power.map(|p| p.place);
        self.published.send_replace(Arc::new(told(Report::new(&seen, decision, self.speed, source, place))));
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

fn goal(rule: Rule) -> Goal {
    match rule {
        Rule::Observe => Goal::Observe,
        Rule::Performance => Goal::Performance,
        Rule::Eco => Goal::Eco,
        Rule::Quiet => Goal::Quiet,
        Rule::Off => Goal::Off,
    }
}
