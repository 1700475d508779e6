//! Change signals, and the object of the model that is there now.

use super::engine::Engine;
use super::governor::Governor;
use super::model::Model1;
use super::{Desk, ROOT};
use crate::service::{Model, State, Telemetry};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use zbus::{Connection, OwnedObjectPath};

/// Between two tellings of properties: a signal costs every listener. The first change after a quiet while is told at once.
const EVERY: Duration = Duration::from_secs(1);

/// Tells what changes, until the bus or the service is gone.
pub async fn tell(connection: Connection, desk: Arc<Desk>) {
    let mut state = desk.shared.service.state();
    let mut thermal = desk.shared.thermal.clone();
    let mut holds = desk.shared.holds.subscribe();
    let mut teller = Teller { connection, desk, model: None, engine: ("", 0), governor: Default::default() };
    let mut thermal_lives = true;
    let mut telemetry = None;
    let mut next = Instant::now();
    loop {
        let behind = Instant::now() < next;
        match teller.catch_up(!behind).await {
            Ok(Told { model, properties }) => {
                if model {
                    telemetry = teller.model.as_ref().and_then(|shown| shown.model.upgrade()).map(|model| model.telemetry());
                }
                if properties {
                    next = Instant::now() + EVERY;
                }
            }
            Err(error) => return tracing::debug!(%error, "changes can't be told on the bus any more"),
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = thermal.changed(), if thermal_lives => thermal_lives = changed.is_ok(),
            changed = holds.changed() => if changed.is_err() { return },
            ended = ended_or_changed(&mut telemetry) => if ended { telemetry = None },
            () = sleep_until(next), if behind => {}
        }
    }
}

/// What was told.
struct Told {
    /// There is another model than before, or none any more.
    model: bool,
    properties: bool,
}

/// Waits for the engine's next figures; whether it has ended.
async fn ended_or_changed(telemetry: &mut Option<watch::Receiver<Telemetry>>) -> bool {
    match telemetry {
        Some(telemetry) => telemetry.changed().await.is_err(),
        None => std::future::pending().await,
    }
}

/// What was told last.
struct Teller {
    connection: Connection,
    desk: Arc<Desk>,
    model: Option<Shown>,
    /// `State`, `Queue`.
    engine: (&'static str, u32),
    /// `Level`, `Cause`, `Degraded`, holds.
    governor: (String, String, String, crate::serve::thermal::Holds),
}

/// The model that has an object.
struct Shown {
    model: Weak<Model>,
    path: OwnedObjectPath,
}

impl Teller {
    /// Objects at once; properties only where it is their time.
    async fn catch_up(&mut self, with_properties: bool) -> zbus::Result<Told> {
        let model = self.show_model().await?;
        let properties = with_properties && (self.tell_engine().await? | self.tell_governor().await?);
        Ok(Told { model, properties })
    }

    /// Whether there is another model than before, or none any more.
    async fn show_model(&mut self) -> zbus::Result<bool> {
        let now = match &*self.desk.shared.service.state().borrow() {
            State::Ready(model) => Some(model.clone()),
            _ => None,
        };
        let same = match (&self.model, &now) {
            (Some(shown), Some(now)) => std::ptr::eq(shown.model.as_ptr(), Arc::as_ptr(now)),
            (None, None) => true,
            _ => false,
        };
        if same {
            return Ok(false);
        }
        let server = self.connection.object_server();
        if let Some(old) = self.model.take() {
            server.remove::<Model1, _>(&old.path).await?;
        }
        if let Some(now) = now {
            let object = Model1::new(now.info().clone());
            let path = object.object_path()?;
            server.at(&path, object).await?;
            self.model = Some(Shown { model: Arc::downgrade(&now), path });
        }
        Ok(true)
    }

    async fn tell_engine(&mut self) -> zbus::Result<bool> {
        let now = (self.desk.state(), self.desk.queue());
        let before = std::mem::replace(&mut self.engine, now);
        if before == now {
            return Ok(false);
        }
        let engine = self.connection.object_server().interface::<_, Engine>(ROOT).await?;
        if before.0 != now.0 {
            engine.get().await.state_changed(engine.signal_emitter()).await?;
        }
        if before.1 != now.1 {
            engine.get().await.queue_changed(engine.signal_emitter()).await?;
        }
        Ok(true)
    }

    async fn tell_governor(&mut self) -> zbus::Result<bool> {
        let thermal = self.desk.shared.thermal.borrow().clone();
        let holds = self.desk.shared.holds.borrow().clone();
        let now = (thermal.level.clone(), thermal.cause.clone(), thermal.degraded.clone(), holds);
        if now == self.governor {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.governor, now);
        let now = &self.governor;
        let governor = self.connection.object_server().interface::<_, Governor>(ROOT).await?;
        let (object, emitter) = (governor.get().await, governor.signal_emitter());
        if before.0 != now.0 {
            object.level_changed(emitter).await?;
        }
        if before.1 != now.1 {
            object.cause_changed(emitter).await?;
        }
        if before.2 != now.2 {
            object.degraded_changed(emitter).await?;
        }
        if before.3 != now.3 {
            object.active_holds_changed(emitter).await?;
            if before.3.mode() != now.3.mode() {
                object.mode_changed(emitter).await?;
            }
        }
        Ok(true)
    }
}
