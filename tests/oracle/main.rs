//! Logits against references, every model on every backend.
//!
//! - `oracle`: tiny random models of every architecture, whose logits are known from two independent engines.
//! - `quantized`: models in quantized formats, against float64 on the decoded weights.
//! - `real`: two trained models, teacher-forced along an engine's greedy answers.
//! - `tiny`: models made here in code, which need no fixture: they run on every backend and must agree with the plain one.
//! - `shapes`: the same, of random shapes and in random mixes of formats.
//! - `threads`: on how many, and beside whom, a model runs does not change it.
//! - `command`: `hearth logits`, as a script calls it.
//! - `programs`: the text of each architecture's program.
//!
//! `fixtures` finds and reads the reference data; `session` drives a loaded model.

mod command;
mod fixtures;
mod oracle;
#[path = "../process/mod.rs"]
mod process;
mod programs;
mod quantized;
mod real;
mod session;
mod shapes;
mod threads;
mod tiny;

use hearth::backend::{Backend, cpu::Cpu, plain::Plain};

/// Every backend that runs on any machine, the plain one first.
fn backends() -> Vec<Box<dyn Backend>> {
    vec![Box::new(Plain::new()), cpu()]
}

fn cpu() -> Box<dyn Backend> {
    Box::new(Cpu::new().expect("HEARTH_CPU is unset or sound"))
}

/// Whether this is one of several emulated processors, which `HEARTH_TEST_TIER` says: slow, and not alone in what all of them do alike.
fn emulated() -> bool {
    std::env::var_os("HEARTH_TEST_TIER").is_some()
}

/// Those that are held to references: emulated, not the plain one, which is the same on all processors.
fn held_to_references() -> Vec<Box<dyn Backend>> {
    if emulated() { vec![cpu()] } else { backends() }
}
