//! `hearth detokenize`: token ids to text; and what it shares with `hearth tokenize`.

use super::arguments::TEXT_BYTES_MAX;
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;
use crate::units::TokenId;
use anyhow::{Context, ensure};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    vocabulary: Vocabulary,
    /// Token ids
    #[arg(required_unless_present = "jsonl", conflicts_with = "jsonl")]
    ids: Vec<u32>,
    /// Read a JSON array of ids a line, write a JSON string a line
    #[arg(long)]
    jsonl: bool,
}

/// Whose tokens.
#[derive(clap::Args)]
pub struct Vocabulary {
    /// The model, a GGUF file; one that holds only a vocabulary will do
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
}

impl Vocabulary {
    /// Opens the vocabulary, and says on stderr what is doubtful about it.
    pub fn open(&self) -> anyhow::Result<Tokenizer> {
        let file = Gguf::open(&self.model)?;
        let tokenizer = Tokenizer::from_gguf(&file)?;
        file.check()?;
        for warning in tokenizer.warnings() {
            eprintln!("hearth: {}: {warning}", self.model.display());
        }
        Ok(tokenizer)
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let tokenizer = args.vocabulary.open()?;
    let text = |ids: Vec<u32>| {
        let tokens = tokenizer.vocab().len();
        if let Some(id) = ids.iter().find(|id| **id as usize >= tokens) {
            anyhow::bail!("{id} is not a token: this vocabulary has the tokens 0 to {}", tokens - 1);
        }
        let ids: Vec<TokenId> = ids.into_iter().map(TokenId).collect();
        Ok(String::from_utf8_lossy(&tokenizer.decode(&ids, true)).into_owned())
    };
    if args.jsonl {
        return json_lines(text);
    }
    writeln!(std::io::stdout(), "{}", text(args.ids)?)?;
    Ok(())
}

/// A JSON value a line on stdin → a JSON value a line on stdout, each answered before the next is read.
pub fn json_lines<I: DeserializeOwned, O: Serialize>(mut answer: impl FnMut(I) -> anyhow::Result<O>) -> anyhow::Result<()> {
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    for number in 1.. {
        let Some(line) = line(&mut input).with_context(|| format!("line {number}"))? else { break };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let value = serde_json::from_slice(&line).map_err(anyhow::Error::from).and_then(&mut answer);
        let text = serde_json::to_string(&value.with_context(|| format!("line {number}"))?)?;
        writeln!(out, "{}", one_line(text))?;
        out.flush()?;
    }
    Ok(())
}

/// The next line with its end; `None` after the last.
fn line(input: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.take(TEXT_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
    ensure!(line.len() as u64 <= TEXT_BYTES_MAX, "is longer than the {TEXT_BYTES_MAX} bytes that are taken");
    Ok((!line.is_empty()).then_some(line))
}

/// JSON leaves these line ends of Unicode as they are, and some readers cut lines at them. They occur within strings only.
fn one_line(json: String) -> String {
    if !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return json;
    }
    json.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_and_one_without_end_is_refused() {
        let mut input = &b"1\n\n2"[..];
        let lines: Vec<Vec<u8>> = std::iter::from_fn(|| line(&mut input).unwrap()).collect();
        assert_eq!(lines, [&b"1\n"[..], b"\n", b"2"]);
        let endless = line(&mut std::io::BufReader::new(std::io::repeat(b'a'))).unwrap_err().to_string();
        assert!(endless.contains("longer than the 67108864 bytes"), "{endless}");
    }
}
