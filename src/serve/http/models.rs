//! `/v1/models`.

use super::reply::Refusal;
use crate::serve::Shared;
use crate::service::{Error, ModelInfo};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

/// Answers at once, with no model while one is being loaded: who polls this must not wait for a load.
pub async fn list(State(shared): State<Shared>) -> Json<Value> {
    let models: Vec<Value> = shared.service.model().iter().map(|m| card(m.info())).collect();
    Json(json!({"object": "list", "data": models}))
}

pub async fn one(State(shared): State<Shared>, id: Result<Path<String>, PathRejection>) -> Result<Json<Value>, Refusal> {
    let model = shared.service.model()?;
    let info = model.info();
    match id {
        Ok(Path(id)) if id == info.name => Ok(Json(card(info))),
        Ok(Path(id)) => Err(Error::NotFound(format!("there is no model `{id}`; there is `{}`", info.name)).into()),
        // Its escapes are no text.
        Err(_) => Err(Error::NotFound(format!("there is no model of this name; there is `{}`", info.name)).into()),
    }
}

fn card(info: &ModelInfo) -> Value {
    let created = info.created.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
    json!({
        "id": info.name,
        "object": "model",
        "created": created,
        "owned_by": "hearth",
        "meta": {
            "architecture": info.architecture,
            "file_type": info.file_type,
            "n_vocab": info.vocabulary,
            "n_ctx": info.context,
            "n_ctx_train": info.context_trained,
            "n_embd": info.dim,
            "n_params": info.parameters,
            "size": info.bytes.0,
            "backend": info.backend,
            "device": info.device,
            "threads": info.threads,
            "cache_bytes": info.cache.0,
        },
    })
}
