//! A model that was opened, and what can be done with it.

use super::answer::Answer;
use super::grammar::Grammars;
use super::open::{self, OpenError, Options};
use super::prompt::{ChatPrompt, Held, held_text};
use super::reading::Reading;
use super::request::{ChatRequest, CompletionRequest, Defaults, Generation, Prompt};
use super::{Error, Limits, Telemetry};
use crate::backend::Progress;
use crate::engine::{Engine, Request};
use crate::gguf::Gguf;
use crate::tokenizer::{self, Tokenizer};
use crate::units::{Bytes, TokenId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Most bytes of text that are tokenized in one request; a token is seldom shorter than a byte.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// What a model is.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// What clients call it.
    pub name: String,
    pub path: PathBuf,
    pub architecture: String,
    /// Such as `Q4_K_M`; empty where the file does not say.
    pub file_type: String,
    pub parameters: u64,
    pub bytes: Bytes,
    /// Most positions of a sequence here, and those it was trained for.
    pub context: usize,
    pub context_trained: usize,
    pub vocabulary: usize,
    pub dim: usize,
    pub layers: usize,
    pub backend: &'static str,
    /// Such as the kernels' tier.
    pub device: String,
    pub threads: usize,
    /// Caches and scratch.
    pub cache: Bytes,
    /// The file's date.
    pub created: Option<SystemTime>,
}

/// Dropping the last handle lets running answers finish, then gives the memory back.
pub struct Model {
    info: ModelInfo,
    file: Arc<Gguf>,
    tokenizer: Arc<Tokenizer>,
    ends: Arc<[TokenId]>,
    chat: ChatPrompt,
    grammars: Grammars,
    engine: Engine,
    defaults: Defaults,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Model {
    /// Opens a GGUF file. Takes as long as the device needs to have the weights; `progress` is told, and can end it.
    pub fn open(path: &Path, options: &Options, progress: &dyn Progress) -> Result<Model, OpenError> {
        open::open(path, options, progress)
    }

    pub(super) fn new(
        info: ModelInfo,
        file: Arc<Gguf>,
        tokenizer: Tokenizer,
        chat: ChatPrompt,
        engine: Engine,
        defaults: Defaults,
    ) -> Self {
        let ends = tokenizer.vocab().special().ends.as_slice().into();
        let tokenizer = Arc::new(tokenizer);
        let grammars = Grammars::new(tokenizer.clone(), info.vocabulary);
        Self { info, file, tokenizer, ends, chat, grammars, engine, defaults }
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Whether opening its path again would read the same file.
    pub fn is_current(&self) -> bool {
        self.file.is_current()
    }

    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Whether the file brought a chat template. Without one the conversation is written as the vocabulary's marks suggest.
    pub fn has_template(&self) -> bool {
        self.chat.is_own()
    }

    /// The next turn of a conversation. Renders and tokenizes on the caller's thread (milliseconds for a long conversation; the first
    /// answer that is held to a form takes up to some seconds).
    pub fn chat(&self, request: ChatRequest) -> Result<Answer, Error> {
        let turn = self.chat.prompt(&self.tokenizer, &request, &self.defaults)?;
        let reading = Reading::chat(self.tokenizer.clone(), request.generation.stop.clone(), turn.reader);
        self.generate(turn.tokens, request.generation, turn.held, reading)
    }

    /// Goes on from a text or from tokens.
    pub fn complete(&self, request: CompletionRequest) -> Result<Answer, Error> {
        let prompt = match request.prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => self.tokenize(&text, true, true)?,
        };
        let reading = Reading::text(self.tokenizer.clone(), request.generation.stop.clone());
        let held = held_text(&request.generation.form);
        self.generate(prompt, request.generation, held, reading)
    }

    /// `add_special` puts the model's tokens for beginning and end around it; `parse_special` takes special tokens in the text by their name.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<TokenId>, Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::bad("prompt", format!("{} bytes of text are more than the {TEXT_BYTES_MAX} that are taken", text.len())));
        }
        Ok(self.tokenizer.encode(text, tokenizer::Options { add_special, parse_special }))
    }

    /// The text of tokens, special ones by their names; what is no UTF-8 becomes U+FFFD.
    pub fn detokenize(&self, tokens: &[TokenId]) -> Result<String, Error> {
        self.check(tokens, "tokens")?;
        Ok(String::from_utf8_lossy(&self.tokenizer.decode(tokens, true)).into_owned())
    }

    /// The bytes of one token, which need not be whole characters.
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.tokenizer.token_bytes(token)
    }

    /// What the template makes of a conversation.
    pub fn apply_template(&self, request: &ChatRequest) -> Result<String, Error> {
        self.chat.text(request, &self.defaults)
    }

    pub fn telemetry(&self) -> watch::Receiver<Telemetry> {
        self.engine.telemetry()
    }

    /// Takes effect at the next step boundary.
    pub fn limit(&self, limits: Limits) {
        self.engine.limit(limits);
    }

    /// See [`Engine::heartbeat`]: stands still when a step hangs.
    pub fn heartbeat(&self) -> u64 {
        self.engine.heartbeat()
    }

    /// Makes an idle engine turn once, so that its heartbeat shows that it can.
    pub fn nudge(&self) {
        self.engine.nudge();
    }

    /// Takes no new requests; those inside are answered.
    pub fn drain(&self) {
        self.engine.drain();
    }

    /// Ends after the running step; answers end as cancelled.
    pub fn stop(&self) {
        self.engine.stop();
    }

    /// Waits until the engine has ended and its memory is given back.
    pub async fn ended(&self) {
        self.engine.ended().await;
    }

    /// The reason, when the engine can't go on.
    pub fn failure(&self) -> Option<String> {
        self.engine.failure()
    }

    fn generate(&self, prompt: Vec<TokenId>, generation: Generation, held: Option<Held>, reading: Reading) -> Result<Answer, Error> {
        let held_by = held.as_ref().map(|held| held.field);
        let sampling = generation.sampling(&self.defaults, self.info.vocabulary)?;
        self.check(&prompt, "prompt")?;
        let constraint = match held {
            None => None,
            Some(held) => match self.grammars.hold(&held.form, held.lenient, held.field) {
                Ok(constraint) => Some(constraint),
                Err(error) if held.must => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "the answer's calls are not held to their form");
                    None
                }
            },
        };
        let boundaries = self.boundaries(&prompt);
        let request = Request {
            max_tokens: generation.max_tokens(&self.defaults),
            sampling,
            constraint,
            stop: if generation.ignore_eos { Arc::new([]) } else { self.ends.clone() },
            boundaries,
            fresh: generation.cache_prompt == Some(false),
            prompt,
        };
        Ok(Answer::new(self.engine.submit(request)?, reading, held_by))
    }

    fn check(&self, tokens: &[TokenId], param: &'static str) -> Result<(), Error> {
        match tokens.iter().find(|t| t.0 as usize >= self.info.vocabulary) {
            Some(t) => Err(Error::bad(param, format!("token {} is not in the vocabulary of {} tokens", t.0, self.info.vocabulary))),
            None => Ok(()),
        }
    }

    /// Where a later prompt is likely to part from this one: after the first turn (the instructions) and after the last complete one.
    fn boundaries(&self, prompt: &[TokenId]) -> Vec<usize> {
        let end = |t: &TokenId| self.ends.contains(t);
        let first = prompt.iter().position(end);
        let last = prompt.iter().rposition(end);
        let mut boundaries: Vec<usize> = first.into_iter().chain(last).map(|at| at + 1).collect();
        boundaries.dedup();
        boundaries
    }
}
