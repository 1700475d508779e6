//! Measuring, honestly: a model's peak speed here, and (with the governor) what heat leaves of it.
//!
//! - [`quality`]: perplexity, and divergence from a reference. [`speed`]: prompt and single-token speed. [`session`]: a model opened for
//!   measuring, step by step.
//! - What heat leaves: [`load`] (what is asked of the machine), [`series`] (what each second gave), [`contention`] (who else had the
//!   machine), [`steady`] (when a machine is cold, and when its speed is steady), [`sustained`] (the rule and its figures), [`versus`] (two
//!   settings in turn), [`statistics`] under them.
//! - Whom it runs on: this machine ([`here`], with [`machine`] for what it is and [`steered`] for its governor), or a [`simulated`] board.
//! - What stays of it: [`record`] (a file and a table), [`picture`] (its story), [`compare`] (two side by side).
//! - [`thermal`]: what the governor promises, held against the simulator (`make thermal`).

pub mod compare;
pub mod contention;
pub mod here;
pub mod load;
pub mod machine;
pub mod picture;
pub mod quality;
pub mod record;
pub mod series;
pub mod session;
pub mod simulated;
pub mod speed;
pub mod statistics;
pub mod steady;
pub mod steered;
pub mod sustained;
pub mod thermal;
pub mod versus;
