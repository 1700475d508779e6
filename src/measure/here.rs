//! This machine as a runner for the sustained measurement: one sequence decodes, the board's sensors are read beside it, and a governor
//! steers, if it is asked to.

use super::series::{Bins, Second};
use super::session::{Session, SessionError, Wants};
use super::steered::Steered;
use super::sustained::Runner;
use super::versus::Governed;
use crate::backend::{Kind as BackendKind, LoadOptions, Pace, Progress};
use crate::board::poll::Poll;
use crate::board::sense::FRESH_S;
use crate::board::{Identity, Root, Sense, Source as Sensor, sources};
use crate::governor::Goal;
use crate::units::TokenId;
use std::path::Path;
use std::time::{Duration, Instant};

/// Decode slows as the context grows; each cycle starts anew after this many tokens, so that minutes are alike.
pub const CYCLE_TOKENS: usize = 256;
pub const PROMPT_TOKENS: usize = 32;

pub struct ThisMachine {
    session: Session,
    poll: Poll,
    /// The cpufreq policies of the cores that work.
    policies: Vec<String>,
    governor: Steered,
    used: usize,
    bins: Bins,
    /// When the first second of work began; `None` at rest.
    begun: Option<Instant>,
    /// The meter's joules at its last reading, and when that was.
    joules: Option<(f64, Instant)>,
    power_place: Option<String>,
    notices: Vec<String>,
}

/// What to open.
pub struct Opening<'a> {
    pub path: &'a Path,
    pub kind: BackendKind,
    pub options: LoadOptions,
    /// A thermometer of the room, if there is one.
    pub room: Option<Box<dyn Sensor>>,
}

impl ThisMachine {
    /// Opens the model and starts reading the sensors below `root`.
    pub fn open(root: &Root, opening: Opening, progress: &dyn Progress) -> Result<ThisMachine, SessionError> {
        let options = LoadOptions { context: opening.options.context.max(PROMPT_TOKENS + CYCLE_TOKENS), ..opening.options };
        let session = Session::open(opening.path, opening.kind, options, 1, progress)?;
        let identity = Identity::of(root);
        let all = sources(root).into_iter().chain(opening.room).collect();
        let threads = session.loaded.info().threads;
        let mut machine = ThisMachine {
            session,
            poll: Poll::start_metering(all),
            policies: identity.working_policies(),
            governor: Steered::new(root, &identity, threads),
            used: CYCLE_TOKENS,
            bins: Bins::default(),
            begun: None,
            joules: None,
            power_place: None,
            notices: Vec::new(),
        };
        // One pass over the weights, so that reading them from disk is no part of the first second.
        machine.start_cycle()?;
        // A daemon does so in its first pause.
        machine.session.file.gather(&|| true)?;
        Ok(machine)
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where the watts of this run were metered.
    pub fn power_place(&self) -> Option<String> {
        self.power_place.clone()
    }

    /// What became of the sensors since this was last asked, a sentence each.
    pub fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn start_cycle(&mut self) -> Result<(), SessionError> {
        self.session.reset();
        let vocabulary = self.session.vocabulary() as u32;
        let prompt: Vec<TokenId> = (0..PROMPT_TOKENS as u32).map(|i| TokenId((i * 7919 + 13) % vocabulary)).collect();
        self.session.feed(0, &prompt, Wants::Last(1))?;
        self.used = 0;
        Ok(())
    }

    /// What the sensors say now, put beside the work of a second; the governor sees it too.
    fn look(&mut self, work: Second) -> Second {
        let now = Instant::now();
        let latest = self.poll.latest(now);
        self.notices.extend(latest.notices.iter().cloned());
        let sense = Sense::of(&latest, now, &self.policies);
        let fresh = |v: Option<(f64, f64)>| v.filter(|v| v.1 <= FRESH_S).map(|v| v.0);
        let watts = self.watts(&sense, now);
        if let Some(threads) = self.governor.tick(&sense, latest.slept.is_some(), &work) {
            self.session.loaded.limit(Pace { decode_threads: Some(threads), prefill_threads: None });
        }
        Second {
            celsius: fresh(sense.soc),
            skin_celsius: fresh(sense.skin),
            room_celsius: fresh(sense.room),
            requested_mhz: fresh(sense.requested).map(|f| f / 1e6),
            measured_mhz: fresh(sense.measured).map(|f| f / 1e6),
            throttled: sense.slowed.map(|s| s.word()).unwrap_or_default().into(),
            watts,
            threads: u8::try_from(self.governor.threads()).ok(),
            ..work
        }
    }

    /// The mean power since the last look, by the meter's joules; the momentary one where they have not moved yet.
    fn watts(&mut self, sense: &Sense, now: Instant) -> Option<f64> {
        let power = sense.power.as_ref()?;
        let at = now.checked_sub(Duration::from_secs_f64(power.age_s))?;
        let moved = self.power_place.replace(power.place.clone()).is_some_and(|place| place != power.place);
        let last = self.joules.replace((power.joules, at)).filter(|_| !moved);
        let mean = last.map(|(joules, then)| (power.joules - joules, at.saturating_duration_since(then).as_secs_f64()));
        Some(mean.filter(|(joules, span)| *span > 0.05 && *joules >= 0.0).map_or(power.watts, |(joules, span)| joules / span))
    }
}

impl Runner for ThisMachine {
    type Error = SessionError;

    fn work(&mut self, done: &mut Vec<Second>) -> Result<(), SessionError> {
        let begun = *self.begun.get_or_insert_with(|| {
            self.bins = Bins::default();
            Instant::now()
        });
        let since = || begun.elapsed().as_secs_f64();
        loop {
            if self.used >= CYCLE_TOKENS {
                self.start_cycle()?;
            }
            let from = since();
            self.session.feed_each(&[TokenId(13)])?;
            self.used += 1;
            let full = self.bins.token(from, since());
            if !full.is_empty() {
                done.extend(full.into_iter().map(|second| self.look(second)));
                return Ok(());
            }
        }
    }

    fn rest(&mut self) -> Result<Second, SessionError> {
        self.begun = None;
        // Nothing wakes this thread; parking it is resting.
        std::thread::park_timeout(Duration::from_secs(1));
        Ok(self.look(Second::default()))
    }
}

impl Governed for ThisMachine {
    type Setting = Goal;

    fn govern(&mut self, goal: Goal) {
        let threads = self.governor.set(goal);
        self.session.loaded.limit(Pace { decode_threads: Some(threads), prefill_threads: None });
    }
}
