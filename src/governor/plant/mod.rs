//! The simulator: a board on virtual time, heated by what it computes. It stands for board and engine in tests and in `make thermal`.
//!
//! Two nodes (junction, board), a third for a case or a skin:
//! `Cj dTj = P_soc - (Tj-Tb)/Rjb`, `Cb dTb = P_other + (Tj-Tb)/Rjb - (Tb-Tc)/Rba`, `Cc dTc = (Tb-Tc)/Rba - (Tc-Ta)/Rca`;
//! `P_soc = idle + n·c·act·V²·f + leak50·exp(beta·(Tj-50))`, `P_other = board + dram·rate + fan`.
//! Not here: any decision ([`super::decide`]) and any load that changes over time ([`super::simulate`]).

pub mod noise;
pub mod speed;
pub mod throttle;

use super::profile::{Cooling, Profile, Soc, Throttle};
use noise::Noise;
use speed::{Work, rate_and_activity};
use throttle::{Heat, Mechanism};

/// The step of virtual time: no node reacts faster than 3.5 s, no mechanism polls faster.
pub const TICK_S: f32 = 0.1;

/// Weights read for one token of the reference model (1.2 billion weights in Q4_K_M).
pub const GB_PER_TOKEN: f32 = 0.80;

/// Noise of a temperature sensor, rms (assumed; logs show less on some boards).
pub const SENSOR_NOISE_C: f32 = 0.25;

/// A board with its cooling and its mechanism, parameters fixed.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: String,
    pub soc: Soc,
    pub cooling: Cooling,
    pub throttle: Throttle,
}

/// A board running.
#[derive(Clone, Debug)]
pub struct Plant {
    model: Model,
    mechanism: Mechanism,
    noise: Noise,
    ambient_c: f32,
    junction_c: f32,
    board_c: f32,
    case_c: f32,
    fan_level: usize,
    fan_failed: bool,
    lid_closed: bool,
    /// A cap that the board's software forgot to take back.
    stuck_mhz: Option<f32>,
    clock_mhz: f32,
    reading_c: f32,
    speed: (Work, u8, f32, f32, f32),
}

/// What one tick did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Work per second, in the unit of [`Work`].
    pub rate: f32,
    pub soc_w: f32,
    /// At the board's supply connector.
    pub input_w: f32,
}

impl Model {
    /// Every board with every cooling of the built-in files: `pi5-bare`, `rk3588-cliff75` …
    pub fn all() -> Vec<Model> {
        Profile::all().iter().flat_map(|p| p.cooling.iter().filter_map(|c| Model::of(p, &c.id))).collect()
    }

    /// A board with one cooling. The bandwidth by threads stays out of it: [`Model::with_kernels`] puts it in.
    pub fn of(profile: &Profile, cooling: &str) -> Option<Model> {
        let (cooling, throttle) = profile.cooled(cooling)?;
        let mut soc = profile.soc.clone();
        soc.bw_by_threads_gbs.clear();
        Some(Model { name: format!("{}-{}", profile.id, cooling.id), soc, cooling: cooling.clone(), throttle: throttle.clone() })
    }

    /// By name, as in [`Model::all`].
    pub fn named(name: &str) -> Option<Model> {
        Model::all().into_iter().find(|m| m.name == name)
    }

    /// The same board with kernels that compute `core_gbs` a core, and its bandwidth by threads where that is known.
    pub fn with_kernels(mut self, core_gbs: f32) -> Model {
        let board = self.name.split('-').next().unwrap_or_default().to_string();
        if let Some(profile) = Profile::all().into_iter().find(|p| p.id == board) {
            self.soc.bw_by_threads_gbs = profile.soc.bw_by_threads_gbs;
        }
        self.soc.core_gbs = core_gbs;
        self
    }

    /// The clock table cut at `mhz`.
    pub fn with_max_mhz(mut self, mhz: f32) -> Model {
        let keep = self.soc.f_mhz.partition_point(|&f| f <= mhz).max(1);
        self.soc.f_mhz.truncate(keep);
        self.soc.v_mv.truncate(keep);
        self
    }

    /// One draw of everything uncertain: resistances and capacities by the board's `unc_r` and `unc_c`, dynamic power 12 %,
    /// voltage 3 %, kernel speed 15 %, bandwidth 6 %, the sharpness p between 2.5 and 6. Seed 0 is the board as written.
    pub fn draw(&self, seed: u64) -> Model {
        let mut m = self.clone();
        if seed == 0 {
            return m;
        }
        let mut noise = Noise::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let mut by = |sigma: f32| (sigma * noise.normal().clamp(-2.0, 2.0)).exp();
        let c = &mut m.cooling;
        c.rjb *= by(c.unc_r);
        let outer = by(c.unc_r);
        c.rba *= outer;
        c.fan_rba.iter_mut().for_each(|r| *r *= outer);
        c.rca = c.rca.map(|r| r * by(c.unc_r));
        c.cj *= by(c.unc_c);
        c.cb *= by(c.unc_c);
        c.cc = c.cc.map(|x| x * by(c.unc_c));
        m.soc.c_dyn *= by(0.12);
        let volts = by(0.03);
        m.soc.v_mv.iter_mut().for_each(|v| *v *= volts);
        m.soc.core_gbs *= by(0.15);
        let bandwidth = by(0.06);
        m.soc.bw_gbs *= bandwidth;
        m.soc.bw_by_threads_gbs.iter_mut().for_each(|b| *b *= bandwidth);
        m.soc.p = (4.0 * by(0.3)).clamp(2.5, 6.0);
        m
    }

    /// Rate with all cores at full clock.
    pub fn peak(&self, work: Work) -> f32 {
        rate_and_activity(&self.soc, work, self.soc.cores, self.soc.max_mhz()).0
    }
}

impl Plant {
    /// A board that has been idle in this room for long.
    pub fn new(model: Model, ambient_c: f32, seed: u64) -> Plant {
        let mechanism = Mechanism::new(model.throttle.clone(), &model.soc);
        let clock_mhz = model.soc.max_mhz();
        let mut plant = Plant {
            mechanism,
            noise: Noise::new(seed),
            ambient_c,
            junction_c: ambient_c + 20.0,
            board_c: ambient_c + 15.0,
            case_c: ambient_c,
            fan_level: 0,
            fan_failed: false,
            lid_closed: false,
            stuck_mhz: None,
            clock_mhz,
            reading_c: ambient_c,
            speed: (Work::Idle, 0, 0.0, 0.0, 0.0),
            model,
        };
        plant.rest();
        plant
    }

    /// One tick of virtual time at this work, with a request that is rounded down to a clock step.
    pub fn tick(&mut self, work: Work, threads: u8, request_mhz: f32) -> Done {
        let soc = &self.model.soc;
        let threads = threads.clamp(1, soc.cores);
        self.reading_c = {
            let t = self.junction_c + SENSOR_NOISE_C * self.noise.normal();
            (t / soc.sensor_step_c).round() * soc.sensor_step_c
        };
        let busy = if work == Work::Idle { 0.0 } else { threads as f32 };
        let heat = Heat { reading_c: self.reading_c, junction_c: self.junction_c, case_c: self.case_c, busy };
        let clock = self.mechanism.clock(soc, heat, soc.step_at_or_below(request_mhz), TICK_S);
        self.clock_mhz = self.stuck_mhz.map_or(clock, |cap| clock.min(cap));
        if self.speed.0 != work || self.speed.1 != threads || self.speed.2 != self.clock_mhz {
            let (rate, activity) = rate_and_activity(soc, work, threads, self.clock_mhz);
            let dynamic = busy * soc.c_dyn * activity * soc.volts(self.clock_mhz).powi(2) * self.clock_mhz / 1000.0;
            self.speed = (work, threads, self.clock_mhz, rate, dynamic);
        }
        let (rate, dynamic) = (self.speed.3, self.speed.4);
        let soc_w = soc.idle_w + dynamic + soc.leak50_w * (soc.leak_beta * (self.junction_c - 50.0)).exp();
        let dram_w = if work == Work::Decode { soc.dram_w_per_gbs * rate } else { 0.0 };
        let fan_w = self.model.cooling.fan_w.get(self.fan_level).copied().unwrap_or(0.0);
        let other_w = self.model.cooling.board_w + dram_w;
        self.heat(soc_w, other_w, TICK_S);
        self.turn_fan();
        Done { rate, soc_w, input_w: soc_w + other_w + fan_w }
    }

    fn heat(&mut self, soc_w: f32, other_w: f32, dt: f32) {
        let c = &self.model.cooling;
        let (outer, case_r) = self.resistances();
        let to_board = (self.junction_c - self.board_c) / c.rjb;
        let to_case = (self.board_c - self.case_c) / outer;
        self.junction_c += dt * (soc_w - to_board) / c.cj;
        self.board_c += dt * (other_w + to_board - to_case) / c.cb;
        match (case_r, c.cc) {
            (Some(r), Some(cc)) => self.case_c += dt * (to_case - (self.case_c - self.ambient_c) / r) / cc,
            _ => self.case_c = self.ambient_c,
        }
    }

    /// Board to case (or room), and case to room. A closed lid stops half of what carried the heat away.
    fn resistances(&self) -> (f32, Option<f32>) {
        let c = &self.model.cooling;
        let level = if self.fan_failed { 0 } else { self.fan_level };
        let outer = c.fan_rba.get(level).copied().unwrap_or(c.rba);
        let lid = if self.lid_closed { 1.5 } else { 1.0 };
        match c.rca {
            Some(r) => (outer, Some(r * lid)),
            None => (outer * lid, None),
        }
    }

    fn turn_fan(&mut self) {
        let c = &self.model.cooling;
        let up = c.fan_trip_c.iter().filter(|&&t| self.junction_c >= t).count();
        let down = c.fan_trip_c.iter().filter(|&&t| self.junction_c >= t - c.fan_hyst_c).count();
        self.fan_level = self.fan_level.clamp(up, down.max(up));
    }

    /// Puts the board at its idle equilibrium.
    pub fn rest(&mut self) {
        let soc = self.model.soc.clone();
        for _ in 0..60 {
            let soc_w = soc.idle_w + soc.leak50_w * (soc.leak_beta * (self.junction_c - 50.0)).exp();
            let all_w = soc_w + self.model.cooling.board_w;
            let (outer, case_r) = self.resistances();
            self.case_c = self.ambient_c + all_w * case_r.unwrap_or(0.0);
            self.board_c = self.case_c + all_w * outer;
            self.junction_c = self.board_c + soc_w * self.model.cooling.rjb;
            self.turn_fan();
        }
        self.reading_c = self.junction_c;
    }

    pub fn model(&self) -> &Model {
        &self.model
    }
    /// What the die's sensor says: in steps, with noise.
    pub fn reading_c(&self) -> f32 {
        self.reading_c
    }
    /// What a sensor on the case or skin says, where the board has that node.
    pub fn skin_c(&self) -> Option<f32> {
        self.model.cooling.cc.map(|_| self.case_c)
    }
    pub fn junction_c(&self) -> f32 {
        self.junction_c
    }
    pub fn board_c(&self) -> f32 {
        self.board_c
    }
    pub fn clock_mhz(&self) -> f32 {
        self.clock_mhz
    }
    pub fn fan_level(&self) -> usize {
        self.fan_level
    }
    pub fn is_throttling(&self) -> bool {
        self.mechanism.is_throttling() || self.stuck_mhz.is_some_and(|cap| self.clock_mhz <= cap)
    }
    pub fn set_ambient(&mut self, celsius: f32) {
        self.ambient_c = celsius;
    }
    pub fn fail_fan(&mut self, failed: bool) {
        self.fan_failed = failed;
    }
    pub fn close_lid(&mut self, closed: bool) {
        self.lid_closed = closed;
    }
    pub fn stick_cap(&mut self, mhz: Option<f32>) {
        self.stuck_mhz = mhz;
    }
}

#[cfg(test)]
mod tests;
