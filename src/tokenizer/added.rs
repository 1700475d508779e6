//! Finding special and added tokens in text, before any other rule is applied to it.
//!
//! Of tokens that begin at the same place the longest counts, and the leftmost comes first. User-defined tokens are found
//! everywhere, control tokens only where the caller trusts the text: what a user writes must not become structure.

use super::vocabulary::{TokenKind, Vocabulary};
use crate::units::TokenId;
use std::collections::HashSet;
use std::ops::Range;

/// Which tokens to look for, and what they do with the white space beside them.
pub struct AddedTokens {
    /// By first byte, the lengths of all tokens that begin with it, longest first.
    lengths: Vec<Vec<usize>>,
    /// Tokens that swallow the white space before or after them.
    strip_before: HashSet<TokenId>,
    strip_after: HashSet<TokenId>,
}

/// A piece of text that is a token already, or not yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Fragment {
    Token(TokenId),
    Text(Range<usize>),
}

/// How far a stretch of text is trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Control tokens are found too.
    Structure,
    /// User-defined tokens only.
    Text,
    /// Not even those that look like control tokens, `<|…|>`: some files type these as user-defined.
    Untrusted,
}

impl AddedTokens {
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut lengths = vec![Vec::new(); 256];
        for (id, _) in vocabulary.added() {
            if let Some(text) = vocabulary.text(id)
                && let Some(first) = text.first()
                && !lengths[usize::from(*first)].contains(&text.len())
            {
                lengths[usize::from(*first)].push(text.len());
            }
        }
        lengths.iter_mut().for_each(|l| l.sort_unstable_by_key(|n| std::cmp::Reverse(*n)));
        Self { lengths, strip_before: HashSet::new(), strip_after: HashSet::new() }
    }

    pub fn strip_before(&mut self, tokens: impl IntoIterator<Item = TokenId>) {
        self.strip_before.extend(tokens);
    }

    pub fn strip_after(&mut self, tokens: impl IntoIterator<Item = TokenId>) {
        self.strip_after.extend(tokens);
    }

    /// Cuts `text` at the tokens in it. `trust` covers the text with stretches in order, each given by its end;
    /// a control token is found where it lies in one stretch.
    pub fn partition(&self, vocabulary: &Vocabulary, text: &str, trust: &[(usize, Trust)]) -> Vec<Fragment> {
        let mut fragments = Vec::new();
        let (mut done, mut at) = (0, 0);
        let mut stretch = trust.iter().peekable();
        while at < text.len() {
            while stretch.next_if(|(end, _)| *end <= at).is_some() {}
            let (end, trusted) = stretch.peek().map_or((text.len(), Trust::Untrusted), |s| **s);
            let Some((id, next)) = self.token_at(vocabulary, text, at, end, trusted) else {
                at += 1;
                continue;
            };
            let mut before = &text[done..at];
            if self.strip_before.contains(&id) {
                before = before.trim_end_matches(ascii_space);
            }
            if !before.is_empty() {
                fragments.push(Fragment::Text(done..done + before.len()));
            }
            fragments.push(Fragment::Token(id));
            (done, at) = (next, next);
            if self.strip_after.contains(&id) {
                done = text.len() - text[next..].trim_start_matches(ascii_space).len();
                at = done;
            }
        }
        if done < text.len() {
            fragments.push(Fragment::Text(done..text.len()));
        }
        fragments
    }

    /// The longest token that begins at `at` and may be found there, with its end.
    fn token_at(&self, vocabulary: &Vocabulary, text: &str, at: usize, end: usize, trust: Trust) -> Option<(TokenId, usize)> {
        let bytes = text.as_bytes();
        self.lengths[usize::from(bytes[at])].iter().find_map(|length| {
            let to = at + length;
            let word = bytes.get(at..to)?;
            let id = vocabulary.find(word)?;
            let inside = to <= end;
            let found = match vocabulary.kind(id) {
                TokenKind::UserDefined => trust != Trust::Untrusted || !(word.starts_with(b"<|") && word.ends_with(b"|>")),
                TokenKind::Control | TokenKind::Unknown => trust == Trust::Structure && inside,
                _ => false,
            };
            (found && text.is_char_boundary(at) && text.is_char_boundary(to)).then_some((id, to))
        })
    }
}

/// White space as the references strip it.
fn ascii_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
