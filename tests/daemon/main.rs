//! The daemon as a whole, with real clients: `curl`, the `openai` package, `busctl`, `gdbus`, and a program that reads the stream's pipe.
//! Each test has a daemon of its own in a temporary folder, on a bus of its own. Nothing sleeps: tests wait for what they claim.

mod bus;
mod heat;
mod house;
mod http;
mod journal;
mod lifecycle;
mod played;
#[path = "../process/mod.rs"]
mod process;
mod real;
mod units;
