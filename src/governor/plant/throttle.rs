//! The boards' own throttling, one state machine a kind. Each is told the temperatures and gives the clock its software allows.

use super::super::profile::{Soc, Throttle};

/// The running state of a board's mechanism.
#[derive(Clone, Debug)]
pub struct Mechanism {
    kind: Throttle,
    steps: Vec<f32>,
    limit: f32,
    until_poll: f32,
    index: usize,
    integral: f32,
    last_reading: f32,
    throttling: bool,
}

/// What a mechanism looks at: its own sensor (with steps and noise), the true junction, the case, and who draws power.
#[derive(Clone, Copy, Debug)]
pub struct Heat {
    pub reading_c: f32,
    pub junction_c: f32,
    pub case_c: f32,
    /// Busy cores; the kernel's power model counts them fully loaded.
    pub busy: f32,
}

impl Mechanism {
    pub fn new(kind: Throttle, soc: &Soc) -> Self {
        let steps = match &kind {
            Throttle::Ladder { steps_mhz, .. } => steps_mhz.iter().copied().filter(|&f| f <= soc.max_mhz()).collect::<Vec<_>>(),
            _ => soc.f_mhz.iter().rev().copied().collect(),
        };
        Self { kind, steps, limit: soc.max_mhz(), until_poll: 0.0, index: 0, integral: 0.0, last_reading: 0.0, throttling: false }
    }

    /// The clock in MHz after `dt` seconds, for a request that stands on a clock step.
    pub fn clock(&mut self, soc: &Soc, heat: Heat, request: f32, dt: f32) -> f32 {
        self.until_poll -= dt;
        let polled = self.until_poll <= 0.0;
        match &self.kind {
            Throttle::Progressive {
                soft_c,
                hard_c,
                floor_mhz,
                gain_per_c,
                lag_s,
                below_floor_gain_per_c,
                hard_min_mhz,
                ignores_lower_request,
            } => {
                let max = soc.max_mhz();
                let t = heat.junction_c;
                let mut target = (max * (1.0 - gain_per_c * (t - soft_c).max(0.0))).max(*floor_mhz);
                if t > *hard_c {
                    target = (target - max * below_floor_gain_per_c * (t - hard_c)).max(*hard_min_mhz);
                }
                self.limit += (target - self.limit) * (dt / lag_s);
                self.throttling = self.limit < max * 0.995;
                if self.throttling && *ignores_lower_request { self.limit } else { self.limit.min(request) }
            }
            Throttle::Ladder { soft_c, hard_c, up_below_c, dwell_s, .. } => {
                if polled {
                    let t = heat.junction_c;
                    self.until_poll = 0.1;
                    if t >= *soft_c && self.index + 1 < self.steps.len() {
                        self.index += 1;
                        self.until_poll = if t >= *hard_c { 0.1 } else { *dwell_s };
                    } else if t < *up_below_c && self.index > 0 {
                        self.index -= 1;
                        self.until_poll = *dwell_s;
                    }
                }
                self.settle(request)
            }
            Throttle::PowerAllocator { switch_on_c, target_c, sustainable_w, poll_s } => {
                if polled {
                    self.until_poll += poll_s;
                    let t = heat.reading_c;
                    if t < *switch_on_c {
                        self.integral = 0.0;
                        self.index = 0;
                    } else {
                        // The kernel's own estimate of its constants: k_po = sustainable / (target - switch on), k_pu = 2 k_po,
                        // k_i = k_pu / 10. With its integral only ever falling (integral_cutoff 0) the model sits 3 K below the
                        // target; logs of boards hold 84–85 °C, so the integral is let rise again within 1 K of it.
                        let k_po = sustainable_w / (target_c - switch_on_c);
                        let error = target_c - t;
                        let gain = if error < 0.0 { k_po } else { 2.0 * k_po };
                        if error < 1.0 {
                            self.integral = (self.integral + 0.2 * k_po * error).clamp(-sustainable_w, *sustainable_w);
                        }
                        let budget = sustainable_w + gain * error + self.integral;
                        let power = |f: f32| heat.busy.max(1.0) * soc.c_dyn * soc.volts(f).powi(2) * f / 1000.0;
                        self.index = self.steps.iter().position(|&f| power(f) <= budget).unwrap_or(self.steps.len() - 1);
                    }
                }
                self.settle(request)
            }
            Throttle::StepWise { trip_c, poll_s, .. } => {
                if polled {
                    self.until_poll += poll_s;
                    let t = heat.reading_c;
                    // The hysteresis of the trip is not looked at by this governor of the kernel's.
                    let hot = t >= *trip_c;
                    if hot && t > self.last_reading {
                        self.index = (self.index + 1).min(self.steps.len() - 1);
                    } else if !hot && t < self.last_reading {
                        self.index = self.index.saturating_sub(1);
                    }
                    self.last_reading = t;
                }
                self.settle(request)
            }
            Throttle::Cliff { trip_c, hyst_c, low_mhz, poll_s } => {
                if polled {
                    self.until_poll += poll_s;
                    let t = heat.reading_c;
                    if t >= *trip_c {
                        self.limit = *low_mhz;
                    } else if t < trip_c - hyst_c {
                        self.limit = soc.max_mhz();
                    }
                }
                self.throttling = self.limit < soc.max_mhz();
                self.limit.min(request)
            }
            Throttle::Skin { trip_c, cap_mhz, hyst_c, poll_s } => {
                if polled {
                    self.until_poll += poll_s;
                    let t = heat.case_c;
                    let up = trip_c.iter().filter(|&&trip| t >= trip).count();
                    let down = trip_c.iter().filter(|&&trip| t >= trip - hyst_c).count();
                    self.index = self.index.clamp(up, down.max(up));
                    self.limit = if self.index == 0 { soc.max_mhz() } else { cap_mhz[self.index - 1] };
                }
                self.throttling = self.index > 0;
                self.limit.min(request)
            }
        }
    }

    /// Whether the mechanism takes clock away at present.
    pub fn is_throttling(&self) -> bool {
        self.throttling
    }

    fn settle(&mut self, request: f32) -> f32 {
        self.limit = self.steps[self.index];
        self.throttling = self.index > 0;
        self.limit.min(request)
    }
}
