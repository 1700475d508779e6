//! Merging adjacent pieces, best pair first, until no pair may merge: the core of byte-pair encoding and of SentencePiece's.
//!
//! Pseudo-code: `while some adjacent pair has a rank: join the pair of the least rank, the leftmost of equal ones`.
//! 1. Pieces are a doubly linked list over the text, so a join moves nothing.
//! 2. Candidate pairs wait in a heap. A join makes at most two new ones, so n characters make fewer than 3 n in all: O(n log n).
//! 3. A candidate whose pieces have grown or vanished since is recognised by its length and dropped when it comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Working memory, to be used for many texts in turn.
pub struct Merger<R> {
    pieces: Vec<Piece>,
    candidates: BinaryHeap<Reverse<Candidate<R>>>,
}

/// A stretch of the text; of length 0 once its left neighbour has swallowed it.
struct Piece {
    start: usize,
    len: usize,
    prev: Option<u32>,
    next: Option<u32>,
}

/// Two neighbours that may merge, ordered by rank, then from left to right.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<R> {
    rank: R,
    left: u32,
    right: u32,
    /// Of both together, in bytes.
    len: usize,
}

impl<R: Ord> Merger<R> {
    pub fn new() -> Self {
        Self { pieces: Vec::new(), candidates: BinaryHeap::new() }
    }

    /// Cuts `text` into characters, merges, and calls `emit` with each remaining piece from left to right.
    /// `rank(left, right)` says whether two neighbours may merge, and how soon (least first).
    pub fn merge<'a>(&mut self, text: &'a str, mut rank: impl FnMut(&'a str, &'a str) -> Option<R>, mut emit: impl FnMut(&'a str)) {
        self.pieces.clear();
        self.candidates.clear();
        let count = text.chars().count() as u32;
        for (i, (start, c)) in (0..).zip(text.char_indices()) {
            let next = Some(i + 1).filter(|n| *n < count);
            self.pieces.push(Piece { start, len: c.len_utf8(), prev: u32::checked_sub(i, 1), next });
        }
        for left in 0..count.saturating_sub(1) {
            self.consider(text, left, &mut rank);
        }
        while let Some(Reverse(Candidate { left, right, len, .. })) = self.candidates.pop() {
            let (l, r) = (&self.pieces[left as usize], &self.pieces[right as usize]);
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            let next = r.next;
            self.pieces[right as usize].len = 0;
            let joined = &mut self.pieces[left as usize];
            (joined.len, joined.next) = (len, next);
            let prev = joined.prev;
            if let Some(next) = next {
                self.pieces[next as usize].prev = Some(left);
            }
            if let Some(prev) = prev {
                self.consider(text, prev, &mut rank);
            }
            self.consider(text, left, &mut rank);
        }
        for piece in self.pieces.iter().filter(|p| p.len > 0) {
            emit(&text[piece.start..][..piece.len]);
        }
    }

    /// Makes `left` and the piece after it a candidate, if they may merge.
    fn consider<'a>(&mut self, text: &'a str, left: u32, rank: &mut impl FnMut(&'a str, &'a str) -> Option<R>) {
        let l = &self.pieces[left as usize];
        let Some(right) = l.next else { return };
        let r = &self.pieces[right as usize];
        if let Some(rank) = rank(&text[l.start..][..l.len], &text[r.start..][..r.len]) {
            self.candidates.push(Reverse(Candidate { rank, left, right, len: l.len + r.len }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, ranks: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        let rank = |l: &str, r: &str| ranks.iter().position(|m| *m == format!("{l} {r}"));
        Merger::new().merge(text, rank, |p| out.push(p.to_owned()));
        out
    }

    #[test]
    fn the_least_rank_goes_first_and_the_leftmost_of_equal_ones() {
        assert_eq!(merged("abab", &["a b", "ab ab"]), ["abab"]);
        assert_eq!(merged("aaaaa", &["a a"]), ["aa", "aa", "a"]);
        assert_eq!(merged("abc", &["b c", "a b"]), ["a", "bc"]);
        assert_eq!(merged("éé", &["é é"]), ["éé"]);
        assert_eq!(merged("", &["a a"]), [""; 0]);
        assert_eq!(merged("abc", &[]), ["a", "b", "c"]);
    }

    #[test]
    fn one_letter_a_hundred_thousand_times_costs_a_few_looks_each() {
        let text = "a".repeat(100_000);
        let mut looks = 0;
        let rank = |l: &str, r: &str| {
            looks += 1;
            (l.len() == r.len() && l.len() < 64).then_some(l.len())
        };
        let mut pieces = 0;
        Merger::new().merge(&text, rank, |_| pieces += 1);
        assert_eq!(pieces, 100_000 / 64 + 1);
        assert!(looks < 3 * text.len(), "{looks} looks for {} letters", text.len());
    }
}
