//! What can be wrong with a vocabulary: refusals, and what is only worth a warning.

use crate::gguf::GgufError;
use std::path::PathBuf;

/// A vocabulary that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Metadata(#[from] GgufError),
    #[error(
        "{}: the vocabulary is of the kind `{kind}` (`tokenizer.ggml.model`), which is not supported; `llama`, `gpt2`, `gemma4` and `bert` are",
        path.display()
    )]
    Kind { path: PathBuf, kind: String },
    #[error("{}: `{key}` is empty; the model was converted without its vocabulary", path.display())]
    Empty { path: PathBuf, key: &'static str },
    #[error("{}: `{key}` has {found} entries for {tokens} tokens; convert the model again", path.display())]
    Short { path: PathBuf, key: &'static str, found: usize, tokens: usize },
    #[error("{}: `{key}` has {count} entries, more than can be numbered (16 million, of 4 GiB together)", path.display())]
    TooMany { path: PathBuf, key: &'static str, count: usize },
    #[error("{}: `{key}` holds {found} at position {index}, where a number belongs", path.display())]
    NotANumber { path: PathBuf, key: &'static str, index: usize, found: String },
    #[error("{}: `{key}` is {found}, where the number of a token belongs", path.display())]
    NotAToken { path: PathBuf, key: &'static str, found: String },
    #[error(
        "{}: the pre-tokenizer `{name}` (`tokenizer.ggml.pre`) is unknown, so its words can't be cut as the model learned them; \
         update Hearth, or convert the model again",
        path.display()
    )]
    UnknownSplit { path: PathBuf, name: String },
}

/// What a caller should tell the user: the model works, but perhaps not as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error(
        "the file names no pre-tokenizer (`tokenizer.ggml.pre`); words are cut by the default rule, which can make answers worse: \
         convert the model again"
    )]
    NoSplit,
    #[error("`{key}` is {found}, which is not a token of this vocabulary ({tokens} tokens); it is ignored")]
    NoSuchToken { key: &'static str, found: String, tokens: usize },
}
