//! `hearth bench --sustained` and `--compare`: what heat leaves of the speed, as a table, a record, a series and a picture.

use crate::board::{Identity, Kind, Root, thermal};
use crate::governor::Goal;
use crate::governor::plant::Model as Plant;
use crate::governor::simulate::prior_of;
use crate::measure::record::{self, Record};
use crate::measure::simulated::SimulatedBoard;
use crate::measure::sustained::{Plan, Second, Source, judge, run};
use crate::measure::here::ThisMachine;
use crate::measure::picture;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub struct Options {
    /// Measure what heat leaves: rest until cold, then decode until the speed is steady
    #[arg(long)]
    pub sustained: bool,
    /// Two records (or one, and JSON of llama-bench) side by side
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub compare: Option<Vec<PathBuf>>,
    /// With --sustained: a simulated board (pi5-bare, rk3588-cliff75 …) in place of this machine
    #[arg(long, value_name = "PLANT")]
    simulate: Option<String>,
    /// Temperature of the room, for the record (and for --simulate)
    #[arg(long, value_name = "CELSIUS")]
    room: Option<f32>,
    /// Longest run in minutes
    #[arg(long, default_value_t = 60, value_name = "MIN", value_parser = clap::value_parser!(u16).range(1..=600))]
    minutes: u16,
    /// Longest wait for a cold start in minutes
    #[arg(long, default_value_t = 10, value_name = "MIN", value_parser = clap::value_parser!(u16).range(0..=120))]
    cool: u16,
    /// Case, fan and supply in words, for the record
    #[arg(long, default_value = "")]
    note: String,
    /// Write record (JSON), series (CSV) and picture (SVG, PNG) into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Options {
    /// A simulated board needs no model.
    pub fn is_simulated(&self) -> bool {
        self.simulate.is_some()
    }
}

pub fn compare(files: &[PathBuf]) -> anyhow::Result<()> {
    let entries: Vec<_> = files.iter().map(|f| record::read(f)).collect::<Result<_, _>>()?;
    if let [a, b] = entries.as_slice() {
        print!("{}", record::compare(a, b));
    }
    Ok(())
}

/// Measures a model on this machine; `open` opens it.
pub fn measure(options: &Options, model: &Path, open: impl FnOnce() -> anyhow::Result<ThisMachine>, json: bool) -> anyhow::Result<()> {
    answer(options, this_machine(options, model, open)?, json)
}

/// Measures a simulated board.
pub fn simulate(options: &Options, json: bool) -> anyhow::Result<()> {
    answer(options, simulated(options)?, json)
}

fn answer(options: &Options, (record, hot, trips): Measured, json: bool) -> anyhow::Result<()> {
    if let Some(folder) = &options.out {
        write(folder, &record, &hot, &trips)?;
    }
    if json {
        println!("{}", serde_json::to_string(&record).context("the record as JSON")?);
    } else {
        print!("{}", record.table());
    }
    Ok(())
}

fn plan(options: &Options) -> Plan {
    Plan { cool_s: options.cool as usize * 60, run_s: options.minutes as usize * 60 }
}

type Measured = (Record, Vec<Second>, Vec<(String, f64)>);

fn simulated(options: &Options) -> anyhow::Result<Measured> {
    let name = options.simulate.as_deref().unwrap_or_default();
    let names = || Plant::all().into_iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    let plant = Plant::named(name).with_context(|| format!("no simulated board `{name}`; there are {}", names()))?;
    let room = options.room.unwrap_or(22.0);
    let trips = prior_of(&plant).trip_c.map(|t| ("throttles".to_string(), t as f64)).into_iter().collect();
    let threads = plant.soc.cores as usize;
    let mut board = SimulatedBoard::new(plant, room, Goal::Observe, 1);
    let Ok((cold, hot)) = run(&mut board, plan(options), |_, _| ());
    let record = Record {
        source: Source::Simulated,
        board: name.to_owned(),
        model: "1.2 billion weights, Q4_K_M".into(),
        backend: "simulated".into(),
        threads,
        room_c: Some(room as f64),
        power_place: Some("supply, modelled".into()),
        ..blank(options, &cold, &hot)
    };
    Ok((record, hot, trips))
}

fn this_machine(options: &Options, model: &Path, open: impl FnOnce() -> anyhow::Result<ThisMachine>) -> anyhow::Result<Measured> {
    let plan = plan(options);
    let root = Root::machine();
    let identity = Identity::of(&root);
    let trips = thermal::zones(&root).iter().flat_map(|z| z.trips.clone()).filter(|t| t.kind == "passive").map(|t| (t.kind, t.celsius as f64)).collect();
    let mut machine = open()?;
    let bar = indicatif::ProgressBar::new(plan.run_s as u64)
        .with_style(indicatif::ProgressStyle::with_template("{bar:30} {msg}, at most {eta} left")?);
    bar.enable_steady_tick(Duration::from_secs(2));
    let (cold, hot) = run(&mut machine, plan, |so_far, working| {
        let last = so_far.last().cloned().unwrap_or_default();
        let heat = last.celsius.map_or(String::new(), |c| format!(" {c:.0} °C"));
        if working {
            bar.set_position(so_far.len() as u64);
            bar.set_message(format!("{:.1} tok/s{heat}", last.tokens / last.seconds.max(1e-6)));
        } else {
            bar.set_message(format!("resting until cold:{heat}"));
        }
    })?;
    bar.finish_and_clear();
    let record = Record {
        source: if identity.kind == Kind::Board { Source::Real } else { Source::Pc },
        board: identity.model.clone(),
        kernel: identity.kernel.clone(),
        model: model.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        backend: "cpu".into(),
        threads: machine.threads(),
        power_place: machine.power_place(),
        governor: "none (bench alone)".into(),
        ..blank(options, &cold, &hot)
    };
    Ok((record, hot, trips))
}

fn blank(options: &Options, cold: &[Second], hot: &[Second]) -> Record {
    Record {
        kind: "hearth-sustained".into(),
        version: 1,
        source: Source::Pc,
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        board: String::new(),
        kernel: String::new(),
        note: options.note.clone(),
        room_c: options.room.map(f64::from),
        model: String::new(),
        threads: 0,
        backend: String::new(),
        governor: "observe".into(),
        power_place: None,
        figures: judge(cold, hot),
    }
}

fn write(folder: &Path, record: &Record, hot: &[Second], trips: &[(String, f64)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let put = |ending: &str, bytes: &[u8]| {
        let path = folder.join(format!("{}.{ending}", record.file_stem()));
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
    };
    put("json", serde_json::to_string_pretty(record)?.as_bytes())?;
    put("csv", record::csv(hot).as_bytes())?;
    let svg = picture::svg(record, hot, trips)?;
    put("svg", svg.as_bytes())?;
    let (png, has_words) = picture::png(&svg)?;
    put("png", &png)?;
    if !has_words {
        eprintln!("no font on this machine, so the PNG has no words; the SVG has");
    }
    eprintln!("record, series and picture are in {}", folder.display());
    Ok(())
}
