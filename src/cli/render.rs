//! `hearth render`: a chat template on conversations given as JSON lines.
//!
//! One object a line on stdin (`messages`, `tools`, `add_generation_prompt` and any other variable of the template), one object a line on
//! stdout: `{"text"}`, or `{"error"}` with the template's own words if it refused.

use crate::chat::template::{Template, Variables};
use anyhow::{Context, bail};
use serde_json::json;
use std::io::{BufRead, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true)))]
pub struct Args {
    /// A GGUF file: its own template and its begin and end tokens
    #[arg(short, long, value_name = "FILE", group = "from")]
    model: Option<PathBuf>,
    /// A file with a Jinja template
    #[arg(long, value_name = "FILE", group = "from")]
    template: Option<PathBuf>,
    /// Read conversations from stdin, one JSON object a line
    #[arg(long, required = true)]
    jsonl: bool,
    /// What the template takes for the present, e.g. 2026-01-02T03:04:05 [default: the local time]
    #[arg(long, value_name = "TIME")]
    now: Option<jiff::civil::DateTime>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let (text, defaults) = match (&args.template, &args.model) {
        (Some(path), _) => (std::fs::read_to_string(path).with_context(|| format!("{}: can't read the template", path.display()))?, Variables::new()),
        (None, _) => bail!("`hearth render -m` is not there yet"),
    };
    let template = Template::new(&text)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("stdin")?;
        if line.trim().is_empty() {
            continue;
        }
        let now = args.now.unwrap_or_else(|| jiff::ZonedDateTime::now().datetime());
        let result = match serde_json::from_str::<Variables>(&line) {
            Ok(mut variables) => {
                for (name, value) in &defaults {
                    variables.entry(name.clone()).or_insert_with(|| value.clone());
                }
                template.render(&variables, now).map_err(|e| e.to_string())
            }
            Err(error) => Err(format!("the line is no JSON object: {error}")),
        };
        match result {
            Ok(text) => writeln!(out, "{}", json!({ "text": text }))?,
            Err(error) => writeln!(out, "{}", json!({ "error": error }))?,
        }
    }
    out.flush()?;
    Ok(())
}
