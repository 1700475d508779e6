//! The pipe that carries an answer to its caller: a JSON object a line, the last one with `"done": true` or an `"error"`.
//! A full pipe holds the answer; a pipe whose reader is gone ends it.

use super::refusal::Refusal;
use crate::service::{Done, Error, Event};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe::Sender;
use tokio::time::timeout;

/// For a reader that is slow to take the last line.
const LAST_LINE_WITHIN: Duration = Duration::from_secs(1);

/// Our end.
pub struct Lines {
    pipe: Sender,
    /// Not yet written; a write that was given up half-way goes on from here, so that lines stay whole.
    rest: Vec<u8>,
}

/// The reader closed its end.
#[derive(Debug, PartialEq, Eq)]
pub struct ReaderGone;

/// Both ends; the reading one goes to the caller.
pub fn open() -> Result<(Lines, OwnedFd), Refusal> {
    let failed = |e: std::io::Error| Refusal::Failed(format!("no pipe can be made: {e}"));
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let pipe = Sender::from_owned_fd(write).map_err(failed)?;
    Ok((Lines { pipe, rest: Vec::new() }, read))
}

impl Lines {
    /// May be given up at any time without loss.
    pub async fn write(&mut self, line: &Value) -> Result<(), ReaderGone> {
        self.push(line);
        self.flush().await
    }

    /// The last line, after which the pipe closes.
    pub async fn finish(mut self, line: &Value) {
        self.push(line);
        let _ = timeout(LAST_LINE_WITHIN, self.flush()).await; // who does not read it by then never will
    }

    /// Waits until the reader has closed its end.
    pub async fn reader_gone(&self) {
        loop {
            match self.pipe.ready(Interest::ERROR).await {
                Ok(ready) if !ready.is_error() => {}
                _ => return,
            }
        }
    }

    fn push(&mut self, line: &Value) {
        self.rest.extend_from_slice(format!("{line}\n").as_bytes());
    }

    async fn flush(&mut self) -> Result<(), ReaderGone> {
        while !self.rest.is_empty() {
            match self.pipe.write(&self.rest).await {
                Ok(n) => _ = self.rest.drain(..n),
                Err(_) => return Err(ReaderGone),
            }
        }
        Ok(())
    }
}

/// What an event says to a reader; most of the prompt's progress is told by the job's properties instead.
pub fn line(event: &Event) -> Option<Value> {
    match event {
        Event::Prefill { .. } | Event::Done(_) => None,
        Event::Content { text, .. } => Some(json!({"text": text})),
        Event::Reasoning(text) => Some(json!({"reasoning": text})),
        Event::ToolCall { index, id, name } => Some(json!({"tool_call": {"index": index, "id": id, "name": name}})),
        Event::ToolArguments { index, text } => Some(json!({"tool_arguments": {"index": index, "text": text}})),
    }
}

pub fn last_line(done: &Done) -> Value {
    let (usage, t) = (&done.usage, &done.timings);
    let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    json!({
        "done": true,
        "reason": done.finish.word(),
        "prompt": {"tokens": usage.prompt_tokens, "cached": usage.cached_tokens, "ms": ms(t.prefill), "tok_s": t.prefill_tok_s},
        "decode": {"tokens": usage.completion_tokens, "ms": ms(t.decode), "tok_s": t.decode_tok_s},
        "queue_ms": ms(t.queue),
    })
}

/// The last line of an answer that failed or was cancelled.
pub fn error_line(error: &Error) -> Value {
    json!({"done": true, "error": {"name": format!("org.hearth.Error.{}", error.word()), "message": error.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn a_write_that_was_given_up_goes_on_where_it_stopped() {
        let (mut lines, read) = open().unwrap();
        let long = json!({"text": "x".repeat(1 << 20)});
        // Nobody reads, so the pipe fills and the write can't end.
        assert!(timeout(Duration::from_millis(20), lines.write(&long)).await.is_err());
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::fs::File::from(read).read_to_string(&mut text).unwrap();
            text
        });
        lines.finish(&json!({"done": true})).await;
        assert_eq!(reader.join().unwrap(), format!("{long}\n{{\"done\":true}}\n"));
    }

    #[tokio::test]
    async fn a_reader_that_leaves_is_noticed_without_a_write() {
        let (mut lines, read) = open().unwrap();
        assert!(timeout(Duration::from_millis(20), lines.reader_gone()).await.is_err());
        drop(read);
        lines.reader_gone().await;
        assert_eq!(lines.write(&json!({})).await, Err(ReaderGone));
    }
}
