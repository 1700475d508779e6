//! A request as JSON, in OpenAI's fields and llama-server's extras, as the socket and the bus both take it. What the service can't do is
//! refused with the field's name; fields unknown to us are ignored, since clients send many.

use crate::service::request::REPEAT_LAST_MAX;
use crate::service::{AnswerForm, ChatRequest, CompletionRequest, Error, Generation, Prompt, ToolChoice};
use crate::units::TokenId;
use serde_json::{Map, Value, json};

pub type Fields = Map<String, Value>;

/// Fields that change the answer in a way we can't: silence would be a wrong answer.
const NOT_SUPPORTED: [&str; 2] = ["suffix", "audio"];

/// Most prompts of one request; they are answered one after the other.
const PROMPTS_MAX: usize = 64;

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
        Some(Value::Array(messages)) => messages.clone(),
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
        thinking = thinking.or(Some(!["none", "minimal"].contains(&effort)));
        template_variables.entry("reasoning_effort").or_insert_with(|| json!(effort));
    }
    Ok(ChatRequest {
        messages,
        tools,
        tool_choice: tool_choice(fields)?,
        parallel_tool_calls: flag(fields, "parallel_tool_calls")?,
        thinking,
        template_variables,
        generation: Generation { logprobs: chat_logprobs(fields)?, ..generation(fields)? },
    })
}

/// A chat says whether it wants them, and beside it how many alternatives.
fn chat_logprobs(fields: &Fields) -> Result<Option<u32>, Error> {
    match flag(fields, "logprobs")? {
        Some(true) => Ok(Some(whole(fields, "top_logprobs", u32::MAX.into())?.unwrap_or(0) as u32)),
        _ => Ok(None),
    }
}

/// A completion of one prompt.
pub fn completion(fields: &Fields) -> Result<CompletionRequest, Error> {
    let mut requests = completions(fields)?;
    match requests.len() {
        1 => Ok(requests.remove(0)),
        _ => Err(bad("prompt", "one prompt a request is taken here; send the others in requests of their own")),
    }
}

/// `POST /v1/completions`: one request for each prompt, at least one.
pub fn completions(fields: &Fields) -> Result<Vec<CompletionRequest>, Error> {
    // Here `logprobs` is the number of alternatives.
    let logprobs = whole(fields, "logprobs", u32::MAX.into())?.map(|n| n as u32);
    let generation = Generation { logprobs, ..generation(fields)? };
    if flag(fields, "echo")? == Some(true) {
        return Err(bad("echo", "is not supported; the prompt is known to you"));
    }
    if whole(fields, "best_of", u64::MAX)?.is_some_and(|n| n > 1) {
        return Err(bad("best_of", "must be 1: one answer a prompt is given"));
    }
    let prompts = prompts(fields.get("prompt"))?;
    Ok(prompts.into_iter().map(|prompt| CompletionRequest { prompt, generation: generation.clone() }).collect())
}

/// A text, or the token ids that stand for one, or a list of either.
fn prompts(value: Option<&Value>) -> Result<Vec<Prompt>, Error> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(tokens) => Ok(Prompt::Tokens(token_ids(tokens, "prompt")?)),
        _ => Err(bad("prompt", "must be a text, a list of token ids, or a list of such prompts")),
    };
    match value {
        Some(Value::Array(list)) if list.iter().any(|v| v.is_string() || v.is_array()) => match list.len() {
            count if count > PROMPTS_MAX => Err(bad("prompt", format!("{count} prompts are more than the {PROMPTS_MAX} that are taken"))),
            _ => list.iter().map(one).collect(),
        },
        Some(value) => Ok(vec![one(value)?]),
        None => Err(bad("prompt", "is missing")),
    }
}

pub fn token_ids(list: &[Value], param: &'static str) -> Result<Vec<TokenId>, Error> {
    let id =
        |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).map(TokenId).ok_or_else(|| bad(param, format!("{v} is no token id")));
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

/// Everything about how to answer that chats and completions share; of probabilities each has its own way to ask.
pub fn generation(fields: &Fields) -> Result<Generation, Error> {
    if let Some(name) = NOT_SUPPORTED.into_iter().find(|name| present(fields, name).is_some()) {
        return Err(bad(name, "is not supported"));
    }
    if whole(fields, "n", u64::MAX)?.is_some_and(|n| n != 1) {
        return Err(bad("n", "must be 1: one answer a request is given"));
    }
    Ok(Generation {
        max_tokens: match limit(fields, "max_completion_tokens")? {
            Some(n) => Some(n),
            None => limit(fields, "max_tokens")?.or(limit(fields, "n_predict")?),
        },
        temperature: number(fields, "temperature")?,
        top_k: whole_or(fields, "top_k", 0)?,
        top_p: number(fields, "top_p")?,
        min_p: number(fields, "min_p")?,
        repeat_penalty: number(fields, "repeat_penalty")?,
        repeat_last_n: whole_or(fields, "repeat_last_n", REPEAT_LAST_MAX)?,
        presence_penalty: number(fields, "presence_penalty")?,
        frequency_penalty: number(fields, "frequency_penalty")?,
        logit_bias: logit_bias(fields)?,
        seed: seed(fields)?,
        stop: stop(fields)?,
        form: form(fields)?,
        cache_prompt: flag(fields, "cache_prompt")?,
        ignore_eos: flag(fields, "ignore_eos")?.unwrap_or(false),
        ..Generation::default()
    })
}

fn tool_choice(fields: &Fields) -> Result<ToolChoice, Error> {
    match present(fields, "tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "none" => Ok(ToolChoice::None),
        Some(Value::String(choice)) if choice == "required" => Ok(ToolChoice::Required),
        Some(choice) => {
            let name = choice.get("function").unwrap_or(choice).get("name").and_then(Value::as_str);
            name.map(|name| ToolChoice::Named(name.to_owned())).ok_or_else(|| {
                bad("tool_choice", "must be \"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}")
            })
        }
    }
}

/// `response_format` as OpenAI has it (and with the schema beside `type`, as others have it), or llama-server's `json_schema`, `grammar`.
fn form(fields: &Fields) -> Result<AnswerForm, Error> {
    if let Some(grammar) = text(fields, "grammar")?.filter(|g| !g.is_empty()) {
        return Ok(AnswerForm::Grammar(grammar.to_owned()));
    }
    if let Some(schema) = present(fields, "json_schema") {
        return json_form(schema, false, "json_schema");
    }
    let Some(format) = present(fields, "response_format") else { return Ok(AnswerForm::Free) };
    let nested = format.get("json_schema");
    let schema = nested.and_then(|n| n.get("schema")).or(format.get("schema")).filter(|s| !s.is_null());
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(AnswerForm::Free),
        Some("json_object") => json_form(schema.unwrap_or(&json!({"type": "object"})), false, "response_format"),
        Some("json_schema") => {
            let strict = nested.and_then(|n| n.get("strict")).and_then(Value::as_bool).unwrap_or(false);
            let schema = schema.or(nested.filter(|n| n.get("type").is_some() || n.get("properties").is_some()));
            json_form(schema.ok_or_else(|| bad("response_format", "`json_schema.schema` is missing"))?, strict, "response_format")
        }
        _ => Err(bad("response_format", "`type` must be \"text\", \"json_object\" or \"json_schema\"")),
    }
}

fn json_form(schema: &Value, strict: bool, field: &'static str) -> Result<AnswerForm, Error> {
    match schema {
        Value::Object(_) => Ok(AnswerForm::Json { schema: schema.clone(), strict, field }),
        _ => Err(bad(field, "the schema must be an object")),
    }
}

/// Texts that end the answer. An empty one, which forms of other programs leave in the list, ends nothing.
fn stop(fields: &Fields) -> Result<Vec<String>, Error> {
    let wrong = || bad("stop", "must be a text or a list of texts");
    let texts = |list: &[Value]| {
        let texts = list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong));
        texts.filter(|text| text.as_ref() != Ok(&String::new())).collect()
    };
    match present(fields, "stop") {
        None => Ok(Vec::new()),
        Some(one @ Value::String(_)) => texts(std::slice::from_ref(one)),
        Some(Value::Array(list)) => texts(list),
        Some(_) => Err(wrong()),
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
    Ok(whole_or(fields, name, u32::MAX)?.filter(|n| *n != u32::MAX))
}

/// A count where a negative number means `all`, as llama-server has it.
fn whole_or(fields: &Fields, name: &'static str, all: u32) -> Result<Option<u32>, Error> {
    match present(fields, name) {
        Some(v) if v.as_f64().is_some_and(|n| n < 0.0) => Ok(Some(all)),
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
    fn what_cannot_be_done_is_refused_by_the_fields_name() {
        let with = |name: &str, value: Value| json!({"messages": [{"role": "user", "content": "a"}], name: value});
        assert_eq!(refused_param(with("n", json!(2))), "n");
        assert_eq!(refused_param(with("response_format", json!({"type": "xml"}))), "response_format");
        assert_eq!(refused_param(with("response_format", json!({"type": "json_schema", "json_schema": {"name": "x"}}))), "response_format");
        assert_eq!(refused_param(with("tool_choice", json!({"type": "function"}))), "tool_choice");
        assert_eq!(refused_param(with("grammar", json!(5))), "grammar");
        assert_eq!(refused_param(with("logprobs", json!(5))), "logprobs");
        assert_eq!(refused_param(with("json_schema", json!("{}"))), "json_schema");
        assert_eq!(refused_param(with("temperature", json!("hot"))), "temperature");
        assert_eq!(refused_param(with("max_tokens", json!(1.5))), "max_tokens");
        assert_eq!(refused_param(with("logit_bias", json!({"x": 1}))), "logit_bias");
        assert_eq!(refused_param(json!({"messages": "hello"})), "messages");
    }

    #[test]
    fn null_is_the_same_as_absent_and_unknown_fields_are_ignored() {
        let request =
            chat(&fields(json!({"messages": [], "temperature": null, "stop": null, "n": null, "tools": null, "frobnicate": 1}))).unwrap();
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
    fn a_negative_count_is_all_and_an_empty_stop_is_none() {
        let of = |v: Value| generation(&fields(v)).unwrap();
        assert_eq!((of(json!({"top_k": -1})).top_k, of(json!({"top_k": 5})).top_k, of(json!({})).top_k), (Some(0), Some(5), None));
        assert_eq!(of(json!({"repeat_last_n": -1})).repeat_last_n, Some(REPEAT_LAST_MAX));
        assert_eq!(of(json!({"stop": ["", "END"]})).stop, ["END"]);
        assert_eq!(of(json!({"stop": ""})).stop, [""; 0]);
    }

    #[test]
    fn a_form_is_asked_for_in_any_of_the_ways_in_use() {
        let of = |v: Value| generation(&fields(v)).unwrap().form;
        let object = json!({"type": "object"});
        let json = |schema: &Value, strict, field| AnswerForm::Json { schema: schema.clone(), strict, field };
        assert_eq!(of(json!({"response_format": {"type": "text"}})), AnswerForm::Free);
        assert_eq!(of(json!({"response_format": {"type": "json_object"}})), json(&object, false, "response_format"));
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        for (format, strict) in [
            (json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}), true),
            (json!({"type": "json_schema", "schema": schema}), false),
            (json!({"type": "json_schema", "json_schema": schema}), false),
            (json!({"type": "json_object", "schema": schema}), false),
        ] {
            assert_eq!(of(json!({"response_format": format})), json(&schema, strict, "response_format"));
        }
        assert_eq!(of(json!({"json_schema": schema})), json(&schema, false, "json_schema"));
        assert_eq!(of(json!({"grammar": "root ::= \"a\""})), AnswerForm::Grammar("root ::= \"a\"".into()));
        assert_eq!(of(json!({"grammar": ""})), AnswerForm::Free);
    }

    #[test]
    fn a_tool_is_forced_by_word_or_by_name() {
        let of = |v: Value| chat(&fields(json!({"messages": [], "tool_choice": v}))).unwrap().tool_choice;
        assert_eq!(
            (of(json!("auto")), of(json!("none")), of(json!("required"))),
            (ToolChoice::Auto, ToolChoice::None, ToolChoice::Required)
        );
        assert_eq!(of(json!({"type": "function", "function": {"name": "f"}})), ToolChoice::Named("f".into()));
        assert_eq!(of(json!({"type": "function", "name": "f"})), ToolChoice::Named("f".into()));
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
    fn a_prompt_is_a_text_or_tokens_or_a_list_of_them() {
        let of = |v: Value| completion(&fields(json!({"prompt": v}))).map(|r| r.prompt);
        let count = |v: Value| completions(&fields(json!({"prompt": v}))).map(|r| r.len());
        assert_eq!((count(json!(["a", [1, 2], "b"])), count(json!([])), count(json!(["a", 1])).is_err()), (Ok(3), Ok(1), true));
        assert!(count(json!(vec!["a"; 65])).is_err() && count(json!((0..65).collect::<Vec<_>>())) == Ok(1));
        assert!(matches!(of(json!("a")), Ok(Prompt::Text(t)) if t == "a"));
        assert!(matches!(of(json!(["a"])), Ok(Prompt::Text(t)) if t == "a"));
        assert!(matches!(of(json!([1, 2])), Ok(Prompt::Tokens(t)) if t == [TokenId(1), TokenId(2)]));
        assert!(matches!(of(json!([[1, 2]])), Ok(Prompt::Tokens(t)) if t == [TokenId(1), TokenId(2)]));
        assert!(of(json!(["a", "b"])).is_err(), "not on the bus");
        assert!(of(json!([-1])).is_err());
        assert!(of(json!(5)).is_err());
    }
}
