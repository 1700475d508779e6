//! Two runs side by side: records of `hearth bench --sustained`, the JSON of `hearth bench`, and the JSON or JSON lines of llama.cpp's
//! `llama-bench`, whose figures are peaks without heat and are shown as such.

use super::load::Load;
use super::record::{KIND, Record, VERSION, source_words, threads_words};
use super::series::Source;
use super::steady::ColdStart;
use super::sustained::Sustained;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files longer than this are none of ours.
const BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: std::io::Error },
    #[error("{path}: neither JSON of `hearth bench` (with --sustained or without) nor of llama-bench: {reason}")]
    Foreign { path: PathBuf, reason: String },
}

/// What can be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Sustained(Box<Record>),
    Peak(Peak),
}

/// The peaks of a tool that does not look at heat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peak {
    /// `hearth bench` or `llama-bench`.
    pub tool: &'static str,
    pub model: String,
    pub threads: usize,
    pub prefill_tok_s: Option<f64>,
    pub decode_tok_s: Option<f64>,
}

/// Both, row by row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    pub rows: Vec<Row>,
    /// Why the figures may not be comparable.
    pub careful: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub what: &'static str,
    pub unit: &'static str,
    pub a: Option<f64>,
    pub b: Option<f64>,
    /// b ÷ a − 1.
    pub change: Option<f64>,
}

/// Reads one file.
pub fn read(path: &Path) -> Result<Entry, CompareError> {
    let file = |reason| CompareError::File { path: path.to_owned(), reason };
    let foreign = |reason: String| CompareError::Foreign { path: path.to_owned(), reason };
    // A pipe will do, and has no length to ask for.
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(file)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(foreign(format!("longer than {BYTES_MAX} bytes")));
    }
    parse(&String::from_utf8_lossy(&bytes)).map_err(foreign)
}

/// Reads a text.
pub fn parse(text: &str) -> Result<Entry, String> {
    let values: Vec<Value> = serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    match values.as_slice() {
        [Value::Array(runs)] => llama_bench(runs),
        [run] if run["avg_ts"].is_number() => llama_bench(&values),
        [one] if one["kind"] == KIND => {
            if one["version"] != VERSION {
                return Err(format!("a record of version {}, and this Hearth reads {VERSION}", one["version"]));
            }
            let record: Record = serde_json::from_value(one.clone()).map_err(|e| format!("a record, but {e}"))?;
            match fault(&record) {
                Some(fault) => Err(format!("a record, but {fault}")),
                None => Ok(Entry::Sustained(Box::new(record))),
            }
        }
        [one] if one["decode_tok_s"].is_number() => Ok(Entry::Peak(Peak {
            tool: "hearth bench",
            model: one["model"].as_str().unwrap_or_default().to_owned(),
            threads: count(&one["threads"]),
            prefill_tok_s: positive(&one["prefill_tok_s"]),
            decode_tok_s: positive(&one["decode_tok_s"]),
        })),
        [] => Err("it is empty".into()),
        [_] => Err("it has none of their fields".into()),
        _ => llama_bench(&values),
    }
}

/// Why a record's figures cannot be what was measured.
fn fault(record: &Record) -> Option<&'static str> {
    let f = &record.figures;
    let [low, high] = f.sustained_95;
    if f.peak_tok_s < 0.0 || f.sustained_tok_s < 0.0 {
        Some("a speed below 0")
    } else if low > high {
        Some("`sustained_95` ends before it begins")
    } else if f.steady && f.sustained_tok_s == 0.0 {
        Some("steady at 0 tok/s")
    } else {
        None
    }
}

/// The best run of each kind: prompts (`n_prompt`) and generation (`n_gen`), into an empty context where there are such; mixed ones are
/// neither. Of one model: the best of several would be nobody's.
fn llama_bench(runs: &[Value]) -> Result<Entry, String> {
    let file = |r: &Value| r["model_filename"].as_str().and_then(|f| f.rsplit('/').next()).or(r["model_type"].as_str()).map(str::to_owned);
    let models: BTreeSet<String> = runs.iter().filter_map(file).collect();
    if models.len() > 1 {
        return Err(format!("{} models in one file: {}", models.len(), models.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let shallow = |r: &&Value| r["n_depth"].as_u64().unwrap_or(0) == 0;
    let best = |of: &str, not: &str| {
        let of_kind: Vec<&Value> =
            runs.iter().filter(|r| r[of].as_u64().is_some_and(|n| n > 0) && r[not].as_u64().unwrap_or(0) == 0).collect();
        let has_shallow = of_kind.iter().any(shallow);
        let runs = of_kind.into_iter().filter(|r| !has_shallow || shallow(r));
        runs.filter_map(|r| Some((positive(&r["avg_ts"])?, r))).max_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (prefill, decode) = (best("n_prompt", "n_gen"), best("n_gen", "n_prompt"));
    let run = decode.or(prefill).ok_or("no run with n_prompt or n_gen, and avg_ts")?.1;
    Ok(Entry::Peak(Peak {
        tool: "llama-bench",
        model: models.into_iter().next().unwrap_or_else(|| "unknown".to_owned()),
        threads: count(&run["n_threads"]),
        prefill_tok_s: prefill.map(|p| p.0),
        decode_tok_s: decode.map(|d| d.0),
    }))
}

/// 0 where it is not told.
fn count(value: &Value) -> usize {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

fn positive(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| *v > 0.0 && v.is_finite())
}

impl Entry {
    fn name(&self) -> String {
        match self {
            Entry::Sustained(r) => {
                let threads = threads_words(r.threads);
                format!("{} ({}), {}, {threads}, governor {}", r.board, source_words(r.source), r.model.file, r.governor)
            }
            Entry::Peak(p) if p.threads == 0 => format!("{}, {}", p.tool, p.model),
            Entry::Peak(p) => format!("{}, {}, {}", p.tool, p.model, threads_words(p.threads)),
        }
    }

    fn model(&self) -> &str {
        match self {
            Entry::Sustained(r) => &r.model.file,
            Entry::Peak(p) => &p.model,
        }
    }

    fn threads(&self) -> usize {
        match self {
            Entry::Sustained(r) => r.threads,
            Entry::Peak(p) => p.threads,
        }
    }

    fn figure(&self, pick: impl Fn(&Sustained) -> Option<f64>) -> Option<f64> {
        match self {
            Entry::Sustained(r) => pick(&r.figures),
            Entry::Peak(_) => None,
        }
    }

    /// Under what load a record was made; older ones were decode.
    fn load(&self) -> Option<Load> {
        match self {
            Entry::Sustained(r) => Some(r.turn.map_or(Load::Decode, |t| t.load)),
            Entry::Peak(_) => None,
        }
    }

    fn peak(&self) -> Option<f64> {
        match self {
            Entry::Sustained(r) => (self.load() != Some(Load::Prefill)).then_some(r.figures.peak_tok_s),
            Entry::Peak(p) => p.decode_tok_s,
        }
    }

    fn prefill(&self) -> Option<f64> {
        match self {
            Entry::Sustained(r) => (self.load() == Some(Load::Prefill)).then_some(r.figures.peak_tok_s),
            Entry::Peak(p) => p.prefill_tok_s,
        }
    }
}

/// Two entries side by side, and why they may not be comparable.
pub fn compare(a: &Entry, b: &Entry) -> Comparison {
    let mut rows = Vec::new();
    let mut row = |what, unit, a: Option<f64>, b: Option<f64>| {
        if a.is_some() || b.is_some() {
            let change = a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a - 1.0);
            rows.push(Row { what, unit, a, b, change });
        }
    };
    row("prefill, peak", "tok/s", a.prefill(), b.prefill());
    row("decode, peak", "tok/s", a.peak(), b.peak());
    // What is not steady has no sustained figure to set beside another.
    let steady = |f: &Sustained| f.steady.then_some(f.sustained_tok_s);
    row("sustained", "tok/s", a.figure(steady), b.figure(steady));
    row("of its peak", "", a.figure(|f| f.steady.then_some(f.ratio)), b.figure(|f| f.steady.then_some(f.ratio)));
    let slowest = |f: &Sustained| Some(f.p5_tok_s).filter(|v| *v > 0.0);
    row("slowest 5 %", "tok/s", a.figure(slowest), b.figure(slowest));
    let first = |f: &Sustained| f.turns.as_ref().map(|t| t.first_token_ms);
    row("first token", "ms", a.figure(|f| first(f).map(|t| t.p50)), b.figure(|f| first(f).map(|t| t.p50)));
    row("… at 95 %", "ms", a.figure(|f| first(f).map(|t| t.p95)), b.figure(|f| first(f).map(|t| t.p95)));
    row("turn", "s", a.figure(|f| f.turns.as_ref().map(|t| t.turn_s)), b.figure(|f| f.turns.as_ref().map(|t| t.turn_s)));
    row("at 99 %", "ms/token", a.figure(|f| f.token_ms.map(|t| t.p99)), b.figure(|f| f.token_ms.map(|t| t.p99)));
    row("temperature", "°C", a.figure(|f| f.steady_c), b.figure(|f| f.steady_c));
    row("clock", "MHz", a.figure(|f| f.measured_mhz), b.figure(|f| f.measured_mhz));
    row("… slowest 5 %", "MHz", a.figure(|f| f.measured_p5_mhz), b.figure(|f| f.measured_p5_mhz));
    row("energy", "J/token", a.figure(|f| f.joules_per_token), b.figure(|f| f.joules_per_token));
    row("… net of rest", "J/token", a.figure(|f| f.joules_per_token_net), b.figure(|f| f.joules_per_token_net));
    Comparison { a: a.name(), b: b.name(), rows, careful: warnings(a, b) }
}

impl Comparison {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut out = format!("a: {}\nb: {}\n", self.a, self.b);
        let cell = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.3}"));
        for row in &self.rows {
            let change = row.change.map_or(String::new(), |c| format!("b is {:+.1} %", 100.0 * c));
            let line = format!("  {:13} {:>10} {:>10} {:8} {change}", row.what, cell(row.a), cell(row.b), row.unit);
            out += &format!("{}\n", line.trim_end());
        }
        for warning in &self.careful {
            out += &format!("  careful: {warning}\n");
        }
        out
    }
}

fn warnings(a: &Entry, b: &Entry) -> Vec<String> {
    let mut all = Vec::new();
    if a.model() != b.model() && !a.model().is_empty() && !b.model().is_empty() {
        all.push(format!("the models differ, or their names do: {} and {}", a.model(), b.model()));
    }
    let told = |n: usize| n > 0;
    if a.threads() != b.threads() && told(a.threads()) && told(b.threads()) {
        all.push(format!("{} against {}", threads_words(a.threads()), threads_words(b.threads())));
    }
    match (a, b) {
        (Entry::Sustained(a), Entry::Sustained(b)) => {
            if a.source != b.source {
                let [a, b] = [a, b].map(|r| source_words(r.source));
                all.push(format!("a is {a}, b is {b}: these figures do not belong in one table"));
            }
            if a.turn.is_some() && b.turn.is_some() && a.turn != b.turn {
                all.push(format!("the loads differ: {} / {}", a.workload, b.workload));
            }
            if a.model.file == b.model.file && a.model.sha256 != b.model.sha256 {
                all.push("the model files have the same name and are not the same".into());
            }
            if let (Some(x), Some(y)) = (a.room(), b.room())
                && (x - y).abs() > 1.0
            {
                all.push(format!("the rooms differ by {:.0} K; 1 K is worth 1–3 % on a hot board", (x - y).abs()));
            }
            if a.power_place != b.power_place {
                all.push("power was metered at different places".into());
            }
            for (name, r) in [("a", a), ("b", b)] {
                if !r.figures.steady {
                    all.push(format!("{name} was not steady, so it has no sustained figure: {}", r.figures.unsteady_because));
                }
                if let Some(early) = r.figures.peak_contention.filter(|c| c.is_too_much()) {
                    all.push(format!(
                        "{name} did not have its machine to itself in the first minute ({}), so its peak may be too low",
                        early.words()
                    ));
                }
                match r.figures.cold_start {
                    ColdStart { is_cold: Some(false), .. } => all.push(format!("{name} did not start cold, so its peak may be too low")),
                    ColdStart { waited_s: 0, .. } => all.push(format!("{name} began without rest, so its peak may be too low")),
                    _ => (),
                }
            }
            if a.source != Source::Simulated && b.source != Source::Simulated {
                let boards = if a.board == b.board { "boards of one name" } else { "boards" };
                all.push(format!("n = 1 run each, of {boards}: others have to repeat it before the difference is more than an anecdote"));
            }
        }
        (Entry::Peak(p), Entry::Sustained(_)) | (Entry::Sustained(_), Entry::Peak(p)) => {
            all.push(format!("{} knows no heat: its figure stands beside the peak only", p.tool));
        }
        (Entry::Peak(_), Entry::Peak(_)) => (),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::super::series::Source;
    use super::*;

    const LLAMA: &str = r#"[
        {"model_filename":"/models/m.gguf","model_type":"llama 1B Q4_K","n_threads":4,"n_gen":0,"n_prompt":512,"avg_ts":90.0},
        {"model_filename":"/models/m.gguf","model_type":"llama 1B Q4_K","n_threads":4,"n_gen":128,"n_prompt":0,"avg_ts":11.5},
        {"model_filename":"/models/m.gguf","n_threads":4,"n_gen":128,"n_prompt":512,"avg_ts":70.0}]"#;

    fn ours(source: Source) -> Entry {
        Entry::Sustained(Box::new(record(source)))
    }

    #[test]
    fn a_record_survives_its_file() {
        let text = serde_json::to_string_pretty(&record(Source::Real)).unwrap();
        assert_eq!(parse(&text).unwrap(), ours(Source::Real));
    }

    #[test]
    fn real_and_simulated_are_never_compared_in_silence() {
        let told = compare(&ours(Source::Real), &ours(Source::Simulated)).table();
        assert!(told.contains("a is measured on the board, b is SIMULATED") && told.contains("do not belong in one table"), "{told}");
        let alike = compare(&ours(Source::Real), &ours(Source::Real)).careful;
        assert!(alike.len() == 1 && alike[0].contains("n = 1 run each, of boards of one name"), "{alike:?}");
        assert!(compare(&ours(Source::Simulated), &ours(Source::Simulated)).careful.is_empty());
    }

    #[test]
    fn what_is_not_steady_has_no_sustained_figure() {
        let mut short = record(Source::Real);
        (short.figures.steady, short.figures.unsteady_because) = (false, "too short".into());
        let told = compare(&ours(Source::Real), &Entry::Sustained(Box::new(short)));
        let row = told.rows.iter().find(|r| r.what == "sustained").unwrap();
        assert_eq!((row.a, row.b, row.change), (Some(10.0), None, None));
        assert!(told.careful[0].contains("b was not steady"));
    }

    #[test]
    fn rooms_are_compared_by_their_thermometers_and_a_start_without_rest_is_told() {
        let of = |measured: Option<[f64; 2]>, waited_s: usize| {
            let mut r = Record { room_c: None, threads: waited_s.min(3) + 1, ..record(Source::Simulated) };
            (r.figures.room_c, r.figures.cold_start) = (measured, ColdStart { waited_s, ..ColdStart::default() });
            Entry::Sustained(Box::new(r))
        };
        let careful = |a, b| compare(&a, &b).careful;
        assert!(careful(of(Some([22.0, 23.0]), 3), of(None, 3)).is_empty());
        let told = careful(of(Some([22.0, 23.0]), 3), of(Some([26.0, 27.0]), 3));
        assert!(told.len() == 1 && told[0].contains("rooms differ by 4 K"), "{told:?}");
        assert!(careful(ours(Source::Simulated), of(Some([26.0, 26.0]), 4))[0].contains("rooms differ by 4 K"), "one by its owner's word");
        let told = careful(of(None, 1), of(None, 0));
        assert_eq!(told, ["2 threads against 1 thread", "b began without rest, so its peak may be too low"]);
    }

    #[test]
    fn llama_bench_stands_beside_the_peak_only_as_json_and_as_lines() {
        let entry = parse(LLAMA).unwrap();
        let runs: Vec<Value> = serde_json::from_str(LLAMA).unwrap();
        let lines: String = runs.iter().map(|r| format!("{r}\n")).collect();
        assert_eq!(parse(&lines).unwrap(), entry);
        assert!(matches!(parse(&runs[1].to_string()).unwrap(), Entry::Peak(Peak { decode_tok_s: Some(11.5), prefill_tok_s: None, .. })));
        let told = compare(&ours(Source::Real), &entry).table();
        let silent = parse(r#"[{"model_filename":"m.gguf","n_gen":128,"n_prompt":0,"avg_ts":11.5}]"#).unwrap();
        let beside = compare(&ours(Source::Real), &silent).table();
        assert!(beside.contains("b: llama-bench, m.gguf\n") && !beside.contains("0 threads"), "{beside}");
        assert!(told.contains("b is +15.0 %") && told.contains("beside the peak only") && !told.contains("models differ"), "{told}");
    }

    #[test]
    fn a_sweep_of_llama_bench_counts_its_best_run_into_an_empty_context_and_two_models_are_nobodys_figure() {
        let run = |model: &str, threads: u32, depth: u32, rate: f64| {
            serde_json::json!({"model_filename": format!("m/{model}"), "n_threads": threads, "n_prompt": 0, "n_gen": 128,
                "n_depth": depth, "avg_ts": rate})
        };
        let sweep = serde_json::json!([run("a.gguf", 2, 0, 7.0), run("a.gguf", 4, 0, 11.0), run("a.gguf", 3, 512, 12.0)]);
        let Entry::Peak(peak) = parse(&sweep.to_string()).unwrap() else { panic!("a peak") };
        assert_eq!((peak.decode_tok_s, peak.threads, peak.model.as_str()), (Some(11.0), 4, "a.gguf"));
        let deep = serde_json::json!([run("a.gguf", 2, 512, 7.0)]);
        assert!(matches!(parse(&deep.to_string()), Ok(Entry::Peak(Peak { decode_tok_s: Some(7.0), .. }))));
        let two = serde_json::json!([run("a.gguf", 4, 0, 11.0), run("b.gguf", 4, 0, 30.0)]);
        assert_eq!(parse(&two.to_string()).unwrap_err(), "2 models in one file: a.gguf, b.gguf");
    }

    #[test]
    fn plain_benches_compare_prompt_and_decode() {
        let bench = r#"{"model":"m.gguf","prefill_tok_s":180.0,"decode_tok_s":23.0,"threads":4}"#;
        let told = compare(&parse(LLAMA).unwrap(), &parse(bench).unwrap());
        let changes: Vec<f64> = told.rows.iter().filter_map(|r| r.change).collect();
        assert_eq!(changes, [1.0, 1.0]);
        assert!(told.careful.is_empty(), "{:?}", told.careful);
    }

    #[test]
    fn a_mixed_load_compares_its_first_tokens_and_unlike_loads_are_told() {
        use super::super::load::Turn;
        use super::super::sustained::{FirstTokenMs, Turns};
        let voice = |ms: f64, prompt| {
            let mut r = record(Source::Simulated);
            r.turn = Some(Turn::of(Load::Voice, Some(prompt), None));
            r.figures.turns = Some(Turns {
                count: 20,
                first_token_ms_at_first: 1000.0,
                first_token_ms: FirstTokenMs { p50: ms, p95: 1.2 * ms, max: 2.0 * ms },
                prompt_tok_s: 100.0,
                turn_s: 20.0,
                joules_per_turn: None,
            });
            Entry::Sustained(Box::new(r))
        };
        let told = compare(&voice(2000.0, 256), &voice(1500.0, 256));
        let change = |what: &str| told.rows.iter().find(|r| r.what == what).and_then(|r| r.change);
        assert_eq!((change("first token"), change("… at 95 %"), change("turn")), (Some(-0.25), Some(-0.25), Some(0.0)));
        assert!(told.careful.is_empty(), "{:?}", told.careful);
        assert!(compare(&voice(2000.0, 256), &voice(1500.0, 100)).careful[0].starts_with("the loads differ"));
    }

    #[test]
    fn foreign_json_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "[1]",
            "{\"kind\":\"x\"}",
            "not json",
            "[{\"n_gen\":1,\"avg_ts\":\"fast\"}]",
            "{\"kind\":\"hearth-sustained\",\"version\":1}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (at, value, want) in [
            ("/figures/peak_tok_s", serde_json::json!("fast"), "invalid type"),
            ("/figures/peak_tok_s", serde_json::json!(-1.0), "a speed below 0"),
            ("/figures/sustained_95", serde_json::json!([12.0, 8.0]), "ends before"),
            ("/figures/sustained_tok_s", serde_json::json!(0.0), "steady at 0"),
            ("/source", serde_json::json!("dreamt"), "unknown variant"),
        ] {
            let mut record = serde_json::to_value(record(Source::Real)).unwrap();
            *record.pointer_mut(at).unwrap() = value;
            let told = parse(&record.to_string()).unwrap_err();
            assert!(told.contains(want) && told.lines().count() == 1, "{at}: {told}");
        }
        let told = parse("{\"kind\":\"hearth-sustained\",\"version\":7}").unwrap_err();
        assert!(told.contains("version 7"), "{told}");
    }
}
