//! A [`Form`] in llguidance's variant of Lark: <https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>.

use super::gbnf::{self, GbnfError};
use crate::chat::Form;
use crate::tokenizer::{TokenKind, Vocabulary};
use crate::units::TokenId;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;

/// Most white space between two parts of a JSON value: an indented line fits in; a model that has lost its way can't go on for ever.
const SPACE_MOST: &str = r"[ \t\r\n]{1,40}";
/// Longest name of a control token that is looked for in a form's text.
const NAME_BYTES_MAX: usize = 64;

/// Writes one grammar. Equal parts become one rule.
pub struct Lark<'v> {
    vocabulary: &'v Vocabulary,
    lenient: bool,
    rules: String,
    names: HashMap<String, String>,
    wrong: Option<GbnfError>,
}

impl<'v> Lark<'v> {
    /// `lenient`: schemas may hold what can't be held to.
    pub fn new(vocabulary: &'v Vocabulary, lenient: bool) -> Self {
        Self { vocabulary, lenient, rules: String::new(), names: HashMap::new(), wrong: None }
    }

    /// # Errors
    /// A grammar in llama.cpp's notation can't be read.
    pub fn write(mut self, form: &Form) -> Result<String, GbnfError> {
        let start = self.term(form);
        self.wrong.map_or(Ok(format!("start: {start}\n{}", self.rules)), Err)
    }

    /// What stands for `form` in a rule's body.
    fn term(&mut self, form: &Form) -> String {
        match form {
            Form::Text(text) => self.text(text),
            Form::Json(schema) => {
                let mut schema = match schema {
                    Value::Object(map) => Value::Object(map.clone()),
                    // Anything, or (which nobody asks for) nothing.
                    other => json!({"allOf": [other]}),
                };
                schema["x-guidance"] = json!({"whitespace_pattern": SPACE_MOST, "lenient": self.lenient, "coerce_one_of": true});
                self.rule("", format!("%json {schema}"))
            }
            Form::Grammar(grammar) => {
                let (root, rules) = gbnf::to_lark(grammar).unwrap_or_else(|wrong| {
                    self.wrong = Some(wrong);
                    Default::default()
                });
                self.rules.push_str(&rules);
                root
            }
            Form::Until(mark) => match self.control(mark) {
                Some(id) => {
                    let free = self.rule("", r"/(?s:.+)/".into());
                    format!("({free})? <[{}]>", id.0)
                }
                None => self.rule("[lazy]", format!("/(?s:.*){}/", escaped(mark))),
            },
            Form::Free => self.rule("", r"/(?s:.*)/".into()),
            Form::Space => format!("(/{SPACE_MOST}/)?"),
            Form::Sequence(parts) => match parts.iter().map(|part| self.term(part)).filter(|t| !t.is_empty()).collect::<Vec<_>>() {
                parts if parts.is_empty() => "\"\"".into(),
                parts => self.rule("", parts.join(" ")),
            },
            Form::OneOf(parts) => match parts.iter().map(|part| self.term(part)).collect::<Vec<_>>() {
                parts if parts.is_empty() => "\"\"".into(),
                parts => self.rule("", parts.join(" | ")),
            },
            Form::Optional(part) => format!("({})?", self.term(part)),
            Form::Repeated(part) => format!("({})+", self.term(part)),
        }
    }

    fn rule(&mut self, attributes: &str, body: String) -> String {
        let key = format!("{attributes}: {body}");
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let name = format!("r{}", self.names.len());
        let _ = writeln!(self.rules, "{name}{key}");
        self.names.insert(key, name.clone());
        name
    }

    /// Literal text, with the control tokens that it names.
    fn text(&self, text: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            match self.control_at(&text[at..]) {
                Some((id, len)) => {
                    parts.extend((from < at).then(|| literal(&text[from..at])));
                    parts.push(format!("<[{}]>", id.0));
                    (from, at) = (at + len, at + len);
                }
                None => at += c.len_utf8(),
            }
        }
        parts.extend((from < at).then(|| literal(&text[from..])));
        parts.join(" ")
    }

    /// The control token whose name `text` begins with, and the name's length. Their names begin and end with brackets.
    fn control_at(&self, text: &str) -> Option<(TokenId, usize)> {
        let close = match text.as_bytes().first()? {
            b'<' => '>',
            b'[' => ']',
            _ => return None,
        };
        let ends = text.match_indices(close).map(|(at, _)| at + 1).take_while(|&end| end <= NAME_BYTES_MAX);
        ends.filter_map(|end| Some((self.control(&text[..end])?, end))).last()
    }

    fn control(&self, name: &str) -> Option<TokenId> {
        self.vocabulary.find(name.as_bytes()).filter(|id| self.vocabulary.kind(*id) == TokenKind::Control)
    }
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// `text` in a regular expression between slashes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Not `<` and `>`: escaped, they stand for the edges of words.
            c if r"\.+*?()|[]{}^$/#&-~".contains(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}
