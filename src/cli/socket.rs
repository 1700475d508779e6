//! The way to a running daemon: HTTP over its Unix socket.

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Where the daemon listens unless somebody says otherwise.
const SOCKET: &str = "/run/hearth/hearth.sock";
/// Most bytes of an answer that comes in one piece, and of one event.
const BYTES_MAX: usize = 16 << 20;

#[derive(clap::Args)]
pub struct SocketArg {
    /// The daemon's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// One request on a connection of its own.
pub async fn send(socket: &Path, path: &str, accept: &str, body: Option<&Value>) -> anyhow::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket).await.map_err(|e| {
        let reason = match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                "no daemon answers here; start it with `hearthd --config FILE`".to_owned()
            }
            ErrorKind::PermissionDenied => "you may not use it; become a member of its group (usually `hearth`)".to_owned(),
            _ => e.to_string(),
        };
        anyhow!("{}: {reason}", socket.display())
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("the daemon speaks no HTTP")?;
    tokio::spawn(connection);
    let method = if body.is_some() { "POST" } else { "GET" };
    let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, accept)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes))?;
    sender.send_request(request).await.context("the daemon did not answer")
}

/// A whole reply as text, whatever its status.
pub async fn text(socket: &Path, path: &str) -> anyhow::Result<String> {
    read(send(socket, path, "*/*", None).await?).await
}

/// A whole reply as JSON, whatever its status.
pub async fn json(socket: &Path, path: &str) -> anyhow::Result<Value> {
    serde_json::from_str(&text(socket, path).await?).with_context(|| format!("{path}: the daemon's reply is no JSON"))
}

async fn read(response: Response<Incoming>) -> anyhow::Result<String> {
    let body = http_body_util::Limited::new(response.into_body(), BYTES_MAX);
    let bytes = body.collect().await.map_err(|e| anyhow!("the daemon's reply ended early: {e}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A reply as server-sent events.
pub struct Events {
    body: Incoming,
    rest: Vec<u8>,
}

impl Events {
    /// Asks; an error reply becomes its message.
    pub async fn ask(socket: &Path, path: &str, body: Option<&Value>) -> anyhow::Result<Events> {
        let response = send(socket, path, "text/event-stream", body).await?;
        if response.status().is_success() {
            return Ok(Events { body: response.into_body(), rest: Vec::new() });
        }
        let reply = read(response).await?;
        let error: Value = serde_json::from_str(&reply).unwrap_or_default();
        bail!("{}", message(&error).unwrap_or(reply))
    }

    /// The next event's data; `None` at the end. Comments are skipped; an error event becomes an error.
    pub async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        loop {
            while let Some(end) = self.rest.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                let Some(data) = event.strip_prefix(b"data: ") else { continue };
                if data.starts_with(b"[DONE]") {
                    return Ok(None);
                }
                let value: Value = serde_json::from_slice(data).context("the daemon sent an event that is no JSON")?;
                match message(&value) {
                    Some(message) => bail!("{message}"),
                    None => return Ok(Some(value)),
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(bytes) = frame.context("the daemon closed the connection")?.into_data() {
                self.rest.extend_from_slice(&bytes);
            }
            if self.rest.len() > BYTES_MAX {
                bail!("the daemon sent an event of more than {BYTES_MAX} bytes");
            }
        }
    }
}

/// The message of an error object.
fn message(value: &Value) -> Option<String> {
    value.get("error")?.get("message")?.as_str().map(str::to_owned)
}

/// Runs a verb that talks to the daemon.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(work)
}

/// A runtime on the calling thread.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    crate::runtime::build(tokio::runtime::Builder::new_current_thread().enable_all()).context("the runtime can't be started")
}
