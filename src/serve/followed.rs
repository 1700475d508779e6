//! An answer on its way out, counted as it goes. Dropping it before its end cancels the request, and counts it as cancelled.

use super::counts::Counts;
use crate::service::{Answer, Done, Error, Event};
use std::sync::Arc;
use std::time::Instant;

pub struct Followed {
    answer: Answer,
    counts: Arc<Counts>,
    asked: Instant,
    last_text: Option<Instant>,
    ended: bool,
}

impl Followed {
    pub fn new(answer: Answer, counts: Arc<Counts>) -> Self {
        Self { answer, counts, asked: Instant::now(), last_text: None, ended: false }
    }

    /// The next event; `None` after [`Event::Done`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        let event = self.answer.next().await;
        match &event {
            Some(Ok(Event::Content { .. } | Event::Reasoning(_) | Event::ToolCall { .. } | Event::ToolArguments { .. })) => self.text(),
            Some(Ok(Event::Done(done))) => {
                self.counts.queued(done.timings.queue);
                self.counts.finished(done.finish);
                self.ended = true;
            }
            Some(Err(error)) => {
                self.counts.refused(error);
                self.ended = true;
            }
            Some(Ok(Event::Prefill { .. })) | None => {}
        }
        event
    }

    /// Everything to the end.
    pub async fn collect(mut self) -> Result<(Vec<Event>, Done), Error> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                Event::Done(done) => return Ok((events, done)),
                event => events.push(event),
            }
        }
        Err(Error::Failed("the answer ended without an end".into()))
    }

    fn text(&mut self) {
        let now = Instant::now();
        match self.last_text.replace(now) {
            None => self.counts.first_token(now - self.asked),
            Some(before) => self.counts.inter_token(now - before),
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if !self.ended {
            self.counts.cancelled();
        }
    }
}
