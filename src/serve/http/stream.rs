//! An answer as server-sent events. The order is what clients were written for: the role alone first, text, the finish without text,
//! usage if asked for, `[DONE]`. A comment shows now and then that we live, since a cold prompt can take minutes on a small board.

use super::chat::Questions;
use super::parts::{Head, Shape, Total, logprobs, text_logprobs, timings, usage};
use super::reply::Refusal;
use crate::serve::followed::Followed;
use crate::serve::wire::Delivery;
use crate::service::{Done, Error, Event, Finish};
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// What nobody shows and every reader skips.
const SIGN_OF_LIFE: &str = ": working\n\n";

/// What the next question came to.
type Asked = (Questions, Option<Result<Followed, Error>>);

/// Answers with the events of what `first`, and then the other questions, come to.
pub fn reply(first: impl Future<Output = Asked> + Send + 'static, delivery: Delivery, keep_alive: Duration) -> Response {
    let flow = Flow { stage: Stage::Asking(Box::pin(first)), writer: None, frames: VecDeque::new(), delivery, keep_alive };
    let body = futures_util::stream::unfold(flow, |mut flow| async move { Some((Ok::<_, Infallible>(flow.next().await?), flow)) });
    // Proxies must neither keep nor collect what is meant for now.
    let headers =
        [(header::CONTENT_TYPE.as_str(), "text/event-stream"), (header::CACHE_CONTROL.as_str(), "no-cache"), ("x-accel-buffering", "no")];
    (headers, Body::from_stream(body)).into_response()
}

struct Flow {
    stage: Stage,
    /// There from the first answer on.
    writer: Option<Writer>,
    /// Written, not yet sent.
    frames: VecDeque<Bytes>,
    delivery: Delivery,
    keep_alive: Duration,
}

#[expect(clippy::large_enum_variant, reason = "there is one a stream, and it is mostly answering")]
enum Stage {
    Asking(Pin<Box<dyn Future<Output = Asked> + Send>>),
    Answering(Questions, Followed),
    Ended,
}

impl Flow {
    /// The next bytes to send; `None` at the end. Dropping the flow cancels the answer.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            match std::mem::replace(&mut self.stage, Stage::Ended) {
                Stage::Ended => return None,
                Stage::Asking(mut asking) => match timeout(self.keep_alive, &mut asking).await {
                    Err(_) => {
                        self.stage = Stage::Asking(asking);
                        return Some(Bytes::from_static(SIGN_OF_LIFE.as_bytes()));
                    }
                    Ok(asked) => self.asked(asked),
                },
                Stage::Answering(questions, mut answer) => match timeout(self.keep_alive, answer.next()).await {
                    Err(_) => {
                        self.stage = Stage::Answering(questions, answer);
                        return Some(Bytes::from_static(SIGN_OF_LIFE.as_bytes()));
                    }
                    Ok(event) => self.answered(event, questions, answer),
                },
            }
        }
    }

    fn asked(&mut self, (questions, answer): Asked) {
        match (answer, questions.head()) {
            (Some(Ok(answer)), Some(head)) => {
                let writer = self.writer.get_or_insert_with(|| Writer::new(head.clone(), self.delivery));
                writer.begin(&mut self.frames);
                self.stage = Stage::Answering(questions, answer);
            }
            (Some(Err(error)), _) => self.fail(error),
            _ => {
                if let Some(writer) = &self.writer {
                    writer.end(&mut self.frames);
                }
            }
        }
    }

    fn answered(&mut self, event: Option<Result<Event, Error>>, questions: Questions, answer: Followed) {
        match (event, &mut self.writer) {
            (Some(Ok(Event::Done(done))), _) if done.finish == Finish::Cancelled => {
                self.fail(Error::NotReady("the daemon is stopping; the answer was cut short".into()));
            }
            (Some(Ok(Event::Done(done))), Some(writer)) => {
                writer.finish(&done, &mut self.frames);
                self.stage = Stage::Asking(Box::pin(questions.next()));
            }
            (Some(Ok(event)), Some(writer)) => {
                writer.write(event, &mut self.frames);
                self.stage = Stage::Answering(questions, answer);
            }
            (Some(Err(error)), _) => self.fail(error),
            (None, _) | (_, None) => {}
        }
    }

    /// The status is long sent, so the error comes as an event, and ends the stream.
    fn fail(&mut self, error: Error) {
        self.frames.push_back(data(&Refusal::from(error).json()));
        self.stage = Stage::Ended;
    }
}

/// From events to frames.
struct Writer {
    head: Head,
    delivery: Delivery,
    /// Which of several answers this is.
    index: usize,
    total: Total,
    /// Characters of text so far.
    offset: usize,
    begun: Instant,
}

impl Writer {
    fn new(head: Head, delivery: Delivery) -> Self {
        Self { head, delivery, index: 0, total: Total::default(), offset: 0, begun: Instant::now() }
    }

    /// An answer begins.
    fn begin(&mut self, frames: &mut VecDeque<Bytes>) {
        (self.offset, self.begun) = (0, Instant::now());
        if self.head.shape == Shape::Chat {
            frames.push_back(self.delta(json!({"role": "assistant", "content": ""}), Value::Null));
        }
    }

    fn write(&mut self, event: Event, frames: &mut VecDeque<Bytes>) {
        let frame = match event {
            Event::Content { text, logprobs: tokens } => match self.head.shape {
                Shape::Chat => self.delta(json!({"content": text}), logprobs(&tokens)),
                Shape::Text => {
                    let probabilities = text_logprobs(&tokens, &mut self.offset);
                    data(&self.chunk(json!([{"text": text, "index": self.index, "finish_reason": null, "logprobs": probabilities}])))
                }
            },
            Event::Reasoning(text) => self.delta(json!({"reasoning_content": text}), Value::Null),
            Event::ToolCall { index, id, name } => {
                let call = json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
                self.delta(json!({"tool_calls": [call]}), Value::Null)
            }
            Event::ToolArguments { index, text } => {
                self.delta(json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}), Value::Null)
            }
            Event::Prefill { cached, done, total } if self.delivery.progress => {
                let mut chunk = self.chunk(json!([]));
                let time = self.begun.elapsed().as_millis() as u64;
                chunk["prompt_progress"] = json!({"total": total, "cache": cached, "processed": done, "time_ms": time});
                data(&chunk)
            }
            Event::Prefill { .. } | Event::Done(_) => return,
        };
        frames.push_back(frame);
    }

    /// An answer ends.
    fn finish(&mut self, done: &Done, frames: &mut VecDeque<Bytes>) {
        let finish = done.finish.word();
        let choice = match self.head.shape {
            Shape::Chat => json!([{"index": self.index, "delta": {}, "finish_reason": finish, "logprobs": null}]),
            Shape::Text => json!([{"text": "", "index": self.index, "finish_reason": finish, "logprobs": null}]),
        };
        let mut last = self.chunk(choice);
        last["timings"] = timings(&done.usage, &done.timings);
        frames.push_back(data(&last));
        self.total.add(done);
        self.index += 1;
    }

    /// All answers have ended.
    fn end(&self, frames: &mut VecDeque<Bytes>) {
        if self.delivery.include_usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(&self.total.usage);
            frames.push_back(data(&chunk));
        }
        frames.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    fn delta(&self, delta: Value, logprobs: Value) -> Bytes {
        data(&self.chunk(json!([{"index": self.index, "delta": delta, "finish_reason": null, "logprobs": logprobs}])))
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = if self.head.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" };
        Value::Object(self.head.object(object, choices))
    }
}

fn data(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Timings, Usage};

    fn written(events: Vec<Event>, delivery: Delivery) -> Vec<Value> {
        let mut frames = VecDeque::new();
        let mut writer = Writer::new(Head::new(Shape::Chat, "m"), delivery);
        writer.begin(&mut frames);
        for event in events {
            match event {
                Event::Done(done) => writer.finish(&done, &mut frames),
                event => writer.write(event, &mut frames),
            }
        }
        writer.end(&mut frames);
        assert_eq!(frames.pop_back().unwrap().as_ref(), b"data: [DONE]\n\n");
        let json = |frame: &Bytes| serde_json::from_slice(frame.strip_prefix(b"data: ").unwrap().strip_suffix(b"\n\n").unwrap()).unwrap();
        frames.iter().map(json).collect()
    }

    fn done(finish: Finish) -> Event {
        Event::Done(Done {
            finish,
            usage: Usage { prompt_tokens: 9, cached_tokens: 8, ..Usage::default() },
            timings: Timings::default(),
            tokens: vec![],
        })
    }

    #[test]
    fn the_role_comes_alone_and_the_finish_without_text() {
        let chunks = written(vec![Event::Content { text: "Hel".into(), logprobs: vec![] }, done(Finish::Stop)], Delivery::default());
        let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
        assert_eq!(deltas, [&json!({"role": "assistant", "content": ""}), &json!({"content": "Hel"}), &json!({})]);
        assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
        assert_eq!(chunks[2]["timings"]["cache_n"], 8);
        assert!(chunks.iter().all(|c| c.get("usage").is_none() && c["id"] == chunks[0]["id"]));
    }

    #[test]
    fn usage_comes_last_with_no_choice_when_asked_for() {
        let chunks = written(vec![done(Finish::Length)], Delivery { include_usage: true, ..Delivery::default() });
        let last = chunks.last().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!((&last["usage"]["prompt_tokens_details"]["cached_tokens"], &last["usage"]["total_tokens"]), (&json!(8), &json!(9)));
    }

    #[test]
    fn a_tool_call_has_one_entry_a_chunk_and_its_name_only_in_the_first() {
        let events = vec![
            Event::ToolCall { index: 1, id: "call_1".into(), name: "lamp".into() },
            Event::ToolArguments { index: 1, text: "{}".into() },
            done(Finish::ToolCalls),
        ];
        let chunks = written(events, Delivery::default());
        let call = |i: usize| &chunks[i]["choices"][0]["delta"]["tool_calls"];
        assert_eq!(call(1), &json!([{"index": 1, "id": "call_1", "type": "function", "function": {"name": "lamp", "arguments": ""}}]));
        assert_eq!(call(2), &json!([{"index": 1, "function": {"arguments": "{}"}}]));
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
    }
}
