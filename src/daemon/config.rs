//! The configuration: `/etc/hearth/hearthd.toml` (or `--config FILE`), then every `*.toml` of the folder beside it with the name
//! and `.d`, in the order of their names; a later file overrides single keys. Every key is documented in the shipped `config/hearthd.toml`,
//! and a test holds that file to the defaults here.

use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes of a file: the shipped one, with all that it explains, has 4 kB.
const BYTES_MAX: u64 = 1 << 20;

/// Where the daemon looks without `--config`.
pub const DEFAULT_PATH: &str = "/etc/hearth/hearthd.toml";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Config {
    pub model: Model,
    pub serve: Serve,
    pub generation: Generation,
    pub governor: Governor,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// The GGUF file; of a split model, its first part. The one key that has no default.
    pub path: Option<PathBuf>,
    /// What clients call it; by default the file's name without `.gguf`.
    pub name: Option<String>,
    /// Most tokens of a conversation; by default what the model was trained for, at most 4096, and what fits in memory.
    pub context: Option<u32>,
    /// Storage of keys and values.
    pub kv: Kv,
    pub backend: BackendName,
    /// Worker threads; by default as many as are measured best.
    pub threads: Option<u16>,
    /// Conversations computed at the same time.
    pub sequences: u16,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// The Unix socket; not used where systemd passes one in.
    pub socket: PathBuf,
    /// Group that may use the socket; by default the daemon's own.
    pub group: Option<String>,
    pub bus: Bus,
    /// Requests that may wait; one more is answered Busy.
    pub queue: u16,
    /// Seconds between signs of life on a stream that has nothing to say yet.
    pub keep_alive_seconds: u16,
}

/// What a request that does not say gets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Generation {
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    /// By default as many as the context has room for.
    pub max_tokens: Option<u32>,
    /// Whether models that can think aloud do so unless asked not to.
    pub thinking: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Governor {
    pub policy: Policy,
    /// Above this temperature no new request is taken.
    pub ceiling_celsius: f32,
    /// Folder under which `/sys`, `/proc` and `/dev` are read: another one than `/` makes a captured board.
    pub root: PathBuf,
    /// Where what was seen and decided is recorded, for `hearth replay`; by default nowhere.
    pub trace: Option<PathBuf>,
    /// The record ends at this size.
    pub trace_mebibytes: u32,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A tracing filter, such as `info` or `hearth=debug`; `HEARTH_LOG` in the environment wins.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kv {
    F32,
    #[default]
    F16,
    #[serde(rename = "q8_0")]
    Q8_0,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendName {
    #[default]
    Auto,
    Cpu,
    Vulkan,
    Cuda,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bus {
    #[default]
    System,
    Session,
    Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    #[default]
    Observe,
    Performance,
    Eco,
    Quiet,
    Off,
}

impl Default for Model {
    fn default() -> Self {
        Self { path: None, name: None, context: None, kv: Kv::F16, backend: BackendName::Auto, threads: None, sequences: 4 }
    }
}

impl Default for Serve {
    fn default() -> Self {
        Self { socket: "/run/hearth/hearth.sock".into(), group: None, bus: Bus::System, queue: 16, keep_alive_seconds: 10 }
    }
}

impl Default for Generation {
    /// As llama-server's clients know them.
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.0, max_tokens: None, thinking: false }
    }
}

impl Default for Governor {
    fn default() -> Self {
        Self { policy: Policy::Observe, ceiling_celsius: 95.0, root: "/".into(), trace: None, trace_mebibytes: 64 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: {message}")]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{path}: `{key}` {reason}")]
    Value { path: PathBuf, key: &'static str, reason: String },
}

impl Config {
    /// Reads `path` and its drop-ins, and checks every value.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let mut merged = read_table(path)?;
        for file in drop_ins(path)? {
            overlay(&mut merged, read_table(&file)?);
        }
        // Each file was checked on its own, so only a clash of types between files could fail here.
        let config: Config = merged.try_into().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: path.into(),
            line: 1,
            message: one_line(e.message()),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, reason: &str| Err(ConfigError::Value { path: path.into(), key, reason: reason.into() });
        let between = |key, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) { Ok(()) } else { wrong(key, &format!("must be between {low} and {high}, but is {value}")) }
        };
        if self.model.path.as_ref().is_none_or(|p| p.as_os_str().is_empty()) {
            return wrong("model.path", "is not set: name the GGUF file to load");
        }
        if self.model.name.as_ref().is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
            return wrong("model.name", "must not be empty or hold control characters; leave it out for the file's own name");
        }
        if self.model.context == Some(0) {
            return wrong("model.context", "must be at least 1");
        }
        if self.model.threads.is_some_and(|n| !(1..=512).contains(&n)) {
            return wrong("model.threads", "must be between 1 and 512; leave it out to have it measured");
        }
        if !(1..=256).contains(&self.model.sequences) {
            return wrong("model.sequences", "must be between 1 and 256");
        }
        if self.serve.keep_alive_seconds == 0 {
            return wrong("serve.keep_alive_seconds", "must be at least 1");
        }
        if self.generation.max_tokens == Some(0) {
            return wrong("generation.max_tokens", "must be at least 1");
        }
        between("generation.temperature", self.generation.temperature, 0.0, 2.0)?;
        between("generation.top_p", self.generation.top_p, 0.0, 1.0)?;
        between("generation.min_p", self.generation.min_p, 0.0, 1.0)?;
        between("generation.repeat_penalty", self.generation.repeat_penalty, 0.1, 10.0)?;
        if self.governor.trace_mebibytes == 0 {
            return wrong("governor.trace_mebibytes", "must be at least 1; leave `governor.trace` out to record nothing");
        }
        between("governor.ceiling_celsius", self.governor.ceiling_celsius, 40.0, 125.0)
    }
}

/// Reads one file and checks its keys and types, so that a complaint names this file and the line.
fn read_table(path: &Path) -> Result<toml::Table, ConfigError> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(source) => return Err(ConfigError::Read { path: path.into(), source }),
        Ok(bytes) if bytes as u64 > BYTES_MAX => {
            let message = format!("the file is longer than the {BYTES_MAX} bytes that are read: is it a configuration?");
            return Err(ConfigError::Syntax { path: path.into(), line: 1, message });
        }
        Ok(_) => {}
    }
    let complain = |e: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        line: e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1),
        message: one_line(e.message()),
    };
    toml::from_str::<Config>(&text).map_err(complain)?;
    toml::from_str::<toml::Table>(&text).map_err(complain)
}

/// `hearthd.toml.d/*.toml` beside `hearthd.toml`, by name. No folder is no fault.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: folder, source }),
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    Ok(files)
}

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => overlay(below, above),
            (_, value) => _ = base.insert(key, value),
        }
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn error_of(text: &str) -> String {
        let folder = folder_with(&[("hearthd.toml", text)]);
        let error = Config::read(&folder.path().join("hearthd.toml")).unwrap_err().to_string();
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn the_smallest_configuration_is_enough() {
        let folder = folder_with(&[("c.toml", "[model]\npath = \"/m.gguf\"\n[serve]\nsocket = \"/tmp/s\"\nbus = \"off\"\n")]);
        let config = Config::read(&folder.path().join("c.toml")).unwrap();
        assert_eq!(config.model.path.as_deref(), Some(Path::new("/m.gguf")));
        assert_eq!(config.serve.bus, Bus::Off);
        assert_eq!(config.generation, Generation::default());
    }

    #[test]
    fn a_file_without_end_is_no_configuration() {
        assert!(error_of(&"#".repeat(BYTES_MAX as usize + 1)).contains("hearthd.toml:1: the file is longer than the 1048576 bytes"));
        assert!(Config::read(Path::new("/dev/zero")).unwrap_err().to_string().starts_with("/dev/zero:1: the file is longer"));
    }

    #[test]
    fn the_shipped_file_states_every_default() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/hearthd.toml");
        let text = fs::read_to_string(&shipped).unwrap();
        // What is commented out as `#key = value` is a default: with those lines made live nothing may change but the examples.
        let live: String = text
            .lines()
            .map(|l| l.strip_prefix('#').filter(|k| k.contains(" = ") && !k.starts_with(' ')).unwrap_or(l))
            .fold(String::new(), |all, line| all + line + "\n");
        let mut config: Config = toml::from_str(&live).unwrap_or_else(|e| panic!("{e}"));
        config.model = Model { path: None, name: None, context: None, threads: None, ..config.model };
        config.serve.group = None;
        config.generation.max_tokens = None;
        config.governor.trace = None;
        assert_eq!(config, Config::default());
        for key in
            ["path", "name", "context", "kv", "backend", "threads", "sequences", "socket", "group", "bus", "queue", "keep_alive_seconds"]
                .iter()
                .chain(&[
                    "temperature",
                    "top_k",
                    "top_p",
                    "min_p",
                    "repeat_penalty",
                    "max_tokens",
                    "thinking",
                    "policy",
                    "ceiling_celsius",
                    "root",
                    "trace",
                    "trace_mebibytes",
                    "filter",
                ])
        {
            assert!(live.lines().any(|l| l.starts_with(&format!("{key} = "))), "`{key}` is not in config/hearthd.toml");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = error_of("[model]\npath = \"/m.gguf\"\ncontxt = 5\n");
        assert!(error.contains("hearthd.toml:3:") && error.contains("contxt"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_its_line() {
        let error = error_of("[model]\npath = \"/m.gguf\"\n[serve]\nqueue = \"many\"\n");
        assert!(error.contains("hearthd.toml:4:"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_names_its_key() {
        assert!(error_of("[model]\npath = \"/m.gguf\"\n[generation]\ntemperature = 9.0\n").contains("`generation.temperature`"));
        assert!(error_of("[generation]\ntemperature = nan\n[model]\npath = \"/m\"\n").contains("`generation.temperature`"));
        assert!(error_of("[serve]\nbus = \"off\"\n").contains("`model.path`"));
        for name in ["", r"a\u0000b", r"a\nb"] {
            assert!(error_of(&format!("[model]\npath = \"/m.gguf\"\nname = \"{name}\"\n")).contains("`model.name`"));
        }
        for threads in [0, 513] {
            assert!(error_of(&format!("[model]\npath = \"/m.gguf\"\nthreads = {threads}\n")).contains("`model.threads`"));
        }
    }

    #[test]
    fn drop_ins_override_single_keys_in_the_order_of_their_names() {
        let folder = folder_with(&[
            ("h.toml", "[model]\npath = \"/a.gguf\"\nsequences = 2\n"),
            ("h.toml.d/20-b.toml", "[model]\npath = \"/b.gguf\"\n"),
            ("h.toml.d/10-c.toml", "[model]\npath = \"/c.gguf\"\n[serve]\nqueue = 3\n"),
            ("h.toml.d/30-not.txt", "nonsense"),
        ]);
        let config = Config::read(&folder.path().join("h.toml")).unwrap();
        assert_eq!(config.model.path.as_deref(), Some(Path::new("/b.gguf")));
        assert_eq!((config.model.sequences, config.serve.queue), (2, 3));
    }

    #[test]
    fn a_fault_in_a_drop_in_names_that_file() {
        let folder = folder_with(&[("h.toml", "[model]\npath = \"/a.gguf\"\n"), ("h.toml.d/10-c.toml", "\n[serve]\nnope = 1\n")]);
        let error = Config::read(&folder.path().join("h.toml")).unwrap_err().to_string();
        assert!(error.contains("10-c.toml:3:") && error.contains("nope"), "{error}");
    }
}
