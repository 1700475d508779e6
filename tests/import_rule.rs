//! Data flows one way through the house: a module of `src/` may use only the modules that the table below lists for it.
//! The table is the one in `src/lib.rs`, with the reach of each arrow written out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MAY_USE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("chat", &[]),
    ("runtime", &[]),
    ("gguf", &["kernels"]),
    ("program", &["kernels"]),
    ("tokenizer", &["gguf", "units"]),
    ("model", &["gguf", "program", "kernels"]),
    ("backend", &["kernels", "program", "gguf", "units"]),
    ("engine", &["backend", "units"]),
    ("service", &["gguf", "tokenizer", "chat", "program", "model", "backend", "engine", "units"]),
    ("board", &["units"]),
    ("governor", &["units"]),
    ("helm", &["board", "governor", "units"]),
    ("measure", &["service", "engine", "board", "governor", "helm", "units", "backend", "model", "gguf", "tokenizer", "kernels"]),
    ("serve", &["service", "units"]),
    ("daemon", &["board", "governor", "helm", "engine", "service", "serve", "runtime", "units"]),
    (
        "cli",
        &[
            "units",
            "chat",
            "gguf",
            "program",
            "tokenizer",
            "model",
            "backend",
            "engine",
            "service",
            "board",
            "governor",
            "measure",
            "runtime",
            "kernels",
        ],
    ),
];

#[test]
fn every_import_follows_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_USE {
        let files = files_of(&src, room);
        assert!(!files.is_empty(), "the table names `{room}`, which src/ does not have");
        for file in files {
            for used in imports(&fs::read_to_string(&file).unwrap()) {
                if used != *room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}: `{room}` uses `{used}`", file.strip_prefix(&src).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that are not in the table:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    for room in lib.lines().filter_map(|l| l.strip_prefix("pub mod ")).map(|l| l.trim_end_matches(';')) {
        assert!(MAY_USE.iter().any(|(r, _)| *r == room), "`{room}` has no row in the table");
    }
}

fn files_of(src: &Path, room: &str) -> Vec<PathBuf> {
    let single = src.join(format!("{room}.rs"));
    if single.is_file() {
        return vec![single];
    }
    let (mut found, mut folders) = (Vec::new(), vec![src.join(room)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The rooms named after `crate::` or as the kernels crate, in code (comment lines are left out), tests included.
fn imports(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list.split(',').map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let room: String = name.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if MAY_USE.iter().any(|(r, _)| *r == room) {
                    rooms.insert(room);
                }
            }
        }
        if line.contains("hearth_kernels::") {
            rooms.insert("kernels".to_string());
        }
    }
    rooms
}

#[test]
fn the_reader_of_imports_sees_lists_and_paths() {
    let text = "use crate::{gguf::Gguf, units};\nlet x = crate::engine::start();\n// use crate::serve\nuse hearth_kernels::quant;";
    let want: BTreeSet<String> = ["gguf", "units", "engine", "kernels"].map(String::from).into();
    assert_eq!(imports(text), want);
}
