//! The series that a measurement is judged by: one entry a second, and how pieces of work fall into seconds.

use super::contention::Contention;
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
    /// Tokens that count in it: generated ones, or under the prefill load the prompts'. What took from one second into the next counts in
    /// both by its share.
    pub tokens: f64,
    /// The part of the second that was spent on them. The rest went to prompts, or to rest.
    pub seconds: f64,
    /// The same of prompts that lead to answers.
    pub prompt_tokens: f64,
    pub prompt_seconds: f64,
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
    /// What others took of the machine.
    pub contention: Option<Contention>,
    /// Pieces of work that ended in this second: tokens, or under the prefill load prompts; of a source that knows rates only, none.
    #[serde(skip)]
    pub pieces: u32,
    /// Milliseconds of each token that ended in this second.
    #[serde(skip)]
    pub token_ms: Vec<f32>,
    /// Milliseconds from a turn's begin to its first token, of turns whose first token came in this second.
    #[serde(skip)]
    pub first_token_ms: Vec<f32>,
    /// Seconds of each turn that ended in this second, its silence included.
    #[serde(skip)]
    pub turn_s: Vec<f32>,
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

/// All energy of a span at a mean of `watts` over its tokens, what prompts and silence took included; `None` without a whole token, which
/// nothing can be laid on.
pub fn joules_per_token(watts: f64, span: &[Second]) -> Option<f64> {
    let (tokens, _) = totals(span);
    (tokens >= 1.0).then(|| watts * span.len() as f64 / tokens)
}

/// What others took of the machine over a span.
pub fn contention(span: &[Second]) -> Option<Contention> {
    Contention::mean(span.iter().filter_map(|s| s.contention))
}

/// The room at the beginning of a span and at its end.
pub fn room(span: &[Second]) -> Option<[f64; 2]> {
    let room = values(span, |s| s.room_celsius);
    room.first().zip(room.last()).map(|(first, last)| [*first, *last])
}

/// Work of less than this in a window is the end of an answer, whose few tokens tell no rate.
const WORK_MIN_S: f64 = 1.0;

/// Rates of all windows of `width` seconds in which there was work.
pub fn window_rates(span: &[Second], width: usize) -> Vec<f64> {
    span.windows(width).filter(|w| totals(w).1 >= WORK_MIN_S).map(rate_of).collect()
}

/// Whether a span alternates between work that counts and other things (prompts, silence) for more than a tenth of its time.
pub fn is_mixed(span: &[Second]) -> bool {
    span.len() as f64 - totals(span).1 > 0.1 * span.len() as f64
}

/// Speeds at equal distances, and that distance in seconds: of each second; of each minute where seconds are of different kinds.
pub fn speeds(span: &[Second]) -> (Vec<f64>, usize) {
    if !is_mixed(span) {
        return (values(span, Second::rate), 1);
    }
    const MINUTE: usize = 60;
    // From the end, so that a beginning too short for a minute is what is left out.
    let mut speeds: Vec<f64> = span.rchunks_exact(MINUTE).filter(|w| totals(w).1 >= WORK_MIN_S).map(rate_of).collect();
    speeds.reverse();
    (speeds, MINUTE)
}

/// A figure second by second, from its first value to its last: a second without one has that of its predecessor, since what reads it
/// may miss a beat.
pub fn curve(span: &[Second], pick: impl Fn(&Second) -> Option<f64>) -> Vec<f64> {
    let (mut curve, mut missed) = (Vec::new(), 0);
    for value in span.iter().map(pick) {
        match value {
            Some(value) => {
                let last = curve.last().copied().unwrap_or(value);
                curve.extend(std::iter::repeat_n(last, std::mem::take(&mut missed)));
                curve.push(value);
            }
            None => missed += usize::from(!curve.is_empty()),
        }
    }
    curve
}

/// What there is of one figure.
pub fn values(span: &[Second], pick: impl Fn(&Second) -> Option<f64>) -> Vec<f64> {
    span.iter().filter_map(pick).collect()
}

/// All of what happens any number of times a second.
pub fn each(span: &[Second], pick: impl Fn(&Second) -> &Vec<f32>) -> Vec<f64> {
    span.iter().flat_map(|s| pick(s).iter().map(|&v| f64::from(v))).collect()
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
        let done = self.tokens(from, to, 1);
        self.current.token_ms.push(((to - from).max(1e-9) * 1000.0) as f32);
        done
    }

    /// Takes `tokens` that count and were worked on together.
    pub fn tokens(&mut self, from: f64, to: f64, tokens: usize) -> Vec<Second> {
        let done = self.spread(from, to, |second, share, time| {
            second.tokens += share * tokens as f64;
            second.seconds += time;
        });
        self.current.pieces += 1;
        done
    }

    /// Takes a prompt of `tokens` that an answer follows.
    pub fn prompt(&mut self, from: f64, to: f64, tokens: usize) -> Vec<Second> {
        self.spread(from, to, |second, share, time| {
            second.prompt_tokens += share * tokens as f64;
            second.prompt_seconds += time;
        })
    }

    /// The second that is not complete yet.
    pub fn current(&mut self) -> &mut Second {
        &mut self.current
    }

    /// `add` gets each second's share of a piece of work, and its time of it.
    fn spread(&mut self, from: f64, to: f64, add: impl Fn(&mut Second, f64, f64)) -> Vec<Second> {
        let span = (to - from).max(1e-9);
        let mut done = self.pass(from);
        let mut at = from;
        while at < to {
            let end = to.min((self.at + 1) as f64);
            add(&mut self.current, (end - at) / span, end - at);
            at = end;
            if at < to {
                done.push(self.turn());
            }
        }
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
        assert_eq!(done.iter().map(|s| s.pieces).collect::<Vec<_>>(), [3, 2, 0, 1, 1]);
        assert!((rate_of(&done) - 7.0 / 2.1).abs() < 1e-6);
    }

    #[test]
    fn energy_is_laid_on_tokens_and_on_nothing_else() {
        let span = vec![Second { tokens: 4.0, seconds: 0.5, ..Second::default() }; 10];
        assert_eq!((joules_per_token(8.0, &span), joules_per_token(8.0, &[])), (Some(2.0), None));
        assert_eq!(joules_per_token(8.0, &vec![Second::default(); 600]), None);
    }

    #[test]
    fn a_curve_goes_over_its_gaps_and_not_beyond_its_ends() {
        let span: Vec<Second> = [None, Some(1.0), None, Some(3.0), None].map(|celsius| Second { celsius, ..Second::default() }).into();
        assert_eq!(curve(&span, |s| s.celsius), [1.0, 1.0, 3.0]);
        assert!(curve(&span, |s| s.watts).is_empty() && curve(&[], |s| s.celsius).is_empty());
    }

    #[test]
    fn prompts_stand_beside_what_counts_and_make_a_span_mixed() {
        let mut bins = Bins::default();
        let mut done = bins.prompt(0.0, 2.5, 100);
        bins.current().first_token_ms.push(2500.0);
        done.extend(bins.tokens(2.5, 4.0, 15));
        done.extend(bins.pass(6.0));
        assert_eq!(done.iter().map(|s| s.prompt_tokens.round()).collect::<Vec<_>>(), [40.0, 40.0, 20.0, 0.0, 0.0, 0.0]);
        assert_eq!(done.iter().map(|s| (s.tokens * 10.0).round() / 10.0).collect::<Vec<_>>(), [0.0, 0.0, 5.0, 10.0, 0.0, 0.0]);
        assert_eq!((done[2].first_token_ms.len(), done[2].seconds, done[2].prompt_seconds), (1, 0.5, 0.5));
        assert!(is_mixed(&done) && !is_mixed(&done[3..4]));
    }

    #[test]
    fn speeds_of_a_mixed_load_are_of_minutes_and_weigh_no_scrap_of_an_answer() {
        // Turns of 20 s, of which 10 work; the first second of each has a hundredth of work and a mad rate.
        let second = |i: usize| match i % 20 {
            0 => Second { tokens: 5.0, seconds: 0.01, ..Second::default() },
            1..=10 => Second { tokens: 8.0, seconds: 1.0, ..Second::default() },
            _ => Second::default(),
        };
        let span: Vec<Second> = (0..650).map(second).collect();
        let (each, step) = speeds(&span);
        assert!(step == 60 && each.len() == 10 && each.iter().all(|v| (v - 8.5).abs() < 0.02), "{each:?}");
        let lowest = window_rates(&span, 10).into_iter().fold(f64::INFINITY, f64::min);
        assert!((7.9..8.6).contains(&lowest), "{lowest}");
        let plain = vec![Second { tokens: 8.0, seconds: 1.0, ..Second::default() }; 100];
        assert_eq!(speeds(&plain), (vec![8.0; 100], 1));
    }

    #[test]
    fn a_token_slower_than_a_second_fills_several() {
        let mut bins = Bins::default();
        let done = bins.token(0.0, 3.5);
        assert_eq!(done.len(), 3);
        assert!(done.iter().all(|s| (s.rate().unwrap() - 1.0 / 3.5).abs() < 1e-9));
    }
}
