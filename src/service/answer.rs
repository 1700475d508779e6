//! What comes back for one request, event by event: tokens become characters, stop strings end the text, thinking and tool calls are told
//! from what the user is to read.

use super::Error;
use super::prompt::Reader;
use super::stop::StopStrings;
use crate::engine::{self, Reason, Token};
use crate::tokenizer::{TokenStream, Tokenizer};
use crate::units::TokenId;
use std::collections::VecDeque;
use std::sync::Arc;
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

/// How tokens are read.
pub struct Watch {
    tokenizer: Arc<Tokenizer>,
    stream: TokenStream,
    reader: Reader,
}

impl Watch {
    /// As the continuation of a text.
    pub(super) fn text(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, stream: TokenStream::continuing(false), reader: Reader::plain() }
    }

    /// As an assistant's turn.
    pub(super) fn chat(tokenizer: Arc<Tokenizer>, reader: Reader) -> Self {
        Self { tokenizer, stream: TokenStream::new(reader.wants_special()), reader }
    }
}

/// The answer to one request. Dropping it cancels.
pub struct Answer {
    engine: engine::Answer,
    watch: Watch,
    stop: StopStrings,
    ready: VecDeque<Event>,
    ended: bool,
    tokens: Vec<TokenId>,
    logprobs: Vec<TokenLogprob>,
    usage: Usage,
    queued: Duration,
    first: Duration,
    last: Duration,
}

impl Answer {
    pub(super) fn new(engine: engine::Answer, watch: Watch, stop: Vec<String>) -> Self {
        Self {
            engine,
            watch,
            stop: StopStrings::new(stop),
            ready: VecDeque::new(),
            ended: false,
            tokens: Vec::new(),
            logprobs: Vec::new(),
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
                    Reason::Failed(reason) => return Err(Error::Failed(reason)),
                }
            }
            None => return Err(Error::Failed("the engine ended in the middle of the answer; the log says why".into())),
        }
        Ok(())
    }

    fn take_token(&mut self, token: Token) {
        let text = self.watch.stream.push(&self.watch.tokenizer, token.id);
        if self.tokens.is_empty() {
            self.first = token.after;
        }
        self.last = token.after;
        self.tokens.push(token.id);
        if let Some(told) = token.logprobs {
            let named = |id: TokenId, logprob, top| {
                let bytes = self.watch.tokenizer.token_bytes(id);
                TokenLogprob { token: String::from_utf8_lossy(&bytes).into_owned(), bytes, logprob, top }
            };
            let top = told.top.iter().map(|&(id, logprob)| named(id, logprob, Vec::new())).collect();
            let told = named(token.id, told.chosen, top);
            self.logprobs.push(told);
        }
        let passed = self.stop.push(&text);
        self.show(&passed.text);
        if self.watch.reader.thinking() {
            self.usage.reasoning_tokens += 1;
        }
        if passed.stopped {
            self.finish_now(Finish::Stop);
        }
    }

    /// The model's text ended: what was held back is shown after all.
    fn finish(&mut self, finish: Finish) {
        let rest = self.watch.stream.finish();
        let passed = self.stop.push(&rest);
        self.show(&passed.text);
        let held = if passed.stopped { String::new() } else { self.stop.finish() };
        self.show(&held);
        self.finish_now(if passed.stopped { Finish::Stop } else { finish });
    }

    fn finish_now(&mut self, finish: Finish) {
        self.watch.reader.finish(&mut self.ready);
        self.give_logprobs();
        self.usage.completion_tokens = self.tokens.len();
        let calls = finish == Finish::Stop && self.watch.reader.called();
        let rate = |count: usize, time: Duration| if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() };
        let decode = self.last - self.first;
        let timings = Timings {
            queue: self.queued,
            prefill: self.first,
            decode,
            prefill_tok_s: rate(self.usage.prompt_tokens - self.usage.cached_tokens, self.first),
            decode_tok_s: rate(self.tokens.len().saturating_sub(1), decode),
        };
        let finish = if calls { Finish::ToolCalls } else { finish };
        self.ready.push_back(Event::Done(Done { finish, usage: self.usage, timings, tokens: std::mem::take(&mut self.tokens) }));
        self.ended = true;
    }

    fn show(&mut self, text: &str) {
        if !text.is_empty() {
            self.watch.reader.push(text, &mut self.ready);
            self.give_logprobs();
        }
    }

    /// Hands the collected probabilities to the content that is about to go out.
    fn give_logprobs(&mut self) {
        if let Some(Event::Content { logprobs, .. }) = self.ready.iter_mut().rev().find(|e| matches!(e, Event::Content { .. })) {
            logprobs.append(&mut self.logprobs);
        }
    }
}
