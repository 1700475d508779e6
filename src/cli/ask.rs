//! `hearth ask`: one question to the running daemon, over its socket or the bus. The answer goes to stdout as it comes, its figures
//! to stderr.

use super::answer::{dim, show};
use super::arguments::{self, Count, Seed};
use super::bus::{BusChoice, Lines};
use super::socket::{Events, SocketArg, block_on};
use anyhow::bail;
use serde_json::{Value, json};

#[derive(clap::Args)]
pub struct Args {
    /// The question; `-` reads it from stdin
    #[arg(required = true, value_name = "QUESTION")]
    question: Vec<String>,
    /// Instructions that come before it
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of the answer; -1: the daemon's bound [default: -1]
    #[arg(short = 'n', long, value_name = "N", value_parser = arguments::count)]
    max_tokens: Option<Count>,
    /// 0 always takes the most likely word [default: the daemon's]
    #[arg(long = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// The same seed gives the same text; -1: another each time [default: -1]
    #[arg(long, value_name = "S", value_parser = arguments::seed)]
    seed: Option<Seed>,
    #[command(flatten)]
    at: SocketArg,
    /// Ask over D-Bus instead
    #[arg(long, value_enum, conflicts_with = "socket")]
    bus: Option<BusChoice>,
}

/// The figures of an answer.
struct Figures {
    generated: u64,
    decode_tok_s: f64,
    prompt: u64,
    cached: u64,
    prefill_tok_s: f64,
    cut: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut question = args.question.join(" ");
    if question == "-" {
        question = arguments::text("stdin", std::io::stdin())?;
    }
    let system = args.system.iter().map(|text| json!({"role": "system", "content": text}));
    let messages: Vec<Value> = system.chain([json!({"role": "user", "content": question})]).collect();
    let mut request = json!({"messages": messages, "stream": true});
    let options = [
        ("max_tokens", json!(args.max_tokens.and_then(|n| n.0))),
        ("temperature", json!(args.temperature)),
        ("seed", json!(args.seed.and_then(|seed| seed.0))),
    ];
    for (name, value) in options {
        request[name] = value;
    }
    let figures = block_on(async {
        match args.bus {
            Some(bus) => over_bus(bus, &request).await,
            None => over_socket(&args, &request).await,
        }
    })?;
    let Some(f) = figures else { bail!("the answer was cut short") };
    let known = if f.cached > 0 { format!(" ({} known)", f.cached) } else { String::new() };
    let cut = if f.cut { ", cut at its limit" } else { "" };
    let Figures { prompt, prefill_tok_s, generated, decode_tok_s, .. } = f;
    let line = format!("[prompt {prompt}{known} at {prefill_tok_s:.1} tok/s, answer {generated} at {decode_tok_s:.1} tok/s{cut}]");
    eprintln!("{}", dim(&line));
    Ok(())
}

async fn over_socket(args: &Args, request: &Value) -> anyhow::Result<Option<Figures>> {
    let mut events = Events::ask(&args.at.socket, "/v1/chat/completions", Some(request)).await?;
    let mut figures = None;
    while let Some(chunk) = events.next().await? {
        let choice = &chunk["choices"][0];
        show(choice["delta"]["content"].as_str().unwrap_or_default())?;
        if let Some(finish) = choice["finish_reason"].as_str() {
            let timings = &chunk["timings"];
            let (count, rate) = (|name: &str| timings[name].as_u64().unwrap_or(0), |name: &str| timings[name].as_f64().unwrap_or(0.0));
            figures = Some(Figures {
                generated: count("predicted_n"),
                decode_tok_s: rate("predicted_per_second"),
                prompt: count("prompt_n") + count("cache_n"),
                cached: count("cache_n"),
                prefill_tok_s: rate("prompt_per_second"),
                cut: finish == "length",
            });
        }
    }
    show("\n")?;
    Ok(figures)
}

async fn over_bus(bus: BusChoice, request: &Value) -> anyhow::Result<Option<Figures>> {
    let mut lines = Lines::chat(bus, request).await?;
    let mut figures = None;
    while let Some(line) = lines.next()? {
        show(line["text"].as_str().unwrap_or_default())?;
        if line["done"] == true {
            let (prompt, decode) = (&line["prompt"], &line["decode"]);
            figures = Some(Figures {
                generated: decode["tokens"].as_u64().unwrap_or(0),
                decode_tok_s: decode["tok_s"].as_f64().unwrap_or(0.0),
                prompt: prompt["tokens"].as_u64().unwrap_or(0),
                cached: prompt["cached"].as_u64().unwrap_or(0),
                prefill_tok_s: prompt["tok_s"].as_f64().unwrap_or(0.0),
                cut: line["reason"] == "length",
            });
        }
    }
    show("\n")?;
    Ok(figures)
}
