//! Between messages and tokens: what the file says about how its model is talked to, and what a request must look like for that.

use super::Error;
use super::request::{AnswerForm, ChatRequest, Defaults, ToolChoice};
use crate::chat::message::{TOOL_NAME_BYTES_MAX, is_tool_name};
use crate::chat::{self, Chat, Form, Hold, Message, Reader, Tool, defaults};
use crate::engine::random::Random;
use crate::gguf::Gguf;
use crate::tokenizer::{Piece, TokenKind, Tokenizer};
use crate::units::TokenId;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Most messages and tools of a request.
const MESSAGES_MAX: usize = 4096;
const TOOLS_MAX: usize = 256;

/// How the model is talked to, or why it can't be.
pub struct ChatPrompt {
    chat: Result<Chat, String>,
    /// Whether the file brought a template; otherwise one was chosen by the vocabulary's marks.
    own: bool,
}

/// A turn to be answered.
pub struct Turn {
    pub tokens: Vec<TokenId>,
    /// Of the answer.
    pub reader: Reader,
    pub held: Option<Held>,
}

/// What an answer is to be held to.
#[derive(Debug, PartialEq)]
pub struct Held {
    pub form: Form,
    /// What a schema says beyond what can be held to is left out.
    pub lenient: bool,
    /// Whether the client asked for it, and is to be told if it can't be done.
    pub must: bool,
    /// The field that asked for it.
    pub field: &'static str,
}

/// The form of a text that is not a chat's.
pub fn held_text(form: &AnswerForm) -> Option<Held> {
    let (form, lenient, field) = match form {
        AnswerForm::Free => return None,
        AnswerForm::Json { schema, strict, field } => (Form::Json(schema.clone()), !strict, *field),
        AnswerForm::Grammar(grammar) => (Form::Grammar(grammar.clone()), false, "grammar"),
    };
    Some(Held { form, lenient, must: true, field })
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
        let mark = |id: Option<TokenId>| id.map(text).unwrap_or_default();
        let (bos, eos) = (mark(vocabulary.special().bos), mark(vocabulary.special().eos));
        let source = match file.meta().optional::<&str>("tokenizer.chat_template") {
            Ok(source) => source,
            Err(error) => return Self { chat: Err(error.to_string()), own: true },
        };
        let chosen = || defaults::template_for(|mark| vocabulary.find(mark.as_bytes()).is_some());
        let chat = Chat::new(source.unwrap_or_else(chosen), special, &bos, &eos).map_err(|e| e.to_string());
        Self { chat, own: source.is_some() }
    }

    /// Whether the file brought a template of its own, which need not be one that can be used.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The conversation as the template writes it.
    pub fn text(&self, request: &ChatRequest, defaults: &Defaults) -> Result<String, Error> {
        let request = read(request, defaults)?;
        Ok(self.usable()?.prompt(&request).map_err(refused)?.text())
    }

    /// The conversation in tokens, the reader of the answer to it, and what that is held to.
    pub fn prompt(&self, tokenizer: &Tokenizer, asked: &ChatRequest, defaults: &Defaults) -> Result<Turn, Error> {
        let request = read(asked, defaults)?;
        let chat = self.usable()?;
        let prompt = chat.prompt(&request).map_err(refused)?;
        let held = held(chat, &prompt, &request, asked)?;
        let pieces = prompt.pieces.iter().map(|piece| match piece {
            chat::Piece::Text(text) => Piece::Text(text),
            chat::Piece::Special(text) => Piece::Special(text),
        });
        let pieces: Vec<Piece<'_>> = pieces.collect();
        let reader = chat.reader(&prompt, &request.tools, Random::fresh_seed());
        Ok(Turn { tokens: tokenizer.encode_pieces(&pieces), reader, held })
    }

    fn usable(&self) -> Result<&Chat, Error> {
        self.chat.as_ref().map_err(|reason| Error::bad("messages", format!("this model's chat template can't be used: {reason}")))
    }
}

/// What the answer to `prompt` is held to.
fn held(chat: &Chat, prompt: &chat::Prompt, request: &chat::Request, asked: &ChatRequest) -> Result<Option<Held>, Error> {
    let several = asked.parallel_tool_calls != Some(false);
    let form = |tools: &[Tool], hold| chat.form(prompt, tools, request.thinking != Some(false), hold);
    let must = |form: Option<Form>, lenient, field| match form {
        Some(form) => Ok(Some(Held { form, lenient, must: true, field })),
        None => Err(Error::bad(field, "this model's own way of calling tools is not known, so it can't be held to it")),
    };
    match (&asked.tool_choice, &asked.generation.form) {
        (ToolChoice::Required, _) if request.tools.is_empty() => Err(Error::bad("tool_choice", "there are no tools to call")),
        (ToolChoice::Required, _) => must(form(&request.tools, Hold::Calls { several }), true, "tool_choice"),
        (ToolChoice::Named(name), _) => match request.tools.iter().find(|tool| tool.name() == Some(name)) {
            Some(tool) => must(form(std::slice::from_ref(tool), Hold::Calls { several: false }), true, "tool_choice"),
            None => Err(Error::bad("tool_choice", format!("there is no tool `{name}`"))),
        },
        (_, AnswerForm::Json { schema, strict, field }) => must(form(&request.tools, Hold::Json(schema)), !strict, field),
        (_, AnswerForm::Grammar(grammar)) => must(form(&request.tools, Hold::Grammar(grammar)), false, "grammar"),
        (_, AnswerForm::Free) if request.tools.is_empty() => Ok(None),
        (_, AnswerForm::Free) => {
            let form = form(&request.tools, Hold::Talk { several });
            Ok(form.map(|form| Held { form, lenient: true, must: false, field: "tools" }))
        }
    }
}

fn read(request: &ChatRequest, defaults: &Defaults) -> Result<chat::Request, Error> {
    if request.messages.is_empty() {
        return Err(Error::bad("messages", "give at least one message"));
    }
    let messages: Vec<Message> = each(&request.messages, "messages", MESSAGES_MAX)?;
    let tools: Vec<Tool> = each(&request.tools, "tools", TOOLS_MAX)?;
    for (index, tool) in tools.iter().enumerate() {
        let wrong = match tool.name() {
            None => "has no `function.name`".to_owned(),
            Some(name) if is_tool_name(name) => continue,
            Some(name) => {
                format!("has the name {name:?}; one has up to {TOOL_NAME_BYTES_MAX} bytes of letters, digits, `_`, `-`, `.`, `:` and `/`")
            }
        };
        return Err(Error::bad("tools", format!("number {index} {wrong}")));
    }
    Ok(chat::Request {
        messages,
        tools: if request.tool_choice == ToolChoice::None { Vec::new() } else { tools },
        add_generation_prompt: true,
        thinking: Some(request.thinking.unwrap_or(defaults.thinking)),
        variables: request.template_variables.clone(),
        now: jiff::ZonedDateTime::now().datetime(),
    })
}

fn each<T: DeserializeOwned>(values: &[Value], param: &'static str, most: usize) -> Result<Vec<T>, Error> {
    if values.len() > most {
        return Err(Error::bad(param, format!("{} of them are more than the {most} that are taken", values.len())));
    }
    let one = |(index, value): (usize, &Value)| T::deserialize(value).map_err(|e| Error::bad(param, format!("number {index}: {e}")));
    values.iter().enumerate().map(one).collect()
}

fn refused(error: chat::ChatError) -> Error {
    Error::bad("messages", format!("the model's chat template refuses this conversation: {error}"))
}
