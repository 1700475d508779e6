//! An answer's text becomes deltas: what is said, what is thought, which tools are called.
//!
//! Here: the [`Reader`], which holds back what may still become a mark and gives out the rest at once. Which marks there are is in [`format`],
//! how a call is written in [`calls`] (and [`pythonic`], [`braces`]), gpt-oss' channels in [`harmony`]. Stop strings are the service's.
//!
//! Three rules hold for every format:
//! - However the text is cut into fragments, the deltas' concatenation is the same.
//! - A call comes whole, and its arguments are a JSON object: text that fails to be a call is content, to the last character.
//! - Nothing is lost but marks, and white space around thoughts and calls.

mod braces;
mod calls;
mod format;
mod harmony;
mod pythonic;
#[cfg(test)]
mod tests;

pub use calls::Dialect;
pub use format::{Format, Marks};

use super::message::Tool;
use calls::Reading;
use format::Match;
use harmony::Harmony;

/// A step of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    Content(String),
    Reasoning(String),
    /// A call begins; calls are numbered from 0.
    ToolCallStart {
        index: usize,
        id: String,
        name: String,
    },
    /// A piece of the call's arguments; all pieces together are a JSON object.
    ToolCallArguments {
        index: usize,
        fragment: String,
    },
}

/// The longest text held back for one call; a longer one is content.
const CALL_BYTES_MAX: usize = 1 << 20;

/// Reads one answer.
pub struct Reader {
    state: State,
    marks: Option<Marks>,
    dialect: Dialect,
    /// Marks without a meaning for the client (`<response>`), dropped from content.
    dropped: &'static [&'static str],
    tools: Vec<Tool>,
    /// Text not yet given out.
    held: String,
    /// Nothing but white space has been said since the answer's start, a thought or a call.
    at_start: bool,
    /// White space that begins `held` follows a thought or a call, and goes.
    trims: bool,
    seed: u64,
    calls: usize,
}

enum State {
    Content,
    Reasoning,
    Harmony(Harmony),
}

/// What one look at the held text came to.
enum Step {
    /// Go on with what is left.
    Again,
    /// More text is needed.
    Wait,
}

impl Reader {
    /// A reader for the answer to a prompt that ends as `prompt` does: a thought opened there is already under way.
    ///
    /// Without tools, no text is taken for a call.
    pub fn new(format: &Format, tools: &[Tool], prompt: &str, seed: u64) -> Self {
        let marks = format.reasoning;
        let thinks = format.thought_opened_by(prompt).is_some();
        let state = match (format.harmony, thinks) {
            (true, _) => State::Harmony(Harmony::after(prompt)),
            (false, true) => State::Reasoning,
            (false, false) => State::Content,
        };
        let dialect = if tools.is_empty() { Dialect::None } else { format.dialect };
        Self {
            state,
            marks,
            dialect,
            dropped: format.dropped,
            tools: tools.to_vec(),
            held: String::new(),
            at_start: true,
            trims: thinks,
            seed,
            calls: 0,
        }
    }

    /// Reads on. `special` says that `text` is one special token's: it is a mark, or it isn't shown.
    pub fn push(&mut self, text: &str, special: bool) -> Vec<Delta> {
        let mut out = Vec::new();
        if special && !self.is_mark(text) {
            return out;
        }
        self.held.push_str(text);
        self.run(false, &mut out);
        out
    }

    /// The answer is at its end: what was held back is decided.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut out = Vec::new();
        self.run(true, &mut out);
        out
    }

    fn is_mark(&self, text: &str) -> bool {
        let reasoning = self.marks.iter().flat_map(|m| [m.open, m.close]);
        let mut marks = reasoning.chain(self.dialect.marks().iter().copied()).chain(self.dropped.iter().copied());
        matches!(self.state, State::Harmony(_)) || marks.any(|mark| mark.contains(text))
    }

    fn run(&mut self, at_end: bool, out: &mut Vec<Delta>) {
        loop {
            let step = match &mut self.state {
                State::Content => self.content(at_end, out),
                State::Reasoning => self.reasoning(at_end, out),
                State::Harmony(harmony) => match harmony.step(&mut self.held, at_end, out) {
                    Some((name, arguments)) => {
                        self.call(name, arguments, out);
                        Step::Again
                    }
                    None => Step::Wait,
                },
            };
            if matches!(step, Step::Wait) {
                return;
            }
        }
    }

    fn reasoning(&mut self, at_end: bool, out: &mut Vec<Delta>) -> Step {
        self.trim_held();
        let Some(marks) = self.marks else { return Step::Wait };
        match format::find(&self.held, marks.close) {
            Match::Whole(at) => {
                let thought = self.held[..at].trim_end().to_owned();
                self.held.drain(..at + marks.close.len());
                push_text(out, Delta::Reasoning(thought));
                (self.state, self.at_start, self.trims) = (State::Content, true, true);
                Step::Again
            }
            Match::Begun(_) | Match::None if at_end => {
                push_text(out, Delta::Reasoning(std::mem::take(&mut self.held)));
                Step::Wait
            }
            Match::Begun(at) => {
                self.give(at, true, Delta::Reasoning, out);
                Step::Wait
            }
            Match::None => {
                self.give(self.held.len(), true, Delta::Reasoning, out);
                Step::Wait
            }
        }
    }

    fn content(&mut self, at_end: bool, out: &mut Vec<Delta>) -> Step {
        self.trim_held();
        match self.next_mark() {
            None => {
                // What begins a call or a thought takes the white space before it along.
                let may_begin = self.dialect != Dialect::None || self.at_start && self.marks.is_some();
                let keeps_spaces = may_begin && !at_end;
                self.give(self.held.len(), keeps_spaces, Delta::Content, out);
                Step::Wait
            }
            Some((Match::Begun(at), _)) if !at_end => {
                self.give(at, true, Delta::Content, out);
                Step::Wait
            }
            Some((Match::Begun(_) | Match::None, _)) => {
                self.give(self.held.len(), false, Delta::Content, out);
                Step::Wait
            }
            Some((Match::Whole(at), mark)) => {
                // White space before a thought or a call belongs to it; before a dropped mark it is said.
                let said = if mark == Mark::Dropped { at } else { self.held[..at].trim_end().len() };
                self.give(said, false, Delta::Content, out);
                let at = at - said;
                match mark {
                    Mark::Reasoning(open) => {
                        self.held.drain(..at + open.len());
                        (self.state, self.trims) = (State::Reasoning, true);
                        Step::Again
                    }
                    Mark::Dropped => {
                        let len = self.dropped.iter().find(|mark| self.held.starts_with(**mark)).map_or(0, |mark| mark.len());
                        self.held.drain(..len);
                        Step::Again
                    }
                    Mark::Call => self.read_call(at, at_end, out),
                }
            }
        }
    }

    /// The first mark in the held text, whole or begun.
    fn next_mark(&self) -> Option<(Match, Mark)> {
        let starts_here = self.at_start && !self.held.trim_start().is_empty();
        let reasoning = self.marks.filter(|_| self.at_start).map(|m| (format::find(&self.held, m.open), Mark::Reasoning(m.open)));
        // A thought comes first or not at all: its mark later in the text is talk about thoughts.
        let reasoning = reasoning.filter(|(found, _)| found.at().is_some_and(|at| self.held[..at].trim().is_empty()));
        let dropped = self.dropped.iter().map(|mark| (format::find(&self.held, mark), Mark::Dropped));
        let call = (self.dialect.find(&self.held, starts_here), Mark::Call);
        let found = reasoning.into_iter().chain(dropped).chain([call]).filter(|(found, _)| found.at().is_some());
        found.min_by_key(|(found, _)| (found.at(), matches!(found, Match::Whole(_))))
    }

    /// The held text has a call's mark after `spaces` bytes of white space.
    fn read_call(&mut self, spaces: usize, at_end: bool, out: &mut Vec<Delta>) -> Step {
        let text = &self.held[spaces..];
        match self.dialect.read(text, &self.tools, at_end) {
            Reading::More if !at_end && self.held.len() <= CALL_BYTES_MAX => Step::Wait,
            Reading::Calls { len, calls } => {
                self.held.drain(..spaces + len);
                for call in calls {
                    self.call(call.name, call.arguments, out);
                }
                (self.at_start, self.trims) = (true, true);
                Step::Again
            }
            Reading::More | Reading::No => {
                // The mark is content, and what follows is looked at again.
                let first = text.chars().next().map_or(0, char::len_utf8);
                let mark = self.dialect.mark_at(text).map_or(first, str::len);
                self.give(spaces + mark, false, Delta::Content, out);
                Step::Again
            }
        }
    }

    fn call(&mut self, name: String, arguments: String, out: &mut Vec<Delta>) {
        let index = self.calls;
        self.calls += 1;
        out.push(Delta::ToolCallStart { index, id: call_id(self.seed, index as u64 + 1), name });
        out.push(Delta::ToolCallArguments { index, fragment: arguments });
    }

    /// Gives out the first `len` bytes of the held text, but, if asked to, none of the white space that ends them.
    fn give(&mut self, len: usize, keeps_spaces: bool, kind: fn(String) -> Delta, out: &mut Vec<Delta>) {
        let len = if keeps_spaces { self.held[..len].trim_end().len() } else { len };
        let text: String = self.held.drain(..len).collect();
        if matches!(self.state, State::Content) && !text.trim().is_empty() {
            self.at_start = false;
        }
        push_text(out, kind(text));
    }

    /// Drops white space that follows a mark.
    fn trim_held(&mut self) {
        if self.trims {
            let spaces = self.held.len() - self.held.trim_start().len();
            self.held.drain(..spaces);
            self.trims = self.held.is_empty();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Reasoning(&'static str),
    Dropped,
    Call,
}

fn push_text(out: &mut Vec<Delta>, delta: Delta) {
    if !matches!(&delta, Delta::Content(text) | Delta::Reasoning(text) if text.is_empty()) {
        out.push(delta);
    }
}

/// An id of nine letters and digits, the form that every template accepts.
pub fn call_id(seed: u64, number: u64) -> String {
    // splitmix64: neighbouring inputs give unlike ids.
    let mut x = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..9).map(|place| char::from(DIGITS[(x / 36u64.pow(place) % 36) as usize])).collect()
}
