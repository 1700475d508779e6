//! The daemon's words in the journal: a socket in the journal's place hears them, as fields.

use crate::house::{curl, model, shelter, write_config};
use crate::played::Board;
use crate::process::{DEADLINE, Killed, POLL, ended, in_time};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

type Fields = Vec<(String, String)>;

/// An entry's fields of one line; the others (`NAME`, length, bytes) are read as text too.
fn fields(entry: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let mut rest = entry;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        match line.split_once('=') {
            Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
            None => {
                let Some((length, after)) = rest.split_first_chunk::<8>() else { break };
                let length = u64::from_le_bytes(*length) as usize;
                fields.push((line, String::from_utf8_lossy(&after[..length]).into_owned()));
                rest = &after[length + 1..];
            }
        }
    }
    fields
}

/// What came to the journal.
struct Heard {
    journal: UnixDatagram,
    entries: Vec<Fields>,
}

impl Heard {
    /// Waits for an entry with a field that begins like this.
    fn entry(&mut self, name: &str, start: &str) -> Fields {
        loop {
            let is_it = |entry: &&Fields| entry.iter().any(|(n, value)| n == name && value.starts_with(start));
            if let Some(entry) = self.entries.iter().find(is_it) {
                return entry.clone();
            }
            let mut buffer = [0; 16 << 10];
            let n = in_time(&self.journal)
                .and_then(|()| self.journal.recv(&mut buffer))
                .unwrap_or_else(|e| panic!("{e}: no {name}={start} in {:?}", self.entries));
            self.entries.push(fields(&buffer[..n]));
        }
    }
}

#[test]
fn under_systemd_the_journal_gets_fields_and_catalogued_messages() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The journal's socket has a fixed path, so the daemon gets a /run of its own.
    let own_run = |how: &[&str], script: &str| {
        let mut command = Command::new("unshare");
        command.args(how).args(["sh", "-c", script]).arg(at("run"));
        command
    };
    fs::create_dir_all(at("run/systemd/journal")).unwrap();
    let mut ways = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]].into_iter();
    let Some(how) = ways.find(|how| own_run(how, "mount --bind \"$0\" /run").output().is_ok_and(|o| o.status.success())) else {
        eprintln!("SKIPPED: this machine lets nobody make a mount namespace, so the journal can't be stood in for");
        return;
    };
    let journal = UnixDatagram::bind(at("run/systemd/journal/socket")).unwrap();
    let mut board = Board::play("h618-bare", 25.0, 1.0);
    write_config(&at("c.toml"), model(), "", &at("s"), "off", "");
    let text = fs::read_to_string(at("c.toml")).unwrap().replace("policy = \"off\"", &board.governor("observe"));
    fs::write(at("c.toml"), text).unwrap();
    let stderr = File::create(at("stderr")).unwrap();
    let stream = stderr.metadata().map(|about| format!("{}:{}", about.dev(), about.ino())).unwrap();
    let mut command = own_run(how, "mount --bind \"$0\" /run && exec \"$@\"");
    command.arg(env!("CARGO_BIN_EXE_hearthd")).arg("--config").arg(at("c.toml"));
    shelter(&mut command, &at("c.toml"));
    let _daemon = Killed(command.env("JOURNAL_STREAM", stream).stderr(stderr).spawn().unwrap());
    let mut heard = Heard { journal, entries: Vec::new() };
    heard.entry("MESSAGE", "board: OrangePi Zero3");
    let ready = heard.entry("MESSAGE", "ready: tiny");
    let has = |fields: &Fields, name: &str, value: &str| fields.iter().any(|f| f == &(name.to_owned(), value.to_owned()));
    assert!(
        has(&ready, "HEARTH_MODEL", "tiny") && has(&ready, "SYSLOG_IDENTIFIER", "hearthd") && has(&ready, "PRIORITY", "5"),
        "{ready:?}"
    );
    assert_eq!(fs::read_to_string(at("stderr")).unwrap(), "", "with a journal, stderr is silent");
    // Only a thermometer that was read once can be lost.
    let (thermal, began) = (|| ended(&mut curl(&at("s"), "/v1/thermal")).stdout, Instant::now());
    while !String::from_utf8_lossy(&thermal()).contains("\"cpu-thermal\"") {
        assert!(began.elapsed() < DEADLINE, "no temperature came");
        std::thread::sleep(POLL);
    }
    board.tell("thermometer missing");
    let lost = heard.entry("HEARTH_KIND", "sensor-lost");
    assert!(has(&lost, "PRIORITY", "4"), "{lost:?}");
    let catalogue = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/hearth.catalog")).unwrap();
    let id = &lost.iter().find(|(name, _)| name == "MESSAGE_ID").unwrap().1;
    assert!(catalogue.contains(&format!("-- {id}\nSubject: No thermometer answers")), "{id}");
}
