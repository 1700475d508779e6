//! `hearth bench`: how fast a model runs here.

use super::model_options::OptionalModel;
use super::progress::Progress;
use super::sustained;
use crate::measure::compare::{compare, read};
use crate::measure::record::threads_words;
use crate::measure::speed::{self, Workload};
use anyhow::Context;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: OptionalModel,
    #[command(flatten)]
    heat: sustained::Options,
    /// Two results side by side: records of --sustained, JSON of this command, JSON of llama-bench
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["sustained", "model"])]
    compare: Option<Vec<PathBuf>>,
    /// Tokens of the prompt, computed in one request [default: 512; with --sustained what the load has]
    #[arg(short = 'p', long, value_name = "N", value_parser = tokens)]
    prefill: Option<usize>,
    /// Tokens after the prompt, one at a time [default: 64; with --sustained what the load has]
    #[arg(short = 'n', long, value_name = "M", value_parser = tokens)]
    decode: Option<usize>,
    /// Tokens already in the cache before the prompt, untimed
    #[arg(long, value_name = "D", default_value_t = 0, value_parser = tokens, conflicts_with = "sustained")]
    depth: usize,
    /// Sequences decoded together
    #[arg(long, value_name = "B", default_value_t = 1, conflicts_with = "sustained", value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Rounds, of which the median counts
    #[arg(short, long, default_value_t = 1, conflicts_with = "sustained", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// No model at hand was trained for a longer context.
const TOKENS_MAX: usize = 1 << 20;

fn tokens(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= TOKENS_MAX).ok_or_else(|| format!("not a number of tokens from 0 to {TOKENS_MAX}"))
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let work = Workload {
        prefill: args.prefill.unwrap_or(512),
        decode: args.decode.unwrap_or(64),
        depth: args.depth,
        batch: args.batch.into(),
        rounds: args.rounds.into(),
    };
    if let Some([a, b]) = args.compare.as_deref() {
        let comparison = compare(&read(a)?, &read(b)?);
        if args.json {
            println!("{}", serde_json::to_string(&comparison)?);
        } else {
            print!("{}", comparison.table());
        }
        return Ok(());
    }
    if args.heat.is_simulated() {
        return sustained::simulate(&args.heat, [args.prefill, args.decode], args.json);
    }
    let chosen = args.options.0.context("a model is needed: -m FILE")?;
    if args.heat.sustained {
        return sustained::measure(&args.heat, &chosen, [args.prefill, args.decode], args.json);
    }
    let need = work.depth + work.prefill + work.decode;
    if let Some(context) = chosen.context.filter(|context| (*context as usize) < need) {
        eprintln!("hearth: --ctx {context} has no room for {need} tokens (--depth, -p and -n together); room for these is made");
    }
    // Without --ctx just room enough.
    let options = chosen.load_options(chosen.context.unwrap_or(0) as usize, work.batch);
    let progress = Progress::new("measuring");
    let speed = speed::measure(&chosen.model, chosen.backend.into(), options, &work, |done, all| progress.at(done, all))?;
    drop(progress);
    if args.json {
        println!("{}", serde_json::to_string(&speed).context("the result as JSON")?);
        return Ok(());
    }
    let threads = match (speed.prefill_threads, speed.decode_threads) {
        (prefill, decode) if prefill == decode => threads_words(decode),
        (prefill, decode) => format!("{} in prefill, {decode} in decode", threads_words(prefill)),
    };
    println!("{}  {}  {threads}", chosen.model.display(), speed.backend);
    println!("  prefill {:>5} tokens  {:>9.1} tok/s", speed.prefill_tokens, speed.prefill_tok_s);
    let together = if speed.batch > 1 { format!("  ({} sequences together)", speed.batch) } else { String::new() };
    println!(
        "  decode  {:>5} tokens  {:>9.2} tok/s{together}   {:.1} GB/s of file",
        speed.decode_tokens, speed.decode_tok_s, speed.read_gb_s
    );
    println!(
        "  loaded in {:.0} ms, first token after {:.0} ms, peak memory {:.0} MiB, file in {} pages",
        speed.load_ms,
        speed.first_token_ms,
        speed.peak_rss_bytes as f64 / 1048576.0,
        if speed.huge_pages { "huge" } else { "small" }
    );
    println!("  This is peak speed. `hearth bench --sustained` tells what heat leaves of it.");
    Ok(())
}
