//! `org.hearth.Job1`: one answer on its way, and the task that carries it.

use super::callers::Life;
use super::pipe::{self, Lines, ReaderGone};
use super::{Desk, ROOT, carried};
use crate::serve::followed::Followed;
use crate::service::{Done, Error, Event, Finish};
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use tokio::sync::{Notify, watch};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant, interface};

/// Jobs at work at once; the engine's own queue is shorter, but while a model loads it does not count yet.
const RUNNING_MAX: usize = 64;
/// Ended jobs that can still be looked at.
const ENDED_MAX: usize = 32;

/// What properties tell.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    state: &'static str,
    prompt_tokens: u32,
    cached_tokens: u32,
    prompt_done: u32,
    generated: u32,
    speed: f64,
}

/// The object on the bus.
pub struct Job {
    figures: watch::Receiver<Figures>,
    cancel: Arc<Notify>,
}

/// One answer on its way to its caller. It ends when the caller leaves the bus, cancels it, or closes the stream.
#[interface(name = "org.hearth.Job1")]
impl Job {
    /// Ends the answer; the stream gets a last line that says so. A job that has ended stays so.
    fn cancel(&self) {
        self.cancel.notify_one();
    }

    /// Once, at the end: what came of it. Keys: `reason` s (stop, length, tool_calls, cancelled, failed), `prompt_tokens` u,
    /// `cached_tokens` u, `generated` u, `prefill_tok_s` d, `decode_tok_s` d; `error` s where it failed.
    #[zbus(signal)]
    async fn finished(emitter: &SignalEmitter<'_>, stats: HashMap<&str, Variant<'_>>) -> zbus::Result<()>;

    /// `queued`, `prefill` (the prompt is read), `decode` (words come), then `done`, `cancelled` or `failed`. More may be added.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.figures.borrow().state
    }

    /// Tokens of the prompt; 0 until it has its place.
    #[zbus(property(emits_changed_signal = "false"))]
    fn prompt_tokens(&self) -> u32 {
        self.figures.borrow().prompt_tokens
    }

    /// Of the prompt's tokens, those that were known from before and not computed again.
    #[zbus(property(emits_changed_signal = "false"))]
    fn cached_tokens(&self) -> u32 {
        self.figures.borrow().cached_tokens
    }

    /// Of the prompt's tokens, those that are done.
    #[zbus(property(emits_changed_signal = "false"))]
    fn prompt_done(&self) -> u32 {
        self.figures.borrow().prompt_done
    }

    /// Tokens of the answer: while it runs the pieces of text that were sent, in the end the exact number.
    #[zbus(property(emits_changed_signal = "false"))]
    fn generated(&self) -> u32 {
        self.figures.borrow().generated
    }

    /// Tokens of the answer a second; 0 until it has ended.
    #[zbus(property(emits_changed_signal = "false"))]
    fn speed(&self) -> f64 {
        self.figures.borrow().speed
    }
}

/// Puts a job on the bus and starts it. `asked` becomes the answer.
pub async fn start(
    desk: &Arc<Desk>,
    connection: &Connection,
    life: Life,
    lines: Lines,
    asked: impl Future<Output = Result<Followed, Error>> + Send + 'static,
) -> Result<OwnedObjectPath, super::refusal::Refusal> {
    let place = Place::take(desk)?;
    let number = desk.last_job.fetch_add(1, Relaxed) + 1;
    let path = OwnedObjectPath::try_from(format!("{ROOT}/jobs/{number}"))?;
    let start = Figures { state: "queued", prompt_tokens: 0, cached_tokens: 0, prompt_done: 0, generated: 0, speed: 0.0 };
    let (figures, seen) = watch::channel(start);
    let cancel = Arc::new(Notify::new());
    connection.object_server().at(&path, Job { figures: seen, cancel: cancel.clone() }).await?;
    let work = Work { connection: connection.clone(), path: path.clone(), figures };
    tokio::spawn(async move {
        work.carry(lines, asked, cancel, life).await;
        retire(&work.connection, &place.0, work.path).await;
        drop(place);
    });
    Ok(path)
}

/// One of [`RUNNING_MAX`].
struct Place(Arc<Desk>);

impl Place {
    fn take(desk: &Arc<Desk>) -> Result<Self, Error> {
        let free = desk.running.send_if_modified(|n| {
            let free = *n < RUNNING_MAX;
            *n += usize::from(free);
            free
        });
        if free { Ok(Place(desk.clone())) } else { Err(Error::Busy(format!("{RUNNING_MAX} jobs are running; try again a little later"))) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.send_modify(|n| *n -= 1);
    }
}

/// Leaves an ended job's object for its caller to look at, and takes the oldest away.
async fn retire(connection: &Connection, desk: &Desk, path: OwnedObjectPath) {
    let oldest = {
        let mut ended = desk.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back(path);
        if ended.len() > ENDED_MAX { ended.pop_front() } else { None }
    };
    if let Some(oldest) = oldest
        && let Err(error) = connection.object_server().remove::<Job, _>(&oldest).await
    {
        tracing::debug!(%error, "an ended job can't be taken away");
    }
}

/// How a job ended.
enum End {
    Done(Done),
    Failed(Error),
    /// The reader is gone: there is nobody to tell.
    Left,
}

struct Work {
    connection: Connection,
    path: OwnedObjectPath,
    figures: watch::Sender<Figures>,
}

impl Work {
    /// From the question to the end.
    async fn carry(&self, mut lines: Lines, asked: impl Future<Output = Result<Followed, Error>>, cancel: Arc<Notify>, mut life: Life) {
        let end = tokio::select! {
            end = self.answer(&mut lines, asked) => end,
            () = cancel.notified() => End::Failed(Error::Cancelled),
            () = life.ended() => End::Left,
        };
        match end {
            End::Done(done) => {
                lines.finish(&pipe::last_line(&done)).await;
                self.tell_end(Ok(&done)).await;
            }
            End::Failed(error) => {
                lines.finish(&pipe::error_line(&error)).await;
                self.tell_end(Err(&error)).await;
            }
            End::Left => self.tell_end(Err(&Error::Cancelled)).await,
        }
    }

    async fn answer(&self, lines: &mut Lines, asked: impl Future<Output = Result<Followed, Error>>) -> End {
        let asked = tokio::select! {
            asked = asked => asked,
            () = lines.reader_gone() => return End::Left,
        };
        let mut answer = match asked {
            Ok(answer) => answer,
            Err(error) => return End::Failed(error),
        };
        loop {
            let event = tokio::select! {
                event = answer.next() => event,
                () = lines.reader_gone() => return End::Left,
            };
            let event = match event {
                Some(Ok(Event::Done(done))) => return End::Done(done),
                Some(Ok(event)) => event,
                Some(Err(error)) => return End::Failed(error),
                None => return End::Failed(Error::Failed("the answer ended without an end".into())),
            };
            self.follow(&event).await;
            if let Some(line) = pipe::line(&event)
                && lines.write(&line).await == Err(ReaderGone)
            {
                return End::Left;
            }
        }
    }

    async fn follow(&self, event: &Event) {
        let before = self.figures.borrow().state;
        self.figures.send_modify(|f| match event {
            Event::Prefill { cached, done, total } => {
                (f.state, f.prompt_tokens, f.cached_tokens, f.prompt_done) = ("prefill", *total as u32, *cached as u32, *done as u32);
            }
            _ => {
                f.state = "decode";
                f.prompt_done = f.prompt_tokens;
                f.generated += 1;
            }
        });
        if self.figures.borrow().state != before {
            self.tell_state().await;
        }
    }

    async fn tell_end(&self, outcome: Result<&Done, &Error>) {
        let (state, reason) = match outcome {
            Ok(done) if done.finish == Finish::Cancelled => ("cancelled", "cancelled"),
            Ok(done) => ("done", done.finish.word()),
            Err(Error::Cancelled) => ("cancelled", "cancelled"),
            Err(_) => ("failed", "failed"),
        };
        let timings = outcome.map(|done| done.timings).unwrap_or_default();
        self.figures.send_modify(|f| {
            f.state = state;
            f.speed = timings.decode_tok_s;
            if let Ok(done) = outcome {
                f.generated = done.usage.completion_tokens as u32;
            }
        });
        self.tell_state().await;
        let f = *self.figures.borrow();
        let mut stats = HashMap::from([
            ("reason", Variant::from(reason)),
            ("prompt_tokens", f.prompt_tokens.into()),
            ("cached_tokens", f.cached_tokens.into()),
            ("generated", f.generated.into()),
            ("prefill_tok_s", timings.prefill_tok_s.into()),
            ("decode_tok_s", timings.decode_tok_s.into()),
        ]);
        if let Err(error) = outcome {
            stats.insert("error", Variant::from(carried(error.to_string())));
        }
        if let Ok(emitter) = SignalEmitter::new(&self.connection, &self.path) {
            let _ = Job::finished(&emitter, stats).await; // a bus that is gone has no listeners
        }
    }

    async fn tell_state(&self) {
        if let Ok(job) = self.connection.object_server().interface::<_, Job>(&self.path).await {
            let _ = job.get().await.state_changed(job.signal_emitter()).await; // a bus that is gone has no listeners
        }
    }
}
