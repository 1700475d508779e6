//! A device without arithmetic, for tests of the engine: every block remembers which token lies at which place, every slot the whole
//! history, and the logits are a function of all tokens that the cache really holds. So a wrong reuse, a missed copy or a stale slot
//! changes the text, and every rule of the seam is asserted at every step.

use crate::backend::{BLOCK_TOKENS, Batch, BlockId, DeviceInfo, Loaded, Pace, SequenceState, SlotId, StepError, StepOut};
use crate::units::{Bytes, TokenId};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const VOCABULARY: usize = 50;

/// What the fake was asked to do; shared with the test.
#[derive(Debug, Default)]
pub struct Seen {
    /// Rows of each step, as (sequence's index in the batch, position).
    pub steps: Vec<Vec<(u32, u32)>>,
    pub block_copies: usize,
    pub slot_copies: usize,
    pub paces: Vec<Pace>,
}

pub struct Fake {
    info: DeviceInfo,
    blocks: Vec<[Option<TokenId>; BLOCK_TOKENS]>,
    slots: Vec<Vec<TokenId>>,
    rows: usize,
    seen: Arc<Mutex<Seen>>,
    /// Errors to give, by step number.
    pub errors: Vec<(usize, fn() -> StepError)>,
}

impl Fake {
    pub fn new(blocks: usize, slots: usize, rows: usize) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let info = DeviceInfo { backend: "fake", detail: String::new(), threads: 1, decode_threads: 1, prefill_threads: 1 };
        let fake =
            Self { info, blocks: vec![[None; BLOCK_TOKENS]; blocks], slots: vec![vec![]; slots], rows, seen: seen.clone(), errors: vec![] };
        (fake, seen)
    }

    fn held(&self, state: &SequenceState<'_>, position: usize) -> TokenId {
        self.blocks[state.blocks[position / BLOCK_TOKENS].0 as usize][position % BLOCK_TOKENS]
            .expect("a position before the row was never computed")
    }
}

/// The most likely token after `history`, and how the others trail it.
pub fn next(history: &[TokenId]) -> TokenId {
    TokenId((hash(history) % VOCABULARY as u64) as u32)
}

/// What a correct engine answers to `prompt`, greedily.
pub fn expected(prompt: &[TokenId], count: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    (0..count).for_each(|_| tokens.push(next(&tokens)));
    tokens.split_off(prompt.len())
}

fn hash(history: &[TokenId]) -> u64 {
    history.iter().fold(0xcbf2_9ce4_8422_2325, |h, t| (h ^ u64::from(t.0 + 1)).wrapping_mul(0x100_0000_01b3).rotate_left(17))
}

impl Loaded for Fake {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn step(&mut self, batch: &Batch<'_>, out: &mut StepOut) -> Result<(), StepError> {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.steps.push(batch.rows.iter().map(|r| (r.sequence, r.position)).collect());
            seen.steps.len() - 1
        };
        if let Some((_, error)) = self.errors.iter().find(|(n, _)| *n == number) {
            return Err(error());
        }
        assert!(!batch.rows.is_empty() && batch.rows.len() <= self.rows, "{} rows", batch.rows.len());
        let writable: Vec<BlockId> =
            batch.rows.iter().map(|r| batch.sequences[r.sequence as usize].blocks[r.position as usize / BLOCK_TOKENS]).collect();
        let mut written = HashSet::new();
        assert!(
            batch.rows.iter().zip(&writable).all(|(r, b)| written.insert((*b, r.position as usize % BLOCK_TOKENS))),
            "two rows in one place"
        );
        let slots: HashSet<_> = batch.sequences.iter().filter_map(|s| s.slot).collect();
        assert_eq!(slots.len(), if self.slots.is_empty() { 0 } else { batch.sequences.len() }, "each sequence its own slot");

        out.logits.clear();
        for (i, row) in batch.rows.iter().enumerate() {
            let state = &batch.sequences[row.sequence as usize];
            if let Some(before) = i.checked_sub(1).map(|b| &batch.rows[b]) {
                let follows = before.sequence == row.sequence && before.position + 1 == row.position;
                assert!(follows || before.sequence + 1 == row.sequence, "rows of a sequence stand together");
            }
            let position = row.position as usize;
            let history: Vec<TokenId> = (0..position).map(|p| self.held(state, p)).chain([row.token]).collect();
            self.blocks[state.blocks[position / BLOCK_TOKENS].0 as usize][position % BLOCK_TOKENS] = Some(row.token);
            if let Some(SlotId(slot)) = state.slot {
                let slot = &mut self.slots[slot as usize];
                if position == 0 {
                    slot.clear();
                }
                slot.push(row.token);
                assert_eq!(*slot, history, "the slot holds another history than the blocks");
            }
            if row.wants_logits {
                let (best, h) = (next(&history).0, hash(&history));
                out.logits.extend((0..VOCABULARY as u32).map(|t| if t == best { 4.0 } else { ((h >> (t % 48)) & 7) as f32 / 4.0 }));
            }
        }
        out.time = Duration::from_millis(batch.rows.len() as u64);
        Ok(())
    }

    fn copy_blocks(&mut self, moves: &[(BlockId, BlockId)]) -> Result<(), StepError> {
        for &(from, to) in moves {
            assert_ne!(from, to);
            self.blocks[to.0 as usize] = self.blocks[from.0 as usize];
            self.seen.lock().unwrap().block_copies += 1;
        }
        Ok(())
    }

    fn copy_slots(&mut self, moves: &[(SlotId, SlotId)]) -> Result<(), StepError> {
        for &(from, to) in moves {
            assert_ne!(from, to);
            self.slots[to.0 as usize] = self.slots[from.0 as usize].clone();
            self.seen.lock().unwrap().slot_copies += 1;
        }
        Ok(())
    }

    fn limit(&mut self, pace: Pace) {
        self.seen.lock().unwrap().paces.push(pace);
    }

    fn memory(&self) -> Bytes {
        Bytes(0)
    }
}
