//! Start, reload, stop, and what systemd is told meanwhile.

use crate::house::{House, Plan, curl, hearthd, model, shelter, slow_model, write_config};
use crate::process::{DEADLINE, Killed, POLL, ended, wait};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

/// Between SIGTERM and the end: the two seconds that the daemon promises, four times over for a machine that stands still now and then.
/// What goes wrong waits longer, for a keep-alive's ten seconds, the end of an answer, or a file of 2 GiB.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

#[test]
fn systemd_hears_of_loading_then_ready_then_stopping() {
    let mut house = House::begin(Plan::default());
    house.wait_for("EXTEND_TIMEOUT_USEC=");
    house.wait_for("READY=1");
    assert!(house.wait_for("STATUS=").contains("tiny"));
    assert_eq!(house.get("/health").0, 200);
    assert_eq!(fs::metadata(&house.socket).unwrap().permissions().mode() & 0o777, 0o660);
    house.signal("TERM");
    house.wait_for("STOPPING=1");
    assert_eq!(house.exit_code(), Some(0));
    assert!(!house.socket.exists(), "the socket was left behind");
}

#[test]
fn the_watchdog_hears_of_an_idle_engine_that_turns() {
    let mut house = House::open(Plan { environment: &[("WATCHDOG_USEC", "400000")], ..Plan::default() });
    for _ in 0..3 {
        house.wait_for("WATCHDOG=1");
    }
}

/// One thread of another process, stopped as a debugger does it, until it is dropped.
struct Stopped(libc::pid_t);

impl Stopped {
    /// `None`, loudly, where the machine lets nobody trace.
    fn thread(process: u32, name: &str) -> Option<Stopped> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten().map(|t| t.path());
        let found = threads.into_iter().find(|t| fs::read_to_string(t.join("comm")).is_ok_and(|comm| comm.trim() == name));
        let thread: libc::pid_t = found.expect("the thread is there").file_name().unwrap().to_str().unwrap().parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: requests without addresses; they change the traced thread only, which is a child's.
        let seized = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) == 0 && libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) == 0
        };
        if !seized {
            eprintln!("SKIPPED: this machine lets nobody trace a process, so no engine can be made to hang");
            return None;
        }
        // SAFETY: waits for the thread just seized; no status is asked for.
        unsafe { libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL) };
        Some(Stopped(thread))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; a thread that is gone makes it fail, which does not matter.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

#[test]
fn the_watchdog_hears_nothing_of_an_engine_that_hangs_until_it_turns_again() {
    let mut house = House::open(Plan { environment: &[("WATCHDOG_USEC", "400000")], ..Plan::default() });
    house.wait_for("WATCHDOG=1");
    let Some(engine) = Stopped::thread(house.daemon.id(), "engine") else { return };
    let complaints = |house: &House| house.log().matches("the engine has not turned").count();
    // The first look after it was stopped may still have seen a beat.
    let before = complaints(&house);
    house.wait_until("a complaint", || complaints(&house) > before);
    house.drain_notices();
    let before = complaints(&house);
    house.wait_until("more complaints", || complaints(&house) >= before + 3);
    assert_eq!(house.drain_notices(), Vec::<String>::new());
    drop(engine);
    house.wait_for("WATCHDOG=1");
    assert_eq!(house.get("/health").0, 200);
}

#[test]
fn sigterm_while_the_model_loads_is_heeded_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.gguf");
    fs::copy(model(), &large).unwrap();
    // A hole behind the last tensor takes no room on the disk, but time to read.
    fs::OpenOptions::new().write(true).open(&large).unwrap().set_len(2 << 30).unwrap();
    let mut house = House::begin(Plan { model: &large, ..Plan::default() });
    house.wait_for("STATUS=loading");
    let asked = Instant::now();
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    assert!(asked.elapsed() < STOPS_WITHIN, "{:?}", asked.elapsed());
}

#[test]
fn sigterm_in_the_middle_of_a_prompt_is_heeded_at_once() {
    let mut house = House::open(Plan { model: slow_model(), model_lines: "context = 4096", ..Plan::default() });
    let words = "word ".repeat(600);
    let stream = house.stream(CHAT, json!({"messages": [{"role": "user", "content": words}], "stream": true}));
    house.wait_for_metric("hearth_requests{state=\"running\"}", 1.0);
    let asked = Instant::now();
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    assert!(asked.elapsed() < STOPS_WITHIN, "{:?}", asked.elapsed());
    stream.rest();
}

#[test]
fn a_socket_that_a_killed_daemon_left_behind_is_replaced_and_has_its_group() {
    // SAFETY: asks for a number.
    let group = unsafe { libc::getgid() };
    let line = format!("group = \"{group}\"");
    let mut house = House::open(Plan { serve_lines: &line, ..Plan::default() });
    house.signal("KILL");
    house.exit_code();
    assert!(house.socket.exists());
    let _second = Killed(hearthd(&house.config).spawn().unwrap());
    house.wait_until("an answer", || house.get("/health").0 == 200);
    let about = fs::metadata(&house.socket).unwrap();
    assert_eq!((about.permissions().mode() & 0o777, about.gid()), (0o660, group));
}

#[test]
fn sigterm_ends_a_running_answer_with_a_last_event_at_once() {
    let mut house = House::open(Plan { model: slow_model(), ..Plan::default() });
    let mut stream = house.stream(CHAT, json!({"messages": [{"role": "user", "content": "a"}], "stream": true, "ignore_eos": true}));
    stream.first_text();
    let asked = Instant::now();
    house.signal("TERM");
    let last = stream.rest().pop().unwrap();
    assert!(last.contains("\"error\"") && last.contains("unavailable_error"), "{last}");
    assert_eq!(house.exit_code(), Some(0));
    assert!(asked.elapsed() < STOPS_WITHIN, "{:?}", asked.elapsed());
}

#[test]
fn sigterm_does_not_wait_for_a_reader_that_takes_nothing() {
    let mut house = House::open(Plan { model: slow_model(), ..Plan::default() });
    let mut stream = house.stream(CHAT, json!({"messages": [{"role": "user", "content": "a"}], "stream": true, "ignore_eos": true}));
    stream.first_text();
    let asked = Instant::now();
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    assert!(asked.elapsed() < STOPS_WITHIN, "{:?}", asked.elapsed());
    stream.drop_it();
}

#[test]
fn sighup_loads_anew_and_a_faulty_configuration_changes_nothing() {
    let mut house = House::open(Plan::default());
    let name = |house: &House| house.get("/v1/models").1;
    assert!(name(&house).contains("\"id\":\"tiny\""));
    write_config(&house.config, model(), "name = \"renamed\"", &house.socket, "off", "");
    house.signal("HUP");
    house.wait_for("RELOADING=1");
    house.wait_for("MONOTONIC_USEC=");
    house.wait_for("READY=1");
    assert!(name(&house).contains("\"id\":\"renamed\""), "{}", name(&house));
    fs::write(&house.config, "[model]\npath = \"/nowhere\"\nnonsense = 1\n").unwrap();
    house.reload();
    assert!(house.wait_for("STATUS=reload refused").contains(":3:"));
    write_config(&house.config, "/nowhere.gguf".as_ref(), "", &house.socket, "off", "");
    house.reload();
    assert!(house.wait_for("STATUS=reload failed").contains("/nowhere.gguf"));
    assert!(name(&house).contains("\"id\":\"renamed\""));
    assert_eq!(house.get("/health").0, 200);
}

#[test]
fn sighup_leaves_a_model_alone_that_would_be_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    fs::copy(model(), &path).unwrap();
    let mut house = House::open(Plan { model: &path, ..Plan::default() });
    let config = house.config.clone();
    let mut loads_after_reload = || {
        house.reload();
        house.log().matches("ready: ").count()
    };
    assert_eq!(loads_after_reload(), 1, "nothing changed");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("policy = \"off\"", "policy = \"observe\"")).unwrap();
    assert_eq!(loads_after_reload(), 1, "the governor's alone");
    let other = folder.path().join("other.gguf");
    fs::copy(model(), &other).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(loads_after_reload(), 2, "another file under the same name");
}

#[test]
fn a_socket_passed_in_by_systemd_is_used_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (passed, config) = (folder.path().join("passed"), folder.path().join("c.toml"));
    write_config(&config, model(), "", &folder.path().join("unused"), "off", "");
    // systemd-socket-activate does what systemd would: it listens, and starts the daemon at the first connection.
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&passed).args([env!("CARGO_BIN_EXE_hearthd"), "--config"]).arg(&config);
    shelter(&mut command, &config);
    let Ok(mut activator) = command.stderr(Stdio::null()).spawn().map(Killed) else {
        eprintln!("SKIPPED: systemd-socket-activate is not installed");
        return;
    };
    let began = Instant::now();
    while !passed.exists() {
        assert!(began.elapsed() < DEADLINE, "nobody listens");
        std::thread::sleep(POLL);
    }
    let chat = json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).to_string();
    // The first request is there before the daemon is, and waits for the model.
    let output = ended(curl(&passed, CHAT).args(["-o", "/dev/null", "-w", "%{http_code}", "-d", &chat]));
    assert_eq!(output.stdout, b"200", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path().join("unused").exists());
    assert!(ended(Command::new("kill").arg(activator.0.id().to_string())).status.success());
    wait(&mut activator.0);
    assert!(passed.exists(), "the socket belongs to systemd");
}

#[test]
fn a_second_daemon_leaves_the_first_ones_socket_alone() {
    let house = House::open(Plan::default());
    let output = ended(&mut hearthd(&house.config));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.lines().count() == 1 && words.contains("another daemon"), "{words}");
    assert_eq!(house.get("/health").0, 200);
}

#[test]
fn faults_at_the_start_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let (config, broken) = (folder.path().join("c.toml"), folder.path().join("broken.gguf"));
    fs::write(&broken, &fs::read(model()).unwrap()[..5000]).unwrap();
    let line = |text: &str| {
        fs::write(&config, text).unwrap();
        let output = ended(hearthd(&config).env("HEARTH_LOG", "off"));
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), words.lines().count()), (Some(1), 1), "{words}");
        words
    };
    let serve = format!("[serve]\nbus = \"off\"\nsocket = \"{}\"\n", folder.path().join("s").display());
    assert!(line(&format!("[model]\npath = \"{}\"\n{serve}", broken.display())).contains("broken.gguf"));
    assert!(line(&format!("[model]\npath = \"/no/such.gguf\"\n{serve}")).contains("/no/such.gguf"));
    assert!(line("[model]\npath = \"/m.gguf\"\n[serve]\nsokcet = \"x\"\n").contains("c.toml:4:"));
    assert!(line("[model]\npath = \"/m.gguf\"\n[serve]\nbus = \"off\"\nsocket = \"/no/such/folder/s\"\n").contains("/no/such/folder/s"));
}

#[test]
fn too_few_file_descriptors_at_the_start_are_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (folder.path().join("c.toml"), folder.path().join("log"));
    write_config(&config, model(), "", &folder.path().join("s"), "off", "");
    // Too few for the runtime first, then for the socket, the model and what is read beside them. How many are
    // enough depends on what this process was given open, so the limit goes up until a daemon starts.
    let mut refused = 0;
    for limit in 6.. {
        assert!(limit <= 1024, "no daemon starts with 1024");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" --config \"$1\""), env!("CARGO_BIN_EXE_hearthd")]).arg(&config);
        shelter(&mut shell, &config);
        let mut daemon = Killed(shell.env("HEARTH_LOG", "info").stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
        let began = Instant::now();
        let (status, words) = loop {
            let status = daemon.0.try_wait().unwrap();
            let words = fs::read_to_string(&log).unwrap();
            if status.is_some() || words.contains("INFO ready") {
                break (status, words);
            }
            assert!(began.elapsed() < DEADLINE, "{limit}: neither ready nor ended: {words}");
            std::thread::sleep(POLL);
        };
        let Some(status) = status else { break };
        if words.contains("shared libraries") {
            continue; // Too few for the system's loader.
        }
        let told: Vec<&str> = words.lines().filter(|line| line.starts_with("hearthd: ")).collect();
        let is_a_line = told.len() == 1 && told[0].contains("Too many open files");
        assert!(status.code() == Some(1) && is_a_line, "{limit}: {status:?} {words}");
        refused += 1;
    }
    assert!(refused >= 2, "only {refused}");
}

#[test]
fn a_daemon_out_of_file_descriptors_says_so_once_and_answers_when_it_has_some() {
    let house = House::open(Plan::default());
    let soft_limit = |descriptors: &str| {
        let process = house.daemon.id().to_string();
        let set = ended(Command::new("prlimit").args(["--pid", &process, &format!("--nofile={descriptors}:")]));
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    };
    soft_limit("3");
    let waiting = UnixStream::connect(&house.socket).unwrap();
    // A client that gives up after many of the daemon's tries.
    let refused = ended(house.curl("/health").args(["--max-time", "1"]));
    assert!(!refused.status.success() && refused.stdout.is_empty());
    soft_limit("512");
    drop(waiting);
    assert_eq!(house.get("/health").0, 200);
    assert_eq!(house.log().matches("a connection can't be accepted").count(), 1, "{}", house.log());
}

#[test]
fn a_check_starts_nothing_and_refuses_what_a_start_would() {
    let folder = tempfile::tempdir().unwrap();
    let (config, socket) = (folder.path().join("c.toml"), folder.path().join("s"));
    let check = |more: &str| {
        let text = format!("[model]\npath = \"/m.gguf\"\n[serve]\nsocket = \"{}\"\n{more}", socket.display());
        fs::write(&config, text).unwrap();
        let output = ended(hearthd(&config).arg("--check"));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(""), (Some(0), String::new()));
    let (code, words) = check("[log]\nfilter = \"a=b=c\"\n");
    assert!(code == Some(1) && words.lines().count() == 1 && words.contains("`log.filter`"), "{words}");
    assert!(!socket.exists());
}

#[test]
fn a_client_that_never_finishes_its_request_does_not_disturb_others() {
    let house = House::open(Plan::default());
    let idle: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&house.socket).unwrap()).collect();
    for mut stream in &idle {
        std::io::Write::write_all(&mut stream, b"POST /v1/chat/completions HTTP/1.1\r\nHost: l\r\nContent-Length: 100\r\n\r\n{").unwrap();
    }
    assert_eq!(house.get("/health").0, 200);
}

#[test]
fn a_model_cut_short_under_the_daemon_is_told_to_the_client_and_ends_it_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.gguf");
    fs::copy(model(), &own).unwrap();
    let mut house = House::open(Plan { model: &own, ..Plan::default() });
    let ask = |house: &House| house.post("/v1/completions", json!({"prompt": "ab", "max_tokens": 4}));
    assert_eq!(ask(&house).0, 200);
    fs::File::options().write(true).open(&own).unwrap().set_len(5000).unwrap();
    let (status, body) = ask(&house);
    let told = body["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 500 && told.contains("own.gguf: the file was cut to 5000 bytes"), "{status} {body}");
    assert_eq!(house.exit_code(), Some(1));
    let log = house.log();
    let last = log.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("hearthd: the engine failed: ") && last.contains("own.gguf"), "{log}");
}
