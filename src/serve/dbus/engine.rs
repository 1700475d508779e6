//! `org.hearth.Engine1`: ask.

use super::options::{Options, fields};
use super::refusal::Refusal;
use super::{Desk, carried, job, pipe};
use crate::serve::followed::Followed;
use crate::serve::{VERSION, wire};
use crate::service::{Answer, Error, Event, Finish, Model, State};
use serde_json::{Value, json};
use std::sync::Arc;
use zbus::message::Header;
use zbus::{Connection, OwnedFd, OwnedObjectPath, interface};

/// Most bytes of a prompt or request; a bus message may be larger.
const TEXT_BYTES_MAX: usize = 4 << 20;

pub struct Engine {
    desk: Arc<Desk>,
}

impl Engine {
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }
}

/// Ask the model. Options are named as in the JSON of the socket's /v1/chat/completions: `max_tokens` u, `temperature` d, `top_k` u,
/// `top_p` d, `min_p` d, `seed` t, `stop` s or as, `repeat_penalty` d and so on; unknown ones are ignored.
///
/// A stream is a pipe of JSON lines: `{"text": "…"}` as words come (`reasoning`, `tool_call`, `tool_arguments` where a model has them); the
/// last line has `"done": true` with `reason`, `prompt` and `decode`, or with `error` (`name`, `message`). A stream that nobody reads
/// holds its answer; closing it ends the answer. While the model loads, jobs wait for it.
///
/// Errors are org.hearth.Error.: Busy (the queue is full), NotReady, BadRequest, ContextFull, TooHot, Cancelled, NotFound, NoMemory,
/// Failed.
#[interface(name = "org.hearth.Engine1")]
impl Engine {
    /// Goes on from a text as it is, without the model's chat template.
    #[zbus(out_args("job", "stream"))]
    async fn generate(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        prompt: String,
        options: Options,
    ) -> Result<(OwnedObjectPath, OwnedFd), Refusal> {
        let mut fields = fields(&options)?;
        fields.insert("prompt".into(), json!(limited(prompt)?));
        let request = self.counted(wire::completion(&fields))?;
        self.stream(connection, &header, |model| model.complete(request)).await
    }

    /// The next turn of a conversation: the JSON object of /v1/chat/completions, or the list of messages alone. Options win over
    /// its fields.
    #[zbus(out_args("job", "stream"))]
    async fn chat(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        request_json: String,
        options: Options,
    ) -> Result<(OwnedObjectPath, OwnedFd), Refusal> {
        let mut request = match serde_json::from_str(&limited(request_json)?) {
            Ok(Value::Object(request)) => request,
            Ok(messages @ Value::Array(_)) => wire::Fields::from_iter([("messages".to_owned(), messages)]),
            Ok(_) => return Err(Refusal::BadRequest("`request_json` must be an object or a list of messages".into())),
            Err(e) => return Err(Refusal::BadRequest(format!("`request_json` is no JSON: {e}"))),
        };
        request.extend(fields(&options)?);
        let request = self.counted(wire::chat(&request))?;
        self.stream(connection, &header, |model| model.chat(request)).await
    }

    /// One question, the whole answer: for shells. Bus clients wait 25 s by default; give yours more time (busctl --timeout=600).
    #[zbus(out_args("answer"))]
    async fn ask(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
        prompt: String,
        options: Options,
    ) -> Result<String, Refusal> {
        let mut fields = fields(&options)?;
        fields.insert("messages".into(), json!([{"role": "user", "content": limited(prompt)?}]));
        let mut life = self.desk.callers.life(connection, &header).await?;
        let model = self.desk.shared.service.ready().await?;
        let chat = self.counted(wire::chat(&fields))?;
        let answer = self.desk.asked(model, |model| model.chat(chat)).await?;
        let (events, done) = tokio::select! {
            whole = answer.collect() => whole?,
            () = life.ended() => return Err(Error::Cancelled.into()),
        };
        if done.finish == Finish::Cancelled {
            return Err(Error::NotReady("the daemon is stopping; the answer was cut short".into()).into());
        }
        let text = |event| if let Event::Content { text, .. } = event { Some(text) } else { None };
        Ok(carried(events.into_iter().filter_map(text).collect()))
    }

    /// `loading`, `ready`, `busy` (answering), `draining` (stopping), `failed`. More may be added.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.desk.state()
    }

    /// Requests that wait for a place.
    #[zbus(property)]
    fn queue(&self) -> u32 {
        self.desk.queue()
    }

    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &'static str {
        VERSION
    }
}

impl Engine {
    /// A refusal that can be known at once is the call's error; what comes later is in the stream.
    async fn stream(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        ask: impl FnOnce(&Model) -> Result<Answer, Error> + Send + 'static,
    ) -> Result<(OwnedObjectPath, OwnedFd), Refusal> {
        let life = self.desk.callers.life(connection, header).await?;
        let (lines, read) = pipe::open()?;
        let desk = self.desk.clone();
        let path = match desk.shared.service.model() {
            Ok(model) => {
                let answer = desk.asked(model, ask).await?;
                job::start(&self.desk, connection, life, lines, std::future::ready(Ok(answer))).await?
            }
            Err(Error::NotReady(_)) if desk.is_loading() => {
                let asked = async move {
                    let model = desk.shared.service.ready().await?;
                    desk.asked(model, ask).await
                };
                job::start(&self.desk, connection, life, lines, asked).await?
            }
            Err(error) => return Err(error.into()),
        };
        Ok((path, read.into()))
    }

    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| self.desk.shared.counts.refused(error))
    }
}

fn limited(text: String) -> Result<String, Refusal> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(text);
    }
    Err(Refusal::BadRequest(format!("{} bytes are more than the {TEXT_BYTES_MAX} that are taken", text.len())))
}

impl Desk {
    /// Off the tasks that carry other answers: a template may compute for a while.
    async fn asked(
        self: &Arc<Self>,
        model: Arc<Model>,
        ask: impl FnOnce(&Model) -> Result<Answer, Error> + Send + 'static,
    ) -> Result<Followed, Error> {
        let desk = self.clone();
        let asked = tokio::task::spawn_blocking(move || desk.shared.ask(&model, ask)).await;
        asked.map_err(|e| Error::Failed(format!("the request could not be read: {e}")))?
    }

    fn is_loading(&self) -> bool {
        matches!(*self.shared.service.state().borrow(), State::Loading { .. })
    }

    /// `Engine1.State`.
    pub fn state(&self) -> &'static str {
        match &*self.shared.service.state().borrow() {
            State::Loading { .. } => "loading",
            State::Ready(model) if model.failure().is_some() => "failed",
            State::Ready(model) if model.telemetry().borrow().running > 0 => "busy",
            State::Ready(_) => "ready",
            State::Draining => "draining",
            State::Failed(_) => "failed",
        }
    }

    /// `Engine1.Queue`.
    pub fn queue(&self) -> u32 {
        self.shared.service.model().map_or(0, |model| model.telemetry().borrow().waiting as u32)
    }
}
