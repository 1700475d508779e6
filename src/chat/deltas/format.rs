//! How a model marks its thoughts and calls, told from its template's text; and finding a mark in text that is still coming.

use super::calls::Dialect;
use super::pythonic;
use crate::chat::prompt::spaced;
use serde_json::{Value as Json, json};

/// The forms of one model's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub reasoning: Option<Marks>,
    pub dialect: Dialect,
    pub(super) dropped: &'static [&'static str],
    /// The answer comes in gpt-oss' channels.
    pub harmony: bool,
}

/// What stands around a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub open: &'static str,
    pub close: &'static str,
}

/// The pairs in use (2026); a template that names the opening one writes such thoughts.
const REASONING: [Marks; 5] = [
    Marks { open: "<think>", close: "</think>" },
    Marks { open: "[THINK]", close: "[/THINK]" },
    Marks { open: "<|channel>thought", close: "<channel|>" },
    Marks { open: "<seed:think>", close: "</seed:think>" },
    Marks { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
];

/// Texts in a template and the dialect that they tell; the most telling first.
const DIALECTS: [(&str, Dialect); 18] = [
    ("<|tool_call>", Dialect::Gemma),
    ("<start_function_call>", Dialect::FunctionGemma),
    ("<|tool_call_start|>", Dialect::Lfm2),
    ("<|tool_list_start|>", Dialect::Lfm2),
    ("<｜tool▁call▁begin｜>", Dialect::DeepSeek),
    ("[ARGS]", Dialect::MistralArgs),
    ("[TOOL_CALLS]", Dialect::Mistral),
    ("<parameter=", Dialect::Functions),
    ("<function=", Dialect::Functionary),
    ("<tool_call>", Dialect::Hermes),
    ("<|tool_call|>", Dialect::Granite),
    ("<|tool|>", Dialect::Granite),
    ("xml_tools", Dialect::Hermes),
    ("<|python_tag|>", Dialect::Llama),
    ("\"parameters\": dictionary of argument name and its value", Dialect::Llama),
    ("<|start_header_id|>", Dialect::Llama),
    ("```tool_code", Dialect::ToolCode),
    ("<start_of_turn>", Dialect::ToolCode),
];

impl Format {
    /// Plain text, nothing marked.
    pub const PLAIN: Self = Self { reasoning: None, dialect: Dialect::None, dropped: &[], harmony: false };

    /// What a template's text tells.
    pub fn of(template: &str) -> Self {
        if template.contains("<|channel|>analysis") || template.contains("<|channel|>final") {
            return Self { harmony: true, ..Self::PLAIN };
        }
        let reasoning = REASONING.into_iter().find(|marks| template.contains(marks.open) || template.contains(marks.close));
        let dialect = DIALECTS.iter().find(|(mark, _)| template.contains(mark)).map_or(Dialect::None, |(_, dialect)| *dialect);
        let dialect = if dialect == Dialect::DeepSeek && template.contains("```json") { Dialect::DeepSeekR1 } else { dialect };
        let dropped: &[&str] = if template.contains("<response>") { &["<response>", "</response>"] } else { &[] };
        Self { reasoning, dialect, dropped, harmony: false }
    }

    /// The same, for a model that was told to write its calls as Hermes does.
    pub fn with_hermes_calls(self) -> Self {
        Self { dialect: Dialect::Hermes, ..self }
    }
}

impl Format {
    /// The marks of the thought that a prompt leaves open at its end, if it does.
    pub fn thought_opened_by(&self, prompt: &str) -> Option<Marks> {
        self.reasoning.filter(|marks| prompt.trim_end().ends_with(marks.open.trim_end()))
    }

    /// Calls as the model itself would write them, for templates that leave them out. Each is a name with its arguments.
    pub fn write_calls<'a>(&self, calls: impl Iterator<Item = (&'a str, Json)>) -> String {
        match self.dialect {
            Dialect::Lfm2 => format!(
                "<|tool_call_start|>[{}]<|tool_call_end|>",
                join(calls.map(|(name, arguments)| pythonic::write(name, &arguments)), ", ")
            ),
            Dialect::Granite => {
                format!(
                    "<|tool_call|>[{}]",
                    join(calls.map(|(name, arguments)| spaced(&json!({"name": name, "arguments": arguments}))), ", ")
                )
            }
            _ => join(
                calls.map(|(name, arguments)| {
                    format!("<tool_call>\n{}\n</tool_call>", spaced(&json!({"name": name, "arguments": arguments})))
                }),
                "\n",
            ),
        }
    }
}

fn join(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

/// Where a mark is in a text that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The mark is here.
    Whole(usize),
    /// The text's end, from here, may be the beginning of the mark.
    Begun(usize),
    None,
}

impl Match {
    pub fn at(self) -> Option<usize> {
        match self {
            Self::Whole(at) | Self::Begun(at) => Some(at),
            Self::None => None,
        }
    }
}

/// The first place where `text` has `mark`, or ends within it.
pub fn find(text: &str, mark: &str) -> Match {
    if let Some(at) = text.find(mark) {
        return Match::Whole(at);
    }
    let longest = mark.len().saturating_sub(1).min(text.len());
    let from = text.len() - longest;
    let begun = (from..text.len()).find(|&at| text.is_char_boundary(at) && mark.starts_with(&text[at..]));
    begun.map_or(Match::None, Match::Begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_whole_or_begun() {
        assert_eq!(find("a<b<think>", "<think>"), Match::Whole(3));
        assert_eq!(find("a<b<thi", "<think>"), Match::Begun(3));
        assert_eq!(find("a <", "<think>"), Match::Begun(2));
        assert_eq!(find("a <x", "<think>"), Match::None);
        assert_eq!(find("ä｜", "｜｜x"), Match::Begun(2));
    }
}
