//! `make bench`: a row per promised figure, with the figure of the machine at hand. Leaves with 1 where one falls short, and names
//! what it could not measure here.
//!
//! `cargo bench --bench targets [-- GROUP…]` measures some groups only ([`GROUPS`]). Timings mean something on a quiet machine only:
//! a row after each group tells how much others used it. Figures are medians of interleaved rounds, with their range.
//!
//! - [`speeds`], [`footprint`], [`quality`], [`arm`]: the groups.
//! - [`hearth`], [`peer`]: those measured · [`machine`]: where · [`table`], [`record`]: what becomes of the figures.

mod arm;
mod footprint;
mod hearth;
mod machine;
mod peer;
mod quality;
mod record;
mod speeds;
mod table;

use peer::Peer;
use speeds::Bench;
use std::process::ExitCode;
use table::Table;

type Group = fn(&mut Bench) -> anyhow::Result<()>;

const GROUPS: [(&str, Group); 12] = [
    ("kernels", |b| b.kernels()),
    ("types", |b| b.types()),
    ("context", |b| b.context()),
    ("batch", |b| b.batch()),
    ("avx2", |b| b.avx2()),
    ("threads", |b| b.threads()),
    ("small", |b| b.small()),
    ("around", |b| b.around()),
    ("memory", footprint::memory),
    ("start", footprint::start),
    ("quality", quality::divergence),
    ("arm", arm::instructions),
];
/// Of interleaved measurements, of which the median counts; `ROUNDS` in the environment says otherwise.
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let unknown = words.iter().find(|w| GROUPS.iter().all(|g| g.0 != w.as_str()));
    if let Some(word) = unknown {
        eprintln!("no group `{word}`; there are: {}", GROUPS.map(|g| g.0).join(" "));
        return Ok(ExitCode::from(2));
    }
    let rounds = match std::env::var("ROUNDS").map(|n| n.parse()) {
        Err(_) => ROUNDS,
        Ok(Ok(rounds)) if rounds > 0 => rounds,
        Ok(_) => {
            eprintln!("ROUNDS must be a number of rounds, at least 1");
            return Ok(ExitCode::from(2));
        }
    };
    print!("{}", machine::text());
    let peer = Peer::find();
    let mut table = Table::default();
    let mut bench = Bench { table: &mut table, peer: peer.as_ref().map_err(String::as_str), threads: machine::cores(), rounds };
    for (name, group) in GROUPS {
        if !words.is_empty() && !words.iter().any(|w| w == name) {
            continue;
        }
        let before = machine::busy();
        // What cannot be measured is named, and the others still are.
        if let Err(error) = group(&mut bench) {
            bench.table.skip(name, format!("{error:#}"));
        }
        // Above a few per cent the figures say less than they seem to.
        bench.table.tell(format!("{name}: processor time that others took meanwhile"), 100.0 * machine::others(&before), "%");
    }
    println!("recorded in {}", record::write(&table, &words)?.display());
    Ok(if table.is_short() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
