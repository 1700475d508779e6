//! `hearth replay`: decides anew on a recorded trace, prints each change of mind with its cause, and says where the two differ.

use crate::governor::replay::{Header, Replayed, Trace, replay};
use crate::measure::record::threads_words;
use anyhow::Context;
use std::fs::File;
use std::io::Read;
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
    let mut bytes = Vec::new();
    let read = File::open(&args.trace).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("{path}: cannot be read"))?;
    anyhow::ensure!(bytes.len() as u64 <= BYTES_MAX, "{path}: more than the {BYTES_MAX} bytes that are read at once; cut the trace");
    let text = String::from_utf8_lossy(&bytes);
    let (mut ticks, mut different) = (0usize, Vec::new());
    let mut last: Option<Replayed> = None;
    let mut out = String::new();
    let Trace { header, cut } = replay(&text, |tick| {
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
        let differ = different.len();
        let answer = serde_json::json!({"source": source, "board": board, "ticks": ticks, "cut_line": cut, "differ": differ, "differing": different});
        println!("{answer}");
    } else {
        print!("{}: {}, {ticks} ticks\n{out}", header.board, header.source);
        println!("{} of {ticks} decisions differ from the record", different.len());
        if let Some(line) = cut {
            println!("line {line}, the last, is cut off and left out");
        }
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
        "{:8.0} s {celsius} °C {clock} MHz  {}, {cap:10}  {} · {}{mark}\n",
        tick.at_s,
        threads_words(limits.threads.into()),
        d.level.word(),
        d.cause.word()
    )
}
