//! Which slot of recurrent state belongs to whom, and the snapshots kept from earlier sequences.
//!
//! A recurrent state can't be cut back: a later prompt can go on only from a position at which a copy was kept. A snapshot remembers the
//! tokens it stands for; the key/value blocks of the same tokens live their own life in `blocks.rs`, and a snapshot whose blocks are gone
//! is simply not used any more until it is the oldest and gives way.

use crate::backend::SlotId;
use crate::units::TokenId;

#[derive(Debug)]
pub struct Slots {
    free: Vec<SlotId>,
    snapshots: Vec<Snapshot>,
    clock: u64,
}

#[derive(Debug)]
struct Snapshot {
    slot: SlotId,
    tokens: Vec<TokenId>,
    last_used: u64,
}

impl Slots {
    pub fn new(count: usize) -> Self {
        Self { free: (0..count as u32).rev().map(SlotId).collect(), snapshots: Vec::new(), clock: 0 }
    }

    /// Slots that [`Slots::take`] can still give.
    pub fn available(&self) -> usize {
        self.free.len() + self.snapshots.len()
    }

    /// A slot for a sequence or a snapshot; gives up the snapshot longest unused, but never `spare`.
    pub fn take(&mut self, spare: Option<SlotId>) -> Option<SlotId> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let candidates = self.snapshots.iter().enumerate().filter(|(_, s)| Some(s.slot) != spare);
        let (oldest, _) = candidates.min_by_key(|(_, s)| s.last_used)?;
        Some(self.snapshots.swap_remove(oldest).slot)
    }

    pub fn release(&mut self, slot: SlotId) {
        self.free.push(slot);
    }

    /// From here on `slot` is the state after `tokens`. Of equal snapshots one is kept.
    pub fn keep(&mut self, slot: SlotId, tokens: &[TokenId]) {
        self.clock += 1;
        if let Some(same) = self.snapshots.iter_mut().find(|s| s.tokens == tokens) {
            same.last_used = self.clock;
            self.free.push(slot);
            return;
        }
        self.snapshots.push(Snapshot { slot, tokens: tokens.to_vec(), last_used: self.clock });
    }

    pub fn known(&self, tokens: &[TokenId]) -> bool {
        self.snapshots.iter().any(|s| s.tokens == tokens)
    }

    /// The snapshot that reaches furthest into `tokens`, at most `most` of them, and where it stands.
    pub fn find(&mut self, tokens: &[TokenId], most: usize) -> Option<(SlotId, usize)> {
        self.clock += 1;
        let clock = self.clock;
        let fitting = self.snapshots.iter_mut().filter(|s| s.tokens.len() <= most && tokens.starts_with(&s.tokens));
        let best = fitting.max_by_key(|s| s.tokens.len())?;
        best.last_used = clock;
        Some((best.slot, best.tokens.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u32) -> Vec<TokenId> {
        (0..n).map(TokenId).collect()
    }

    #[test]
    fn furthest_snapshot_wins_and_the_oldest_gives_way() {
        let mut slots = Slots::new(3);
        for n in [10, 20, 30] {
            let slot = slots.take(None).unwrap();
            slots.keep(slot, &ids(n));
        }
        assert_eq!(slots.find(&ids(25), 25), Some((SlotId(1), 20)));
        assert_eq!(slots.find(&ids(25), 15), Some((SlotId(0), 10)));
        assert_eq!(slots.take(None), Some(SlotId(2)), "30 was used longest ago");
        assert_eq!(slots.take(Some(SlotId(1))), Some(SlotId(0)));
        assert_eq!(slots.take(Some(SlotId(1))), None);
        assert_eq!(slots.find(&ids(25), 25), Some((SlotId(1), 20)));
    }

    #[test]
    fn equal_snapshots_are_kept_once() {
        let mut slots = Slots::new(2);
        for _ in 0..2 {
            let slot = slots.take(None).unwrap();
            slots.keep(slot, &ids(5));
        }
        assert_eq!((slots.free.len(), slots.snapshots.len()), (1, 1));
    }
}
