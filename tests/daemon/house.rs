//! A daemon to ask: its folder, its socket, its bus, and what it tells systemd.

use crate::process::{DEADLINE, InTime, POLL, ended, in_time, wait};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Instant;
use tempfile::TempDir;

/// A model of random weights with a vocabulary and a chat template: its answers are noise, and end only where told.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| synth("tiny.gguf", &["tiny", "Q8_0"]))
}

/// The same with so many layers that an answer takes a while.
pub fn slow_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| synth("slow.gguf", &["tiny", "Q4_0", "--layers", "48"]))
}

fn synth(name: &str, shape: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let made = ended(Command::new(env!("CARGO_BIN_EXE_hearth")).arg("synth").args(shape).arg(&path));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

pub struct House {
    pub daemon: Child,
    pub socket: PathBuf,
    pub config: PathBuf,
    pub folder: TempDir,
    notices: UnixDatagram,
    /// What came with the notices so far.
    seen: Vec<String>,
    bus: Option<PrivateBus>,
}

/// How a daemon is to be started.
pub struct Plan<'a> {
    pub model: &'a Path,
    /// Lines of `[model]` and of `[serve]`.
    pub model_lines: &'a str,
    pub serve_lines: &'a str,
    pub bus: bool,
    /// Lines of `[governor]`.
    pub governor_lines: &'a str,
    pub environment: &'a [(&'a str, &'a str)],
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan { model: model(), model_lines: "", serve_lines: "", bus: false, governor_lines: "policy = \"off\"", environment: &[] }
    }
}

impl House {
    /// Starts a daemon, and waits until it says that it is ready.
    pub fn open(plan: Plan<'_>) -> House {
        let mut house = House::begin(plan);
        house.wait_for("READY=1");
        house
    }

    /// Starts a daemon.
    pub fn begin(plan: Plan<'_>) -> House {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (socket, config) = (at("s"), at("hearthd.toml"));
        let bus = plan.bus.then(|| PrivateBus::start(&at("bus")));
        write_config(&config, plan.model, plan.model_lines, &socket, if plan.bus { "session" } else { "off" }, plan.serve_lines);
        let text = fs::read_to_string(&config).unwrap().replace("policy = \"off\"", plan.governor_lines);
        fs::write(&config, text).unwrap();
        let notices = UnixDatagram::bind(at("notify")).unwrap();
        let mut command = hearthd(&config);
        command.env("NOTIFY_SOCKET", at("notify")).stderr(fs::File::create(at("log")).unwrap());
        command.envs(plan.environment.iter().copied());
        if let Some(bus) = &bus {
            // It is the system's too: the desktop's power profile is looked for there.
            command.env("DBUS_SESSION_BUS_ADDRESS", &bus.address).env("DBUS_SYSTEM_BUS_ADDRESS", &bus.address);
        }
        let daemon = command.spawn().unwrap();
        House { daemon, socket, config, notices, seen: Vec::new(), bus, folder }
    }

    /// Waits for a notice to systemd that begins with `start`, and returns it. Notices before it are gone then.
    pub fn wait_for(&mut self, start: &str) -> String {
        loop {
            if let Some(at) = self.seen.iter().position(|line| line.starts_with(start)) {
                return self.seen.drain(..=at).next_back().unwrap();
            }
            let mut buffer = [0; 4096];
            let n = in_time(&self.notices).and_then(|()| self.notices.recv(&mut buffer));
            let n = n.unwrap_or_else(|e| panic!("no {start}: {e}; the log says:\n{}", self.log()));
            self.seen.extend(String::from_utf8_lossy(&buffer[..n]).lines().map(str::to_owned));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log has `words`.
    pub fn wait_for_log(&self, words: &str) {
        self.wait_until(&format!("`{words}` in the log"), || self.log().contains(words));
    }

    /// Waits for what has no event to wait for.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < DEADLINE, "it never came to this: {what}; the log says:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// `/v1/thermal`.
    pub fn thermal(&self) -> Value {
        serde_json::from_str(&self.get("/v1/thermal").1).unwrap()
    }

    /// The bus goes away.
    pub fn stop_bus(&mut self) {
        self.bus.as_mut().expect("this house has a bus").stop();
    }

    /// … and is back at the same address.
    pub fn restart_bus(&mut self) {
        self.bus = Some(PrivateBus::start(&self.folder.path().join("bus")));
    }

    /// What came from the daemon to systemd and was not looked at, and what comes from now on until there is nothing more.
    pub fn drain_notices(&mut self) -> Vec<String> {
        self.notices.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(n) = self.notices.recv(&mut buffer) {
            self.seen.extend(String::from_utf8_lossy(&buffer[..n]).lines().map(str::to_owned));
        }
        self.notices.set_nonblocking(false).unwrap();
        std::mem::take(&mut self.seen)
    }

    pub fn bus_address(&self) -> &str {
        &self.bus.as_ref().expect("this house has a bus").address
    }

    pub fn signal(&self, name: &str) {
        assert!(ended(Command::new("kill").args(["-s", name, &self.daemon.id().to_string()])).status.success());
    }

    /// SIGHUP, until it has been dealt with.
    pub fn reload(&mut self) {
        self.signal("HUP");
        self.wait_for("RELOADING=1");
        self.wait_for("READY=1");
    }

    /// Waits for the daemon's end.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait(&mut self.daemon).code()
    }

    pub fn curl(&self, path: &str) -> Command {
        curl(&self.socket, path)
    }

    /// A reply and its status.
    pub fn get(&self, path: &str) -> (u16, String) {
        status_and_body(ended(self.curl(path).args(["-w", "\n%{http_code}"])))
    }

    pub fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, body) = status_and_body(ended(self.curl(path).args(["-w", "\n%{http_code}", "-d", &body.to_string()])));
        (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
    }

    /// Server-sent events that come by themselves.
    pub fn events(&self, path: &str) -> Stream {
        Stream::of(self.curl(path).args(["-H", "Accept: text/event-stream"]))
    }

    /// A stream under way.
    pub fn stream(&self, path: &str, body: Value) -> Stream {
        Stream::of(self.curl(path).args(["-d", &body.to_string()]))
    }

    /// Waits until a metric has a value.
    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let row = format!("{name} {value}");
        self.wait_until(&row, || self.get("/metrics").1.lines().any(|l| l == row));
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

pub fn write_config(path: &Path, model: &Path, model_lines: &str, socket: &Path, bus: &str, serve_lines: &str) {
    let text = format!(
        "[model]\npath = \"{}\"\n{model_lines}\n[serve]\nsocket = \"{}\"\nbus = \"{bus}\"\n{serve_lines}\n[governor]\npolicy = \"off\"\n",
        model.display(),
        socket.display()
    );
    fs::write(path, text).unwrap();
}

/// What tells a process how it was started. The tests' own surroundings may have it too: a service, an editor in one, a shell.
const SURROUNDINGS: [&str; 10] = [
    "CACHE_DIRECTORY",
    "HEARTH_LOG",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A daemon that knows nothing of how the tests were started.
pub fn hearthd(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthd"));
    command.arg("--config").arg(config);
    shelter(&mut command, config);
    command
}

/// Takes the tests' own surroundings from a command that starts a daemon.
pub fn shelter(command: &mut Command, config: &Path) {
    SURROUNDINGS.iter().for_each(|name| _ = command.env_remove(name));
    command.env("CACHE_DIRECTORY", config.parent().unwrap()).stdin(Stdio::null());
}

/// Without what somebody's `.curlrc` says.
pub fn curl(socket: &Path, path: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--no-buffer", "--max-time"]).arg(DEADLINE.as_secs().to_string());
    curl.arg("--unix-socket").arg(socket).arg(format!("http://localhost{path}")).stdin(Stdio::null());
    curl
}

fn status_and_body(output: Output) -> (u16, String) {
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("curl: {}", String::from_utf8_lossy(&output.stderr)));
    (status.parse().unwrap(), body.to_owned())
}

/// Server-sent events as curl hands them out.
pub struct Stream {
    pub curl: Child,
    lines: BufReader<InTime<ChildStdout>>,
}

impl Stream {
    fn of(curl: &mut Command) -> Stream {
        let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(InTime(curl.stdout.take().unwrap()));
        Stream { curl, lines }
    }

    /// The data of the next event; `None` at the end.
    pub fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim_end().to_owned());
            }
        }
    }

    /// The next event as JSON.
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().expect("an event")).unwrap()
    }

    /// Reads until the first event with text.
    pub fn first_text(&mut self) {
        while self.json()["choices"][0]["delta"]["content"].as_str().is_none_or(str::is_empty) {}
    }

    /// The data of all events to the end.
    pub fn rest(mut self) -> Vec<String> {
        let rest = std::iter::from_fn(|| self.next()).collect();
        wait(&mut self.curl);
        rest
    }

    /// The client goes away.
    pub fn drop_it(mut self) {
        self.curl.kill().unwrap();
        self.curl.wait().unwrap();
    }
}

/// A bus with nobody else on it.
struct PrivateBus {
    daemon: Child,
    address: String,
}

impl PrivateBus {
    fn start(path: &Path) -> PrivateBus {
        let _ = fs::remove_file(path); // of a bus that was killed
        let mut command = Command::new("dbus-daemon");
        command.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]).arg(format!("--address=unix:path={}", path.display()));
        let mut daemon = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("dbus-daemon must be installed");
        let mut address = String::new();
        BufReader::new(InTime(daemon.stdout.take().unwrap())).read_line(&mut address).unwrap();
        // Without its number: a bus that comes back to this place has another one.
        let address = address.trim().split(',').next().unwrap_or_default().to_owned();
        PrivateBus { daemon, address }
    }
}

impl PrivateBus {
    fn stop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The Python that has the real clients; `None`, loudly, where nobody said which.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("HEARTH_PYTHON").map(PathBuf::from).filter(|p| p.is_file());
    if python.is_none() {
        eprintln!("SKIPPED: $HEARTH_PYTHON names no Python with the packages `openai` and `dbus-fast`; `make test` sets it");
    }
    python
}

/// Runs one of the client programs; its output if it found everything as it should be.
pub fn client(python: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/clients").join(name);
    let output = ended(Command::new(python).arg(script).args(arguments).envs(environment.iter().copied()));
    assert!(output.status.success(), "{name}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
