//! `hearth run`: one answer, or a chat in the terminal. The answer goes to stdout, everything else to stderr.

use super::answer::{dim, show};
use super::arguments::{self, Count, Seed};
use super::model_options::ModelOptions;
use super::socket::runtime;
use crate::backend::Progress;
use crate::service::{Answer, ChatRequest, CompletionRequest, Done, Error, Event, Finish, Generation, Model, Options, Prompt, Timings};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: ModelOptions,
    /// Answer this and end; `-` reads it from stdin [default: chat in the terminal]
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on from the text as it is, without the chat template
    #[arg(long, requires = "prompt")]
    raw: bool,
    /// Print one JSON object
    #[arg(long, requires = "prompt")]
    json: bool,
    /// Let the model think aloud first, if it can
    #[arg(long)]
    think: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
}

#[derive(clap::Args)]
struct SamplingArgs {
    /// Most tokens of an answer; -1: as many as the context holds [default: -1]
    #[arg(short = 'n', long, value_name = "N", value_parser = arguments::count)]
    max_tokens: Option<Count>,
    /// 0 always takes the most likely word [default: 0.8]
    #[arg(long = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// Choose among so many of the most likely words; 0 or -1: all [default: 40]
    #[arg(long, value_name = "K", value_parser = arguments::count)]
    top_k: Option<Count>,
    /// Choose among the most likely words that together reach this probability [default: 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Leave out words less likely than this fraction of the most likely [default: 0.05]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make recent words less likely; 1: don't [default: 1]
    #[arg(long, value_name = "X")]
    repeat_penalty: Option<f32>,
    /// The same seed gives the same text; -1: another each time [default: -1]
    #[arg(long, value_name = "S", value_parser = arguments::seed)]
    seed: Option<Seed>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on past the model's own end
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    fn generation(&self) -> Generation {
        Generation {
            max_tokens: self.max_tokens.and_then(|n| n.0),
            temperature: self.temperature,
            top_k: self.top_k.map(|k| k.0.unwrap_or(0)),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed.and_then(|seed| seed.0),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            ..Generation::default()
        }
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let options = Options {
        backend: args.options.backend.into(),
        threads: args.options.threads(),
        remember: crate::backend::cache_folder(),
        context: args.options.context.map(|n| n as usize),
        kv: args.options.kv.into(),
        sequences: 1,
        ..Options::default()
    };
    let bar = LoadBar::new();
    let model = Model::open(&args.options.model, &options, &bar)?;
    bar.0.finish_and_clear();
    runtime()?.block_on(async {
        match &args.prompt {
            Some(text) => one(&args, &model, text).await,
            None => Chat::new(&args, &model).talk().await,
        }
    })
}

/// One prompt, one answer.
async fn one(args: &Args, model: &Model, text: &str) -> anyhow::Result<()> {
    let mut text = text.to_owned();
    if text == "-" {
        text = arguments::text("stdin", std::io::stdin())?;
    }
    let generation = args.sampling.generation();
    let answer = if args.raw || !model.has_template() {
        if !args.raw {
            eprintln!("This model has no chat template: it goes on from the text as it is (as with --raw).");
        }
        model.complete(CompletionRequest { prompt: Prompt::Text(text), generation })?
    } else {
        let messages = system(args).into_iter().chain([json!({"role": "user", "content": text})]).collect();
        model.chat(ChatRequest { messages, thinking: Some(args.think), generation, ..ChatRequest::default() })?
    };
    let mut screen = Screen::new(!args.json);
    let done = tokio::select! {
        done = screen.show(answer) => done?,
        _ = tokio::signal::ctrl_c() => return Err(Error::Cancelled.into()),
    };
    if args.json {
        let mut out = json!({
            "text": screen.content,
            "tokens": done.tokens,
            "prompt_tokens": done.usage.prompt_tokens,
            "finish_reason": done.finish.word(),
            "prefill_tok_s": done.timings.prefill_tok_s,
            "decode_tok_s": done.timings.decode_tok_s,
        });
        if !screen.reasoning.is_empty() {
            out["reasoning"] = json!(screen.reasoning);
        }
        writeln!(std::io::stdout(), "{out}")?;
        return Ok(());
    }
    writeln!(std::io::stdout())?;
    tell(&done);
    Ok(())
}

fn system(args: &Args) -> Option<Value> {
    args.system.as_ref().map(|text| json!({"role": "system", "content": text}))
}

/// A conversation in the terminal, or with lines from a pipe.
struct Chat<'a> {
    args: &'a Args,
    model: &'a Model,
    messages: Vec<Value>,
}

const HELP: &str = "  /reset  begin anew        /exit (or Ctrl-D)  leave\n  /help   this              Ctrl-C             stop the answer";

impl<'a> Chat<'a> {
    fn new(args: &'a Args, model: &'a Model) -> Self {
        Self { args, model, messages: system(args).into_iter().collect() }
    }

    async fn talk(&mut self) -> anyhow::Result<()> {
        let info = self.model.info();
        eprintln!("{}  {} {}  on {} {}, context {}", info.name, info.architecture, info.file_type, info.backend, info.device, info.context);
        if !self.model.has_template() {
            eprintln!("This model has no chat template and may not know how to chat; -p TEXT has it go on from a text.");
        }
        eprintln!("{HELP}");
        let asks = std::io::stdin().is_terminal();
        let mut lines = lines();
        loop {
            if asks {
                eprint!("> ");
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = tokio::signal::ctrl_c() => None,
            };
            match line.transpose().context("stdin")?.as_deref().map(str::trim) {
                None | Some("/exit" | "/quit") => {
                    if asks {
                        eprintln!();
                    }
                    return Ok(());
                }
                Some("") => {}
                Some("/help") => eprintln!("{HELP}"),
                Some("/reset") => {
                    self.messages = system(self.args).into_iter().collect();
                    eprintln!("A new conversation.");
                }
                Some(unknown) if unknown.starts_with('/') && !unknown.contains(' ') => {
                    eprintln!("There is no {unknown}; /help shows what there is.")
                }
                Some(text) => self.turn(text).await?,
            }
        }
    }

    async fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        self.messages.push(json!({"role": "user", "content": text}));
        let request = ChatRequest {
            messages: self.messages.clone(),
            thinking: Some(self.args.think),
            generation: self.args.sampling.generation(),
            ..ChatRequest::default()
        };
        let answer = match self.model.chat(request) {
            Ok(answer) => answer,
            Err(error) => {
                self.messages.pop();
                eprintln!("{error}");
                if matches!(error, Error::ContextFull { .. }) {
                    eprintln!("/reset begins anew.");
                }
                return Ok(());
            }
        };
        let mut screen = Screen::new(true);
        let done = tokio::select! {
            done = screen.show(answer) => Some(done?),
            _ = tokio::signal::ctrl_c() => None,
        };
        writeln!(std::io::stdout())?;
        match done {
            Some(done) => tell(&done),
            None => eprintln!("(stopped)"),
        }
        // What was said stays said, also when it was cut short.
        self.messages.push(json!({"role": "assistant", "content": screen.content}));
        Ok(())
    }
}

/// Lines of stdin, read on a thread of their own so that Ctrl-C is heard meanwhile. Ends at the end of input.
fn lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Shows an answer as it comes, and keeps its text.
struct Screen {
    shows: bool,
    bar: ProgressBar,
    content: String,
    reasoning: String,
}

impl Screen {
    fn new(shows: bool) -> Self {
        Self { shows, bar: ProgressBar::hidden(), content: String::new(), reasoning: String::new() }
    }

    async fn show(&mut self, mut answer: Answer) -> anyhow::Result<Done> {
        while let Some(event) = answer.next().await {
            match event? {
                Event::Prefill { cached, done, total } => self.progress(cached, done, total),
                Event::Content { text, .. } => {
                    self.bar.finish_and_clear();
                    if self.shows {
                        show(&text)?;
                    }
                    self.content.push_str(&text);
                }
                Event::Reasoning(text) => {
                    self.bar.finish_and_clear();
                    if self.shows {
                        eprint!("{}", dim(&text));
                    }
                    self.reasoning.push_str(&text);
                }
                Event::ToolCall { name, .. } => eprint!("{}", dim(&format!("{name} "))),
                Event::ToolArguments { text, .. } => eprint!("{}", dim(&text)),
                Event::Done(done) => {
                    self.bar.finish_and_clear();
                    return Ok(done);
                }
            }
        }
        anyhow::bail!("the answer has no end")
    }

    /// A line for prompts that take long; the first two seconds show nothing.
    fn progress(&mut self, cached: usize, done: usize, total: usize) {
        if done == cached {
            let style = ProgressStyle::with_template("reading the prompt {bar:30} {pos}/{len} tokens, {eta} left");
            self.bar = slow_bar(total as u64, style);
            self.bar.set_position(cached as u64);
            self.bar.reset_eta();
        } else {
            self.bar.set_position(done as u64);
        }
    }
}

/// A progress line that appears when something takes longer than two seconds. Hidden where stderr is no terminal.
fn slow_bar(total: u64, style: Result<ProgressStyle, indicatif::style::TemplateError>) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr_with_hz(2));
    bar.enable_steady_tick(Duration::from_secs(2));
    bar
}

/// A line about the last answer.
fn tell(done: &Done) {
    let Timings { prefill_tok_s, decode_tok_s, .. } = done.timings;
    let usage = &done.usage;
    let known = if usage.cached_tokens > 0 { format!(" ({} known)", usage.cached_tokens) } else { String::new() };
    let cut = if done.finish == Finish::Length { ", cut at its limit" } else { "" };
    let line = format!(
        "[prompt {}{known} at {prefill_tok_s:.1} tok/s, answer {} at {decode_tok_s:.1} tok/s{cut}]",
        usage.prompt_tokens, usage.completion_tokens
    );
    eprintln!("{}", dim(&line));
}

/// Shows how far a model is loaded.
struct LoadBar(ProgressBar);

impl LoadBar {
    fn new() -> Self {
        Self(slow_bar(0, ProgressStyle::with_template("loading {bar:30} {bytes}/{total_bytes}, {eta} left")))
    }
}

impl Progress for LoadBar {
    fn loaded(&self, done: u64, total: u64) -> bool {
        self.0.set_length(total);
        self.0.set_position(done);
        true
    }
}
