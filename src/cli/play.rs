//! `hearth board play`: a board that is not there. A folder gets the tree of a board's `/sys` and `/proc`, and is kept alive: the
//! processor time that a watched process wants heats a simulated board, whose own throttle and sensors show in the files. A daemon with
//! `[governor] root = FOLDER` runs on it as on the board. Seconds of the board may pass faster than ours.
//!
//! Commands come on stdin, one a line, and are answered with `ok` or why not; the end of stdin ends the board.
//!
//! | command | does |
//! |---|---|
//! | `watch PID` | the process whose wish for the processor is the load |
//! | `ambient CELSIUS` | the temperature of the room |
//! | `thermometer works\|missing\|unreadable\|hangs\|sentinel` | what becomes of every thermometer |
//! | `supply good\|low` | the under-voltage alarm, where the board has one |
//! | `fan turns\|stuck` | a fan that is told to turn, and does not |

mod demand;
mod tree;

use crate::board::fake::{self, Fake};
use crate::governor::plant::speed::Work;
use crate::governor::plant::{Model, Plant, TICK_S};
use anyhow::{Context, bail};
use demand::Demand;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tree::{Shown, Thermometer, Tree};

/// Between two looks at the process and two writings of the files.
const EVERY: Duration = Duration::from_millis(50);
/// After a longer pause (this process was stopped, or the machine slept) only so much of it counts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Trees by the profile of the board that they belong to.
const TREES: [(&str, &Fake); 6] = [
    ("pi5", &fake::PI5),
    ("pi4", &fake::PI4),
    ("zero2w", &fake::ZERO_2_W),
    ("rk3588", &fake::RK3588_VENDOR),
    ("h618", &fake::H618),
    ("jetson-orin-nano", &fake::JETSON),
];

#[derive(clap::Args)]
pub struct Args {
    /// Board and cooling, such as `rk3588-cliff75` or `pi5-bare`; an unknown one lists all
    board: String,
    /// Where the tree is made; it must not exist yet
    folder: PathBuf,
    /// Temperature of the room at the start, °C
    #[arg(long, default_value_t = 25.0)]
    ambient: f32,
    /// Seconds of the board in one of ours
    #[arg(long, default_value_t = 1.0)]
    speed: f32,
    /// Threads of the watched process that mean all of the board's cores; by default as many as this machine has
    #[arg(long)]
    threads: Option<usize>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if !(0.1..=1000.0).contains(&args.speed) {
        bail!("--speed {}: must be between 0.1 and 1000", args.speed);
    }
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut live = Live::new(&args.board, args.folder, args.ambient, args.threads.unwrap_or(all))?;
    let (sender, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut last = Instant::now();
    loop {
        match commands.recv_timeout(EVERY.saturating_sub(last.elapsed())) {
            Ok(line) => {
                let answer = live.command(&line).map_or_else(|why| format!("{why:#}"), |()| "ok".to_owned());
                let mut out = std::io::stdout().lock();
                writeln!(out, "{answer}")?;
                out.flush()?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let passed = last.elapsed().min(PAUSE_MAX);
                last = Instant::now();
                live.pass(passed.as_secs_f32(), args.speed)?;
            }
        }
    }
}

/// A board and its tree.
struct Live {
    plant: Plant,
    tree: Tree,
    demand: Option<Demand>,
    /// Threads that mean all cores.
    threads: usize,
    /// Board time that was due and is less than a tick; work that was wanted and is less than a core.
    due_s: f32,
    due_cores: f32,
    shown: Shown,
}

impl Live {
    fn new(board: &str, folder: PathBuf, ambient: f32, threads: usize) -> anyhow::Result<Live> {
        let tree_of = |name: &str| TREES.iter().find(|(profile, _)| name.starts_with(&format!("{profile}-"))).map(|(_, tree)| *tree);
        let Some((model, fake)) = Model::named(board).and_then(|model| Some((model, tree_of(board)?))) else {
            let names: Vec<String> = Model::all().into_iter().map(|m| m.name).filter(|name| tree_of(name).is_some()).collect();
            bail!("there is no board `{board}` to play; there are {}", names.join(", "));
        };
        let plant = Plant::new(model, ambient, 1);
        let mut live = Live {
            tree: Tree::make(folder, fake)?,
            plant,
            demand: None,
            threads: threads.max(1),
            due_s: 0.0,
            due_cores: 0.0,
            shown: Shown::default(),
        };
        live.show()?;
        Ok(live)
    }

    fn command(&mut self, line: &str) -> anyhow::Result<()> {
        let (verb, what) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match (verb, what) {
            ("watch", pid) => self.demand = Some(Demand::of(pid.parse().with_context(|| format!("`{pid}` is no process number"))?)?),
            ("ambient", celsius) => {
                let celsius: f32 = celsius.parse().with_context(|| format!("`{celsius}` is no temperature"))?;
                self.plant.set_ambient(celsius.clamp(-40.0, 120.0));
            }
            ("thermometer", word) => {
                let Some(state) = Thermometer::from_word(word) else {
                    bail!("a thermometer can't be `{word}`: it works, is missing, unreadable, hangs, or says a sentinel")
                };
                self.tree.thermometers(state, self.shown.celsius)?;
            }
            ("supply", "good" | "low") => self.shown.under_voltage = what == "low",
            ("fan", "turns" | "stuck") => {
                self.shown.fan_stuck = what == "stuck";
                self.plant.fail_fan(self.shown.fan_stuck);
            }
            _ => bail!("`{line}` is no command: there are watch, ambient, thermometer, supply, fan"),
        }
        self.show()
    }

    /// `seconds` of ours pass, `speed` times as many on the board.
    fn pass(&mut self, seconds: f32, speed: f32) -> anyhow::Result<()> {
        let cores = self.plant.model().soc.cores;
        let wanted = self.demand.as_mut().map_or(0.0, |d| d.cores(seconds)) / self.threads as f32;
        let wanted = wanted.clamp(0.0, 1.0) * f32::from(cores);
        let request = self.tree.limit_mhz().unwrap_or(f32::MAX).min(self.plant.model().soc.max_mhz());
        self.due_s += seconds * speed;
        while self.due_s >= TICK_S {
            self.due_s -= TICK_S;
            // Whole cores at a time: parts of one add up over the ticks.
            self.due_cores += wanted;
            let busy = self.due_cores.floor().min(f32::from(cores));
            self.due_cores -= busy;
            let work = if busy >= 1.0 { Work::Stress } else { Work::Idle };
            self.plant.tick(work, busy as u8, request);
        }
        self.show()
    }

    fn show(&mut self) -> anyhow::Result<()> {
        self.shown.celsius = self.plant.reading_c();
        self.shown.clock_mhz = self.plant.clock_mhz();
        self.shown.throttles = self.plant.is_throttling();
        self.shown.fan_level = self.plant.fan_level();
        self.tree.show(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{Root, What, sources, thermal};

    fn live(folder: &tempfile::TempDir, board: &str) -> Live {
        Live::new(board, folder.path().join("board"), 25.0, 1).unwrap()
    }

    fn celsius(live: &Live) -> f64 {
        let root = Root::new(live.tree.folder());
        let readings = sources(&root).into_iter().flat_map(|mut source| source.read().unwrap_or_default());
        readings.filter(|r| matches!(r.what, What::Temperature(_))).map(|r| r.value).next().unwrap()
    }

    #[test]
    fn every_board_with_a_tree_shows_what_its_plant_says() {
        for model in Model::all() {
            let folder = tempfile::tempdir().unwrap();
            let Ok(live) = Live::new(&model.name, folder.path().join("board"), 25.0, 1) else {
                assert!(model.name.starts_with("phone-"), "{}", model.name);
                continue;
            };
            assert!((celsius(&live) - f64::from(live.plant.reading_c())).abs() < 0.01, "{}", model.name);
        }
    }

    #[test]
    fn a_process_that_works_heats_the_board_until_it_throttles_and_shows_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut live = live(&folder, "rk3588-cliff75");
        live.command("ambient 50").unwrap();
        let cold = celsius(&live);
        live.demand = Some(Demand::fixed(1.0));
        while !live.shown.throttles {
            live.pass(1.0, 1.0).unwrap();
        }
        assert!(celsius(&live) > cold + 10.0);
        let root = Root::new(live.tree.folder());
        assert_eq!(root.text("sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq").unwrap(), "1008000");
        assert_ne!(root.text("sys/class/thermal/cooling_device1/cur_state").unwrap(), "0");
        assert!(thermal::zones(&root)[0].caps_clock());
    }

    #[test]
    fn a_cap_in_the_tree_keeps_the_board_cooler() {
        let settled = |cap: Option<&str>| {
            let folder = tempfile::tempdir().unwrap();
            let mut live = live(&folder, "h618-bare");
            live.demand = Some(Demand::fixed(1.0));
            if let Some(khz) = cap {
                std::fs::write(live.tree.folder().join("sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"), khz).unwrap();
            }
            (0..1800).for_each(|_| live.pass(1.0, 1.0).unwrap());
            celsius(&live)
        };
        assert!(settled(Some("480000")) < settled(None) - 5.0);
    }

    #[test]
    fn thermometers_fail_in_every_way_and_work_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut live = live(&folder, "h618-bare");
        let root = Root::new(live.tree.folder());
        for fault in ["missing", "unreadable", "sentinel"] {
            live.command(&format!("thermometer {fault}")).unwrap();
            live.pass(1.0, 1.0).unwrap();
            assert!(sources(&root)[0].read().is_err(), "{fault}");
            live.command("thermometer works").unwrap();
            assert!(sources(&root)[0].read().is_ok(), "after {fault}");
        }
        live.command("thermometer hangs").unwrap();
        let mut source = sources(&root).remove(0);
        let reader = std::thread::spawn(move || source.read().map(|r| r[0].value));
        live.pass(1.0, 1.0).unwrap();
        assert!(!reader.is_finished());
        live.command("thermometer works").unwrap();
        assert!((reader.join().unwrap().unwrap() - f64::from(live.shown.celsius)).abs() < 0.5);
    }

    #[test]
    fn what_is_no_command_or_no_board_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut live = live(&folder, "pi5-active");
        for odd in ["", "dance", "watch me", "ambient warm", "thermometer melts", "supply", "fan"] {
            assert!(live.command(odd).is_err(), "{odd}");
        }
        let Err(error) = Live::new("pi9-bare", folder.path().join("x"), 25.0, 1) else { panic!("there is no such board") };
        assert!(error.to_string().contains("rk3588-cliff75"), "{error}");
        assert!(Live::new("pi5-bare", folder.path().into(), 25.0, 1).is_err(), "a folder that exists is left alone");
    }
}
