//! Clocks come in steps, 100 to 300 MHz apart; a law wants something between. Alternating between the two steps around it costs a part
//! of what the finer clock wins (power is convex), and still pays: a whole step below a limit is 2 to 5 K.

use super::policy::Prior;

/// A clock step stands this long before it is taken back, so that nothing flips faster.
const DWELL_S: f32 = 5.0;

/// A clock between two steps: the mean of what is asked for is what is wanted, no step stands shorter than five seconds.
#[derive(Clone, Copy, Debug)]
pub struct Dither {
    pub mhz: f32,
    /// MHz·s that were wanted and not yet asked for.
    owed: f32,
    stood_s: f32,
}

impl Dither {
    pub fn at(mhz: f32) -> Dither {
        Dither { mhz, owed: 0.0, stood_s: DWELL_S }
    }

    /// Moves by one step at most. `floor_mhz` need not be a step.
    pub fn tick(&mut self, prior: &Prior, wanted: f32, floor_mhz: f32, urgent: bool, dt: f32) {
        let low = prior.step_at_or_below(wanted).max(floor_mhz);
        let high = if wanted > low + 0.5 { prior.step_above(low) } else { low };
        self.stood_s += dt;
        let reach = (high - low).max(1.0) * DWELL_S;
        self.owed = (self.owed + (wanted - self.mhz) * dt).clamp(-reach, reach);
        let aim = if self.owed > 0.0 { high } else { low };
        let next = if aim > self.mhz {
            prior.step_above(self.mhz)
        } else if aim < self.mhz {
            prior.step_below(self.mhz).max(floor_mhz)
        } else {
            return;
        };
        if self.stood_s >= DWELL_S || urgent && next < self.mhz {
            (self.mhz, self.stood_s) = (next, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prior() -> Prior {
        Prior::unknown(4, (4..=24).map(|f| f as f32 * 100.0).collect())
    }

    #[test]
    fn a_clock_between_two_steps_is_played_as_their_mean() {
        let (mut dither, mut sum) = (Dither::at(1500.0), 0.0);
        for _ in 0..600 {
            dither.tick(&prior(), 1530.0, 600.0, false, 1.0);
            sum += dither.mhz;
        }
        assert!((sum / 600.0 - 1530.0).abs() < 3.0, "{}", sum / 600.0);
    }

    #[test]
    fn what_is_urgent_goes_down_at_once_and_one_step_at_a_time() {
        let mut dither = Dither::at(2000.0);
        for below in [1900.0, 1800.0, 1700.0] {
            dither.tick(&prior(), 600.0, 600.0, true, 1.0);
            assert_eq!(dither.mhz, below);
        }
    }
}
