//! `hearth tokenize` and `hearth detokenize` as scripts call them, over a vocabulary of bytes made here.

mod process;

use hearth::gguf::writer::Plan;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// The bytes 0x00 to 0xFF as tokens 3 to 258, after `<unk>`, `<s>` and `</s>`.
fn vocabulary() -> tempfile::NamedTempFile {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut kinds = vec![6i32; tokens.len()];
    kinds[..3].copy_from_slice(&[2, 3, 3]);
    let mut plan = Plan::new();
    plan.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.add_space_prefix", false);
    plan.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", kinds);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plan.to_bytes([])).unwrap();
    file
}

fn hearth(verb: &str, options: &[&str], input: &str) -> Output {
    let file = vocabulary();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.arg(verb).arg("-m").arg(file.path()).args(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process::end_of(child)
}

fn answer(verb: &str, options: &[&str], input: &str) -> String {
    let output = hearth(verb, options, input);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_line_of_json_makes_a_line_of_json() {
    let texts = "\"ab\"\n\"<s>\"\n\n\"\"";
    assert_eq!(answer("tokenize", &["--jsonl"], texts), "[1,100,101]\n[1,1]\n[1]\n");
    assert_eq!(answer("tokenize", &["--jsonl", "--no-bos"], texts), "[100,101]\n[1]\n[]\n");
    assert_eq!(answer("tokenize", &["--jsonl", "--no-bos", "--no-special"], "\"<s>\""), "[63,118,65]\n");
    assert_eq!(answer("detokenize", &["--jsonl"], "[1,100,101]\n[198]\n[]"), "\"<s>ab\"\n\"\u{FFFD}\"\n\"\"\n");
}

#[test]
fn line_ends_of_unicode_do_not_cut_a_line() {
    assert_eq!(answer("detokenize", &["--jsonl"], "[229,131,171]"), "\"\\u2028\"\n");
}

#[test]
fn people_get_a_token_a_line() {
    assert_eq!(answer("tokenize", &["aé"], ""), answer("tokenize", &[], "aé"));
    let table = answer("tokenize", &["aé"], "");
    assert_eq!(table.lines().nth(1), Some("    100  \"a\""));
    assert_eq!(table.lines().nth(2), Some("    198  \\xc3 (part of a character)"));
    assert_eq!(answer("detokenize", &["100", "101"], ""), "ab\n");
}

#[test]
fn a_wrong_line_is_named() {
    for (verb, input, words) in [
        ("tokenize", "\"a\"\n\"b", "line 2"),
        ("tokenize", "7", "line 1"),
        ("detokenize", "[259]", "259 is not a token"),
        ("detokenize", "[-1]", "line 1"),
    ] {
        let output = hearth(verb, &["--jsonl"], input);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(message.contains(words) && message.lines().count() == 1, "{message}");
    }
}
