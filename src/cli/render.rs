//! `hearth render`: a chat template on conversations given as JSON lines.
//!
//! One object a line on stdin (`messages`, `tools`, `add_generation_prompt` and any other variable of the template), one object a line on
//! stdout: `{"text"}`, or `{"error"}` with the template's own words if it refused.

use super::arguments;
use super::detokenize::json_lines;
use crate::chat::defaults;
use crate::chat::template::{Template, Variables};
use crate::gguf::Gguf;
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true)))]
pub struct Args {
    /// A GGUF file: its own template with its begin and end tokens
    #[arg(short, long, value_name = "FILE", group = "from")]
    model: Option<PathBuf>,
    /// A file with a Jinja template; `bos_token` and `eos_token` come with each line
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
    let (source, tokens) = match (&args.template, &args.model) {
        (Some(path), _) => {
            let file = File::open(path).with_context(|| format!("{}: can't read the template", path.display()))?;
            (arguments::text(&path.display().to_string(), file)?, Variables::new())
        }
        (None, Some(path)) => of_model(path)?,
        (None, None) => unreachable!("clap asks for one of them"),
    };
    // A template that can't be read refuses every conversation, each on its own line.
    let template = Template::new(&source);
    json_lines(|line: Value| {
        let Value::Object(given) = line else { return Ok(json!({"error": "a conversation is a JSON object: {\"messages\": […]}"})) };
        let mut variables = tokens.clone();
        variables.extend(given);
        let now = args.now.unwrap_or_else(|| jiff::ZonedDateTime::now().datetime());
        Ok(match template.as_ref().map_err(Clone::clone).and_then(|template| template.render(&variables, now)) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        })
    })
}

/// A file's template, or one that fits its vocabulary, and the texts of its begin and end tokens.
fn of_model(path: &Path) -> anyhow::Result<(String, Variables)> {
    let file = Gguf::open(path)?;
    let meta = file.meta();
    let words = || meta.strings("tokenizer.ggml.tokens");
    let mut tokens = Variables::new();
    for (name, key) in [("bos_token", "tokenizer.ggml.bos_token_id"), ("eos_token", "tokenizer.ggml.eos_token_id")] {
        if let Some(id) = meta.optional::<u32>(key)?
            && let Some(word) = words()?.nth(id as usize)
        {
            tokens.insert(name.to_owned(), Value::from(String::from_utf8_lossy(word)));
        }
    }
    let source = match meta.optional::<&str>("tokenizer.chat_template")? {
        Some(source) => source.to_owned(),
        None => {
            let words: HashSet<&[u8]> = words()?.collect();
            defaults::template_for(|word| words.contains(word.as_bytes())).to_owned()
        }
    };
    Ok((source, tokens))
}
