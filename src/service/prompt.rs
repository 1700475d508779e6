//! Between messages and tokens: what the file says about how its model is talked to, and what a request must look like for that.

use super::Error;
use super::request::{ChatRequest, Defaults, ToolChoice};
use crate::chat::{self, Chat, Message, Reader, Tool, defaults};
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

    /// Whether the file brought a template of its own that can be read.
    pub fn is_own(&self) -> bool {
        self.own && self.chat.is_ok()
    }

    /// The conversation as the template writes it.
    pub fn text(&self, request: &ChatRequest, defaults: &Defaults) -> Result<String, Error> {
        let request = read(request, defaults)?;
        Ok(self.usable()?.prompt(&request).map_err(refused)?.text())
    }

    /// The conversation in tokens, and the reader of the answer to it.
    pub fn prompt(&self, tokenizer: &Tokenizer, request: &ChatRequest, defaults: &Defaults) -> Result<(Vec<TokenId>, Reader), Error> {
        let request = read(request, defaults)?;
        let chat = self.usable()?;
        let prompt = chat.prompt(&request).map_err(refused)?;
        let pieces = prompt.pieces.iter().map(|piece| match piece {
            chat::Piece::Text(text) => Piece::Text(text),
            chat::Piece::Special(text) => Piece::Special(text),
        });
        let pieces: Vec<Piece<'_>> = pieces.collect();
        let reader = chat.reader(&prompt, &request.tools, Random::fresh_seed());
        Ok((tokenizer.encode_pieces(&pieces), reader))
    }

    fn usable(&self) -> Result<&Chat, Error> {
        self.chat.as_ref().map_err(|reason| Error::bad("messages", format!("this model's chat template can't be used: {reason}")))
    }
}

fn read(request: &ChatRequest, defaults: &Defaults) -> Result<chat::Request, Error> {
    if request.messages.is_empty() {
        return Err(Error::bad("messages", "give at least one message"));
    }
    let messages: Vec<Message> = each(&request.messages, "messages", MESSAGES_MAX)?;
    let tools: Vec<Tool> = each(&request.tools, "tools", TOOLS_MAX)?;
    if let Some(index) = tools.iter().position(|t| t.name().is_none()) {
        return Err(Error::bad("tools", format!("number {index} has no `function.name`")));
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
