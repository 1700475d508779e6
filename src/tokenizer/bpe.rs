//! Byte-pair encoding with ranked merges: GPT-2's and its heirs' over bytes, Gemma 4's over characters.

use super::byte_level;
use super::merge::Merger;
use super::split::{Family, split};
use super::vocabulary::{TokenKind, Vocabulary};
use super::words::Words;
use crate::units::TokenId;
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// What stands for a space in vocabularies over characters.
pub const SPACE_MARK: &str = "\u{2581}";

pub struct Bpe {
    /// `left right`, best first.
    merges: Words,
    letters: Letters,
}

/// What the words of a vocabulary are written in.
pub enum Letters {
    /// GPT-2's byte alphabet, cut into words by the family's rule.
    Bytes(Family),
    /// Plain characters with [`SPACE_MARK`] for spaces, cut at line ends only; what is no token falls to `<0xAB>` tokens.
    Characters,
}

impl Bpe {
    pub fn new(merges: Words, letters: Letters) -> Self {
        Self { merges, letters }
    }

    /// Appends the tokens of `text`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<TokenId>) {
        let mut encoder = Encoder { bpe: self, vocabulary, merger: Merger::new(), pair: Vec::new(), out };
        match &self.letters {
            Letters::Bytes(family) => {
                let mut written = String::new();
                split(family.rule, &composed(text, family.composes), |word| {
                    written.clear();
                    byte_level::write(word.as_bytes(), &mut written);
                    encoder.word(&written, family.whole_words);
                });
            }
            Letters::Characters => {
                let text = text.replace(' ', SPACE_MARK);
                for word in text.chunk_by_line_end() {
                    encoder.word(word, word.starts_with('\n'));
                }
            }
        }
    }

    /// Appends the bytes that a normal token stands for.
    pub fn decode(&self, text: &[u8], out: &mut Vec<u8>) {
        match self.letters {
            Letters::Bytes(_) => byte_level::read(text, out),
            Letters::Characters => unmark(text, out),
        }
    }
}

/// Appends `text` with spaces for [`SPACE_MARK`].
pub fn unmark(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        match rest.strip_prefix(SPACE_MARK.as_bytes()) {
            Some(after) => {
                out.push(b' ');
                rest = after;
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

fn composed(text: &str, compose: bool) -> Cow<'_, str> {
    if !compose || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

trait ChunkByLineEnd {
    /// `[^\n]+|\n+`
    fn chunk_by_line_end(&self) -> impl Iterator<Item = &str>;
}

impl ChunkByLineEnd for str {
    fn chunk_by_line_end(&self) -> impl Iterator<Item = &str> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let line_end = rest.starts_with('\n');
            let length = rest.find(|c| (c == '\n') != line_end).unwrap_or(rest.len());
            let (chunk, tail) = rest.split_at(length);
            rest = tail;
            (!chunk.is_empty()).then_some(chunk)
        })
    }
}

struct Encoder<'a> {
    bpe: &'a Bpe,
    vocabulary: &'a Vocabulary,
    merger: Merger<u32>,
    pair: Vec<u8>,
    out: &'a mut Vec<TokenId>,
}

impl Encoder<'_> {
    /// Appends the tokens of one word. `whole`: the word itself is taken if it is a token.
    fn word(&mut self, word: &str, whole: bool) {
        let Self { bpe, vocabulary, merger, pair, out } = self;
        if whole && let Some(id) = vocabulary.find(word.as_bytes()) {
            out.push(id);
            return;
        }
        let rank = |left: &str, right: &str| {
            if left.len() + 1 + right.len() > bpe.merges.longest() {
                return None;
            }
            pair.clear();
            pair.extend_from_slice(left.as_bytes());
            pair.push(b' ');
            pair.extend_from_slice(right.as_bytes());
            bpe.merges.find(pair).map(|n| n as u32)
        };
        merger.merge(word, rank, |piece| match vocabulary.find(piece.as_bytes()) {
            Some(id) => out.push(id),
            None => bpe.fall_back(vocabulary, piece, out),
        });
    }
}

impl Bpe {
    /// A piece that is no token: byte tokens, or where the file lacks them the unknown token, or nothing.
    fn fall_back(&self, vocabulary: &Vocabulary, piece: &str, out: &mut Vec<TokenId>) {
        let before = out.len();
        match self.letters {
            // A damaged vocabulary: a merge led to a text that is no token, or a byte has none.
            Letters::Bytes(_) => out.extend(piece.chars().filter_map(|c| vocabulary.find(c.encode_utf8(&mut [0; 4]).as_bytes()))),
            Letters::Characters => out.extend(piece.bytes().filter_map(|b| vocabulary.byte(b))),
        }
        if out.len() == before {
            out.extend(vocabulary.special().unknown.filter(|id| vocabulary.kind(*id) == TokenKind::Unknown));
        }
    }
}
