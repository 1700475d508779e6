//! `hearth logits`, as a script calls it.

use crate::tiny::TINY;
use hearth_kernels::quant::Format;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn logits(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"));
    command.arg("logits").arg("-m").arg(model).args(["--kv", "f32", "--exact"]).args(arguments);
    crate::process::ended(&mut command)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).expect("one JSON object")["logits"].take()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn last_all_and_chunks_tell_the_same_logits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = TINY[0].write(&folder, Format::F32);
    let tokens = "1,2,3,5,8,13,21,34";
    let all = json(&logits(&model, &["--tokens", tokens, "--all", "--json"]));
    assert_eq!(all.as_array().expect("a list of lists").len(), 8);
    let near = |a: &Value, b: &Value| numbers(a).iter().zip(numbers(b)).all(|(a, b)| (a - b).abs() < 1e-3);

    let last = json(&logits(&model, &["--tokens", tokens, "--json"]));
    assert_eq!(numbers(&last).len(), 40);
    assert!(near(&last, &all[7]));
    let last_two = json(&logits(&model, &["--tokens", tokens, "--last", "2", "--chunk", "3", "--json"]));
    assert_eq!(last_two.as_array().expect("a list of lists").len(), 2);
    assert!(near(&last_two[0], &all[6]) && near(&last_two[1], &all[7]));
}

#[test]
fn what_cannot_be_computed_is_refused_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = TINY[0].write(&folder, Format::F32);
    for (arguments, told) in [(["--tokens", "1,40"], "40"), (["--tokens=1,2,3", "--ctx=2"], "context of 2")] {
        let output = logits(&model, &arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(told) && error.lines().count() == 1 && output.stdout.is_empty(), "{error}");
    }
    assert_eq!(logits(&model, &["--tokens", "one"]).status.code(), Some(2));
}
