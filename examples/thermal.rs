//! `cargo run --release --example thermal`: what the governor promises against the simulator, a row a target; exits 1 when one is SHORT.
//! `--draws N` paired draws a cell (default 8), `--seed K` where their seeds begin (default 1), `--every` a row for each plant, room and
//! load. All figures are simulated. A row marked `bound` has a target that no constant setting reaches: it is held to what one does.

use hearth::measure::thermal::{Row, Seeds, Verdict, gains, harmless, insight};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let every = args.iter().any(|a| a == "--every");
    let number = |name: &str, default| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)?.parse().ok()).unwrap_or(default);
    let seeds = Seeds { first: number("--seed", 1).max(1), draws: number("--draws", 8) };
    println!(
        "SIMULATED, no board was measured. Baseline: the board's own throttle with the thread count that was best with other noise, same room,"
    );
    println!("same start; 45 min from cold, the last 15 counted (where a skin throttles, which swings for minutes: 2 h, the last 90 min).");
    println!("Where the kernel's step_wise throttles, whose ladder wanders by itself, a plant as written is the mean of four noises.");
    let (first, draws) = (seeds.first, seeds.draws);
    println!(
        "[10 % … 90 %] over {draws} paired draws of everything uncertain, seeds {first} and on; the plants as written with noise {first}.\n"
    );
    let mut short = 0;
    let mut show = |title: &str, rows: Vec<Row>| {
        println!("{title}");
        for row in rows {
            short += usize::from(row.verdict == Verdict::Short);
            println!("{row}");
        }
        println!();
    };
    show("Never worse than the board alone", harmless::rows(&seeds, every));
    show("Better where the board's own throttle is bad, or the air is cool", gains::rows(&seeds));
    show("As good as the best constant setting, by exhaustive search", gains::against_best_constant(&seeds));
    show("What it knows", [insight::verdicts(&seeds), insight::forecasts(&seeds), insight::faults(), insight::price()].concat());
    println!("{}", if short == 0 { "all targets reached".to_string() } else { format!("{short} rows SHORT") });
    ExitCode::from(u8::from(short > 0))
}
