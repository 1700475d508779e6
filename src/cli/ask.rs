//! `hearth ask`: one question to the running daemon. The answer goes to stdout as it comes, its figures to stderr.

use super::socket::{Events, SocketArg, block_on};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};

#[derive(clap::Args)]
pub struct Args {
    /// The question; `-` reads it from stdin
    #[arg(required = true, value_name = "QUESTION")]
    question: Vec<String>,
    /// Instructions that come before it
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of the answer [default: the daemon's]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 always takes the most likely word [default: the daemon's]
    #[arg(long = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    #[command(flatten)]
    at: SocketArg,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut question = args.question.join(" ");
    if question == "-" {
        question.clear();
        std::io::stdin().read_to_string(&mut question).context("stdin")?;
    }
    let system = args.system.iter().map(|text| json!({"role": "system", "content": text}));
    let messages: Vec<Value> = system.chain([json!({"role": "user", "content": question})]).collect();
    let mut request = json!({"messages": messages, "stream": true, "stream_options": {"include_usage": true}});
    let options = [("max_tokens", json!(args.max_tokens)), ("temperature", json!(args.temperature)), ("seed", json!(args.seed))];
    for (name, value) in options {
        request[name] = value;
    }
    block_on(async {
        let mut events = Events::ask(&args.at.socket, "/v1/chat/completions", Some(&request)).await?;
        let mut out = std::io::stdout().lock();
        let (mut timings, mut finish) = (Value::Null, Value::Null);
        while let Some(chunk) = events.next().await? {
            let choice = &chunk["choices"][0];
            if let Some(text) = choice["delta"]["content"].as_str() {
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            if !choice["finish_reason"].is_null() {
                (timings, finish) = (chunk["timings"].clone(), choice["finish_reason"].clone());
            }
        }
        writeln!(out)?;
        if finish.is_null() {
            bail!("the answer was cut short");
        }
        tell(&timings, finish == "length");
        Ok(())
    })
}

fn tell(timings: &Value, cut: bool) {
    let number = |name: &str| timings[name].as_f64().unwrap_or(0.0);
    eprintln!(
        "[{} tokens at {:.1} tok/s; question: {} tokens at {:.1} tok/s, {} known from before{}]",
        number("predicted_n"),
        number("predicted_per_second"),
        number("prompt_n"),
        number("prompt_per_second"),
        number("cache_n"),
        if cut { "; cut at the limit" } else { "" },
    );
}
