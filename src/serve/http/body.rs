//! The body of a request: a JSON object, whatever its content type says. It may take so long to come and be so large, and few large ones
//! are taken at once, so that what clients send and never finish stays small beside the model.

use super::reply::Refusal;
use crate::serve::wire::Fields;
use crate::service::Error;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Most bytes. A conversation that fills a context of 131,072 tokens has about 600 kB, in `\u` escapes or as a list of tokens twice that.
pub const BYTES_MAX: usize = 4 << 20;
/// A body of so many bytes needs no place: a home's voice assistant sends some 20 kB, and all connections together 32 MiB.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// From its head to its end. A client that takes longer to send a body is gone, or means no good.
const WITHIN: Duration = Duration::from_secs(60);

/// Larger bodies that are read at once, by the whole process: one more waits. (A list of numbers takes 36 times its bytes
/// as JSON values.)
static LARGE: Semaphore = Semaphore::const_new(4);

/// The JSON object of a request.
pub async fn fields(request: Request) -> Result<Fields, Refusal> {
    read(request, &LARGE, WITHIN).await
}

async fn read(request: Request, large: &Semaphore, within: Duration) -> Result<Fields, Refusal> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(bytes) = declared.filter(|bytes| *bytes > BYTES_MAX as u64) {
        let message = format!("the request's body of {bytes} bytes is larger than the {BYTES_MAX} that are taken");
        return Err(wrong(StatusCode::PAYLOAD_TOO_LARGE, &message));
    }
    // One that comes in chunks doesn't say how large it will be.
    let is_small = declared.is_some_and(|bytes| bytes <= SMALL_BYTES_MAX);
    let place = async { if is_small { None } else { large.acquire().await.ok() } };
    let busy = |_| Error::NotReady("other long requests are still being read; try again in a moment".into());
    let _place = timeout(within, place).await.map_err(busy)?;
    let body = timeout(within, Bytes::from_request(request, &()))
        .await
        .map_err(|_| wrong(StatusCode::REQUEST_TIMEOUT, &format!("the request's body did not come within {} s", within.as_secs())))?
        .map_err(|e| wrong(e.status(), &format!("the request's body can't be taken: {e}")))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong(StatusCode::BAD_REQUEST, "the request's body must be a JSON object")),
        Err(e) => Err(wrong(StatusCode::BAD_REQUEST, &format!("the request's body is no JSON: {e}"))),
    }
}

fn wrong(status: StatusCode, message: &str) -> Refusal {
    Refusal::new(status, "invalid_request_error", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse;
    use std::convert::Infallible;

    /// A chunk of a body, and then nothing, not even its end.
    fn unfinished() -> Body {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]);
        Body::from_stream(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
    }

    fn request(declared: Option<u64>, body: Body) -> Request {
        let builder = declared.iter().fold(Request::post("/"), |b, bytes| b.header(header::CONTENT_LENGTH, *bytes));
        builder.body(body).unwrap()
    }

    /// The status that a request is refused with; 200 where it isn't.
    async fn status(request: Request, large: &Semaphore, within: Duration) -> u16 {
        read(request, large, within).await.err().map_or(200, |refusal| refusal.into_response().status().as_u16())
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn a_body_that_does_not_end_is_refused_after_a_while_and_gives_its_place_back() {
        let large = Semaphore::new(1);
        let soon = Duration::from_millis(1);
        assert_eq!(block_on(status(request(Some(9), unfinished()), &large, soon)), 408);
        assert_eq!(block_on(status(request(None, unfinished()), &large, soon)), 408);
        assert_eq!(large.available_permits(), 1);
    }

    #[test]
    fn large_bodies_wait_for_a_place_and_small_ones_do_not() {
        let large = Semaphore::new(1);
        let (soon, late) = (Duration::from_millis(1), Duration::from_secs(600));
        let taken = large.try_acquire().unwrap();
        for declared in [None, Some(SMALL_BYTES_MAX + 1)] {
            assert_eq!(block_on(status(request(declared, "{}".into()), &large, soon)), 503, "{declared:?}");
        }
        assert_eq!(block_on(status(request(Some(2), "{}".into()), &large, late)), 200);
        drop(taken);
        assert_eq!(block_on(status(request(None, "{}".into()), &large, late)), 200);
        assert_eq!(block_on(status(request(Some(BYTES_MAX as u64 + 1), unfinished()), &large, late)), 413);
    }
}
