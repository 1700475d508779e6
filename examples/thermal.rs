//! `cargo run --release --example thermal`: what the governor promises against the simulator, a row a target; exits 1 when one is SHORT.
//! `--draws N` paired draws a cell (default 8), `--every` a row for each plant, room and load. All figures are simulated.

use hearth::measure::thermal::{Row, Verdict, gains, harmless, insight};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let every = args.iter().any(|a| a == "--every");
    let draws = args.iter().position(|a| a == "--draws").and_then(|i| args.get(i + 1)?.parse().ok()).unwrap_or(8);
    println!("SIMULATED, no board was measured. Baseline: the board's own throttle with the best static thread count, same room and start;");
    println!("45 min from cold, the last 15 counted (a hard skin cliff, which swings for minutes: 2 h, the last 90 min). [10 % … 90 %] over {draws} paired draws of everything uncertain, seeds 1–{draws}.\n");
    let mut short = 0;
    let mut show = |title: &str, rows: Vec<Row>| {
        println!("{title}");
        for row in rows {
            short += usize::from(row.verdict == Verdict::Short);
            println!("{row}");
        }
        println!();
    };
    show("Never worse than the board alone", harmless::rows(draws, every));
    show("Better where the board's own throttle is bad, or the air is cool", gains::rows(draws));
    show("As good as the best constant setting, by exhaustive search", gains::against_best_constant());
    show("What it knows", [insight::verdicts(), insight::forecasts(), insight::faults(), insight::price()].concat());
    println!("{}", if short == 0 { "all targets reached".to_string() } else { format!("{short} rows SHORT") });
    ExitCode::from(u8::from(short > 0))
}
