//! One request on its way: what is to be computed, what is done, and where its state lies.

use super::Request;
use super::answer::{End, Event, Reason, Token};
use super::sampler::{Logprobs, NoToken, Sampler};
use super::state::Place;
use crate::backend::{BLOCK_TOKENS, BlockId, SlotId};
use crate::units::TokenId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A request as it travels from the handle to the thread.
#[derive(Debug)]
pub struct Ticket {
    pub request: Request,
    pub events: mpsc::Sender<Event>,
    pub place: Place,
    pub submitted: Instant,
}

/// A step makes at most one token and, with the last, the end: so much room must be there before it is computed.
const EVENTS_A_STEP: usize = 2;

#[derive(Debug)]
pub struct Sequence {
    /// Prompt and answer so far.
    pub tokens: Vec<TokenId>,
    /// How many of `tokens` are the prompt.
    prompt: usize,
    /// How many of `tokens` the cache holds.
    pub computed: usize,
    pub blocks: Vec<BlockId>,
    /// How many of `blocks` are in the tree of prefixes.
    pub kept: usize,
    pub slot: Option<SlotId>,
    pub boundaries: Vec<usize>,
    pub fresh: bool,
    /// Asked for with a seed: the same request is to give the same text. So neither a known beginning nor the pace changes the way in
    /// which its last rows are computed (see [`ALIKE`](crate::backend::ALIKE)); what others are computed beside it may, in the last bits.
    pub repeatable: bool,
    sampler: Sampler,
    stop: Arc<[TokenId]>,
    max_tokens: usize,
    events: mpsc::Sender<Event>,
    submitted: Instant,
    started: Option<Started>,
    _place: Place,
}

/// The moment a request first got its place.
#[derive(Clone, Copy, Debug)]
struct Started {
    at: Instant,
    queued: Duration,
    cached: usize,
}

impl Sequence {
    pub fn new(ticket: Ticket) -> Self {
        let Ticket { request, events, place, submitted } = ticket;
        Self {
            prompt: request.prompt.len(),
            repeatable: request.sampling.seed.is_some(),
            sampler: Sampler::new(request.sampling, &request.prompt, request.constraint),
            tokens: request.prompt,
            computed: 0,
            blocks: Vec::new(),
            kept: 0,
            slot: None,
            boundaries: request.boundaries,
            fresh: request.fresh,
            stop: request.stop,
            max_tokens: request.max_tokens,
            events,
            submitted,
            started: None,
            _place: place,
        }
    }

    /// Rows still to compute before the next token.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the next step gives its next token from the last one alone.
    pub fn answering(&self) -> bool {
        self.pending() == 1 && self.tokens.len() > self.prompt
    }

    /// Whether the reader has room for what a step may bring.
    pub fn ready(&self) -> bool {
        self.events.capacity() >= EVENTS_A_STEP
    }

    /// Whether the reader went away.
    pub fn abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether every token so far has a block to go to.
    pub fn has_room(&self) -> bool {
        self.blocks.len() * BLOCK_TOKENS >= self.tokens.len()
    }

    /// The next position after `computed` at which a snapshot is asked for.
    pub fn next_boundary(&self) -> Option<usize> {
        self.boundaries.iter().copied().filter(|&b| b > self.computed && b < self.tokens.len()).min()
    }

    /// The request has got a place with `computed` positions known already. Answers how many of them are news.
    pub fn start(&mut self) -> usize {
        let first = self.started.is_none();
        let now = Instant::now();
        let started = *self.started.get_or_insert(Started { at: now, queued: now - self.submitted, cached: self.computed });
        self.progress();
        if first { started.cached } else { 0 }
    }

    /// Tells how far the prompt is, if the reader has room to spare.
    pub fn progress(&mut self) {
        if let Some(started) = self.started.filter(|_| self.computed <= self.prompt && self.events.capacity() >= 2 * EVENTS_A_STEP) {
            let Started { queued, cached, .. } = started;
            let _ = self.events.try_send(Event::Prompt { cached, done: self.computed, total: self.prompt, queued });
        }
    }

    /// Chooses the next token from `logits` and hands it out. Answers why the sequence ends, if it does.
    pub fn advance(&mut self, logits: &mut [f32], context: usize) -> Option<Reason> {
        if self.max_tokens == 0 {
            return Some(Reason::Length);
        }
        let chosen = match self.sampler.choose(logits) {
            Ok(chosen) => chosen,
            Err(NoToken::Broken(why)) => return Some(Reason::Broken(why)),
            Err(why @ NoToken::NoNumber) => return Some(Reason::Failed(why.to_string())),
        };
        if self.stop.contains(&chosen.token) {
            return Some(Reason::Stop);
        }
        self.tokens.push(chosen.token);
        self.hand_out(chosen.token, chosen.logprobs);
        if chosen.completes {
            return Some(Reason::Stop);
        }
        (self.generated() >= self.max_tokens || self.tokens.len() >= context).then_some(Reason::Length)
    }

    /// Tells the reader, for whom [`EVENTS_A_STEP`] kept room, that this was all.
    pub fn end(self, reason: Reason) {
        let cached = self.started.map_or(0, |s| s.cached);
        let end = End { reason, prompt: self.prompt, cached, generated: self.generated() };
        // A reader that went away in this very moment needs no end.
        let _ = self.events.try_send(Event::End(end));
    }

    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    fn hand_out(&mut self, id: TokenId, logprobs: Option<Logprobs>) {
        let after = self.started.map_or(Duration::ZERO, |s| s.at.elapsed());
        let _ = self.events.try_send(Event::Token(Token { id, logprobs, after }));
    }
}
