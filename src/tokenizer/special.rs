//! Tokens with a meaning of their own: those that metadata keys name, and those known by their text where keys are missing.
//!
//! Files are often wrong here: end-of-turn tokens without a key, or typed as plain text. So every token with one of the well-known
//! texts ends an answer and counts as a control token, with two exceptions (at the end of [`gather`]).

use super::error::{TokenizerError, Warning};
use super::vocabulary::{TokenKind, Vocabulary};
use crate::gguf::Gguf;
use crate::units::TokenId;

/// The special tokens of a vocabulary; `None` where it has no such token.
#[derive(Clone, Debug, Default)]
pub struct SpecialTokens {
    pub bos: Option<TokenId>,
    pub eos: Option<TokenId>,
    /// End of a turn.
    pub eot: Option<TokenId>,
    /// End of a message, where a turn may have several (tool calls).
    pub eom: Option<TokenId>,
    pub unknown: Option<TokenId>,
    pub separator: Option<TokenId>,
    pub padding: Option<TokenId>,
    pub mask: Option<TokenId>,
    /// Fill in the middle.
    pub fim: FillInTheMiddle,
    /// Every token that ends an answer, ascending.
    pub ends: Vec<TokenId>,
    /// Control tokens that are never hidden: who reads an answer in the harmony format needs the marks between its channels.
    pub shown: Vec<TokenId>,
}

#[derive(Clone, Debug, Default)]
pub struct FillInTheMiddle {
    pub prefix: Option<TokenId>,
    pub suffix: Option<TokenId>,
    pub middle: Option<TokenId>,
    pub padding: Option<TokenId>,
    pub repository: Option<TokenId>,
    pub separator: Option<TokenId>,
}

type Slot = fn(&mut SpecialTokens) -> &mut Option<TokenId>;

/// Keys that hold the number of a token. Where two keys fill one slot, the later one is the current spelling and wins.
const KEYS: [(&str, Slot); 19] = [
    ("tokenizer.ggml.cls_token_id", |s| &mut s.bos),
    ("tokenizer.ggml.bos_token_id", |s| &mut s.bos),
    ("tokenizer.ggml.eos_token_id", |s| &mut s.eos),
    ("tokenizer.ggml.eot_token_id", |s| &mut s.eot),
    ("tokenizer.ggml.eom_token_id", |s| &mut s.eom),
    ("tokenizer.ggml.unknown_token_id", |s| &mut s.unknown),
    ("tokenizer.ggml.separator_token_id", |s| &mut s.separator),
    ("tokenizer.ggml.seperator_token_id", |s| &mut s.separator),
    ("tokenizer.ggml.padding_token_id", |s| &mut s.padding),
    ("tokenizer.ggml.mask_token_id", |s| &mut s.mask),
    ("tokenizer.ggml.prefix_token_id", |s| &mut s.fim.prefix),
    ("tokenizer.ggml.suffix_token_id", |s| &mut s.fim.suffix),
    ("tokenizer.ggml.middle_token_id", |s| &mut s.fim.middle),
    ("tokenizer.ggml.fim_pre_token_id", |s| &mut s.fim.prefix),
    ("tokenizer.ggml.fim_suf_token_id", |s| &mut s.fim.suffix),
    ("tokenizer.ggml.fim_mid_token_id", |s| &mut s.fim.middle),
    ("tokenizer.ggml.fim_pad_token_id", |s| &mut s.fim.padding),
    ("tokenizer.ggml.fim_rep_token_id", |s| &mut s.fim.repository),
    ("tokenizer.ggml.fim_sep_token_id", |s| &mut s.fim.separator),
];

/// Texts that mean a slot where no key fills it, best first.
const TEXTS: [(Slot, &[&str]); 8] = [
    (
        |s| &mut s.eot,
        &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
    ),
    (|s| &mut s.eom, &["<|eom_id|>"]),
    (
        |s| &mut s.fim.prefix,
        &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"],
    ),
    (
        |s| &mut s.fim.suffix,
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"],
    ),
    (
        |s| &mut s.fim.middle,
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"],
    ),
    (|s| &mut s.fim.padding, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (|s| &mut s.fim.repository, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (|s| &mut s.fim.separator, &["<|file_sep|>"]),
];

/// Texts of tokens that end an answer, whatever else the file says.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts of the marks within an answer.
const MARKS: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Fills `vocabulary.special` (which holds the defaults) and corrects the kinds of its tokens. A number that is no token is as good as
/// none at all, since answers end by the other ends and at their limit; what is no number is refused.
pub fn gather(vocabulary: &mut Vocabulary, gguf: &Gguf, warnings: &mut Vec<Warning>) -> Result<(), TokenizerError> {
    let tokens = vocabulary.len();
    drop_defaults_past(tokens as u32, vocabulary.special_mut());
    for (key, slot) in KEYS {
        let Some(value) = gguf.meta().get(key) else { continue };
        let Some(number) = value.integer() else {
            return Err(TokenizerError::NotAToken { path: gguf.path().to_owned(), key, found: value.to_string() });
        };
        match u32::try_from(number).ok().filter(|n| (*n as usize) < tokens) {
            Some(id) => *slot(vocabulary.special_mut()) = Some(TokenId(id)),
            // Many converters write -1 for "none".
            None if number == -1 || number == i128::from(u32::MAX) => {}
            None => warnings.push(Warning::NoSuchToken { key, found: value.to_string(), tokens }),
        }
    }
    for (slot, texts) in TEXTS {
        if slot(vocabulary.special_mut()).is_none()
            && let Some(id) = texts.iter().find_map(|t| vocabulary.find(t.as_bytes()))
        {
            *slot(vocabulary.special_mut()) = Some(id);
            vocabulary.set_kind(id, TokenKind::Control);
        }
    }
    let named: Vec<TokenId> = ENDS.iter().filter_map(|t| vocabulary.find(t.as_bytes())).collect();
    for id in &named {
        vocabulary.set_kind(*id, TokenKind::Control);
    }
    let s = vocabulary.special();
    let mut ends = named;
    ends.extend([s.eos, s.eot, s.eom, s.fim.padding, s.fim.repository, s.fim.separator].into_iter().flatten());

    // In the harmony format and its kin `<|end|>` ends a message, and the answer goes on.
    let has = |text: &str| vocabulary.find(text.as_bytes()).is_some_and(|id| ends.contains(&id));
    let calls = has("<|call|>") || has("<|calls|>");
    let goes_on = (calls && (has("<|return|>") || has("<|flush|>"))).then(|| vocabulary.find(b"<|end|>")).flatten();
    // In Gemma 4 `</s>` is the HTML tag.
    let html = has("<|tool_response>").then(|| vocabulary.find(b"</s>")).flatten();
    if let Some(id) = html {
        vocabulary.set_kind(id, TokenKind::Normal);
    }
    ends.retain(|id| Some(*id) != goes_on && Some(*id) != html);
    ends.sort_unstable();
    ends.dedup();
    let shown = MARKS.iter().filter_map(|t| vocabulary.find(t.as_bytes())).chain(goes_on).collect();
    let special = vocabulary.special_mut();
    (special.ends, special.shown) = (ends, shown);
    Ok(())
}

fn drop_defaults_past(tokens: u32, special: &mut SpecialTokens) {
    for (_, slot) in KEYS {
        let id = slot(special);
        *id = id.filter(|id| id.0 < tokens);
    }
}
