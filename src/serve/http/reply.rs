//! Errors in OpenAI's shape with llama-server's types, which clients match on, and the bodies of requests.

use super::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use crate::serve::wire::Fields;
use crate::service::Error;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// When to come again while the queue is full, in seconds: about the length of a short answer on a small board.
const RETRY_AFTER: &str = "2";
/// A client that takes longer to send a request's body is gone, or means no good.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// An error on its way to a client.
pub struct Refusal {
    status: StatusCode,
    body: Value,
    retry: Retry,
}

/// What a client that would ask again is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    Unsaid,
    Soon,
    Never,
}

impl Refusal {
    fn new(status: StatusCode, kind: &str, message: &str) -> Self {
        let body = json!({"message": message, "type": kind, "param": null, "code": status.as_u16()});
        Self { status, body, retry: Retry::Unsaid }
    }

    /// `{"error": …}`, as it also stands in a stream that has begun.
    pub fn json(&self) -> Value {
        json!({"error": self.body})
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (status, kind, retry) = match &error {
            Error::Busy(_) | Error::TooHot => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Retry::Soon),
            Error::NotReady(_) | Error::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Retry::Soon),
            Error::BadRequest { .. } => (StatusCode::BAD_REQUEST, "invalid_request_error", Retry::Unsaid),
            Error::ContextFull { .. } => (StatusCode::BAD_REQUEST, "exceed_context_size_error", Retry::Unsaid),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found_error", Retry::Unsaid),
            // It would go the same way again, after minutes on a small board.
            Error::NoMemory(_) | Error::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", Retry::Never),
        };
        let mut refusal = Refusal { retry, ..Refusal::new(status, kind, &message) };
        match error {
            Error::BadRequest { param, .. } => refusal.body["param"] = json!(param),
            Error::ContextFull { prompt_tokens, context } => {
                refusal.body["n_prompt_tokens"] = json!(prompt_tokens);
                refusal.body["n_ctx"] = json!(context);
            }
            _ => {}
        }
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.json())).into_response();
        let headers = response.headers_mut();
        match self.retry {
            Retry::Unsaid => {}
            Retry::Soon => _ = headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER)),
            Retry::Never => _ = headers.insert("x-should-retry", HeaderValue::from_static("false")),
        }
        response
    }
}

pub async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found_error", &format!("there is no {}; chats go to /v1/chat/completions", uri.path()))
}

pub async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", &format!("{} can't be asked with {method}", uri.path()))
}

/// While the model loads: as llama-server says it.
pub fn loading(message: &str) -> Refusal {
    Refusal { retry: Retry::Soon, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message) }
}

/// Refuses a request whose head is longer than [`HEAD_BYTES_MAX`].
pub async fn within_head(request: Request, next: Next) -> Result<Response, Refusal> {
    // With what stands between its parts: "GET / HTTP/1.1", ": " and the ends of lines.
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let line = request.method().as_str().len() + 1 + path + " HTTP/1.1\r\n\r\n".len();
    let bytes = request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + ": \r\n".len());
    if bytes > HEAD_BYTES_MAX {
        let message = format!("the request's head of {bytes} bytes is larger than the {HEAD_BYTES_MAX} that are taken");
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error", &message));
    }
    Ok(next.run(request).await)
}

/// The JSON object of a request, whatever its content type says.
pub async fn fields(request: Request) -> Result<Fields, Refusal> {
    let wrong = |status, message: String| Refusal::new(status, "invalid_request_error", &message);
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = declared.filter(|bytes| *bytes > BODY_BYTES_MAX as u64) {
        let message = format!("the request's body of {bytes} bytes is larger than the {BODY_BYTES_MAX} that are taken");
        return Err(wrong(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let body = timeout(BODY_WITHIN, Bytes::from_request(request, &()))
        .await
        .map_err(|_| wrong(StatusCode::REQUEST_TIMEOUT, format!("the request's body did not come within {} s", BODY_WITHIN.as_secs())))?
        .map_err(|e| wrong(e.status(), format!("the request's body can't be taken: {e}")))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong(StatusCode::BAD_REQUEST, "the request's body must be a JSON object".into())),
        Err(e) => Err(wrong(StatusCode::BAD_REQUEST, format!("the request's body is no JSON: {e}"))),
    }
}
