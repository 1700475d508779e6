//! `hearth bench --sustained`: what heat leaves of the speed, as a table, a record, a series and a picture. [`options`] has what may be
//! asked for.

mod options;

pub use options::Options;

use super::model_options::ModelOptions;
use super::progress::Progress;
use crate::board::{Identity, Kind, Miss, Root, Sensor, thermal};
use crate::gguf::{Gguf, file_type};
use crate::governor::Goal;
use crate::governor::plant::Model as Plant;
use crate::governor::profile::Throttle;
use crate::measure::here::{Opening, ThisMachine};
use crate::measure::load::{Load, Turn};
use crate::measure::machine::machine;
use crate::measure::picture;
use crate::measure::record::{self, Machine, ModelFacts, Record};
use crate::measure::series::{Second, Source};
use crate::measure::session::Session;
use crate::measure::simulated::SimulatedBoard;
use crate::measure::sustained::{judge, length_words, run};
use crate::measure::versus::{self, Governed, Versus};
use anyhow::{Context, bail};
use options::LEG_MIN_S;
use sha2::{Digest, Sha256};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a run gave: the record, the seconds before and during it, and the temperatures worth drawing.
struct Measured {
    record: Record,
    cold: Vec<Second>,
    hot: Vec<Second>,
    trips: Vec<(String, f64)>,
}

/// Measures a model on this machine. `lengths`: of prompt and answer, where the caller says them.
pub fn measure(options: &Options, model: &ModelOptions, lengths: [Option<usize>; 2], json: bool) -> anyhow::Result<()> {
    options.check()?;
    let turn = Turn::of(options.load.into(), lengths[0], lengths[1]);
    if let Some(fault) = turn.fault() {
        bail!("{fault}");
    }
    answer(options, this_machine(options, model, turn)?, json)
}

/// Measures a simulated board.
pub fn simulate(options: &Options, lengths: [Option<usize>; 2], json: bool) -> anyhow::Result<()> {
    options.check()?;
    if lengths.iter().any(Option::is_some) {
        bail!("-p and -n: the turns of a simulated board have lengths of their own");
    }
    answer(options, simulated(options)?, json)
}

fn answer(options: &Options, measured: Measured, json: bool) -> anyhow::Result<()> {
    let answer = if json {
        serde_json::to_string(&measured.record).context("the record as JSON")? + "\n"
    } else {
        let hint = if options.out.is_none() { "  (--out FOLDER keeps the record, the series and a picture)\n" } else { "" };
        measured.record.table() + hint
    };
    // Both, whatever becomes of one: a full disk must not take the answer too, nor a closed terminal the record.
    let told = io::stdout().write_all(answer.as_bytes());
    options.out.as_ref().map_or(Ok(()), |folder| write(folder, &measured))?;
    told?;
    if measured.record.figures.cut_short {
        // No success for a script, which may hold it for the whole run.
        bail!("cut short by a signal; what was measured until then is told, and is no sustained figure");
    }
    Ok(())
}

/// What a run or eight legs gave: the seconds of rest and work (of the first leg), and the comparison where one was asked for.
struct Went {
    cold: Vec<Second>,
    hot: Vec<Second>,
    versus: Option<Versus>,
    cut_short: bool,
}

impl Went {
    /// When a run that was cut short was.
    fn when(&self) -> String {
        match &self.versus {
            Some(versus) => format!("in leg {} of 8", versus.legs.len() + 1),
            None => format!("after {}", length_words(self.hot.len())),
        }
    }

    /// Of a run that was cut short: whether there is anything to tell.
    fn is_something(&self) -> anyhow::Result<()> {
        if self.cut_short && self.hot.len() < LEG_MIN_S {
            bail!("cut short by a signal before there were {LEG_MIN_S} s of work: nothing was measured");
        }
        Ok(())
    }
}

/// Both ways to run, on any runner: one run until steady, or eight legs. `stop` set, it ends with what there is.
fn go<R: Governed<Setting = Goal>>(
    runner: &mut R,
    options: &Options,
    stop: &AtomicBool,
    mut tell: impl FnMut(&mut R, usize, &[Second], bool),
) -> Result<Went, R::Error> {
    let mut cut_short = false;
    let mut tell = |runner: &mut R, leg: usize, so_far: &[Second], is_work: bool| {
        tell(runner, leg, so_far, is_work);
        cut_short = stop.load(Ordering::Relaxed);
        if cut_short { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let goal = options.governor.into();
    if options.against_off {
        let (versus, mut series) = versus::run(runner, [Goal::Off, goal], options.legs(), tell)?;
        let (cold, hot) = series.swap_remove(0);
        // A signal in the last second is too late to cut anything.
        let cut_short = cut_short && !versus.is_whole();
        return Ok(Went { cold, hot, versus: Some(versus), cut_short });
    }
    runner.govern(goal);
    let (cold, hot) = run(runner, options.plan(), |runner, so_far, is_work| tell(runner, 0, so_far, is_work))?;
    Ok(Went { cold, hot, versus: None, cut_short })
}

/// Set by the first SIGINT or SIGTERM from now on, or by SIGHUP, when the terminal is closed or the line to it lost; a second of one of them
/// ends the process at once, as it would have without this.
fn stopped_by_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, stop.clone()).context("signals")?;
        flag::register(signal, stop.clone()).context("signals")?;
    }
    Ok(stop)
}

fn simulated(options: &Options) -> anyhow::Result<Measured> {
    let name = options.simulate.as_deref().unwrap_or_default();
    let names = || Plant::all().into_iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    let plant = Plant::named(name).with_context(|| format!("no simulated board `{name}`; there are {}", names()))?;
    let room = options.room.unwrap_or(22.0);
    let trips = trip(&plant.throttle).map(|t| ("throttles at".to_owned(), f64::from(t))).into_iter().collect();
    let threads = usize::from(plant.soc.cores);
    let mut board = SimulatedBoard::new(plant, options.load.into(), room, options.governor.into(), 1);
    let bar = Progress::new("simulating");
    let Ok(went) = go(&mut board, options, &*stopped_by_signal()?, |_, leg, so_far, is_work| {
        let [done, all] = options.progress(leg, so_far, is_work);
        bar.at(done, all);
    });
    drop(bar);
    went.is_something()?;
    let turn = board.turn();
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
        ..blank(options, turn, &went)
    };
    Ok(Measured { record, cold: went.cold, hot: went.hot, trips })
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

fn this_machine(options: &Options, chosen: &ModelOptions, turn: Turn) -> anyhow::Result<Measured> {
    let model = &chosen.model;
    let root = Root::machine();
    let identity = Identity::of(&root);
    options.check_for(identity.kind)?;
    let zones = thermal::zones(&root);
    let trips =
        zones.iter().flat_map(|z| z.trips.iter().filter(|t| t.kind == "passive").map(|t| (z.kind.clone(), f64::from(t.celsius)))).collect();
    // Looked at first: what is no model may have no end to hash.
    drop(Gguf::open(model)?);
    let sha256 = hash(model)?;
    let room = options.room_sensor.as_deref().map(room_sensor).transpose()?;
    // Without --ctx just room enough.
    let load = chosen.load_options(chosen.context.unwrap_or(0) as usize, 1);
    let opening = Opening { path: model, kind: chosen.backend.into(), options: load, turn, room };
    let mut runner = ThisMachine::open(&root, opening, &Progress::new("loading the model"))?;
    let bar = Progress::timed(if options.against_off { "eight legs" } else { "sustained" });
    let stop = stopped_by_signal()?;
    let went = go(&mut runner, options, &stop, |runner, leg, so_far, is_work| show(&bar, options, runner, leg, so_far, is_work))?;
    drop(bar);
    went.is_something()?;
    let info = runner.session().loaded.info().clone();
    let record = Record {
        source: if identity.kind == Kind::Board { Source::Real } else { Source::Pc },
        board: identity.model.clone(),
        machine: machine(&identity, &info),
        model: facts(model, runner.session(), sha256),
        backend: info.backend.to_owned(),
        threads: if turn.load == Load::Prefill { info.prefill_threads } else { info.decode_threads },
        power_place: runner.power_place(),
        governor: if identity.kind == Kind::Board { options.governor_words().0 } else { "off".into() },
        uncapped: runner.uncapped(),
        ..blank(options, turn, &went)
    };
    Ok(Measured { record, cold: went.cold, hot: went.hot, trips })
}

/// A thermometer of the room that gives a reading, within three tries: a slow one may need a second.
fn room_sensor(path: &Path) -> anyhow::Result<Box<dyn Sensor>> {
    // What is not there is told by its reading. A pipe would not even let itself be opened.
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        bail!("--room-sensor: {}: is no file; a sensor's has thousandths of a degree (…/temp1_input, …/temperature)", path.display());
    }
    let mut sensor = thermal::room(path.to_owned());
    for _ in 0..2 {
        match sensor.read() {
            Err(Miss::NotReady { .. }) => std::thread::sleep(std::time::Duration::from_secs(1)),
            _ => break,
        }
    }
    match sensor.read() {
        Ok(_) => Ok(sensor),
        Err(miss) => bail!("--room-sensor: {miss}"),
    }
}

/// The line on stderr: how far, how fast, how warm, and how long it will take.
fn show(bar: &Progress, options: &Options, machine: &mut ThisMachine, leg: usize, so_far: &[Second], is_work: bool) {
    for notice in machine.notices() {
        bar.note(&notice);
    }
    let last = so_far.last().cloned().unwrap_or_default();
    let heat = last.celsius.map_or(String::new(), |c| format!(" {c:.0} °C"));
    let [done, all] = options.progress(leg, so_far, is_work);
    bar.at(done, all);
    let legs = if options.against_off { format!("leg {} of 8: ", leg + 1) } else { String::new() };
    let doing = match (is_work, last.rate()) {
        (false, _) => "resting until cold".to_owned(),
        (true, Some(rate)) => format!("{rate:.1} tok/s"),
        (true, None) if last.prompt_seconds > 0.0 => "reading a prompt".to_owned(),
        (true, None) => "silent".to_owned(),
    };
    let crowd = last.contention.filter(|c| c.is_too_much()).map_or(String::new(), |c| format!(", {}", c.words()));
    bar.say(format!("{}, {legs}{doing}{heat}{crowd}", options.left(all - done, so_far, is_work)));
}

/// What is the same wherever a run was.
fn blank(options: &Options, turn: Turn, went: &Went) -> Record {
    let figures = judge(&went.cold, &went.hot);
    let (governor, governor_b) = options.governor_words();
    Record {
        kind: record::KIND.into(),
        version: record::VERSION,
        hearth: env!("CARGO_PKG_VERSION").into(),
        source: Source::Pc,
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        board: String::new(),
        machine: Machine::default(),
        note: options.note.split_whitespace().collect::<Vec<_>>().join(" "),
        room_c: options.room.map(f64::from),
        model: ModelFacts::default(),
        workload: turn.words(),
        turn: Some(turn),
        boards: 1,
        threads: 0,
        backend: String::new(),
        governor,
        governor_b,
        uncapped: None,
        power_place: None,
        figures: if went.cut_short { figures.cut_short(&went.when()) } else { figures },
        versus: went.versus.clone(),
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
    // Nobody may be there to read it.
    _ = writeln!(io::stderr(), "record, series and picture: {}", folder.join(format!("{stem}.{{json,csv,svg,png}}")).display());
    Ok(())
}
