//! A record of what the governor saw and decided, for `hearth replay`: a line of JSON a tick, in a file that the configuration names
//! and whose size it bounds. Off by default: cards wear.

use crate::governor::replay::{Header, Tick};
use crate::governor::{Decision, Observation};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Lines that may wait for a slow card; with more the record ends, since one with holes replays to something else.
const WAITING_MAX: usize = 256;

/// The recorder. Dropping it ends the file.
pub struct Trace {
    lines: Option<SyncSender<String>>,
    path: PathBuf,
    bytes_left: u64,
}

impl Trace {
    /// Begins a new file. Writing happens on a thread of its own: the tick waits for no card. Each line is written at once, so that a daemon
    /// that is killed leaves a whole record; what goes to the card together is the kernel's business.
    pub fn start(path: &Path, bytes_max: u64) -> std::io::Result<Trace> {
        let mut file = File::create(path)?;
        let (lines, written) = sync_channel::<String>(WAITING_MAX);
        let name = path.display().to_string();
        let write = move || {
            if let Err(error) = written.iter().try_for_each(|line| file.write_all(line.as_bytes())) {
                tracing::warn!(%error, "{name}: the record of the governor's decisions ends here");
            }
        };
        std::thread::Builder::new().name("trace".into()).spawn(write)?;
        Ok(Trace { lines: Some(lines), path: path.into(), bytes_left: bytes_max })
    }

    /// At the beginning, and whenever the policy is another from here on.
    pub fn policy(&mut self, header: &Header) {
        self.line(header);
    }

    pub fn tick(&mut self, seen: &Observation, decided: &Decision) {
        self.line(&Tick { seen: seen.clone(), decided: decided.clone() });
    }

    fn line(&mut self, value: &impl Serialize) {
        let Some(lines) = &self.lines else { return };
        let Ok(mut line) = serde_json::to_string(value) else { return };
        line.push('\n');
        let end = match self.bytes_left.checked_sub(line.len() as u64) {
            None => "it has the size that `governor.trace_mebibytes` allows",
            Some(left) => match lines.try_send(line) {
                Ok(()) => return self.bytes_left = left,
                Err(_) => "the disk does not keep up, or refuses it",
            },
        };
        tracing::warn!("{}: the record of the governor's decisions ends here: {end}", self.path.display());
        self.lines = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::replay::replay;
    use crate::governor::{Goal, Policy, Prior, State, decide};
    use crate::units::{Celsius, Seconds};

    fn header(goal: Goal) -> Header {
        let policy = Policy { goal, prior: Prior::unknown(4, vec![1000.0, 2000.0]) };
        Header { kind: "hearth-trace".into(), version: 1, source: "real".into(), board: "test".into(), policy }
    }

    /// Records some minutes of a board that warms up, under a goal that changes half-way.
    fn record(path: &Path, bytes_max: u64) {
        let mut trace = Trace::start(path, bytes_max).unwrap();
        let mut policy = header(Goal::Observe);
        trace.policy(&policy);
        let mut state = State::new(&policy.policy);
        for second in 0..200 {
            if second == 100 {
                policy = header(Goal::Eco);
                trace.policy(&policy);
            }
            let soc = crate::governor::observation::Aged { value: Celsius(50.0 + 0.1 * second as f32), age: Seconds(0.5) };
            let seen = Observation { dt: Seconds(1.0), soc: Some(soc), threads: 4, ..Observation::default() };
            let (next, decided) = decide(&policy.policy, state, &seen);
            state = next;
            trace.tick(&seen, &decided);
        }
        drop(trace);
        // The writing thread ends on its own; what it has is there then.
        while bytes_max > 1 << 20 && std::fs::read_to_string(path).unwrap().lines().count() < 202 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_record_replays_to_the_same_decisions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        record(&path, 64 << 20);
        let (mut ticks, mut different) = (0, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        replay(&text, |tick| {
            ticks += 1;
            different += usize::from(tick.recorded != tick.decided);
        })
        .unwrap();
        assert_eq!((ticks, different), (200, 0));
    }

    #[test]
    fn a_record_ends_at_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        record(&path, 20_000);
        assert!(std::fs::metadata(&path).unwrap().len() <= 20_000);
    }
}
