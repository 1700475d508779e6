//! An answer in one piece.

use super::chat::Questions;
use super::parts::{Shape, Total, logprobs, text_logprobs, timings, usage};
use super::reply::Refusal;
use crate::service::{Done, Error, Event, Finish, TokenLogprob};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Asks everything, and answers with all of it. An answer that the daemon's end cut short is none: the client is told to come again.
pub async fn reply(mut questions: Questions) -> Result<Response, Refusal> {
    let (mut choices, mut total) = (Vec::new(), Total::default());
    loop {
        let (after, answer) = questions.next().await;
        questions = after;
        let Some(answer) = answer else { break };
        let (events, done) = answer?.collect().await?;
        if done.finish == Finish::Cancelled {
            return Err(Error::NotReady("the daemon is stopping; the answer was cut short".into()).into());
        }
        total.add(&done);
        let Some(head) = questions.head() else { break };
        choices.push(choice(head.shape, choices.len(), events, &done));
    }
    let head = questions.head().ok_or_else(|| Error::Failed("nothing was asked".into()))?;
    let object = if head.shape == Shape::Chat { "chat.completion" } else { "text_completion" };
    let mut out = head.object(object, json!(choices));
    out.insert("usage".into(), usage(&total.usage));
    out.insert("timings".into(), timings(&total.usage, &total.timings));
    Ok(Json(out).into_response())
}

fn choice(shape: Shape, index: usize, events: Vec<Event>, done: &Done) -> Value {
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
    match shape {
        Shape::Chat => {
            let message = message(content, reasoning, calls);
            json!({"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs(&tokens)})
        }
        Shape::Text => json!({"text": content, "index": index, "finish_reason": finish, "logprobs": text_logprobs(&tokens, &mut 0)}),
    }
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
        let choice = choice(Shape::Chat, 0, events, &done);
        assert_eq!(choice["message"]["content"], Value::Null);
        assert_eq!(choice["message"]["tool_calls"][0]["function"], json!({"name": "lamp", "arguments": "{\"on\":true}"}));
        assert_eq!(choice["finish_reason"], "tool_calls");
    }
}
