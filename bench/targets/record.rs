//! The record: a CSV per machine and date under `bench/records`, with the machine's text beside it.

use crate::hearth::output;
use crate::machine;
use crate::table::Table;
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the table; a later run of the same groups on the same day takes the place of an earlier. Returns where.
pub fn write(table: &Table, groups: &[String]) -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/records");
    let date = output(Command::new("date").arg("+%F"))?;
    let part = groups.iter().map(|group| format!("-{group}")).collect::<String>();
    let stem = format!("{}-{}{part}", machine::name(), date.trim());
    let path = folder.join(format!("{stem}.csv"));
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut csv = "verdict,name,figure,target\n".to_owned();
    for row in &table.rows {
        csv += &[row.verdict.word(), &quoted(&row.name), &quoted(&row.figure), &quoted(&row.target)].join(",");
        csv.push('\n');
    }
    fs::create_dir_all(&folder).and_then(|()| fs::write(&path, csv)).with_context(|| path.display().to_string())?;
    fs::write(folder.join(format!("{stem}.txt")), machine::text())?;
    Ok(path)
}
