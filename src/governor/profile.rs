//! What is known of a board before it is measured: `config/boards/*.toml`, one file a board, built into the binary.
//! The simulator runs these figures; the governor takes them for its first guess. Nothing here reads the machine: see `board::detect`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// One board: its processor, the ways it is cooled, the ways its software throttles it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub id: String,
    pub name: String,
    /// Entries of the device tree's `compatible` that mean this board, most telling first.
    pub compatible: Vec<String>,
    pub soc: Soc,
    pub cooling: Vec<Cooling>,
    pub throttle: BTreeMap<String, Throttle>,
    #[serde(default)]
    pub anchor: Vec<Anchor>,
}

/// The processor: clock and voltage steps, power and speed. Units in `config/boards/README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soc {
    pub cores: u8,
    pub f_mhz: Vec<f32>,
    pub v_mv: Vec<f32>,
    pub c_dyn: f32,
    pub idle_w: f32,
    pub leak50_w: f32,
    pub leak_beta: f32,
    pub act_busy: f32,
    pub act_stall: f32,
    pub act_prefill: f32,
    pub dram_w_per_gbs: f32,
    pub core_gbs: f32,
    pub core_bw_gbs: f32,
    pub bw_gbs: f32,
    /// Read bandwidth by threads, where measured; used instead of the two above when kernels are fast enough to feel it.
    #[serde(default)]
    pub bw_by_threads_gbs: Vec<f32>,
    pub p: f32,
    pub prefill_cap: f32,
    pub sensor_step_c: f32,
}

/// One way of cooling the board: two nodes (junction, board), a third (case or skin) when `rca` is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cooling {
    pub id: String,
    pub throttle: String,
    pub board_w: f32,
    pub rjb: f32,
    pub cj: f32,
    pub rba: f32,
    pub cb: f32,
    pub rca: Option<f32>,
    pub cc: Option<f32>,
    #[serde(default)]
    pub fan_trip_c: Vec<f32>,
    #[serde(default)]
    pub fan_hyst_c: f32,
    #[serde(default)]
    pub fan_rba: Vec<f32>,
    #[serde(default)]
    pub fan_w: Vec<f32>,
    pub unc_r: f32,
    pub unc_c: f32,
}

/// How the board's own software takes the clock away.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Throttle {
    /// Firmware: a share of the maximum clock per kelvin above `soft_c`, filtered by `lag_s`.
    Progressive {
        soft_c: f32,
        hard_c: f32,
        floor_mhz: f32,
        gain_per_c: f32,
        lag_s: f32,
        below_floor_gain_per_c: f32,
        hard_min_mhz: f32,
        /// While it throttles, a request below its own clock has no effect.
        ignores_lower_request: bool,
    },
    /// Firmware: down one of a few steps at `soft_c`, up one below `up_below_c`.
    Ladder { soft_c: f32, hard_c: f32, steps_mhz: Vec<f32>, up_below_c: f32, dwell_s: f32 },
    /// Linux `power_allocator`: a power budget from a PID on the temperature.
    PowerAllocator { switch_on_c: f32, target_c: f32, sustainable_w: f32, poll_s: f32 },
    /// Linux `step_wise`: one clock step a poll while rising above, or falling below, the trip.
    StepWise { trip_c: f32, hyst_c: f32, poll_s: f32 },
    /// Two clocks only.
    Cliff { trip_c: f32, hyst_c: f32, low_mhz: f32, poll_s: f32 },
    /// Caps by the temperature of the case node.
    Skin { trip_c: Vec<f32>, cap_mhz: Vec<f32>, hyst_c: f32, poll_s: f32 },
}

/// A published fact that the model must meet: 22 °C (or `ambient_c`), cold start, 45 min.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    pub cooling: String,
    pub load: String,
    pub ambient_c: Option<f32>,
    /// The clock table ends here.
    pub max_mhz: Option<f32>,
    pub t80_s: Option<[f32; 2]>,
    pub settle_c: Option<[f32; 2]>,
    pub mean_mhz: Option<[f32; 2]>,
    pub rel: Option<[f32; 2]>,
    pub input_w: Option<[f32; 2]>,
}

/// Every file of the folder, by the build script.
const FILES: &[&str] = include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// Why a board's file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("board file: {0}")]
    Parse(#[from] toml::de::Error),
    #[error("board `{board}`: {what}; see config/boards/README.md for the keys")]
    Wrong { board: String, what: String },
}

impl Profile {
    /// All boards built in.
    pub fn all() -> Vec<Profile> {
        FILES.iter().map(|text| Profile::parse(text).expect("built-in board files are tested")).collect()
    }

    /// The board whose `compatible` list shares the most telling entry with the device tree's.
    pub fn for_compatible(compatible: &[String]) -> Option<Profile> {
        let all = Profile::all();
        compatible.iter().find_map(|entry| all.iter().find(|b| b.compatible.contains(entry)).cloned())
    }

    /// Reads one board file, checking that tables belong together.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile = toml::from_str(text)?;
        let wrong = |what: String| Err(ProfileError::Wrong { board: profile.id.clone(), what });
        if profile.soc.f_mhz.is_empty() || profile.soc.f_mhz.len() != profile.soc.v_mv.len() {
            return wrong("`f_mhz` and `v_mv` must have the same length and not be empty".into());
        }
        if !profile.soc.f_mhz.is_sorted() || profile.soc.cores == 0 {
            return wrong("`f_mhz` must ascend and `cores` be at least 1".into());
        }
        for (id, throttle) in &profile.throttle {
            if matches!(throttle, Throttle::PowerAllocator { switch_on_c, target_c, .. } if switch_on_c >= target_c) {
                return wrong(format!("throttle `{id}`: `switch_on_c` must be below `target_c`"));
            }
        }
        for c in &profile.cooling {
            if !profile.throttle.contains_key(&c.throttle) {
                return wrong(format!("cooling `{}` names throttle `{}`, which is not here", c.id, c.throttle));
            }
            if c.rca.is_some() != c.cc.is_some() {
                return wrong(format!("cooling `{}`: `rca` and `cc` go together", c.id));
            }
            let levels = c.fan_trip_c.len() + 1;
            if !c.fan_rba.is_empty() && (c.fan_rba.len() != levels || c.fan_w.len() != levels) {
                return wrong(format!("cooling `{}`: {} fan trips need {levels} entries of `fan_rba` and `fan_w`", c.id, levels - 1));
            }
        }
        Ok(profile)
    }

    /// A cooling by its id, with its throttle.
    pub fn cooled(&self, id: &str) -> Option<(&Cooling, &Throttle)> {
        let cooling = self.cooling.iter().find(|c| c.id == id)?;
        Some((cooling, self.throttle.get(&cooling.throttle)?))
    }
}

impl Soc {
    pub fn max_mhz(&self) -> f32 {
        self.f_mhz[self.f_mhz.len() - 1]
    }

    /// Volts at a clock, linear between the steps.
    pub fn volts(&self, mhz: f32) -> f32 {
        let above = self.f_mhz.partition_point(|&f| f < mhz);
        let mv = match above {
            0 => self.v_mv[0],
            n if n == self.f_mhz.len() => self.v_mv[n - 1],
            n => {
                let share = (mhz - self.f_mhz[n - 1]) / (self.f_mhz[n] - self.f_mhz[n - 1]);
                self.v_mv[n - 1] + share * (self.v_mv[n] - self.v_mv[n - 1])
            }
        };
        mv / 1000.0
    }

    /// The highest clock step not above `mhz` (the lowest step when all are).
    pub fn step_at_or_below(&self, mhz: f32) -> f32 {
        self.f_mhz[self.f_mhz.partition_point(|&f| f <= mhz + 0.5).saturating_sub(1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_board_parses_and_names_are_unique() {
        let all = Profile::all();
        let ids: std::collections::BTreeSet<_> = all.iter().map(|b| b.id.clone()).collect();
        assert_eq!(ids.len(), all.len());
        assert!(all.iter().all(|b| b.anchor.iter().all(|a| b.cooled(&a.cooling).is_some())));
    }

    #[test]
    fn the_most_telling_compatible_entry_wins() {
        let tree = ["raspberrypi,500".to_string(), "brcm,bcm2712".to_string()];
        assert_eq!(Profile::for_compatible(&tree).unwrap().id, "pi5");
        assert!(Profile::for_compatible(&["acme,board".to_string()]).is_none());
    }

    #[test]
    fn a_cooling_without_its_throttle_is_named() {
        let text =
            FILES.iter().find(|text| text.contains("id = \"pi5\"")).unwrap().replace("throttle = \"firmware\"", "throttle = \"lost\"");
        assert!(Profile::parse(&text).unwrap_err().to_string().contains("throttle `lost`"));
    }

    /// The governor counts on it: between the two it bounds how early the kernel begins.
    #[test]
    fn a_power_allocator_that_is_switched_on_above_its_target_is_named() {
        let text = FILES.iter().find(|text| text.contains("kind = \"power-allocator\"")).unwrap();
        let upside_down = text.replace("target_c = ", "target_c = -");
        assert_ne!(&upside_down, text);
        let told = Profile::parse(&upside_down).unwrap_err().to_string();
        assert!(told.contains("`switch_on_c` must be below `target_c`"), "{told}");
    }

    #[test]
    fn clock_steps_round_to_the_table() {
        let soc = Profile::for_compatible(&["brcm,bcm2712".to_string()]).unwrap().soc;
        assert_eq!(soc.step_at_or_below(1999.0), 1900.0);
        assert_eq!(soc.step_at_or_below(2000.0), 2000.0);
        assert_eq!(soc.step_at_or_below(10.0), 1500.0);
        assert!((soc.volts(1650.0) - 0.765).abs() < 1e-6);
    }
}
