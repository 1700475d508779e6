//! Hearth runs a language model on a small board: weights stay in the file, words come out of a socket, and the heat decides the pace.
//!
//! This file is the map of the house. Two ways lead through it:
//!
//! - **Words.** bytes → [`gguf`] views → [`model`] builds a [`program`] once → [`backend`] compiles it to plans →
//!   [`engine`] steps batches → logits → sampler → token id → [`service`] (bytes, stop strings, deltas) → [`serve`] frames → client.
//!   Between engine and service only token ids travel; between gguf and backend only views of the mapped file.
//! - **Heat.** [`board`] readings with their age → the [`daemon`]'s tick (by way of the [`helm`]) → [`governor`]'s `decide` → limits for the engine and
//!   settings for the board's actuators → applied at a step boundary; the engine's telemetry is part of the next observation.
//!
//! Who may import whom (`tests/import_rule.rs` reads the `use` lines and fails on any other arrow):
//!
//! | room | may use |
//! |------|---------|
//! | `units`, `chat`, `runtime` (and the crate `hearth_kernels`) | nothing of ours |
//! | `gguf`, `program` | kernels |
//! | `tokenizer` | gguf, units |
//! | `model` | gguf, program |
//! | `backend` | kernels, program, gguf, units |
//! | `engine` | backend, units |
//! | `service` | gguf, tokenizer, chat, program, model, backend, engine, units |
//! | `board` | units |
//! | `governor` | units |
//! | `helm` | board, governor, units |
//! | `measure` | service, engine, board, governor, helm, units, and what they stand on |
//! | `serve` | service, units |
//! | `daemon` | board, governor, helm, engine, service, serve, runtime, units |
//! | `cli` | all but daemon and serve: it reaches a daemon through its socket only |

pub mod backend;
pub mod board;
pub mod chat;
pub mod cli;
pub mod daemon;
pub mod engine;
pub mod gguf;
pub mod governor;
pub mod helm;
pub mod measure;
pub mod model;
pub mod program;
pub mod runtime;
pub mod serve;
pub mod service;
pub mod tokenizer;
pub mod units;
