//! `hearth logits`: the raw logits after given tokens, for comparing engines. No tokenizer, no sampling.

use super::model_options::ModelOptions;
use crate::backend::LoadOptions;
use crate::measure::session::{Session, Wants};
use crate::units::TokenId;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: ModelOptions,
    /// Token ids, fed as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Logits after every token
    #[arg(long, conflicts_with = "last")]
    all: bool,
    /// Logits after each of the last K tokens
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    last: Option<u32>,
    /// Feed the tokens in steps of N [default: all at once, at most 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// Keep activations in f32 and every product exact
    #[arg(long)]
    exact: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Most rows of one step when no `--chunk` is given; scratch memory grows with it.
const CHUNK_MAX: usize = 2048;
/// Best tokens a position shows without `--json`.
const SHOWN: usize = 10;

pub fn run(args: Args) -> anyhow::Result<()> {
    let tokens: Vec<TokenId> = args.tokens.iter().copied().map(TokenId).collect();
    // Just room enough: a model that treats long contexts otherwise then does as its authors do for this length.
    let context = args.options.context.map_or(tokens.len(), |n| n as usize);
    let rows = args.chunk.map_or(CHUNK_MAX, |n| n as usize).min(tokens.len());
    let options = LoadOptions { rows, exact: args.exact, ..args.options.load_options(context, 1) };
    let mut session = Session::open(&args.options.model, args.options.backend.into(), options, 1, &())?;
    let vocabulary = session.vocabulary();
    let count = if args.all { tokens.len() } else { args.last.map_or(1, |n| n as usize).min(tokens.len()) };
    let logits = session.feed(0, &tokens, Wants::Last(count))?;

    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        let each = logits.chunks_exact(vocabulary).collect();
        let logits = if args.all || args.last.is_some() { Logits::OfEach(each) } else { Logits::Of(logits) };
        serde_json::to_writer(&mut out, &Answer { logits }).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        let positions = tokens.len() - count..;
        logits.chunks_exact(vocabulary).zip(positions).try_for_each(|(logits, position)| best(&mut out, position, logits))?;
    }
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct Answer<'a> {
    logits: Logits<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Logits<'a> {
    Of(&'a [f32]),
    OfEach(Vec<&'a [f32]>),
}

/// A line: the position, then the best tokens with their logits.
fn best(out: &mut impl Write, position: usize, logits: &[f32]) -> io::Result<()> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    write!(out, "{position}:")?;
    order.iter().take(SHOWN).try_for_each(|id| write!(out, "  {id} {:.4}", logits[*id]))?;
    writeln!(out)
}
