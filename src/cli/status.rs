//! `hearth status`: what the running daemon is doing.

use super::socket::{SocketArg, block_on, json, text};
use crate::measure::record::threads_words;
use crate::units::Bytes;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: SocketArg,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let status = block_on(status(&args.at.socket))?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{status}")?;
        return Ok(());
    }
    for (name, value) in rows(&status) {
        writeln!(out, "{name:<12} {value}")?;
    }
    Ok(())
}

async fn status(socket: &Path) -> anyhow::Result<Value> {
    let health = json(socket, "/health").await?;
    let state = health["status"].as_str().or(health["error"]["message"].as_str()).unwrap_or("unknown").to_owned();
    let models = json(socket, "/v1/models").await?;
    let metrics = text(socket, "/metrics").await?;
    let metric = |name: &str| metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
    Ok(json!({
        "state": state,
        "model": models["data"][0],
        "running": metric("hearth_requests{state=\"running\"}"),
        "waiting": metric("hearth_requests{state=\"waiting\"}"),
        "prompt_tokens": metric("hearth_prompt_tokens_total{source=\"computed\"}"),
        "cached_tokens": metric("hearth_prompt_tokens_total{source=\"cached\"}"),
        "generated_tokens": metric("hearth_generated_tokens_total"),
        "resident_bytes": metric("hearth_resident_bytes"),
        "thermal": json(socket, "/v1/thermal").await?,
    }))
}

/// For people; what is not known has no row.
fn rows(status: &Value) -> Vec<(&'static str, String)> {
    let mut rows = vec![("state", status["state"].as_str().unwrap_or_default().to_owned())];
    let count = |name: &str| status[name].as_f64();
    let model = &status["model"];
    if let Some(name) = model["id"].as_str() {
        let meta = &model["meta"];
        let word = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
        let size = Bytes(meta["size"].as_u64().unwrap_or(0)).mebibytes();
        rows.push(("model", format!("{name} ({} {}, {size:.0} MiB)", word("architecture"), word("file_type"))));
        let threads = threads_words(meta["threads"].as_u64().unwrap_or(0) as usize);
        rows.push(("runs on", format!("{} {}, {threads}, context {}", word("backend"), word("device"), meta["n_ctx"])));
    }
    if let (Some(running), Some(waiting)) = (count("running"), count("waiting")) {
        rows.push(("requests", format!("{running} running, {waiting} waiting")));
    }
    if let (Some(prompt), Some(cached), Some(generated)) = (count("prompt_tokens"), count("cached_tokens"), count("generated_tokens")) {
        rows.push(("tokens", format!("{generated} generated; of prompts {prompt} computed, {cached} known from before")));
    }
    if let Some(resident) = count("resident_bytes") {
        rows.push(("memory", format!("{:.0} MiB, the model's file among it", Bytes(resident as u64).mebibytes())));
    }
    let thermal = &status["thermal"];
    if let Some(celsius) = thermal["temperature"].as_f64() {
        rows.push(("temperature", format!("{celsius:.1} °C")));
    }
    if let Some(hertz) = thermal["measured"].as_f64().or(thermal["requested"].as_f64()) {
        rows.push(("clock", format!("{:.2} GHz", hertz / 1e9)));
    }
    if let (Some(level), Some(cause)) = (thermal["level"].as_str(), thermal["cause"].as_str()) {
        let is_blind_born = level == "blind" && thermal["degraded"] == "";
        rows.push((
            "governor",
            if is_blind_born { "idle: this machine shows no thermometer".to_owned() } else { format!("{level} ({cause})") },
        ));
    }
    if let Some(word) = thermal["degraded"].as_str().filter(|word| !word.is_empty()) {
        rows.push(("held back", held_back(word).to_owned()));
    }
    let decision = &thermal["decision"];
    if let (Some(now), Some(soon)) = (decision["headroom"].as_f64(), decision["in_60_s"]["headroom"].as_f64()) {
        rows.push(("headroom", format!("{now:.2} now, {soon:.2} in a minute; at 1 the board begins to slow down")));
    }
    rows
}

/// What a person makes of a word of `Governor1.Degraded`; a word that is not known here is shown as it is.
fn held_back(word: &str) -> &str {
    match word {
        "high-operating-temperature" => "by heat",
        "under-voltage" => "by its supply, whose voltage is too low",
        "power-limit" => "by a limit on its power",
        "stuck-cap" => "by a clock limit that stays though it is cool",
        "sensor-lost" => "no thermometer answers; `hearth board` says why",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_has_no_row() {
        let rows = rows(&json!({"state": "Loading model: 5 %", "model": null, "thermal": null}));
        assert_eq!(rows, [("state", "Loading model: 5 %".to_owned())]);
    }

    #[test]
    fn what_holds_the_board_back_is_said_in_words() {
        let thermal = json!({
            "temperature": 81.25, "measured": 1.5e9, "level": "ride", "cause": "board-throttles-well", "degraded": "high-operating-temperature",
            "decision": {"headroom": 1.02, "in_60_s": {"headroom": 1.1}},
        });
        let rows = rows(&json!({"state": "ok", "model": null, "thermal": thermal}));
        let row = |name: &str| rows.iter().find(|r| r.0 == name).map(|r| r.1.as_str());
        assert_eq!(row("held back"), Some("by heat"));
        assert_eq!(row("headroom"), Some("1.02 now, 1.10 in a minute; at 1 the board begins to slow down"));
        assert_eq!(held_back("aliens"), "aliens");
    }
}
