//! The command `hearth`: one file a verb. stdout is the answer, stderr the rest; `--json` prints one stable object.
//! Exit status: 0 done, 1 refused or failed (one line on stderr), 2 wrong usage.

mod answer;
mod arguments;
mod ask;
mod bench;
mod board;
mod bus;
mod detokenize;
mod inspect;
mod logits;
mod model_options;
mod perplexity;
mod play;
mod progress;
mod render;
mod replay;
mod run;
mod socket;
mod status;
mod sustained;
mod synth;
mod tokenize;
mod top;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Run a language model on a small board, and measure it honestly.
#[derive(Parser)]
#[command(name = "hearth", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Chat with a model in the terminal, or print one answer
    Run(run::Args),
    /// Ask the running daemon one question
    Ask(ask::Args),
    /// Show what the running daemon is doing
    Status(status::Args),
    /// Watch the running daemon: speed, heat, clock, queue
    Top(top::Args),
    /// Measure speed; with --sustained, against heat
    Bench(bench::Args),
    /// Print what a GGUF file holds, without loading it
    Inspect(inspect::Args),
    /// Text to token ids
    Tokenize(tokenize::Args),
    /// Token ids to text
    Detokenize(detokenize::Args),
    /// Render a chat template
    Render(render::Args),
    /// Raw logits after given tokens
    Logits(logits::Args),
    /// Perplexity of a text, and divergence from a reference
    Perplexity(perplexity::Args),
    /// Write a model of random weights in a known shape
    Synth(synth::Args),
    /// What this board is, and what its sensors say
    Board(board::Args),
    /// Repeat the governor's decisions from a recorded trace
    Replay(replay::Args),
}

/// Parses the command line, runs one verb, and turns an error into one line on stderr.
pub fn main() -> ExitCode {
    let command = Command::from_arg_matches(&grammar().get_matches()).unwrap_or_else(|error| error.exit());
    let result = match command.verb {
        Verb::Run(a) => run::run(a),
        Verb::Ask(a) => ask::run(a),
        Verb::Status(a) => status::run(a),
        Verb::Top(a) => top::run(a),
        Verb::Bench(a) => bench::run(a),
        Verb::Inspect(a) => inspect::run(a),
        Verb::Tokenize(a) => tokenize::run(a),
        Verb::Detokenize(a) => detokenize::run(a),
        Verb::Render(a) => render::run(a),
        Verb::Logits(a) => logits::run(a),
        Verb::Perplexity(a) => perplexity::run(a),
        Verb::Synth(a) => synth::run(a),
        Verb::Board(a) => board::run(a),
        Verb::Replay(a) => replay::run(a),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it any more, the status says it.
            _ = writeln!(std::io::stderr(), "hearth: {}", in_a_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// What the command line may say.
fn grammar() -> clap::Command {
    Command::command().mut_subcommands(with_negative_numbers)
}

/// `--temp -1` is a value, right or wrong, and no option that nobody knows.
fn with_negative_numbers(verb: clap::Command) -> clap::Command {
    let verb = verb.mut_args(|a| if a.get_action().takes_values() { a.allow_negative_numbers(true) } else { a });
    verb.mut_subcommands(with_negative_numbers)
}

/// The error and its causes, each said once: many have their cause in their own words already.
fn in_a_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line
}

/// A reader that has seen enough (`hearth inspect … | head`) is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::{grammar, in_a_line};
    use anyhow::Context;

    #[derive(Debug, thiserror::Error)]
    #[error("m.gguf: {source}")]
    struct Named {
        source: std::fmt::Error,
    }

    /// Each option with a value, of each verb, is given a negative number: it is taken or refused as that option's.
    #[test]
    fn a_negative_number_is_a_value_of_the_option_before_it() {
        grammar().debug_assert();
        for verb in grammar().get_subcommands().filter(|verb| !verb.has_subcommands()) {
            for option in verb.get_arguments().filter(|a| a.get_action().takes_values()).filter_map(|a| a.get_long()) {
                let said = ["hearth", verb.get_name(), &format!("--{option}"), "-1"];
                let Err(error) = grammar().try_get_matches_from(said) else { continue };
                let named = error.to_string().contains(&format!("'--{option} <"));
                assert!(named || error.kind() == clap::error::ErrorKind::MissingRequiredArgument, "{said:?}: {error}");
            }
        }
    }

    #[test]
    fn a_cause_is_told_once_whether_the_error_has_its_words_or_not() {
        let cause = std::fmt::Error.to_string();
        let of = |error: anyhow::Error| in_a_line(&error);
        assert_eq!(of(Named { source: std::fmt::Error }.into()), format!("m.gguf: {cause}"));
        let bare: anyhow::Result<()> = Err(std::fmt::Error).context("m.gguf");
        assert_eq!(of(bare.unwrap_err()), format!("m.gguf: {cause}"));
    }
}
