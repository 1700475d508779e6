//! Measuring, honestly: a model's peak speed here, and (with the governor) what heat leaves of it.
//!
//! - [`quality`]: perplexity, and divergence from a reference.
//! - [`session`]: a model opened for measuring, step by step.
//! - [`speed`]: prompt and single-token speed.
//! - [`sustained`]: the rule for sustained against peak, on a series of seconds; [`statistics`] under it, [`simulated`] boards and
//!   this machine ([`here`]) to run it on.
//! - [`record`]: a run as a file, two of them side by side; [`picture`]: its story.
//! - [`thermal`]: what the governor promises, held against the simulator (`make thermal`).

pub mod here;
pub mod picture;
pub mod quality;
pub mod record;
pub mod session;
pub mod simulated;
pub mod speed;
pub mod statistics;
pub mod sustained;
pub mod thermal;
