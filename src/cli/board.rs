//! `hearth board`: what this board is and what its sensors say; `capture` writes a tree to send, `release` gives a capped clock back,
//! `play` plays a board.

use crate::board::poll::{DEADLINE, EVERY, Latest, Poll};
use crate::board::tree::Tree;
use crate::board::{Identity, Kind, Root, Sense, What, capture, lever, nvidia, sources, thermal};
use crate::governor::profile::Profile;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// A captured tree, file or folder, in place of this machine
    #[arg(long, global = true, default_value = "/")]
    root: PathBuf,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Write what describes this board: names, trips, clock tables, one reading of each sensor; no serial numbers
    Capture {
        /// A name that ends in `.tree` becomes one text file to send, any other a folder; it must not exist yet
        to: PathBuf,
        /// Case, fan and supply in words
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Play a board that is not there: the load of a process heats it, and a daemon can run on its files
    Play(super::play::Args),
    /// Give back the clock that a daemon which is gone has left capped
    Release {
        #[arg(long, default_value = "/run/hearth/clock-cap")]
        kept: PathBuf,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let root = Root::open(&args.root)?;
    match args.verb {
        None => show(&root, args.json),
        Some(Verb::Capture { to, note }) => save(&capture::capture(&root, note.lines().map(str::to_owned).collect()), &to),
        Some(Verb::Play(args)) => super::play::run(args),
        Some(Verb::Release { kept }) => {
            let written = lever::release(&root, &kept)?;
            println!("{written} clock {} given back", if written == 1 { "cap" } else { "caps" });
            Ok(())
        }
    }
}

fn save(tree: &Tree, to: &Path) -> anyhow::Result<()> {
    if tree.files.is_empty() {
        bail!("nothing here describes a board");
    }
    let unwritten = || format!("{}: cannot be written", to.display());
    let unread = if tree.unread.is_empty() { String::new() } else { format!(", {} could not be read and are listed", tree.unread.len()) };
    if to.extension().is_some_and(|e| e == "tree") {
        use std::io::Write;
        let mut file = std::fs::File::create_new(to).with_context(unwritten)?;
        file.write_all(tree.text().as_bytes()).with_context(unwritten)?;
        println!("{}: {} files{unread}; look it through and send it", to.display(), tree.files.len());
    } else {
        std::fs::create_dir(to).with_context(unwritten)?;
        tree.unpack(to)?;
        println!("{}: {} files; `hearth board --root {}` reads them", to.display(), tree.files.len(), to.display());
    }
    Ok(())
}

/// Everything once: meters that need two looks get them, and what hangs is left behind.
fn look(root: &Root) -> Latest {
    let mut poll = Poll::start(sources(root), EVERY / 4);
    let start = Instant::now();
    let mut all = Latest::default();
    loop {
        let now = Instant::now();
        let latest = poll.latest(now);
        all.notices.extend(latest.notices);
        all.readings = latest.readings;
        // Three times, since a source that fails as often is told of.
        if poll.is_settled(3) || now >= start + 10 * DEADLINE {
            return all;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn show(root: &Root, json: bool) -> anyhow::Result<()> {
    let identity = Identity::of(root);
    let profile = Profile::for_compatible(&identity.compatible).map(|p| p.id);
    let zones = thermal::zones(root);
    let latest = look(root);
    let now = Instant::now();
    let readings = || latest.readings.values().map(|(reading, _)| reading);
    if json {
        let readings: Vec<_> = readings()
            .map(|r| serde_json::json!({ "what": word(&r.what), "value": r.value, "source": r.source, "age_s": latest.value(&r.what, now).map(|v| v.1) }))
            .collect();
        let answer = serde_json::json!({
            "board": identity, "profile": profile, "captured": !root.is_machine(), "zones": zones, "readings": readings,
            "missing": latest.notices,
        });
        println!("{answer}");
        return Ok(());
    }
    let captured = if root.is_machine() { "" } else { "  (a captured tree)" };
    println!("{}{captured}", identity.model);
    let unprofiled = match identity.kind {
        Kind::Board => "none: the governor starts from a general guess and learns",
        Kind::Pc => "none: a PC; the governor watches only",
    };
    println!("  profile   {}", profile.as_deref().unwrap_or(unprofiled));
    println!("  kernel    {}", identity.kernel);
    if let Some(firmware) = &identity.firmware {
        println!("  firmware  {firmware}");
    }
    println!("  memory    {:.1} GiB", identity.memory_bytes as f64 / (1u64 << 30) as f64);
    for c in &identity.clusters {
        let span = c.min_khz.zip(c.max_khz).map_or(String::new(), |(a, b)| format!(", {}–{} MHz", a / 1000, b / 1000));
        println!("  cores     {:?}{span}{}", c.cpus, c.capacity.map_or(String::new(), |c| format!(", capacity {c}")));
    }
    for z in &zones {
        let trips: Vec<String> = z.trips.iter().map(|t| format!("{} {:.0} °C", t.kind, t.celsius)).collect();
        println!("  zone      {} ({}) {}", z.kind, z.policy, trips.join(", "));
    }
    for r in readings() {
        let why = if let What::GpuThrottle(_) = r.what { nvidia::words(r.value as u64) } else { "" };
        let why = if why.is_empty() { String::new() } else { format!(": slowed by {why}") };
        println!("  {:30} {:>16.3}  {}{why}", word(&r.what), r.value, r.source);
    }
    if latest.readings.is_empty() {
        println!("  no sensor: heat is not seen here");
    }
    let sense = Sense::of(&latest, now, &identity.working_policies());
    if let Some(why) = sense.slowed.map(|s| s.word()).filter(|w| !w.is_empty()) {
        println!("  slowed by {why}");
    }
    if sense.fan_failed {
        println!("  the fan is told to turn and does not, or not yet");
    }
    for notice in &latest.notices {
        println!("  not read: {notice}");
    }
    Ok(())
}

fn word(what: &What) -> String {
    match what {
        What::Temperature(zone) => format!("°C {zone}"),
        What::Room => "°C of the room".into(),
        What::Requested(policy) => format!("Hz asked {policy}"),
        What::Measured(policy) => format!("Hz measured {policy}"),
        What::Device(name) => format!("Hz {name}"),
        What::Power(place) => format!("W {place}"),
        What::Energy(place) => format!("J {place}"),
        What::UnderVoltage => "under-voltage".into(),
        What::ThrottleBits => "throttle bits".into(),
        What::GpuThrottle(name) => format!("throttle reasons {name}"),
        What::Cooling(kind) => format!("cooling {kind}"),
        What::FanLevel => "fan level".into(),
        What::FanSpeed => "fan rpm".into(),
        What::FanDuty => "fan duty".into(),
        What::MemoryPressure => "memory pressure".into(),
        What::CpuPressure => "processor pressure".into(),
        What::IoPressure => "disk pressure".into(),
        What::Busy => "processors busy".into(),
        What::ThrottleCount => "slow-downs counted".into(),
        What::Slowed => "slowing down".into(),
        What::OverCurrent => "too much current".into(),
    }
}
