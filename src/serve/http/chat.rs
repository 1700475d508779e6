//! `/v1/chat/completions` and `/v1/completions`: from fields to an answer, in one piece or as a stream. There is one model, so whatever
//! name a client sends by habit means it.

use super::body::fields;
use super::parts::{Head, Shape};
use super::reply::Refusal;
use super::{stream, whole};
use crate::serve::Shared;
use crate::serve::followed::Followed;
use crate::serve::wire::{self, Delivery, Fields};
use crate::service::{ChatRequest, CompletionRequest, Error, Model, State as ServiceState};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::sync::Arc;

pub async fn chat(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let fields = fields(request).await?;
    let request = counted(&shared, wire::chat(&fields))?;
    answer(shared, Shape::Chat, [Ask::Chat(request)].into(), &fields).await
}

pub async fn completion(State(shared): State<Shared>, request: Request) -> Result<Response, Refusal> {
    let fields = fields(request).await?;
    let requests = counted(&shared, wire::completions(&fields))?;
    answer(shared, Shape::Text, requests.into_iter().map(Ask::Text).collect(), &fields).await
}

enum Ask {
    Chat(ChatRequest),
    Text(CompletionRequest),
}

async fn answer(shared: Shared, shape: Shape, asks: VecDeque<Ask>, fields: &Fields) -> Result<Response, Refusal> {
    let delivery = counted(&shared, wire::delivery(fields))?;
    let keep_alive = shared.keep_alive;
    // A refusal has its status only while the stream has not begun; while a model loads it has to begin, to show that we live.
    let loading = matches!(*shared.service.state().borrow(), ServiceState::Loading { .. });
    let questions = Questions { shared, shape, asks, asked: None };
    match delivery {
        Delivery { stream: false, .. } => whole::reply(questions).await,
        _ if loading => Ok(stream::reply(questions.next(), delivery, keep_alive).into_response()),
        _ => {
            let (questions, first) = questions.next().await;
            let first = first.transpose()?.map(Ok);
            Ok(stream::reply(std::future::ready((questions, first)), delivery, keep_alive).into_response())
        }
    }
}

/// What one HTTP request asks of the model, one after the other: a text completion can have several prompts.
pub struct Questions {
    shared: Shared,
    shape: Shape,
    asks: VecDeque<Ask>,
    /// Set when the first is asked, and the same for all.
    asked: Option<(Head, Arc<Model>)>,
}

impl Questions {
    /// What stands in every object of the answer; `None` before the first question.
    pub fn head(&self) -> Option<&Head> {
        self.asked.as_ref().map(|(head, _)| head)
    }

    /// Waits for the model, and asks it the next question. `None`: all were asked.
    pub async fn next(mut self) -> (Self, Option<Result<Followed, Error>>) {
        let Some(ask) = self.asks.pop_front() else { return (self, None) };
        let answer = self.ask(ask).await;
        (self, Some(answer))
    }

    async fn ask(&mut self, ask: Ask) -> Result<Followed, Error> {
        let model = match &self.asked {
            Some((_, model)) => model.clone(),
            None => {
                let model = counted(&self.shared, self.shared.service.ready().await)?;
                self.asked = Some((Head::new(self.shape, &model.info().name), model.clone()));
                model
            }
        };
        let shared = self.shared.clone();
        let work = move || match ask {
            Ask::Chat(request) => shared.ask(&model, |m| m.chat(request)),
            Ask::Text(request) => shared.ask(&model, |m| m.complete(request)),
        };
        // A template may compute for a while, a long text takes its time to be cut into tokens, and a form to be compiled.
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Failed(format!("the request could not be read: {e}")))?
    }
}

fn counted<T>(shared: &Shared, result: Result<T, Error>) -> Result<T, Error> {
    result.inspect_err(|error| shared.counts.refused(error))
}
