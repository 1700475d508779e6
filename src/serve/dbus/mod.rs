//! `org.hearth.Hearth1` on the system or session bus.
//!
//! | object | interfaces |
//! |--------|------------|
//! | `/org/hearth/Hearth1` | [`engine`] `Engine1`, [`governor`] `Governor1`, `ObjectManager` |
//! | `/org/hearth/Hearth1/models/NAME` | [`model`] `Model1` |
//! | `/org/hearth/Hearth1/jobs/N` | [`job`] `Job1` |
//!
//! Words never travel as signals, which every listener would pay for: a caller gets a pipe ([`pipe`]). What a caller owns, jobs and held
//! modes, ends with its life on the bus ([`callers`]). [`refusal`]: the errors; [`options`]: `a{sv}` as fields; [`news`]: change signals.
//!
//! The version rule: signatures never change; methods, properties and keys of an `a{sv}` may be added; anything else is `Hearth2`.

mod callers;
mod engine;
mod governor;
mod job;
mod model;
mod news;
mod options;
mod pipe;
mod refusal;

use super::Shared;
use callers::Callers;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::RequestNameFlags;
use zbus::{Connection, OwnedObjectPath};

/// The name on the bus.
pub const NAME: &str = "org.hearth.Hearth1";
/// The root object.
pub const ROOT: &str = "/org/hearth/Hearth1";

/// Which bus to appear on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    System,
    Session,
}

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("another daemon carries the name org.hearth.Hearth1 on this bus; stop it, or set `serve.bus = \"off\"`")]
    Taken,
}

/// What the interfaces share.
struct Desk {
    shared: Shared,
    callers: Callers,
    /// Numbers jobs.
    last_job: AtomicU32,
    /// Jobs at work.
    running: watch::Sender<usize>,
    /// Ended jobs whose objects are still there to be looked at, oldest first. A lock, since jobs end each on a task of its own.
    ended: Mutex<VecDeque<OwnedObjectPath>>,
}

/// Our place on the bus.
pub struct Bus {
    connection: Connection,
    desk: Arc<Desk>,
    tasks: Vec<JoinHandle<()>>,
}

/// Appears on the bus. Without a bus, or where its policy refuses us the name, the daemon goes on with its socket and says so.
pub async fn start(which: Which, shared: Shared) -> Result<Option<Bus>, BusError> {
    match appear(which, shared).await {
        Ok(bus) => Ok(Some(bus)),
        Err(zbus::Error::NameTaken) => Err(BusError::Taken),
        Err(error) => {
            tracing::warn!(%error, "not on the {which:?} bus; answering on the socket only. Is a bus running, and its policy file installed? `serve.bus` chooses");
            Ok(None)
        }
    }
}

async fn appear(which: Which, shared: Shared) -> zbus::Result<Bus> {
    let desk = Arc::new(Desk {
        shared,
        callers: Callers::default(),
        last_job: AtomicU32::new(0),
        running: watch::Sender::new(0),
        ended: Mutex::default(),
    });
    let builder = match which {
        Which::System => Builder::system(),
        Which::Session => Builder::session(),
    };
    // Objects before the name: who waits for the name finds everything there.
    let connection = builder
        .serve_at(ROOT, zbus::fdo::ObjectManager)
        .serve_at(ROOT, engine::Engine::new(desk.clone()))
        .serve_at(ROOT, governor::Governor::new(desk.clone()))
        .build()
        .await?;
    let leaving = callers::watch(&connection, desk.clone()).await?;
    // Two daemons never take the name from each other, nor wait for it unseen.
    connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
    let news = tokio::spawn(news::tell(connection.clone(), desk.clone()));
    Ok(Bus { connection, desk, tasks: vec![tokio::spawn(leaving), news] })
}

impl Bus {
    /// Leaves the bus once running jobs have told their end.
    pub async fn close(self) {
        let mut running = self.desk.running.subscribe();
        let _ = running.wait_for(|n| *n == 0).await; // the sender lives in `self`
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = self.connection.release_name(NAME).await {
            tracing::debug!(%error, "the name can't be released");
        }
    }
}
