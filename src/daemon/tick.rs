//! Once a second: the board's readings and the engine's figures become an observation, the governor decides, and what it decides goes to
//! the engine (threads, admission) and to the board's lever (the clock). Neither knows the other; this is the only place that knows all.
//! What was seen and decided is published for clients, told to the journal, and recorded where somebody wants a record.
//!
//! At rest it beats less often ([`super::rest`]), and the sensors are asked no more often either; work that begins, another model, somebody
//! who follows, or another mode ends the rest at once.
//!
//! On a PC the governor only watches: threads were measured at the start, and its cooling is not ours to reason about.

use super::alarm::Alarm;
use super::config::{self, Config, Policy as Rule};
use super::notices::Notices;
use super::rest::{BEAT, Rest};
use super::told::Told;
use super::trace::Trace;
use super::work::Work;
use crate::board::lever::{self, ClockCap};
use crate::board::poll::{Latest, Poll};
use crate::board::{Identity, Kind, Root, Sense, sources, thermal};
use crate::governor::replay::Header;
use crate::governor::report::Report;
use crate::governor::{self, Admission, Cause, Decision, Degraded, Goal, KernelPolicy, Observation, Phase, Policy, State};
use crate::helm;
use crate::serve::Shared;
use crate::serve::thermal::{Mode, Thermal};
use crate::service::{Limits, Model, Pace, Telemetry};
use crate::units::{Hertz, Seconds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// From the end of a rest to the next beat: time for the sensors, which are asked at once, to answer.
const SOON: Duration = Duration::from_millis(50);
/// After a tick that failed, until the next one begins.
const AGAIN: Duration = Duration::from_secs(10);
/// Above the configured ceiling nothing is let in until it is this much cooler.
const CEILING_AIR_C: f32 = 5.0;
/// A lever that refused is left alone for so long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Where the owner's clock limits are kept while ours is set, below the daemon's runtime folder; `hearth board release` reads it.
const KEPT: &str = "clock-cap";

/// What the tick goes by; other rules are another tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    governor: config::Governor,
    /// Threads as the configuration has them; then nobody else chooses.
    fixed_threads: bool,
    keep: PathBuf,
}

impl Rules {
    pub fn of(config: &Config) -> Rules {
        let runtime = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        let folder = runtime.or_else(|| config.serve.socket.parent().map(Path::to_owned)).unwrap_or_default();
        Rules { governor: config.governor.clone(), fixed_threads: config.model.threads.is_some(), keep: folder.join(KEPT) }
    }
}

/// Beats until it is told to stop. A tick that fails gives back what it held, and another begins; answers go on without one.
pub async fn keep(
    beats: Arc<Alarm>,
    mut rules: watch::Receiver<Rules>,
    shared: Shared,
    saving: watch::Receiver<bool>,
    published: watch::Sender<Arc<Thermal>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let (now, sink) = (rules.borrow_and_update().clone(), published.clone());
        // Off the tasks that carry answers: a sensor's file may take its time already when it is looked for.
        let made = tokio::select! {
            made = tokio::task::spawn_blocking(move || Tick::new(&now, sink)) => made,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let ended = match made {
            Ok(tick) => tokio::spawn(tick.run(beats.clone(), rules.clone(), shared.clone(), saving.clone(), stop.clone())).await,
            Err(failed) => Err(failed),
        };
        if *stop.borrow() {
            return;
        }
        if let Err(error) = ended {
            tracing::error!(%error, "the governor's tick failed; answers go on without it, and it begins anew");
            published.send_replace(Arc::default());
            if let Ok(model) = shared.service.model() {
                model.limit(Limits::default());
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }
}

struct Tick {
    poll: Poll,
    identity: Identity,
    root: Root,
    /// The cpufreq policies of the cores that work, and what their owner lets them run at.
    clusters: Vec<String>,
    owners_limit: Option<Hertz>,
    /// Whether the kernel takes the clock away, or a firmware behind its back.
    kernel: KernelPolicy,
    rules: Rules,
    policy: Policy,
    /// `None` only while `decide` has it.
    state: Option<State>,
    lever: Option<ClockCap>,
    refused: Option<Instant>,
    last: Instant,
    /// From one beat to the next.
    every: Duration,
    rest: Rest,
    work: Work,
    /// The model that `limited` was told to, by its address.
    of: usize,
    /// Told to the engine last, which is not woken to hear it again.
    limited: Option<Limits>,
    decision: Option<Decision>,
    phase: Phase,
    too_hot: bool,
    has_thermometer: bool,
    notices: Notices,
    trace: Option<Trace>,
    told: Told,
    published: watch::Sender<Arc<Thermal>>,
}

impl Tick {
    /// Finds the board, and begins to read its sensors.
    fn new(rules: &Rules, published: watch::Sender<Arc<Thermal>>) -> Self {
        let root = Root::new(&rules.governor.root);
        let identity = Identity::of(&root);
        let clusters = identity.working_policies();
        let zones = thermal::zones(&root);
        let policy = Policy { goal: goal(rules.governor.policy, None, false), prior: helm::prior(&zones, &identity) };
        let mut tick = Self {
            poll: Poll::start_lasting(sources(&root)),
            lever: lever_of(rules, &root, &identity, &clusters),
            refused: None,
            state: Some(State::new(&policy)),
            policy,
            owners_limit: clusters.first().and_then(|policy| lever::owners_limit(&root, policy)).map(Hertz),
            kernel: helm::kernel_policy(&zones),
            clusters,
            identity,
            root,
            rules: rules.clone(),
            last: Instant::now(),
            every: BEAT,
            rest: Rest::default(),
            work: Work::default(),
            of: 0,
            limited: None,
            decision: None,
            phase: Phase::Idle,
            too_hot: false,
            has_thermometer: false,
            notices: Notices::default(),
            trace: None,
            told: Told::default(),
            published,
        };
        let cap = if tick.lever.is_some() { "may be capped" } else { "is left alone" };
        tracing::info!("board: {}; the clock {cap}", tick.identity.model);
        if let Some(path) = &rules.governor.trace {
            match Trace::start(path, u64::from(rules.governor.trace_mebibytes) << 20) {
                Ok(mut trace) => {
                    trace.policy(&tick.header());
                    tick.trace = Some(trace);
                }
                Err(error) => tracing::warn!(%error, "`governor.trace`: {}: no record can be written", path.display()),
            }
        }
        tick
    }

    /// Beats until it is told to stop or has other rules. Dropping it gives the clock back.
    async fn run(
        mut self,
        beats: Arc<Alarm>,
        mut rules: watch::Receiver<Rules>,
        shared: Shared,
        mut saving: watch::Receiver<bool>,
        mut stop: watch::Receiver<bool>,
    ) {
        let (mut models, mut holds) = (shared.service.state(), shared.holds.subscribe());
        // The first a beat from now: until then no sensor has been read.
        beats.set(BEAT);
        let mut steps = None;
        loop {
            tokio::select! {
                () = beats.ring() => {
                    let model = shared.service.model().ok();
                    let held = holds.borrow_and_update().mode();
                    models.mark_unchanged();
                    self.beat(model.as_ref(), held, *saving.borrow_and_update(), shared.followers.are_there());
                    beats.set(self.every);
                    // What has happened to it since counts as well: a new receiver has seen nothing.
                    steps = model.filter(|_| self.rests() || self.follows_phases()).map(|model| model.telemetry());
                }
                phase = next_phase(&mut steps, self.phase) => {
                    self.enter(phase);
                    self.rouse(&beats);
                }
                () = shared.followers.come(), if self.rests() => self.rouse(&beats),
                _ = models.changed(), if self.rests() => self.rouse(&beats),
                _ = holds.changed(), if self.rests() => self.rouse(&beats),
                Ok(()) = saving.changed(), if self.rests() => self.rouse(&beats),
                _ = rules.changed() => return,
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn beat(&mut self, model: Option<&Arc<Model>>, held: Option<Mode>, saving: bool, followed: bool) {
        let now = Instant::now();
        let dt = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        let latest = self.poll.latest(now);
        for notice in &latest.notices {
            tracing::info!("{notice}");
        }
        let (mut seen, place) = self.observe(&latest, now);
        seen.dt = Seconds(dt.as_secs_f64());
        seen.resumed = latest.slept.is_some();
        seen.power_saver = saving || matches!(held, Some(Mode::Eco | Mode::Quiet));
        seen.hold_performance = held == Some(Mode::Performance);
        self.look_at_engine(model, dt, &mut seen);
        self.aim(goal(self.rules.governor.policy, held, saving));
        let state = self.state.take().unwrap_or_else(|| State::new(&self.policy));
        let (state, decision) = governor::decide(&self.policy, state, &seen);
        self.state = Some(state);
        if let Some(trace) = &mut self.trace {
            trace.tick(&seen, &decision);
        }
        let decision = self.amended(decision, &seen);
        for notice in self.notices.of(now, &seen, &decision) {
            notice.tell(&seen);
        }
        if let Some(model) = model {
            self.limit(model, &decision);
        }
        self.decision = Some(decision.clone());
        let engine = model.map(|model| *model.telemetry().borrow());
        // A first step counts for nothing until it is done, and has its clock all the same.
        let begun = engine.filter(|engine| seen.phase == Phase::Idle && engine.running + engine.waiting > 0);
        self.phase = begun.map_or(seen.phase, |engine| Work::phase_of(engine.phase));
        self.cap(now);
        let works = self.phase != Phase::Idle || begun.is_some();
        // While a model loads nothing rests, nor while a sensor may hang; and a record's lines are seconds.
        let watched = followed || engine.is_none() || latest.asking || self.trace.is_some();
        let hottest = [&seen.soc, &seen.skin].into_iter().flatten().map(|t| t.value).max_by(|a, b| a.0.total_cmp(&b.0));
        let every = self.rest.next(now, works, watched, hottest, &decision);
        self.pace(every);
        let report = Report::new(&seen, decision, self.work.speed, self.source(), place);
        let thermal = self.told.thermal(latest, now, seen, report);
        self.published.send_replace(Arc::new(thermal));
    }

    fn rests(&self) -> bool {
        self.every > BEAT
    }

    /// Ends a rest.
    fn rouse(&mut self, beats: &Alarm) {
        if self.rests() {
            self.pace(BEAT);
            beats.set(SOON);
        }
    }

    /// From one beat to the next. Where nobody works a sensor need not be asked more often than somebody looks.
    fn pace(&mut self, every: Duration) {
        self.every = every;
        self.poll.pace(if self.phase == Phase::Idle { every } else { Duration::ZERO });
    }

    /// The readings as the governor wants them, and the place of its power meter.
    fn observe(&self, latest: &Latest, now: Instant) -> (Observation, Option<String>) {
        let sense = Sense::of(latest, now, &self.clusters);
        let limit = self.lever.as_ref().and_then(ClockCap::hertz).map(Hertz).or(self.owners_limit);
        let may_cap = self.lever.is_some() && self.refused.is_none();
        let seen = Observation { may_cap, ..helm::observation(&sense, self.kernel, limit) };
        (seen, sense.power.map(|p| p.place))
    }

    /// What the engine did since the last beat.
    fn look_at_engine(&mut self, model: Option<&Arc<Model>>, dt: Duration, seen: &mut Observation) {
        let Some(model) = model else { return self.work.rest() };
        // Another model counts from 0 again, and has been told nothing.
        let of = Arc::as_ptr(model) as usize;
        if std::mem::replace(&mut self.of, of) != of {
            self.work.begin();
            self.limited = None;
        }
        let telemetry = *model.telemetry().borrow();
        self.work.note(&telemetry, dt, seen);
        let threads = if telemetry.step_threads > 0 { telemetry.step_threads } else { model.info().threads };
        seen.threads = u8::try_from(threads).unwrap_or(u8::MAX);
    }

    /// Another goal is another policy from here on.
    fn aim(&mut self, goal: Goal) {
        if self.policy.goal == goal {
            return;
        }
        tracing::info!("the governor means {goal:?} now");
        self.policy.goal = goal;
        let header = self.header();
        if let Some(trace) = &mut self.trace {
            trace.policy(&header);
        }
    }

    fn header(&self) -> Header {
        let (board, policy) = (self.identity.model.clone(), self.policy.clone());
        Header { kind: "hearth-trace".into(), version: 1, source: self.source().into(), board, policy }
    }

    /// The ceiling of the configuration holds whatever the governor thinks of the board; and a machine that never had a thermometer has
    /// not lost one.
    fn amended(&mut self, mut decision: Decision, seen: &Observation) -> Decision {
        self.has_thermometer |= seen.soc.is_some();
        if decision.degraded == Degraded::SensorLost && !self.has_thermometer {
            decision.degraded = Degraded::No;
        }
        let ceiling = self.rules.governor.ceiling_celsius - if self.too_hot { CEILING_AIR_C } else { 0.0 };
        self.too_hot = self.policy.goal != Goal::Off && seen.soc.is_some_and(|t| t.value.0 >= ceiling);
        if self.too_hot {
            (decision.admission, decision.cause, decision.degraded) = (Admission::Stop, Cause::TooHot, Degraded::HighTemperature);
        }
        decision
    }

    /// Threads and admission; the engine takes them up at its next step.
    fn limit(&mut self, model: &Model, decision: &Decision) {
        let limits = if self.policy.goal == Goal::Off {
            Limits::default()
        } else {
            // All cores is where the governor begins, not a choice: then what the backend measured holds.
            let chosen = |limits: governor::Limits| limits.threads < self.policy.prior.cores;
            let may = self.identity.kind == Kind::Board && !self.rules.fixed_threads;
            let threads = |limits: governor::Limits| (may && chosen(limits)).then_some(limits.threads.max(1).into());
            let pace = Pace { decode_threads: threads(decision.decode), prefill_threads: threads(decision.prefill) };
            Limits { pace, open: decision.admission == Admission::Open, ..Limits::default() }
        };
        if self.limited.replace(limits) != Some(limits) {
            model.limit(limits);
        }
    }

    /// Whether a change of phase is a change of clock, which need not wait for the next beat.
    fn follows_phases(&self) -> bool {
        self.lever.is_some() && self.decision.as_ref().is_some_and(|d| d.prefill.cap != d.decode.cap)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.cap(Instant::now());
    }

    /// The clock of the present phase. A lever that refuses is told of once, and left alone for a while.
    fn cap(&mut self, now: Instant) {
        let (Some(lever), Some(decision)) = (&mut self.lever, &self.decision) else { return };
        if self.refused.is_some_and(|since| now.saturating_duration_since(since) >= REFUSED_FOR) {
            self.refused = None;
        }
        let cap = decision.limits(self.phase).cap.filter(|_| self.refused.is_none());
        if let Err(error) = lever.set(cap.map(|f| f.0)) {
            if self.refused.is_none() {
                tracing::warn!("the clock can't be set: {error}");
            }
            // While it is left alone, what it holds is tried to be given back, which is no news.
            self.refused.get_or_insert(now);
        }
    }

    /// Where the figures come from.
    fn source(&self) -> &'static str {
        match self.identity.kind {
            _ if !self.root.is_machine() => "simulated",
            Kind::Pc => "pc",
            Kind::Board => "real",
        }
    }
}

/// Waits until the engine works at another phase; for ever where nobody follows it.
async fn next_phase(steps: &mut Option<watch::Receiver<Telemetry>>, now: Phase) -> Phase {
    if let Some(steps) = steps {
        while steps.changed().await.is_ok() {
            let phase = Work::phase_of(steps.borrow_and_update().phase);
            if phase != now {
                return phase;
            }
        }
    }
    std::future::pending().await
}

/// The governor's goal: what the configuration says, unless a client holds a mode or the desktop saves power. Off is off.
fn goal(rule: Rule, held: Option<Mode>, saving: bool) -> Goal {
    match (rule, held) {
        (Rule::Off, _) => Goal::Off,
        (_, Some(Mode::Quiet)) => Goal::Quiet,
        (_, Some(Mode::Eco)) => Goal::Eco,
        (_, Some(Mode::Performance)) => Goal::Performance,
        (Rule::Quiet, None) => Goal::Quiet,
        (_, None) if saving => Goal::Eco,
        (Rule::Eco, None) => Goal::Eco,
        (Rule::Performance, None) => Goal::Performance,
        (Rule::Observe, None) => Goal::Observe,
    }
}

/// The clock cap, where a rule of the system gave us the files, and the owner's policy the right. Never on a PC.
fn lever_of(rules: &Rules, root: &Root, identity: &Identity, clusters: &[String]) -> Option<ClockCap> {
    if rules.governor.policy == Rule::Off || identity.kind == Kind::Pc {
        return None;
    }
    let clusters: Vec<&str> = clusters.iter().map(String::as_str).collect();
    ClockCap::open(root, &clusters, &rules.keep).unwrap_or_else(|error| {
        tracing::warn!("the clock can't be capped: {error}");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_mode_goes_before_the_desktop_and_the_desktop_before_the_configuration() {
        assert_eq!(goal(Rule::Observe, None, false), Goal::Observe);
        assert_eq!(goal(Rule::Observe, None, true), Goal::Eco);
        assert_eq!(goal(Rule::Performance, None, true), Goal::Eco);
        assert_eq!(goal(Rule::Quiet, None, true), Goal::Quiet, "quiet saves more");
        assert_eq!(goal(Rule::Eco, Some(Mode::Performance), true), Goal::Performance);
        for held in Mode::ALL {
            assert_eq!(goal(Rule::Off, Some(held), true), Goal::Off);
        }
    }
}
