//! What the engine did between two ticks, from its counts that only grow, in the governor's words.

use crate::governor::report::Speed;
use crate::governor::{Observation, Phase};
use crate::service::{self, Telemetry};
use crate::units::{Seconds, TokensPerSecond};
use std::time::Duration;

/// Time constant of the sustained rate, in seconds.
const SUSTAINED_S: f64 = 120.0;

#[derive(Debug, Default)]
pub struct Work {
    before: Telemetry,
    pub speed: Speed,
}

impl Work {
    /// A new model counts from 0 again.
    pub fn begin(&mut self) {
        *self = Work::default();
    }

    /// There is no model.
    pub fn rest(&mut self) {
        self.speed.now = TokensPerSecond(0.0);
    }

    /// Fills in phase, tokens, the time they took, and what is left of the prompts.
    pub fn note(&mut self, after: &Telemetry, dt: Duration, seen: &mut Observation) {
        let before = std::mem::replace(&mut self.before, *after);
        let prefill = after.prefill_time.saturating_sub(before.prefill_time);
        let decode = after.decode_time.saturating_sub(before.decode_time);
        let computed = after.prompt_computed.saturating_sub(before.prompt_computed) as f32;
        let generated = after.generated.saturating_sub(before.generated) as f32;
        (seen.phase, seen.tokens, seen.busy) = if prefill.is_zero() && decode.is_zero() {
            (Phase::Idle, 0.0, Seconds(0.0))
        } else if prefill > decode {
            (Phase::Prefill, computed, Seconds(prefill.as_secs_f64()))
        } else {
            (Phase::Decode, generated, Seconds(decode.as_secs_f64()))
        };
        if seen.phase == Phase::Prefill && computed > 0.0 {
            seen.remaining = Some(Seconds(after.prompt_left as f64 * prefill.as_secs_f64() / f64::from(computed)));
        }
        let busy = (prefill + decode).as_secs_f64() as f32;
        self.speed.now = TokensPerSecond(if busy > 0.0 { generated / busy } else { 0.0 });
        if seen.phase == Phase::Decode {
            self.speed.peak = TokensPerSecond(self.speed.peak.0.max(self.speed.now.0));
            let share = if self.speed.sustained.0 == 0.0 { 1.0 } else { 1.0 - (-dt.as_secs_f64() / SUSTAINED_S).exp() };
            self.speed.sustained.0 += share as f32 * (self.speed.now.0 - self.speed.sustained.0);
        }
    }

    /// A step with prompts in it runs at the pace of prompts.
    pub fn phase_of(step: service::Phase) -> Phase {
        match step {
            service::Phase::Idle => Phase::Idle,
            service::Phase::Prefill | service::Phase::Mixed => Phase::Prefill,
            service::Phase::Decode => Phase::Decode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_second_is_of_the_phase_that_took_most_of_it() {
        let mut work = Work::default();
        let mut seen = Observation::default();
        work.note(&Telemetry::default(), SECOND, &mut seen);
        assert_eq!(seen.phase, Phase::Idle);
        let prompt = Telemetry { prefill_time: ms(900), prompt_computed: 90, prompt_left: 45, ..Telemetry::default() };
        work.note(&prompt, SECOND, &mut seen);
        assert_eq!((seen.phase, seen.tokens, seen.remaining), (Phase::Prefill, 90.0, Some(Seconds(0.45))));
        let answer = Telemetry { decode_time: ms(500), generated: 10, ..prompt };
        work.note(&answer, SECOND, &mut seen);
        assert_eq!((seen.phase, seen.tokens, seen.busy), (Phase::Decode, 10.0, Seconds(0.5)));
        assert_eq!((work.speed.now.0, work.speed.peak.0, work.speed.sustained.0), (20.0, 20.0, 20.0));
    }

    #[test]
    fn the_sustained_rate_follows_slowly_and_the_peak_stays() {
        let mut work = Work::default();
        let mut telemetry = Telemetry::default();
        let mut seen = Observation::default();
        for (tokens, seconds) in [(20, 300), (10, 120)] {
            for _ in 0..seconds {
                telemetry.decode_time += SECOND;
                telemetry.generated += tokens;
                work.note(&telemetry, SECOND, &mut seen);
            }
        }
        assert_eq!((work.speed.now.0, work.speed.peak.0), (10.0, 20.0));
        assert!((work.speed.sustained.0 - (10.0 + 10.0 * (-1f32).exp())).abs() < 0.1, "{}", work.speed.sustained.0);
    }
}
