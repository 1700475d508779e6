//! This machine as a runner for the sustained measurement: one sequence decodes, the board's sensors are read beside it.

use super::session::{Session, SessionError, Wants};
use super::sustained::{Runner, Second};
use crate::backend::{Kind, LoadOptions};
use crate::board::poll::{EVERY, Latest, Poll};
use crate::board::{Root, What, sources};
use crate::units::TokenId;
use std::path::Path;
use std::time::{Duration, Instant};

/// Decode slows as the context grows; each cycle starts anew after this many tokens, so that minutes are alike.
const CYCLE_TOKENS: usize = 256;
const PROMPT_TOKENS: usize = 32;
/// Readings older than this are left out.
const FRESH_S: f64 = 5.0;

pub struct ThisMachine {
    session: Session,
    poll: Poll,
    used: usize,
    power_place: Option<String>,
}

impl ThisMachine {
    /// Opens the model and starts reading the board's sensors.
    pub fn open(path: &Path, kind: Kind, options: LoadOptions) -> Result<ThisMachine, SessionError> {
        let options = LoadOptions { context: options.context.max(PROMPT_TOKENS + CYCLE_TOKENS), ..options };
        let session = Session::open(path, kind, options, 1, &())?;
        let poll = Poll::start(sources(&Root::machine()), EVERY);
        let mut machine = ThisMachine { session, poll, used: CYCLE_TOKENS, power_place: None };
        // One pass over the weights, so that reading them from disk is no part of the first second.
        machine.start_cycle()?;
        Ok(machine)
    }

    pub fn threads(&self) -> usize {
        self.session.loaded.info().threads
    }

    /// Where the watts of this run were metered.
    pub fn power_place(&self) -> Option<String> {
        self.power_place.clone()
    }

    fn start_cycle(&mut self) -> Result<(), SessionError> {
        self.session.reset();
        let vocabulary = self.session.vocabulary() as u32;
        let prompt: Vec<TokenId> = (0..PROMPT_TOKENS as u32).map(|i| TokenId((i * 7919 + 13) % vocabulary)).collect();
        self.session.feed(0, &prompt, Wants::Last(1))?;
        self.used = 0;
        Ok(())
    }

    fn look(&mut self, tokens: f64, seconds: f64) -> Second {
        let now = Instant::now();
        let latest = self.poll.latest(now);
        let fresh = |what: &What| latest.value(what, now).filter(|v| v.1 <= FRESH_S).map(|v| v.0);
        let hottest = |pick: fn(&What) -> bool| all(&latest, now, pick).reduce(f64::max);
        let power = latest.readings.keys().find(|w| matches!(w, What::Power(_))).cloned();
        if let Some(What::Power(place)) = &power {
            self.power_place = Some(place.clone());
        }
        let bits = fresh(&What::ThrottleBits).unwrap_or(0.0) as u64;
        let throttled = match (fresh(&What::UnderVoltage), bits & 0b1110) {
            (Some(v), _) if v > 0.0 => "under-voltage",
            (_, 0) => "",
            _ => "thermal",
        };
        Second {
            tokens,
            seconds,
            celsius: hottest(|w| matches!(w, What::Temperature(_))),
            skin_celsius: None,
            requested_mhz: hottest(|w| matches!(w, What::Requested(_))).map(|f| f / 1e6),
            measured_mhz: hottest(|w| matches!(w, What::Measured(_))).map(|f| f / 1e6),
            throttled: throttled.into(),
            watts: power.and_then(|p| fresh(&p)),
        }
    }
}

fn all(latest: &Latest, now: Instant, pick: fn(&What) -> bool) -> impl Iterator<Item = f64> {
    latest.readings.keys().filter(move |w| pick(w)).filter_map(move |w| latest.value(w, now)).filter(|v| v.1 <= FRESH_S).map(|v| v.0)
}

impl Runner for ThisMachine {
    type Error = SessionError;

    fn work(&mut self) -> Result<Second, SessionError> {
        let (mut tokens, mut seconds) = (0.0, 0.0);
        while seconds < 1.0 {
            if self.used >= CYCLE_TOKENS {
                self.start_cycle()?;
            }
            let start = Instant::now();
            self.session.feed_each(&[TokenId(13)])?;
            seconds += start.elapsed().as_secs_f64();
            tokens += 1.0;
            self.used += 1;
        }
        Ok(self.look(tokens, seconds))
    }

    fn rest(&mut self) -> Result<Second, SessionError> {
        // Nothing wakes this thread; parking it is resting.
        std::thread::park_timeout(Duration::from_secs(1));
        Ok(self.look(0.0, 1.0))
    }
}
