//! `hearth replay`: decides anew on a recorded trace, prints each change of mind with its cause, and says where the two differ.

use crate::governor::replay::{Header, Replayed, replay};
use anyhow::Context;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// A trace recorded by hearthd (JSON lines)
    trace: PathBuf,
    /// Print every tick, not only the changes
    #[arg(long)]
    all: bool,
    /// One JSON object: counts and the ticks that differ from the record
    #[arg(long)]
    json: bool,
}

/// Traces longer than this are refused: a day at one tick a second is 170 MB.
const BYTES_MAX: u64 = 512 << 20;

pub fn run(args: Args) -> anyhow::Result<()> {
    let path = args.trace.display();
    let bytes = std::fs::metadata(&args.trace).with_context(|| format!("{path}: cannot be read"))?.len();
    anyhow::ensure!(bytes <= BYTES_MAX, "{path}: {bytes} bytes are more than the {BYTES_MAX} that are read at once; cut the trace");
    let text = std::fs::read_to_string(&args.trace).with_context(|| format!("{path}: cannot be read"))?;
    let (mut ticks, mut different) = (0usize, Vec::new());
    let mut last: Option<Replayed> = None;
    let mut out = String::new();
    let header = replay(text.lines(), |tick| {
        ticks += 1;
        let news = last.as_ref().is_none_or(|l| {
            (l.decided.level, l.decided.cause, l.decided.degraded) != (tick.decided.level, tick.decided.cause, tick.decided.degraded)
        });
        let differs = tick.recorded != tick.decided;
        if !args.json && (args.all || news || differs) {
            out += &line(&tick, differs);
        }
        if differs {
            different.push(tick.clone());
        }
        last = Some(tick);
    })
    .with_context(|| format!("{path}"))?;
    if args.json {
        let Header { source, board, .. } = header;
        let answer =
            serde_json::json!({ "source": source, "board": board, "ticks": ticks, "differ": different.len(), "differing": different });
        println!("{answer}");
    } else {
        print!("{}: {}, {ticks} ticks\n{out}", header.board, header.source);
        println!("{} of {ticks} decisions differ from the record", different.len());
    }
    Ok(())
}

fn line(tick: &Replayed, differs: bool) -> String {
    let d = &tick.decided;
    let limits = d.limits(tick.seen.phase);
    let celsius = tick.seen.soc.map_or("    –".into(), |t| format!("{:5.1}", t.value.0));
    let clock = tick.seen.measured.map_or("   –".into(), |f| format!("{:4.0}", f.value.megahertz()));
    let cap = limits.cap.map_or("free".into(), |f| format!("≤{:.0} MHz", f.megahertz()));
    let mark = if differs { "  (the record says otherwise)" } else { "" };
    format!(
        "{:8.0} s {celsius} °C {clock} MHz  {} threads, {cap:10}  {} · {}{mark}\n",
        tick.at_s,
        limits.threads,
        d.level.word(),
        d.cause.word()
    )
}
