//! `/v1/chat/completions` and `/v1/completions`: from fields to an answer, in one piece or as a stream. There is one model, so whatever
//! name a client sends by habit means it.

use super::parts::{Head, Shape};
use super::reply::{Refusal, fields};
use super::{stream, whole};
use crate::serve::Shared;
use crate::serve::followed::Followed;
use crate::serve::wire::{self, Delivery, Fields};
use crate::service::{ChatRequest, CompletionRequest, Error, State as ServiceState};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

pub async fn chat(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let fields = fields(request).await?;
    let request = counted(&shared, wire::chat(&fields))?;
    answer(shared, Ask::Chat(request), &fields).await
}

pub async fn completion(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let fields = fields(request).await?;
    let request = counted(&shared, wire::completion(&fields))?;
    answer(shared, Ask::Text(request), &fields).await
}

enum Ask {
    Chat(ChatRequest),
    Text(CompletionRequest),
}

async fn answer(shared: Shared, ask: Ask, fields: &Fields) -> Result<Response, Refusal> {
    let delivery = counted(&shared, wire::delivery(fields))?;
    let keep_alive = shared.keep_alive;
    // A refusal has its status only while the stream has not begun; while a model loads it has to begin, to show that we live.
    let loading = matches!(*shared.service.state().borrow(), ServiceState::Loading { .. });
    let asked = asked(shared, ask);
    match delivery {
        Delivery { stream: false, .. } => {
            let (head, answer) = asked.await?;
            let (events, done) = answer.collect().await?;
            whole::reply(&head, events, done)
        }
        _ if loading => Ok(stream::reply(asked, delivery, keep_alive).into_response()),
        _ => {
            let asked = asked.await?;
            Ok(stream::reply(std::future::ready(Ok(asked)), delivery, keep_alive).into_response())
        }
    }
}

/// Waits for the model, and asks it.
async fn asked(shared: Shared, ask: Ask) -> Result<(Head, Followed), Error> {
    let model = counted(&shared, shared.service.ready().await)?;
    let shape = match ask {
        Ask::Chat(_) => Shape::Chat,
        Ask::Text(_) => Shape::Text,
    };
    let head = Head::new(shape, &model.info().name);
    let work = move || match ask {
        Ask::Chat(request) => shared.ask(&model, |m| m.chat(request)),
        Ask::Text(request) => shared.ask(&model, |m| m.complete(request)),
    };
    // A template may compute for a while, and a long text takes its time to be cut into tokens.
    let answer = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Failed(format!("the request could not be read: {e}")))??;
    Ok((head, answer))
}

fn counted<T>(shared: &Shared, result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| shared.counts.refused(error))
}
