//! From token ids to token ids: one thread owns the device and all sequences; everybody else holds an [`Engine`] handle.
//!
//! Requests come in by a bounded queue, tokens go out by one bounded channel a request ([`Answer`]). A reader that is slow holds only
//! its own sequence; a reader that goes away ends it at the next step, also in the middle of its prompt.
//!
//! - [`mod@owner`]: the thread: takes requests in, plans a step, runs it, hands tokens out.
//! - [`plan`]: which rows go into a step.
//! - [`blocks`]: key/value blocks and the prefixes that can be used again; [`slots`]: the same for recurrent state.
//! - [`sampler`], [`select`], [`random`]: from logits to a token; [`constraint`]: what holds it to a form.
//! - [`telemetry`]: what the governor and the metrics see.
//!
//! No text, template or vocabulary lives here, and no device: the one is the service's, the other the backend's.

mod answer;
pub mod blocks;
pub mod constraint;
#[cfg(test)]
mod fake;
mod owner;
pub mod plan;
pub mod random;
pub mod sampler;
pub mod select;
mod sequence;
pub mod slots;
mod state;
pub mod telemetry;
#[cfg(test)]
mod tests;

pub use answer::{Answer, End, Event, Reason, Token};
pub use constraint::{Broken, Constraint};
pub use sampler::{Logprobs, Sampling};
pub use telemetry::{Phase, Telemetry};

use crate::backend::{BLOCK_TOKENS, Loaded, Pace};
use crate::units::TokenId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Events that wait in one answer's channel before its sequence pauses.
const ANSWER_EVENTS: usize = 32;

/// What the engine was given to work with: the figures of [`crate::backend::LoadOptions`] and of the model.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Most positions a sequence may have.
    pub context: usize,
    pub blocks: usize,
    /// 0 where the program needs none.
    pub slots: usize,
    /// Most rows in one step.
    pub rows: usize,
    pub vocabulary: usize,
    /// Most sequences computed at once.
    pub running: usize,
    /// Most requests that wait for a place beside them.
    pub waiting: usize,
}

/// What the governor may change, from one step to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub pace: Pace,
    /// Most sequences computed at once; more than [`Shape::running`] changes nothing.
    pub running: usize,
    /// Most prompt rows in a step.
    pub chunk: usize,
    /// Whether new requests are taken. Those already inside go on.
    pub open: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pace: Pace::default(), running: usize::MAX, chunk: usize::MAX, open: true }
    }
}

/// One prompt to go on from.
#[derive(Debug, Default)]
pub struct Request {
    pub prompt: Vec<TokenId>,
    /// Most tokens to generate; the context's end comes first where it is nearer.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Holds the answer to a form; with the form complete the answer ends.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Tokens that end the answer; they are not part of it.
    pub stop: Arc<[TokenId]>,
    /// Positions in the prompt where a later prompt is likely to part from this one (the end of the instructions, of a turn).
    /// Only recurrent models use them, which can go on only from where a copy of their state was kept.
    pub boundaries: Vec<usize>,
    /// Compute the prompt anew even if its beginning is known.
    pub fresh: bool,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("{inside} requests are being worked on or waiting, which is the limit; try again a little later")]
    Busy { inside: usize },
    #[error(
        "the prompt has {prompt} tokens, and the context holds {context} with the answer; shorten it or load the model with a larger context"
    )]
    ContextFull { prompt: usize, context: usize },
    #[error("the prompt is empty; give at least one token")]
    Empty,
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    Token { token: u32, vocabulary: usize },
    #[error("no new requests are taken until the board has cooled down")]
    Closed,
    #[error("the engine is stopping")]
    Stopping,
    #[error("the engine failed: {0}")]
    Failed(String),
}

/// The handle. Clones are equal; when the last one goes, what is running finishes and the engine ends.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: SyncSender<sequence::Ticket>,
    state: Arc<state::State>,
    limits: watch::Sender<Limits>,
    telemetry: watch::Receiver<Telemetry>,
    shape: Shape,
}

impl Engine {
    /// Starts the thread that owns `loaded` from here on.
    pub fn start(loaded: Box<dyn Loaded>, shape: Shape) -> std::io::Result<Engine> {
        let (engine, mut owner) = Engine::assemble(loaded, shape);
        let state = engine.inner.state.clone();
        let life = move || {
            // A fault of our own in a step, too, ends in a failure that everybody is told: else who asks whether all is well would hear yes
            // of an engine that is gone. What the owner holds is then only dropped.
            if catch_unwind(AssertUnwindSafe(|| owner.run())).is_err() {
                state.fail("a step broke off by a fault in Hearth itself; the log has its message".into());
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(life)?;
        engine.inner.state.set_thread(thread.thread().clone());
        Ok(engine)
    }

    /// Handle and owner, not yet running: tests turn the owner by hand.
    fn assemble(loaded: Box<dyn Loaded>, shape: Shape) -> (Engine, owner::Owner) {
        assert!(shape.blocks > 0 && shape.rows > 0 && shape.running > 0, "a shape without room: {shape:?}");
        let shape = Shape { context: shape.context.min(shape.blocks * BLOCK_TOKENS), running: shape.running.min(shape.rows), ..shape };
        let state = Arc::new(state::State::new());
        let (requests, inbox) = sync_channel(shape.running + shape.waiting);
        let (limits, limits_seen) = watch::channel(Limits::default());
        let (telemetry, telemetry_seen) = watch::channel(Telemetry { blocks: shape.blocks, ..Telemetry::default() });
        let owner = owner::Owner::new(loaded, shape.clone(), inbox, limits_seen, telemetry, state.clone());
        (Engine { inner: Arc::new(Inner { requests, state, limits, telemetry: telemetry_seen, shape }) }, owner)
    }

    /// Queues a request, or says at once why not. Never blocks.
    pub fn submit(&self, request: Request) -> Result<Answer, Refused> {
        let Inner { requests, state, limits, shape, .. } = &*self.inner;
        state.accepting()?;
        if !limits.borrow().open {
            return Err(Refused::Closed);
        }
        if request.prompt.is_empty() {
            return Err(Refused::Empty);
        }
        if let Some(token) = request.prompt.iter().find(|t| t.0 as usize >= shape.vocabulary) {
            return Err(Refused::Token { token: token.0, vocabulary: shape.vocabulary });
        }
        if request.prompt.len() >= shape.context {
            return Err(Refused::ContextFull { prompt: request.prompt.len(), context: shape.context });
        }
        let place = state::Place::take(state, shape.running + shape.waiting)?;
        let (events, receiver) = mpsc::channel(ANSWER_EVENTS);
        let ticket = sequence::Ticket { request, events, place, submitted: Instant::now() };
        match requests.try_send(ticket) {
            Ok(()) => {
                state.wake();
                Ok(Answer::new(receiver, state.clone()))
            }
            Err(TrySendError::Full(_)) => Err(Refused::Busy { inside: shape.running + shape.waiting }),
            Err(TrySendError::Disconnected(_)) => Err(state.accepting().err().unwrap_or(Refused::Stopping)),
        }
    }

    /// Takes effect at the next step boundary.
    pub fn limit(&self, limits: Limits) {
        self.inner.limits.send_replace(limits);
        self.inner.state.wake();
    }

    /// The latest figures; the receiver's `changed` fails when the engine has ended and its memory is given back.
    pub fn telemetry(&self) -> watch::Receiver<Telemetry> {
        self.inner.telemetry.clone()
    }

    pub fn shape(&self) -> &Shape {
        &self.inner.shape
    }

    /// Counts the engine's turns, and so stands still when a step hangs. An idle engine sleeps: [`Engine::nudge`] makes it turn once.
    pub fn heartbeat(&self) -> u64 {
        self.inner.state.heartbeat()
    }

    /// Makes a sleeping engine turn once. A watchdog nudges, and looks at the heartbeat at its next tick.
    pub fn nudge(&self) {
        self.inner.state.wake();
    }

    /// Takes no new requests; ends when those inside are answered.
    pub fn drain(&self) {
        self.inner.state.drain();
    }

    /// Ends after the running step; answers not yet complete end as cancelled.
    pub fn stop(&self) {
        self.inner.state.stop();
    }

    /// Waits until the engine has ended and its memory is given back.
    pub async fn ended(&self) {
        let mut telemetry = self.telemetry();
        while telemetry.changed().await.is_ok() {}
    }

    /// The reason, when the engine can't go on.
    pub fn failure(&self) -> Option<String> {
        self.inner.state.failure()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.state.drain();
    }
}

/// Set once the thread runs; tests that turn the owner by hand leave it empty.
type Sleeper = OnceLock<std::thread::Thread>;
