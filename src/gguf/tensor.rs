//! Tensors: what the file's list says of them, and views of their bytes.

use hearth_kernels::quant::Format;
use std::ops::Range;

/// A line of the tensor list, checked: the name is UTF-8, the dimensions multiply, the bytes lie in the file.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub name: String,
    /// The type's id as it stands in the file.
    pub type_id: u32,
    /// `None` for a type that this build cannot compute with.
    pub format: Option<Format>,
    /// In GGUF's order: the length of a row first, then how many rows. 1 to 4 dimensions, none is 0.
    pub shape: Vec<usize>,
    /// Where its bytes begin, counted from the start of the part's file.
    pub offset: u64,
    /// How many bytes it has; 0 for a type of unknown size.
    pub bytes: u64,
    /// The part of a split model that holds it, from 0.
    pub part: usize,
}

impl TensorInfo {
    /// Weights in all.
    pub fn weights(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product()
    }

    /// The type as GGUF tools print it, such as `Q4_K`; `type 43` where it has no name here.
    pub fn type_name(&self) -> String {
        let other = || OTHER_TYPES.iter().find(|t| t.0 == self.type_id).map(|t| t.1.to_owned());
        self.format.map(|f| f.name().to_owned()).or_else(other).unwrap_or_else(|| format!("type {}", self.type_id))
    }

    /// Its bytes in its part. Fits `usize`: it was checked against the mapping.
    pub(super) fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset + self.bytes) as usize
    }
}

/// Types that hold numbers but are no weight formats: id, name, bytes of one.
const OTHER_TYPES: [(u32, &str, u64); 5] = [(24, "I8", 1), (25, "I16", 2), (26, "I32", 4), (27, "I64", 8), (28, "F64", 8)];

/// Weights and bytes of one block of a type; `None` when its size is unknown here.
pub(super) fn block_of(type_id: u32) -> Option<(u64, u64)> {
    let weight = Format::from_id(type_id).map(|f| (f.layout().weights as u64, f.layout().bytes as u64));
    weight.or_else(|| OTHER_TYPES.iter().find(|t| t.0 == type_id).map(|t| (1, t.2)))
}

/// A tensor in the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub name: &'a str,
    pub format: Format,
    /// In GGUF's order: the length of a row first, then how many rows.
    pub shape: &'a [usize],
    /// The blocks of all rows, one row after the other.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// Weights in a row.
    pub fn cols(&self) -> usize {
        self.shape[0]
    }

    /// Rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.shape[1..].iter().product()
    }
}
