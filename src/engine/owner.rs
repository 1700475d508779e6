//! The engine's thread: one turn takes requests in, gives places, plans a step, runs it and hands the tokens out.
//!
//! ```text
//!            place and blocks free              reader gone, complete, stopped
//!  waiting ─────────────────────────▶ running ─────────────────────────────────▶ its blocks stay as a prefix
//!     ▲                                  │
//!     └──────────────────────────────────┘  put off: no block left (the youngest), or its reader is slow and others wait
//! ```
//!
//! A sequence that is put off loses its hold on its blocks, nothing else: tokens, sampler and chance stay with it, so its text goes on
//! as if nothing had been; what is no longer in the cache by then is computed again.

use super::answer::Reason;
use super::blocks::{Blocks, Found};
use super::plan::{self, Pacer, Work};
use super::sequence::{Sequence, Ticket};
use super::slots::Slots;
use super::state::State;
use super::telemetry::{Phase, Telemetry};
use super::{Limits, Shape};
use crate::backend::{ALIKE, BLOCK_TOKENS, Batch, Loaded, Row, SequenceState, SlotId, StepError, StepOut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::watch;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Stepped,
    /// Nothing to compute until somebody wakes the thread.
    Idle,
    Ended,
}

/// The fields' order matters at the end: the device goes first, then the telemetry's sender, which tells that its memory is free.
pub struct Owner {
    loaded: Box<dyn Loaded>,
    shape: Shape,
    inbox: Receiver<Ticket>,
    limits_seen: watch::Receiver<Limits>,
    limits: Limits,
    state: Arc<State>,
    blocks: Blocks,
    slots: Option<Slots>,
    /// By the time they got their place.
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    pacer: Pacer,
    /// Kept from step to step.
    rows: Vec<Row>,
    given: Vec<usize>,
    out: StepOut,
    figures: Telemetry,
    telemetry: watch::Sender<Telemetry>,
}

impl Owner {
    pub fn new(
        loaded: Box<dyn Loaded>,
        shape: Shape,
        inbox: Receiver<Ticket>,
        limits_seen: watch::Receiver<Limits>,
        telemetry: watch::Sender<Telemetry>,
        state: Arc<State>,
    ) -> Self {
        Self {
            loaded,
            inbox,
            limits_seen,
            limits: Limits::default(),
            state,
            blocks: Blocks::new(shape.blocks),
            slots: (shape.slots > 0).then(|| Slots::new(shape.slots)),
            running: Vec::new(),
            waiting: VecDeque::new(),
            pacer: Pacer::default(),
            rows: Vec::new(),
            given: Vec::new(),
            out: StepOut::default(),
            figures: Telemetry { blocks: shape.blocks, ..Telemetry::default() },
            telemetry,
            shape,
        }
    }

    /// Turns until it ends; sleeps while there is nothing to do.
    pub fn run(&mut self) {
        loop {
            match self.turn() {
                Turn::Stepped => {}
                Turn::Idle => std::thread::park(),
                Turn::Ended => return,
            }
        }
    }

    pub fn turn(&mut self) -> Turn {
        self.state.beat();
        let turn = match self.work() {
            Ok(turn) => turn,
            Err(error) => {
                self.state.fail(error.to_string());
                self.end_all(&Reason::Failed(error.to_string()));
                Turn::Ended
            }
        };
        if turn != Turn::Stepped {
            self.figures.phase = Phase::Idle;
        }
        self.publish();
        turn
    }

    fn work(&mut self) -> Result<Turn, StepError> {
        let asleep = self.running.is_empty() && self.waiting.is_empty();
        self.waiting.extend(self.inbox.try_iter().map(Sequence::new));
        if asleep && !self.waiting.is_empty() {
            // The first step may take seconds: whoever rests while the engine does, or sets a clock, hears of it now.
            self.figures.phase = Phase::Prefill;
            self.publish();
        }
        if self.state.stopping() {
            self.end_all(&Reason::Cancelled);
            return Ok(Turn::Ended);
        }
        self.take_limits();
        self.drop_abandoned();
        self.give_places()?;
        self.make_room();
        if self.plan() {
            self.step()?;
            return Ok(Turn::Stepped);
        }
        let done = self.state.draining() && self.running.is_empty() && self.waiting.is_empty();
        Ok(if done { Turn::Ended } else { Turn::Idle })
    }

    fn take_limits(&mut self) {
        if self.limits_seen.has_changed().unwrap_or(false) {
            let limits = *self.limits_seen.borrow_and_update();
            if limits.pace != self.limits.pace {
                self.loaded.limit(limits.pace);
            }
            self.limits = limits;
        }
    }

    fn drop_abandoned(&mut self) {
        while let Some(i) = self.running.iter().position(Sequence::abandoned) {
            let sequence = self.running.remove(i);
            self.give_back(sequence);
            self.figures.cancelled += 1;
        }
        let before = self.waiting.len();
        self.waiting.retain(|s| !s.abandoned());
        self.figures.cancelled += (before - self.waiting.len()) as u64;
    }

    /// Moves waiting requests to places, in order, as long as there are places and blocks.
    fn give_places(&mut self) -> Result<(), StepError> {
        // One whose reader is slow waits its turn without keeping the others back.
        while let Some(next) = self.waiting.iter().position(Sequence::ready) {
            if self.running.len() >= self.limits.running.min(self.shape.running) {
                let Some(slow) = self.running.iter().position(|s| !s.ready()) else { return Ok(()) };
                let sequence = self.running.remove(slow);
                let sequence = self.put_off(sequence);
                self.waiting.push_back(sequence);
                continue;
            }
            let Some(mut sequence) = self.waiting.remove(next) else { return Ok(()) };
            if !self.place(&mut sequence)? {
                self.waiting.insert(next, sequence);
                return Ok(());
            }
            self.figures.prompt_cached += sequence.start() as u64;
            self.running.push(sequence);
        }
        Ok(())
    }

    /// Gives `sequence` blocks for all its tokens, and a slot; what is known of it already is not computed again.
    /// `false`, with nothing held, when there is no room now.
    fn place(&mut self, sequence: &mut Sequence) -> Result<bool, StepError> {
        let mut found = if sequence.fresh { Found::default() } else { self.blocks.find(&sequence.tokens) };
        // The last token is always computed: its logits are wanted.
        let anew = if sequence.repeatable { ALIKE } else { 1 };
        let known = found.positions().min(sequence.tokens.len().saturating_sub(anew));
        match &mut self.slots {
            None => {
                found.cut(known);
                // A copy needs its source beside it. Where that is one block too many, the partly known block is computed again.
                let whole = Found { part: None, ..found.clone() };
                Ok(self.place_after(sequence, found, None)? || self.running.is_empty() && self.place_after(sequence, whole, None)?)
            }
            Some(slots) => {
                let snapshot = slots.find(&sequence.tokens, known);
                found.cut(snapshot.map_or(0, |(_, at)| at));
                let from = snapshot.map(|(slot, _)| slot);
                let anew = Found::default();
                Ok(self.place_after(sequence, found, from)? || self.running.is_empty() && self.place_after(sequence, anew, None)?)
            }
        }
    }

    /// The same, going on after what was `found` and from the recurrent state in slot `from`.
    fn place_after(&mut self, sequence: &mut Sequence, found: Found, from: Option<SlotId>) -> Result<bool, StepError> {
        let known = found.positions();
        let source = found.part.map(|(id, _)| id);
        found.whole.iter().chain(&source).for_each(|&b| self.blocks.hold(b));
        let needed = sequence.tokens.len().div_ceil(BLOCK_TOKENS) - found.whole.len();
        // Each running answer may soon want one more block.
        let fits = needed + self.running.len() <= self.blocks.available() && self.slots.as_ref().is_none_or(|s| s.available() > 0);
        if !fits {
            found.whole.iter().chain(&source).for_each(|&b| self.blocks.release(b));
            return Ok(false);
        }
        sequence.kept = found.whole.len();
        sequence.computed = known;
        sequence.blocks.clear();
        sequence.blocks.extend(&found.whole);
        sequence.blocks.extend((0..needed).map_while(|_| self.blocks.take()));
        if let Some(source) = source {
            // The block is only partly ours: we go on in a copy.
            self.blocks.release(source);
            self.loaded.copy_blocks(&[(source, sequence.blocks[found.whole.len()])])?;
        }
        if let Some(slots) = &mut self.slots {
            // Without another slot to spare the snapshot itself becomes the sequence's state.
            sequence.slot = slots.take(from).or_else(|| slots.take(None));
            if let (Some(from), Some(to)) = (from, sequence.slot)
                && from != to
            {
                self.loaded.copy_slots(&[(from, to)])?;
            }
        }
        Ok(true)
    }

    /// Sees to it that each answer has a block for its next position, oldest first; puts others off for that.
    fn make_room(&mut self) {
        let mut i = 0;
        while i < self.running.len() {
            if self.running[i].has_room() || !self.running[i].ready() {
                i += 1;
            } else if let Some(block) = self.blocks.take() {
                self.running[i].blocks.push(block);
            } else {
                let slow = self.running.iter().rposition(|s| !s.ready());
                let other = slow.unwrap_or(self.running.len() - 1);
                let sequence = self.running.remove(other);
                let sequence = self.put_off(sequence);
                self.waiting.push_front(sequence);
                i -= usize::from(other < i);
            }
        }
    }

    /// Fills `given` with the rows of each running sequence. `false`: there is nothing to compute.
    fn plan(&mut self) -> bool {
        let work: Vec<Work> = self.running.iter().map(|s| self.work_of(s)).collect();
        let answers = work.iter().any(|w| w.answering);
        let chunk = self.pacer.chunk(answers, self.shape.rows);
        plan::share(&work, chunk, self.limits.chunk.max(1), self.shape.rows, &mut self.given);
        self.given.iter().any(|&n| n > 0)
    }

    fn work_of(&self, sequence: &Sequence) -> Work {
        if !sequence.ready() {
            return Work { pending: 0, answering: false, repeatable: false };
        }
        // A snapshot is possible only where a step ends.
        let boundary = sequence.next_boundary().filter(|_| self.slots.is_some());
        let pending = boundary.map_or(sequence.pending(), |b| b - sequence.computed);
        Work { pending, answering: sequence.answering(), repeatable: sequence.repeatable }
    }

    fn step(&mut self) -> Result<(), StepError> {
        self.rows.clear();
        let mut states = Vec::with_capacity(self.running.len());
        let (mut prompt_rows, mut answer_rows) = (0, 0);
        for (sequence, &count) in self.running.iter().zip(&self.given).filter(|(_, n)| **n > 0) {
            let index = states.len() as u32;
            states.push(SequenceState { blocks: &sequence.blocks, slot: sequence.slot });
            let last = sequence.tokens.len() - 1;
            self.rows.extend((sequence.computed..sequence.computed + count).map(|at| Row {
                sequence: index,
                position: at as u32,
                token: sequence.tokens[at],
                wants_logits: at == last,
            }));
            *if sequence.answering() { &mut answer_rows } else { &mut prompt_rows } += count;
        }
        let result = self.loaded.step(&Batch { rows: &self.rows, sequences: &states }, &mut self.out);
        match result {
            Ok(()) => {}
            Err(StepError::OutOfMemory(_)) => {
                self.fail_step(&Reason::Failed(result.unwrap_err().to_string()));
                return Ok(());
            }
            Err(lost) => return Err(lost),
        }
        self.count(prompt_rows, answer_rows, self.out.time);
        self.take_results()
    }

    fn count(&mut self, prompt_rows: usize, answer_rows: usize, time: Duration) {
        self.pacer.measured(prompt_rows, time);
        let figures = &mut self.figures;
        figures.phase = match (prompt_rows, answer_rows) {
            (0, _) => Phase::Decode,
            (_, 0) => Phase::Prefill,
            _ => Phase::Mixed,
        };
        *if prompt_rows > 0 { &mut figures.prefill_time } else { &mut figures.decode_time } += time;
        figures.prompt_computed += prompt_rows as u64;
        figures.steps += 1;
        figures.step_time = time;
        figures.step_rows = prompt_rows + answer_rows;
        figures.step_threads = self.out.threads;
    }

    /// After a step: marks what is computed, keeps full blocks and snapshots, chooses tokens, ends what is complete.
    fn take_results(&mut self) -> Result<(), StepError> {
        let mut out = std::mem::take(&mut self.out);
        let mut logits = out.logits.chunks_exact_mut(self.shape.vocabulary);
        let mut ends = Vec::new();
        for i in 0..self.running.len() {
            if self.given[i] == 0 {
                continue;
            }
            let snapshot_due = self.slots.is_some() && self.running[i].next_boundary() == Some(self.running[i].computed + self.given[i]);
            let sequence = &mut self.running[i];
            let answering = sequence.answering();
            sequence.computed += self.given[i];
            keep_blocks(&mut self.blocks, sequence, false);
            if !answering {
                sequence.progress();
            }
            if snapshot_due {
                self.snapshot(i)?;
            }
            let sequence = &mut self.running[i];
            if sequence.pending() == 0 {
                let row = logits.next().ok_or_else(|| StepError::DeviceLost("a step gave fewer logits than were asked for".into()))?;
                let before = sequence.generated();
                if let Some(reason) = sequence.advance(row, self.shape.context) {
                    ends.push((i, reason));
                }
                self.figures.generated += (sequence.generated() - before) as u64;
            }
        }
        self.out = out;
        for (i, reason) in ends.into_iter().rev() {
            let sequence = self.running.remove(i);
            self.end(sequence, reason);
        }
        Ok(())
    }

    /// Keeps a copy of the recurrent state of a running sequence as it is now.
    fn snapshot(&mut self, i: usize) -> Result<(), StepError> {
        let (Some(slots), sequence) = (&mut self.slots, &self.running[i]) else { return Ok(()) };
        let tokens = &sequence.tokens[..sequence.computed];
        if slots.known(tokens) {
            return Ok(());
        }
        if let (Some(from), Some(to)) = (sequence.slot, slots.take(None)) {
            slots.keep(to, tokens);
            self.loaded.copy_slots(&[(from, to)])?;
        }
        Ok(())
    }

    fn end(&mut self, sequence: Sequence, reason: Reason) {
        match reason {
            Reason::Stop | Reason::Length => self.figures.completed += 1,
            Reason::Cancelled => self.figures.cancelled += 1,
            Reason::Broken(_) | Reason::Failed(_) => self.figures.failed += 1,
        }
        self.give_back(sequence).end(reason);
    }

    fn end_all(&mut self, reason: &Reason) {
        self.waiting.extend(self.inbox.try_iter().map(Sequence::new));
        for sequence in std::mem::take(&mut self.running).into_iter().chain(std::mem::take(&mut self.waiting)) {
            self.end(sequence, reason.clone());
        }
    }

    /// The step failed, the device did not: those that were in it end, the others go on.
    fn fail_step(&mut self, reason: &Reason) {
        for i in (0..self.running.len()).rev().filter(|&i| self.given[i] > 0).collect::<Vec<_>>() {
            let mut sequence = self.running.remove(i);
            // How far the step came is unknown: nothing beyond the kept blocks is to be found again.
            sequence.computed = 0;
            self.end(sequence, reason.clone());
        }
    }

    /// Lets go of everything; blocks and state stay to be found again as long as there is room.
    fn give_back(&mut self, mut sequence: Sequence) -> Sequence {
        keep_blocks(&mut self.blocks, &mut sequence, true);
        sequence.blocks.drain(..).for_each(|b| self.blocks.release(b));
        sequence.kept = 0;
        if let (Some(slots), Some(slot)) = (&mut self.slots, sequence.slot.take()) {
            match sequence.computed {
                0 => slots.release(slot),
                computed => slots.keep(slot, &sequence.tokens[..computed]),
            }
        }
        sequence
    }

    /// The same, for a sequence that will go on later.
    fn put_off(&mut self, sequence: Sequence) -> Sequence {
        let mut sequence = self.give_back(sequence);
        sequence.computed = 0;
        sequence
    }

    fn publish(&mut self) {
        let figures = Telemetry {
            running: self.running.len(),
            waiting: self.waiting.len(),
            held: self.running.iter().filter(|s| !s.ready()).count(),
            prompt_left: self.running.iter().filter(|s| !s.answering()).map(Sequence::pending).sum(),
            blocks_held: self.blocks.total() - self.blocks.available(),
            blocks_idle: self.blocks.idle(),
            ..self.figures
        };
        self.telemetry.send_if_modified(|seen| std::mem::replace(seen, figures) != figures);
    }
}

/// Enters the computed blocks of a sequence into the tree: the full ones, and with `tail` the last, partly filled one.
fn keep_blocks(blocks: &mut Blocks, sequence: &mut Sequence, tail: bool) {
    let full = sequence.computed / BLOCK_TOKENS;
    let until = if tail { sequence.computed.div_ceil(BLOCK_TOKENS) } else { full };
    while sequence.kept < until {
        let at = sequence.kept;
        let parent = at.checked_sub(1).map(|p| sequence.blocks[p]);
        let tokens = &sequence.tokens[at * BLOCK_TOKENS..sequence.computed.min((at + 1) * BLOCK_TOKENS)];
        sequence.blocks[at] = blocks.keep(sequence.blocks[at], parent, tokens);
        sequence.kept += 1;
    }
}
