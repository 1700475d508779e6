//! What can be asked of a model. Everything optional has its default in [`Defaults`]; everything is checked before any work is done,
//! and a refusal names the field as clients know it.

use super::Error;
use crate::engine::Sampling;
use crate::units::TokenId;
use serde_json::{Map, Value};

/// Most stop strings of a request, and the longest.
pub const STOPS_MAX: usize = 16;
pub const STOP_BYTES_MAX: usize = 1024;
/// Most alternatives told with a token.
pub const LOGPROBS_MAX: u32 = 20;
/// Most biased tokens of a request.
pub const BIASES_MAX: usize = 1024;
/// Furthest that a repetition penalty looks back.
pub const REPEAT_LAST_MAX: u32 = 4096;

/// The next turn of a conversation.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// In OpenAI's shape (`role`, `content`, `tool_calls`, `tool_call_id`); fields unknown to us are the template's business.
    pub messages: Vec<Value>,
    /// In OpenAI's shape (`{"type": "function", "function": {…}}`), in the client's order.
    pub tools: Vec<Value>,
    pub tool_choice: ToolChoice,
    /// Whether an answer may hold several calls; `None`: it may.
    pub parallel_tool_calls: Option<bool>,
    /// Whether the model thinks aloud first, where it can.
    pub thinking: Option<bool>,
    /// More variables for the template (`chat_template_kwargs`).
    pub template_variables: Map<String, Value>,
    pub generation: Generation,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    #[default]
    Auto,
    /// The tools are not shown to the model.
    None,
    /// The answer is a call of one of them.
    Required,
    /// The answer is a call of this one.
    Named(String),
}

/// What the answer has to look like. A thought before it stays free.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AnswerForm {
    #[default]
    Free,
    /// A JSON value that fits the schema.
    Json {
        schema: Value,
        /// Refuse the request if a part of the schema can't be held to; otherwise that part is left to the model.
        strict: bool,
        /// The field that asked for it.
        field: &'static str,
    },
    /// What a grammar in llama.cpp's notation says.
    Grammar(String),
}

/// Text to go on from.
#[derive(Clone, Debug, Default)]
pub struct CompletionRequest {
    pub prompt: Prompt,
    pub generation: Generation,
}

#[derive(Clone, Debug)]
pub enum Prompt {
    /// Tokenized as the model was trained: with its token for the beginning, special tokens by name.
    Text(String),
    Tokens(Vec<TokenId>),
}

impl Default for Prompt {
    fn default() -> Self {
        Prompt::Text(String::new())
    }
}

/// How to answer. `None` takes the default.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    pub max_tokens: Option<u32>,
    pub temperature: Option<f32>,
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub repeat_last_n: Option<u32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Vec<(TokenId, f32)>,
    pub seed: Option<u64>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    pub form: AnswerForm,
    /// Tell probabilities, with so many alternatives.
    pub logprobs: Option<u32>,
    /// `false` computes the whole prompt anew.
    pub cache_prompt: Option<bool>,
    /// Go on past the model's own end, for measuring.
    pub ignore_eos: bool,
}

/// What a request that does not say gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    /// `None`: as many as the context has room for.
    pub max_tokens: Option<u32>,
    /// Whether models that can think aloud do so.
    pub thinking: bool,
}

/// llama.cpp's server's values, which people's expectations come from; thinking is off, since on a small board it costs minutes.
impl Default for Defaults {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, max_tokens: None, thinking: false }
    }
}

impl Generation {
    pub(super) fn max_tokens(&self, defaults: &Defaults) -> usize {
        self.max_tokens.or(defaults.max_tokens).map_or(usize::MAX, |n| n as usize)
    }

    /// Checks all fields and fills in the defaults.
    pub(super) fn sampling(&self, defaults: &Defaults, vocabulary: usize) -> Result<Sampling, Error> {
        self.check_stops()?;
        if let Some((token, _)) = self.logit_bias.iter().find(|(t, b)| t.0 as usize >= vocabulary || b.is_nan()) {
            return Err(Error::bad(
                "logit_bias",
                format!("token {} is not in the vocabulary of {vocabulary} tokens, or has no number", token.0),
            ));
        }
        at_most("logit_bias", self.logit_bias.len() as u64, BIASES_MAX as u64, "tokens")?;
        at_most("top_logprobs", self.logprobs.unwrap_or(0).into(), LOGPROBS_MAX.into(), "alternatives")?;
        at_most("repeat_last_n", self.repeat_last_n.unwrap_or(0).into(), REPEAT_LAST_MAX.into(), "tokens")?;
        let standard = Sampling::default();
        Ok(Sampling {
            temperature: within("temperature", self.temperature, defaults.temperature, 0.0, 2.0)?,
            top_k: self.top_k.unwrap_or(defaults.top_k) as usize,
            top_p: within("top_p", self.top_p, defaults.top_p, 0.0, 1.0)?,
            min_p: within("min_p", self.min_p, defaults.min_p, 0.0, 1.0)?,
            repetition: within("repeat_penalty", self.repeat_penalty, defaults.repeat_penalty, 0.01, 10.0)?,
            presence: within("presence_penalty", self.presence_penalty, 0.0, -2.0, 2.0)?,
            frequency: within("frequency_penalty", self.frequency_penalty, 0.0, -2.0, 2.0)?,
            window: self.repeat_last_n.map_or(standard.window, |n| n as usize),
            bias: self.logit_bias.clone(),
            seed: self.seed,
            logprobs: self.logprobs.map(|n| n as usize),
        })
    }

    fn check_stops(&self) -> Result<(), Error> {
        at_most("stop", self.stop.len() as u64, STOPS_MAX as u64, "strings")?;
        match self.stop.iter().find(|s| s.is_empty() || s.len() > STOP_BYTES_MAX) {
            Some(s) => Err(Error::bad("stop", format!("a stop string must have 1 to {STOP_BYTES_MAX} bytes, this has {}", s.len()))),
            None => Ok(()),
        }
    }
}

fn within(param: &'static str, value: Option<f32>, default: f32, least: f32, most: f32) -> Result<f32, Error> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::bad(param, format!("must be a number from {least} to {most}, not {value}")))
}

fn at_most(param: &'static str, value: u64, most: u64, of: &str) -> Result<(), Error> {
    if value <= most {
        return Ok(());
    }
    Err(Error::bad(param, format!("{value} {of} are more than the {most} that are taken")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(generation: Generation) -> String {
        generation.sampling(&Defaults::default(), 100).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_field_and_its_bounds() {
        assert_eq!(
            refused(Generation { temperature: Some(-1.0), ..Generation::default() }),
            "`temperature`: must be a number from 0 to 2, not -1"
        );
        assert_eq!(
            refused(Generation { top_p: Some(f32::NAN), ..Generation::default() }),
            "`top_p`: must be a number from 0 to 1, not NaN"
        );
        assert!(
            refused(Generation { logit_bias: vec![(TokenId(100), 1.0)], ..Generation::default() }).starts_with("`logit_bias`: token 100")
        );
        assert!(
            refused(Generation { stop: vec![String::new()], ..Generation::default() }).starts_with("`stop`: a stop string must have 1")
        );
        assert!(refused(Generation { stop: vec!["a".into(); 17], ..Generation::default() }).starts_with("`stop`: 17 strings"));
        assert!(refused(Generation { logprobs: Some(21), ..Generation::default() }).starts_with("`top_logprobs`: 21"));
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let defaults = Defaults { temperature: 0.1, top_k: 7, ..Defaults::default() };
        let sampling = Generation { top_k: Some(9), ..Generation::default() }.sampling(&defaults, 100).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k), (0.1, 9));
        assert_eq!(sampling.window, 64);
    }
}
