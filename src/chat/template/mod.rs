//! A model's own chat template: Jinja as Hugging Face runs it, through minijinja.
//!
//! Here: compiling and rendering within limits. [`source`] adapts the template's text, whose tags [`mod@tags`] reads. [`printing`],
//! [`json`], [`methods`], [`filters`] and [`clock`] are Python's behaviours, [`origin`] tells the template's special tokens from those that
//! a message only contains.
//! What a request means (roles, parts, calls) is `chat`'s other rooms'; token ids are the tokenizer's.
//!
//! A template comes with the model's file and is not trusted: a render is paid for from a budget of fuel, which bounds its time and its
//! memory; source, nesting and values have bounds with names below; and the work runs on a stack of its own size.

mod arguments;
mod clock;
mod filters;
mod json;
mod methods;
mod origin;
mod printing;
mod source;
mod tags;

use origin::Ink;
pub use origin::{Piece, text_of};

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, Value};
use std::sync::Arc;

/// The longest template read; the longest in use (2026) has 30 kB.
pub const SOURCE_BYTES_MAX: usize = 512 << 10;

/// What every render may spend. One unit is an instruction or 64 bytes of text made; a long conversation with tools spends some 20,000.
const FUEL_BASE: u64 = 1_000_000;
/// And what it may spend more for each byte of its variables.
const FUEL_A_BYTE: u64 = 8;
/// No render spends more, whatever it is given: about 256 MB of text made, at most.
const FUEL_MAX: u64 = 4_000_000;

/// Reading a deep expression and dropping a deep list recurse; this much is enough for what source bound and fuel allow.
const STACK_BYTES: usize = 256 << 20;

/// The variables of a template: `messages`, `tools`, `add_generation_prompt`, `bos_token`, …
pub type Variables = serde_json::Map<String, serde_json::Value>;

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// The template's own string literals: what it may look for in a message.
    literals: Vec<String>,
}

/// Why a template gave no text.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum TemplateError {
    #[error("the chat template has {bytes} bytes, more than the {SOURCE_BYTES_MAX} that are read; give another with `--template`")]
    TooLong { bytes: usize },
    #[error(
        "the chat template has a tag of more than {} words and signs (line {line}); no model's template needs one",
        source::TAG_TOKENS_MAX
    )]
    TagTooLong { line: usize },
    #[error("the chat template can't be read (line {line}): {message}")]
    Syntax { line: usize, message: String },
    /// The template called `raise_exception`; these are its words.
    #[error("{0}")]
    Raised(String),
    #[error("the chat template did more work than a prompt can need ({fuel} steps) and was stopped; it may loop without end")]
    OutOfFuel { fuel: u64 },
    #[error("the chat template failed (line {line}): {message}")]
    Failed { line: usize, message: String },
    #[error("no memory for the chat template's stack: {0}")]
    NoStack(String),
}

impl Template {
    /// Reads and compiles a template.
    ///
    /// # Errors
    /// It is too long or no Jinja.
    pub fn new(text: &str) -> Result<Self, TemplateError> {
        if text.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len() });
        }
        on_large_stack(|| {
            let mut environment = Environment::new();
            // With both flags always set; they can't conflict, so there is nothing to fail.
            if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
                environment.set_syntax(syntax);
            }
            environment.set_formatter(|out, _, value| match value.kind() {
                ValueKind::String => Ok(out.write_str(value.as_str().unwrap_or_default())?),
                _ => Ok(out.write_str(&printing::str(value)?)?),
            });
            environment.set_unknown_method_callback(methods::call);
            filters::add_to(&mut environment);
            let source = source::rewrite(text).map_err(|line| TemplateError::TagTooLong { line })?;
            environment.add_template_owned(NAME, source).map_err(|e| TemplateError::from_minijinja(&e, 0))?;
            Ok(Self { environment, literals: source::string_literals(text) })
        })?
    }

    /// The prompt as text. `now` is what `strftime_now` tells.
    ///
    /// # Errors
    /// The template refused these messages ([`TemplateError::Raised`]), failed, or worked without end.
    pub fn render(&self, variables: &Variables, now: DateTime) -> Result<String, TemplateError> {
        on_large_stack(|| self.render_here(variables, now, None))?
    }

    /// The prompt as pieces, so that a special token in a message stays text. Their concatenation is [`Template::render`]'s text.
    ///
    /// `special` are the texts of the model's special tokens; `trusted` are variables whose text is the model's, not a user's.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_pieces(
        &self,
        variables: &Variables,
        now: DateTime,
        special: &[String],
        trusted: &[&str],
    ) -> Result<Vec<Piece>, TemplateError> {
        on_large_stack(|| {
            let text = self.render_here(variables, now, None)?;
            let render = |variables: &Variables, ink: &Arc<Ink>| self.render_here(variables, now, Some(ink)).ok();
            Ok(origin::pieces(text, variables, special, trusted, &self.literals, render))
        })?
    }

    fn render_here(&self, variables: &Variables, now: DateTime, ink: Option<&Arc<Ink>>) -> Result<String, TemplateError> {
        let fuel = (FUEL_BASE + FUEL_A_BYTE * bytes_of(variables)).min(FUEL_MAX);
        let fail = |e: minijinja::Error| TemplateError::from_minijinja(&e, fuel);
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        environment.add_function("strftime_now", move |format: &str| clock::strftime(now, format));
        let template = environment.get_template(NAME).map_err(fail)?;
        let ink = ink.map(|ink| (Ink::VARIABLE, Value::from_dyn_object(ink.clone())));
        let context = Value::from_pairs(variables.iter().map(|(name, value)| (name.as_str(), json::to_value(value))).chain(ink));
        template.render(context).map_err(fail)
    }
}

/// The one name in every environment; it has no ending that would switch escapes on.
const NAME: &str = "chat";

impl TemplateError {
    fn from_minijinja(error: &minijinja::Error, fuel: u64) -> Self {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(cause) = source {
            if let Some(raised) = cause.downcast_ref::<filters::Raised>() {
                return Self::Raised(raised.0.clone());
            }
            source = cause.source();
        }
        let line = error.line().unwrap_or(0);
        let message = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        };
        match error.kind() {
            ErrorKind::OutOfFuel => Self::OutOfFuel { fuel },
            ErrorKind::SyntaxError => Self::Syntax { line, message },
            _ => Self::Failed { line, message },
        }
    }
}

/// Bytes of text in all variables, roughly.
fn bytes_of(variables: &Variables) -> u64 {
    fn of(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::String(s) => 8 + s.len() as u64,
            serde_json::Value::Array(items) => 8 + items.iter().map(of).sum::<u64>(),
            serde_json::Value::Object(map) => map.iter().map(|(k, v)| 8 + k.len() as u64 + of(v)).sum(),
            _ => 8,
        }
    }
    variables.values().map(of).sum()
}

/// Runs `work` on a thread with [`STACK_BYTES`] of stack; pages that aren't touched cost nothing.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TemplateError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| TemplateError::NoStack(e.to_string()))?;
        thread.join().map_err(|_| TemplateError::Failed { line: 0, message: "the renderer stopped on a fault of its own".to_owned() })
    })
}
