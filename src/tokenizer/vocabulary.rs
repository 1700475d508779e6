//! The tokens of a model: their texts, kinds and scores, as `tokenizer.ggml.*` gives them. How text becomes tokens is not known here.

use super::error::{TokenizerError, Warning};
use super::special::{self, SpecialTokens};
use super::words::Words;
use crate::gguf::metadata::Strings;
use crate::gguf::{Array, Gguf, Kind, Value};
use crate::units::TokenId;

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";

/// What a token is for, in the order of their numbers in the file (0 to 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Undefined,
    Normal,
    Unknown,
    /// Structure: begin, end, turns of a chat. Hidden from readers, and in text only where the caller allows it.
    Control,
    /// Always one token, wherever its text occurs.
    UserDefined,
    Unused,
    /// Stands for one byte, written `<0xAB>`.
    Byte,
}

impl TokenKind {
    fn from_number(number: i128) -> TokenKind {
        use TokenKind::*;
        match number {
            1 => Normal,
            2 => Unknown,
            3 => Control,
            4 => UserDefined,
            5 => Unused,
            6 => Byte,
            _ => Undefined,
        }
    }
}

/// Every token by number and by text.
pub struct Vocabulary {
    words: Words,
    /// One a token, or none at all.
    scores: Vec<f32>,
    kinds: Vec<TokenKind>,
    special: SpecialTokens,
}

impl Vocabulary {
    /// Reads the vocabulary. `defaults` are the special tokens of this kind of vocabulary, for keys the file lacks.
    pub(super) fn read(gguf: &Gguf, defaults: SpecialTokens, warnings: &mut Vec<Warning>) -> Result<Vocabulary, TokenizerError> {
        let meta = gguf.meta();
        let words = indexed(gguf, TOKENS, without_images(gguf, meta.strings(TOKENS)?))?;
        let scores = match meta.optional::<Array>(SCORES)? {
            Some(array) => numbers(gguf, SCORES, (array, Kind::F32), words.len(), f32::from_le_bytes, |v| match v {
                Value::F64(x) => Some(x as f32),
                other => other.integer().map(|n| n as f32),
            })?,
            None => Vec::new(),
        };
        let kinds = match meta.optional::<Array>(KINDS)? {
            Some(array) => {
                let kind = |bytes| TokenKind::from_number(i32::from_le_bytes(bytes).into());
                numbers(gguf, KINDS, (array, Kind::I32), words.len(), kind, |v| v.integer().map(TokenKind::from_number))?
            }
            None => vec![TokenKind::Normal; words.len()],
        };
        let mut vocabulary = Vocabulary { words, scores, kinds, special: defaults };
        special::gather(&mut vocabulary, gguf, warnings)?;
        Ok(vocabulary)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Never: a file without tokens is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token's text as the file has it: in GPT-2's byte alphabet, or with U+2581 for spaces. `None` past the end.
    pub fn text(&self, id: TokenId) -> Option<&[u8]> {
        self.words.get(id.0 as usize)
    }

    /// The token whose text in the file is `text`; of equal ones the first.
    pub fn find(&self, text: &[u8]) -> Option<TokenId> {
        self.words.find(text).map(|n| TokenId(n as u32))
    }

    /// `Undefined` past the end.
    pub fn kind(&self, id: TokenId) -> TokenKind {
        self.kinds.get(id.0 as usize).copied().unwrap_or(TokenKind::Undefined)
    }

    /// The log-probability of a SentencePiece token; 0 where the file gives none.
    pub fn score(&self, id: TokenId) -> f32 {
        self.scores.get(id.0 as usize).copied().unwrap_or(0.0)
    }

    /// The tokens with a meaning of their own.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether an answer ends with this token.
    pub fn ends_generation(&self, id: TokenId) -> bool {
        self.special.ends.contains(&id)
    }

    /// Bytes of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.words.longest()
    }

    /// The token `<0xAB>` that stands for a byte.
    pub(super) fn byte(&self, byte: u8) -> Option<TokenId> {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let text = [b'<', b'0', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)], b'>'];
        self.find(&text)
    }

    pub(super) fn special_mut(&mut self) -> &mut SpecialTokens {
        &mut self.special
    }

    pub(super) fn set_kind(&mut self, id: TokenId, kind: TokenKind) {
        if let Some(k) = self.kinds.get_mut(id.0 as usize) {
            *k = kind;
        }
    }

    /// The tokens of the kinds that are looked for in text before anything else is done with it.
    pub(super) fn added(&self) -> impl Iterator<Item = (TokenId, TokenKind)> {
        let wanted = |k: &TokenKind| matches!(k, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown);
        (0..).map(TokenId).zip(self.kinds.iter().copied()).filter(move |(_, k)| wanted(k))
    }
}

/// All tokens but a last one that stands for an image, where the model has no row for it: Gemma 3's files by Ollama.
fn without_images<'a>(gguf: &Gguf, tokens: Strings<'a>) -> Strings<'a> {
    let rows = gguf.info("token_embd.weight").and_then(|table| table.shape.get(1).copied());
    match rows {
        Some(rows) if rows + 1 == tokens.len() && tokens.clone().last() == Some(b"<image_soft_token>") => tokens.first(rows),
        _ => tokens,
    }
}

/// The index of a list of texts; a list that is empty or too long is refused.
pub(super) fn indexed(gguf: &Gguf, key: &'static str, list: Strings) -> Result<Words, TokenizerError> {
    let path = || gguf.path().to_owned();
    if list.len() == 0 {
        return Err(TokenizerError::Empty { path: path(), key });
    }
    Words::new(list).map_err(|e| TokenizerError::TooMany { path: path(), key, count: e.count })
}

/// One number a token; a list that is too short, or of something else, is refused. Elements of the usual type are read by
/// `usual`, others by `number`.
fn numbers<'a, T>(
    gguf: &Gguf,
    key: &'static str,
    (array, kind): (Array<'a>, Kind),
    tokens: usize,
    usual: impl Fn([u8; 4]) -> T,
    number: impl Fn(Value<'a>) -> Option<T>,
) -> Result<Vec<T>, TokenizerError> {
    let path = || gguf.path().to_owned();
    if array.len < tokens {
        return Err(TokenizerError::Short { path: path(), key, found: array.len, tokens });
    }
    if let Some(elements) = array.of_four_bytes().filter(|_| array.kind == kind) {
        return Ok(elements.iter().take(tokens).map(|bytes| usual(*bytes)).collect());
    }
    let mut list = Vec::with_capacity(tokens);
    for (index, value) in array.iter().take(tokens).enumerate() {
        let wrong = || TokenizerError::NotANumber { path: path(), key, index, found: value.to_string() };
        list.push(number(value).ok_or_else(wrong)?);
    }
    Ok(list)
}
