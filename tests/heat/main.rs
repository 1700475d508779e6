//! Boards as captured trees, with sensors that fail in every known way; and `hearth bench --sustained` from its run to its record, its
//! picture and its comparison. Nothing here needs a board, a quiet machine, or more than seconds.

mod boards;
mod faults;
#[path = "../process/mod.rs"]
mod process;
mod sustained;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every captured tree of the repository.
fn trees() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boards");
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "tree")).collect();
    all.sort();
    assert!(all.len() >= 8, "{all:?}");
    all
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn hearth(arguments: &[&str]) -> Output {
    process::ended(Command::new(env!("CARGO_BIN_EXE_hearth")).args(arguments))
}

/// What a command printed that must have gone well.
fn printed(arguments: &[&str]) -> String {
    let output = hearth(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a command refused with.
fn refused(arguments: &[&str]) -> String {
    let output = hearth(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty() && said.lines().count() == 1, "{arguments:?}: {said}");
    said
}
