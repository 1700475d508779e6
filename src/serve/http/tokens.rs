//! `/tokenize`, `/detokenize`, `/apply-template`, as llama-server has them.

use super::body::fields;
use super::reply::Refusal;
use crate::serve::Shared;
use crate::serve::wire;
use crate::service::{Error, TokenId};
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

pub async fn tokenize(State(shared): State<Shared>, request: Request) -> Result<Json<Value>, Refusal> {
    let fields = fields(request).await?;
    let text = wire::text(&fields, "content")?.ok_or_else(|| wire::bad("content", "is missing: the text to tokenize"))?.to_owned();
    let add_special = wire::flag(&fields, "add_special")?.unwrap_or(false);
    let parse_special = wire::flag(&fields, "parse_special")?.unwrap_or(true);
    let with_pieces = wire::flag(&fields, "with_pieces")?.unwrap_or(false);
    let model = shared.service.ready().await?;
    let work = move || -> Result<Value, Error> {
        let tokens = model.tokenize(&text, add_special, parse_special)?;
        if !with_pieces {
            return Ok(json!(tokens));
        }
        Ok(tokens.iter().map(|id| json!({"id": id, "piece": piece(model.token_bytes(*id))})).collect())
    };
    Ok(Json(json!({"tokens": blocking(work).await?})))
}

/// A token's text, or its bytes where they are no whole characters.
fn piece(bytes: Vec<u8>) -> Value {
    match String::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(error) => json!(error.into_bytes()),
    }
}

pub async fn detokenize(State(shared): State<Shared>, request: Request) -> Result<Json<Value>, Refusal> {
    let fields = fields(request).await?;
    let tokens: Vec<TokenId> = match fields.get("tokens") {
        Some(Value::Array(list)) => wire::token_ids(list, "tokens")?,
        _ => return Err(wire::bad("tokens", "must be a list of token ids").into()),
    };
    let model = shared.service.ready().await?;
    Ok(Json(json!({"content": blocking(move || model.detokenize(&tokens)).await?})))
}

pub async fn apply_template(State(shared): State<Shared>, request: Request) -> Result<Json<Value>, Refusal> {
    let request = wire::chat(&fields(request).await?)?;
    let model = shared.service.ready().await?;
    Ok(Json(json!({"prompt": blocking(move || model.apply_template(&request)).await?})))
}

/// Long texts must not hold up the other connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Failed(format!("the request could not be read: {e}")))?
}
