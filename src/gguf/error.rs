//! Every way a file can be wrong: what, where, what to do. Texts from the file are shortened and escaped before they get here.

use std::path::{Path, PathBuf};

/// A refused file: which one, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct GgufError {
    pub path: PathBuf,
    pub fault: Fault,
}

/// What is wrong with a file, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot be {doing}: {error}")]
    Io { doing: &'static str, error: std::io::Error },
    #[error("is {what}, not a GGUF file")]
    NotAFile { what: &'static str },
    #[error("the file is empty; expected a GGUF header")]
    Empty,
    #[error("the file was cut to {now} bytes while it was open (it had {was}); restore it and load again")]
    Shrunk { was: u64, now: u64 },
    #[error("a part of the file could not be read while it was open; check the disk or card, then load again")]
    Lost,
    #[error("the file was written to while it was open, so what is in memory belongs to no model; load it again")]
    Written,

    #[error("the file ends at byte {len}, inside {what}; it is truncated, the download may be cut short")]
    Cut { what: String, len: u64 },
    #[error("not a GGUF file: it begins with \"{found}\" instead of the magic \"GGUF\"")]
    Magic { found: String },
    #[error("big-endian GGUF files are not supported (version field {version:#010x}); convert the model again for little-endian machines")]
    BigEndian { version: u32 },
    #[error("GGUF version {version} is not supported, only 2 and 3 are; convert the model again with current tools")]
    Version { version: u32 },
    #[error("the header claims a count of {count} {what}, more than {limit}; the file is damaged")]
    Count { what: &'static str, count: u64, limit: u64 },
    #[error("the header (metadata and tensor list) is longer than {limit} bytes, at {what}; no model needs that much")]
    HeaderTooLong { what: String, limit: u64 },

    #[error("metadata entry {index} has a key that is {problem}")]
    Key { index: u64, problem: String },
    #[error("metadata key `{key}` is given twice (duplicate)")]
    DuplicateKey { key: String },
    #[error("metadata key `{key}` has a value of unknown type {id}")]
    ValueType { key: String, id: u32 },
    #[error("metadata key `{key}` holds arrays nested deeper than {limit}")]
    Nesting { key: String, limit: usize },
    #[error(
        "metadata key `{key}` claims an array or string length of {count}, past the end of the file ({len} bytes); it is truncated or damaged"
    )]
    Length { key: String, count: u64, len: u64 },
    #[error("metadata key `general.alignment` is {found}; it must be a power of two from {min} to {max}")]
    Alignment { found: String, min: u64, max: u64 },
    #[error("metadata key `{key}` is missing")]
    MissingKey { key: String },
    #[error("metadata key `{key}` must be {want}, but is {found}")]
    WrongType { key: String, want: &'static str, found: String },

    #[error("tensor {index} of the list has a name that is {problem}")]
    TensorName { index: u64, problem: String },
    #[error("two tensors have the name `{tensor}` (duplicate)")]
    DuplicateTensor { tensor: String },
    #[error("tensor `{tensor}` has {count} dimensions; 1 to 4 are possible")]
    Dimensions { tensor: String, count: u32 },
    #[error("tensor `{tensor}` has the dimensions {shape:?}: {problem}")]
    Shape { tensor: String, shape: Vec<u64>, problem: &'static str },
    #[error("tensor `{tensor}` has rows of {cols} weights, no multiple of the {block} in a block of {format}")]
    Row { tensor: String, cols: u64, format: &'static str, block: u64 },
    #[error("tensor `{tensor}` has the offset {offset}, which is not aligned to {alignment} bytes")]
    Offset { tensor: String, offset: u64, alignment: u64 },
    #[error("tensor `{tensor}` (offset {offset}, size {size}) lies past the end of the file ({len} bytes); the download may be cut short")]
    TensorPastEnd { tensor: String, offset: u64, size: u64, len: u64 },
    #[error("tensor `{tensor}` is missing")]
    MissingTensor { tensor: String },
    #[error(
        "tensor `{tensor}` is stored in the type {type_name}, which this build cannot compute with; get the model in another quantization"
    )]
    TensorType { tensor: String, type_name: String },

    #[error("`split.count` says that the model has {count} parts, but the file's name does not end in {wanted}")]
    PartName { count: u64, wanted: String },
    #[error("this is part {part} of a split model; give the first part, {}", first.display())]
    NotTheFirstPart { part: u64, first: PathBuf },
    #[error("part {part} of {count} of the model is missing: {} {why}", file.display())]
    MissingPart { part: u64, count: u64, file: PathBuf, why: String },
    #[error("the {parts} parts hold {found} tensors together, but `split.tensors.count` says {want}; the parts do not belong together")]
    PartsDisagree { parts: usize, found: usize, want: u64 },
}

impl Fault {
    /// This fault, in the file at `path`.
    pub fn at(self, path: &Path) -> GgufError {
        GgufError { path: path.to_owned(), fault: self }
    }
}

/// Longest text of a file that a message repeats, in characters.
const SHOWN: usize = 80;

/// A text from a file, fit for a message or a terminal: UTF-8, no control characters, not long.
pub fn printable(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(4 * SHOWN)];
    let text: String = String::from_utf8_lossy(head).chars().take(SHOWN).flat_map(shown).collect();
    if bytes.len() > text.len() && bytes.len() > SHOWN { text + "…" } else { text }
}

/// Control characters escaped, all others as they are.
fn shown(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}
