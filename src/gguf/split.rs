//! Models in several files, `NAME-00001-of-0000N.gguf`: the first part has all the metadata, each part its own tensors.

use super::Gguf;
use super::error::{Fault, GgufError};
use std::path::{Path, PathBuf};

/// Parts after the first.
pub struct Part {
    pub path: PathBuf,
    number: u64,
    count: u64,
    first: PathBuf,
}

impl Part {
    /// The error of a part that cannot be opened, told of the model as a whole.
    pub fn missing(&self, cause: GgufError) -> GgufError {
        let why = cause.fault.to_string();
        Fault::MissingPart { part: self.number, count: self.count, file: self.path.clone(), why }.at(&self.first)
    }
}

/// The parts that belong to `first`, in order; empty for a model in one file.
pub fn others(first: &Gguf) -> Result<Vec<Part>, GgufError> {
    let count = first.meta().optional::<u32>("split.count")?.unwrap_or(1).into();
    if count <= 1 {
        return Ok(Vec::new());
    }
    let number = u64::from(first.meta().optional::<u32>("split.no")?.unwrap_or(0)) + 1;
    let path = first.path();
    let Some(stem) = stem(path, number, count) else {
        return Err(Fault::PartName { count, wanted: ending(number, count) }.at(path));
    };
    let sibling = |n: u64| path.with_file_name(join(stem, &ending(n, count)));
    if number != 1 {
        return Err(Fault::NotTheFirstPart { part: number, first: sibling(1) }.at(path));
    }
    Ok((2..=count).map(|n| Part { path: sibling(n), number: n, count, first: path.to_owned() }).collect())
}

/// Whether the parts hold as many tensors together as the first one says.
pub fn check_total(file: &Gguf) -> Result<(), GgufError> {
    let found = file.tensors().len();
    match file.meta().optional::<u64>("split.tensors.count")? {
        Some(want) if file.parts() > 1 && want != found as u64 => {
            Err(Fault::PartsDisagree { parts: file.parts(), found, want }.at(file.path()))
        }
        _ => Ok(()),
    }
}

fn ending(number: u64, count: u64) -> String {
    format!("-{number:05}-of-{count:05}.gguf")
}

/// The file's name before the ending; `None` when it ends otherwise. Names need not be UTF-8.
fn stem(path: &Path, number: u64, count: u64) -> Option<&[u8]> {
    path.file_name()?.as_encoded_bytes().strip_suffix(ending(number, count).as_bytes())
}

fn join(stem: &[u8], ending: &str) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec([stem, ending.as_bytes()].concat())
}
