//! A captured board as one text that can be sent by mail, reviewed, and kept in a repository: a path a heading, the file's text below it.
//!
//! ```text
//! hearth board tree 1
//! # Raspberry Pi 5 with Active Cooler, official supply
//! == proc/device-tree/model
//!   Raspberry Pi 5 Model B Rev 1.0
//! == sys/class/thermal/thermal_zone0/temp
//!   52900
//! !! sys/class/thermal/thermal_zone1/temp: not ready (Resource temporarily unavailable)
//! ```
//!
//! Lines of a text are indented by two spaces, a NUL is written `\0` and a backslash `\\`. A file that could not be read has a line with
//! `!!` and the reason; unpacked, it is missing.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The first line.
const MAGIC: &str = "hearth board tree 1";
/// Bounds of a tree: one that breaks them is no board.
pub const BYTES_MAX: usize = 1 << 20;
pub const FILES_MAX: usize = 4096;
const PATH_BYTES_MAX: usize = 512;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// What a person wrote: case, fan, supply.
    pub comments: Vec<String>,
    /// Path below the root and text, in the order of capture.
    pub files: Vec<(String, String)>,
    /// Path and reason of files that are there but could not be read.
    pub unread: Vec<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: longer than the {BYTES_MAX} bytes of a board tree, which is what `hearth board capture` writes")]
    TooLong { path: PathBuf },
    #[error("{path}: line {line}: {what}; a board tree is what `hearth board capture` writes")]
    Text { path: PathBuf, line: usize, what: String },
}

impl Tree {
    pub fn load(path: &Path) -> Result<Tree, TreeError> {
        let file = |source| TreeError::File { path: path.to_owned(), source };
        let wrong = |(line, what)| TreeError::Text { path: path.to_owned(), line, what };
        // By what comes, not by what the file says of itself: a pipe or a device says 0.
        let mut bytes = Vec::new();
        std::fs::File::open(path).and_then(|f| f.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)).map_err(file)?;
        if bytes.len() > BYTES_MAX {
            return Err(TreeError::TooLong { path: path.to_owned() });
        }
        Tree::parse(&String::from_utf8_lossy(&bytes)).map_err(wrong)
    }

    /// Reads a text; an error names its line.
    pub fn parse(text: &str) -> Result<Tree, (usize, String)> {
        let mut tree = Tree::default();
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, l)| l.trim_end()) != Some(MAGIC) {
            return Err((1, format!("the first line is not `{MAGIC}`")));
        }
        for (at, line) in lines {
            let wrong = |what: &str| (at + 1, what.to_owned());
            if let Some(path) = line.strip_prefix("== ") {
                tree.files.push((checked(path).map_err(wrong)?, String::new()));
            } else if let Some(missing) = line.strip_prefix("!! ") {
                let (path, reason) = missing.split_once(": ").ok_or_else(|| wrong("no reason after `: `"))?;
                tree.unread.push((checked(path).map_err(wrong)?, reason.to_owned()));
            } else if let Some(content) = line.strip_prefix("  ") {
                let (_, text) = tree.files.last_mut().ok_or_else(|| wrong("text before the first path"))?;
                text.push_str(&unescaped(content));
                text.push('\n');
            } else if let Some(comment) = line.strip_prefix('#') {
                tree.comments.push(comment.trim().to_owned());
            } else if !line.trim().is_empty() {
                return Err(wrong("begins with none of `== `, `!! `, `#` and two spaces"));
            }
            if tree.files.len() + tree.unread.len() > FILES_MAX {
                return Err((at + 1, format!("more than {FILES_MAX} files")));
            }
        }
        Ok(tree)
    }

    pub fn text(&self) -> String {
        let mut out = format!("{MAGIC}\n");
        for comment in &self.comments {
            out += &format!("# {comment}\n");
        }
        for (path, text) in &self.files {
            out += &format!("== {path}\n");
            for line in text.lines() {
                out += &format!("  {}\n", line.replace('\\', "\\\\").replace('\0', "\\0"));
            }
        }
        for (path, reason) in &self.unread {
            out += &format!("!! {path}: {}\n", reason.replace('\n', " "));
        }
        out
    }

    /// Writes the files below `folder`, which is there.
    pub fn unpack(&self, folder: &Path) -> Result<(), TreeError> {
        for (path, text) in &self.files {
            let to = folder.join(path);
            let file = |source| TreeError::File { path: to.clone(), source };
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent).map_err(file)?;
            }
            std::fs::write(&to, text).map_err(file)?;
        }
        Ok(())
    }
}

/// A path that stays below its root.
fn checked(path: &str) -> Result<String, &'static str> {
    let stays = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    match (stays, path.len() <= PATH_BYTES_MAX) {
        (true, true) => Ok(path.to_owned()),
        (false, _) => Err("the path leaves the tree"),
        (_, false) => Err("the path is too long"),
    }
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('0') => out.push('\0'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_survives_its_text() {
        let tree = Tree {
            comments: vec!["alu case, no fan".into()],
            files: vec![
                ("proc/device-tree/compatible".into(), "raspberrypi,5-model-b\0brcm,bcm2712\0\n".into()),
                ("a".into(), "1\n\n  \\0 x\n".into()),
            ],
            unread: vec![("sys/b".into(), "not ready (EAGAIN)".into())],
        };
        assert_eq!(Tree::parse(&tree.text()).unwrap(), tree);
    }

    #[test]
    fn a_file_without_end_is_refused_by_its_length() {
        assert!(matches!(Tree::load(Path::new("/dev/zero")), Err(TreeError::TooLong { .. })));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("board.tree");
        for (len, fits) in [(BYTES_MAX, true), (BYTES_MAX + 1, false)] {
            let mut text = format!("{MAGIC}\n# ");
            text += &"x".repeat(len - text.len());
            std::fs::write(&file, text).unwrap();
            assert_eq!(Tree::load(&file).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn a_path_that_leads_out_and_foreign_text_are_refused_with_their_line() {
        for (text, line) in [
            ("", 1),
            ("hello", 1),
            ("hearth board tree 1\n== ../etc/passwd\n  x", 2),
            ("hearth board tree 1\n== /etc/passwd\n  x", 2),
            ("hearth board tree 1\n\n  x", 3),
            ("hearth board tree 1\nx", 2),
            ("hearth board tree 1\n!! a", 2),
        ] {
            assert_eq!(Tree::parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
