//! WordPiece (BERT): normalise, cut into words and signs, then take the longest known beginning of what is left of each word.
//!
//! The file writes a word's beginning with U+2581 before it and its continuations without (BERT's own files: bare, and with `##`).
//! The order of the steps is that of Hugging Face's `BertNormalizer` and `BertPreTokenizer`, on which the models were trained.

use super::bpe::SPACE_MARK;
use super::split::class::{Kinds, PUNCTUATION};
use super::vocabulary::Vocabulary;
use crate::units::TokenId;
use unicode_general_category::{GeneralCategory as Category, get_general_category};
use unicode_normalization::UnicodeNormalization;

/// A longer word is the unknown token as a whole; in characters, `max_input_chars_per_word`.
const WORD_MAX: usize = 100;

/// How a model wants its text normalised.
#[derive(Clone, Copy)]
pub struct Normal {
    pub lower_case: bool,
    pub strip_accents: bool,
}

/// Appends the tokens of `text`.
pub fn encode(vocabulary: &Vocabulary, text: &str, normal: Normal, out: &mut Vec<TokenId>) {
    let text = normalised(text, normal);
    for part in text.split(char::is_whitespace) {
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let end = if is_sign(first) { first.len_utf8() } else { rest.find(is_sign).unwrap_or(rest.len()) };
            let (word, tail) = rest.split_at(end);
            encode_word(vocabulary, word, out);
            rest = tail;
        }
    }
}

fn normalised(text: &str, normal: Normal) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_dropped(*c)) {
        if is_chinese(c) {
            clean.extend([' ', c, ' ']);
        } else {
            clean.push(if c.is_whitespace() { ' ' } else { c });
        }
    }
    if normal.strip_accents {
        clean = clean.nfd().filter(|c| get_general_category(*c) != Category::NonspacingMark).collect();
    }
    if normal.lower_case {
        clean = clean.chars().flat_map(char::to_lowercase).collect();
    }
    clean
}

fn is_dropped(c: char) -> bool {
    let other = matches!(get_general_category(c), Category::Control | Category::Format | Category::PrivateUse | Category::Surrogate);
    c == '\u{FFFD}' || (other && !matches!(c, '\t' | '\n' | '\r'))
}

fn is_sign(c: char) -> bool {
    c.is_ascii_punctuation() || Kinds::of(c).any_of(PUNCTUATION)
}

/// The ideographs that BERT sets apart; the fifth range begins where the reference does, not where Unicode's block does.
fn is_chinese(c: char) -> bool {
    matches!(
        c,
        '\u{4E00}'..='\u{9FFF}'
            | '\u{3400}'..='\u{4DBF}'
            | '\u{20000}'..='\u{2A6DF}'
            | '\u{2A700}'..='\u{2B73F}'
            | '\u{2B740}'..='\u{2B81F}'
            | '\u{2B920}'..='\u{2CEAF}'
            | '\u{F900}'..='\u{FAFF}'
            | '\u{2F800}'..='\u{2FA1F}'
    )
}

/// Appends the pieces of one word, or the unknown token where some part of it is in no token.
fn encode_word(vocabulary: &Vocabulary, word: &str, out: &mut Vec<TokenId>) {
    let before = out.len();
    let marked = format!("{SPACE_MARK}{word}");
    let mut start = 0;
    if word.chars().count() <= WORD_MAX {
        while start < marked.len() {
            // A beginning is more than its mark.
            let least = if start == 0 { SPACE_MARK.len() + 1 } else { 1 };
            let ends = (start + least..=marked.len().min(start + vocabulary.longest())).rev().filter(|end| marked.is_char_boundary(*end));
            let found = ends.filter_map(|end| Some((vocabulary.find(&marked.as_bytes()[start..end])?, end))).next();
            let Some((id, end)) = found else { break };
            out.push(id);
            start = end;
        }
    }
    if start < marked.len() {
        out.truncate(before);
        out.extend(vocabulary.special().unknown);
    }
}

/// Cleans up a decoded text as BERT's tokenizers do: no space before `.`, `,`, `?`, `!`, around a lone apostrophe, or before
/// `'s`, `'m`, `'re` and `'ve`.
pub fn clean_up(text: &[u8]) -> Vec<u8> {
    let closes = |rest: &[u8]| matches!(rest, [b'.' | b',' | b'?' | b'!', ..]);
    let mut signs = Vec::with_capacity(text.len());
    for (i, byte) in text.iter().enumerate() {
        if !(*byte == b' ' && closes(&text[i + 1..])) {
            signs.push(*byte);
        }
    }
    let mut out = Vec::with_capacity(signs.len());
    let mut rest = signs.as_slice();
    while let Some((byte, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b" ' ") {
            out.push(b'\'');
            rest = after;
            continue;
        }
        let contraction = [b" 's".as_slice(), b" 'm", b" 're", b" 've"].iter().any(|c| rest.starts_with(c));
        if !contraction {
            out.push(*byte);
        }
        rest = tail;
    }
    out
}
