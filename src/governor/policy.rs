//! What the owner wants, and what is known of the board before the first reading.

use super::observation::Mechanism;
use super::profile::{Profile, Soc, Throttle};
use serde::{Deserialize, Serialize};

/// How far the governor may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Estimate, classify, report, choose threads; cap the clock only below a proven cliff.
    #[default]
    Observe,
    /// All that raises sustained speed.
    Performance,
    /// Least energy a token for at most 2 % of speed while the board is cool.
    Eco,
    /// As eco, for at most 8 %: less heat, less fan.
    Quiet,
    /// Report only.
    Off,
}

/// The rules of one run; constant between two calls of `decide`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    pub goal: Goal,
    pub prior: Prior,
}

/// The board as its profile and its kernel describe it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prior {
    pub cores: u8,
    /// Clock steps in MHz, ascending, with the voltage of each.
    pub steps_mhz: Vec<f32>,
    pub volts: Vec<f32>,
    /// Power table: idle W, W per V²·GHz and core, activity in decode and prefill.
    pub idle_w: f32,
    pub c_dyn: f32,
    pub act_decode: f32,
    pub act_prefill: f32,
    /// K/W junction to board, K/W board to room, time constant of the board in s; relative one-sigma of all three.
    pub rjb: f32,
    pub rba: f32,
    pub tau_s: f32,
    pub sigma: f32,
    /// W of the board beside the processor.
    #[serde(default = "board_w")]
    pub board_w: f32,
    /// What a fan does, where the board is sold with one that the kernel turns.
    #[serde(default)]
    pub fan: Option<Fan>,
    /// Where throttling begins, if the kernel or the maker says so.
    pub trip_c: Option<f32>,
    /// Where the kernel switches off.
    pub critical_c: Option<f32>,
    pub mechanism: Mechanism,
    /// The kernel throttles, by each reading of the sensor as it comes; firmware looks at the die itself.
    #[serde(default)]
    pub trips_on_peaks: bool,
    /// Clocks asked for below the board's own limit have no effect.
    pub ignores_lower_request: bool,
}

/// A fan in levels, turned by the kernel. Board cooled with it: K/W and s at rest; `ratio` is what each level leaves of the K/W.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fan {
    /// Level i + 1 begins at trip i.
    pub trip_c: Vec<f32>,
    pub ratio: Vec<f32>,
    pub rjb: f32,
    pub rba: f32,
    pub tau_s: f32,
}

impl Fan {
    fn of(profile: &Profile) -> Option<Fan> {
        let c = profile.cooling.iter().find(|c| !c.fan_rba.is_empty())?;
        let still = c.fan_rba[0];
        let ratio = c.fan_rba.iter().map(|r| r / still).collect();
        Some(Fan { trip_c: c.fan_trip_c.clone(), ratio, rjb: c.rjb, rba: still, tau_s: still * c.cb })
    }
}

/// K below its target at which `power_allocator` begins to take clock away: where its budget, `sustainable + k_pu·(target - T)` with
/// the kernel's own k_pu = 2·sustainable/(target - switch on), falls below what all cores can draw by its own power model.
fn allocator_lead_c(profile: &Profile) -> f32 {
    let soc = &profile.soc;
    let full_w = soc.cores as f32 * soc.c_dyn * soc.volts(soc.max_mhz()).powi(2) * soc.max_mhz() / 1000.0;
    let lead = profile.throttle.values().find_map(|t| match t {
        Throttle::PowerAllocator { switch_on_c, target_c, sustainable_w, .. } => {
            let k_pu = 2.0 * sustainable_w / (target_c - switch_on_c).max(1.0);
            Some(((full_w - sustainable_w) / k_pu).clamp(0.0, target_c - switch_on_c))
        }
        _ => None,
    });
    lead.unwrap_or(0.0)
}

fn board_w() -> f32 {
    2.0
}

/// What the kernel says about who throttles the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelPolicy {
    PowerAllocator,
    StepWise,
    /// No cooling device holds the processor's clock: firmware does, or nobody.
    NotTheKernel,
}

impl Prior {
    /// A board whose cooling is unknown: the middle of its known coolings, with the uncertainty that goes with it.
    pub fn of(profile: &Profile, kernel: KernelPolicy, trip_c: Option<f32>, critical_c: Option<f32>) -> Prior {
        let middle = |pick: fn(&super::profile::Cooling) -> f32| {
            let logs: f32 = profile.cooling.iter().map(|c| pick(c).ln()).sum();
            (logs / profile.cooling.len().max(1) as f32).exp()
        };
        let firmware = profile.throttle.values().find_map(|t| match t {
            Throttle::Progressive { soft_c, ignores_lower_request, .. } => Some((Mechanism::Progressive, *soft_c, *ignores_lower_request)),
            Throttle::Ladder { soft_c, .. } => Some((Mechanism::Step, *soft_c, false)),
            _ => None,
        });
        let rba = middle(|c| c.rba + c.rca.unwrap_or(0.0));
        let mechanism = match (kernel, firmware) {
            (KernelPolicy::PowerAllocator, _) => Mechanism::Progressive,
            (KernelPolicy::StepWise, _) => Mechanism::Step,
            (KernelPolicy::NotTheKernel, Some((m, _, _))) => m,
            (KernelPolicy::NotTheKernel, None) => Mechanism::Unknown,
        };
        Prior {
            trip_c: match (kernel, trip_c) {
                (KernelPolicy::PowerAllocator, Some(target)) => Some(target - allocator_lead_c(profile)),
                _ => trip_c.or(firmware.map(|f| f.1)),
            },
            critical_c,
            mechanism,
            trips_on_peaks: kernel != KernelPolicy::NotTheKernel,
            ignores_lower_request: firmware.is_some_and(|f| f.2),
            rjb: middle(|c| c.rjb),
            rba,
            tau_s: rba * middle(|c| c.cb + c.cc.unwrap_or(0.0)),
            sigma: if profile.cooling.len() > 1 { 0.5 } else { 0.3 },
            board_w: middle(|c| c.board_w),
            fan: Fan::of(profile),
            ..Prior::of_soc(&profile.soc)
        }
    }

    /// A machine without a profile: `steps_mhz` as cpufreq lists them (or the one maximum).
    pub fn unknown(cores: u8, steps_mhz: Vec<f32>) -> Prior {
        let volts = steps_mhz.iter().map(|_| 0.9).collect();
        Prior {
            cores,
            volts,
            steps_mhz,
            idle_w: 2.0,
            c_dyn: 0.5,
            act_decode: 0.85,
            act_prefill: 1.4,
            rjb: 2.0,
            rba: 5.0,
            tau_s: 400.0,
            sigma: 0.8,
            board_w: board_w(),
            fan: None,
            trip_c: None,
            critical_c: None,
            mechanism: Mechanism::Unknown,
            trips_on_peaks: false,
            ignores_lower_request: false,
        }
    }

    fn of_soc(soc: &Soc) -> Prior {
        Prior {
            idle_w: soc.idle_w,
            c_dyn: soc.c_dyn,
            act_decode: 0.5 * (soc.act_busy + soc.act_stall),
            act_prefill: soc.act_prefill,
            volts: soc.v_mv.iter().map(|v| v / 1000.0).collect(),
            ..Prior::unknown(soc.cores, soc.f_mhz.clone())
        }
    }

    pub fn max_mhz(&self) -> f32 {
        self.steps_mhz.last().copied().unwrap_or(0.0)
    }

    pub fn min_mhz(&self) -> f32 {
        self.steps_mhz.first().copied().unwrap_or(0.0)
    }

    /// The highest step not above `mhz`.
    pub fn step_at_or_below(&self, mhz: f32) -> f32 {
        let n = self.steps_mhz.partition_point(|&f| f <= mhz + 0.5);
        self.steps_mhz.get(n.saturating_sub(1)).copied().unwrap_or(mhz)
    }

    /// The lowest step above `mhz`, or the highest.
    pub fn step_above(&self, mhz: f32) -> f32 {
        let n = self.steps_mhz.partition_point(|&f| f <= mhz + 0.5);
        self.steps_mhz.get(n).copied().unwrap_or_else(|| self.max_mhz())
    }

    /// The highest step below `mhz`, or the lowest.
    pub fn step_below(&self, mhz: f32) -> f32 {
        let n = self.steps_mhz.partition_point(|&f| f < mhz - 0.5);
        self.steps_mhz.get(n.saturating_sub(1)).copied().unwrap_or(mhz)
    }

    /// Estimated power of the processor in W: `idle + n·c·act·V²·f`.
    pub fn power_w(&self, activity: f32, threads: u8, mhz: f32) -> f32 {
        let n = self.steps_mhz.partition_point(|&f| f < mhz - 0.5).min(self.steps_mhz.len().saturating_sub(1));
        let volts = self.volts.get(n).copied().unwrap_or(0.9);
        self.idle_w + threads as f32 * self.c_dyn * activity * volts * volts * mhz / 1000.0
    }
}
