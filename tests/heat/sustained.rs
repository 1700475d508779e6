//! `hearth bench --sustained` as a person or a script calls it: on simulated boards in full, on this machine for a few seconds.

use crate::process::{end_of, ended};
use crate::{hearth, printed, refused};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
fn a_run_ended_by_a_signal_keeps_what_it_measured_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("m.gguf"), dir.path().join("out"));
    let (model, folder) = (model.to_str().unwrap(), out.to_str().unwrap());
    printed(&["synth", "tiny", "F32", model]);
    let run = ["bench", "--sustained", "-m", model, "-t", "1", "--minutes", "60", "--cool", "0", "--out", folder];
    for signal in ["INT", "HUP"] {
        // Some seconds of work must be there first; how soon they are, the machine decides.
        let cut_after = |seconds: u64| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
            command.args(run).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let command = command.spawn().unwrap();
            std::thread::sleep(Duration::from_secs(seconds));
            assert!(ended(Command::new("kill").args([&format!("-{signal}"), &command.id().to_string()])).status.success());
            end_of(command)
        };
        let too_soon =
            |output: &Output| output.status.signal().is_some() || String::from_utf8_lossy(&output.stderr).contains("nothing was");
        let output = [8, 16, 32, 64].into_iter().map(cut_after).find(|o| !too_soon(o)).expect("no five seconds of work in 64 s");
        let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(table.contains("NO: cut short by a signal after") && !table.contains("sustained  "), "{table}");
        assert!(said.contains("record, series and picture") && said.contains("no sustained figure"), "{said}");
        let record = json(&std::fs::read_to_string(only(&out, "json")).unwrap());
        let figures = &record["figures"];
        assert!(figures["cut_short"] == true && figures["steady"] == false && figures["peak_tok_s"].as_f64().unwrap() > 0.0, "{record}");
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_governor_is_measured_against_off() {
    let run = ["bench", "--sustained", "--simulate", "rk3588-cliff75", "--room", "30", "--governor", "performance", "--against-off"];
    let table = printed(&run);
    for part in ["eight legs of 25 min, ABBA BAAB", "b against a", "b is not worse", "SIMULATED"] {
        assert!(table.contains(part), "`{part}` is missing from\n{table}");
    }
    let dir = tempfile::tempdir().unwrap();
    let answer = json(&printed(&[&run[..], &["--json", "--out", dir.path().to_str().unwrap()]].concat()));
    // The figures are the first leg's, and so is their governor.
    assert_eq!((answer["governor"].as_str(), answer["governor_b"].as_str()), (Some("off"), Some("performance")));
    assert!(table.contains("governor off;") && table.contains("b = performance"), "{table}");
    assert!(std::fs::read_to_string(only(dir.path(), "svg")).unwrap().contains("governor off"));
    let versus = &answer["versus"];
    let order: String = versus["legs"].as_array().unwrap().iter().map(|l| l["setting"].as_str().unwrap()).collect();
    assert_eq!(order, "abbabaab");
    assert!(versus["speed"]["low"].as_f64().unwrap() > 0.0 && versus["not_worse"] == true, "{versus}");
}

#[test]
fn a_mixed_load_tells_how_long_its_first_tokens_take_and_draws_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let run = ["bench", "--sustained", "--simulate", "rk3588-bare-stepwise", "--load", "voice", "--out", out];
    let answer = json(&printed(&[&run[..], &["--json"]].concat()));
    let turns = &answer["figures"]["turns"];
    let ms = |name: &str| turns["first_token_ms"][name].as_f64().unwrap();
    let at_first = turns["first_token_ms_at_first"].as_f64().unwrap();
    assert!((4700.0..5300.0).contains(&at_first) && ms("p50") > at_first && ms("p50") <= ms("p95") && ms("p95") <= ms("max"), "{turns}");
    assert_eq!((answer["turn"]["load"].as_str(), answer["boards"].as_u64()), (Some("voice"), Some(1)));
    // Every first token stands in the series.
    let series = std::fs::read_to_string(only(dir.path(), "csv")).unwrap();
    let column = series.lines().next().unwrap().split(',').position(|c| c == "first_token_ms").unwrap();
    let told = series.lines().skip(1).filter(|l| !l.split(',').nth(column).unwrap().is_empty()).count();
    assert!(told as u64 >= turns["count"].as_u64().unwrap(), "{told}");
    let picture = std::fs::read_to_string(only(dir.path(), "svg")).unwrap();
    assert!(picture.contains("first token 5.0") && picture.contains("to its first token"));
    // Prompts alone are a load too.
    let prompts = printed(&["bench", "--sustained", "--simulate", "pi5-bare", "--load", "prefill"]);
    assert!(
        prompts.contains("100.00 tok/s") && prompts.contains("tokens are the prompts'") && !prompts.contains("first token"),
        "{prompts}"
    );
    // In eight legs the first tokens are compared as well.
    let legs = printed(&[
        "bench",
        "--sustained",
        "--simulate",
        "rk3588-bare-stepwise",
        "--load",
        "voice",
        "--governor",
        "performance",
        "--against-off",
    ]);
    assert!(legs.contains("to the first token") && legs.contains("first token after"), "{legs}");
}

#[test]
fn this_machine_takes_turns_and_says_where_its_threads_are_and_what_others_took() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    printed(&["synth", "tiny", "F32", model.to_str().unwrap()]);
    let model = model.to_str().unwrap();
    // Short turns but for their silence of 8 s: one ends in 12 s, and its first token is long past.
    let run =
        ["bench", "--sustained", "-m", model, "-t", "1", "--load", "voice", "-p", "8", "-n", "4", "--minutes", "0.4", "--cool", "0.02"];
    let answer = json(&printed(&[&run[..], &["--json"]].concat()));
    let f = &answer["figures"];
    assert!(f["turns"]["turn_s"].as_f64().unwrap() >= 8.0 && f["turns"]["first_token_ms"]["p50"].as_f64().unwrap() > 0.0, "{f}");
    assert_eq!((&answer["turn"]["prompt_tokens"], &answer["turn"]["answer_tokens"]), (&Value::from(8), &Value::from(4)));
    let machine = &answer["machine"];
    assert!(!machine["affinity"].as_str().unwrap().is_empty() && machine["wait_policy"].as_str().unwrap().contains("sleeps"), "{machine}");
    if Path::new("/proc/stat").exists() {
        let [others, stolen] = ["others", "stolen"].map(|part| f["contention"][part].as_f64().unwrap());
        assert!((0.0..=1.0).contains(&others) && (0.0..=1.0).contains(&stolen), "{f}");
    }
    let prompts = ["bench", "--sustained", "-m", model, "-t", "1", "--load", "prefill", "-p", "16", "--minutes", "0.05", "--cool", "0.02"];
    assert!(json(&printed(&[&prompts[..], &["--json"]].concat()))["figures"]["peak_tok_s"].as_f64().unwrap() > 0.0);
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
    let absent = refused(&["bench", "--compare", &bare, "/no/such.json"]);
    assert!(absent.contains("/no/such.json") && absent.matches("No such file").count() == 1, "{absent}");
    assert!(refused(&["bench", "--compare", &bare, dir.path().to_str().unwrap()]).contains("directory"));
    assert!(refused(&["bench", "--compare", "/dev/zero", &bare]).contains("longer than"));
    let cut = of("pi5-bare");
    assert!(refused(&["bench", "--compare", &file("cut.json", &cut[..cut.len() / 2]), &bare]).contains("cut.json"));
    let lame = cut.replace("\"peak_tok_s\":", "\"peak_tok_s\":\"\",\"was\":");
    assert!(refused(&["bench", "--compare", &file("lame.json", &lame), &bare]).contains("lame.json: neither"));
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line() {
    assert!(refused(&["bench", "--sustained", "--simulate", "toaster"]).contains("there are"));
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--against-off"]).contains("--governor"));
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--room", "300"]).contains("−20 to 60"));
    assert!(refused(&["bench", "--sustained"]).contains("-m FILE"));
    assert!(refused(&["bench", "--sustained", "-m", "/dev/zero"]).contains("is a device"));
    assert!(refused(&["bench", "--sustained", "-m", "/no/such.gguf"]).contains("/no/such.gguf"));
    let out = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(&["bench", "--sustained", "--simulate", "pi5-bare", "--out", out.path().to_str().unwrap()]).contains("cannot be made"));
    for (wrong, word) in [
        (&["--simulate", "pi5-bare", "-p", "8"][..], "lengths of their own"),
        (&["--simulate", "pi5-bare", "--minutes", "0"], "in no time"),
        (&["--simulate", "pi5-bare", "--governor", "eco", "--against-off", "--leg", "0"], "in no time"),
        (&["--simulate", "pi5-bare", "--room", "NaN"], "−20 to 60"),
        (&["-m", "/no/such.gguf", "--room", "-60"], "−20 to 60"),
        (&["-m", "/no/such.gguf", "--load", "voice", "-n", "0"], "-n"),
        (&["-m", "/no/such.gguf", "-p", "0"], "-p"),
        (&["-m", "/no/such.gguf", "--load", "prefill", "-n", "64"], "leave -n out"),
    ] {
        let told = refused(&[&["bench", "--sustained"], wrong].concat());
        assert!(told.contains(word), "{wrong:?}: {told}");
    }
    // Wrong usage names what it was, before anything is done.
    for (wrong, word) in [
        (&["--sustained", "--minutes", "-1"][..], "--minutes"),
        (&["--simulate", "pi5-bare"], "--sustained"),
        (&["-m", "m.gguf", "--against-off", "--governor", "eco"], "--sustained"),
        (&["-m", "m.gguf", "--out", "runs"], "--sustained"),
        (&["--sustained", "--simulate", "pi5-bare", "-m", "m.gguf"], "--model"),
        (&["--sustained", "--simulate", "pi5-bare", "-t", "2"], "--threads"),
        (&["--sustained", "--simulate", "pi5-bare", "--leg", "5"], "--against-off"),
        (&["--sustained", "--simulate", "pi5-bare", "--load", "dance"], "voice"),
        (&["--sustained", "--simulate", "pi5-bare", "--governor", "turbo"], "performance"),
        (&["--sustained", "-m", "m.gguf", "--batch", "4"], "--batch"),
        (&["--sustained", "-m", "m.gguf", "-p", "18446744073709551615"], "1048576"),
        (&["-m", "m.gguf", "-n", "100000000"], "1048576"),
        (&["--sustained", "-m", "m.gguf", "-r", "4"], "--rounds"),
        (&["--sustained", "--simulate", "pi5-bare", "--room-sensor", "/x"], "--room-sensor"),
        (&["--compare", "a.json"], "--compare"),
        (&["--compare", "a.json", "b.json", "--sustained"], "--compare"),
    ] {
        let output = hearth(&[&["bench"], wrong].concat());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(word) && output.stdout.is_empty(), "{wrong:?}: {told}");
    }
}

#[test]
fn a_room_without_a_thermometer_where_one_is_named_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    printed(&["synth", "tiny", "F32", model.to_str().unwrap()]);
    let sensor = dir.path().join("room");
    let run = |sensor: &Path| refused(&["bench", "--sustained", "-m", model.to_str().unwrap(), "--room-sensor", sensor.to_str().unwrap()]);
    assert!(run(&sensor).contains("--room-sensor") && run(&sensor).contains("not there"));
    std::fs::write(&sensor, "warm\n").unwrap();
    assert!(run(&sensor).contains("`warm` is no reading"));
    // A pipe that nobody writes to would hold up whoever opens it.
    let pipe = dir.path().join("pipe");
    assert!(ended(Command::new("mkfifo").arg(&pipe)).status.success());
    for other in [dir.path(), &pipe] {
        assert!(run(other).contains(&format!("--room-sensor: {}: is no file", other.display())), "{}", run(other));
    }
}

#[test]
fn top_without_a_terminal_says_so_in_one_line() {
    assert!(refused(&["top"]).contains("hearth status --json"));
}
