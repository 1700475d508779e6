//! Between messages and tokens: the file's chat template with the variables it expects, and who reads the answer.

use super::Error;
use super::answer::Event;
use super::request::{ChatRequest, Defaults, ToolChoice};
use crate::chat::template::{self, Template, TemplateError, Variables};
use crate::gguf::Gguf;
use crate::tokenizer::{Piece, TokenKind, Tokenizer};
use crate::units::TokenId;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Most messages and tools of a request.
const MESSAGES_MAX: usize = 4096;
const TOOLS_MAX: usize = 256;

/// A file's chat template, ready to be used, or why it is not.
pub struct ChatPrompt {
    template: Result<Template, String>,
    /// Texts of the tokens that only the template may write.
    special: Vec<String>,
    /// `bos_token` and `eos_token`.
    marks: Variables,
}

impl ChatPrompt {
    pub fn read(file: &Gguf, tokenizer: &Tokenizer) -> Self {
        let vocabulary = tokenizer.vocab();
        let text = |id: TokenId| String::from_utf8_lossy(vocabulary.text(id).unwrap_or_default()).into_owned();
        let structural = |id: &TokenId| match vocabulary.kind(*id) {
            TokenKind::Control => true,
            // Some files type their control tokens so.
            TokenKind::UserDefined => text(*id).starts_with("<|") && text(*id).ends_with("|>"),
            _ => false,
        };
        let special = (0..vocabulary.len() as u32).map(TokenId).filter(structural).map(text).collect();
        let marks = [("bos_token", vocabulary.special().bos), ("eos_token", vocabulary.special().eos)];
        let marks = marks.into_iter().filter_map(|(name, id)| Some((name.to_owned(), Value::String(text(id?))))).collect();
        let template = match file.meta().optional::<&str>("tokenizer.chat_template") {
            Ok(Some(source)) => Template::new(source).map_err(|e| e.to_string()),
            Ok(None) => Err("this model has no chat template (it is no chat model); ask it to complete a text instead".into()),
            Err(error) => Err(error.to_string()),
        };
        Self { template, special, marks }
    }

    pub fn usable(&self) -> Result<&Template, Error> {
        self.template.as_ref().map_err(|reason| Error::bad("messages", reason.clone()))
    }

    /// The conversation as the template writes it.
    pub fn text(&self, request: &ChatRequest, defaults: &Defaults) -> Result<String, Error> {
        let variables = self.variables(request, defaults)?;
        self.usable()?.render(&variables, now()).map_err(refused)
    }

    /// The conversation in tokens, and the reader of the answer to it.
    pub fn prompt(&self, tokenizer: &Tokenizer, request: &ChatRequest, defaults: &Defaults) -> Result<(Vec<TokenId>, Reader), Error> {
        let variables = self.variables(request, defaults)?;
        let trusted: Vec<&str> = self.marks.keys().map(String::as_str).collect();
        let pieces = self.usable()?.render_pieces(&variables, now(), &self.special, &trusted).map_err(refused)?;
        let pieces: Vec<Piece<'_>> = pieces
            .iter()
            .map(|p| match p {
                template::Piece::Text(text) => Piece::Text(text),
                template::Piece::Special(text) => Piece::Special(text),
            })
            .collect();
        Ok((tokenizer.encode_pieces(&pieces), Reader::plain()))
    }

    fn variables(&self, request: &ChatRequest, defaults: &Defaults) -> Result<Variables, Error> {
        if request.messages.is_empty() {
            return Err(Error::bad("messages", "give at least one message"));
        }
        if request.messages.len() > MESSAGES_MAX || request.tools.len() > TOOLS_MAX {
            return Err(Error::bad("messages", format!("more than {MESSAGES_MAX} messages or {TOOLS_MAX} tools are not taken")));
        }
        let mut variables = self.marks.clone();
        variables.insert("messages".into(), request.messages.clone().into());
        if !request.tools.is_empty() && request.tool_choice != ToolChoice::None {
            variables.insert("tools".into(), request.tools.clone().into());
        }
        variables.insert("add_generation_prompt".into(), json!(true));
        variables.insert("enable_thinking".into(), json!(request.thinking.unwrap_or(defaults.thinking)));
        variables.extend(request.template_variables.clone());
        Ok(variables)
    }
}

/// What `strftime_now` tells: local time.
fn now() -> jiff::civil::DateTime {
    jiff::ZonedDateTime::now().datetime()
}

fn refused(error: TemplateError) -> Error {
    Error::bad("messages", format!("the model's chat template refuses this conversation: {error}"))
}

/// Tells what in an answer is for the user, what is thinking, and what calls a tool.
pub struct Reader {}

impl Reader {
    /// Everything is for the user.
    pub fn plain() -> Self {
        Self {}
    }

    /// Whether it needs to see the model's special tokens.
    pub fn wants_special(&self) -> bool {
        false
    }

    /// More of the answer's text.
    pub fn push(&mut self, text: &str, out: &mut VecDeque<Event>) {
        out.push_back(Event::Content { text: text.to_owned(), logprobs: Vec::new() });
    }

    /// The answer's end.
    pub fn finish(&mut self, _out: &mut VecDeque<Event>) {}

    pub fn thinking(&self) -> bool {
        false
    }

    /// Whether a tool was called.
    pub fn called(&self) -> bool {
        false
    }
}
