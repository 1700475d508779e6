//! `hearth board`: what this board is and what its sensors say; `capture` writes a tree to send, `release` gives a capped clock back.

use crate::board::{Identity, Root, What, capture, lever, sources, thermal};
use crate::governor::profile::Profile;
use anyhow::Context;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// A captured tree in place of this machine
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Copy what describes this board into a new folder: names, trips, clock tables, one reading of each sensor; no serial numbers
    Capture { folder: PathBuf },
    /// Give back the clock that a daemon which is gone has left capped
    Release {
        #[arg(long, default_value = "/run/hearth/clock-cap")]
        kept: PathBuf,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let root = Root::new(&args.root);
    match args.verb {
        None => show(&root, args.json),
        Some(Verb::Capture { folder }) => {
            let count = capture::capture(&root, &folder).with_context(|| format!("{}: cannot be written", folder.display()))?;
            println!("{count} files in {}; pack the folder and send it with a line on case, fan and supply", folder.display());
            Ok(())
        }
        Some(Verb::Release { kept }) => {
            let written = lever::release(&root, &kept)?;
            println!("{written} clock caps given back");
            Ok(())
        }
    }
}

fn show(root: &Root, json: bool) -> anyhow::Result<()> {
    let identity = Identity::of(root);
    let profile = Profile::for_compatible(&identity.compatible).map(|p| p.id);
    let zones = thermal::zones(root);
    let (mut readings, mut missing) = (Vec::new(), Vec::new());
    for mut source in sources(root) {
        match source.read() {
            Ok(found) => readings.extend(found),
            Err(miss) => missing.push(format!("{}: {miss}", source.name())),
        }
    }
    if json {
        let readings: Vec<_> = readings.iter().map(|r| serde_json::json!({ "what": word(&r.what), "value": r.value, "source": r.source })).collect();
        let answer = serde_json::json!({
            "board": identity, "profile": profile, "captured": !root.is_machine(), "zones": zones, "readings": readings, "missing": missing,
        });
        println!("{answer}");
        return Ok(());
    }
    println!("{}", identity.model);
    println!("  profile   {}", profile.as_deref().unwrap_or("none: the governor starts from a general guess and learns"));
    println!("  kernel    {}", identity.kernel);
    println!("  memory    {:.1} GiB", identity.memory_bytes as f64 / (1u64 << 30) as f64);
    for c in &identity.clusters {
        let span = c.min_khz.zip(c.max_khz).map_or(String::new(), |(a, b)| format!(", {}–{} MHz", a / 1000, b / 1000));
        println!("  cores     {:?}{span}{}", c.cpus, c.capacity.map_or(String::new(), |c| format!(", capacity {c}")));
    }
    for z in &zones {
        let trips: Vec<String> = z.trips.iter().map(|t| format!("{} {:.0} °C", t.kind, t.celsius)).collect();
        println!("  zone      {} ({}) {}", z.kind, z.policy, trips.join(", "));
    }
    for r in &readings {
        println!("  {:24} {:>12.3}  {}", word(&r.what), r.value, r.source);
    }
    for miss in missing {
        println!("  not read: {miss}");
    }
    Ok(())
}

fn word(what: &What) -> String {
    match what {
        What::Temperature(zone) => format!("°C {zone}"),
        What::Requested(policy) => format!("Hz asked {policy}"),
        What::Measured(policy) => format!("Hz measured {policy}"),
        What::Power(place) => format!("W {place}"),
        What::UnderVoltage => "under-voltage".into(),
        What::ThrottleBits => "throttle bits".into(),
        What::FanLevel => "fan level".into(),
        What::FanSpeed => "fan rpm".into(),
        What::MemoryPressure => "memory pressure".into(),
        What::ThrottleCount => "throttle events".into(),
    }
}
