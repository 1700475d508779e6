//! `/health`, `/metrics`, `/v1/thermal`: for those who look on. None of them waits for the engine.

use super::reply::{Refusal, loading};
use crate::serve::counts::{family, row};
use crate::serve::{Shared, VERSION};
use crate::service::{State as ServiceState, Telemetry};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;

pub async fn health(State(shared): State<Shared>) -> Result<Json<Value>, Refusal> {
    match &*shared.service.state().borrow() {
        ServiceState::Ready(model) => match model.failure() {
            None => Ok(Json(json!({"status": "ok"}))),
            Some(reason) => Err(loading(&reason)),
        },
        ServiceState::Loading { done, total } => Err(loading(&format!("Loading model: {} %", 100 * done / (*total).max(1)))),
        ServiceState::Draining => Err(loading("the daemon is stopping")),
        ServiceState::Failed(reason) => Err(loading(reason)),
    }
}

pub async fn metrics(State(shared): State<Shared>) -> Response {
    let model = shared.service.model().ok();
    let telemetry: Option<Telemetry> = model.as_ref().map(|m| *m.telemetry().borrow());
    let mut out = shared.counts.prometheus(telemetry.as_ref());
    family(&mut out, "hearth_build_info", "gauge", "The daemon's version.");
    row(&mut out, &format!("hearth_build_info{{version=\"{VERSION}\"}}"), 1.0);
    family(&mut out, "hearth_model_loaded", "gauge", "1 while a model can answer.");
    row(&mut out, "hearth_model_loaded", f64::from(u8::from(model.is_some())));
    if let Some(model) = &model {
        let info = model.info();
        family(&mut out, "hearth_model_bytes", "gauge", "Size of the model's file, which is mapped in place.");
        row(&mut out, "hearth_model_bytes", info.bytes.0 as f64);
        family(&mut out, "hearth_kv_bytes", "gauge", "Memory of caches and scratch.");
        row(&mut out, "hearth_kv_bytes", info.cache.0 as f64);
    }
    for (name, field, help) in RESIDENT {
        if let Some(bytes) = resident_bytes(field) {
            family(&mut out, name, "gauge", help);
            row(&mut out, name, bytes as f64);
        }
    }
    let thermal = shared.thermal.borrow().clone();
    out.push_str(&thermal.metrics());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response()
}

/// Metric, field of proc_pid_status(5), help.
const RESIDENT: [(&str, &str, &str); 2] = [
    ("hearth_resident_bytes", "VmRSS:", "Memory of the daemon in use, pages of the mapped model among it."),
    ("hearth_model_resident_bytes", "RssFile:", "Of the mapped files, which are the model and some MiB of program, what is in memory."),
];

/// From the daemon's own entry in /proc, which hardening leaves visible.
fn resident_bytes(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status.lines().find_map(|l| l.strip_prefix(field))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// The latest report; for those who accept `text/event-stream`, each one as it comes.
pub async fn thermal(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let wants_stream = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("text/event-stream"));
    if !wants_stream {
        let thermal = shared.thermal.borrow().clone();
        return Json(thermal.report()).into_response();
    }
    let (follower, mut reports) = (shared.followers.follow(), shared.thermal.clone());
    reports.mark_changed();
    let body = futures_util::stream::unfold((follower, reports, shared.service.state()), |(follower, mut reports, mut state)| async move {
        // A stream that nobody would end must not outlive the daemon's wish to stop.
        let changed = tokio::select! {
            changed = reports.changed() => changed.is_ok(),
            _ = state.wait_for(|s| matches!(s, ServiceState::Draining)) => false,
        };
        let thermal = changed.then(|| reports.borrow_and_update().clone())?;
        let frame = Bytes::from(format!("data: {}\n\n", thermal.report()));
        Some((Ok::<_, Infallible>(frame), (follower, reports, state)))
    });
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")], Body::from_stream(body)).into_response()
}
