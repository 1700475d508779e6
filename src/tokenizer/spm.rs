//! SentencePiece vocabularies (`llama`, Phi-3, Gemma 1–3): two neighbours merge if their joint text is a token, the most probable
//! first. That is how SentencePiece's own BPE trainer means its scores.

use super::bpe::SPACE_MARK;
use super::merge::Merger;
use super::vocabulary::Vocabulary;
use crate::units::TokenId;
use std::cmp::Ordering;

/// A score that sorts the most probable first, whatever a file holds (NaN too).
struct Likelier(f32);

impl Ord for Likelier {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.total_cmp(&self.0)
    }
}

impl PartialOrd for Likelier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Likelier {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Likelier {}

/// Appends the tokens of `text`; `space_first`: as if a space stood before it.
pub fn encode(vocabulary: &Vocabulary, text: &str, space_first: bool, out: &mut Vec<TokenId>) {
    let mut marked = String::with_capacity(text.len() + text.len() / 4);
    if space_first {
        marked.push_str(SPACE_MARK);
    }
    for c in text.chars() {
        if c == ' ' { marked.push_str(SPACE_MARK) } else { marked.push(c) }
    }
    // Neighbours lie beside each other in the text, so their joint text is a slice of it.
    let joint = |left: &str, right: &str| {
        let start = left.as_ptr() as usize - marked.as_ptr() as usize;
        let length = left.len() + right.len();
        let id = (length <= vocabulary.longest()).then(|| vocabulary.find(&marked.as_bytes()[start..start + length]))??;
        Some(Likelier(vocabulary.score(id)))
    };
    Merger::new().merge(&marked, joint, |piece| match vocabulary.find(piece.as_bytes()) {
        Some(id) => out.push(id),
        None => fall_back(vocabulary, piece, out),
    });
}

/// A character that is no token: byte tokens, or where the file lacks them tokens of one byte, or the unknown token.
fn fall_back(vocabulary: &Vocabulary, piece: &str, out: &mut Vec<TokenId>) {
    for byte in piece.bytes() {
        out.extend(vocabulary.byte(byte).or_else(|| vocabulary.find(&[byte])).or(vocabulary.special().unknown));
    }
}
