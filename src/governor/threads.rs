//! How many threads: measured on the board, per phase and clock band, never assumed.
//!
//! A probe runs one thread less or more for about 16 tokens and is compared with the seconds right before and after it, so that
//! heat and context cancel. A win by more than 2 %, beyond two sigma, twice in a row, moves the choice. What loses is asked for
//! ever more rarely: a probe costs what it loses.

use super::rates::Rates;

/// Tokens of one probe, if they take no longer than six seconds.
const PROBE_TOKENS: f32 = 16.0;
/// Seconds of the present choice on either side of a probe.
const BESIDE_S: u32 = 5;
const WIN: f32 = 0.02;
const INTERVAL_MIN_S: f64 = 60.0;
const INTERVAL_MAX_S: f64 = 1200.0;
/// Clocks below this share of the maximum are a band of their own: with less clock, more threads pay.
const BAND: f32 = 0.8;

/// The choice for one phase.
#[derive(Clone, Debug)]
pub struct Crew {
    cores: u8,
    best: [u8; 2],
    band: usize,
    interval_s: f64,
    wait_s: f64,
    down_next: bool,
    wins: u8,
    stage: Stage,
    base: Rates,
    probe: Rates,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Waiting,
    Probing { threads: u8, left: u32 },
    After { threads: u8, left: u32 },
}

impl Crew {
    pub fn new(cores: u8) -> Crew {
        Crew {
            cores,
            best: [cores; 2],
            band: 0,
            interval_s: INTERVAL_MIN_S,
            wait_s: 10.0,
            down_next: true,
            wins: 0,
            stage: Stage::Waiting,
            base: Rates::default(),
            probe: Rates::default(),
        }
    }

    /// Threads to use now.
    pub fn threads(&self) -> u8 {
        match self.stage {
            Stage::Probing { threads, .. } => threads,
            _ => self.best[self.band],
        }
    }

    /// The measured choice, a probe under way left aside.
    pub fn best(&self) -> u8 {
        self.best[self.band]
    }

    pub fn is_probing(&self) -> bool {
        matches!(self.stage, Stage::Probing { .. })
    }

    /// The machine slept, or the clock is in another band: a comparison under way is void, and so is a win that waits for its second.
    /// A phase that ends does not interrupt: most answers are shorter than a comparison, which goes on in the next one.
    pub fn interrupt(&mut self) {
        self.wins = 0;
        if self.stage != Stage::Waiting {
            self.wait_s = self.wait_s.max(self.interval_s);
        }
        self.stage = Stage::Waiting;
        self.base = Rates::default();
    }

    /// Takes in one busy second at `rate` tokens/s with `used` threads, the clock at `share` of the maximum.
    pub fn feed(&mut self, rate: f32, used: u8, share: f32, dt: f64, may_probe: bool) {
        let band = usize::from(share < BAND);
        if band != self.band {
            self.band = band;
            self.interrupt();
            return;
        }
        self.wait_s -= dt;
        match self.stage {
            Stage::Waiting => {
                if used != self.best() {
                    return;
                }
                if self.base.count() >= 2.0 * BESIDE_S as f32 {
                    self.base = Rates::default();
                }
                self.base.add(rate);
                if self.wait_s <= 0.0
                    && may_probe
                    && self.base.count() >= BESIDE_S as f32
                    && let Some(threads) = self.candidate()
                {
                    let left = (PROBE_TOKENS / rate.max(0.1)).ceil().clamp(3.0, 6.0) as u32;
                    self.probe = Rates::default();
                    self.stage = Stage::Probing { threads, left };
                }
            }
            Stage::Probing { threads, left } => {
                if used != threads {
                    return;
                }
                self.probe.add(rate);
                self.stage = if left > 1 { Stage::Probing { threads, left: left - 1 } } else { Stage::After { threads, left: BESIDE_S } };
            }
            Stage::After { threads, left } => {
                if used != self.best() {
                    return;
                }
                self.base.add(rate);
                self.stage = Stage::After { threads, left: left - 1 };
                if left <= 1 {
                    self.judge(threads);
                }
            }
        }
    }

    fn candidate(&mut self) -> Option<u8> {
        let n = self.best();
        let down = (n > 1).then(|| n - 1);
        let up = (n < self.cores).then(|| n + 1);
        if self.wins == 0 {
            self.down_next = !self.down_next;
        }
        if self.down_next { up.or(down) } else { down.or(up) }
    }

    fn judge(&mut self, threads: u8) {
        let gain = self.probe.mean() / self.base.mean().max(1e-6) - 1.0;
        let sigma = (self.probe.error_of_mean().powi(2) + self.base.error_of_mean().powi(2)).sqrt() / self.base.mean().max(1e-6);
        if gain > WIN && gain > 2.0 * sigma {
            self.wins += 1;
            self.wait_s = BESIDE_S as f64;
            if self.wins >= 2 {
                self.best[self.band] = threads;
                self.wins = 0;
                self.interval_s = INTERVAL_MIN_S;
            }
        } else {
            self.wins = 0;
            // A clear loss will not turn soon; a near miss may.
            self.interval_s = (self.interval_s * if gain < -0.04 { 6.0 } else { 2.0 }).min(INTERVAL_MAX_S);
            self.wait_s = self.interval_s;
        }
        self.stage = Stage::Waiting;
        self.base = Rates::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `seconds` with rates by threads; returns the choice and the share of speed lost to probing.
    fn settle(rates: [f32; 4], share: f32, seconds: usize) -> (u8, f32) {
        let mut crew = Crew::new(4);
        let best = rates.iter().copied().fold(0.0, f32::max);
        let mut lost = 0.0;
        for i in 0..seconds {
            let n = crew.threads();
            let wobble = 1.0 + 0.01 * ((i * 7 % 11) as f32 / 5.0 - 1.0);
            crew.feed(rates[n as usize - 1] * wobble, n, share, 1.0, true);
            lost += 1.0 - rates[n as usize - 1] / best;
        }
        (crew.best(), lost / seconds as f32)
    }

    #[test]
    fn fast_kernels_find_three_threads() {
        assert_eq!(settle([9.0, 12.8, 12.4, 11.6], 1.0, 600).0, 2);
        assert_eq!(settle([9.0, 11.2, 12.4, 11.6], 1.0, 600).0, 3);
    }

    #[test]
    fn slow_kernels_keep_all_and_probing_costs_little() {
        let (n, lost) = settle([4.1, 7.7, 9.4, 10.0], 1.0, 2700);
        assert_eq!(n, 4);
        assert!(lost < 0.002, "lost {lost}");
    }

    #[test]
    fn a_difference_within_noise_moves_nothing() {
        assert_eq!(settle([5.0, 8.0, 10.1, 10.0], 1.0, 2700).0, 4);
    }

    #[test]
    fn a_win_in_one_band_is_none_in_the_other() {
        let mut crew = Crew::new(4);
        let rates = [9.0, 11.2, 12.4, 11.6];
        while crew.wins == 0 {
            let n = crew.threads();
            crew.feed(rates[usize::from(n) - 1], n, 1.0, 1.0, true);
        }
        crew.feed(10.0, 4, 0.6, 1.0, true);
        // Below, three threads look better once and never again.
        let mut probed = false;
        for _ in 0..600 {
            let n = crew.threads();
            crew.feed(if n == 3 && !probed { 11.0 } else { [5.0, 8.0, 9.0, 10.0][usize::from(n) - 1] }, n, 0.6, 1.0, true);
            probed |= n == 3 && !crew.is_probing();
        }
        assert_eq!(crew.best(), 4);
    }

    #[test]
    fn each_clock_band_has_its_own_choice() {
        let mut crew = Crew::new(4);
        for i in 0..600 {
            let n = crew.threads();
            crew.feed([9.0, 11.2, 12.4, 11.6][n as usize - 1] + 0.01 * (i % 3) as f32, n, 1.0, 1.0, true);
        }
        assert_eq!(crew.threads(), 3);
        crew.feed(10.0, 3, 0.6, 1.0, true);
        assert_eq!(crew.threads(), 4);
    }
}
