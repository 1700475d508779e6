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
/// Most remainders of numbers that are told apart. Each is a state of some hundred bytes, and llguidance goes through all of them before an
/// answer begins, with no bound of its own.
const REMAINDERS_MAX: u64 = 10_000;
/// Longest name of a control token that is looked for in a form's text.
const NAME_BYTES_MAX: usize = 64;

/// Writes one grammar. Equal parts become one rule.
pub struct Lark<'v> {
    vocabulary: &'v Vocabulary,
    lenient: bool,
    rules: String,
    names: HashMap<String, String>,
    wrong: Option<LarkError>,
}

/// Why a form can't be written.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LarkError {
    #[error(transparent)]
    Grammar(#[from] GbnfError),
    #[error(
        "all `multipleOf` of the schema together ask for more than {REMAINDERS_MAX} remainders to be told apart; give smaller or rounder \
         numbers"
    )]
    Multiples,
}

impl<'v> Lark<'v> {
    /// `lenient`: schemas may hold what can't be held to.
    pub fn new(vocabulary: &'v Vocabulary, lenient: bool) -> Self {
        Self { vocabulary, lenient, rules: String::new(), names: HashMap::new(), wrong: None }
    }

    /// # Errors
    /// A grammar in llama.cpp's notation can't be read, or a schema would take too long to follow.
    pub fn write(mut self, form: &Form) -> Result<String, LarkError> {
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
                if remainders(&schema).is_none_or(|n| n > REMAINDERS_MAX) {
                    match self.lenient {
                        true => drop_multiples(&mut schema),
                        false => self.wrong = Some(LarkError::Multiples),
                    }
                }
                schema["x-guidance"] = json!({"whitespace_pattern": SPACE_MOST, "lenient": self.lenient, "coerce_one_of": true});
                self.rule("", format!("%json {schema}"))
            }
            Form::Grammar(grammar) => {
                let (root, rules) = gbnf::to_lark(grammar).unwrap_or_else(|wrong| {
                    self.wrong = Some(wrong.into());
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

/// How many remainders tell the multiples of all `multipleOf` in a schema apart, which may be asked for together: their least common
/// multiple, in units of the finest decimal. `None`: too many to count.
fn remainders(schema: &Value) -> Option<u64> {
    let mut multiples = Vec::new();
    find_multiples(schema, &mut multiples);
    let multiples = multiples.into_iter().map(digits).collect::<Option<Vec<(u64, u32)>>>()?;
    let most = multiples.iter().map(|(_, decimals)| *decimals).max().unwrap_or(0);
    multiples.into_iter().try_fold(1, |all: u64, (digits, decimals)| {
        let of = digits.checked_mul(10u64.checked_pow(most - decimals)?)?;
        (all / common(all, of)).checked_mul(of)
    })
}

/// A number above 0 as its digits and how many of them are decimals, as llguidance finds them. `None`: more than it takes, or more than a
/// binary number has exactly (0.07).
fn digits(number: f64) -> Option<(u64, u32)> {
    let (mut digits, mut decimals) = (number, 0);
    while digits.fract() != 0.0 {
        (digits, decimals) = (digits * 10.0, decimals + 1);
    }
    (1.0..=f64::from(u32::MAX)).contains(&digits).then_some((digits as u64, decimals))
}

/// The greatest common divisor; `b` is not 0.
fn common(a: u64, b: u64) -> u64 {
    if a.is_multiple_of(b) { b } else { common(b, a % b) }
}

fn find_multiples(schema: &Value, found: &mut Vec<f64>) {
    match schema {
        Value::Object(members) => {
            // No multiple of nothing, or of what is below it, is asked for.
            found.extend(members.get("multipleOf").and_then(Value::as_f64).filter(|m| *m > 0.0));
            members.values().for_each(|member| find_multiples(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| find_multiples(item, found)),
        _ => {}
    }
}

fn drop_multiples(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, member| name != "multipleOf" || !member.is_number());
            members.values_mut().for_each(drop_multiples);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_multiples),
        _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_all_multiples_together() {
        let of = |multiples: &[f64]| {
            let number = |m: &f64| json!({"type": "number", "multipleOf": m});
            remainders(&json!({"properties": {"a": {"allOf": multiples.iter().map(number).collect::<Vec<_>>()}}}))
        };
        assert_eq!((of(&[]), of(&[5.0]), of(&[0.01]), of(&[0.0, -3.0])), (Some(1), Some(5), Some(1), Some(1)));
        assert_eq!((of(&[4.0, 6.0]), of(&[0.3, 7.0]), of(&[0.05, 0.1])), (Some(12), Some(210), Some(10)));
        assert_eq!((of(&[9973.0, 9967.0]), of(&[1e-300]), of(&[1e300]), of(&[0.07])), (Some(9973 * 9967), None, None, None));
        assert_eq!(of(&(1..60).map(f64::from).collect::<Vec<_>>()), None);
        assert_eq!(remainders(&json!({"properties": {"multipleOf": {"type": "string"}}})), Some(1), "a name of a member");
    }

    #[test]
    fn multiples_with_too_many_remainders_are_refused_or_left_to_the_model() {
        let tokenizer = super::super::tiny::Tiny::llama().tokenizer();
        let form = Form::Json(json!({"type": "array", "items": {"type": "integer", "multipleOf": 9_999_991, "minimum": 3}}));
        let write = |lenient| Lark::new(tokenizer.vocab(), lenient).write(&form);
        assert_eq!(write(false), Err(LarkError::Multiples));
        let left = write(true).unwrap();
        assert!(!left.contains("multipleOf") && left.contains("\"minimum\":3"), "{left}");
    }
}
