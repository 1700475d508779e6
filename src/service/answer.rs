//! What comes back for one request, event by event, with counts and times.

use super::Error;
use super::reading::Reading;
use crate::engine::{self, Broken, Reason, Token};
use crate::units::TokenId;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// How far the prompt is; the first comes when the request gets its place.
    Prefill { cached: usize, done: usize, total: usize },
    /// Text for the user. With `logprobs` asked for, those of the tokens that went into it.
    Content { text: String, logprobs: Vec<TokenLogprob> },
    /// What the model thinks aloud.
    Reasoning(String),
    /// A tool call begins; its `index` counts from 0.
    ToolCall { index: usize, id: String, name: String },
    /// More of the arguments' JSON text of call `index`.
    ToolArguments { index: usize, text: String },
    /// Always the last.
    Done(Done),
}

#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token's text; bytes that are no characters are replaced.
    pub token: String,
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// The most likely tokens in its place. Their own `top` is empty.
    pub top: Vec<TokenLogprob>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    pub finish: Finish,
    pub usage: Usage,
    pub timings: Timings,
    /// The answer's tokens.
    pub tokens: Vec<TokenId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model's own end, or a stop string.
    Stop,
    Length,
    ToolCalls,
    /// The daemon stopped.
    Cancelled,
}

impl Finish {
    /// As the wire formats have it.
    pub fn word(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Of those, known from before.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Of those, thinking.
    pub reasoning_tokens: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Waiting for a place.
    pub queue: Duration,
    /// From the place to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// Of the prompt tokens computed; 0 where there was nothing to measure.
    pub prefill_tok_s: f64,
    /// Of the tokens after the first; 0 where there was nothing to measure.
    pub decode_tok_s: f64,
}

/// The answer to one request. Dropping it cancels.
pub struct Answer {
    engine: engine::Answer,
    reading: Reading,
    /// The field that asked for a form.
    held_by: Option<&'static str>,
    ready: VecDeque<Event>,
    ended: bool,
    tokens: Vec<TokenId>,
    usage: Usage,
    queued: Duration,
    first: Duration,
    last: Duration,
}

impl Answer {
    pub(super) fn new(engine: engine::Answer, reading: Reading, held_by: Option<&'static str>) -> Self {
        Self {
            engine,
            reading,
            held_by,
            ready: VecDeque::new(),
            ended: false,
            tokens: Vec::new(),
            usage: Usage::default(),
            queued: Duration::ZERO,
            first: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// The next event; `None` after [`Event::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let event = self.engine.next().await;
            if let Err(error) = self.take(event) {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Everything to the end, as one text: for those who don't stream.
    pub async fn collect(mut self) -> Result<(Vec<Event>, Done), Error> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                Event::Done(done) => return Ok((events, done)),
                event => events.push(event),
            }
        }
        Err(Error::Failed("the answer ended without an end".into()))
    }

    fn take(&mut self, event: Option<engine::Event>) -> Result<(), Error> {
        match event {
            Some(engine::Event::Prompt { cached, done, total, queued }) => {
                self.queued = queued;
                self.usage.prompt_tokens = total;
                self.usage.cached_tokens = cached;
                self.ready.push_back(Event::Prefill { cached, done, total });
            }
            Some(engine::Event::Token(token)) => self.take_token(token),
            Some(engine::Event::End(end)) => {
                self.usage.prompt_tokens = end.prompt;
                self.usage.cached_tokens = end.cached;
                match end.reason {
                    Reason::Stop => self.finish(Finish::Stop),
                    Reason::Length => self.finish(Finish::Length),
                    Reason::Cancelled => self.finish(Finish::Cancelled),
                    Reason::Broken(broken) => return Err(self.broken(broken)),
                    Reason::Failed(reason) => return Err(Error::Failed(reason)),
                }
            }
            None => return Err(Error::Failed("the engine ended in the middle of the answer; the log says why".into())),
        }
        Ok(())
    }

    fn take_token(&mut self, token: Token) {
        if self.tokens.is_empty() {
            self.first = token.after;
        }
        self.last = token.after;
        self.tokens.push(token.id);
        if self.reading.push(token, &mut self.ready) {
            self.reading.close(&mut self.ready);
            self.close(Finish::Stop);
        }
    }

    /// A form that led nowhere is its client's to mend: told is where, in the answer that the client alone sees.
    fn broken(&self, why: Broken) -> Error {
        let place = match self.tokens.len() {
            0 => "at its beginning".to_owned(),
            count => format!("behind its token {count}, where it ends in {:?},", self.reading.end_of(&self.tokens)),
        };
        let Broken(why) = why;
        Error::bad(self.held_by.unwrap_or("grammar"), format!("the answer can't be held to the form that was asked for: {place} {why}"))
    }

    /// The model's text ended: what was held back is shown after all.
    fn finish(&mut self, finish: Finish) {
        let stopped = self.reading.finish(&mut self.ready);
        self.close(if stopped { Finish::Stop } else { finish });
    }

    fn close(&mut self, finish: Finish) {
        self.usage.completion_tokens = self.tokens.len();
        self.usage.reasoning_tokens = self.reading.thought();
        let rate = |count: usize, time: Duration| if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() };
        let decode = self.last - self.first;
        let timings = Timings {
            queue: self.queued,
            prefill: self.first,
            decode,
            prefill_tok_s: rate(self.usage.prompt_tokens - self.usage.cached_tokens, self.first),
            decode_tok_s: rate(self.tokens.len().saturating_sub(1), decode),
        };
        let finish = if finish == Finish::Stop && self.reading.called() { Finish::ToolCalls } else { finish };
        self.ready.push_back(Event::Done(Done { finish, usage: self.usage, timings, tokens: std::mem::take(&mut self.tokens) }));
        self.ended = true;
    }
}
