//! Holds an answer to a form: which of the model's tokens may come next, found by the crate `llguidance`, which compiles schemas and
//! grammars to a parser over bytes.
//!
//! [`Grammars`] knows the vocabulary; what it builds of it takes a second and 45 MB for 262,144 words, so it is built when the first
//! answer is to be held to a form, on the thread of that request. [`super::lark`] writes a form in llguidance's language.

use super::Error;
use super::lark::Lark;
use crate::chat::Form;
use crate::engine::{Broken, Constraint};
use crate::tokenizer::{TokenKind, Tokenizer};
use crate::units::TokenId;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use std::sync::{Arc, OnceLock};

/// Most bytes of a form, schemas included. The tools of Home Assistant with a hundred entities have some 12 kB.
const FORM_BYTES_MAX: usize = 512 << 10;

/// Most rules, brackets, objects and lists of a form. llguidance goes down into those that lead to each other by recursion, and takes 2 to 7 kB
/// of stack for one (measured on x86-64): a chain of 300 overflowed a thread's usual 2 MiB, which ends the process.
const PARTS_MAX: usize = 10_000;
/// Enough for a chain of so many, and as much again; pages that aren't touched cost nothing.
const STACK_BYTES: usize = 128 << 20;

/// What one answer's parser may take: memory and time on the engine's thread stay bounded whatever a schema says.
fn limits() -> ParserLimits {
    ParserLimits {
        // 14,000 a millisecond on a desktop, so some 50 ms a token on a Cortex-A72 at the very worst.
        step_lexer_fuel: 200_000,
        // Each takes 1 to 2 kB.
        max_lexer_states: 16_384,
        max_grammar_size: 200_000,
        // Errors are shown to clients and written to the log: they must not quote the conversation.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Makes constraints for the answers of one model.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// Words of the model's output; there can be more than the tokenizer has.
    words: usize,
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Grammars {
    pub fn new(tokenizer: Arc<Tokenizer>, words: usize) -> Self {
        Self { tokenizer, words, factory: OnceLock::new() }
    }

    /// Holds an answer to `form`. `param` is the field to blame where that can't be done.
    ///
    /// `lenient`: what can't be held to in a schema is left out rather than refused.
    pub fn hold(&self, form: &Form, lenient: bool, param: &'static str) -> Result<Box<dyn Constraint>, Error> {
        let lark = Lark::new(self.tokenizer.vocab(), lenient).write(form).map_err(|e| Error::bad(param, e.to_string()))?;
        if lark.len() > FORM_BYTES_MAX {
            return Err(Error::bad(param, format!("{} bytes of schemas are more than the {FORM_BYTES_MAX} that are taken", lark.len())));
        }
        let parts = lark.bytes().filter(|b| b"([{\n".contains(b)).count();
        if parts > PARTS_MAX {
            return Err(Error::bad(
                param,
                format!("{parts} rules, brackets, objects and lists are more than the {PARTS_MAX} that are taken"),
            ));
        }
        let factory = self.factory.get_or_init(|| self.build()).as_ref().map_err(|reason| Error::bad(param, reason.clone()))?;
        let matcher = on_large_stack(|| parsing(factory, lark, begins_as_asked(form)).map_err(|why| Error::bad(param, why)))??;
        // Behind a thought, what a client wrote is looked at by itself.
        if let Some(asked) = asked_behind(form).filter(|_| !begins_as_asked(form)) {
            self.hold(asked, lenient, param)?;
        }
        Ok(Box::new(Held { matcher, tokens: factory.tok_env().clone() }))
    }

    fn build(&self) -> Result<ParserFactory, String> {
        let vocabulary = self.tokenizer.vocab();
        let word = |id: TokenId| match vocabulary.kind(id) {
            // What is not shown must not stand for text.
            TokenKind::Control | TokenKind::Unknown => [&[TokTrie::SPECIAL_TOKEN_MARKER], vocabulary.text(id).unwrap_or_default()].concat(),
            _ => self.tokenizer.token_bytes(id),
        };
        let words: Vec<Vec<u8>> = (0..self.words as u32).map(TokenId).map(word).collect();
        let ends: Vec<u32> = vocabulary.special().ends.iter().map(|t| t.0).filter(|t| (*t as usize) < self.words).collect();
        let Some(&end) = ends.first() else { return Err("this model's vocabulary has no token that ends an answer".into()) };
        let trie = TokTrie::from(&TokRxInfo::new(self.words as u32, end), &words).with_eos_tokens(&ends);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // Its slices of the vocabulary make masks of free text quick and cost a further 70 MB: masks of free text are hardly ever needed.
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &[]).map_err(|e| first_line(&e.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(factory)
    }
}

/// A parser of the grammar, or why there is none. `looks`: also whether any text fits; a client's own form that none fits is its fault, not
/// the answer's. (Others begin with free text, whose mask is slow to make.)
fn parsing(factory: &ParserFactory, lark: String, looks: bool) -> Result<Matcher, String> {
    let parser = factory.create_parser(TopLevelGrammar::from_lark(lark)).map_err(|e| first_line(&e.to_string()))?;
    let mut matcher = Matcher::new(Ok(parser));
    if let Some(error) = matcher.get_error() {
        return Err(first_line(&error));
    }
    if looks {
        matcher.compute_mask_or_eos().map_err(|e| broken(e).0)?;
    }
    Ok(matcher)
}

/// Runs `work` on a thread with [`STACK_BYTES`] of stack.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::NoMemory(format!("no memory to read the form that was asked for: {e}")))?;
        thread.join().map_err(|_| Error::Failed("the form that was asked for could not be read; the log has the fault's message".into()))
    })
}

/// Whether an answer of this form begins with what a client wrote.
fn begins_as_asked(form: &Form) -> bool {
    match form {
        Form::Grammar(_) | Form::Json(_) => true,
        Form::Sequence(parts) => parts.first().is_some_and(begins_as_asked),
        _ => false,
    }
}

/// What a client wrote, where something of ours comes before it.
fn asked_behind(form: &Form) -> Option<&Form> {
    match form {
        Form::Sequence(parts) => parts.iter().find(|part| begins_as_asked(part)),
        _ => None,
    }
}

/// Errors of the parser can bring a backtrace along. Those of a regular expression show it, and say what is wrong below.
fn first_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let reason = text.lines().find_map(|line| line.strip_prefix("error: ")).filter(|_| first.ends_with(':'));
    reason.map_or(first.to_owned(), |reason| format!("{first} {reason}"))
}

/// One answer, as far as it has come.
struct Held {
    matcher: Matcher,
    tokens: TokEnv,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("complete", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl Constraint for Held {
    fn allows(&mut self, token: TokenId) -> Result<bool, Broken> {
        let trie = self.tokens.tok_trie();
        // Words without a byte fit everywhere and come to nothing.
        if trie.token(token.0).is_empty() {
            return Ok(false);
        }
        if self.matcher.is_stopped() {
            return Ok(trie.eos_tokens().contains(&token.0));
        }
        Ok(self.matcher.validate_tokens(&[token.0]).map_err(broken)? == 1)
    }

    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Broken> {
        let allowed: SimpleVob = self.matcher.compute_mask_or_eos().map_err(broken)?;
        allowed.iter_unset_entries(|token| {
            if let Some(logit) = logits.get_mut(token) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    fn advance(&mut self, token: TokenId) -> Result<bool, Broken> {
        if self.matcher.is_stopped() {
            return Ok(true);
        }
        self.matcher.consume_token(token.0).map_err(broken)?;
        Ok(self.matcher.is_stopped())
    }
}

fn broken(error: impl std::fmt::Display) -> Broken {
    let text = first_line(&error.to_string());
    // The parser's words for a dead end, and for more ways than `max_items_in_row`.
    if text.contains("NoExtensionBias") {
        Broken::dead_end()
    } else if text.contains("Current row has") {
        Broken("more ways lead on than can be followed; has it hundreds of members that may all be left out?".into())
    } else {
        Broken(text)
    }
}

#[cfg(test)]
mod tests;
