//! The daemon's one loop: what happens outside becomes an event, and is decided here.

use super::config::{Bus, Config};
use super::load::Loading;
use super::notify;
use super::socket::Sockets;
use super::tick::Tick;
use super::watchdog::Pulse;
use super::Error;
use crate::serve::thermal::{Holds, Thermal};
use crate::serve::{Shared, dbus, http};
use crate::service::{Service, State};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between two looks at the engine where systemd asks for none.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// From SIGTERM until connections are closed whether or not their clients have read everything.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1200);
/// After that, until the engine has to have finished its step and given its memory back.
const ENGINE_WITHIN: Duration = Duration::from_millis(400);

struct Daemon {
    config_path: PathBuf,
    config: Config,
    shared: Shared,
    /// A load under way, and the configuration that it is for.
    loading: Option<(Loading, Config)>,
    /// SIGHUP came while a load was under way.
    reload_again: bool,
    pulse: Pulse,
}

/// What can happen.
enum Event {
    Loaded(Result<(crate::service::Model, Duration), String>),
    Reload,
    Look,
    Stop,
}

/// Runs until a signal or a failure ends it.
pub async fn run(config_path: PathBuf, config: Config, mut sockets: Sockets) -> Result<(), Error> {
    let (mut term, mut int, mut hup) =
        (handled(SignalKind::terminate())?, handled(SignalKind::interrupt())?, handled(SignalKind::hangup())?);
    let (published, thermal) = watch::channel(Arc::new(Thermal::default()));
    let service = Service::new(State::Loading { done: 0, total: 0 });
    let shared = Shared {
        service: service.clone(),
        counts: Arc::default(),
        thermal,
        holds: Arc::new(watch::Sender::new(Holds::default())),
        keep_alive: Duration::from_secs(config.serve.keep_alive_seconds.into()),
    };
    let (stop_sender, stop) = watch::channel(false);
    let http = tokio::spawn(http::listener::serve(std::mem::take(&mut sockets.listeners), shared.clone(), stop));
    let bus = match config.serve.bus {
        Bus::Off => None,
        Bus::System => dbus::start(dbus::Which::System, shared.clone()).await?,
        Bus::Session => dbus::start(dbus::Which::Session, shared.clone()).await?,
    };
    let loading = Loading::start(&config, Some(service));
    let mut daemon = Daemon {
        config_path,
        loading: Some((loading, config.clone())),
        config,
        shared,
        reload_again: false,
        pulse: Pulse::default(),
    };
    // A task of its own: whatever becomes of it, answers go on.
    let tick = tokio::spawn(Tick::new(&daemon.config, published).run(daemon.shared.clone()));
    // Four looks within systemd's patience: one beat may fall between two looks, and a look may come late.
    let mut looks = interval(notify::watchdog_interval().map_or(LOOK_EVERY, |patience| patience / 4).max(Duration::from_millis(10)));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        let event = tokio::select! {
            outcome = outcome(&mut daemon.loading) => Event::Loaded(outcome),
            _ = term.recv() => Event::Stop,
            _ = int.recv() => Event::Stop,
            _ = hup.recv() => Event::Reload,
            _ = looks.tick() => Event::Look,
        };
        match daemon.handle(event) {
            Next::GoOn => {}
            Next::End(ended) => break ended,
        }
    };
    tick.abort();
    daemon.stop(stop_sender, http, bus).await;
    sockets.remove();
    ended
}

enum Next {
    GoOn,
    End(Result<(), Error>),
}

impl Daemon {
    fn handle(&mut self, event: Event) -> Next {
        match event {
            Event::Stop => return Next::End(Ok(())),
            Event::Reload => self.reload(),
            Event::Look => return self.look(),
            Event::Loaded(outcome) => return self.loaded(outcome),
        }
        Next::GoOn
    }

    fn loaded(&mut self, outcome: Result<(crate::service::Model, Duration), String>) -> Next {
        let Some((_, config)) = self.loading.take() else { return Next::GoOn };
        match outcome {
            Ok((model, time)) => {
                let info = model.info();
                let status = format!("{} ({} {}) on {}, context {}", info.name, info.architecture, info.file_type, info.backend, info.context);
                tracing::info!(model = info.name, seconds = time.as_secs_f32(), "ready: {status}");
                self.shared.counts.loaded(time);
                self.config = config;
                if let State::Ready(old) = self.shared.service.set(State::Ready(Arc::new(model))) {
                    old.drain();
                }
                notify::ready(&status);
            }
            // The old model goes on answering, if there is one.
            Err(reason) => match self.shared.service.model() {
                Ok(_) => {
                    tracing::error!("reload: {reason}; going on with the model there was");
                    notify::ready(&format!("reload failed: {reason}"));
                }
                Err(_) => return Next::End(Err(Error::Model(reason))),
            },
        }
        if std::mem::take(&mut self.reload_again) {
            self.reload();
        }
        Next::GoOn
    }

    /// The configuration anew, and with it the model. Whatever is wrong with it, what runs goes on.
    fn reload(&mut self) {
        if self.loading.is_some() {
            self.reload_again = true;
            return;
        }
        notify::reloading();
        match Config::read(&self.config_path) {
            Err(error) => {
                tracing::error!("reload: {error}; going on with the configuration there was");
                notify::ready(&format!("reload refused: {error}"));
            }
            Ok(config) => {
                if config.serve != self.config.serve || config.log != self.config.log {
                    tracing::warn!("reload: changes under [serve] and [log] wait for a restart, except `serve.queue`");
                }
                tracing::info!("reload: loading the model anew; the one there is answers until then");
                self.loading = Some((Loading::start(&config, None), config));
            }
        }
    }

    /// Looks whether the engine turns, and tells systemd so.
    fn look(&mut self) -> Next {
        let Ok(model) = self.shared.service.model() else { return Next::GoOn };
        if let Some(reason) = model.failure() {
            return Next::End(Err(Error::Engine(reason)));
        }
        if self.pulse.beats(&model) {
            notify::watchdog();
        } else {
            tracing::warn!("the engine has not turned since the last look");
        }
        Next::GoOn
    }

    /// In order: nothing new comes in; answers end; connections and bus close; the engine goes.
    async fn stop(self, stop: watch::Sender<bool>, mut http: JoinHandle<std::io::Result<()>>, bus: Option<dbus::Bus>) {
        notify::stopping();
        tracing::info!("stopping");
        drop(self.loading);
        let model = match self.shared.service.set(State::Draining) {
            State::Ready(model) => Some(model),
            _ => None,
        };
        if let Some(model) = &model {
            model.stop();
        }
        stop.send_replace(true);
        let closing = async {
            if let Some(bus) = bus {
                bus.close().await;
            }
            let _ = (&mut http).await; // it ended, how does not matter any more
        };
        if timeout(ANSWERS_WITHIN, closing).await.is_err() {
            tracing::warn!("some clients did not take the end of their answers");
            http.abort();
        }
        if let Some(model) = model
            && timeout(ENGINE_WITHIN, model.ended()).await.is_err()
        {
            tracing::debug!("the engine is still in its last step");
        }
    }
}

/// Never ends while there is nothing to wait for.
async fn outcome(loading: &mut Option<(Loading, Config)>) -> Result<(crate::service::Model, Duration), String> {
    match loading {
        Some((loading, _)) => loading.outcome().await,
        None => std::future::pending().await,
    }
}

fn handled(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Runtime)
}
