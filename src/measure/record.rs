//! A run as a file: JSON with the machine's text beside the figures, CSV at 1 Hz, and two records side by side. Also reads the JSON of
//! llama.cpp's `llama-bench`, whose figures are peaks without heat and are shown as such.

use super::sustained::{Second, Source, Sustained};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Records longer than this are none of ours.
const BYTES_MAX: u64 = 16 << 20;

/// One run on one board on one day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `hearth-sustained`
    pub kind: String,
    pub version: u32,
    pub source: Source,
    /// Date and time of the end, UTC: `2026-11-24T12:00:00Z`.
    pub date: String,
    pub board: String,
    pub kernel: String,
    /// Case, fan, supply, room: what no file tells.
    pub note: String,
    pub room_c: Option<f64>,
    pub model: String,
    pub threads: usize,
    pub backend: String,
    pub governor: String,
    /// Where watts were metered; figures from different places are not comparable.
    pub power_place: Option<String>,
    pub figures: Sustained,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: neither a record of `hearth bench --sustained` nor JSON of llama-bench: {reason}")]
    Foreign { path: PathBuf, reason: String },
}

/// What can be compared: our record, or the best generation speed of a llama-bench file.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Ours(Box<Record>),
    LlamaBench { model: String, threads: u64, tok_s: f64 },
}

impl Record {
    /// A file name that sorts by board and date.
    pub fn file_stem(&self) -> String {
        let plain = |s: &str| s.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect::<String>();
        let date = self.date.split('T').next().unwrap_or_default();
        format!("{}-{}-{date}", plain(&self.board), if self.source == Source::Simulated { "simulated" } else { "measured" })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let f = &self.figures;
        let source = match self.source {
            Source::Real => "REAL board",
            Source::Pc => "PC, not a board",
            Source::Simulated => "SIMULATED, nothing was measured",
        };
        let number = |v: Option<f64>, unit: &str| v.map_or("not metered".into(), |v| format!("{v:.1} {unit}"));
        let state = if f.steady {
            "steady".into()
        } else {
            format!("NOT steady: {:+.1} % in 10 min over the last {} min", f.drift_percent, f.window_s / 60)
        };
        let throttled = if f.throttled.is_empty() {
            "never in the window".into()
        } else {
            f.throttled.iter().map(|(why, share)| format!("{:.0} % of the window ({why})", 100.0 * share)).collect::<Vec<_>>().join(", ")
        };
        let place = self.power_place.as_deref().unwrap_or("no meter");
        let room = self.room_c.map_or(String::new(), |c| format!(", room {c:.0} °C"));
        [
            format!("{} — {source}{room}", self.board),
            format!("  {}, {} threads, {}, governor {}; {}", self.model, self.threads, self.backend, self.governor, self.date),
            format!("  peak        {:8.2} tok/s", f.peak_tok_s),
            format!("  sustained   {:8.2} tok/s  [{:.2} … {:.2}]   {:.0} % of peak  ({state})", f.sustained_tok_s, f.sustained_95[0], f.sustained_95[1], 100.0 * f.ratio),
            format!("  slowest 5 % {:8.2} tok/s over 10 s", f.p5_tok_s),
            format!("  heat        {} → {}, at most {}; τ {:.0} s", number(f.start_c, "°C"), number(f.steady_c, "°C"), number(f.max_c, "°C"), f.tau_s),
            format!("  throttled   {throttled}{}", f.first_throttled_s.map_or(String::new(), |s| format!(", first after {s} s"))),
            format!("  clock       asked {}, measured {}", number(f.requested_mhz, "MHz"), number(f.measured_mhz, "MHz")),
            format!("  power       {} ({place}), {} gross, {} net of rest", number(f.watts, "W"), number(f.joules_per_token.map(|j| j * 1000.0), "mJ/token"), number(f.joules_per_token_net.map(|j| j * 1000.0), "mJ/token")),
            format!("  run         {} min, figures over the last {} min", f.run_s / 60, f.window_s / 60),
        ]
        .map(|l| l + "\n")
        .concat()
    }
}

/// The series at 1 Hz.
pub fn csv(seconds: &[Second]) -> String {
    let mut out = String::from("second,tokens,seconds,celsius,skin_celsius,requested_mhz,measured_mhz,throttled,watts\n");
    let field = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.3}"));
    for (i, s) in seconds.iter().enumerate() {
        out += &format!(
            "{i},{:.4},{:.4},{},{},{},{},{},{}\n",
            s.tokens, s.seconds, field(s.celsius), field(s.skin_celsius), field(s.requested_mhz), field(s.measured_mhz), s.throttled, field(s.watts)
        );
    }
    out
}

/// Reads a record of ours or a llama-bench JSON.
pub fn read(path: &Path) -> Result<Entry, RecordError> {
    let file = |source| RecordError::File { path: path.to_owned(), source };
    let foreign = |reason: String| RecordError::Foreign { path: path.to_owned(), reason };
    if std::fs::metadata(path).map_err(file)?.len() > BYTES_MAX {
        return Err(foreign(format!("longer than {BYTES_MAX} bytes")));
    }
    parse(&std::fs::read_to_string(path).map_err(file)?).map_err(foreign)
}

fn parse(text: &str) -> Result<Entry, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if let Some(runs) = value.as_array() {
        // llama-bench writes an array of runs; those that generate have n_gen > 0.
        let generating = runs.iter().filter(|r| r["n_gen"].as_u64().is_some_and(|n| n > 0));
        let best = generating.filter_map(|r| Some((r["avg_ts"].as_f64()?, r))).max_by(|a, b| a.0.total_cmp(&b.0));
        let (tok_s, run) = best.ok_or("no run with n_gen and avg_ts")?;
        let model = run["model_type"].as_str().or(run["model_filename"].as_str()).unwrap_or("unknown").to_owned();
        return Ok(Entry::LlamaBench { model, threads: run["n_threads"].as_u64().unwrap_or(0), tok_s });
    }
    let record: Record = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if record.kind != "hearth-sustained" || record.version != 1 {
        return Err(format!("kind `{}` version {}", record.kind, record.version));
    }
    Ok(Entry::Ours(Box::new(record)))
}

/// Two entries side by side, and why they may not be comparable.
pub fn compare(a: &Entry, b: &Entry) -> String {
    let name = |e: &Entry| match e {
        Entry::Ours(r) => format!("{} ({}, {})", r.board, r.model, r.governor),
        Entry::LlamaBench { model, threads, .. } => format!("llama-bench ({model}, {threads} threads)"),
    };
    let mut out = format!("a: {}\nb: {}\n", name(a), name(b));
    let mut row = |what: &str, a: Option<f64>, b: Option<f64>, unit: &str| {
        let cell = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.3}"));
        let change = a.zip(b).filter(|(a, _)| *a != 0.0).map_or(String::new(), |(a, b)| format!("  b is {:+.1} %", 100.0 * (b / a - 1.0)));
        out += &format!("  {what:11} {:>10} {:>10} {unit}{change}\n", cell(a), cell(b));
    };
    let figure = |e: &Entry, pick: fn(&Sustained) -> Option<f64>| match e {
        Entry::Ours(r) => pick(&r.figures),
        Entry::LlamaBench { .. } => None,
    };
    let peak = |e: &Entry| match e {
        Entry::Ours(r) => Some(r.figures.peak_tok_s),
        Entry::LlamaBench { tok_s, .. } => Some(*tok_s),
    };
    row("peak", peak(a), peak(b), "tok/s");
    row("sustained", figure(a, |f| Some(f.sustained_tok_s)), figure(b, |f| Some(f.sustained_tok_s)), "tok/s");
    row("ratio", figure(a, |f| Some(f.ratio)), figure(b, |f| Some(f.ratio)), "");
    row("steady at", figure(a, |f| f.steady_c), figure(b, |f| f.steady_c), "°C");
    row("energy", figure(a, |f| f.joules_per_token), figure(b, |f| f.joules_per_token), "J/token");
    for warning in warnings(a, b) {
        out += &format!("  careful: {warning}\n");
    }
    out
}

fn warnings(a: &Entry, b: &Entry) -> Vec<String> {
    let mut all = Vec::new();
    match (a, b) {
        (Entry::Ours(a), Entry::Ours(b)) => {
            if a.source != b.source {
                all.push(format!("one is {:?}, the other {:?}: these figures do not belong in one table", a.source, b.source));
            }
            if a.model != b.model {
                all.push("the models differ".into());
            }
            if let (Some(x), Some(y)) = (a.room_c, b.room_c) && (x - y).abs() > 1.0 {
                all.push(format!("the rooms differ by {:.0} K; 1 K is worth 1–3 % on a hot board", (x - y).abs()));
            }
            if a.power_place != b.power_place {
                all.push("power was metered at different places".into());
            }
            if !(a.figures.steady && b.figures.steady) {
                all.push("a run that was not steady has no sustained figure".into());
            }
        }
        _ => all.push("llama-bench rests between repetitions and knows no heat: its figure stands beside our peak only".into()),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::sustained::judge;
    use super::*;

    fn record(source: Source) -> Record {
        let hot = vec![Second { tokens: 10.0, seconds: 1.0, celsius: Some(60.0), ..Second::default() }; 900];
        Record {
            kind: "hearth-sustained".into(),
            version: 1,
            source,
            date: "2026-11-24T12:00:00".into(),
            board: "Raspberry Pi 5".into(),
            kernel: "6.12".into(),
            note: String::new(),
            room_c: Some(22.0),
            model: "m".into(),
            threads: 4,
            backend: "cpu".into(),
            governor: "observe".into(),
            power_place: None,
            figures: judge(&[], &hot),
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let r = record(Source::Real);
        let text = serde_json::to_string(&r).unwrap();
        assert_eq!(parse(&text).unwrap(), Entry::Ours(Box::new(r)));
    }

    #[test]
    fn real_and_simulated_are_never_compared_in_silence() {
        let (a, b) = (Entry::Ours(Box::new(record(Source::Real))), Entry::Ours(Box::new(record(Source::Simulated))));
        assert!(compare(&a, &b).contains("do not belong in one table"));
        assert!(record(Source::Simulated).table().contains("SIMULATED"));
    }

    #[test]
    fn llama_bench_stands_beside_the_peak_only() {
        let text = r#"[{"model_type":"llama 1B Q4_K","n_threads":4,"n_gen":0,"n_prompt":512,"avg_ts":90.0},
                       {"model_type":"llama 1B Q4_K","n_threads":4,"n_gen":128,"n_prompt":0,"avg_ts":11.5}]"#;
        let entry = parse(text).unwrap();
        assert_eq!(entry, Entry::LlamaBench { model: "llama 1B Q4_K".into(), threads: 4, tok_s: 11.5 });
        let told = compare(&Entry::Ours(Box::new(record(Source::Real))), &entry);
        assert!(told.contains("b is +15.0 %") && told.contains("beside our peak only"), "{told}");
    }

    #[test]
    fn foreign_json_is_refused() {
        for text in ["", "{}", "[]", "[1]", "{\"kind\":\"x\"}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
