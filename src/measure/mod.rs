//! Measuring, honestly: a model's peak speed here, and (with the governor) what heat leaves of it.
//!
//! - [`quality`]: perplexity, and divergence from a reference.
//! - [`session`]: a model opened for measuring, step by step.
//! - [`speed`]: prompt and single-token speed.
//! - [`thermal`]: what the governor promises, held against the simulator (`make thermal`).

pub mod quality;
pub mod session;
pub mod speed;
pub mod thermal;
