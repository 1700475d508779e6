//! How each family of models writes a call, and reading it from text that may be cut anywhere.

use super::braces;
use super::format::{Match, find};
use super::pythonic;
use crate::chat::message::{Tool, is_tool_name, is_tool_name_char};
use serde_json::{Map, Value as Json};

/// A family's way to write calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// No calls.
    None,
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, Granite 4, SmolLM3.
    Hermes,
    /// `<function=name><parameter=key>value</parameter></function>`, with or without `<tool_call>` around it: Qwen3-Coder, Qwen3.5.
    Functions,
    /// `<function=name>{…}</function>`: Functionary. Read as the former.
    Functionary,
    /// The whole answer is `{"name": …, "parameters": {…}}`, or `<|python_tag|>` and a call follow: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`: Mistral until 2024.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral since. Both are read as either.
    MistralArgs,
    /// `<|tool_call_start|>[name(key=value)]<|tool_call_end|>`: LFM2.
    Lfm2,
    /// `<|tool_call|>[{"name": …, "arguments": {…}}]`: Granite 3, Phi-4-mini (which closes it with `<|/tool_call|>`).
    Granite,
    /// `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`: DeepSeek V3.1.
    DeepSeek,
    /// `<｜tool▁call▁begin｜>function<｜tool▁sep｜>name`, a fenced JSON object and `<｜tool▁call▁end｜>`: DeepSeek R1. Both are read as either.
    DeepSeekR1,
    /// `<|tool_call>call:name{key:<|"|>text<|"|>,other:1}<tool_call|>`: Gemma 4.
    Gemma,
    /// `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`: FunctionGemma.
    FunctionGemma,
    /// A block of code, fenced as `tool_code`, with `name(key=value)` in it: Gemma 3 as it is prompted for.
    ToolCode,
}

/// A call as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// A JSON object.
    pub arguments: String,
}

/// What the text after a mark is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A call perhaps; the rest has to come.
    More,
    /// Calls in the first `len` bytes.
    Calls { len: usize, calls: Vec<Call> },
    /// No call.
    No,
}

/// The text ended too early, or can't be what was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Ends,
    Wrong,
}

impl Dialect {
    /// The marks that open calls; those after the first may also close them.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Hermes => &["<tool_call>", "</tool_call>"],
            Self::Functions | Self::Functionary => &["<function=", "<tool_call>", "</tool_call>", "</function>", "<|python_tag|>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Mistral | Self::MistralArgs => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Lfm2 => &["<|tool_call_start|>", "<|tool_call_end|>"],
            Self::Granite => &["<|tool_call|>", "<tool_call>", "<|/tool_call|>", "</tool_call>"],
            Self::DeepSeek | Self::DeepSeekR1 => {
                &["<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"]
            }
            Self::Gemma => &["<|tool_call>", "<tool_call|>", "<|\"|>"],
            Self::FunctionGemma => &["<start_function_call>", "<end_function_call>", "<escape>"],
            Self::ToolCode => &["```tool_code"],
        }
    }

    /// Of the marks those that open a call.
    fn opening(self) -> &'static [&'static str] {
        let openings = match self {
            Self::Functions | Self::Functionary | Self::Granite | Self::DeepSeek | Self::DeepSeekR1 => 2,
            _ => 1,
        };
        self.marks().get(..openings).unwrap_or_default()
    }

    /// The first place where a call may begin. `starts_here`: the text begins the answer, with more than white space.
    pub fn find(self, text: &str, starts_here: bool) -> Match {
        if self == Self::Llama && starts_here && text.trim_start().starts_with('{') {
            return Match::Whole(text.len() - text.trim_start().len());
        }
        let found = self.opening().iter().map(|mark| find(text, mark)).filter(|found| *found != Match::None);
        found.min_by_key(|found| (found.at(), matches!(found, Match::Whole(_)))).unwrap_or(Match::None)
    }

    /// The opening mark that `text` begins with.
    pub fn mark_at(self, text: &str) -> Option<&'static str> {
        self.opening().iter().copied().find(|mark| text.starts_with(mark))
    }

    /// Reads the call that `text` begins with. At the answer's end, a closing mark may be missing.
    pub fn read(self, text: &str, tools: &[Tool], at_end: bool) -> Reading {
        let mut cursor = Cursor { text, at: self.mark_at(text).map_or(0, str::len), at_end };
        let read = match self {
            Self::None => Err(Fault::Wrong),
            Self::Hermes => cursor.hermes(tools, self.mark_at(text) == Some("<tool_call>")),
            Self::Functions | Self::Functionary => {
                cursor.at = 0;
                cursor.functions(tools)
            }
            Self::Llama => cursor.llama(tools, self.mark_at(text).is_some()),
            Self::Mistral | Self::MistralArgs => cursor.mistral(),
            Self::Lfm2 => cursor.bracketed(&["<|tool_call_end|>"]),
            Self::Granite => cursor.bracketed(&["<|/tool_call|>", "</tool_call>"]),
            Self::DeepSeek | Self::DeepSeekR1 => {
                cursor.at = 0;
                cursor.deep_seek()
            }
            Self::Gemma => cursor.braced("<|\"|>", "<tool_call|>"),
            Self::FunctionGemma => cursor.braced("<escape>", "<end_function_call>"),
            Self::ToolCode => cursor.tool_code(tools),
        };
        match read {
            Ok(calls) if !calls.is_empty() => Reading::Calls { len: cursor.at, calls },
            Err(Fault::Ends) if !at_end => Reading::More,
            _ => Reading::No,
        }
    }
}

/// A place in an answer's text. At the text's end a reading that needs more fails with [`Fault::Ends`].
struct Cursor<'t> {
    text: &'t str,
    at: usize,
    /// No more text will come.
    at_end: bool,
}

type Calls = Result<Vec<Call>, Fault>;

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Steps over `mark` if it comes next; waits if it may.
    fn take(&mut self, mark: &str) -> Result<bool, Fault> {
        if self.rest().starts_with(mark) {
            self.at += mark.len();
            return Ok(true);
        }
        if mark.starts_with(self.rest()) && !self.at_end { Err(Fault::Ends) } else { Ok(false) }
    }

    fn expect(&mut self, mark: &str) -> Result<(), Fault> {
        match self.take(mark)? {
            true => Ok(()),
            false if self.rest().is_empty() => Err(Fault::Ends),
            false => Err(Fault::Wrong),
        }
    }

    /// White space and one of the closing marks, which may be missing: then the place stays.
    fn close(&mut self, marks: &[&str]) -> Result<(), Fault> {
        let before = self.at;
        self.skip_space();
        for mark in marks {
            if self.take(mark)? {
                return Ok(());
            }
        }
        self.at = before;
        Ok(())
    }

    /// The text up to one of `ends`, which isn't stepped over.
    fn until(&mut self, ends: &[&str]) -> Result<&'t str, Fault> {
        let at = ends.iter().filter_map(|end| self.rest().find(end)).min().ok_or(Fault::Ends)?;
        let text = &self.rest()[..at];
        self.at += at;
        Ok(text)
    }

    /// One JSON value.
    fn json(&mut self) -> Result<Json, Fault> {
        self.skip_space();
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<Json>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) if !error.is_eof() => Err(Fault::Wrong),
            _ => Err(Fault::Ends),
        }
    }

    fn hermes(&mut self, tools: &[Tool], marked: bool) -> Calls {
        self.skip_space();
        if marked && self.take("<function=")? {
            self.at -= "<function=".len();
            let calls = self.functions(tools)?;
            self.close(&["</tool_call>"])?;
            return Ok(calls);
        }
        let call = call_of(&self.json()?).ok_or(Fault::Wrong)?;
        self.close(&["</tool_call>"])?;
        Ok(vec![call])
    }

    fn functions(&mut self, tools: &[Tool]) -> Calls {
        if self.take("<tool_call>")? {
            return self.hermes(tools, true);
        }
        self.expect("<function=")?;
        let name = self.until(&[">"])?.trim().trim_matches('"').to_owned();
        self.expect(">")?;
        is_tool_name(&name).then_some(()).ok_or(Fault::Wrong)?;
        self.skip_space();
        if self.rest().is_empty() {
            return Err(Fault::Ends);
        }
        let arguments =
            if self.rest().starts_with('{') { object_text(&self.json()?).ok_or(Fault::Wrong)? } else { self.parameters(&name, tools)? };
        self.close(&["</function>"])?;
        self.close(&["</tool_call>"])?;
        Ok(vec![Call { name, arguments }])
    }

    /// `<parameter=key>value</parameter>` until `</function>`.
    fn parameters(&mut self, function: &str, tools: &[Tool]) -> Result<String, Fault> {
        let tool = tools.iter().find(|tool| tool.name() == Some(function));
        let mut arguments = Map::new();
        loop {
            self.skip_space();
            if self.rest().starts_with("</function>") || self.rest().is_empty() && self.at_end && !arguments.is_empty() {
                return Ok(Json::Object(arguments).to_string());
            }
            if "</function>".starts_with(self.rest()) && !self.at_end {
                return Err(Fault::Ends);
            }
            self.expect("<parameter=")?;
            let key = self.until(&[">"])?.trim().trim_matches('"').to_owned();
            self.expect(">")?;
            let value = self.parameter_value()?;
            let value = value.strip_prefix('\n').unwrap_or(value);
            let value = value.strip_suffix('\n').unwrap_or(value);
            let kind = tool.and_then(|tool| tool.parameter_type(&key));
            arguments.insert(key, typed(value, kind));
        }
    }

    /// The text up to a `</parameter>` after which the call goes on or ends: a value may hold the mark itself.
    fn parameter_value(&mut self) -> Result<&'t str, Fault> {
        const CLOSE: &str = "</parameter>";
        let start = self.at;
        let mut from = start;
        loop {
            let end = from + self.text[from..].find(CLOSE).ok_or(Fault::Ends)?;
            self.at = end + CLOSE.len();
            let after = self.rest().trim_start();
            let goes_on = ["<parameter=", "</function>"].iter().any(|mark| after.starts_with(mark));
            if goes_on || after.is_empty() && self.at_end {
                return Ok(&self.text[start..end]);
            }
            if !self.at_end && ["<parameter=", "</function>"].iter().any(|mark| mark.starts_with(after)) {
                return Err(Fault::Ends);
            }
            from = self.at;
        }
    }

    /// Bare JSON objects, several parted by `;` or white space; or what follows `<|python_tag|>`.
    fn llama(&mut self, tools: &[Tool], marked: bool) -> Calls {
        self.skip_space();
        if self.rest().is_empty() {
            return Err(Fault::Ends);
        }
        let mut calls = Vec::new();
        if marked && !self.rest().starts_with('{') {
            // A call of a built-in tool: `brave_search.call(query="…")`.
            let (read, len) = pythonic::call(self.rest())?;
            self.at += len;
            calls.push(Call { name: read.name.trim_end_matches(".call").to_owned(), ..read });
            return Ok(calls);
        }
        let call = call_of(&self.json()?).ok_or(Fault::Wrong)?;
        // Without a mark, an object that names no tool is an answer in JSON.
        if !marked && !tools.iter().any(|tool| tool.name() == Some(&call.name)) {
            return Err(Fault::Wrong);
        }
        self.close(&[";"])?;
        calls.push(call);
        Ok(calls)
    }

    fn mistral(&mut self) -> Calls {
        self.skip_space();
        if self.rest().is_empty() {
            return Err(Fault::Ends);
        }
        if self.rest().starts_with(['[', '{']) {
            let value = self.json()?;
            return calls_of(&value).ok_or(Fault::Wrong);
        }
        let name = self.rest().split(|c: char| !is_tool_name_char(c)).next().unwrap_or_default().to_owned();
        self.at += name.len();
        if self.rest().is_empty() {
            return Err(Fault::Ends);
        }
        if name.is_empty() {
            return Err(Fault::Wrong);
        }
        if self.take("[CALL_ID]")? {
            self.until(&["[ARGS]", "{"])?;
        }
        self.take("[ARGS]")?;
        let arguments = object_text(&self.json()?).ok_or(Fault::Wrong)?;
        Ok(vec![Call { name, arguments }])
    }

    /// A list of calls, as JSON or as Python writes them.
    fn bracketed(&mut self, close: &[&str]) -> Calls {
        self.skip_space();
        let list = self.rest().strip_prefix('[').map(str::trim_start);
        if self.rest().is_empty() || list == Some("") {
            return Err(Fault::Ends);
        }
        let json = self.rest().starts_with('{') || list.is_some_and(|list| list.starts_with(['{', ']', '"']));
        let calls = if json {
            calls_of(&self.json()?).ok_or(Fault::Wrong)?
        } else {
            let (calls, len) = pythonic::calls(self.rest())?;
            self.at += len;
            calls
        };
        self.close(close)?;
        Ok(calls)
    }

    fn deep_seek(&mut self) -> Calls {
        let mut calls = Vec::new();
        self.take("<｜tool▁calls▁begin｜>")?;
        loop {
            self.skip_space();
            if !self.take("<｜tool▁call▁begin｜>")? {
                break;
            }
            let head = self.until(&["<｜tool▁sep｜>"])?.trim();
            self.expect("<｜tool▁sep｜>")?;
            // R1 writes the word `function` before the mark and the name, with a fence, after it; V3.1 writes the name before it.
            let name = if head == "function" { self.until(&["\n", "{"])?.trim() } else { head };
            self.skip_space();
            if self.take("```json")? {
                self.skip_space();
            }
            is_tool_name(name).then_some(()).ok_or(Fault::Wrong)?;
            let arguments = object_text(&self.json()?).ok_or(Fault::Wrong)?;
            calls.push(Call { name: name.to_owned(), arguments });
            self.close(&["```"])?;
            self.close(&["<｜tool▁call▁end｜>"])?;
        }
        self.close(&["<｜tool▁calls▁end｜>"])?;
        if calls.is_empty() { Err(if self.rest().is_empty() { Fault::Ends } else { Fault::Wrong }) } else { Ok(calls) }
    }

    /// `call:name{…}` with `quote` around text.
    fn braced(&mut self, quote: &str, close: &str) -> Calls {
        self.skip_space();
        self.expect("call:")?;
        let name = self.until(&["{"])?.trim().to_owned();
        is_tool_name(&name).then_some(()).ok_or(Fault::Wrong)?;
        let (arguments, len) = braces::object(self.rest(), quote)?;
        self.at += len;
        self.close(&[close])?;
        Ok(vec![Call { name, arguments: Json::Object(arguments).to_string() }])
    }

    /// Calls of known tools between the fences, one a line, `print(…)` around them allowed.
    fn tool_code(&mut self, tools: &[Tool]) -> Calls {
        let code = self.until(&["```"])?.trim();
        self.expect("```")?;
        let code = code.strip_prefix("print(").and_then(|inner| inner.strip_suffix(')')).unwrap_or(code);
        let mut rest = code;
        let mut calls = Vec::new();
        while !rest.is_empty() {
            let (mut call, len) =
                if rest.starts_with('[') { pythonic::calls(rest)? } else { pythonic::call(rest).map(|(call, len)| (vec![call], len))? };
            calls.append(&mut call);
            rest = rest[len..].trim_start();
        }
        let known = |call: &Call| tools.iter().any(|tool| tool.name() == Some(&call.name));
        if calls.iter().all(known) { Ok(calls) } else { Err(Fault::Wrong) }
    }
}

/// `{"name": …, "arguments" or "parameters": {…}}`, perhaps inside `"function"`.
fn call_of(value: &Json) -> Option<Call> {
    let value = value.get("function").filter(|f| f.is_object()).unwrap_or(value);
    let name = value.get("name").or(value.get("function"))?.as_str()?;
    let arguments = value.get("arguments").or(value.get("parameters"));
    Some(Call { name: is_tool_name(name).then(|| name.to_owned())?, arguments: arguments.map_or(Some("{}".to_owned()), object_text)? })
}

/// One call or a list of them.
fn calls_of(value: &Json) -> Option<Vec<Call>> {
    match value {
        Json::Array(items) => items.iter().map(call_of).collect(),
        one => Some(vec![call_of(one)?]),
    }
}

/// An object's JSON; an object may come as JSON in a string, and nothing means an empty one.
fn object_text(value: &Json) -> Option<String> {
    match value {
        Json::Object(_) => Some(value.to_string()),
        Json::Null => Some("{}".to_owned()),
        Json::String(text) if text.trim().is_empty() => Some("{}".to_owned()),
        Json::String(text) => serde_json::from_str::<Map<String, Json>>(text).ok().map(|map| Json::Object(map).to_string()),
        _ => None,
    }
}

/// A parameter's text as its declared type wants it; undeclared, as JSON if it is some and as text if not.
fn typed(text: &str, kind: Option<&str>) -> Json {
    match kind {
        Some("string") => Json::from(text),
        _ => match (serde_json::from_str(text.trim()), text.trim()) {
            (Ok(value), _) => value,
            (_, "True") => Json::from(true),
            (_, "False") => Json::from(false),
            (_, "None") => Json::Null,
            _ => Json::from(text),
        },
    }
}
