//! The last minutes of the daemon, a sample a report, and what it said last.

use super::feed::{Counts, News};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the curves show.
pub const SPAN: Duration = Duration::from_secs(300);
/// Reports come once a second; a daemon that sends more must not fill the memory.
const SAMPLES_MAX: usize = 2 * SPAN.as_secs() as usize;
/// After so long without a report the figures are no longer the present.
const STALE: Duration = Duration::from_secs(5);

/// One report's figures for the curves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    pub tok_s: Option<f64>,
    pub celsius: Option<f64>,
    pub gigahertz: Option<f64>,
    pub headroom: Option<f64>,
}

pub struct History {
    pub socket: String,
    samples: VecDeque<(Instant, Sample)>,
    /// The latest report, as `/v1/thermal` gives it.
    pub report: Value,
    pub counts: Counts,
    /// Why there is no daemon.
    pub lost: Option<String>,
    heard: Option<Instant>,
}

impl History {
    pub fn new(socket: String) -> History {
        History { socket, samples: VecDeque::new(), report: Value::Null, counts: Counts::default(), lost: None, heard: None }
    }

    pub fn take(&mut self, news: News, now: Instant) {
        match news {
            News::Thermal(report) => {
                self.samples.push_back((now, Sample::of(&report)));
                while self.samples.len() > SAMPLES_MAX || self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > SPAN) {
                    self.samples.pop_front();
                }
                self.report = report;
                (self.lost, self.heard) = (None, Some(now));
            }
            News::Counts(counts) => self.counts = counts,
            News::Lost(why) => self.lost = Some(why),
            News::Stop => (),
        }
    }

    /// How old the figures are, once they are older than they should be.
    pub fn stale(&self, now: Instant) -> Option<Duration> {
        self.heard.map(|at| now.saturating_duration_since(at)).filter(|age| *age > STALE)
    }

    /// Means of one figure over `columns` equal parts of [`SPAN`], the last one now. Where nothing was heard there is nothing.
    pub fn curve(&self, columns: usize, now: Instant, pick: impl Fn(&Sample) -> Option<f64>) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0u32); columns];
        for (at, sample) in &self.samples {
            let age = now.saturating_duration_since(*at).as_secs_f64() / SPAN.as_secs_f64();
            let back = (age * columns as f64) as usize;
            if let (Some(value), true) = (pick(sample), back < columns) {
                let column = &mut sums[columns - 1 - back];
                *column = (column.0 + value, column.1 + 1);
            }
        }
        sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect()
    }
}

impl Sample {
    fn of(report: &Value) -> Sample {
        let hertz = report["measured"].as_f64().or(report["requested"].as_f64());
        Sample {
            tok_s: report["speed"]["now"].as_f64(),
            celsius: report["temperature"].as_f64(),
            gigahertz: hertz.map(|hz| hz / 1e9),
            headroom: report["decision"]["headroom"].as_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_means_and_gaps_stay_gaps() {
        let start = Instant::now();
        let mut history = History::new(String::new());
        for second in 0..300u32 {
            if !(100..200).contains(&second) {
                let report = json!({"temperature": f64::from(second), "speed": {"now": 10.0}});
                history.take(News::Thermal(report), start + Duration::from_secs(second.into()));
            }
        }
        let now = start + Duration::from_secs(299);
        let curve = history.curve(3, now, |s| s.celsius);
        assert_eq!((curve[0], curve[1]), (Some(49.5), None));
        assert_eq!(curve[2], Some(249.5));
        assert!(history.curve(3, now, |s| s.gigahertz).iter().all(Option::is_none));
        assert!(history.curve(0, now, |s| s.celsius).is_empty());
    }

    #[test]
    fn old_samples_go_and_silence_is_noticed() {
        let start = Instant::now();
        let mut history = History::new(String::new());
        for n in 0..10_000u32 {
            history.take(News::Thermal(json!({})), start + Duration::from_millis(u64::from(n) * 10));
        }
        assert!(history.samples.len() <= SAMPLES_MAX);
        let end = start + Duration::from_secs(100);
        assert_eq!(history.stale(end), None);
        assert!(history.stale(end + Duration::from_secs(60)).is_some());
        history.take(News::Lost("gone".into()), end);
        assert!(history.lost.is_some());
        history.take(News::Thermal(json!({})), end + SPAN * 2);
        assert_eq!((history.lost.clone(), history.samples.len()), (None, 1));
    }
}
