//! What is counted over all requests, and its Prometheus text. No prompt, no text and no client's name ever stands in a label.

use crate::service::{Error, Finish, Telemetry};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the histograms' buckets in seconds: from a fast desktop's token to a cold prompt on a small board.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 100.0, 300.0];

/// How a request can end; the label `outcome`.
const OUTCOMES: [&str; 8] = ["stop", "length", "tool_calls", "cancelled", "busy", "refused", "not_ready", "failed"];

/// Counts since the daemon's start.
#[derive(Default)]
pub struct Counts {
    outcomes: [AtomicU64; OUTCOMES.len()],
    first_token: Histogram,
    inter_token: Histogram,
    queue: Histogram,
    /// Milliseconds that the model took to load.
    load_ms: AtomicU64,
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Counts {
    pub fn first_token(&self, after: Duration) {
        self.first_token.add(after);
    }

    pub fn inter_token(&self, gap: Duration) {
        self.inter_token.add(gap);
    }

    pub fn queued(&self, time: Duration) {
        self.queue.add(time);
    }

    pub fn loaded(&self, time: Duration) {
        self.load_ms.store(time.as_millis() as u64, Relaxed);
    }

    pub fn finished(&self, finish: Finish) {
        self.outcome(finish.word());
    }

    /// A request that was not taken, or failed on its way.
    pub fn refused(&self, error: &Error) {
        self.outcome(match error {
            Error::Busy(_) | Error::TooHot => "busy",
            Error::NotReady(_) => "not_ready",
            Error::BadRequest { .. } | Error::ContextFull { .. } | Error::NotFound(_) => "refused",
            Error::Cancelled => "cancelled",
            Error::NoMemory(_) | Error::Failed(_) => "failed",
        });
    }

    pub fn cancelled(&self) {
        self.outcome("cancelled");
    }

    fn outcome(&self, word: &str) {
        if let Some(i) = OUTCOMES.iter().position(|o| *o == word) {
            self.outcomes[i].fetch_add(1, Relaxed);
        }
    }

    /// All of it as text, with the engine's own counts where there is an engine.
    pub fn prometheus(&self, engine: Option<&Telemetry>) -> String {
        let mut out = String::new();
        family(&mut out, "hearth_requests_total", "counter", "Requests by how they ended.");
        for (outcome, count) in OUTCOMES.iter().zip(&self.outcomes) {
            row(&mut out, &format!("hearth_requests_total{{outcome=\"{outcome}\"}}"), count.load(Relaxed) as f64);
        }
        self.first_token.print(&mut out, "hearth_time_to_first_token_seconds", "From a request to the first token of its answer.");
        self.inter_token.print(&mut out, "hearth_inter_token_seconds", "Between two tokens of an answer.");
        self.queue.print(&mut out, "hearth_queue_seconds", "Waiting for a place.");
        family(&mut out, "hearth_model_load_seconds", "gauge", "What the last load of a model took.");
        row(&mut out, "hearth_model_load_seconds", self.load_ms.load(Relaxed) as f64 / 1e3);
        if let Some(t) = engine {
            print_engine(&mut out, t);
        }
        out
    }
}

fn print_engine(out: &mut String, t: &Telemetry) {
    family(out, "hearth_prompt_tokens_total", "counter", "Prompt tokens, computed or known from before.");
    row(out, "hearth_prompt_tokens_total{source=\"computed\"}", t.prompt_computed as f64);
    row(out, "hearth_prompt_tokens_total{source=\"cached\"}", t.prompt_cached as f64);
    family(out, "hearth_generated_tokens_total", "counter", "Tokens of answers.");
    row(out, "hearth_generated_tokens_total", t.generated as f64);
    family(out, "hearth_engine_seconds_total", "counter", "Time inside steps that had prompts, and that had answers only.");
    row(out, "hearth_engine_seconds_total{phase=\"prefill\"}", t.prefill_time.as_secs_f64());
    row(out, "hearth_engine_seconds_total{phase=\"decode\"}", t.decode_time.as_secs_f64());
    family(out, "hearth_requests", "gauge", "Requests now.");
    row(out, "hearth_requests{state=\"running\"}", t.running as f64);
    row(out, "hearth_requests{state=\"waiting\"}", t.waiting as f64);
    family(out, "hearth_kv_blocks", "gauge", "Blocks of key/value memory: all, in use, kept as prefixes.");
    row(out, "hearth_kv_blocks{state=\"all\"}", t.blocks as f64);
    row(out, "hearth_kv_blocks{state=\"held\"}", t.blocks_held as f64);
    row(out, "hearth_kv_blocks{state=\"kept\"}", t.blocks_idle as f64);
}

/// The two lines that stand before a metric's rows.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}"); // writing to a String does not fail
}

pub fn row(out: &mut String, name: &str, value: f64) {
    let _ = writeln!(out, "{name} {value}"); // writing to a String does not fail
}

impl Histogram {
    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(i) = BOUNDS.iter().position(|b| seconds <= *b) {
            self.buckets[i].fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Relaxed);
    }

    fn print(&self, out: &mut String, name: &str, help: &str) {
        family(out, name, "histogram", help);
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            row(out, &format!("{name}_bucket{{le=\"{bound}\"}}"), below as f64);
        }
        let count = self.count.load(Relaxed).max(below);
        row(out, &format!("{name}_bucket{{le=\"+Inf\"}}"), count as f64);
        row(out, &format!("{name}_sum"), self.micros.load(Relaxed) as f64 / 1e6);
        row(out, &format!("{name}_count"), count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_infinity_counts_all() {
        let counts = Counts::default();
        for ms in [1, 7, 7, 1_000_000] {
            counts.first_token(Duration::from_millis(ms));
        }
        let text = counts.prometheus(None);
        let value = |le: &str| {
            let start = format!("hearth_time_to_first_token_seconds_bucket{{le=\"{le}\"}} ");
            text.lines().find_map(|l| l.strip_prefix(&start)).unwrap().to_owned()
        };
        assert_eq!((value("0.005"), value("0.01"), value("300"), value("+Inf")), ("1".into(), "3".into(), "3".into(), "4".into()));
        assert!(text.contains("hearth_time_to_first_token_seconds_sum 1000.015\n"), "{text}");
    }

    #[test]
    fn every_outcome_has_its_row() {
        let counts = Counts::default();
        for finish in [Finish::Stop, Finish::Length, Finish::ToolCalls, Finish::Cancelled] {
            counts.finished(finish);
        }
        counts.refused(&Error::TooHot);
        counts.refused(&Error::NotReady(String::new()));
        counts.refused(&Error::NotFound(String::new()));
        counts.refused(&Error::Failed(String::new()));
        let text = counts.prometheus(None);
        for outcome in OUTCOMES {
            assert!(text.contains(&format!("hearth_requests_total{{outcome=\"{outcome}\"}} 1\n")), "{outcome}: {text}");
        }
    }
}
