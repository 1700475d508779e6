//! What a request says: messages, calls and tools in OpenAI's form, as clients send it. Unknown members are let pass.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant`, `tool` or what else a template knows.
    pub role: String,
    #[serde(default, deserialize_with = "content")]
    pub content: Option<Content>,
    /// What an assistant thought before it answered (`thinking` and `reasoning` are other clients' names for it).
    #[serde(default, alias = "thinking", alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Of a tool's result: the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The speaker's name, or of a tool's result the tool's.
    #[serde(default, alias = "tool_name", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A message's content: text, or parts of several kinds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message's content; only text is understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    #[serde(rename = "type", default = "text")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// An assistant's call of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Some clients send none; then calls and results are paired by their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    pub function: CalledFunction,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalledFunction {
    pub name: String,
    /// An object, or (as OpenAI has it) an object's JSON text.
    #[serde(default)]
    pub arguments: Json,
}

/// A tool as the client declares it: `{"type": "function", "function": {"name", "description", "parameters"}}`, kept in its own order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tool(pub Json);

/// Longest name of a tool.
pub const TOOL_NAME_BYTES_MAX: usize = 256;

/// Whether a tool of this name can be called: a name with other characters could not be told from what stands around it in some dialect.
pub fn is_tool_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= TOOL_NAME_BYTES_MAX && name.chars().all(is_tool_name_char)
}

pub fn is_tool_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/')
}

impl Message {
    /// A message of plain text.
    pub fn text(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: Some(Content::Text(content.to_owned())), ..Self::default() }
    }
}

impl ToolCall {
    /// The arguments as an object, read from their text if need be; text that is no JSON stays what it is.
    pub fn arguments_read(&self) -> Json {
        match &self.function.arguments {
            Json::String(text) => serde_json::from_str(text).unwrap_or_else(|_| self.function.arguments.clone()),
            Json::Null => Json::Object(Default::default()),
            other => other.clone(),
        }
    }
}

impl Tool {
    /// The function's declaration: the tool's `function`, or the tool itself where a client leaves the wrapper out.
    fn function(&self) -> &Json {
        self.0.get("function").unwrap_or(&self.0)
    }

    pub fn name(&self) -> Option<&str> {
        self.function().get("name")?.as_str()
    }

    /// The JSON schema of the arguments, if it is declared.
    pub fn parameters(&self) -> Option<&Json> {
        self.function().get("parameters")
    }

    /// The JSON schema type of a parameter, if the declaration tells it: `string`, `integer`, …
    pub fn parameter_type(&self, parameter: &str) -> Option<&str> {
        self.parameters()?.get("properties")?.get(parameter)?.get("type")?.as_str()
    }
}

/// Tells what is wrong in words, which an untagged enum can't.
fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Content>, D::Error> {
    let part = |part| match part {
        Json::String(text) => Ok(Part { kind: self::text(), text: Some(text) }),
        other => Part::deserialize(other).map_err(|e| D::Error::custom(format!("a part of `content`: {e}"))),
    };
    match Json::deserialize(deserializer)? {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(Content::Text(text))),
        Json::Array(parts) => Ok(Some(Content::Parts(parts.into_iter().map(part).collect::<Result<_, _>>()?))),
        _ => Err(D::Error::custom("`content` must be a text or a list of parts")),
    }
}

fn text() -> String {
    "text".to_owned()
}

fn function() -> String {
    "function".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_clients_send_them_are_read() {
        let sent = r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]},
            {"role":"assistant","content":null,"thinking":"hm","tool_calls":[{"function":{"name":"f","arguments":"{\"b\":1,\"a\":2}"}}]},
            {"role":"tool","content":"7","tool_name":"f"}]"#;
        let messages: Vec<Message> = serde_json::from_str(sent).unwrap();
        assert!(matches!(&messages[0].content, Some(Content::Parts(parts)) if parts.len() == 2));
        assert_eq!(
            serde_json::from_str::<Message>(r#"{"role":"user","content":["a",{"text":"b"}]}"#).unwrap().content.map(|c| format!("{c:?}")),
            Some(r#"Parts([Part { kind: "text", text: Some("a") }, Part { kind: "text", text: Some("b") }])"#.to_owned())
        );
        let wrong = serde_json::from_str::<Message>(r#"{"role":"user","content":5}"#).unwrap_err().to_string();
        assert!(wrong.contains("`content` must be a text or a list of parts"), "{wrong}");
        let call = &messages[1].tool_calls.as_ref().unwrap()[0];
        assert_eq!(
            (call.id.as_deref(), call.kind.as_str(), call.arguments_read().to_string().as_str()),
            (None, "function", r#"{"b":1,"a":2}"#)
        );
        assert_eq!((messages[1].reasoning_content.as_deref(), messages[2].name.as_deref()), (Some("hm"), Some("f")));
    }
}
