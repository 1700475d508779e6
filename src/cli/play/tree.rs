//! The files of a board that is played: what changes in them while it runs, and how its thermometers fail.

use crate::board::fake::{self, Fake};
use crate::board::root::{number, text};
use crate::units::Capacity;
use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Revolutions a minute of a fan at each level.
const FAN_RPM_A_LEVEL: usize = 1500;

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    pub celsius: f32,
    pub clock_mhz: f32,
    pub throttles: bool,
    pub fan_level: usize,
    pub fan_stuck: bool,
    pub under_voltage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thermometer {
    Works,
    Missing,
    /// An error at every read.
    Unreadable,
    /// A read that never ends.
    Hangs,
    /// What some kernels say of a part that is off.
    Sentinel,
}

impl Thermometer {
    pub fn from_word(word: &str) -> Option<Thermometer> {
        Some(match word {
            "works" => Thermometer::Works,
            "missing" => Thermometer::Missing,
            "unreadable" => Thermometer::Unreadable,
            "hangs" => Thermometer::Hangs,
            "sentinel" => Thermometer::Sentinel,
            _ => return None,
        })
    }
}

pub struct Tree {
    folder: PathBuf,
    fake: &'static Fake,
    /// `temp` of every zone and chip that has one with a value.
    temperatures: Vec<PathBuf>,
    state: Thermometer,
    /// Pipes in place of thermometers: whoever reads them waits.
    hanging: Vec<File>,
}

impl Tree {
    pub fn make(folder: PathBuf, fake: &'static Fake) -> anyhow::Result<Tree> {
        let unmade = || format!("{}: the tree can't be made", folder.display());
        fs::create_dir(&folder).with_context(unmade)?;
        fake::build(&folder, fake).with_context(unmade)?;
        let zones = fake.zones.iter().enumerate().filter(|(_, zone)| zone.temp.parse().is_ok_and(|mc: i64| mc > 0));
        let mut temperatures: Vec<PathBuf> = zones.map(|(n, _)| folder.join(format!("sys/class/thermal/thermal_zone{n}/temp"))).collect();
        temperatures.extend(Tree::chip(&folder, fake, "cpu_thermal").map(|chip| chip.join("temp1_input")));
        Ok(Tree { folder, fake, temperatures, state: Thermometer::Works, hanging: Vec::new() })
    }

    #[cfg(test)]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The lowest limit of the cores that work: its owner's, or the daemon's cap.
    pub fn limit_mhz(&self) -> Option<f32> {
        let limits = self.working().filter_map(|policy| number(&self.policy(policy).join("scaling_max_freq")).ok());
        limits.min().map(|khz| khz as f32 / 1000.0)
    }

    pub fn show(&self, now: &Shown) -> anyhow::Result<()> {
        if self.state == Thermometer::Works {
            self.temperatures.iter().try_for_each(|file| put(file, millidegrees(now.celsius)))?;
        }
        let khz = (now.clock_mhz * 1000.0).round() as u32;
        for (policy, _, _, steps) in self.fake.policies {
            let most = steps.last().copied().unwrap_or(u32::MAX);
            put(&self.policy(policy).join("scaling_cur_freq"), khz.min(most))?;
        }
        for (n, (kind, max)) in self.fake.cooling.iter().enumerate() {
            let state = match *kind {
                "pwm-fan" => now.fan_level.min(*max as usize),
                _ if now.throttles => self.rungs(khz).clamp(1, *max as usize),
                _ => 0,
            };
            put(&self.folder.join(format!("sys/class/thermal/cooling_device{n}/cur_state")), state)?;
        }
        if let Some(fan) = Tree::chip(&self.folder, self.fake, "pwmfan") {
            put(&fan.join("fan1_input"), if now.fan_stuck { 0 } else { FAN_RPM_A_LEVEL * now.fan_level })?;
            put(&fan.join("pwm1"), (255 * now.fan_level / 4).min(255))?;
        }
        if let Some(supply) = Tree::chip(&self.folder, self.fake, "rpi_volt") {
            put(&supply.join("in0_lcrit_alarm"), u8::from(now.under_voltage))?;
        }
        Ok(())
    }

    /// Lets every thermometer be like this from now on.
    pub fn thermometers(&mut self, state: Thermometer, celsius: f32) -> anyhow::Result<()> {
        let released = std::mem::take(&mut self.hanging);
        self.state = state;
        for file in &self.temperatures {
            clear(file);
            match state {
                Thermometer::Missing => {}
                Thermometer::Works => put(file, millidegrees(celsius))?,
                Thermometer::Sentinel => put(file, -256_000)?,
                // A folder can't be read as a file by anybody, root included.
                Thermometer::Unreadable => fs::create_dir(file)?,
                Thermometer::Hangs => {
                    mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("a pipe can't be made")?;
                    // Open for writing too, so that a reader gets in, and then waits for what never comes.
                    self.hanging.push(OpenOptions::new().read(true).write(true).open(file)?);
                }
            }
        }
        for mut pipe in released {
            let _ = writeln!(pipe, "{}", millidegrees(celsius)); // a pipe that is full of this has no reader
        }
        Ok(())
    }

    fn policy(&self, name: &str) -> PathBuf {
        self.folder.join("sys/devices/system/cpu/cpufreq").join(name)
    }

    fn working(&self) -> impl Iterator<Item = &'static str> {
        let strongest = Capacity(self.fake.policies.iter().map(|p| p.2).max().unwrap_or(0));
        self.fake.policies.iter().filter(move |p| Capacity(p.2).works_beside(strongest)).map(|p| p.0)
    }

    /// Clock steps of the strongest cores above this clock.
    fn rungs(&self, khz: u32) -> usize {
        let steps = self.fake.policies.iter().max_by_key(|p| p.2).map_or(&[][..], |p| p.3);
        steps.iter().filter(|step| **step > khz).count()
    }

    fn chip(folder: &Path, fake: &Fake, name: &str) -> Option<PathBuf> {
        let n = fake.hwmon.iter().position(|(chip, _)| *chip == name)?;
        let path = folder.join(format!("sys/class/hwmon/hwmon{n}"));
        text(&path.join("name")).is_ok_and(|found| found == name).then_some(path)
    }
}

fn millidegrees(celsius: f32) -> i64 {
    (f64::from(celsius) * 1000.0).round() as i64
}

/// As a whole: a reader sees the old text or the new one, never half of it.
fn put(file: &Path, value: impl std::fmt::Display) -> anyhow::Result<()> {
    let new = file.with_added_extension("new");
    let written = fs::write(&new, format!("{value}\n")).and_then(|()| fs::rename(&new, file));
    written.with_context(|| format!("{}: can't be written", file.display()))
}

fn clear(file: &Path) {
    let _ = fs::remove_file(file).or_else(|_| fs::remove_dir(file)); // what is not there is clear
}
