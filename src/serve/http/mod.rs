//! HTTP/1.1 on the Unix socket: OpenAI's paths, llama-server's extras, metrics, and the board's temperature.
//!
//! - [`listener`]: connections: how many, how slow, and how they end.
//! - [`body`]: a request's JSON: how large, how slow, and how many large ones at once; [`unread`]: what a refusal leaves of it.
//! - [`reply`]: errors as clients match on them.
//! - [`chat`]: `/v1/chat/completions`, `/v1/completions`; [`stream`]: their server-sent events; [`whole`]: their answers in one piece.
//! - [`parts`]: pieces of both.
//! - [`models`], [`tokens`], [`observe`]: the rest.

mod body;
mod chat;
pub mod listener;
mod models;
mod observe;
mod parts;
mod reply;
mod stream;
mod tokens;
mod unread;
mod whole;

use super::Shared;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

/// Most bytes of a request's head: its first line and its headers.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Every path there is.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/health", get(observe::health))
        .route("/v1/health", get(observe::health))
        .route("/metrics", get(observe::metrics))
        .route("/v1/thermal", get(observe::thermal))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/completions", post(chat::completion))
        // As llama-server has them too: some programs are told a base address without `/v1`.
        .route("/models", get(models::list))
        .route("/chat/completions", post(chat::chat))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/apply-template", post(tokens::apply_template))
        .fallback(reply::no_such_path)
        .method_not_allowed_fallback(reply::no_such_method)
        .layer(DefaultBodyLimit::max(body::BYTES_MAX))
        .layer(axum::middleware::from_fn(reply::within_head))
        .layer(axum::middleware::from_fn(unread::thrown_away))
        .with_state(shared)
}
