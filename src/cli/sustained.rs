//! `hearth bench --sustained`: what heat leaves of the speed, as a table, a record, a series and a picture.

use super::progress::Progress;
use crate::backend;
use crate::board::{Identity, Kind, Root, thermal};
use crate::gguf::file_type;
use crate::governor::Goal;
use crate::governor::plant::Model as Plant;
use crate::governor::profile::Throttle;
use crate::measure::here::{CYCLE_TOKENS, Opening, PROMPT_TOKENS, ThisMachine};
use crate::measure::picture;
use crate::measure::record::{self, Machine, ModelFacts, Record};
use crate::measure::series::{Second, Source};
use crate::measure::session::Session;
use crate::measure::simulated::SimulatedBoard;
use crate::measure::sustained::{Plan, judge, run};
use crate::measure::versus::{self, Governed, Legs, Versus};
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Options {
    /// Measure what heat leaves: rest until cold, then decode until the speed is steady
    #[arg(long)]
    pub sustained: bool,
    /// With --sustained: a simulated board (pi5-bare, rk3588-cliff75 …) in place of this machine
    #[arg(long, value_name = "PLANT")]
    simulate: Option<String>,
    /// Hearth's governor during the run, on boards (a PC's is always off)
    #[arg(long, value_enum, default_value = "off", value_name = "GOAL")]
    governor: GoalChoice,
    /// Measure the governor against off: eight legs in the order ABBA BAAB
    #[arg(long)]
    against_off: bool,
    /// Length of each of these legs in minutes; five time constants of the board forget how it began
    #[arg(long, default_value_t = 25.0, value_name = "MIN", value_parser = minutes)]
    leg: f64,
    /// Temperature of the room, for the record (and for --simulate)
    #[arg(long, value_name = "CELSIUS")]
    room: Option<f32>,
    /// A thermometer of the room: a file with thousandths of a degree, as 1-wire and hwmon sensors have
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    room_sensor: Option<PathBuf>,
    /// Longest run in minutes; less than the rule's 20 is never called steady
    #[arg(long, default_value_t = 120.0, value_name = "MIN", value_parser = minutes)]
    minutes: f64,
    /// Longest wait for a cold start in minutes
    #[arg(long, default_value_t = 30.0, value_name = "MIN", value_parser = minutes)]
    cool: f64,
    /// Case, fan and supply in words, for the record
    #[arg(long, default_value = "")]
    note: String,
    /// Write record (JSON), series (CSV) and picture (SVG, PNG) into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Minutes of an option: a share of one too, up to ten hours.
fn minutes(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|m| (0.0..=600.0).contains(m)).ok_or_else(|| "not a number of minutes from 0 to 600".into())
}

fn seconds(minutes: f64) -> usize {
    (minutes * 60.0).round() as usize
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum GoalChoice {
    Off,
    Observe,
    Performance,
    Eco,
    Quiet,
}

impl From<GoalChoice> for Goal {
    fn from(choice: GoalChoice) -> Goal {
        match choice {
            GoalChoice::Off => Goal::Off,
            GoalChoice::Observe => Goal::Observe,
            GoalChoice::Performance => Goal::Performance,
            GoalChoice::Eco => Goal::Eco,
            GoalChoice::Quiet => Goal::Quiet,
        }
    }
}

/// What a run gave: the record, the seconds before and during it, and the temperatures worth drawing.
struct Measured {
    record: Record,
    cold: Vec<Second>,
    hot: Vec<Second>,
    trips: Vec<(String, f64)>,
}

impl Options {
    /// A simulated board needs no model.
    pub fn is_simulated(&self) -> bool {
        self.simulate.is_some()
    }

    fn plan(&self) -> Plan {
        Plan { cool_s: seconds(self.cool), run_s: seconds(self.minutes).max(1) }
    }

    fn legs(&self) -> Legs {
        Legs { leg_s: seconds(self.leg).max(2), cool_s: seconds(self.cool) }
    }

    fn governor_word(&self) -> String {
        format!("{:?}", self.governor).to_lowercase()
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.against_off && self.governor == GoalChoice::Off {
            bail!("--against-off needs a --governor other than `off` to measure");
        }
        if let Some(folder) = &self.out {
            std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        }
        Ok(())
    }
}

/// Measures a model on this machine.
pub fn measure(options: &Options, model: &Path, kind: backend::Kind, load: backend::LoadOptions, json: bool) -> anyhow::Result<()> {
    options.check()?;
    answer(options, this_machine(options, model, kind, load)?, json)
}

/// Measures a simulated board.
pub fn simulate(options: &Options, json: bool) -> anyhow::Result<()> {
    options.check()?;
    answer(options, simulated(options)?, json)
}

fn answer(options: &Options, measured: Measured, json: bool) -> anyhow::Result<()> {
    if let Some(folder) = &options.out {
        write(folder, &measured)?;
    }
    if json {
        println!("{}", serde_json::to_string(&measured.record).context("the record as JSON")?);
    } else {
        print!("{}", measured.record.table());
        if options.out.is_none() {
            println!("  (--out FOLDER keeps the record, the series and a picture)");
        }
    }
    Ok(())
}

/// The cold seconds, the hot ones, and the comparison where one was asked for.
type Went = (Vec<Second>, Vec<Second>, Option<Versus>);

/// Both ways to run, on any runner: one run until steady, or eight legs.
fn go<R: Governed<Setting = Goal>>(
    runner: &mut R,
    options: &Options,
    mut tell: impl FnMut(&mut R, usize, &[Second], bool),
) -> Result<Went, R::Error> {
    let goal = options.governor.into();
    if options.against_off {
        let (versus, mut series) = versus::run(runner, [Goal::Off, goal], options.legs(), tell)?;
        let (cold, hot) = series.swap_remove(0);
        return Ok((cold, hot, Some(versus)));
    }
    runner.govern(goal);
    let (cold, hot) = run(runner, options.plan(), |runner, so_far, is_work| tell(runner, 0, so_far, is_work))?;
    Ok((cold, hot, None))
}

fn simulated(options: &Options) -> anyhow::Result<Measured> {
    let name = options.simulate.as_deref().unwrap_or_default();
    let names = || Plant::all().into_iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    let plant = Plant::named(name).with_context(|| format!("no simulated board `{name}`; there are {}", names()))?;
    let room = options.room.unwrap_or(22.0);
    if !(-20.0..=60.0).contains(&room) {
        bail!("--room {room}: a simulated room has −20 to 60 °C");
    }
    let trips = trip(&plant.throttle).map(|t| ("throttles at".to_owned(), f64::from(t))).into_iter().collect();
    let threads = usize::from(plant.soc.cores);
    let mut board = SimulatedBoard::new(plant, room, options.governor.into(), 1);
    let Ok((cold, hot, versus)) = go(&mut board, options, |_, _, _, _| ());
    let model = ModelFacts { file: "a model of 1.2 billion weights".into(), file_type: "Q4_K_M".into(), ..ModelFacts::default() };
    let record = Record {
        source: Source::Simulated,
        board: name.to_owned(),
        machine: Machine { cores: threads, ..Machine::default() },
        model,
        backend: "simulated".into(),
        threads,
        room_c: Some(f64::from(room)),
        power_place: Some("supply (modelled)".into()),
        versus,
        ..blank(options, &cold, &hot)
    };
    Ok(Measured { record, cold, hot, trips })
}

/// Where a simulated board begins to take its clock away; of a skin's own limits the first.
fn trip(throttle: &Throttle) -> Option<f32> {
    match throttle {
        Throttle::Progressive { soft_c, .. } | Throttle::Ladder { soft_c, .. } => Some(*soft_c),
        Throttle::PowerAllocator { target_c, .. } => Some(*target_c),
        Throttle::StepWise { trip_c, .. } | Throttle::Cliff { trip_c, .. } => Some(*trip_c),
        Throttle::Skin { trip_c, .. } => trip_c.first().copied(),
    }
}

fn this_machine(options: &Options, model: &Path, kind: backend::Kind, load: backend::LoadOptions) -> anyhow::Result<Measured> {
    let root = Root::machine();
    let identity = Identity::of(&root);
    let zones = thermal::zones(&root);
    let trips =
        zones.iter().flat_map(|z| z.trips.iter().filter(|t| t.kind == "passive").map(|t| (z.kind.clone(), f64::from(t.celsius)))).collect();
    let sha256 = hash(model)?;
    let room = options.room_sensor.clone().map(thermal::room);
    let mut machine = ThisMachine::open(&root, Opening { path: model, kind, options: load, room }, &Progress::new("loading the model"))?;
    let bar = Progress::new(if options.against_off { "eight legs" } else { "sustained" });
    let (cold, hot, versus) =
        go(&mut machine, options, |machine, leg, so_far, is_work| show(&bar, options, machine, leg, so_far, is_work))?;
    drop(bar);
    let cluster = identity.big();
    let info = machine.session().loaded.info().clone();
    let record = Record {
        source: if identity.kind == Kind::Board { Source::Real } else { Source::Pc },
        board: identity.model.clone(),
        machine: Machine {
            memory_bytes: identity.memory_bytes,
            kernel: identity.kernel.clone(),
            firmware: identity.firmware.clone(),
            clock_governor: cluster.map(|c| c.governor.clone()).unwrap_or_default(),
            cores: identity.clusters.iter().map(|c| c.cpus.len()).sum(),
            device: info.detail.clone(),
        },
        model: facts(model, machine.session(), sha256),
        backend: info.backend.to_owned(),
        threads: info.threads,
        power_place: machine.power_place(),
        governor: if identity.kind == Kind::Board { options.governor_word() } else { "off".into() },
        versus,
        ..blank(options, &cold, &hot)
    };
    Ok(Measured { record, cold, hot, trips })
}

/// The line on stderr: how far, how fast, how warm.
fn show(bar: &Progress, options: &Options, machine: &mut ThisMachine, leg: usize, so_far: &[Second], is_work: bool) {
    for notice in machine.notices() {
        bar.note(&notice);
    }
    let last = so_far.last().cloned().unwrap_or_default();
    let heat = last.celsius.map_or(String::new(), |c| format!(" {c:.0} °C"));
    let length = if options.against_off { options.legs().leg_s } else { options.plan().run_s };
    let done = if is_work { so_far.len() } else { 0 };
    let legs = if options.against_off { 8 } else { 1 };
    bar.at((leg * length + done) as u64, (legs * length) as u64);
    bar.say(match (is_work, last.rate()) {
        (false, _) => format!("resting until cold:{heat}"),
        (true, Some(rate)) if options.against_off => format!("leg {}: {rate:.1} tok/s{heat}", leg + 1),
        (true, Some(rate)) => format!("at most; steady ends it sooner. {rate:.1} tok/s{heat}"),
        (true, None) => heat,
    });
}

/// What is the same wherever a run was.
fn blank(options: &Options, cold: &[Second], hot: &[Second]) -> Record {
    Record {
        kind: record::KIND.into(),
        version: record::VERSION,
        hearth: env!("CARGO_PKG_VERSION").into(),
        source: Source::Pc,
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        board: String::new(),
        machine: Machine::default(),
        note: options.note.clone(),
        room_c: options.room.map(f64::from),
        model: ModelFacts::default(),
        workload: format!(
            "decode of one sequence, begun anew after {CYCLE_TOKENS} tokens with a prompt of {PROMPT_TOKENS}, which is not counted"
        ),
        threads: 0,
        backend: String::new(),
        governor: options.governor_word(),
        power_place: None,
        figures: judge(cold, hot),
        versus: None,
    }
}

fn facts(path: &Path, session: &Session, sha256: String) -> ModelFacts {
    let meta = session.file.meta();
    ModelFacts {
        file: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        architecture: meta.str("general.architecture").unwrap_or_default().to_owned(),
        file_type: meta.u32("general.file_type").map(|id| file_type::name(id).into_owned()).unwrap_or_default(),
        bytes: session.file.bytes(),
        sha256,
    }
}

/// The hash of the model's file (of a split model, its first part): two files of one name are told apart by it.
fn hash(path: &Path) -> anyhow::Result<String> {
    let named = || path.display().to_string();
    let mut file = std::fs::File::open(path).with_context(named)?;
    let all = file.metadata().with_context(named)?.len();
    let progress = Progress::new("hashing the model");
    let (mut hasher, mut buffer, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut buffer).with_context(named)?;
        if read == 0 {
            return Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hasher.update(&buffer[..read]);
        done += read as u64;
        progress.at(done, all);
    }
}

/// Record, series and picture, under a name that no earlier run has.
fn write(folder: &Path, measured: &Measured) -> anyhow::Result<()> {
    let stem = measured.record.file_stem();
    let stem = (1..)
        .map(|n| if n == 1 { stem.clone() } else { format!("{stem}-{n}") })
        .find(|s| !folder.join(format!("{s}.json")).exists())
        .unwrap_or(stem);
    let put = |ending: &str, bytes: &[u8]| {
        let path = folder.join(format!("{stem}.{ending}"));
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
    };
    put("json", (serde_json::to_string_pretty(&measured.record)? + "\n").as_bytes())?;
    put("csv", record::csv(&measured.cold, &measured.hot).as_bytes())?;
    let svg = picture::svg(&measured.record, &measured.hot, &measured.trips)?;
    put("svg", svg.as_bytes())?;
    put("png", &picture::png(&svg)?)?;
    eprintln!("record, series and picture: {}", folder.join(format!("{stem}.{{json,csv,svg,png}}")).display());
    Ok(())
}
