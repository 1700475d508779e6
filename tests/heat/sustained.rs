//! `hearth bench --sustained` as a person or a script calls it: on simulated boards in full, on this machine for a few seconds.

use crate::{hearth, printed, refused};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The only file of a folder with this ending.
fn only(folder: &Path, ending: &str) -> PathBuf {
    let found: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn a_simulated_board_leaves_record_series_and_picture() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let answer = json(&printed(&["bench", "--sustained", "--simulate", "pi5-bare", "--note", "on a desk", "--out", out, "--json"]));
    let f = &answer["figures"];
    assert_eq!(
        (answer["kind"].as_str(), answer["source"].as_str(), answer["note"].as_str()),
        (Some("hearth-sustained"), Some("simulated"), Some("on a desk"))
    );
    assert!(f["steady"] == true && f["cold_start"]["is_cold"] == true && f["t80_s"].as_u64().unwrap() > 60, "{f}");
    let (peak, sustained) = (f["peak_tok_s"].as_f64().unwrap(), f["sustained_tok_s"].as_f64().unwrap());
    assert!((0.86..0.94).contains(&(sustained / peak)), "{f}");
    let [low, high] = [0, 1].map(|i| f["sustained_95"][i].as_f64().unwrap());
    assert!(low <= sustained && sustained <= high && high / low < 1.02);
    assert!(f["joules_per_token"].as_f64().unwrap() > f["joules_per_token_net"].as_f64().unwrap());
    assert_eq!(json(&std::fs::read_to_string(only(dir.path(), "json")).unwrap()), answer);
    let series = std::fs::read_to_string(only(dir.path(), "csv")).unwrap();
    let seconds = f["run_s"].as_u64().unwrap() + f["cold_start"]["waited_s"].as_u64().unwrap();
    assert_eq!(series.lines().count() as u64, seconds + 1);
    let picture = std::fs::read_to_string(only(dir.path(), "svg")).unwrap();
    for part in ["SIMULATED", "throttled by heat", "peak ", "sustained ", "minutes of work"] {
        assert!(picture.contains(part), "`{part}` is missing");
    }
    assert!(std::fs::read(only(dir.path(), "png")).unwrap().starts_with(b"\x89PNG"));
    // A second run on the same day stands beside the first.
    printed(&["bench", "--sustained", "--simulate", "pi5-bare", "--out", out]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 8);
}

#[test]
fn this_machine_is_measured_and_a_run_of_seconds_is_not_called_steady() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("m.gguf"), dir.path().join("out"));
    printed(&["synth", "tiny", "F32", model.to_str().unwrap()]);
    let run = [
        "bench",
        "--sustained",
        "-m",
        model.to_str().unwrap(),
        "-t",
        "1",
        "--minutes",
        "0.05",
        "--cool",
        "0.02",
        "--out",
        out.to_str().unwrap(),
    ];
    let output = hearth(&run);
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}");
    assert!(table.contains("NO: 3 s are too short") && table.contains("measured on") && !table.contains("sustained  "), "{table}");
    // Not a terminal: no progress line, only where the record is, and what the sensors had to say.
    assert!(!said.contains('\r') && said.contains("record, series and picture"), "{said}");
    let record = json(&std::fs::read_to_string(only(&out, "json")).unwrap());
    assert!(
        record["figures"]["token_ms"]["p99"].as_f64().unwrap() > 0.0 && record["figures"]["peak_tok_s"].as_f64().unwrap() > 0.0,
        "{record}"
    );
    assert_eq!((record["model"]["file"].as_str(), record["threads"].as_u64()), (Some("m.gguf"), Some(1)));
    assert_eq!(record["model"]["sha256"].as_str().unwrap().len(), 64);
    assert_ne!(record["source"], "simulated");
}

#[test]
fn a_governor_is_measured_against_off() {
    let run = ["bench", "--sustained", "--simulate", "rk3588-cliff75", "--room", "30", "--governor", "performance", "--against-off"];
    let table = printed(&run);
    for part in ["eight legs of 25 min, ABBA BAAB", "b against a", "b is not worse", "SIMULATED"] {
        assert!(table.contains(part), "`{part}` is missing from\n{table}");
    }
    let answer = json(&printed(&[&run[..], &["--json"]].concat()));
    let versus = &answer["versus"];
    let order: String = versus["legs"].as_array().unwrap().iter().map(|l| l["setting"].as_str().unwrap()).collect();
    assert_eq!(order, "abbabaab");
    assert!(versus["speed"]["low"].as_f64().unwrap() > 0.0 && versus["not_worse"] == true, "{versus}");
}

#[test]
fn records_compare_with_each_other_with_plain_benches_and_with_llama_bench() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let of = |plant: &str| printed(&["bench", "--sustained", "--simulate", plant, "--json"]);
    let (bare, cooled) = (file("bare.json", &of("pi5-bare")), file("cooled.json", &of("pi5-active")));
    let table = printed(&["bench", "--compare", &bare, &cooled]);
    assert!(table.contains("sustained") && table.contains("b is +") && table.contains("temperature"), "{table}");
    let rows = json(&printed(&["bench", "--compare", &bare, &cooled, "--json"]))["rows"].clone();
    assert!(rows.as_array().unwrap().iter().any(|r| r["what"] == "sustained" && r["change"].as_f64().unwrap() > 0.05), "{rows}");
    let llama = r#"[{"model_filename":"/m/x.gguf","n_threads":4,"n_prompt":0,"n_gen":128,"avg_ts":11.5}]"#;
    let table = printed(&["bench", "--compare", &bare, &file("llama.json", llama)]);
    assert!(table.contains("llama-bench") && table.contains("beside the peak only"), "{table}");
    let wrong = file("wrong.json", "{\"a\": 1}");
    assert!(refused(&["bench", "--compare", &bare, &wrong]).contains("wrong.json: neither JSON"));
    assert!(refused(&["bench", "--compare", &bare, "/no/such.json"]).contains("/no/such.json"));
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    assert!(refused(&["bench", "--sustained", "--simulate", "toaster"]).contains("there are"));
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--against-off"]).contains("--governor"));
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--room", "300"]).contains("−20 to 60"));
    assert!(refused(&["bench", "--sustained"]).contains("-m FILE"));
    assert!(refused(&["bench", "--sustained", "-m", "/no/such.gguf"]).contains("/no/such.gguf"));
    let out = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--out", out.path().to_str().unwrap()]).contains("cannot be made"));
    assert_eq!(hearth(&["bench", "--sustained", "--minutes", "-1"]).status.code(), Some(2));
}

#[test]
fn top_without_a_terminal_says_so_in_one_line() {
    assert!(refused(&["top"]).contains("hearth status --json"));
}
