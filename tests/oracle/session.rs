//! Drives a loaded model: sequences with blocks and slots of their own, tokens in, logits out.

use hearth::backend::{BLOCK_TOKENS, Backend, Batch, BlockId, LoadOptions, Loaded, Row, SequenceState, SlotId, StepOut};
use hearth::gguf::Gguf;
use hearth::program::Program;
use hearth::units::TokenId;
use std::sync::Arc;

pub struct Session {
    loaded: Box<dyn Loaded>,
    vocabulary: usize,
    needs_slots: bool,
    /// Blocks of each sequence.
    blocks: Vec<Vec<BlockId>>,
    /// Tokens of each sequence so far.
    lengths: Vec<usize>,
}

impl Session {
    /// Room for `sequences` of `options.context` tokens. Blocks are handed out interleaved, so that a sequence's are never adjacent.
    pub fn new(backend: &dyn Backend, file: &Arc<Gguf>, program: &Arc<Program>, sequences: usize, options: &LoadOptions) -> Session {
        let each = options.context.div_ceil(BLOCK_TOKENS);
        let options = LoadOptions { blocks: each * sequences, slots: sequences, rows: options.context * sequences, ..options.clone() };
        let loaded =
            backend.load(program.clone(), file.clone(), &options, &()).unwrap_or_else(|e| panic!("{}: {e}", file.path().display()));
        let blocks = (0..sequences).map(|s| (0..each).map(|i| BlockId((i * sequences + s) as u32)).collect()).collect();
        Session { loaded, vocabulary: program.vocabulary, needs_slots: program.needs_slots(), blocks, lengths: vec![0; sequences] }
    }

    /// Starts a sequence anew.
    pub fn clear(&mut self, sequence: usize) {
        self.lengths[sequence] = 0;
    }

    /// Tokens of a sequence so far.
    pub fn length(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Makes sequence `to` a copy of `from`.
    pub fn copy(&mut self, from: usize, to: usize) {
        let blocks: Vec<_> = self.blocks[from].iter().copied().zip(self.blocks[to].iter().copied()).collect();
        self.loaded.copy_blocks(&blocks).expect("blocks are copied");
        if self.needs_slots {
            self.loaded.copy_slots(&[(SlotId(from as u32), SlotId(to as u32))]).expect("slots are copied");
        }
        self.lengths[to] = self.lengths[from];
    }

    /// One step: each part appends its tokens to its sequence; logits come back for positions in `wanted`, in the order of the rows.
    pub fn step(&mut self, parts: &[(usize, &[u32])], wanted: impl Fn(usize, usize) -> bool) -> Vec<Vec<f32>> {
        let mut rows = Vec::new();
        for (index, (sequence, tokens)) in parts.iter().enumerate() {
            for token in *tokens {
                let position = self.lengths[*sequence];
                self.lengths[*sequence] += 1;
                let wants_logits = wanted(*sequence, position);
                rows.push(Row { sequence: index as u32, position: position as u32, token: TokenId(*token), wants_logits });
            }
        }
        let states: Vec<SequenceState> = parts
            .iter()
            .map(|(sequence, _)| SequenceState {
                blocks: &self.blocks[*sequence],
                slot: self.needs_slots.then_some(SlotId(*sequence as u32)),
            })
            .collect();
        let mut out = StepOut::default();
        self.loaded.step(&Batch { rows: &rows, sequences: &states }, &mut out).expect("the step runs");
        out.logits.chunks_exact(self.vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// Feeds `tokens` to a fresh sequence 0 in steps of `chunk`; the logits of the `wanted` positions in order.
    pub fn feed(&mut self, tokens: &[u32], chunk: usize, wanted: &[usize]) -> Vec<Vec<f32>> {
        self.clear(0);
        tokens.chunks(chunk).flat_map(|part| self.step(&[(0, part)], |_, position| wanted.contains(&position))).collect()
    }
}

/// The largest |a − b|, and where.
pub fn largest_difference(a: &[f32], b: &[f32]) -> (f32, usize) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // NaN counts as the largest.
    differences.zip(0..).fold((0.0, 0), |worst, (d, i)| if d <= worst.0 { worst } else { (d, i) })
}

pub fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(i, _)| i as u32)
}

/// Σ p·ln(p/q) of the two softmaxes.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_softmax = |x: &[f32]| {
        let largest = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = x.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        x.iter().map(|x| f64::from(*x) - largest - sum.ln()).collect::<Vec<_>>()
    };
    log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum()
}
