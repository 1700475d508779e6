//! A model on its way in: on a thread of its own, telling systemd and clients how far it is.

use super::config::{BackendName, Config, Kv};
use super::notify;
use crate::service::{Defaults, Kind, KvType, Model, Options, Progress, Service, cache_folder};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Between two reports of progress.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// A load that is under way. Dropping it gives the load up.
pub struct Loading {
    outcome: oneshot::Receiver<Result<Model, String>>,
    given_up: Arc<AtomicBool>,
    began: Instant,
}

impl Loading {
    /// `service` is told of the progress; at a reload, where the old model goes on answering, there is none to tell.
    pub fn start(config: &Config, service: Option<Service>) -> Self {
        let given_up = Arc::new(AtomicBool::new(false));
        let (sender, outcome) = oneshot::channel();
        let path = config.model.path.clone().unwrap_or_default();
        let options = options(config);
        let told = Told { name: path.display().to_string(), service, given_up: given_up.clone(), last: Mutex::default() };
        let work = move || {
            notify::loading(&format!("loading {}", told.name));
            let _ = sender.send(Model::open(&path, &options, &told).map_err(|e| e.to_string())); // nobody waits: it was given up
        };
        if let Err(error) = std::thread::Builder::new().name("load".into()).spawn(work) {
            // The sender is gone with the thread that never was, which `outcome` sees.
            tracing::error!(%error, "the thread that loads can't be started");
        }
        Self { outcome, given_up, began: Instant::now() }
    }

    /// The model, and how long it took; or why there is none. May be called again after it was cancelled.
    pub async fn outcome(&mut self) -> Result<(Model, Duration), String> {
        let model = (&mut self.outcome).await.map_err(|_| "the thread that loads ended early; the log says why".to_owned())??;
        Ok((model, self.began.elapsed()))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.given_up.store(true, Relaxed);
    }
}

struct Told {
    name: String,
    service: Option<Service>,
    given_up: Arc<AtomicBool>,
    /// A lock, since a backend may report from any of its threads; taken a few times a second.
    last: Mutex<Last>,
}

/// What was told last.
#[derive(Debug, Default)]
struct Last {
    at: Option<Instant>,
    done: u64,
}

impl Last {
    /// Whether this is worth telling. First the file comes, then the backend has its own say: what was done stays done.
    fn takes(&mut self, now: Instant, done: u64) -> bool {
        let due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if !due || self.at.is_some() && done <= self.done {
            return false;
        }
        *self = Last { at: Some(now), done };
        true
    }
}

impl Progress for Told {
    fn loaded(&self, done: u64, total: u64) -> bool {
        let going_on = !self.given_up.load(Relaxed);
        let Ok(mut last) = self.last.lock() else { return going_on };
        if going_on && last.takes(Instant::now(), done) {
            notify::loading(&format!("loading {} … {} %", self.name, 100 * done / total.max(1)));
            if let Some(service) = &self.service {
                // Not over a state that came since: the daemon may be stopping.
                service.advance(done, total);
            }
        }
        going_on
    }
}

fn options(config: &Config) -> Options {
    let (model, generation) = (&config.model, &config.generation);
    Options {
        name: model.name.clone(),
        backend: match model.backend {
            BackendName::Auto => Kind::Auto,
            BackendName::Cpu => Kind::Cpu,
            BackendName::Vulkan => Kind::Vulkan,
            BackendName::Cuda => Kind::Cuda,
        },
        threads: model.threads.map(usize::from),
        remember: cache_folder(),
        context: model.context.map(|n| n as usize),
        kv: match model.kv {
            Kv::F32 => KvType::F32,
            Kv::F16 => KvType::F16,
            Kv::Q8_0 => KvType::Q8_0,
        },
        sequences: model.sequences.into(),
        queue: config.serve.queue.into(),
        warm: true,
        defaults: Defaults {
            temperature: generation.temperature,
            top_k: generation.top_k,
            top_p: generation.top_p,
            min_p: generation.min_p,
            repeat_penalty: generation.repeat_penalty,
            max_tokens: generation.max_tokens,
            thinking: generation.thinking,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_now_and_then_and_only_onwards() {
        let (began, mut last) = (Instant::now(), Last::default());
        let mut takes = |ms, done| last.takes(began + Duration::from_millis(ms), done);
        assert!(takes(0, 0));
        assert!(!takes(10, 8), "too soon");
        assert!(takes(300, 16));
        assert!(!takes(900, 16), "a load that gets no further buys no time");
        assert!(!takes(900, 0), "the backend begins to count again");
        assert!(takes(1000, 24));
    }
}
