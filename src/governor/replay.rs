//! A recorded run and its repetition. A trace is JSON lines: first the policy, then one line a tick with what was seen and decided. A
//! policy that is exchanged on the way (a client holds a mode, the desktop saves power) has a line of its own from where it holds.

use super::{Decision, Observation, Policy, State, decide};
use serde::{Deserialize, Serialize};

/// The longest line that is read: a tick has some 2 kB, a policy less than 8.
pub const LINE_BYTES_MAX: usize = 1 << 16;

/// First line of a trace, and any further one from which another policy holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// `hearth-trace`
    pub kind: String,
    pub version: u32,
    /// `real`, `pc` or `simulated`.
    pub source: String,
    pub board: String,
    pub policy: Policy,
}

/// Any other line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tick {
    pub seen: Observation,
    pub decided: Decision,
}

/// Why a trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the trace is empty: not even its first line, the policy, is there")]
    Empty,
    #[error("line {line} of the trace is longer than {LINE_BYTES_MAX} bytes; it is not a trace of hearth")]
    LongLine { line: usize },
    #[error("line {line} of the trace: {source}")]
    Parse { line: usize, source: serde_json::Error },
    #[error("the trace says it is `{kind}` version {version}; this hearth reads `hearth-trace` version 1")]
    Kind { kind: String, version: u32 },
}

/// One tick of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Replayed {
    pub line: usize,
    pub at_s: f64,
    pub seen: Observation,
    pub recorded: Decision,
    pub decided: Decision,
}

/// Reads a trace line by line and decides anew; `each` gets every tick. Returns the header.
pub fn replay<'a>(lines: impl Iterator<Item = &'a str>, mut each: impl FnMut(Replayed)) -> Result<Header, ReplayError> {
    let mut lines = lines.enumerate().filter(|(_, l)| !l.trim().is_empty());
    let (_, first) = lines.next().ok_or(ReplayError::Empty)?;
    if first.len() > LINE_BYTES_MAX {
        return Err(ReplayError::LongLine { line: 1 });
    }
    let header = header_in(first, 1)?;
    let mut policy = header.policy.clone();
    let mut state = State::new(&policy);
    for (i, text) in lines {
        let line = i + 1;
        if text.len() > LINE_BYTES_MAX {
            return Err(ReplayError::LongLine { line });
        }
        if text.starts_with("{\"kind\"") {
            policy = header_in(text, line)?.policy;
            continue;
        }
        let tick: Tick = serde_json::from_str(text).map_err(|source| ReplayError::Parse { line, source })?;
        let (next, decided) = decide(&policy, state, &tick.seen);
        state = next;
        each(Replayed { line, at_s: state.now().0, seen: tick.seen, recorded: tick.decided, decided });
    }
    Ok(header)
}

fn header_in(text: &str, line: usize) -> Result<Header, ReplayError> {
    let header: Header = serde_json::from_str(text).map_err(|source| ReplayError::Parse { line, source })?;
    if header.kind != "hearth-trace" || header.version != 1 {
        return Err(ReplayError::Kind { kind: header.kind, version: header.version });
    }
    Ok(header)
}
