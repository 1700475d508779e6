//! From a model's tokens to what a client is to see: characters are completed, stop strings end the text, thinking and tool calls are told
//! from what the user is to read.

use super::answer::{Event, TokenLogprob};
use super::stop::StopStrings;
use crate::chat::{Delta, Reader};
use crate::engine::{Logprobs, Token};
use crate::tokenizer::{TokenKind, TokenStream, Tokenizer};
use crate::units::TokenId;
use std::collections::VecDeque;
use std::sync::Arc;

/// Most tokens and characters of an answer's end that a message shows.
const END_TOKENS: usize = 8;
const END_CHARS: usize = 40;

/// Reads one answer.
pub struct Reading {
    tokenizer: Arc<Tokenizer>,
    stream: TokenStream,
    stop: StopStrings,
    /// `None`: all of it is for the user.
    reader: Option<Reader>,
    /// Of tokens whose text was not yet given out.
    logprobs: Vec<TokenLogprob>,
    thinking: bool,
    thought: usize,
    called: bool,
}

impl Reading {
    /// Of a text that is gone on with.
    pub fn text(tokenizer: Arc<Tokenizer>, stops: Vec<String>) -> Self {
        Self::new(tokenizer, TokenStream::continuing(false), stops, None)
    }

    /// Of an assistant's turn.
    pub fn chat(tokenizer: Arc<Tokenizer>, stops: Vec<String>, reader: Reader) -> Self {
        Self::new(tokenizer, TokenStream::new(false), stops, Some(reader))
    }

    fn new(tokenizer: Arc<Tokenizer>, stream: TokenStream, stops: Vec<String>, reader: Option<Reader>) -> Self {
        let stop = StopStrings::new(stops);
        Self { tokenizer, stream, stop, reader, logprobs: Vec::new(), thinking: false, thought: 0, called: false }
    }

    /// Tokens that were thinking.
    pub fn thought(&self) -> usize {
        self.thought
    }

    /// The text of the last of `tokens`, for messages.
    pub fn end_of(&self, tokens: &[TokenId]) -> String {
        let last = &tokens[tokens.len().saturating_sub(END_TOKENS)..];
        let text = String::from_utf8_lossy(&self.tokenizer.decode(last, true)).into_owned();
        let from = text.char_indices().rev().nth(END_CHARS - 1).map_or(0, |(at, _)| at);
        text[from..].to_owned()
    }

    /// Whether a tool was called.
    pub fn called(&self) -> bool {
        self.called
    }

    /// Appends what `token` completes to `out`. Answers whether a stop string ended the text.
    pub fn push(&mut self, token: Token, out: &mut VecDeque<Event>) -> bool {
        if let Some(told) = token.logprobs {
            let told = self.named(token.id, told);
            self.logprobs.push(told);
        }
        let text = self.stream.push(&self.tokenizer, token.id);
        let stopped = match self.reader.is_some() && self.tokenizer.vocab().kind(token.id) == TokenKind::Control {
            true => self.push_special(token.id, out),
            false => self.watch(&text, out),
        };
        self.thought += usize::from(self.thinking);
        stopped
    }

    /// The text is at its end: what was held back is given out. Answers as [`Reading::push`].
    pub fn finish(&mut self, out: &mut VecDeque<Event>) -> bool {
        let stopped = self.release(out);
        self.close(out);
        stopped
    }

    /// The same after a stop string: what is still held back comes behind it.
    pub fn close(&mut self, out: &mut VecDeque<Event>) {
        if let Some(reader) = &mut self.reader {
            let deltas = reader.finish();
            self.give(deltas, out);
        }
    }

    /// A control token may be a mark of thinking or of a call, and else is not shown. No stop string goes across it.
    fn push_special(&mut self, id: TokenId, out: &mut VecDeque<Event>) -> bool {
        let stopped = self.release(out);
        if let Some(reader) = self.reader.as_mut().filter(|_| !stopped) {
            let name = String::from_utf8_lossy(&self.tokenizer.token_bytes(id)).into_owned();
            let deltas = reader.push(&name, true);
            self.give(deltas, out);
        }
        stopped
    }

    fn release(&mut self, out: &mut VecDeque<Event>) -> bool {
        let rest = self.stream.finish();
        if self.watch(&rest, out) {
            return true;
        }
        let held = self.stop.finish();
        self.read(held, out);
        false
    }

    fn watch(&mut self, text: &str, out: &mut VecDeque<Event>) -> bool {
        let passed = self.stop.push(text);
        self.read(passed.text, out);
        passed.stopped
    }

    fn read(&mut self, text: String, out: &mut VecDeque<Event>) {
        if text.is_empty() {
            return;
        }
        let deltas = match &mut self.reader {
            Some(reader) => reader.push(&text, false),
            None => vec![Delta::Content(text)],
        };
        self.give(deltas, out);
    }

    fn give(&mut self, deltas: Vec<Delta>, out: &mut VecDeque<Event>) {
        for delta in deltas {
            self.thinking = matches!(delta, Delta::Reasoning(_));
            out.push_back(match delta {
                Delta::Content(text) => Event::Content { text, logprobs: std::mem::take(&mut self.logprobs) },
                Delta::Reasoning(text) => {
                    // Probabilities are told of what the user reads.
                    self.logprobs.clear();
                    Event::Reasoning(text)
                }
                Delta::ToolCallStart { index, id, name } => {
                    self.called = true;
                    self.logprobs.clear();
                    Event::ToolCall { index, id, name }
                }
                Delta::ToolCallArguments { index, fragment } => Event::ToolArguments { index, text: fragment },
            });
        }
    }

    fn named(&self, id: TokenId, told: Logprobs) -> TokenLogprob {
        let one = |id: TokenId, logprob: f32, top: Vec<TokenLogprob>| {
            let bytes = self.tokenizer.token_bytes(id);
            TokenLogprob { token: String::from_utf8_lossy(&bytes).into_owned(), bytes, logprob, top }
        };
        let top = told.top.iter().map(|&(id, logprob)| one(id, logprob, Vec::new())).collect();
        one(id, told.chosen, top)
    }
}
