//! Model files: a mapped GGUF file as typed metadata and tensors that stay where they lie, and the writer of such files.
//!
//! Everything in a file is outside input. Each count, length, shape, offset and name is checked once, when the file is opened,
//! and a refusal names the key or tensor; after that views are plain slices. Arrays are never expanded: a vocabulary of 262k words
//! is a view until somebody walks it. What a key *means* (hyper-parameters, vocabulary, template) is for `model`, `tokenizer`, `chat`.
//!
//! - [`metadata`]: typed values and getters that name the key.
//! - [`tensor`]: what the list says of a tensor, and the view of its bytes.
//! - [`error`]: every way a file can be wrong, one sentence each.
//! - [`file_type`]: names of the usual mixes of formats.
//! - `parse` (one file's header), `split` (models in several parts), `map` (the mapping and how it is read), `huge` (pages),
//!   `guard` (pages that are lost while mapped), `cursor` (bounded reads).
//! - [`writer`]: streams a file out.

mod cursor;
pub mod error;
pub mod file_type;
mod guard;
mod huge;
mod map;
pub mod metadata;
mod parse;
mod split;
pub mod tensor;
pub mod writer;

#[cfg(test)]
mod tests;

pub use error::{Fault, GgufError};
pub use metadata::{Array, Kind, Metadata, Value};
pub use tensor::{TensorInfo, TensorView};

use map::Map;
use parse::Entry;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// An open model: all parts mapped, all headers checked. Share it as `Arc<Gguf>`; it is immutable and `Sync`.
///
/// The file must not be written to while it is open. A file replaced by rename is harmless: the old one stays mapped. One cut short
/// underneath us reads as zeros from there on, one written over gives other weights; [`Gguf::check`] says so, and whoever computes with
/// a file asks it before giving out what came of it.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    version: u32,
    alignment: u64,
    maps: Vec<Map>,
    entries: Vec<Entry>,
    keys: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    names: HashMap<String, usize>,
    /// Held by whoever [gathers](Gguf::gather).
    gathering: Mutex<()>,
}

impl Gguf {
    /// Maps `path`, and where it is the first part of a split model all the others, and checks their headers.
    /// Takes milliseconds whatever the model's size: weights are not touched.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, GgufError> {
        let path = path.as_ref();
        let map = Map::open(path)?;
        let head = parse::header(&map).map_err(|fault| fault.at(path))?;
        let mut file = Gguf {
            path: path.to_owned(),
            version: head.version,
            alignment: head.alignment,
            maps: vec![map],
            entries: head.entries,
            keys: head.keys,
            tensors: Vec::new(),
            names: HashMap::new(),
            gathering: Mutex::default(),
        };
        file.add_tensors(head.tensors).map_err(|fault| fault.at(path))?;
        for part in split::others(&file)? {
            let map = Map::open(&part.path).map_err(|e| part.missing(e))?;
            let mut head = parse::header(&map).map_err(|fault| fault.at(&part.path))?;
            head.tensors.iter_mut().for_each(|t| t.part = file.maps.len());
            file.maps.push(map);
            file.add_tensors(head.tensors).map_err(|fault| fault.at(&part.path))?;
        }
        split::check_total(&file)?;
        Ok(file)
    }

    fn add_tensors(&mut self, tensors: Vec<TensorInfo>) -> Result<(), Fault> {
        for t in tensors {
            if self.names.insert(t.name.clone(), self.tensors.len()).is_some() {
                return Err(Fault::DuplicateTensor { tensor: t.name });
            }
            self.tensors.push(t);
        }
        Ok(())
    }

    /// The path it was opened by (of a split model, the first part's).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensor data begins at multiples of this many bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Files it consists of: 1, or the parts of a split model.
    pub fn parts(&self) -> usize {
        self.maps.len()
    }

    /// Bytes of all parts together.
    pub fn bytes(&self) -> u64 {
        self.maps.iter().map(|m| m.len() as u64).sum()
    }

    /// The metadata (of a split model, the first part's, which has all of it).
    pub fn meta(&self) -> Metadata<'_> {
        Metadata { path: &self.path, bytes: &self.maps[0], entries: &self.entries, keys: &self.keys }
    }

    /// Every tensor in the order of the file, those of unknown type included.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the list says of a tensor; `None` when there is none of that name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.names.get(name).map(|i| &self.tensors[*i])
    }

    /// A tensor to compute with. Refused by name when it is missing or stored in a type that this build cannot compute with.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, GgufError> {
        let info = self.info(name).ok_or_else(|| Fault::MissingTensor { tensor: name.to_owned() }.at(&self.path))?;
        let unknown = || Fault::TensorType { tensor: info.name.clone(), type_name: info.type_name() }.at(self.part_path(info));
        let format = info.format.ok_or_else(unknown)?;
        Ok(TensorView { name: &info.name, format, shape: &info.shape, data: &self.maps[info.part][info.range()] })
    }

    fn part_path(&self, info: &TensorInfo) -> &Path {
        self.maps[info.part].path()
    }

    /// Brings `range` of the file into memory and into this process's page tables, and returns when it is there.
    /// Positions count through all parts, `0..bytes()`; the range is clipped to that, and metadata in it are left alone: who needs them
    /// has read them. Meant to be called in steps of some MiB, in ascending order: sequential reads are what cards and disks do best.
    pub fn prefetch(&self, range: Range<u64>) -> Result<(), GgufError> {
        self.each_part(range, |map, data, range| map.prefetch(range.start.max(data)..range.end))
    }

    /// Takes the pages of the metadata out of this process's page tables. Whoever reads them again finds them, at the price of a fault:
    /// a vocabulary and its merges take megabytes, and once there is a tokenizer nobody does.
    pub fn let_go_of_metadata(&self) {
        _ = self.each_part(0..self.bytes(), |map, data, _| {
            map.let_go(data);
            Ok(())
        });
    }

    /// Brings the file into memory, and sees to it that it lies there in huge pages: what came into memory in small ones is read from the
    /// disk anew, piece by piece, each piece once. Returns whether it does; it can't where the file system has no large folios, where
    /// another process has the file mapped, or where `go_on`, asked before each piece, says no. Bytes and addresses stay what they are, so
    /// that steps may run meanwhile; they wait where they meet the piece. For a file that memory
    /// has room for: of another the first pieces would be gone before the last had come.
    pub fn gather(&self, go_on: &dyn Fn() -> bool) -> Result<bool, GgufError> {
        let _gathering = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = true;
        self.each_part(0..self.bytes(), |map, data, _| {
            all &= map.gather(data, go_on)?;
            Ok(())
        })?;
        Ok(all)
    }

    /// Each part, where its tensors begin, and what of `range` is in it.
    fn each_part(&self, range: Range<u64>, mut f: impl FnMut(&Map, usize, Range<usize>) -> Result<(), GgufError>) -> Result<(), GgufError> {
        let mut start = 0u64;
        for (part, map) in self.maps.iter().enumerate() {
            let end = start + map.len() as u64;
            let clip = |at: u64| (at.clamp(start, end) - start) as usize;
            let data = self.tensors.iter().filter(|t| t.part == part).map(|t| t.range().start).min().unwrap_or(map.len());
            f(map, data, clip(range.start)..clip(range.end))?;
            start = end;
        }
        Ok(())
    }

    /// Whether opening its path again would give the same file, with nothing written to it since.
    pub fn is_current(&self) -> bool {
        self.maps.iter().all(Map::is_current)
    }

    /// Refuses a file that was cut short or written to since it was opened, or of which a page could not be read (it then reads as
    /// zeros). One `fstat` a part, less than a microsecond: cheap enough to ask after every step.
    pub fn check(&self) -> Result<(), GgufError> {
        self.maps.iter().try_for_each(Map::check)
    }
}
