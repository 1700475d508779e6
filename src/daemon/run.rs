//! The daemon's one loop: what happens outside becomes an event, and is decided here.

use super::Error;
use super::alarm::Alarm;
use super::config::{Bus, Config};
use super::load::Loading;
use super::notify;
use super::power_saver;
use super::socket::Sockets;
use super::tick::{self, Rules};
use super::watchdog::Pulse;
use crate::serve::thermal::{Followers, Holds, Thermal};
use crate::serve::{Shared, dbus, http};
use crate::service::{Model, Service, State};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Between two looks at the engine where systemd asks for none. Each wakes three threads; requests hear of a failure at once.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// From SIGTERM until connections are closed whether or not their clients have read everything.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1200);
/// After that, until the engine has to have finished its step and given its memory back.
const ENGINE_WITHIN: Duration = Duration::from_millis(400);
/// Until the tick has given the clock back, which is a write to a file.
const TICK_WITHIN: Duration = Duration::from_millis(200);

struct Daemon {
    config_path: PathBuf,
    config: Config,
    shared: Shared,
    /// A load under way, and the configuration that it is for.
    loading: Option<(Loading, Config)>,
    /// SIGHUP came while a load was under way.
    reload_again: bool,
    /// What the tick goes by.
    rules: watch::Sender<Rules>,
    pulse: Pulse,
}

/// What can happen.
enum Event {
    Loaded(Box<Result<(Model, Duration), String>>),
    Reload,
    Look,
    Stop,
}

/// Runs until a signal or a failure ends it.
pub async fn run(config_path: PathBuf, config: Config, mut sockets: Sockets) -> Result<(), Error> {
    let (mut term, mut int, mut hup) =
        (handled(SignalKind::terminate())?, handled(SignalKind::interrupt())?, handled(SignalKind::hangup())?);
    let (looks, beats) = (Alarm::new().map_err(Error::Runtime)?, Alarm::new().map_err(Error::Runtime)?);
    let (published, thermal) = watch::channel(Arc::new(Thermal::default()));
    let service = Service::new(State::Loading { done: 0, total: 0 });
    let shared = Shared {
        service: service.clone(),
        counts: Arc::default(),
        thermal,
        followers: Followers::default(),
        holds: Arc::new(watch::Sender::new(Holds::default())),
        keep_alive: Duration::from_secs(config.serve.keep_alive_seconds.into()),
    };
    let (stop_sender, stop) = watch::channel(false);
    let http = tokio::spawn(http::listener::serve(std::mem::take(&mut sockets.listeners), shared.clone(), stop.clone()));
    let bus = tokio::select! {
        bus = appear(config.serve.bus, &shared) => bus?,
        // A bus that hangs must not keep us from stopping.
        _ = term.recv() => return stop_early(&sockets),
        _ = int.recv() => return stop_early(&sockets),
    };
    let loading = Loading::start(&config, Some(service));
    let (saving, is_saving) = watch::channel(false);
    let (rules, seen_rules) = watch::channel(Rules::of(&config));
    // Tasks of their own: whatever becomes of them, answers go on.
    if config.serve.bus != Bus::Off {
        tokio::spawn(power_saver::watch(saving));
    }
    let tick = tokio::spawn(tick::keep(Arc::new(beats), seen_rules, shared.clone(), is_saving, published, stop));
    let mut daemon = Daemon {
        config_path,
        loading: Some((loading, config.clone())),
        config,
        shared,
        reload_again: false,
        rules,
        pulse: Pulse::default(),
    };
    // Four looks within systemd's patience: one beat may fall between two looks, and a look may come late.
    let every = notify::watchdog_interval().map_or(LOOK_EVERY, |patience| patience / 4).max(Duration::from_millis(10));
    looks.set(every);
    let ended = loop {
        let event = tokio::select! {
            outcome = outcome(&mut daemon.loading) => Event::Loaded(Box::new(outcome)),
            _ = term.recv() => Event::Stop,
            _ = int.recv() => Event::Stop,
            _ = hup.recv() => Event::Reload,
            () = looks.ring() => {
                looks.set(every);
                Event::Look
            }
        };
        match daemon.handle(event) {
            Next::GoOn => {}
            Next::End(ended) => break ended,
        }
    };
    daemon.stop(stop_sender, http, bus, tick).await;
    sockets.remove();
    ended
}

async fn appear(bus: Bus, shared: &Shared) -> Result<Option<dbus::Bus>, dbus::BusError> {
    let which = match bus {
        Bus::Off => return Ok(None),
        Bus::System => dbus::Which::System,
        Bus::Session => dbus::Which::Session,
    };
    dbus::start(which, shared.clone()).await.map(Some)
}

/// Before there is anything to end in order.
fn stop_early(sockets: &Sockets) -> Result<(), Error> {
    notify::stopping();
    sockets.remove();
    Ok(())
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
            Event::Loaded(outcome) => return self.loaded(*outcome),
        }
        Next::GoOn
    }

    fn loaded(&mut self, outcome: Result<(Model, Duration), String>) -> Next {
        let Some((_, config)) = self.loading.take() else { return Next::GoOn };
        match outcome {
            Ok((model, time)) => {
                let status = status(&model);
                tracing::info!(model = model.info().name, seconds = time.as_secs_f32(), "ready: {status}");
                self.shared.counts.loaded(time);
                self.adopt(config);
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

    /// The configuration anew, and the model where it would be another. Whatever is wrong with it, what runs goes on.
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
                if let Some(model) = self.as_it_is(&config) {
                    tracing::info!("reload: the model stays as it is");
                    let status = status(&model);
                    self.adopt(config);
                    notify::ready(&status);
                    return;
                }
                tracing::info!("reload: loading the model anew; the one there is answers until then");
                self.loading = Some((Loading::start(&config, None), config));
            }
        }
    }

    /// The model there is, if `config` says of it what the configuration there is says, and its file is the one that was read.
    fn as_it_is(&self, config: &Config) -> Option<Arc<Model>> {
        let told = |config: &Config| (config.model.clone(), config.generation.clone(), config.serve.queue);
        let model = self.shared.service.model().ok()?;
        (told(config) == told(&self.config) && model.is_current()).then_some(model)
    }

    /// The tick begins anew where its rules are others.
    fn adopt(&mut self, config: Config) {
        let rules = Rules::of(&config);
        self.rules.send_if_modified(|now| std::mem::replace(now, rules.clone()) != rules);
        self.config = config;
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
    async fn stop(
        self,
        stop: watch::Sender<bool>,
        mut http: JoinHandle<std::io::Result<()>>,
        bus: Option<dbus::Bus>,
        tick: JoinHandle<()>,
    ) {
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
        if timeout(TICK_WITHIN, tick).await.is_err() {
            tracing::warn!("the governor's tick hangs; if the clock is capped, `hearth board release` gives it back");
        }
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

/// What is ready, in a line.
fn status(model: &Model) -> String {
    let info = model.info();
    format!("{} ({} {}) on {}, context {}", info.name, info.architecture, info.file_type, info.backend, info.context)
}

/// Never ends while there is nothing to wait for.
async fn outcome(loading: &mut Option<(Loading, Config)>) -> Result<(Model, Duration), String> {
    match loading {
        Some((loading, _)) => loading.outcome().await,
        None => std::future::pending().await,
    }
}

fn handled(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Runtime)
}
