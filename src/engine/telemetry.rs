//! What the engine tells about itself after each step: counts that only grow, and how things stand now.

use std::time::Duration;

/// What the last step was about; or the first, which begins with a request to an engine at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Idle,
    /// Prompts only.
    Prefill,
    /// Answers only.
    Decode,
    /// Answers, and prompts beside them.
    Mixed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Telemetry {
    pub phase: Phase,
    /// Sequences that have a place now, and requests that wait for one.
    pub running: usize,
    pub waiting: usize,
    /// Of the running, those that wait for their reader.
    pub held: usize,
    pub blocks: usize,
    pub blocks_held: usize,
    /// Blocks kept only as prefixes that may be used again.
    pub blocks_idle: usize,
    /// Prompt tokens computed, and those that were known from before, since the start.
    pub prompt_computed: u64,
    pub prompt_cached: u64,
    pub generated: u64,
    /// Prompt tokens of running sequences that are still to be computed.
    pub prompt_left: usize,
    pub steps: u64,
    /// Time inside steps: those with prompt rows, and those of answers only.
    pub prefill_time: Duration,
    pub decode_time: Duration,
    /// The last step.
    pub step_time: Duration,
    pub step_rows: usize,
    pub step_threads: usize,
    /// Requests that came to an end: complete, cancelled by their reader or by a stop, failed.
    pub completed: u64,
    pub cancelled: u64,
    pub failed: u64,
}

impl Telemetry {
    pub fn busy(&self) -> Duration {
        self.prefill_time + self.decode_time
    }
}
