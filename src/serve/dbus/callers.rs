//! Who calls, and for how long they are there: what a caller owns ends when it leaves the bus.

use super::Desk;
use super::refusal::Refusal;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use zbus::message::Header;
use zbus::names::BusName;
use zbus::{Connection, fdo::DBusProxy};

/// Callers that own something. A lock rather than messages: methods come in on tasks of their own and need the answer at once.
#[derive(Default)]
pub struct Callers {
    lives: Mutex<HashMap<String, watch::Sender<()>>>,
}

/// The time that one caller is on the bus.
#[derive(Clone)]
pub struct Life {
    end: watch::Receiver<()>,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.end.has_changed().is_err()
    }

    /// Waits until the caller has left.
    pub async fn ended(&mut self) {
        while self.end.changed().await.is_ok() {}
    }
}

impl Callers {
    /// The life of a message's sender, who may have left already.
    pub async fn life(&self, connection: &Connection, header: &Header<'_>) -> Result<Life, Refusal> {
        let sender = header.sender().ok_or_else(|| Refusal::BadRequest("the caller has no name on the bus".into()))?;
        let name = sender.to_string();
        let end = self.lives().entry(name.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        // It may have left before we began to watch it.
        let there = DBusProxy::new(connection).await?.name_has_owner(BusName::from(sender.clone())).await;
        if !there.map_err(zbus::Error::from)? {
            self.end(&name);
        }
        Ok(Life { end })
    }

    fn end(&self, name: &str) {
        self.lives().remove(name);
    }

    /// The bus is gone, and with it everybody on it.
    pub fn end_all(&self) {
        self.lives().clear();
    }

    fn lives(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes at once; the future that comes back watches until the bus is gone.
pub async fn watch(connection: &Connection, desk: Arc<Desk>) -> zbus::Result<impl Future<Output = ()> + use<>> {
    let mut changes = DBusProxy::new(connection).await?.receive_name_owner_changed().await?;
    Ok(async move {
        while let Some(change) = changes.next().await {
            let Ok(change) = change.args() else { continue };
            if change.new_owner().is_none() {
                let name = change.name().as_str();
                desk.callers.end(name);
                desk.shared.holds.send_if_modified(|holds| holds.remove_all_of(name));
            }
        }
    })
}
