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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zbus::connection::Builder;
use zbus::fdo::RequestNameFlags;
use zbus::{Connection, OwnedObjectPath};

/// The name on the bus.
pub const NAME: &str = "org.hearth.Hearth1";
/// The root object.
pub const ROOT: &str = "/org/hearth/Hearth1";

/// A bus that takes longer to let us in is as good as none.
const APPEAR_WITHIN: Duration = Duration::from_secs(10);
/// Without a bus, until the next try: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(15)];

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

/// A text that the bus carries: whoever sends it a NUL is thrown off, with all its callers. A client can bring one along in its JSON, and a
/// model can say one.
fn carried(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
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

/// Our place on the bus: kept, and taken again when a bus that went away is back.
pub struct Bus {
    leave: watch::Sender<bool>,
    attending: JoinHandle<()>,
}

/// Appears on the bus. Without a bus, or where its policy refuses us the name, the daemon goes on with its socket, says so, and tries
/// again from time to time.
pub async fn start(which: Which, shared: Shared) -> Result<Bus, BusError> {
    let desk = Arc::new(Desk {
        shared,
        callers: Callers::default(),
        last_job: AtomicU32::new(0),
        running: watch::Sender::new(0),
        ended: Mutex::default(),
    });
    let here = match Here::appear(which, &desk).await {
        Ok(here) => Some(here),
        Err(zbus::Error::NameTaken) => return Err(BusError::Taken),
        Err(error) => {
            tracing::warn!(%error, "not on the {which:?} bus; answering on the socket only. Is a bus running, and its policy file installed? `serve.bus` chooses");
            None
        }
    };
    let (leave, left) = watch::channel(false);
    Ok(Bus { leave, attending: tokio::spawn(attend(which, desk, here, left)) })
}

impl Bus {
    /// Leaves the bus once running jobs have told their end.
    pub async fn close(self) {
        self.leave.send_replace(true);
        let _ = self.attending.await; // it ended, how does not matter any more
    }
}

/// Stays on the bus until it is told to leave; comes back after the bus was gone.
async fn attend(which: Which, desk: Arc<Desk>, mut here: Option<Here>, mut leave: watch::Receiver<bool>) {
    let mut wait = AGAIN[0];
    loop {
        if let Some(place) = here.take() {
            let stays = tokio::select! {
                () = place.connection.closed() => true,
                () = told(&mut leave) => false,
            };
            if !stays {
                return place.leave(&desk).await;
            }
            tracing::warn!("the bus is gone; answering on the socket until it is back");
            place.lost(&desk);
            wait = AGAIN[0];
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = told(&mut leave) => return,
        }
        wait = (wait * 2).min(AGAIN[1]);
        match Here::appear(which, &desk).await {
            Ok(place) => {
                tracing::info!("on the {which:?} bus again");
                here = Some(place);
            }
            Err(error) => tracing::debug!(%error, "still no bus"),
        }
    }
}

/// Waits until it says so, or its owner is gone.
async fn told(leave: &mut watch::Receiver<bool>) {
    let _ = leave.wait_for(|leave| *leave).await; // either way
}

/// One connection, with our objects and our name on it.
struct Here {
    connection: Connection,
    tasks: [JoinHandle<()>; 2],
}

impl Here {
    async fn appear(which: Which, desk: &Arc<Desk>) -> zbus::Result<Here> {
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer");
        timeout(APPEAR_WITHIN, Here::introduce(which, desk)).await.map_err(|_| late())?
    }

    async fn introduce(which: Which, desk: &Arc<Desk>) -> zbus::Result<Here> {
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
        Ok(Here { connection, tasks: [tokio::spawn(leaving), news] })
    }

    /// Whoever called us over a bus that is gone has left; what they owned ends.
    fn lost(self, desk: &Desk) {
        self.tasks.iter().for_each(JoinHandle::abort);
        desk.callers.end_all();
        desk.shared.holds.send_if_modified(|holds| holds.remove_all());
        desk.ended.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn leave(self, desk: &Desk) {
        let mut running = desk.running.subscribe();
        let _ = running.wait_for(|n| *n == 0).await; // the sender lives in `desk`
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Err(error) = self.connection.release_name(NAME).await {
            tracing::debug!(%error, "the name can't be released");
        }
    }
}
