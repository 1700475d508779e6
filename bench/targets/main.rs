//! `make bench`: a row per promised figure, with the figure of the machine at hand. Leaves with 1 where one falls short, and names
//! what it could not measure here.
//!
//! `cargo bench --bench targets [-- GROUP…]` measures some groups only ([`GROUPS`]). Timings mean something on a quiet machine only:
//! the first line tells how busy it was. How fast single kernels are is told by `cargo bench -p hearth-kernels`.
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

const GROUPS: [(&str, Group); 10] = [
    ("types", |b| b.types()),
    ("context", |b| b.context()),
    ("batch", |b| b.batch()),
    ("avx2", |b| b.avx2()),
    ("threads", |b| b.threads()),
    ("small", |b| b.small()),
    ("memory", footprint::memory),
    ("start", footprint::start),
    ("quality", quality::divergence),
    ("arm", arm::instructions),
];
/// Of interleaved measurements, of which the median counts.
const ROUNDS: usize = 3;

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let unknown = words.iter().find(|w| GROUPS.iter().all(|g| g.0 != w.as_str()));
    if let Some(word) = unknown {
        eprintln!("no group `{word}`; there are: {}", GROUPS.map(|g| g.0).join(" "));
        return Ok(ExitCode::from(2));
    }
    print!("{}", machine::text());
    let peer = Peer::find();
    let mut table = Table::default();
    let mut bench = Bench { table: &mut table, peer: peer.as_ref().map_err(String::as_str), threads: machine::cores(), rounds: ROUNDS };
    for (name, group) in GROUPS {
        if !words.is_empty() && !words.iter().any(|w| w == name) {
            continue;
        }
        // What cannot be measured is named, and the others still are.
        if let Err(error) = group(&mut bench) {
            bench.table.skip(name, format!("{error:#}"));
        }
    }
    if words.is_empty() {
        println!("recorded in {}", record::write(&table)?.display());
    }
    Ok(if table.is_short() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
