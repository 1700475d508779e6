//! The series that a measurement is judged by: one entry a second, and how pieces of work fall into seconds.

use serde::{Deserialize, Serialize};

/// What a series was measured on; figures of different sources never stand in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A board in this project's sense.
    Real,
    /// An ordinary computer.
    Pc,
    Simulated,
}

/// One second by the clock on the wall.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Tokens generated in it; a token that took from one second into the next counts in both by its share.
    pub tokens: f64,
    /// The part of the second that was spent on them. The rest went to prompts, or to rest.
    pub seconds: f64,
    pub celsius: Option<f64>,
    pub skin_celsius: Option<f64>,
    pub room_celsius: Option<f64>,
    pub requested_mhz: Option<f64>,
    pub measured_mhz: Option<f64>,
    /// Why the clock was taken away: `thermal`, `under-voltage`, `power-limit`; empty when it was not, or nobody says.
    pub throttled: String,
    /// The mean over the second, at the meter's place.
    pub watts: Option<f64>,
    pub threads: Option<u8>,
    /// Milliseconds of each token that ended in this second.
    #[serde(skip)]
    pub token_ms: Vec<f32>,
}

impl Second {
    /// Tokens a second; `None` for one that was spent otherwise.
    pub fn rate(&self) -> Option<f64> {
        (self.seconds > 0.02).then(|| self.tokens / self.seconds)
    }
}

/// Tokens and time of a span.
pub fn totals(span: &[Second]) -> (f64, f64) {
    (span.iter().map(|s| s.tokens).sum(), span.iter().map(|s| s.seconds).sum())
}

/// Tokens a second over a span: all tokens ÷ all their time, not the mean of rates. 0 for a span without work.
pub fn rate_of(span: &[Second]) -> f64 {
    let (tokens, seconds) = totals(span);
    if seconds > 0.0 { tokens / seconds } else { 0.0 }
}

/// Rates of all windows of `width` seconds.
pub fn window_rates(span: &[Second], width: usize) -> Vec<f64> {
    span.windows(width).filter(|w| totals(w).1 > 0.0).map(rate_of).collect()
}

/// What there is of one figure.
pub fn values(span: &[Second], pick: impl Fn(&Second) -> Option<f64>) -> Vec<f64> {
    span.iter().filter_map(pick).collect()
}

/// Sorts work into seconds. Times are in seconds since the beginning, and only rise.
#[derive(Debug, Default)]
pub struct Bins {
    current: Second,
    /// The whole second that `current` is.
    at: u64,
}

impl Bins {
    /// Takes a token that was worked on from `from` to `to`. Returns the seconds that it completed.
    pub fn token(&mut self, from: f64, to: f64) -> Vec<Second> {
        let span = (to - from).max(1e-9);
        let mut done = self.pass(from);
        let mut at = from;
        while at < to {
            let end = to.min((self.at + 1) as f64);
            self.current.tokens += (end - at) / span;
            self.current.seconds += end - at;
            at = end;
            if at < to {
                done.push(self.turn());
            }
        }
        self.current.token_ms.push((span * 1000.0) as f32);
        done
    }

    /// Time that passed with other things.
    pub fn pass(&mut self, to: f64) -> Vec<Second> {
        let mut done = Vec::new();
        while to >= (self.at + 1) as f64 {
            done.push(self.turn());
        }
        done
    }

    fn turn(&mut self) -> Second {
        self.at += 1;
        std::mem::take(&mut self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_fall_into_seconds_by_their_share_and_none_is_lost() {
        let mut bins = Bins::default();
        let mut done = Vec::new();
        // 0.3 s a token; a prompt of 2.2 s after the fifth.
        for (from, to) in [(0.0, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.2), (1.2, 1.5), (3.7, 4.0), (4.0, 4.3)] {
            done.extend(bins.token(from, to));
        }
        done.extend(bins.pass(5.0));
        let shares: Vec<f64> = done.iter().map(|s| (s.tokens * 1000.0).round() / 1000.0).collect();
        assert_eq!(shares, [3.333, 1.667, 0.0, 1.0, 1.0]);
        assert!((done[1].seconds - 0.5).abs() < 1e-9 && done[2].rate().is_none());
        assert_eq!(done.iter().map(|s| s.token_ms.len()).sum::<usize>(), 7);
        assert!((rate_of(&done) - 7.0 / 2.1).abs() < 1e-6);
    }

    #[test]
    fn a_token_slower_than_a_second_fills_several() {
        let mut bins = Bins::default();
        let done = bins.token(0.0, 3.5);
        assert_eq!(done.len(), 3);
        assert!(done.iter().all(|s| (s.rate().unwrap() - 1.0 / 3.5).abs() < 1e-9));
    }
}
