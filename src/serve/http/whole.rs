//! An answer in one piece.

use super::parts::{Head, Shape, logprobs, text_logprobs, timings, usage};
use super::reply::Refusal;
use crate::service::{Done, Error, Event, Finish, TokenLogprob};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// An answer that the daemon's end cut short is none: the client is told to come again.
pub fn reply(head: &Head, events: Vec<Event>, done: Done) -> Result<Response, Refusal> {
    if done.finish == Finish::Cancelled {
        return Err(Error::NotReady("the daemon is stopping; the answer was cut short".into()).into());
    }
    Ok(Json(object(head, events, &done)).into_response())
}

fn object(head: &Head, events: Vec<Event>, done: &Done) -> Value {
    let (mut content, mut reasoning, mut tokens) = (String::new(), String::new(), Vec::<TokenLogprob>::new());
    let mut calls: Vec<(String, String, String)> = Vec::new();
    for event in events {
        match event {
            Event::Content { text, logprobs } => {
                content.push_str(&text);
                tokens.extend(logprobs);
            }
            Event::Reasoning(text) => reasoning.push_str(&text),
            Event::ToolCall { id, name, .. } => calls.push((id, name, String::new())),
            Event::ToolArguments { index, text } => {
                if let Some(call) = calls.get_mut(index) {
                    call.2.push_str(&text);
                }
            }
            Event::Prefill { .. } | Event::Done(_) => {}
        }
    }
    let finish = done.finish.word();
    let mut out = match head.shape {
        Shape::Chat => {
            let message = message(content, reasoning, calls);
            let choice = json!({"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs(&tokens)});
            head.object("chat.completion", json!([choice]))
        }
        Shape::Text => {
            let choice = json!({"text": content, "index": 0, "finish_reason": finish, "logprobs": text_logprobs(&tokens, &mut 0)});
            head.object("text_completion", json!([choice]))
        }
    };
    out.insert("usage".into(), usage(done));
    out.insert("timings".into(), timings(done));
    Value::Object(out)
}

fn message(content: String, reasoning: String, calls: Vec<(String, String, String)>) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    let silent = content.is_empty() && !calls.is_empty();
    message.insert("content".into(), if silent { Value::Null } else { json!(content) });
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), json!(reasoning));
    }
    if !calls.is_empty() {
        let call = |(id, name, arguments)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        message.insert("tool_calls".into(), calls.into_iter().map(call).collect());
    }
    Value::Object(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Timings, Usage};

    #[test]
    fn arguments_are_text_and_content_is_null_beside_a_call_alone() {
        let events = vec![
            Event::ToolCall { index: 0, id: "call_1".into(), name: "lamp".into() },
            Event::ToolArguments { index: 0, text: "{\"on\":".into() },
            Event::ToolArguments { index: 0, text: "true}".into() },
        ];
        let done = Done { finish: Finish::ToolCalls, usage: Usage::default(), timings: Timings::default(), tokens: Vec::new() };
        let choice = &object(&Head::new(Shape::Chat, "m"), events, &done)["choices"][0];
        assert_eq!(choice["message"]["content"], Value::Null);
        assert_eq!(choice["message"]["tool_calls"][0]["function"], json!({"name": "lamp", "arguments": "{\"on\":true}"}));
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}
