//! Where reference data lies, and how to read it.

use hearth::gguf::Gguf;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of the shared fixtures. They stand beside the checkout or at `$HEARTH_SHARED`; without them a test says so and passes.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("HEARTH_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join("fixtures").join(folder);
    if !path.is_dir() {
        eprintln!("SKIPPED: no fixtures at {}", path.display());
        return None;
    }
    Some(path)
}

pub fn open(path: &Path) -> Arc<Gguf> {
    Arc::new(Gguf::open(path).unwrap_or_else(|e| panic!("{e}")))
}

pub fn json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A prompt with known logits.
#[derive(Deserialize, Clone)]
pub struct Prompt {
    pub name: String,
    pub ids: Vec<u32>,
    /// Positions whose logits are stored.
    pub positions: Vec<usize>,
    /// Their first row in the table of logits.
    pub first_row: usize,
}

/// A table of float32 in NumPy's format (version 1, C order): rows of equal length.
pub struct Table {
    pub columns: usize,
    data: Vec<f32>,
}

impl Table {
    pub fn read(path: &Path) -> Table {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(&bytes[..6], b"\x93NUMPY", "{}", path.display());
        let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = String::from_utf8_lossy(&bytes[10..header_end]);
        assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
        let (_, shape) = header.split_once("'shape': (").expect("a shape");
        let mut shape = shape.split([',', ')']).map(|n| n.trim().parse::<usize>());
        let columns = shape.nth(1).expect("two axes").expect("a number");
        let data = bytes[header_end..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Table { columns, data }
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.columns..][..self.columns]
    }
}
