//! What an answer leaves unread of its request's body, as the refusal of one that is too large does. A connection that is closed while its
//! client still writes fails in that client's hands, and a plain one then never looks for the answer that says why. So the rest is read
//! and thrown away before the answer goes out, as far as that has bounds.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Of a longer rest the client hears when it can't write on.
const BYTES_MAX: usize = 64 << 20;
/// Time for the rest; a socket of this machine takes a second for ten times as much.
const WITHIN: Duration = Duration::from_secs(5);

/// Reads what `next` leaves of the body.
pub async fn thrown_away(request: Request, next: Next) -> Response {
    // Whoever asks whether to go on sends nothing before it is asked for, and looks for the answer instead.
    let waits = request.headers().contains_key(header::EXPECT);
    let (give_back, mut given_back) = oneshot::channel();
    let response = next.run(request.map(|body| Body::new(Lent { body, owed: !waits, give_back: Some(give_back) }))).await;
    // A handler that still has it reads on while it answers.
    if let Ok(rest) = given_back.try_recv() {
        let _ = timeout(WITHIN, throw_away(rest)).await;
    }
    response
}

async fn throw_away(mut rest: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = rest.frame().await
        && bytes <= BYTES_MAX
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A body on loan to its handler, given back when that drops it before its end.
struct Lent {
    body: Body,
    /// Whether the client sends it in any case.
    owed: bool,
    give_back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.owed = true;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.owed = matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.owed && !self.is_end_stream() {
            // Nobody takes it when the connection itself has ended.
            let _ = self.give_back.take().map(|give_back| give_back.send(std::mem::take(&mut self.body)));
        }
    }
}
