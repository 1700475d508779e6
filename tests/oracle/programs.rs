//! The text of each architecture's program, as golden files. `BLESS=1` writes them anew; review the difference.

use crate::tiny::TINY;
use std::path::Path;

/// The golden text of that name; with `BLESS=1` it becomes `text` first.
pub fn golden(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; BLESS=1 writes it", path.display()))
}

#[test]
fn programs_read_as_they_did() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for tiny in TINY {
        let text = tiny.program(&folder).to_string();
        let want = golden(&format!("programs/{}.txt", tiny.name), &text);
        assert!(text == want, "the program of {} changed; BLESS=1 writes it anew:\n{text}", tiny.name);
    }
}
