//! A request becomes a prompt: the conversation put into the form that the model's template understands, then rendered.
//!
//! What a template can't take (system messages, tools, parts, long call ids) is told in another way rather than dropped; see [`Chat::prompt`].

use super::capabilities::{Capabilities, ToolsIn};
use super::deltas::{Format, Reader};
use super::form::{self, Form, Hold};
use super::message::{Content, Message, Tool, ToolCall};
use super::template::{Piece, Template, TemplateError, Variables, text_of};
use jiff::civil::DateTime;
use serde_json::{Value as Json, json};

/// How one model is talked to.
pub struct Chat {
    template: Template,
    capabilities: Capabilities,
    format: Format,
    /// `bos_token` and `eos_token`, as the template knows them.
    tokens: Variables,
    special: Vec<String>,
    /// The template reads `thinking` from messages rather than `reasoning_content` (gpt-oss).
    reads_thinking: bool,
}

/// What a prompt is made of.
#[derive(Debug, Clone)]
pub struct Request {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    /// Open the assistant's turn at the end; true unless the last message is to be continued.
    pub add_generation_prompt: bool,
    /// Ask for thinking or for none, where the template has a switch for it.
    pub thinking: Option<bool>,
    /// Further variables for the template, as the request gave them (`chat_template_kwargs`).
    pub variables: Variables,
    /// What `strftime_now` tells.
    pub now: DateTime,
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Text and special tokens in order. The template itself writes the begin-of-text token where the model wants one.
    pub pieces: Vec<Piece>,
}

impl Prompt {
    /// The prompt's text, special tokens spelled out.
    pub fn text(&self) -> String {
        text_of(&self.pieces)
    }
}

/// Why a request makes no prompt.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ChatError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("message {index} has a part of type `{kind}`; this model reads text only")]
    UnsupportedPart { index: usize, kind: String },
}

/// Variables that a request can't set by `chat_template_kwargs`.
const RESERVED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

impl Chat {
    /// `source` is the template's text; `special` the texts of the model's special tokens; `bos` and `eos` those of its two marks.
    ///
    /// # Errors
    /// The template can't be read.
    pub fn new(source: &str, special: Vec<String>, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let template = Template::new(source)?;
        let tokens: Variables =
            [("bos_token", bos), ("eos_token", eos)].map(|(name, text)| (name.to_owned(), Json::from(text))).into_iter().collect();
        let capabilities = Capabilities::of(&template, source, &tokens);
        let mut format = Format::of(source);
        if capabilities.tools == ToolsIn::Nowhere {
            // The tools will be told in Hermes' words, so the calls will come in them.
            format = format.with_hermes_calls();
        }
        let reads_thinking =
            source.contains("message.thinking") || source.contains("message['thinking']") || source.contains("message[\"thinking\"]");
        Ok(Self { template, capabilities, format, tokens, special, reads_thinking })
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The prompt for a request.
    ///
    /// Where the template has no place for something, it is told otherwise: a system message at the head of the first user's message;
    /// tools in a system message and calls as text, in Hermes' form; call ids shortened; `developer` is `system`; parts are joined to text.
    ///
    /// # Errors
    /// The template refused or failed, or a part of a message is no text.
    pub fn prompt(&self, request: &Request) -> Result<Prompt, ChatError> {
        let mut variables: Variables =
            request.variables.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        if let Some(thinking) = request.thinking {
            for switch in self.capabilities.thinking_switches.iter().filter(|s| **s != "reasoning_effort") {
                variables.entry(*switch).or_insert(Json::from(thinking));
            }
        }
        let mut messages = self.messages(request)?;
        if !request.tools.is_empty() {
            match self.capabilities.tools {
                ToolsIn::Variable => {
                    variables.insert("tools".to_owned(), request.tools.iter().map(|t| t.0.clone()).collect());
                }
                ToolsIn::SystemMessage => {
                    system_message(&mut messages)["tools"] =
                        Json::from(Json::from_iter(request.tools.iter().map(|t| t.0.clone())).to_string())
                }
                ToolsIn::Nowhere => {
                    let system = system_message(&mut messages);
                    let told = format!("{}\n\n{}", text_in(&system["content"]), tools_in_words(&request.tools));
                    system["content"] = Json::from(told.trim_start());
                }
            }
        }
        if !self.capabilities.system {
            merge_system(&mut messages);
        }
        if self.capabilities.content_in_parts {
            for message in &mut messages {
                message["content"] = json!([{"type": "text", "text": message["content"]}]);
            }
        }
        variables.insert("messages".to_owned(), Json::from(messages));
        variables.insert("add_generation_prompt".to_owned(), Json::from(request.add_generation_prompt));
        variables.extend(self.tokens.clone());
        let pieces = self.template.render_pieces(&variables, request.now, &self.special, &["bos_token", "eos_token"])?;
        Ok(Prompt { pieces })
    }

    /// A reader for the answer to `prompt`. `seed` makes the ids of its calls differ from those of other answers.
    pub fn reader(&self, prompt: &Prompt, tools: &[Tool], seed: u64) -> Reader {
        Reader::new(&self.format, tools, &prompt.text(), seed)
    }

    /// The form of the answer to `prompt`, where it can be told: see [`form::form`].
    pub fn form(&self, prompt: &Prompt, tools: &[Tool], thinks: bool, hold: Hold<'_>) -> Option<Form> {
        // A model whose thoughts have no switch thinks as it likes.
        let thinks = thinks || self.capabilities.thinking && self.capabilities.thinking_switches.is_empty();
        form::form(&self.format, tools, &prompt.text(), thinks, hold)
    }

    /// The messages as the template is to see them, all contents text.
    fn messages(&self, request: &Request) -> Result<Vec<Json>, ChatError> {
        let calls_in_words = !self.capabilities.tool_calls || self.capabilities.tools == ToolsIn::Nowhere;
        // A template that shows no calls but whose model has a form of its own knows the role `tool`; a merely told form doesn't.
        let results_in_words = !self.capabilities.tool_results || self.capabilities.tools == ToolsIn::Nowhere;
        let mut pairing = Pairing { short_ids: self.capabilities.short_call_ids, open: Vec::new(), count: 0 };
        let mut messages = Vec::with_capacity(request.messages.len());
        for (index, message) in request.messages.iter().enumerate() {
            let mut content = content_text(message, index)?;
            let role = if message.role == "developer" { "system" } else { &message.role };
            let calls = message.tool_calls.as_deref().unwrap_or_default();
            let mut shown = json!({"role": role});
            if !calls.is_empty() && calls_in_words {
                let told = self.format.write_calls(calls.iter().map(|call| (call.function.name.as_str(), call.arguments_read())));
                content.push('\n');
                content.push_str(&told);
                content = content.trim_start().to_owned();
            } else if !calls.is_empty() {
                let calls = calls.iter().map(|call| self.call(call, pairing.call(call)));
                shown["tool_calls"] = calls.collect();
            }
            if role == "tool" {
                let (id, name) = pairing.result(message);
                if results_in_words {
                    shown["role"] = Json::from("user");
                    content = format!("<tool_response>\n{content}\n</tool_response>");
                } else {
                    shown["tool_call_id"] = Json::from(id);
                    if let Some(name) = name {
                        shown["name"] = Json::from(name);
                    }
                }
            } else if let Some(name) = &message.name {
                shown["name"] = Json::from(name.as_str());
            }
            if let Some(thought) = message.reasoning_content.as_ref().filter(|t| !t.is_empty()) {
                // gpt-oss refuses a message that has content, calls and thoughts at once.
                if self.reads_thinking && (calls.is_empty() || content.is_empty()) {
                    shown["thinking"] = Json::from(thought.as_str());
                }
                shown["reasoning_content"] = Json::from(thought.as_str());
            }
            shown["content"] = Json::from(content);
            messages.push(shown);
        }
        Ok(messages)
    }

    fn call(&self, call: &ToolCall, id: String) -> Json {
        let arguments = call.arguments_read();
        let arguments = if self.capabilities.arguments_as_text { Json::from(spaced(&arguments)) } else { arguments };
        json!({"id": id, "type": call.kind, "function": {"name": call.function.name, "arguments": arguments}})
    }
}

/// Calls and their results, matched by id or, without ids, by order.
struct Pairing {
    short_ids: bool,
    /// Calls without a result so far: the client's id, the one shown, the tool's name.
    open: Vec<(Option<String>, String, String)>,
    count: u64,
}

impl Pairing {
    fn call(&mut self, call: &ToolCall) -> String {
        self.count += 1;
        let shown = match &call.id {
            Some(id) => self.shown(id),
            None => super::deltas::call_id(0, self.count),
        };
        self.open.push((call.id.clone(), shown.clone(), call.function.name.clone()));
        shown
    }

    /// The id and the name for a result.
    fn result(&mut self, message: &Message) -> (String, Option<String>) {
        let same = |open: &(Option<String>, String, String)| match &message.tool_call_id {
            Some(id) => open.0.as_ref() == Some(id),
            None => message.name.as_ref().is_none_or(|name| *name == open.2),
        };
        match self.open.iter().position(same) {
            Some(at) => {
                let (_, id, name) = self.open.remove(at);
                (id, Some(message.name.clone().unwrap_or(name)))
            }
            None => {
                (message.tool_call_id.as_deref().map_or_else(|| super::deltas::call_id(0, 0), |id| self.shown(id)), message.name.clone())
            }
        }
    }

    fn shown(&self, id: &str) -> String {
        let is_short = id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        if self.short_ids && !is_short {
            // FNV-1a: the same id gives the same short one, in this request and in the next.
            let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
            return super::deltas::call_id(hash, 0);
        }
        id.to_owned()
    }
}

fn content_text(message: &Message, index: usize) -> Result<String, ChatError> {
    match &message.content {
        None => Ok(String::new()),
        Some(Content::Text(text)) => Ok(text.clone()),
        Some(Content::Parts(parts)) => {
            let mut texts = Vec::with_capacity(parts.len());
            for part in parts {
                let text = part.text.as_deref().filter(|_| matches!(part.kind.as_str(), "text" | "input_text" | "output_text"));
                texts.push(text.ok_or_else(|| ChatError::UnsupportedPart { index, kind: part.kind.clone() })?);
            }
            Ok(texts.join("\n"))
        }
    }
}

/// The first message if it is the system's, else a new one in front.
fn system_message(messages: &mut Vec<Json>) -> &mut Json {
    if messages.first().is_none_or(|m| m["role"] != "system") {
        messages.insert(0, json!({"role": "system", "content": ""}));
    }
    &mut messages[0]
}

/// System messages go to the head of the next user's message, or become one.
fn merge_system(messages: &mut Vec<Json>) {
    let mut merged: Vec<Json> = Vec::with_capacity(messages.len());
    let mut waiting = String::new();
    for mut message in messages.drain(..) {
        if message["role"] == "system" {
            waiting.push_str(text_in(&message["content"]));
            waiting.push_str("\n\n");
        } else {
            if message["role"] == "user" && !waiting.is_empty() {
                message["content"] = Json::from(format!("{waiting}{}", text_in(&message["content"])));
                waiting.clear();
            }
            merged.push(message);
        }
    }
    if !waiting.is_empty() {
        merged.push(json!({"role": "user", "content": waiting.trim_end()}));
    }
    *messages = merged;
}

/// Tools told to a model whose template knows none, in the form of the Hermes models, which others imitate best.
fn tools_in_words(tools: &[Tool]) -> String {
    let listed: Vec<String> = tools.iter().map(|tool| spaced(&tool.0)).collect();
    format!(
        "# Tools\n\nYou can call these functions where they help to answer; their signatures:\n<tools>\n{}\n</tools>\n\n\
         To call one, write its name and its arguments as a JSON object between <tool_call> tags, and nothing else:\n\
         <tool_call>\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>",
        listed.join("\n")
    )
}

/// JSON with Python's spaces, as templates write it.
pub fn spaced(json: &Json) -> String {
    match json {
        Json::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            format!("{{{}}}", map.iter().map(|(k, v)| format!("{}: {}", Json::from(k.as_str()), spaced(v))).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn text_in(content: &Json) -> &str {
    content.as_str().unwrap_or_default()
}
