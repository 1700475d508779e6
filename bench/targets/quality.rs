//! What Hearth's arithmetic costs in quality, beside what llama.cpp's costs: the divergence from exact products on the same file.

use crate::hearth::{HEARTH, output};
use crate::speeds::Bench;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prose written for this, so that no model has seen it.
const TEXT: &str = "bench/text.txt";
/// Positions compared: each costs a run of the peer.
const POSITIONS: usize = 24;
/// Tokens from a position to the next.
const STRIDE: usize = 19;

pub fn divergence(bench: &mut Bench) -> anyhow::Result<()> {
    for (name, variable) in [("SmolLM2-135M Q4_1", "HEARTH_SMOLLM2"), ("gemma-3-270m Q4_K_M", "HEARTH_GEMMA3")] {
        let title = format!("{name}: divergence from exact, times llama.cpp's");
        match (bench.peer, std::env::var_os(variable)) {
            (Err(why), _) => bench.table.skip(title, why),
            (_, None) => bench.table.skip(title, format!("set {variable} to its path")),
            (Ok(peer), Some(model)) => {
                let model = PathBuf::from(model);
                let ids = tokens(&model)?;
                let (mut ours, mut theirs) = (0.0, 0.0);
                for position in 1..=POSITIONS.min(ids.len() / STRIDE) {
                    let prompt = ids[..position * STRIDE].join(",");
                    let exact = logits(&model, &prompt, &["--exact", "--kv", "f32"])?;
                    ours += kl(&exact, &logits(&model, &prompt, &[])?);
                    theirs += kl(&exact, &peer.logits(&model, &prompt)?);
                }
                bench.table.at_most(title, ours / theirs, 1.0, "×");
            }
        }
    }
    Ok(())
}

fn tokens(model: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(TEXT))?;
    let mut line = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut line, serde_json::to_string(&text)?.as_bytes())?;
    let mut command = Command::new(HEARTH);
    command.args(["tokenize", "--jsonl", "-m"]).arg(model).stdin(line.reopen()?);
    let ids: Vec<u32> = serde_json::from_str(&output(&mut command)?)?;
    Ok(ids.iter().map(u32::to_string).collect())
}

fn logits(model: &Path, tokens: &str, options: &[&str]) -> anyhow::Result<Vec<f64>> {
    let mut command = Command::new(HEARTH);
    command.args(["logits", "--json", "--tokens", tokens, "-m"]).arg(model).args(options);
    let json: Value = serde_json::from_str(&output(&mut command)?)?;
    Ok(serde_json::from_value(json["logits"].clone())?)
}

/// Σ p·ln(p/q) of the two softmaxes.
fn kl(p: &[f64], q: &[f64]) -> f64 {
    let log_softmax = |x: &[f64]| {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| x - largest - sum.ln()).collect::<Vec<_>>()
    };
    log_softmax(p).iter().zip(log_softmax(q)).map(|(p, q)| p.exp() * (p - q)).sum()
}
