//! What comes back for one request.

use super::constraint::Broken;
use super::sampler::Logprobs;
use super::state::State;
use crate::units::TokenId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// How far the prompt is. The first one comes when the request gets its place; later ones are left out for a slow reader.
    Prompt {
        /// Positions that were known from before.
        cached: usize,
        /// Positions done, those included.
        done: usize,
        total: usize,
        /// How long the request waited for its place.
        queued: Duration,
    },
    Token(Token),
    /// Always the last.
    End(End),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: TokenId,
    pub logprobs: Option<Logprobs>,
    /// Since the request got its place.
    pub after: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct End {
    pub reason: Reason,
    pub prompt: usize,
    pub cached: usize,
    pub generated: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The model ended its answer.
    Stop,
    /// As many tokens as asked for, or as fit.
    Length,
    /// The engine was stopped.
    Cancelled,
    /// The form that the answer is held to can't be followed any further.
    Broken(Broken),
    /// The device failed.
    Failed(String),
}

/// The receiving end. Dropping it cancels the request.
#[derive(Debug)]
pub struct Answer {
    /// An `Option` only so that dropping can close the channel before it wakes the engine.
    events: Option<mpsc::Receiver<Event>>,
    state: Arc<State>,
}

impl Answer {
    pub(super) fn new(events: mpsc::Receiver<Event>, state: Arc<State>) -> Self {
        Self { events: Some(events), state }
    }

    /// The next event; `None` after the end, and when the engine's thread is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.as_mut()?.recv().await;
        // There is room again: a sequence may have paused for it.
        self.state.wake();
        event
    }

    /// [`Answer::next`] for callers without an async runtime; must not be called inside one.
    pub fn blocking_next(&mut self) -> Option<Event> {
        let event = self.events.as_mut()?.blocking_recv();
        self.state.wake();
        event
    }

    /// What is there already.
    #[cfg(test)]
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.as_mut()?.try_recv().ok()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.events = None;
        self.state.wake();
    }
}
