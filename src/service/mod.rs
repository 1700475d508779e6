//! Words in, words out: what a client can ask of a model, in plain types. The HTTP paths, the bus and `hearth run` are thin over this.
//!
//! - [`Service`]: the one model that clients reach now; it can be loading, or be exchanged while they look.
//! - [`Model`]: a model that was opened, and the verbs on it.
//! - [`request`]: what can be asked, and what is wrong with it; [`answer`]: what comes back, event by event.
//! - [`Error`]: the words for everything that can go wrong, the same on every way in.
//! - `open` (file → engine, and how much memory to use), `warm` (the file's way into memory), `prompt` (messages → tokens),
//!   `reading` (tokens → what a client sees), `stop` (stop strings).
//! - `grammar` (holds an answer to a form), with `lark` and `gbnf`, the notations of forms.
//!
//! No socket, no bus and no JSON of a wire format lives here; messages and tools are JSON because chat templates read them as that.

pub mod answer;
mod error;
mod gbnf;
mod grammar;
mod lark;
mod model;
mod open;
mod prompt;
mod reading;
pub mod request;
mod stop;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tiny;
mod warm;

pub use answer::{Answer, Done, Event, Finish, Timings, TokenLogprob, Usage};
pub use error::Error;
pub use model::{Model, ModelInfo};
pub use open::{OpenError, Options};
pub use request::{AnswerForm, ChatRequest, CompletionRequest, Defaults, Generation, Prompt, ToolChoice};

pub use crate::backend::{Kind, KvType, Pace, Progress, cache_folder};
pub use crate::engine::{Limits, Phase, Telemetry};
pub use crate::units::TokenId;

use std::sync::Arc;
use tokio::sync::watch;

/// What clients find when they come.
#[derive(Clone, Debug)]
pub enum State {
    /// `done` of `total` bytes are there. Requests may wait for it: [`Service::ready`].
    Loading {
        done: u64,
        total: u64,
    },
    Ready(Arc<Model>),
    /// No new requests; those inside are being answered.
    Draining,
    /// There is no model, and why.
    Failed(String),
}

/// The model of the moment, exchanged at once for everybody: a request keeps the model it began with.
#[derive(Clone, Debug)]
pub struct Service {
    state: Arc<watch::Sender<State>>,
}

impl Service {
    pub fn new(state: State) -> Self {
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// From here on clients see this. The state before is given back, so that its model can be drained.
    pub fn set(&self, state: State) -> State {
        self.state.send_replace(state)
    }

    /// How far a load is. Changes nothing once it has come to its end.
    pub fn advance(&self, done: u64, total: u64) {
        self.state.send_if_modified(|state| match state {
            State::Loading { done: d, total: t } => {
                (*d, *t) = (done, total);
                true
            }
            _ => false,
        });
    }

    /// To look at, and to wait for changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The model, if it is there now.
    pub fn model(&self) -> Result<Arc<Model>, Error> {
        self.state.borrow().model()
    }

    /// The model; waits while it is being loaded, since a client that asks too early would rather wait than ask again.
    pub async fn ready(&self) -> Result<Arc<Model>, Error> {
        let mut seen = self.state();
        let state = seen.wait_for(|s| !matches!(s, State::Loading { .. })).await.map(|s| s.clone());
        state.map_err(|_| Error::NotReady("the service has ended".into()))?.model()
    }
}

impl State {
    fn model(&self) -> Result<Arc<Model>, Error> {
        match self {
            State::Ready(model) => Ok(model.clone()),
            State::Loading { done, total } => {
                let percent = 100 * done / (*total).max(1);
                Err(Error::NotReady(format!("the model is being loaded ({percent} %); try again in a moment")))
            }
            State::Draining => Err(Error::NotReady("the daemon is stopping; try again when it is back".into())),
            State::Failed(reason) => Err(Error::NotReady(format!("no model is loaded: {reason}"))),
        }
    }
}
