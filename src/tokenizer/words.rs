//! Many short byte strings in one block, found by number or by content.
//!
//! Vocabularies and lists of merges hold up to half a million strings, and start-up waits for them: two allocations and one pass
//! instead of a `String` and a map entry each. The index is an open-addressing table of `tag << 24 | number + 1`; the tag is a byte
//! of the hash that spares most visits to strings which do not match.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// Most strings that the 24 bits of an entry can number.
const COUNT_MAX: usize = (1 << 24) - 2;
/// Bytes of a usual token or merge; only a first guess at the room they need.
const BYTES_EXPECTED: usize = 10;

pub struct Words {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<u32>,
    /// A power of two long, at most half full.
    table: Vec<u32>,
    /// Random, so that no file can be made whose strings all collide.
    seed: u64,
    longest: usize,
}

/// More strings, or more bytes of them, than an index can number.
#[derive(Debug)]
pub struct TooMany {
    pub count: usize,
}

impl Words {
    /// Copies the strings. Of equal ones the first is found.
    pub fn new<'a>(words: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<Words, TooMany> {
        let count = words.len();
        if count > COUNT_MAX {
            return Err(TooMany { count });
        }
        let mut index = Words {
            bytes: Vec::with_capacity(count * BYTES_EXPECTED),
            ends: Vec::with_capacity(count),
            table: vec![0; (count * 2).next_power_of_two().max(2)],
            seed: RandomState::new().build_hasher().finish(),
            longest: 0,
        };
        for (number, word) in (0..count as u32).zip(words) {
            let hash = index.hash(word);
            let slot = index.slot_of(word, hash);
            if index.table[slot] == 0 {
                index.table[slot] = tag_of(hash) << 24 | (number + 1);
            }
            index.longest = index.longest.max(word.len());
            index.bytes.extend_from_slice(word);
            index.ends.push(u32::try_from(index.bytes.len()).map_err(|_| TooMany { count })?);
        }
        Ok(index)
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest string.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The string of that number; `None` past the end.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        (number < self.ends.len()).then(|| &self.bytes[self.range(number)])
    }

    /// The number of the first string equal to `word`.
    pub fn find(&self, word: &[u8]) -> Option<usize> {
        let hash = self.hash(word);
        let entry = self.table[self.slot_of(word, hash)];
        (entry != 0).then(|| number_of(entry))
    }

    /// The slot that holds `word`, or else the empty one where it would go.
    fn slot_of(&self, word: &[u8], hash: u64) -> usize {
        let (mask, tag) = (self.table.len() - 1, tag_of(hash));
        let mut slot = hash as usize & mask;
        loop {
            let entry = self.table[slot];
            if entry == 0 || (entry >> 24 == tag && self.bytes[self.range(number_of(entry))] == *word) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn range(&self, number: usize) -> Range<usize> {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        start as usize..self.ends[number] as usize
    }

    /// Folded multiplication, as in wyhash. Most strings are short, so they are read in one or two (overlapping) loads.
    fn hash(&self, word: &[u8]) -> u64 {
        let mut h = self.seed ^ word.len() as u64;
        let rest = match (word, word.last_chunk::<8>()) {
            (_, Some(last)) => {
                for chunk in word.as_chunks::<8>().0 {
                    h = fold(h ^ u64::from_le_bytes(*chunk));
                }
                u64::from_le_bytes(*last)
            }
            ([a, b, c, d, ..], _) => {
                let last = word.last_chunk::<4>().map_or(0, |l| u32::from_le_bytes(*l));
                u64::from(u32::from_le_bytes([*a, *b, *c, *d])) << 32 | u64::from(last)
            }
            ([a, b, c], _) => u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c),
            ([a, b], _) => u64::from(*a) << 8 | u64::from(*b),
            ([a], _) => u64::from(*a),
            ([], _) => 0,
        };
        fold(fold(h) ^ rest)
    }
}

/// Both halves of a product with an odd constant (the golden ratio's), one on the other.
fn fold(x: u64) -> u64 {
    let wide = u128::from(x) * 0x9E37_79B9_7F4A_7C15;
    wide as u64 ^ (wide >> 64) as u64
}

fn tag_of(hash: u64) -> u32 {
    (hash >> 56) as u32
}

fn number_of(entry: u32) -> usize {
    (entry & 0xFF_FFFF) as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_is_found_and_no_other() {
        let strings: Vec<Vec<u8>> = (0..3000u32).map(|i| format!("word {}", i * 7 % 2999).into_bytes()).collect();
        let words = Words::new(strings.iter().map(Vec::as_slice)).unwrap();
        for (i, s) in strings.iter().enumerate() {
            let first = strings.iter().position(|t| t == s).unwrap();
            assert_eq!(words.find(s), Some(first), "string {i}");
            assert_eq!(words.get(i), Some(s.as_slice()));
        }
        for absent in ["", "word", "word 2999", "word 00"] {
            assert_eq!(words.find(absent.as_bytes()), None, "{absent:?}");
        }
        assert_eq!((words.len(), words.longest(), words.get(3000)), (3000, 9, None));
    }

    #[test]
    fn no_strings_and_equal_strings_are_fine() {
        assert_eq!(Words::new([].into_iter()).unwrap().find(b"x"), None);
        let same = vec![b"a".as_slice(); 500];
        assert_eq!(Words::new(same.into_iter()).unwrap().find(b"a"), Some(0));
    }
}
