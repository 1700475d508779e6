//! `hearth perplexity`: how well a model knows a text, and how far its arithmetic strays from a reference.

use super::arguments;
use super::model_options::ModelOptions;
use super::progress::Progress;
use crate::backend::{KvType, LoadOptions};
use crate::measure::quality;
use crate::measure::session::Session;
use crate::tokenizer::{Options, Tokenizer};
use anyhow::{Context, bail};
use std::fs::File;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: ModelOptions,
    /// The text, UTF-8
    #[arg(short, long, value_name = "TEXT")]
    file: PathBuf,
    /// A second model to diverge from; `exact`: the same file with exact products and an F32 cache
    #[arg(long, value_name = "FILE2|exact")]
    reference: Option<PathBuf>,
    /// Exact products for the model itself: activations stay F32
    #[arg(long)]
    exact: bool,
    /// Stop after this many windows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let context = args.options.context.unwrap_or(512) as usize;
    if context < 4 {
        bail!("--ctx must be at least 4, so that half a window is left to count");
    }
    let path = args.file.display().to_string();
    let text = arguments::text(&path, File::open(&args.file).with_context(|| path.clone())?)?;

    let base = args.options.load_options(context, 1);
    let kind = args.options.backend.into();
    let mut model = Session::open(&args.options.model, kind, LoadOptions { exact: args.exact, ..base.clone() }, 1, &())?;
    let exact = LoadOptions { exact: true, kv: KvType::F32, ..base.clone() };
    let mut reference = match &args.reference {
        None => None,
        Some(same) if same.as_os_str() == "exact" => Some(Session::open(&args.options.model, kind, exact, 1, &())?),
        Some(other) => Some(Session::open(other, kind, base, 1, &())?),
    };

    let tokenizer = Tokenizer::from_gguf(&model.file)?;
    let mut tokens = tokenizer.encode(&text, Options { add_special: false, parse_special: false });
    // What begins an empty text begins every window.
    let first = tokenizer.encode("", Options { add_special: true, parse_special: false }).first().copied();
    if let Some(windows) = args.windows {
        tokens.truncate(windows as usize * (context - usize::from(first.is_some())));
    }

    let progress = Progress::new("perplexity");
    let quality =
        quality::measure(&mut model, reference.as_mut(), &tokens, first, context, |done, all| progress.at(done as u64, all as u64))?;
    drop(progress);

    if args.json {
        println!("{}", serde_json::to_string(&quality)?);
        return Ok(());
    }
    println!("perplexity {:.4} over {} tokens in windows of {context}", quality.ppl, quality.tokens);
    if let (Some(ppl), Some(mean), Some(p99), Some(same)) =
        (quality.reference_ppl, quality.kld_mean, quality.kld_p99, quality.top1_agreement)
    {
        println!(
            "reference  {ppl:.4}; divergence {mean:.6} on average, {p99:.6} at the 99th percentile; {:.2} % same first choice",
            same * 100.0
        );
    }
    Ok(())
}
