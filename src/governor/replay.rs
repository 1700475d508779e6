//! A recorded run and its repetition. A trace is JSON lines: first the policy, then one line a tick with what was seen and decided. A
//! policy that is exchanged on the way (a client holds a mode, the desktop saves power) has a line of its own from where it holds.

use super::policy::Fan;
use super::{Decision, Observation, Policy, Prior, State, decide};
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
    #[error("line {line} of the trace, column {column}: {reason}")]
    Parse { line: usize, column: usize, reason: String },
    #[error("line {line} of the trace: the policy's `{field}` is that of no board: {reason}")]
    Policy { line: usize, field: &'static str, reason: String },
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

/// A trace that was replayed.
#[derive(Debug)]
pub struct Trace {
    pub header: Header,
    /// The last line, where it was cut off: a board that lost its power in the middle of it. It is left out.
    pub cut: Option<usize>,
}

/// Reads a trace line by line and decides anew; `each` gets every tick.
pub fn replay(text: &str, mut each: impl FnMut(Replayed)) -> Result<Trace, ReplayError> {
    let mut lines = text.lines().zip(1..).filter(|(text, _)| !text.trim().is_empty()).peekable();
    let (first, line) = lines.next().ok_or(ReplayError::Empty)?;
    let header = header_in(first, line)?;
    let mut policy = header.policy.clone();
    let mut state = State::new(&policy);
    while let Some((line_text, line)) = lines.next() {
        let is_cut = lines.peek().is_none() && !text.ends_with('\n');
        match line_in(line_text, line) {
            Ok(Line::Policy(header)) => policy = header.policy,
            Ok(Line::Tick(tick)) => {
                let (next, decided) = decide(&policy, state, &tick.seen);
                state = next;
                each(Replayed { line, at_s: state.now().0, seen: tick.seen, recorded: tick.decided, decided });
            }
            Err(ReplayError::Parse { .. }) if is_cut => return Ok(Trace { header, cut: Some(line) }),
            Err(error) => return Err(error),
        }
    }
    Ok(Trace { header, cut: None })
}

/// A line after the first.
enum Line {
    Policy(Box<Header>),
    Tick(Box<Tick>),
}

fn line_in(text: &str, line: usize) -> Result<Line, ReplayError> {
    match text.starts_with("{\"kind\"") {
        true => header_in(text, line).map(|header| Line::Policy(Box::new(header))),
        false => json(text, line).map(Line::Tick),
    }
}

fn header_in(text: &str, line: usize) -> Result<Header, ReplayError> {
    /// Of a later version nothing more need be as it is here.
    #[derive(Deserialize)]
    struct Named {
        kind: String,
        version: u32,
    }
    let Named { kind, version } = json(text, line)?;
    if kind != "hearth-trace" || version != 1 {
        return Err(ReplayError::Kind { kind, version });
    }
    let header: Header = json(text, line)?;
    match implausible(&header.policy.prior) {
        Some((field, reason)) => Err(ReplayError::Policy { line, field, reason }),
        None => Ok(header),
    }
}

/// What of a board no board has, and no arithmetic should be tried with, and why; bounds are far outside those of any.
fn implausible(prior: &Prior) -> Option<(&'static str, String)> {
    if !prior.steps_mhz.is_sorted() {
        return Some(("steps_mhz", "clocks must ascend".into()));
    }
    let of_fan = |pick: fn(&Fan) -> f32| prior.fan.iter().map(pick).collect::<Vec<_>>();
    let figures = [
        ("steps_mhz", prior.steps_mhz.clone(), 1.0..=20_000.0),
        ("volts", prior.volts.clone(), 0.1..=5.0),
        ("idle_w", vec![prior.idle_w], 0.0..=1000.0),
        ("c_dyn", vec![prior.c_dyn], 0.0..=100.0),
        ("act_decode", vec![prior.act_decode], 0.0..=100.0),
        ("act_prefill", vec![prior.act_prefill], 0.0..=100.0),
        ("rjb", [vec![prior.rjb], of_fan(|f| f.rjb)].concat(), 0.001..=1000.0),
        ("rba", [vec![prior.rba], of_fan(|f| f.rba)].concat(), 0.001..=1000.0),
        ("tau_s", [vec![prior.tau_s], of_fan(|f| f.tau_s)].concat(), 0.1..=100_000.0),
        ("sigma", vec![prior.sigma], 0.001..=10.0),
        ("board_w", vec![prior.board_w], 0.0..=1000.0),
        ("trip_c", prior.trip_c.into_iter().collect(), -50.0..=500.0),
        ("critical_c", prior.critical_c.into_iter().collect(), -50.0..=500.0),
        ("fan", prior.fan.iter().flat_map(|f| [&f.trip_c[..], &f.ratio].concat()).collect(), 0.0..=500.0),
    ];
    figures.into_iter().find_map(|(field, values, bounds)| {
        let wrong = values.into_iter().find(|v| !bounds.contains(v))?;
        Some((field, format!("{wrong} is not from {} to {}", bounds.start(), bounds.end())))
    })
}

fn json<'a, T: Deserialize<'a>>(text: &'a str, line: usize) -> Result<T, ReplayError> {
    if text.len() > LINE_BYTES_MAX {
        return Err(ReplayError::LongLine { line });
    }
    serde_json::from_str(text).map_err(|error| {
        let told = error.to_string();
        // Its own count of lines is always 1.
        let reason = told.rsplit_once(" at line ").map_or(told.as_str(), |(reason, _)| reason).to_owned();
        ReplayError::Parse { line, column: error.column(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::profile::Profile;
    use crate::governor::{Goal, KernelPolicy};

    /// A policy and two ticks.
    fn trace() -> String {
        let policy = Policy { goal: Goal::Observe, prior: Prior::unknown(4, vec![1000.0, 2000.0]) };
        let header = Header { kind: "hearth-trace".into(), version: 1, source: "real".into(), board: "test".into(), policy };
        let seen = Observation { threads: 4, ..Observation::default() };
        let (_, decided) = decide(&header.policy, State::new(&header.policy), &seen);
        let tick = serde_json::to_string(&Tick { seen, decided }).unwrap();
        format!("{}\n{tick}\n{tick}\n", serde_json::to_string(&header).unwrap())
    }

    #[test]
    fn what_was_cut_off_by_a_loss_of_power_is_left_out_and_told() {
        let whole = trace();
        let ticks = |text: &str| {
            let mut ticks = 0;
            let cut = replay(text, |_| ticks += 1).unwrap().cut;
            (ticks, cut)
        };
        assert_eq!(ticks(&whole), (2, None));
        assert_eq!(ticks(whole.trim_end()), (2, None), "the last line is whole");
        assert_eq!(ticks(&whole[..whole.len() - 2]), (1, Some(3)));
        assert_eq!(ticks(&format!("{whole}\0\0\0\0")), (2, Some(4)), "blocks that were never written");
    }

    #[test]
    fn every_board_built_in_is_one_that_a_replay_takes() {
        for profile in Profile::all() {
            for kernel in [KernelPolicy::PowerAllocator, KernelPolicy::StepWise, KernelPolicy::NotTheKernel] {
                assert_eq!(implausible(&Prior::of(&profile, kernel, Some(85.0), Some(115.0))), None, "{}", profile.id);
            }
        }
    }

    #[test]
    fn what_is_no_trace_is_told_by_its_line() {
        let whole = trace();
        let told = |text: &str| replay(text, |_| {}).unwrap_err().to_string();
        assert!(told("").starts_with("the trace is empty") && told("\n\n").starts_with("the trace is empty"));
        assert_eq!(told("[1]\n"), "line 1 of the trace, column 2: invalid type: integer `1`, expected a string");
        assert_eq!(told("{\"kind\":"), "line 1 of the trace, column 8: EOF while parsing a value");
        let unlike = told(&whole.replacen("\"dt\"", "\"td\"", 1));
        assert!(unlike.starts_with("line 2 of the trace, column ") && unlike.ends_with(": missing field `dt`"), "{unlike}");
        let wild = told(&whole.replacen("\"volts\":[0.9", "\"volts\":[65536", 1));
        assert_eq!(wild, "line 1 of the trace: the policy's `volts` is that of no board: 65536 is not from 0.1 to 5");
        let upside_down = told(&whole.replacen("[1000.0,2000.0]", "[2000.0,1000.0]", 1));
        assert_eq!(upside_down, "line 1 of the trace: the policy's `steps_mhz` is that of no board: clocks must ascend");
        let later = "{\"kind\":\"hearth-trace\",\"version\":2,\"goals\":[]}\n";
        assert_eq!(told(later), "the trace says it is `hearth-trace` version 2; this hearth reads `hearth-trace` version 1");
        assert!(told(&" ".repeat(LINE_BYTES_MAX + 1).replacen(' ', "x", 1)).starts_with("line 1 of the trace is longer than 65536 bytes"));
    }
}
