//! This machine as a runner for the sustained measurement: one sequence takes turn after turn, the board's sensors are read beside it, and
//! a governor steers, if it is asked to.

use super::contention::{Contention, Watch};
use super::load::{Load, Turn};
use super::series::{Bins, Second};
use super::session::{Session, SessionError, Wants};
use super::speed::{SETTLING_PROMPT, settle, token};
use super::steered::{self, Steered};
use super::sustained::Runner;
use super::versus::Governed;
use crate::backend::{Kind as BackendKind, LoadOptions, Progress, memory};
use crate::board::poll::Poll;
use crate::board::sense::FRESH_S;
use crate::board::{Identity, Root, Sense, Sensor, sources};
use crate::governor::Goal;
use crate::units::TokenId;
use std::path::Path;
use std::time::{Duration, Instant};

pub struct ThisMachine {
    session: Session,
    turn: Turn,
    prompt: Vec<TokenId>,
    part: Part,
    /// When this turn began, in seconds since the first of work.
    turn_s: f64,
    poll: Poll,
    watch: Watch,
    /// The cpufreq policies of the cores that work.
    policies: Vec<String>,
    governor: Steered,
    bins: Bins,
    /// When the first second of work began; `None` at rest.
    begun: Option<Instant>,
    /// The meter's joules at its last reading, and when that was.
    joules: Option<(f64, Instant)>,
    power_place: Option<String>,
    notices: Vec<String>,
}

/// Where in a turn this is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Prompt,
    /// So many tokens of the answer are left.
    Answer(usize),
    /// Until then, in seconds since the first of work.
    Silence(f64),
}

/// What to open.
pub struct Opening<'a> {
    pub path: &'a Path,
    pub kind: BackendKind,
    pub options: LoadOptions,
    pub turn: Turn,
    /// A thermometer of the room, if there is one.
    pub room: Option<Box<dyn Sensor>>,
}

impl ThisMachine {
    /// Opens the model and starts reading the sensors below `root`.
    pub fn open(root: &Root, opening: Opening, progress: &dyn Progress) -> Result<ThisMachine, SessionError> {
        let turn = opening.turn;
        let options = LoadOptions { context: opening.options.context.max(turn.context()).max(SETTLING_PROMPT), ..opening.options };
        let mut session = Session::open(opening.path, opening.kind, options, 1, progress)?;
        let identity = Identity::of(root);
        let all = sources(root).into_iter().chain(opening.room).collect();
        // One pass over the weights, so that reading them from disk is no part of the first second; in huge pages, as a daemon brings them
        // in its first pause; and with the numbers of threads that are best here.
        let tokens: Vec<TokenId> = (0..SETTLING_PROMPT.max(turn.prompt_tokens)).map(|i| token(i, session.vocabulary())).collect();
        session.feed(0, &tokens[..1], Wants::Last(1))?;
        if memory::holds(session.file.bytes()) {
            session.file.gather(&|| true)?;
        }
        settle(&mut session, &tokens)?;
        let threads = session.loaded.info().decode_threads;
        Ok(ThisMachine {
            prompt: tokens[..turn.prompt_tokens].to_vec(),
            session,
            turn,
            part: Part::Prompt,
            turn_s: 0.0,
            poll: Poll::start_metering(all),
            watch: Watch::new(root),
            policies: identity.working_policies(),
            governor: Steered::new(root, &identity, threads, turn.load, steered::keep()),
            bins: Bins::default(),
            begun: None,
            joules: None,
            power_place: None,
            notices: Vec::new(),
        })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where the watts of this run were metered.
    pub fn power_place(&self) -> Option<String> {
        self.power_place.clone()
    }

    /// Why the governor could not cap the clock, where it could not.
    pub fn uncapped(&self) -> Option<String> {
        self.governor.uncapped().map(str::to_owned)
    }

    /// What became of the sensors and of the governor's lever since this was last asked, a sentence each.
    pub fn notices(&mut self) -> Vec<String> {
        self.notices.extend(self.governor.notices());
        std::mem::take(&mut self.notices)
    }

    /// Reads the turn's prompt into an empty context.
    fn read_prompt(&mut self) -> Result<(), SessionError> {
        self.session.reset();
        self.session.feed(0, &self.prompt, Wants::Last(1))?;
        Ok(())
    }

    /// One piece of the turn: a prompt, a token, or up to a second of silence. Returns the seconds that it completed.
    fn step(&mut self, begun: Instant) -> Result<Vec<Second>, SessionError> {
        let since = || begun.elapsed().as_secs_f64();
        let from = since();
        match self.part {
            Part::Prompt => {
                self.turn_s = from;
                self.read_prompt()?;
                let (to, tokens) = (since(), self.turn.prompt_tokens);
                if self.turn.load == Load::Prefill {
                    return Ok(self.bins.tokens(from, to, tokens));
                }
                let done = self.bins.prompt(from, to, tokens);
                if self.turn.load == Load::Voice {
                    self.bins.current().first_token_ms.push(((to - from) * 1000.0) as f32);
                }
                self.part = Part::Answer(self.turn.answer_tokens);
                Ok(done)
            }
            Part::Answer(left) => {
                let next = token(self.turn.context().saturating_sub(left), self.session.vocabulary());
                self.session.feed_each(&[next])?;
                let to = since();
                self.part = match left.saturating_sub(1) {
                    0 if self.turn.silence_s > 0.0 => Part::Silence(to + self.turn.silence_s),
                    0 => Part::Prompt,
                    left => Part::Answer(left),
                };
                Ok(self.bins.token(from, to))
            }
            Part::Silence(until) => {
                // Nothing wakes this thread; parking it is resting.
                std::thread::park_timeout(Duration::from_secs_f64((until - from).clamp(0.0, 1.0)));
                let to = since();
                let done = self.bins.pass(to);
                if to >= until {
                    self.bins.current().turn_s.push((to - self.turn_s) as f32);
                    self.part = Part::Prompt;
                }
                Ok(done)
            }
        }
    }

    /// What the sensors say now, put beside the work of the seconds just done; the governor sees them too. A step may take seconds, and
    /// nobody looked meanwhile: they share one look.
    fn look(&mut self, works: Vec<Second>) -> Vec<Second> {
        let now = Instant::now();
        let latest = self.poll.latest(now);
        self.notices.extend(latest.notices.iter().cloned());
        let sense = Sense::of(&latest, now, &self.policies);
        let (watts, contention) = (self.watts(&sense, now), self.watch.look());
        let see = |work: Second| self.see(&sense, latest.slept.is_some(), watts, contention, work);
        works.into_iter().map(see).collect()
    }

    fn see(&mut self, sense: &Sense, slept: bool, watts: Option<f64>, contention: Option<Contention>, work: Second) -> Second {
        if let Some(pace) = self.governor.tick(sense, slept, &work) {
            self.session.loaded.limit(pace);
        }
        let fresh = |v: Option<(f64, f64)>| v.filter(|v| v.1 <= FRESH_S).map(|v| v.0);
        Second {
            celsius: fresh(sense.soc),
            skin_celsius: fresh(sense.skin),
            room_celsius: fresh(sense.room),
            requested_mhz: fresh(sense.requested).map(|f| f / 1e6),
            measured_mhz: fresh(sense.measured).map(|f| f / 1e6),
            throttled: sense.slowed.map(|s| s.word()).unwrap_or_default().into(),
            watts,
            threads: u8::try_from(self.governor.threads()).ok(),
            contention,
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
            (self.bins, self.part) = (Bins::default(), Part::Prompt);
            Instant::now()
        });
        loop {
            let full = self.step(begun)?;
            if !full.is_empty() {
                done.extend(self.look(full));
                return Ok(());
            }
        }
    }

    fn rest(&mut self) -> Result<Second, SessionError> {
        self.begun = None;
        // Nothing wakes this thread; parking it is resting.
        std::thread::park_timeout(Duration::from_secs(1));
        Ok(self.look(vec![Second::default()]).pop().unwrap_or_default())
    }
}

impl Governed for ThisMachine {
    type Setting = Goal;

    fn govern(&mut self, goal: Goal) {
        let pace = self.governor.set(goal);
        self.session.loaded.limit(pace);
    }
}
