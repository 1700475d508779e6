//! JSON both ways: a request's values into the template's, and the filter `tojson`, which is Python's `json.dumps` without HTML escapes.

use super::arguments::bind;
use super::origin::Ink;
use super::printing::{DEPTH_MAX, too_deep, write_float};
use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;
use std::sync::Arc;

/// A JSON value as the template sees it; keys keep their order.
pub fn to_value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (_, Some(u)) => Value::from(u),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => items.iter().map(to_value).collect(),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), to_value(v)))),
    }
}

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub fn tojson(state: &State, value: &Value, given: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [ensure_ascii, indent, separators, sort_keys] = bind(["ensure_ascii", "indent", "separators", "sort_keys"], given)?;
    let (indent, separators) = (indent.filter(|v| !v.is_none()), separators.filter(|v| !v.is_none()));
    let (item_separator, key_separator) = match separators {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.take(3).collect();
            match pair.as_slice() {
                [item, key] => (text(item, "separators")?, text(key, "separators")?),
                _ => return Err(type_error("tojson: separators are a pair of strings")),
            }
        }
    };
    let indent = match indent {
        None => None,
        Some(v) if v.kind() == ValueKind::String => Some(text(&v, "indent")?),
        Some(v) => Some(" ".repeat(i64::try_from(v)?.clamp(0, 64) as usize)),
    };
    let mut writer = Writer {
        state,
        ink: Ink::of(state),
        out: String::new(),
        ensure_ascii: ensure_ascii.is_some_and(|v| v.is_true()),
        sort_keys: sort_keys.is_some_and(|v| v.is_true()),
        indent,
        item_separator,
        key_separator,
    };
    writer.write(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a, 's, 'e> {
    state: &'a State<'s, 'e>,
    ink: Option<Arc<Ink>>,
    out: String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
}

impl Writer<'_, '_, '_> {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth == DEPTH_MAX {
            return Err(too_deep());
        }
        let before = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.write_number(value)?,
            ValueKind::String => self.write_text(value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                self.out.push('[');
                let mut count = 0;
                for item in value.try_iter()?.checked() {
                    self.begin_item(count, depth + 1);
                    self.write(&item?, depth + 1)?;
                    count += 1;
                }
                self.end(']', count, depth);
            }
            ValueKind::Map => {
                self.out.push('{');
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<Value>, Error>>()?;
                if self.sort_keys {
                    if keys.windows(2).any(|k| k[0].kind() != k[1].kind()) {
                        return Err(type_error("tojson: keys of different types can't be sorted"));
                    }
                    keys.sort();
                }
                for (count, key) in keys.iter().enumerate() {
                    self.begin_item(count, depth + 1);
                    self.write_key(key)?;
                    self.out.push_str(&self.key_separator);
                    self.write(&value.get_item(key)?, depth + 1)?;
                }
                self.end('}', keys.len(), depth);
            }
            kind => return Err(type_error(format!("Object of type {kind} is not JSON serializable"))),
        }
        // Work is paid for as it is done, so that one filter call can't outrun the fuel.
        self.state.consume_fuel(1 + (self.out.len() - before) as u64 / 64)
    }

    fn write_number(&mut self, value: &Value) -> Result<(), Error> {
        if value.is_integer() {
            write!(self.out, "{value}").ok();
            return Ok(());
        }
        match f64::try_from(value.clone())? {
            x if x.is_finite() => write_float(x, &mut self.out),
            x if x.is_nan() => self.out.push_str("NaN"),
            x => self.out.push_str(if x > 0.0 { "Infinity" } else { "-Infinity" }),
        }
        Ok(())
    }

    fn write_key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.write_text(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.out.push('"');
                self.write(key, 0)?;
                self.out.push('"');
            }
            kind => return Err(type_error(format!("keys must be str, int, float, bool or None, not {kind}"))),
        }
        Ok(())
    }

    fn write_text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                c if self.ink.as_ref().is_some_and(|ink| ink.original(c).is_some()) => self.out.push(c),
                c if c < ' ' || self.ensure_ascii && !matches!(c, ' '..='~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04x}").ok();
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn begin_item(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.item_separator);
        }
        self.new_line(depth);
    }

    fn end(&mut self, bracket: char, count: usize, depth: usize) {
        if count > 0 {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }
}

fn text(value: &Value, what: &str) -> Result<String, Error> {
    value.as_str().map(str::to_owned).ok_or_else(|| type_error(format!("tojson: {what} must be text")))
}

fn type_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
