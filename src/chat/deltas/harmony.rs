//! gpt-oss' answers: messages with a header each, `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`.
//!
//! What is said on `analysis` is thought; on `final`, and on `commentary` to nobody, said; a message with `to=functions.name` is a call.

use super::Delta;
use super::format::{Match, find};

/// Marks that end a message's body.
const ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>"];
/// A header is short; text without `<|message|>` for longer than this is content.
const HEADER_BYTES_MAX: usize = 1024;

pub struct Harmony {
    part: Part,
}

enum Part {
    /// Between a message's start and its `<|message|>`.
    Header,
    Reasoning,
    Content,
    /// The body of a call of this tool.
    Call(String),
}

impl Harmony {
    /// The prompt may end within a header (`<|start|>assistant`, `…<|channel|>`) or have opened a message.
    pub fn after(prompt: &str) -> Self {
        let header = prompt.rfind("<|start|>").map_or("", |at| &prompt[at..]);
        let part = match header.split_once("<|message|>") {
            Some((header, body)) if !ENDS.iter().any(|end| body.contains(end)) => part_of(header),
            _ => Part::Header,
        };
        Self { part }
    }

    /// Reads on in `held`, until a call is whole (its name and arguments) or more text is needed.
    pub fn step(&mut self, held: &mut String, at_end: bool, out: &mut Vec<Delta>) -> Option<(String, String)> {
        loop {
            match &self.part {
                Part::Header => {
                    match find(held, "<|message|>") {
                        Match::Whole(at) if at <= HEADER_BYTES_MAX => {
                            self.part = part_of(&held[..at]);
                            held.drain(..at + "<|message|>".len());
                        }
                        // Without a header all is content, but for the marks of one that was begun.
                        _ if held.len() > HEADER_BYTES_MAX || at_end => {
                            let text = ENDS.iter().fold(std::mem::take(held), |text, end| text.replace(end, ""));
                            let said = if ["<|channel|>", "assistant", "analysis", "commentary", "final"]
                                .iter()
                                .any(|w| text.trim() == *w || text.starts_with("<|"))
                            {
                                ""
                            } else {
                                &text
                            };
                            super::push_text(out, Delta::Content(said.to_owned()));
                            if !at_end {
                                self.part = Part::Content;
                            }
                            return None;
                        }
                        _ => return None,
                    }
                }
                body => {
                    let found = ENDS.iter().map(|end| (find(held, end), end.len())).filter(|(found, _)| *found != Match::None);
                    let (found, mark) = found.min_by_key(|(found, _)| found.at()).unwrap_or((Match::None, 0));
                    let (len, drop, ended) = match found {
                        Match::Whole(at) => (at, mark, true),
                        Match::Begun(at) if !at_end => (at, 0, false),
                        _ => (held.len(), 0, at_end),
                    };
                    if let Part::Call(name) = body {
                        if !ended {
                            return None;
                        }
                        let name = name.clone();
                        let text: String = held.drain(..len).collect();
                        held.drain(..drop);
                        self.part = Part::Header;
                        let arguments = if text.trim().is_empty() { "{}" } else { text.trim() };
                        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(arguments) {
                            Ok(arguments) => return Some((name, serde_json::Value::Object(arguments).to_string())),
                            Err(_) => super::push_text(out, Delta::Content(text)),
                        }
                    } else {
                        let text: String = held.drain(..len).collect();
                        held.drain(..drop);
                        super::push_text(out, if matches!(body, Part::Reasoning) { Delta::Reasoning(text) } else { Delta::Content(text) });
                        if !ended || at_end && held.is_empty() {
                            if ended && drop > 0 {
                                self.part = Part::Header;
                            }
                            return None;
                        }
                        self.part = Part::Header;
                    }
                    if held.is_empty() {
                        return None;
                    }
                }
            }
        }
    }
}

fn part_of(header: &str) -> Part {
    if let Some(to) = header.split("to=").nth(1) {
        let name = to.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default();
        let name = name.strip_prefix("functions.").unwrap_or(name);
        if !name.is_empty() && name != "assistant" && name != "user" {
            return Part::Call(name.to_owned());
        }
    }
    let channel = header.rsplit("<|channel|>").next().filter(|_| header.contains("<|channel|>")).unwrap_or_default();
    if channel.trim_start().starts_with("analysis") { Part::Reasoning } else { Part::Content }
}
