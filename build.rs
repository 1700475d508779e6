//! Lists the board files of `config/boards`: adding a board is adding its file. `governor::profile` takes the list in.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=config/boards");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let entries = fs::read_dir(root.join("config/boards")).expect("the repository has config/boards");
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.expect("a readable folder").path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    let list: String = files.iter().map(|f| format!("    include_str!({f:?}),\n")).collect();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("boards.rs"), format!("&[\n{list}]\n")).expect("the output folder is writable");
}
