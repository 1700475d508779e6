//! `hearth tokenize`: text to token ids. One text for people to read, or JSON lines for scripts.

use super::arguments;
use super::detokenize::{Vocabulary, json_lines};
use crate::tokenizer::Options;
use std::io::Write;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    vocabulary: Vocabulary,
    /// The text [default: all of standard input]
    #[arg(conflicts_with = "jsonl")]
    text: Option<String>,
    /// Read a JSON string a line, write a JSON array of ids a line
    #[arg(long)]
    jsonl: bool,
    /// Do not add the tokens that begin and end a text
    #[arg(long)]
    no_bos: bool,
    /// Take special tokens in the text as plain text
    #[arg(long)]
    no_special: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let tokenizer = args.vocabulary.open()?;
    let options = Options { add_special: !args.no_bos, parse_special: !args.no_special };
    if args.jsonl {
        return json_lines(|text: String| Ok(tokenizer.encode(&text, options)));
    }
    let text = match args.text {
        Some(text) => text,
        None => arguments::text("stdin", std::io::stdin())?,
    };
    let mut out = std::io::stdout().lock();
    for id in tokenizer.encode(&text, options) {
        let bytes = tokenizer.token_bytes(id);
        match std::str::from_utf8(&bytes) {
            Ok(piece) => writeln!(out, "{:>7}  {piece:?}", id.0)?,
            Err(_) => writeln!(out, "{:>7}  {} (part of a character)", id.0, bytes.escape_ascii())?,
        }
    }
    Ok(())
}
