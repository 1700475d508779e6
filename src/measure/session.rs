//! A model opened for measuring: token ids in, logits out, step by step, with nothing between the caller and the backend.
//! Who wants words, batching or other clients beside themselves uses the engine; here every step is the caller's own.

use crate::backend::{
    self, BLOCK_TOKENS, Batch, BlockId, Kind, LoadError, LoadOptions, Loaded, Progress, Row, SequenceState, SlotId, StepError, StepOut,
};
use crate::gguf::{Gguf, GgufError};
use crate::model::{self, Model, ModelError};
use crate::units::TokenId;
use std::path::Path;
use std::sync::Arc;

pub struct Session {
    pub model: Model,
    pub file: Arc<Gguf>,
    pub loaded: Box<dyn Loaded>,
    /// Most positions of a sequence.
    context: usize,
    /// Positions that each sequence has behind it.
    lengths: Vec<usize>,
    blocks: Vec<Vec<BlockId>>,
    /// Most rows of a step.
    rows: usize,
    out: StepOut,
    logits: Vec<f32>,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Model(#[from] Box<ModelError>),
    #[error("{path}: {reason}")]
    Load { path: String, reason: LoadError },
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("{tokens} tokens do not fit into a context of {context}; give a larger --ctx")]
    ContextFull { tokens: usize, context: usize },
    #[error("token {token} is not below the model's vocabulary of {vocabulary}")]
    Token { token: u32, vocabulary: usize },
}

/// After which of the tokens fed the logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// The last `n` of them.
    Last(usize),
    All,
}

impl Session {
    /// Opens `path` with room for `sequences` sequences of `options.context` positions; blocks and slots follow from that.
    pub fn open(path: &Path, kind: Kind, options: LoadOptions, sequences: usize, progress: &dyn Progress) -> Result<Session, SessionError> {
        let file = Arc::new(Gguf::open(path)?);
        let model = model::build(&file).map_err(Box::new)?;
        let per_sequence = options.context.div_ceil(BLOCK_TOKENS);
        let options = LoadOptions { blocks: per_sequence * sequences, slots: sequences, ..options };
        let named = |reason| SessionError::Load { path: path.display().to_string(), reason };
        let loaded = backend::open(kind).and_then(|b| b.load(model.program.clone(), file.clone(), &options, progress)).map_err(named)?;
        let blocks = (0..sequences).map(|s| (0..per_sequence).map(|b| BlockId((s * per_sequence + b) as u32)).collect()).collect();
        Ok(Session {
            model,
            file,
            loaded,
            context: options.context,
            lengths: vec![0; sequences],
            blocks,
            rows: options.rows,
            out: StepOut::default(),
            logits: Vec::new(),
        })
    }

    pub fn vocabulary(&self) -> usize {
        self.model.program.vocabulary
    }

    /// Forgets what all sequences have behind them.
    pub fn reset(&mut self) {
        self.lengths.fill(0);
    }

    /// Feeds `tokens` to `sequence`, in as few steps as the backend was loaded for. Returns the wanted logits, `[wanted, vocabulary]`.
    pub fn feed(&mut self, sequence: usize, tokens: &[TokenId], wants: Wants) -> Result<&[f32], SessionError> {
        let first_wanted = match wants {
            Wants::Last(n) => tokens.len().saturating_sub(n),
            Wants::All => 0,
        };
        let rows: Vec<_> = tokens.iter().enumerate().map(|(i, &token)| (sequence, token, i >= first_wanted)).collect();
        self.logits.clear();
        for rows in rows.chunks(self.rows) {
            self.step(rows)?;
            if self.logits.is_empty() {
                std::mem::swap(&mut self.logits, &mut self.out.logits);
            } else {
                self.logits.extend_from_slice(&self.out.logits);
            }
        }
        Ok(&self.logits)
    }

    /// Feeds one token to each of the first sequences in one step. Returns `[tokens, vocabulary]`.
    pub fn feed_each(&mut self, tokens: &[TokenId]) -> Result<&[f32], SessionError> {
        let rows: Vec<_> = tokens.iter().enumerate().map(|(s, &token)| (s, token, true)).collect();
        self.step(&rows)?;
        Ok(&self.out.logits)
    }

    /// One step over rows of (sequence, token, whether logits are wanted); those of a sequence stand together.
    fn step(&mut self, wanted: &[(usize, TokenId, bool)]) -> Result<(), SessionError> {
        let vocabulary = self.vocabulary();
        let mut rows = Vec::with_capacity(wanted.len());
        for &(sequence, token, wants_logits) in wanted {
            if token.0 as usize >= vocabulary {
                return Err(SessionError::Token { token: token.0, vocabulary });
            }
            let position = self.lengths[sequence];
            if position >= self.context {
                return Err(SessionError::ContextFull { tokens: position + 1, context: self.context });
            }
            self.lengths[sequence] += 1;
            rows.push(Row { sequence: sequence as u32, position: position as u32, token, wants_logits });
        }
        let slots = self.model.program.needs_slots();
        let sequences: Vec<SequenceState<'_>> =
            self.blocks.iter().enumerate().map(|(s, blocks)| SequenceState { blocks, slot: slots.then_some(SlotId(s as u32)) }).collect();
        self.loaded.step(&Batch { rows: &rows, sequences: &sequences }, &mut self.out)?;
        Ok(())
    }
}
