//! A step: which rows there are, where each finds its state, and how far its positions are turned.

use crate::backend::{BLOCK_TOKENS, Batch, SlotId};
use crate::program::{Op, Program, Rope, Rows as Domain, WeightId};
use std::ops::Range;

/// A rotation, ready to be turned by a position.
pub struct Turn {
    pub rope: Rope,
    pub frequencies: Vec<f32>,
    pub magnitude: f32,
}

impl Turn {
    /// Each distinct rotation of a program, for contexts of so many tokens. `vector`: a weight's numbers.
    pub fn all<'a>(program: &Program, context: usize, vector: impl Fn(WeightId) -> &'a [f32]) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        for step in &program.steps {
            if let Op::Rope { rope, .. } = step.op
                && !turns.iter().any(|t| t.rope == rope)
            {
                let factors = rope.factors.for_context(context).map(&vector);
                turns.push(Turn { rope, frequencies: rope.frequencies(factors), magnitude: rope.magnitude() });
            }
        }
        turns
    }
}

/// One row of a step.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Index into the batch's sequences.
    pub sequence: usize,
    pub position: usize,
    pub token: usize,
    /// Index into the batch's rows.
    pub row: usize,
}

/// The rows of a sequence in this step.
#[derive(Clone, Debug)]
pub struct Run {
    pub sequence: usize,
    /// Indices into the batch's rows.
    pub rows: Range<usize>,
}

/// What all workers look at during a step.
pub struct Step {
    pub all: Vec<Line>,
    pub wanted: Vec<Line>,
    pub runs: Vec<Run>,
    /// Rows whose keys and values go into one block.
    pub tiles: Vec<Range<usize>>,
    /// For each sequence its blocks' numbers.
    pub blocks: Vec<Vec<u32>>,
    pub slots: Vec<Option<SlotId>>,
    /// For each rotation the cosines of all rows, `[rows, pairs]`, and the sines.
    angles: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Step {
    /// Rows of a sequence in this step.
    pub fn rows_of(&self, sequence: usize) -> usize {
        self.runs.iter().filter(|run| run.sequence == sequence).map(|run| run.rows.len()).sum()
    }

    /// # Panics
    /// When the batch breaks its own rules (see [`Batch`]): a fault of the engine, not of a client.
    pub fn new(batch: &Batch, vocabulary: usize, context: usize, needs_slots: bool, turns: &[Turn]) -> Step {
        let all: Vec<Line> = batch
            .rows
            .iter()
            .enumerate()
            .map(|(row, r)| Line { sequence: r.sequence as usize, position: r.position as usize, token: r.token.0 as usize, row })
            .collect();
        let mut runs: Vec<Run> = Vec::new();
        for line in &all {
            assert!(line.token < vocabulary, "token {} of a vocabulary of {vocabulary}", line.token);
            assert!(line.position < context, "position {} of a context of {context}", line.position);
            match runs.last_mut().filter(|run| run.sequence == line.sequence) {
                Some(run) => {
                    assert_eq!(all[run.rows.end - 1].position + 1, line.position, "rows of a sequence follow each other");
                    run.rows.end += 1;
                }
                None => {
                    assert!(runs.iter().all(|run| run.sequence != line.sequence), "rows of a sequence stand together");
                    runs.push(Run { sequence: line.sequence, rows: line.row..line.row + 1 });
                }
            }
        }
        let wanted = all.iter().filter(|l| batch.rows[l.row].wants_logits).copied().collect();
        let slots: Vec<_> = batch.sequences.iter().map(|s| s.slot).collect();
        assert!(!needs_slots || runs.iter().all(|r| slots[r.sequence].is_some()), "a program with slots gets one for each sequence");
        let mut tiles: Vec<Range<usize>> = Vec::new();
        for line in &all {
            let block = |l: &Line| (l.sequence, l.position / BLOCK_TOKENS);
            match tiles.last_mut().filter(|t| block(&all[t.start]) == block(line)) {
                Some(tile) => tile.end += 1,
                None => tiles.push(line.row..line.row + 1),
            }
        }
        let blocks = batch.sequences.iter().map(|s| s.blocks.iter().map(|b| b.0).collect()).collect();
        let angles = turns.iter().map(|turn| angles(turn, &all)).collect();
        Step { all, wanted, runs, tiles, blocks, slots, angles }
    }

    /// Cosines and sines of rotation `turn` for row `row` of the step.
    pub fn angles(&self, turn: usize, row: usize) -> (&[f32], &[f32]) {
        let (cos, sin) = &self.angles[turn];
        let pairs = cos.len() / self.all.len();
        (&cos[row * pairs..(row + 1) * pairs], &sin[row * pairs..(row + 1) * pairs])
    }

    pub fn lines(&self, domain: Domain) -> &[Line] {
        match domain {
            Domain::All => &self.all,
            Domain::Wanted => &self.wanted,
        }
    }

    /// The wanted lines among rows `rows`.
    pub fn wanted_within(&self, rows: &Range<usize>) -> Range<usize> {
        let first = self.wanted.partition_point(|l| l.row < rows.start);
        first..self.wanted.partition_point(|l| l.row < rows.end)
    }

    /// Lines of `domain` that belong to rows `rows`.
    pub fn within(&self, domain: Domain, rows: &Range<usize>) -> Range<usize> {
        match domain {
            Domain::All => rows.clone(),
            Domain::Wanted => self.wanted_within(rows),
        }
    }
}

/// `magnitude · cos` and `magnitude · sin` of `position · frequency`, `[lines, pairs]`.
fn angles(turn: &Turn, lines: &[Line]) -> (Vec<f32>, Vec<f32>) {
    let pairs = lines.iter().flat_map(|line| turn.frequencies.iter().map(|f| (line.position as f64 * f64::from(*f)).sin_cos()));
    let magnitude = f64::from(turn.magnitude);
    pairs.map(|(sin, cos)| ((magnitude * cos) as f32, (magnitude * sin) as f32)).unzip()
}
