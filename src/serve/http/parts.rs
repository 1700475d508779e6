//! The pieces of OpenAI's objects that streams and whole answers share.

use crate::service::{Done, Timings, TokenLogprob, Usage};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which of the two shapes an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Chat,
    Text,
}

/// What stands in every object of one answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub shape: Shape,
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
}

/// Numbers answers; with the start's time in front, ids don't come again after a restart.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

impl Head {
    pub fn new(shape: Shape, model: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:x}{:04x}", now.as_micros(), ANSWERS.fetch_add(1, Relaxed) & 0xffff);
        Self { shape, id, created: now.as_secs(), model: model.to_owned() }
    }

    /// `{"id", "object", "created", "model", "choices"}`.
    pub fn object(&self, object: &str, choices: Value) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("id".into(), json!(self.id));
        out.insert("object".into(), json!(object));
        out.insert("created".into(), json!(self.created));
        out.insert("model".into(), json!(self.model));
        out.insert("choices".into(), choices);
        out
    }
}

/// What several answers to one request took together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    pub usage: Usage,
    pub timings: Timings,
}

impl Total {
    pub fn add(&mut self, done: &Done) {
        let (usage, timings) = (&mut self.usage, &mut self.timings);
        usage.prompt_tokens += done.usage.prompt_tokens;
        usage.cached_tokens += done.usage.cached_tokens;
        usage.completion_tokens += done.usage.completion_tokens;
        usage.reasoning_tokens += done.usage.reasoning_tokens;
        timings.queue += done.timings.queue;
        timings.prefill_tok_s = joined((timings.prefill_tok_s, timings.prefill), (done.timings.prefill_tok_s, done.timings.prefill));
        timings.decode_tok_s = joined((timings.decode_tok_s, timings.decode), (done.timings.decode_tok_s, done.timings.decode));
        timings.prefill += done.timings.prefill;
        timings.decode += done.timings.decode;
    }
}

/// The rate over two spans of time.
fn joined(a: (f64, Duration), b: (f64, Duration)) -> f64 {
    let seconds = (a.1 + b.1).as_secs_f64();
    if seconds > 0.0 { (a.0 * a.1.as_secs_f64() + b.0 * b.1.as_secs_f64()) / seconds } else { 0.0 }
}

pub fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    })
}

/// As llama-server has them; Open WebUI and many benches read them.
pub fn timings(usage: &Usage, t: &Timings) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": usage.prompt_tokens - usage.cached_tokens,
        "prompt_ms": ms(t.prefill),
        "prompt_per_second": t.prefill_tok_s,
        "predicted_n": usage.completion_tokens,
        "predicted_ms": ms(t.decode),
        "predicted_per_second": t.decode_tok_s,
        "queue_ms": ms(t.queue),
    })
}

/// Of a chat.
pub fn logprobs(tokens: &[TokenLogprob]) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let one = |t: &TokenLogprob| json!({"token": t.token, "logprob": t.logprob, "bytes": t.bytes});
    let content = tokens.iter().map(|t| {
        let mut token = one(t);
        token["top_logprobs"] = t.top.iter().map(one).collect();
        token
    });
    json!({"content": content.collect::<Vec<_>>()})
}

/// Of a text: parallel lists. `offset` counts the text's characters on.
pub fn text_logprobs(tokens: &[TokenLogprob], offset: &mut usize) -> Value {
    if tokens.is_empty() {
        return Value::Null;
    }
    let offsets: Vec<usize> = tokens
        .iter()
        .map(|t| {
            *offset += t.token.chars().count();
            *offset - t.token.chars().count()
        })
        .collect();
    let top = |t: &TokenLogprob| t.top.iter().map(|a| (a.token.clone(), json!(a.logprob))).collect::<Map<_, _>>();
    json!({
        "tokens": tokens.iter().map(|t| &t.token).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|t| t.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
