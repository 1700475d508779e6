//! A request as JSON, in OpenAI's fields and llama-server's extras, as the socket and the bus both take it. What the service can't do is
//! refused with the field's name; fields unknown to us are ignored, since clients send many.

use crate::service::{ChatRequest, CompletionRequest, Error, Generation, Prompt, ToolChoice};
use crate::units::TokenId;
use serde_json::{Map, Value, json};

pub type Fields = Map<String, Value>;

/// Fields that change the answer in a way we can't: silence would be a wrong answer.
const NOT_SUPPORTED: [&str; 4] = ["grammar", "json_schema", "suffix", "audio"];

/// How the answer is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    pub stream: bool,
    pub include_usage: bool,
    /// Tell how far the prompt is (llama-server's `return_progress`).
    pub progress: bool,
}

/// `POST /v1/chat/completions`.
pub fn chat(fields: &Fields) -> Result<ChatRequest, Error> {
    let messages = match fields.get("messages") {
        Some(Value::Array(messages)) => messages.iter().map(message).collect::<Result<_, _>>()?,
        _ => return Err(bad("messages", "must be a list of messages")),
    };
    let tools = match present(fields, "tools") {
        None => Vec::new(),
        Some(Value::Array(tools)) => tools.clone(),
        Some(_) => return Err(bad("tools", "must be a list")),
    };
    let mut template_variables = match present(fields, "chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(variables)) => variables.clone(),
        Some(_) => return Err(bad("chat_template_kwargs", "must be an object")),
    };
    let mut thinking = template_variables.remove("enable_thinking").and_then(|v| v.as_bool());
    if let Some(effort) = text(fields, "reasoning_effort")? {
        thinking = thinking.or(Some(effort != "none"));
        template_variables.entry("reasoning_effort").or_insert_with(|| json!(effort));
    }
    check_response_format(fields)?;
    Ok(ChatRequest { messages, tools, tool_choice: tool_choice(fields)?, thinking, template_variables, generation: generation(fields)? })
}

/// `POST /v1/completions`.
pub fn completion(fields: &Fields) -> Result<CompletionRequest, Error> {
    check_response_format(fields)?;
    let mut generation = generation(fields)?;
    // Here `logprobs` is the number of alternatives.
    generation.logprobs = whole(fields, "logprobs", u32::MAX.into())?.map(|n| n as u32);
    Ok(CompletionRequest { prompt: prompt(fields.get("prompt"))?, generation })
}

/// A text, or the token ids that stand for one; in a list of one, too.
fn prompt(value: Option<&Value>) -> Result<Prompt, Error> {
    match value {
        Some(Value::String(text)) => Ok(Prompt::Text(text.clone())),
        Some(Value::Array(list)) => match list.as_slice() {
            [one @ (Value::String(_) | Value::Array(_))] => prompt(Some(one)),
            [Value::String(_) | Value::Array(_), ..] => Err(bad("prompt", "one prompt a request is taken; send the others in requests of their own")),
            tokens => Ok(Prompt::Tokens(token_ids(tokens, "prompt")?)),
        },
        _ => Err(bad("prompt", "must be a text or a list of token ids")),
    }
}

pub fn token_ids(list: &[Value], param: &'static str) -> Result<Vec<TokenId>, Error> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).map(TokenId).ok_or_else(|| bad(param, format!("{v} is no token id")));
    list.iter().map(id).collect()
}

pub fn delivery(fields: &Fields) -> Result<Delivery, Error> {
    let options = match present(fields, "stream_options") {
        Some(Value::Object(options)) => options.get("include_usage").and_then(Value::as_bool).unwrap_or(false),
        None => false,
        Some(_) => return Err(bad("stream_options", "must be an object")),
    };
    Ok(Delivery {
        stream: flag(fields, "stream")?.unwrap_or(false),
        include_usage: options,
        progress: flag(fields, "return_progress")?.unwrap_or(false),
    })
}

/// Everything about how to answer that chats and completions share.
pub fn generation(fields: &Fields) -> Result<Generation, Error> {
    if let Some(name) = NOT_SUPPORTED.into_iter().find(|name| present(fields, name).is_some()) {
        return Err(bad(name, "is not supported"));
    }
    if whole(fields, "n", u64::MAX)?.is_some_and(|n| n != 1) {
        return Err(bad("n", "must be 1: one answer a request is given"));
    }
    let logprobs = match present(fields, "logprobs") {
        Some(Value::Bool(true)) => Some(whole(fields, "top_logprobs", u32::MAX.into())?.unwrap_or(0) as u32),
        _ => None,
    };
    let small = |name| whole(fields, name, u32::MAX.into()).map(|n| n.map(|n| n as u32));
    Ok(Generation {
        max_tokens: match limit(fields, "max_completion_tokens")? {
            Some(n) => Some(n),
            None => limit(fields, "max_tokens")?.or(limit(fields, "n_predict")?),
        },
        temperature: number(fields, "temperature")?,
        top_k: limit(fields, "top_k")?,
        top_p: number(fields, "top_p")?,
        min_p: number(fields, "min_p")?,
        repeat_penalty: number(fields, "repeat_penalty")?,
        repeat_last_n: small("repeat_last_n")?,
        presence_penalty: number(fields, "presence_penalty")?,
        frequency_penalty: number(fields, "frequency_penalty")?,
        logit_bias: logit_bias(fields)?,
        seed: seed(fields)?,
        stop: stop(fields)?,
        logprobs,
        cache_prompt: flag(fields, "cache_prompt")?,
        ignore_eos: flag(fields, "ignore_eos")?.unwrap_or(false),
    })
}

/// Content as parts becomes one text, and `developer` is today's word for `system`: templates know neither.
fn message(message: &Value) -> Result<Value, Error> {
    let Value::Object(fields) = message else { return Err(bad("messages", "each message must be an object")) };
    let mut fields = fields.clone();
    match fields.get("role").and_then(Value::as_str) {
        None => return Err(bad("messages", "each message needs a `role`")),
        Some("developer") => _ = fields.insert("role".into(), json!("system")),
        Some(_) => {}
    }
    let content = match fields.get("content") {
        None | Some(Value::Null) => Value::String(String::new()),
        Some(Value::String(text)) => json!(text),
        Some(Value::Array(parts)) => Value::String(parts.iter().map(part).collect::<Result<String, _>>()?),
        Some(_) => return Err(bad("messages", "`content` must be a text or a list of parts")),
    };
    fields.insert("content".into(), content);
    Ok(Value::Object(fields))
}

fn part(part: &Value) -> Result<&str, Error> {
    match (part.get("type").and_then(Value::as_str), part.get("text")) {
        (Some("text") | None, Some(Value::String(text))) => Ok(text),
        (kind, _) => Err(bad("messages", format!("a content part of type `{}` can't be read; only text can", kind.unwrap_or("(none)")))),
    }
}

fn tool_choice(fields: &Fields) -> Result<ToolChoice, Error> {
    match present(fields, "tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "none" => Ok(ToolChoice::None),
        Some(_) => Err(bad("tool_choice", "a model can't be forced to call a tool here; use \"auto\" or \"none\"")),
    }
}

fn check_response_format(fields: &Fields) -> Result<(), Error> {
    match present(fields, "response_format").map(|f| f.get("type").and_then(Value::as_str)) {
        None | Some(Some("text")) => Ok(()),
        Some(Some(kind @ ("json_object" | "json_schema"))) => {
            Err(bad("response_format", format!("`{kind}` is not supported: answers can't be held to a form yet; ask for it in the prompt")))
        }
        Some(_) => Err(bad("response_format", "`type` must be \"text\"")),
    }
}

fn stop(fields: &Fields) -> Result<Vec<String>, Error> {
    match present(fields, "stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(|| bad("stop", "must be a text or a list of texts"))).collect()
        }
        Some(_) => Err(bad("stop", "must be a text or a list of texts")),
    }
}

/// `{"token id": bias}` as OpenAI has it, or `[[token id, bias]]` as llama-server has it.
fn logit_bias(fields: &Fields) -> Result<Vec<(TokenId, f32)>, Error> {
    let wrong = || bad("logit_bias", "must be an object of token ids with their biases");
    let pair = |id: Option<u64>, bias: &Value| {
        let id = id.and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)?;
        let bias = if bias == &json!(false) { f32::NEG_INFINITY } else { bias.as_f64().ok_or_else(wrong)? as f32 };
        Ok((TokenId(id), bias))
    };
    match present(fields, "logit_bias") {
        None => Ok(Vec::new()),
        Some(Value::Object(biases)) => biases.iter().map(|(id, bias)| pair(id.parse().ok(), bias)).collect(),
        Some(Value::Array(pairs)) => pairs
            .iter()
            .map(|p| match p.as_array().map(Vec::as_slice) {
                Some([id, bias]) => pair(id.as_u64(), bias),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// A negative seed asks for chance, as llama-server and Ollama have it.
fn seed(fields: &Fields) -> Result<Option<u64>, Error> {
    match present(fields, "seed") {
        Some(v) if v.as_i64().is_some_and(|n| n < 0) => Ok(None),
        _ => whole(fields, "seed", u64::MAX),
    }
}

/// A count where a negative number means that there is no limit of the client's.
fn limit(fields: &Fields, name: &'static str) -> Result<Option<u32>, Error> {
    match present(fields, name) {
        Some(v) if v.as_i64().is_some_and(|n| n < 0) => Ok(None),
        _ => Ok(whole(fields, name, u64::MAX)?.map(|n| u32::try_from(n).unwrap_or(u32::MAX))),
    }
}

/// `null` is the same as absent.
fn present<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|v| !v.is_null())
}

fn number(fields: &Fields, name: &'static str) -> Result<Option<f32>, Error> {
    present(fields, name).map(|v| v.as_f64().map(|n| n as f32).ok_or_else(|| bad(name, "must be a number"))).transpose()
}

fn whole(fields: &Fields, name: &'static str, most: u64) -> Result<Option<u64>, Error> {
    let read = |v: &Value| v.as_u64().or_else(|| v.as_f64().filter(|n| n.fract() == 0.0 && (0.0..9e15).contains(n)).map(|n| n as u64));
    present(fields, name)
        .map(|v| read(v).filter(|n| *n <= most).ok_or_else(|| bad(name, "must be a whole number, not negative")))
        .transpose()
}

pub fn flag(fields: &Fields, name: &'static str) -> Result<Option<bool>, Error> {
    present(fields, name).map(|v| v.as_bool().ok_or_else(|| bad(name, "must be true or false"))).transpose()
}

pub fn text<'a>(fields: &'a Fields, name: &'static str) -> Result<Option<&'a str>, Error> {
    present(fields, name).map(|v| v.as_str().ok_or_else(|| bad(name, "must be a text"))).transpose()
}

pub fn bad(param: &'static str, message: impl Into<String>) -> Error {
    Error::BadRequest { param, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other} is no object"),
        }
    }

    fn refused_param(value: Value) -> &'static str {
        match chat(&fields(value)) {
            Err(Error::BadRequest { param, .. }) => param,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn content_parts_become_one_text_and_developer_becomes_system() {
        let request = chat(&fields(json!({"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": []},
        ]})))
        .unwrap();
        assert_eq!(
            request.messages,
            vec![
                json!({"role": "system", "content": "Be brief."}),
                json!({"role": "user", "content": "ab"}),
                json!({"role": "assistant", "content": "", "tool_calls": []}),
            ]
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_the_fields_name() {
        let with = |name: &str, value: Value| json!({"messages": [{"role": "user", "content": "a"}], name: value});
        assert_eq!(refused_param(with("n", json!(2))), "n");
        assert_eq!(refused_param(with("response_format", json!({"type": "json_object"}))), "response_format");
        assert_eq!(refused_param(with("tool_choice", json!("required"))), "tool_choice");
        assert_eq!(refused_param(with("grammar", json!("root ::= x"))), "grammar");
        assert_eq!(refused_param(with("temperature", json!("hot"))), "temperature");
        assert_eq!(refused_param(with("max_tokens", json!(1.5))), "max_tokens");
        assert_eq!(refused_param(with("logit_bias", json!({"x": 1}))), "logit_bias");
        assert_eq!(refused_param(json!({"messages": "hello"})), "messages");
        assert_eq!(refused_param(json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})), "messages");
    }

    #[test]
    fn null_is_the_same_as_absent_and_unknown_fields_are_ignored() {
        let request = chat(&fields(json!({"messages": [], "temperature": null, "stop": null, "n": null, "tools": null, "frobnicate": 1}))).unwrap();
        assert_eq!((request.generation.temperature, request.generation.stop.len()), (None, 0));
    }

    #[test]
    fn either_name_of_the_length_limit_counts_and_minus_one_is_none() {
        let of = |v: Value| generation(&fields(v)).unwrap().max_tokens;
        assert_eq!(of(json!({"max_tokens": 3})), Some(3));
        assert_eq!(of(json!({"max_completion_tokens": 4, "max_tokens": 3})), Some(4));
        assert_eq!(of(json!({"max_tokens": 3000.0})), Some(3000));
        assert_eq!(of(json!({"max_tokens": -1})), None);
    }

    #[test]
    fn thinking_is_switched_by_either_field() {
        let of = |v: Value| chat(&fields(v)).unwrap().thinking;
        assert_eq!(of(json!({"messages": [], "chat_template_kwargs": {"enable_thinking": false}})), Some(false));
        assert_eq!(of(json!({"messages": [], "reasoning_effort": "low"})), Some(true));
        assert_eq!(of(json!({"messages": [], "reasoning_effort": "none"})), Some(false));
        assert_eq!(of(json!({"messages": []})), None);
    }

    #[test]
    fn a_prompt_is_a_text_or_tokens_also_in_a_list_of_one() {
        let of = |v: Value| completion(&fields(json!({"prompt": v}))).map(|r| r.prompt);
        assert!(matches!(of(json!("a")), Ok(Prompt::Text(t)) if t == "a"));
        assert!(matches!(of(json!(["a"])), Ok(Prompt::Text(t)) if t == "a"));
        assert!(matches!(of(json!([1, 2])), Ok(Prompt::Tokens(t)) if t == [TokenId(1), TokenId(2)]));
        assert!(matches!(of(json!([[1, 2]])), Ok(Prompt::Tokens(t)) if t == [TokenId(1), TokenId(2)]));
        assert!(of(json!(["a", "b"])).is_err());
        assert!(of(json!([-1])).is_err());
        assert!(of(json!(5)).is_err());
    }
}
