//! The options of `hearth bench --sustained`: what they may be, and how much of a run by them is left.

use crate::board::Kind;
use crate::governor::Goal;
use crate::measure::load::Load;
use crate::measure::series::Second;
use crate::measure::steady::Times;
use crate::measure::sustained::Plan;
use crate::measure::versus::Legs;
use anyhow::{Context, bail};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Options {
    /// Measure what heat leaves: rest until cold, then decode until the speed is steady
    #[arg(long)]
    pub sustained: bool,
    /// With --sustained: what is asked of the machine; `voice` is prompts, answers and silence in turn
    #[arg(long, value_enum, default_value = "decode", value_name = "LOAD", requires = "sustained")]
    pub load: LoadChoice,
    /// A simulated board (pi5-bare, rk3588-cliff75 …) in place of this machine
    #[arg(long, value_name = "PLANT", requires = "sustained", conflicts_with_all = ["model", "threads", "context"])]
    pub simulate: Option<String>,
    /// Hearth's governor during the run, on boards (a PC's is always off)
    #[arg(long, value_enum, default_value = "off", value_name = "GOAL", requires = "sustained")]
    pub governor: GoalChoice,
    /// Measure the governor against off: eight legs in the order ABBA BAAB
    #[arg(long, requires = "sustained")]
    pub against_off: bool,
    /// Length of each of these legs in minutes; five time constants of the board forget how it began
    #[arg(long, default_value_t = 25.0, value_name = "MIN", value_parser = minutes, allow_negative_numbers = true, requires = "against_off")]
    pub leg: f64,
    /// Temperature of the room, for the record (and for --simulate)
    #[arg(long, value_name = "CELSIUS", requires = "sustained", allow_negative_numbers = true)]
    pub room: Option<f32>,
    /// A thermometer of the room: a file with thousandths of a degree, as 1-wire and hwmon sensors have
    #[arg(long, value_name = "FILE", requires = "sustained", conflicts_with = "simulate")]
    pub room_sensor: Option<PathBuf>,
    /// Longest run in minutes; less than the rule's 20 is measured and never called steady
    #[arg(long, default_value_t = 120.0, value_name = "MIN", value_parser = minutes, allow_negative_numbers = true, requires = "sustained", conflicts_with = "against_off")]
    pub minutes: f64,
    /// Longest wait for a cold start in minutes
    #[arg(long, default_value_t = 30.0, value_name = "MIN", value_parser = minutes, allow_negative_numbers = true, requires = "sustained")]
    pub cool: f64,
    /// Case, fan and supply in words, for the record
    #[arg(long, default_value = "", requires = "sustained")]
    pub note: String,
    /// Write record (JSON), series (CSV) and picture (SVG, PNG) into this folder
    #[arg(long, value_name = "FOLDER", requires = "sustained")]
    pub out: Option<PathBuf>,
}

impl Options {
    /// A simulated board needs no model.
    pub fn is_simulated(&self) -> bool {
        self.simulate.is_some()
    }

    pub fn plan(&self) -> Plan {
        Plan { cool_s: seconds(self.cool), run_s: seconds(self.minutes) }
    }

    pub fn legs(&self) -> Legs {
        Legs { leg_s: seconds(self.leg), cool_s: seconds(self.cool) }
    }

    /// Seconds of work done, and of all there may be.
    pub fn progress(&self, leg: usize, so_far: &[Second], is_work: bool) -> [u64; 2] {
        let (length, legs) = if self.against_off { (self.legs().leg_s, 8) } else { (self.plan().run_s, 1) };
        let done = if is_work { so_far.len().min(length) } else { 0 };
        [leg * length + done, legs * length].map(|s| s as u64)
    }

    /// The time left in words, `most` being the seconds of work that there may be. Legs have a length; a run may be steady sooner. Rest
    /// comes on top: how long a board takes to cool nobody knows before.
    pub fn left(&self, most: u64, so_far: &[Second], is_work: bool) -> String {
        let least = match (self.against_off, is_work) {
            (true, _) => most,
            (false, true) => Times::of(so_far).shortest_s().saturating_sub(so_far.len()) as u64,
            (false, false) => Times::of(&[]).shortest_s() as u64,
        };
        let rest = if is_work && !self.against_off { "" } else { " and rest" };
        match least {
            least if least >= most => format!("{} left{rest}", time_words(most)),
            0 => format!("at most {} left{rest}", time_words(most)),
            least => format!("{} to {} left{rest}", time_words(least), time_words(most)),
        }
    }

    /// That of the figures, which in eight legs are the first one's, and there that of the legs b.
    pub fn governor_words(&self) -> (String, Option<String>) {
        let word = format!("{:?}", self.governor).to_lowercase();
        if self.against_off { ("off".into(), Some(word)) } else { (word, None) }
    }

    /// What there is no use in on a machine of this kind.
    pub fn check_for(&self, kind: Kind) -> anyhow::Result<()> {
        if self.against_off && kind == Kind::Pc {
            bail!("--against-off: this is a PC, where the governor is always off; --simulate PLANT measures it on a simulated board");
        }
        Ok(())
    }

    pub fn check(&self) -> anyhow::Result<()> {
        if self.against_off && self.governor == GoalChoice::Off {
            bail!("--against-off needs a --governor other than `off` to measure");
        }
        if let Some(room) = self.room.filter(|c| !(-20.0..=60.0).contains(c)) {
            bail!("--room {room}: a room has −20 to 60 °C");
        }
        if self.plan().run_s == 0 || self.legs().leg_s < LEG_MIN_S {
            bail!("nothing can be measured in no time: --minutes and --leg take a minute, or a share of one");
        }
        if let Some(folder) = &self.out {
            std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
            // Said now, not after two hours.
            let try_out = folder.join(format!(".hearth-bench-{}", std::process::id()));
            std::fs::write(&try_out, []).with_context(|| format!("{}: cannot be written to", folder.display()))?;
            std::fs::remove_file(&try_out).with_context(|| try_out.display().to_string())?;
        }
        Ok(())
    }
}

/// `45 s`, `12 min`, `1 h 52 min`.
fn time_words(seconds: u64) -> String {
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Of a leg its end is counted, and that takes some seconds.
pub const LEG_MIN_S: usize = 5;

/// Minutes of an option: a share of one too, up to ten hours.
fn minutes(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|m| (0.0..=600.0).contains(m)).ok_or_else(|| "not a number of minutes from 0 to 600".into())
}

fn seconds(minutes: f64) -> usize {
    (minutes * 60.0).round() as usize
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LoadChoice {
    Decode,
    Prefill,
    Voice,
}

impl From<LoadChoice> for Load {
    fn from(choice: LoadChoice) -> Load {
        match choice {
            LoadChoice::Decode => Load::Decode,
            LoadChoice::Prefill => Load::Prefill,
            LoadChoice::Voice => Load::Voice,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GoalChoice {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        _model: crate::cli::model_options::OptionalModel,
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Line::parse_from([&["bench", "--sustained"], arguments].concat()).options
    }

    #[test]
    fn the_time_left_is_what_the_rule_may_still_ask_for() {
        let seconds = |n: usize| vec![Second { tokens: 10.0, seconds: 1.0, ..Second::default() }; n];
        let left = |options: &Options, leg: usize, done: usize, is_work: bool| {
            let so_far = seconds(done);
            let [done, all] = options.progress(leg, &so_far, is_work);
            options.left(all - done, &so_far, is_work)
        };
        let run = options(&[]);
        assert_eq!(left(&run, 0, 30, false), "20 min to 2 h 0 min left and rest");
        assert_eq!(left(&run, 0, 600, true), "10 min to 1 h 50 min left");
        assert_eq!(left(&run, 0, 1500, true), "at most 95 min left");
        assert_eq!(left(&options(&["--minutes", "2"]), 0, 45, true), "75 s left");
        // Three legs and a half of eight, 25 min each.
        let legs = options(&["--against-off", "--governor", "eco"]);
        assert_eq!(left(&legs, 3, 750, true), "1 h 52 min left and rest");
        assert_eq!(left(&legs, 7, 1500, true), "0 s left and rest");
    }

    #[test]
    fn a_governor_against_off_needs_a_board() {
        let legs = options(&["--against-off", "--governor", "eco"]);
        assert!(legs.check_for(Kind::Pc).unwrap_err().to_string().contains("--simulate PLANT"));
        assert!(legs.check_for(Kind::Board).is_ok() && options(&["--governor", "eco"]).check_for(Kind::Pc).is_ok());
    }
}
