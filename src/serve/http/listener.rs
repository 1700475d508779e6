//! Connections: how many at once, how long a client may take to say what it wants, and how they end when the daemon stops.

use super::{HEAD_BYTES_MAX, router};
use crate::serve::Shared;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once. Each costs some kilobytes; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;
/// A client that takes longer to send a request's head is gone, or means no good. Also how long a connection may lie idle: longer than
/// clients keep theirs (aiohttp 15 s, httpx 5 s), so that none is closed just as it is used again.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// After a failed accept (as when descriptors run out) before the next try.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop` says so, then lets open connections finish what they are sending. The caller limits how long that may take.
pub async fn serve(listeners: Vec<StdListener>, shared: Shared, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut doors = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        doors.spawn(door(listener, shared.clone(), places.clone(), stop.clone()));
    }
    while doors.join_next().await.is_some() {}
    Ok(())
}

/// Accepts on one socket.
async fn door(listener: UnixListener, shared: Shared, places: Arc<Semaphore>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    // Told once, not at every try.
    let mut refused = false;
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                refused = false;
                let connection = connection(stream, shared.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!(%error, "a connection can't be accepted; it is tried again until one can");
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &UnixListener, places: &Arc<Semaphore>) -> std::io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    Ok((listener.accept().await?.0, place))
}

/// One client, from its first request to its last. A client that leaves ends its request: hyper then drops the handler, and with it
/// the answer.
async fn connection(stream: UnixStream, shared: Shared, mut stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router(shared));
    let mut builder = http1::Builder::new();
    // A bound for what a connection holds: hyper takes up to a buffer more. `router` refuses what it lets through.
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
