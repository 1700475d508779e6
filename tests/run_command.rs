//! `hearth run` as people and scripts call it, on a model made here: random weights, one token a byte.

mod process;

use hearth::gguf::Gguf;
use hearth::gguf::writer::{Format, Plan};
use process::{InTime, end_of, ended, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    fn new() -> Model {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, plan().to_bytes([])).unwrap();
        let program = hearth::model::outline(&Gguf::open(&path).unwrap(), &|_| false).unwrap();
        let mut plan = plan();
        let data: Vec<Vec<u8>> = program
            .weights
            .iter()
            .map(|weight| {
                plan.tensor(&weight.name, Format::F32, &weight.shape.iter().rev().copied().collect::<Vec<_>>());
                let count = weight.shape.iter().product::<usize>();
                // A prime period, so that no two rows are alike.
                (0..count).flat_map(|i| (((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).to_le_bytes()).collect()
            })
            .collect();
        std::fs::write(&path, plan.to_bytes(data.iter().map(Vec::as_slice))).unwrap();
        Model { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tiny.gguf")
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.start(arguments);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        end_of(child)
    }

    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        command.env("CACHE_DIRECTORY", self.folder.path());
        command.arg("run").arg("-m").arg(self.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn plan() -> Plan {
    let mut p = Plan::new();
    p.set("general.architecture", "llama").set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    let sizes =
        [("block_count", 1), ("context_length", 256), ("embedding_length", 32), ("feed_forward_length", 40), ("attention.head_count", 4)];
    for (name, value) in sizes {
        p.set(&format!("llama.{name}"), value as u32);
    }
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
    let marks = ["<|im_start|>", "<|im_end|>"].map(str::to_owned);
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(marks).collect();
    p.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.scores", vec![0f32; tokens.len()]);
    p.set("tokenizer.ggml.token_type", [2, 3, 3].into_iter().chain([6; 256]).chain([3; 2]).collect::<Vec<i32>>());
    p.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.add_space_prefix", false);
    p
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn json_is_one_object_with_the_promised_fields() {
    let model = Model::new();
    let arguments = ["-p", "Hello", "-n", "12", "--temp", "0", "--raw", "--ignore-eos", "--json"];
    let out = model.run(&arguments, "");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["tokens"].as_array().unwrap().len(), 12);
    // The token for the beginning, and one a byte.
    assert_eq!((&answer["prompt_tokens"], &answer["finish_reason"]), (&Value::from(6), &Value::from("length")));
    assert!(answer["text"].is_string() && answer["prefill_tok_s"].as_f64() > Some(0.0) && answer["decode_tok_s"].as_f64() > Some(0.0));
    let again: Value = serde_json::from_slice(&model.run(&arguments, "").stdout).unwrap();
    assert_eq!(again["tokens"], answer["tokens"]);
}

#[test]
fn stdout_is_the_answer_and_nothing_else() {
    let model = Model::new();
    let arguments = ["-n", "12", "--temp", "0", "--raw", "--ignore-eos"];
    let json: Value = serde_json::from_slice(&model.run(&[&arguments[..], &["-p", "Once", "--json"]].concat(), "").stdout).unwrap();
    let plain = model.run(&[&arguments[..], &["-p", "-"]].concat(), "Once");
    assert_eq!(text(&plain.stdout), format!("{}\n", json["text"].as_str().unwrap()));
    assert!(text(&plain.stderr).contains("answer 12 at "), "{}", text(&plain.stderr));
}

#[test]
fn lines_from_a_pipe_are_a_conversation() {
    let model = Model::new();
    let out = model.run(&["-n", "5", "--temp", "0", "--ignore-eos"], "Hello\nAnd now?\n/reset\n/nonsense\nHello\n/exit\nnever\n");
    assert!(out.status.success());
    let told = text(&out.stderr);
    let known: Vec<bool> = told.lines().filter(|l| l.starts_with("[prompt")).map(|l| l.contains("known")).collect();
    assert_eq!(known, [false, true, true], "{told}");
    assert!(told.contains("There is no /nonsense") && !told.contains('\x1b'), "{told}");
}

#[test]
fn a_file_cut_short_between_two_answers_ends_the_conversation_in_one_line() {
    let model = Model::new();
    let mut chat = model.start(&["-n", "5", "--temp", "0", "--ignore-eos"]);
    let mut input = chat.stdin.take().unwrap();
    let mut told = BufReader::new(InTime(chat.stderr.take().unwrap())).lines().map(Result::unwrap);
    writeln!(input, "Hello").unwrap();
    assert!(told.any(|line| line.starts_with("[prompt")), "the first answer comes to its end");
    std::fs::File::options().write(true).open(model.path()).unwrap().set_len(100).unwrap();
    writeln!(input, "And now?").unwrap();
    let told: Vec<String> = told.collect();
    let [line] = &told[..] else { panic!("{told:?}") };
    assert!(line.contains(model.path().to_str().unwrap()) && line.contains("was cut to 100 bytes"), "{line}");
    assert_eq!(wait(&mut chat).code(), Some(1));
}

#[test]
fn too_few_file_descriptors_are_told_in_a_line() {
    let model = Model::new();
    // How many are enough depends on what this process was given open, so the limit goes up until an answer comes.
    let mut refused = 0;
    for limit in 6.. {
        assert!(limit <= 1024, "no answer comes with 1024");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" run -m \"$1\" -p x -n 1")]);
        shell.arg(env!("CARGO_BIN_EXE_hearth")).arg(model.path()).env("CACHE_DIRECTORY", model.folder.path());
        let out = ended(&mut shell);
        let told = text(&out.stderr);
        if out.status.success() {
            break;
        }
        if told.contains("shared libraries") {
            continue; // Too few for the system's loader.
        }
        let is_a_line = told.lines().count() == 1 && told.contains("Too many open files");
        assert!(out.status.code() == Some(1) && is_a_line, "{limit}: {:?} {told}", out.status);
        refused += 1;
    }
    assert!(refused >= 2, "only {refused}");
}

#[test]
fn what_llama_cpps_commands_write_as_minus_one_is_no_bound() {
    let model = Model::new();
    let answer = |arguments: &[&str]| -> Value {
        let out = model.run(&[&["-p", "Hello", "--raw", "--temp", "0", "--ignore-eos", "--json"], arguments].concat(), "");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out.stderr)))
    };
    let whole = answer(&["-n", "-1", "--top-k", "-1", "-t", "-1"]);
    // A context of 256, and 6 tokens of prompt.
    assert_eq!((whole["tokens"].as_array().unwrap().len(), &whole["finish_reason"]), (250, &Value::from("length")));
    assert_eq!(answer(&["-n", "-2"])["tokens"], whole["tokens"]);
    assert_eq!(model.run(&["-p", "x", "-n", "1.5"], "").status.code(), Some(2));
    assert_eq!(model.run(&["-p", "x", "-t", "0"], "").status.code(), Some(2));
}

#[test]
fn what_is_wrong_is_one_line_that_names_it() {
    let model = Model::new();
    let out = model.run(&["-p", "x", "--temp", "9"], "");
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    assert!(text(&out.stderr).ends_with("hearth: `temperature`: must be a number from 0 to 2, not 9\n"), "{}", text(&out.stderr));
    let cold = model.run(&["-p", "x", "--temp", "-1"], "");
    assert!(text(&cold.stderr).ends_with("hearth: `temperature`: must be a number from 0 to 2, not -1\n"), "{}", text(&cold.stderr));
    assert!(model.run(&["-p", "x", "--seed", "-1", "-n", "1"], "").status.success(), "a seed by chance");
    let long = model.run(&["-p", &"x".repeat(300), "--raw"], "");
    assert!(text(&long.stderr).contains("the prompt has 301 tokens, and the context holds 256"), "{}", text(&long.stderr));
    assert_eq!(model.run(&["--json"], "").status.code(), Some(2));
    let gone = ended(Command::new(env!("CARGO_BIN_EXE_hearth")).args(["run", "-m", "/nowhere.gguf", "-p", "x"]));
    assert!(gone.status.code() == Some(1) && text(&gone.stderr).contains("/nowhere.gguf"));
}
