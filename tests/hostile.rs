//! Damaged and odd model files through the real command, one process a case, under limits on processor time and memory.
//! The cases come from the generator in the shared fixtures; without it this test is skipped (the reader's own tests damage a
//! small file of their own).

mod process;

use process::{end_of, ended};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(serde::Deserialize)]
struct Index {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    file: String,
    group: String,
    what: String,
    /// What loading may do: `error`, `load`, `either`, or `tokenize` (tokenizes or is refused, but generates nothing).
    expect: String,
    /// Of these a refusal names one.
    names: Vec<String>,
}

/// A way to touch a file, `{}` standing for its path, and what goes in on stdin.
struct Verb {
    args: &'static [&'static str],
    stdin: &'static str,
    /// Memory of its own that it may have, in MiB.
    memory: u64,
}

/// What any file may cost.
const MEMORY: u64 = 256;

const INSPECT: Verb = Verb { args: &["inspect", "{}", "--json", "--full"], stdin: "", memory: MEMORY };
/// Reads the vocabulary.
const TOKENIZE: Verb = Verb { args: &["tokenize", "-m", "{}", "--jsonl"], stdin: "\"ab \u{e9}\u{1f525}\"\n", memory: MEMORY };
/// Reads the settings and the weights, and computes with them.
const LOGITS: Verb = Verb { args: &["logits", "-m", "{}", "--tokens", "1,2,3", "--json"], stdin: "", memory: MEMORY };
/// All of it, and answers.
const RUN: Verb = Verb { args: &["run", "-m", "{}", "-p", "ab", "-n", "4", "--temp", "0", "--raw", "--json"], stdin: "", memory: MEMORY };
const BENCH: Verb = Verb { args: &["bench", "-m", "{}", "-p", "4", "-n", "2", "--json"], stdin: "", memory: MEMORY };
/// By the file's own template, which may be refused where the model itself is not. A template's stack is counted, though hardly touched.
const CHAT: Verb = Verb { args: &["run", "-m", "{}", "-p", "ab", "-n", "4", "--temp", "0", "--json"], stdin: "", memory: 2 * MEMORY };

impl Verb {
    /// Runs to its end.
    fn on(&self, file: &Path) -> Output {
        end_of(self.start(file))
    }

    /// Runs under limits: 5 s of processor time, and memory. Whoever exceeds one dies of a signal.
    fn start(&self, file: &Path) -> Child {
        let hearth = env!("CARGO_BIN_EXE_hearth");
        let mut command = Command::new("prlimit");
        command.env("CACHE_DIRECTORY", env!("CARGO_TARGET_TMPDIR"));
        command.args(["--cpu=5", format!("--data={}", self.memory << 20).as_str(), "--core=0", hearth]);
        command.args(self.args.iter().map(|a| if *a == "{}" { file.as_os_str() } else { a.as_ref() }));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("prlimit (util-linux) runs");
        // A command that does not read its input may be gone already.
        let _ = child.stdin.take().expect("stdin is piped").write_all(self.stdin.as_bytes());
        child
    }
}

/// What is wrong with how a case went; `None` when nothing is.
fn verdict(case: &Case, file: &Path) -> Option<String> {
    let (mut refused, mut said) = (false, String::new());
    for verb in [&INSPECT, &TOKENIZE, &LOGITS, &RUN, &BENCH, &CHAT] {
        let out = verb.on(file);
        if !std::ptr::eq(verb, &CHAT) {
            refused |= !out.status.success();
            said += &stderr(&out);
        }
        if !ended_well(&out) {
            return Some(format!("`{}` ended with {}: {said}", verb.args[0], out.status));
        }
    }
    let named = || case.names.is_empty() || case.names.iter().any(|n| said.to_lowercase().contains(&n.to_lowercase()));
    match (case.expect.as_str(), refused) {
        ("load", true) => Some(format!("must load, but: {said}")),
        ("error" | "tokenize", false) => Some("must be refused, but loads".to_owned()),
        ("error", true) if !named() => Some(format!("must name one of {:?}, but says: {said}", case.names)),
        ("error" | "load" | "either" | "tokenize", _) => None,
        (other, _) => Some(format!("this test does not know the expectation `{other}`")),
    }
}

/// Exit status 0, or 1 with one line on stderr: no signal, no panic (101).
fn ended_well(out: &Output) -> bool {
    match out.status.code() {
        Some(0) => true,
        Some(1) => stderr(out).trim_end().lines().count() == 1,
        _ => false,
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn generator() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let make = std::env::var_os("HEARTH_SHARED").map_or_else(beside, PathBuf::from).join("fixtures/hostile/make.py");
    make.exists().then_some(make)
}

#[test]
fn no_damaged_file_crashes_hangs_or_is_taken_for_good() {
    let Some(make) = generator() else {
        eprintln!("SKIPPED: the generator of damaged files (../shared/fixtures/hostile) is not there");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let made = ended(Command::new("python3").arg(&make).arg(folder.path()));
    assert!(made.status.success(), "{}", stderr(&made));
    let index: Index = serde_json::from_slice(&std::fs::read(folder.path().join("index.json")).unwrap()).unwrap();
    assert!(index.cases.len() > 200, "{} cases", index.cases.len());

    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                while let Some(case) = index.cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(verdict) = verdict(case, &folder.path().join(&case.file)) {
                        wrong.lock().unwrap().push(format!("{}/{} ({}): {verdict}", case.group, case.file, case.what));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases went wrong:\n{}", wrong.len(), index.cases.len(), wrong.join("\n"));
}

#[test]
fn a_path_that_is_no_utf8_and_a_path_that_is_no_file_are_refused_or_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xff\xfe.gguf"));
    std::fs::write(&odd, b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    assert!(INSPECT.on(&odd).status.success());
    for path in [folder.path(), Path::new("/dev/zero"), Path::new("/nowhere/m.gguf")] {
        for verb in [&INSPECT, &TOKENIZE, &LOGITS, &RUN, &BENCH] {
            let out = verb.on(path);
            assert!(out.status.code() == Some(1) && ended_well(&out), "{} of {}: {}", verb.args[0], path.display(), stderr(&out));
        }
    }
}

/// Whatever a command is doing when its file is cut short: it ends well, with an answer that came before or with one line.
#[test]
fn a_file_cut_short_at_any_moment_kills_no_command() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.gguf");
    let made = ended(Command::new(env!("CARGO_BIN_EXE_hearth")).args(["synth", "tiny", "Q8_0"]).arg(&whole));
    assert!(made.status.success(), "{}", stderr(&made));
    let bytes = std::fs::read(&whole).unwrap();
    let mut refused = 0;
    for moment in 0..24u64 {
        let path = folder.path().join(format!("{moment}.gguf"));
        std::fs::write(&path, &bytes).unwrap();
        let verb = [&LOGITS, &RUN, &BENCH, &TOKENIZE][moment as usize % 4];
        let child = verb.start(&path);
        // Other moments of its life; nothing is expected of any of them.
        std::thread::sleep(std::time::Duration::from_millis(moment));
        let rest = [0, 20, 4096, bytes.len() as u64 / 2][moment as usize / 4 % 4];
        std::fs::File::options().write(true).open(&path).unwrap().set_len(rest).unwrap();
        let out = end_of(child);
        assert!(ended_well(&out), "{} cut to {rest} after {moment} ms: {}: {}", verb.args[0], out.status, stderr(&out));
        refused += usize::from(!out.status.success());
    }
    assert!(refused > 0, "no command was still at it: the test tests nothing");
}
