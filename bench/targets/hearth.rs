//! Hearth itself, measured through its own commands, each time in a fresh process.

use anyhow::{Context, ensure};
use serde::Deserialize;
use std::path::Path;
use std::process::{Command, Stdio};

pub const HEARTH: &str = env!("CARGO_BIN_EXE_hearth");

/// What `hearth bench --json` says, as far as it is used here.
#[derive(Debug, Deserialize)]
pub struct Speed {
    pub prefill_tok_s: f64,
    pub decode_tok_s: f64,
    pub first_token_ms: f64,
    pub peak_rss_bytes: f64,
    pub device: String,
    /// Whether the file was read through huge pages.
    pub huge_pages: bool,
}

/// How a run differs from `-p 512 -n 64` on all cores.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub prefill: usize,
    pub decode: usize,
    pub depth: usize,
    pub batch: usize,
    pub threads: usize,
    pub kv: &'a str,
    /// `HEARTH_CPU`
    pub tier: Option<&'a str>,
    pub context: Option<usize>,
}

impl Run<'_> {
    pub fn on(threads: usize) -> Run<'static> {
        Run { prefill: 512, decode: 64, depth: 0, batch: 1, threads, kv: "f16", tier: None, context: None }
    }

    pub fn bench(&self, model: &Path) -> anyhow::Result<Speed> {
        let mut command = Command::new(HEARTH);
        command.args(["bench", "--json", "--kv", self.kv, "-m"]).arg(model);
        for (option, value) in
            [("-p", self.prefill), ("-n", self.decode), ("--depth", self.depth), ("--batch", self.batch), ("-t", self.threads)]
        {
            command.args([option, &value.to_string()]);
        }
        if let Some(context) = self.context {
            command.args(["--ctx", &context.to_string()]);
        }
        if let Some(tier) = self.tier {
            command.env("HEARTH_CPU", tier);
        }
        Ok(serde_json::from_str(&output(&mut command)?)?)
    }
}

/// Tokens a second of an answer of `tokens` tokens, sampled, with its text: `hearth run`.
pub fn answer(model: &Path, threads: usize, tokens: usize) -> anyhow::Result<f64> {
    let mut command = Command::new(HEARTH);
    command.args(["run", "--json", "--raw", "-p", "Once upon a time there was a small board that", "--temp", "0.8", "--seed", "7", "-m"]);
    command.arg(model).args(["-t", &threads.to_string(), "-n", &tokens.to_string()]);
    let answer: serde_json::Value = serde_json::from_str(&output(&mut command)?)?;
    answer["decode_tok_s"].as_f64().with_context(|| format!("no decode_tok_s in {answer}"))
}

/// What a command prints; its failure is an error.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", out.status);
    Ok(String::from_utf8(out.stdout)?)
}

/// Between the two in the middle, or the one there.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
