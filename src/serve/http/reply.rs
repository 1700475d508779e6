//! Errors in OpenAI's shape with llama-server's types, which clients match on.

use super::HEAD_BYTES_MAX;
use crate::service::Error;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// When to come again while the queue is full, in seconds: about the length of a short answer on a small board.
const RETRY_AFTER: &str = "2";

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
    pub fn new(status: StatusCode, kind: &str, message: &str) -> Self {
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
