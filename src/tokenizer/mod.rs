//! Text to tokens and back, by the vocabulary that a GGUF file carries in its metadata.
//!
//! - [`vocabulary`]: the tokens; `special`: those with a meaning of their own; `words`: the index under it.
//! - `added`: finds special and added tokens in text, before anything else.
//! - `bpe` (with `split`, the rules for words, and `byte_level`, GPT-2's alphabet), `spm`, `wpm`: one file an algorithm;
//!   `merge` is what the first two share.
//! - [`stream`]: text from tokens as they come.
//!
//! What a chat looks like in text is not known here: `chat` writes it as pieces, and [`Tokenizer::encode_pieces`] takes those.

mod added;
mod bpe;
mod byte_level;
mod error;
mod merge;
mod special;
mod split;
mod spm;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod vocabulary;
mod words;
mod wpm;

pub use error::{TokenizerError, Warning};
pub use special::{FillInTheMiddle, SpecialTokens};
pub use stream::TokenStream;
pub use vocabulary::{TokenKind, Vocabulary};

use crate::gguf::error::printable;
use crate::gguf::{Gguf, GgufError};
use crate::units::TokenId;
use added::{AddedTokens, Fragment, Trust};
use bpe::{Bpe, Letters};
use split::family;

/// A vocabulary with its way of cutting text. Immutable, and shared between threads.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    added: AddedTokens,
    adds_bos: bool,
    adds_eos: bool,
    /// A space is put before text that begins, or follows a special token.
    space_prefix: bool,
    warnings: Vec<Warning>,
}

enum Algorithm {
    Bpe(Bpe),
    SentencePiece,
    WordPiece(wpm::Normal),
}

/// What to do about special tokens when encoding.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Add the tokens that begin and end a text, as the model was trained.
    pub add_special: bool,
    /// The text may name control tokens (`<|im_start|>`); otherwise these are plain text.
    pub parse_special: bool,
}

/// A part of a text, by who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Anybody's: nothing in it becomes a control token.
    Text(&'a str),
    /// The template's: control tokens in it count.
    Special(&'a str),
}

impl Tokenizer {
    /// Reads the vocabulary of a model, or of a file that has nothing else.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let meta = gguf.meta();
        let kind = meta.str("tokenizer.ggml.model")?;
        let pre: Option<&str> = meta.optional("tokenizer.ggml.pre")?;
        let mut warnings = Vec::new();
        let (bos, eos) = (Some(TokenId(1)), Some(TokenId(2)));
        let (algorithm, adds_bos, defaults) = match kind {
            "gemma4" => over_characters(gguf)?,
            // Ollama's converter calls Gemma 4's kind `llama`.
            "gpt2" | "llama" if pre.is_some_and(|p| OVER_CHARACTERS.contains(&p)) => over_characters(gguf)?,
            "llama" => (Algorithm::SentencePiece, true, SpecialTokens { bos, eos, unknown: Some(TokenId(0)), ..Default::default() }),
            "gpt2" => {
                let family = family_of(gguf, pre, &mut warnings)?;
                let eleven = Some(TokenId(11));
                let bpe = Bpe::new(merges(gguf)?, Letters::Bytes(family));
                (Algorithm::Bpe(bpe), family.adds_bos, SpecialTokens { bos: eleven, eos: eleven, ..Default::default() })
            }
            "bert" => {
                let lower_case = meta.optional("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
                let strip_accents = meta.optional("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lower_case);
                let token = |n| Some(TokenId(n));
                let defaults = SpecialTokens {
                    bos: token(101),
                    unknown: token(100),
                    separator: token(102),
                    padding: token(0),
                    mask: token(103),
                    ..Default::default()
                };
                (Algorithm::WordPiece(wpm::Normal { lower_case, strip_accents }), true, defaults)
            }
            other => return Err(TokenizerError::Kind { path: gguf.path().to_owned(), kind: printable(other.as_bytes()) }),
        };
        let vocabulary = Vocabulary::read(gguf, defaults, &mut warnings)?;
        let is_wpm = matches!(algorithm, Algorithm::WordPiece(_));
        let flag = |key: &str, default: bool| -> Result<bool, GgufError> { Ok(meta.optional(key)?.unwrap_or(default)) };
        // No Gemma was trained with a space put before its text; files that don't say so are about.
        let is_gemma = matches!(meta.optional::<&str>("general.architecture"), Ok(Some(name)) if name.starts_with("gemma"));
        Ok(Tokenizer {
            added: added(gguf, &vocabulary, pre),
            // Files of Gemma 4 were written with `false` here by mistake; all its models need the token. BERT's need both ends.
            adds_bos: is_wpm || kind == "gemma4" || pre == Some("gemma4") || flag("tokenizer.ggml.add_bos_token", adds_bos)?,
            adds_eos: is_wpm || flag("tokenizer.ggml.add_eos_token", false)?,
            space_prefix: matches!(algorithm, Algorithm::SentencePiece) && flag("tokenizer.ggml.add_space_prefix", !is_gemma)?,
            vocabulary,
            algorithm,
            warnings,
        })
    }

    /// What the user should know about this file's vocabulary.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub fn vocab(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str, options: Options) -> Vec<TokenId> {
        let trust = if options.parse_special { Trust::Structure } else { Trust::Text };
        self.encode_trusting(text, &[(text.len(), trust)], options.add_special)
    }

    /// The tokens of a text in pieces, as if it were one text, except that only special pieces hold control tokens:
    /// words go on across pieces where the model's rule lets them. Nothing is added before or after: a template says all.
    pub fn encode_pieces(&self, pieces: &[Piece]) -> Vec<TokenId> {
        let mut text = String::new();
        let mut trust: Vec<(usize, Trust)> = Vec::new();
        for piece in pieces {
            let (part, level) = match piece {
                Piece::Text(part) => (part, Trust::Untrusted),
                Piece::Special(part) => (part, Trust::Structure),
            };
            text.push_str(part);
            trust.pop_if(|(_, before)| *before == level);
            trust.push((text.len(), level));
        }
        self.encode_trusting(&text, &trust, false)
    }

    fn encode_trusting(&self, text: &str, trust: &[(usize, Trust)], add_special: bool) -> Vec<TokenId> {
        let special = self.vocabulary.special();
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special && self.adds_bos {
            out.extend(special.bos);
        }
        let mut after_token = true;
        for fragment in self.added.partition(&self.vocabulary, text, trust) {
            match fragment {
                Fragment::Token(id) => out.push(id),
                Fragment::Text(ref range) => self.encode_plain(&text[range.clone()], after_token, &mut out),
            }
            after_token = matches!(fragment, Fragment::Token(_));
        }
        if add_special && self.adds_eos {
            let is_wpm = matches!(self.algorithm, Algorithm::WordPiece(_));
            out.extend(if is_wpm { special.separator } else { special.eos });
        }
        out
    }

    fn encode_plain(&self, text: &str, after_token: bool, out: &mut Vec<TokenId>) {
        match &self.algorithm {
            Algorithm::Bpe(bpe) => bpe.encode(&self.vocabulary, text, out),
            Algorithm::SentencePiece => spm::encode(&self.vocabulary, text, self.space_prefix && after_token, out),
            Algorithm::WordPiece(normal) => wpm::encode(&self.vocabulary, text, *normal, out),
        }
    }

    /// The text of tokens, in bytes: tokens need not end where characters do. Control tokens show as their names, or not at all.
    /// WordPiece text is cleaned up (its spaces are not in the tokens); all other kinds give back exactly what was encoded.
    pub fn decode(&self, tokens: &[TokenId], show_special: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(tokens.len() * 4);
        for (i, id) in tokens.iter().enumerate() {
            self.append_bytes(*id, show_special, i == 0, &mut out);
        }
        if let Algorithm::WordPiece(_) = self.algorithm { wpm::clean_up(&out) } else { out }
    }

    /// The bytes that a token stands for within a text; a control token's name. Nothing past the end of the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_bytes(id, true, false, &mut out);
        out
    }

    /// Appends a token's bytes; of the first of a text, without the space that encoding put before it.
    fn append_bytes(&self, id: TokenId, show_special: bool, first: bool, out: &mut Vec<u8>) {
        let text = self.vocabulary.text(id).unwrap_or_default();
        let start = out.len();
        match self.vocabulary.kind(id) {
            TokenKind::Control | TokenKind::Unknown if !show_special && !self.vocabulary.special().shown.contains(&id) => {}
            TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined => out.extend_from_slice(text),
            TokenKind::Byte => out.extend(byte_named(text)),
            TokenKind::Normal => match &self.algorithm {
                Algorithm::Bpe(bpe) => bpe.decode(text, out),
                Algorithm::SentencePiece | Algorithm::WordPiece(_) => bpe::unmark(text, out),
            },
            TokenKind::Unused | TokenKind::Undefined => {}
        }
        if first && self.space_prefix && out.get(start) == Some(&b' ') {
            out.remove(start);
        }
    }
}

/// Names of pre-tokenizers whose vocabularies are Gemma 4's in kind.
const OVER_CHARACTERS: [&str; 3] = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"];

fn over_characters(gguf: &Gguf) -> Result<(Algorithm, bool, SpecialTokens), TokenizerError> {
    Ok((Algorithm::Bpe(Bpe::new(merges(gguf)?, Letters::Characters)), false, SpecialTokens::default()))
}

/// How words are cut. Old files don't say, and get the default rule with a warning. A name unknown here is refused: by another rule
/// the model would get tokens that it never saw together, which nobody would notice but by worse answers.
fn family_of(gguf: &Gguf, pre: Option<&str>, warnings: &mut Vec<Warning>) -> Result<split::Family, TokenizerError> {
    let Some(name) = pre.filter(|name| !name.is_empty()) else {
        return Ok(recognised(gguf).unwrap_or_else(|| {
            warnings.push(Warning::NoSplit);
            split::DEFAULT_FAMILY
        }));
    };
    let unknown = || TokenizerError::UnknownSplit { path: gguf.path().to_owned(), name: printable(name.as_bytes()) };
    family(name).ok_or_else(unknown)
}

/// Tokens by which vocabularies are known that were written before files named their rule: number, text, name of the rule.
const KNOWN_BY: [(usize, &[u8], &str); 2] = [(128_009, b"<|eot_id|>", "llama-bpe"), (151_645, b"<|im_end|>", "qwen2")];

/// The family of a well-known vocabulary in an old file.
fn recognised(gguf: &Gguf) -> Option<split::Family> {
    let tokens = gguf.meta().strings(vocabulary::TOKENS).ok()?;
    KNOWN_BY.iter().find(|(number, text, _)| tokens.clone().nth(*number) == Some(text)).and_then(|(.., name)| family(name))
}

fn merges(gguf: &Gguf) -> Result<words::Words, TokenizerError> {
    const MERGES: &str = "tokenizer.ggml.merges";
    vocabulary::indexed(gguf, MERGES, gguf.meta().strings(MERGES)?)
}

/// The added tokens, and which of them swallow white space: files do not say, so it is known by family.
fn added(gguf: &Gguf, vocabulary: &Vocabulary, pre: Option<&str>) -> AddedTokens {
    let mut added = AddedTokens::new(vocabulary);
    let text_of = |key: &str| gguf.meta().optional::<&str>(key).ok().flatten().unwrap_or_default().to_lowercase();
    let (name, architecture) = (text_of("general.name"), text_of("general.architecture"));
    if pre.is_some_and(|p| p.starts_with("jina-v2-")) || ["nomic-bert-moe", "jina-bert-v3"].contains(&architecture.as_str()) {
        added.strip_before(vocabulary.find(b"<mask>"));
    } else if name.contains("phi-3") || name.contains("phi3") {
        let kept = ["<unk>", "<s>", "<|endoftext|>"].map(|t| vocabulary.find(t.as_bytes()));
        added.strip_after(vocabulary.added().map(|(id, _)| id).filter(|id| !kept.contains(&Some(*id))));
    } else if name.contains("modern-bert") {
        added.strip_before(vocabulary.find(b"[MASK]"));
    }
    added
}

/// The byte of a token named `<0xAB>`.
fn byte_named(text: &[u8]) -> Option<u8> {
    let hex = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}
