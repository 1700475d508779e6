//! Calls as Python writes them: `name(key='text', other=[1, None])`. Named arguments only; values are literals.

use super::calls::{Call, Fault};
use serde_json::{Map, Value as Json};

/// Brackets in brackets deeper than this are no call.
const DEPTH_MAX: usize = 64;

/// `[call, call, …]` and the bytes that it takes.
pub fn calls(text: &str) -> Result<(Vec<Call>, usize), Fault> {
    let mut parser = Parser { text, at: 0 };
    parser.expect('[')?;
    let mut calls = Vec::new();
    loop {
        parser.skip_space();
        if parser.take(']')? {
            return Ok((calls, parser.at));
        }
        calls.push(parser.call()?);
        parser.skip_space();
        if !parser.take(',')? {
            parser.expect(']')?;
            return Ok((calls, parser.at));
        }
    }
}

/// One call and the bytes that it takes.
pub fn call(text: &str) -> Result<(Call, usize), Fault> {
    let mut parser = Parser { text, at: 0 };
    let call = parser.call()?;
    Ok((call, parser.at))
}

/// A call as Python writes it. Arguments that are no object are left out.
pub fn write(name: &str, arguments: &Json) -> String {
    let named = arguments.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", literal(value)));
    format!("{name}({})", named.collect::<Vec<_>>().join(", "))
}

fn literal(value: &Json) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Json::Object(map) => {
            format!("{{{}}}", map.iter().map(|(k, v)| format!("{}: {}", Json::from(k.as_str()), literal(v))).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Result<char, Fault> {
        self.text[self.at..].chars().next().ok_or(Fault::Ends)
    }

    fn next(&mut self) -> Result<char, Fault> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Ok(c)
    }

    fn take(&mut self, wanted: char) -> Result<bool, Fault> {
        let found = self.peek()? == wanted;
        self.at += if found { wanted.len_utf8() } else { 0 };
        Ok(found)
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.take(wanted)? { Ok(()) } else { Err(Fault::Wrong) }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    /// The characters that `belongs` accepts; one that doesn't must follow.
    fn word(&mut self, belongs: fn(char) -> bool) -> Result<&'t str, Fault> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c| !belongs(c)).ok_or(Fault::Ends)?;
        self.at += len;
        if len == 0 { Err(Fault::Wrong) } else { Ok(&rest[..len]) }
    }

    fn call(&mut self) -> Result<Call, Fault> {
        let name = self.word(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))?.to_owned();
        self.skip_space();
        self.expect('(')?;
        let mut arguments = Map::new();
        loop {
            self.skip_space();
            if self.take(')')? {
                break;
            }
            let key = self.word(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))?.to_owned();
            self.skip_space();
            self.expect('=')?;
            let value = self.value(DEPTH_MAX)?;
            arguments.insert(key, value);
            self.skip_space();
            if !self.take(',')? {
                self.expect(')')?;
                break;
            }
        }
        Ok(Call { name, arguments: Json::Object(arguments).to_string() })
    }

    fn value(&mut self, depth_left: usize) -> Result<Json, Fault> {
        let depth_left = depth_left.checked_sub(1).ok_or(Fault::Wrong)?;
        self.skip_space();
        match self.peek()? {
            quote @ ('"' | '\'') => self.string(quote).map(Json::from),
            open @ ('[' | '(') => {
                self.next()?;
                let close = if open == '[' { ']' } else { ')' };
                let mut items = Vec::new();
                self.items(close, |parser| {
                    items.push(parser.value(depth_left)?);
                    Ok(())
                })?;
                Ok(Json::from(items))
            }
            '{' => {
                self.next()?;
                let mut map = Map::new();
                self.items('}', |parser| {
                    let key = match parser.value(depth_left)? {
                        Json::String(key) => key,
                        other => other.to_string(),
                    };
                    parser.skip_space();
                    parser.expect(':')?;
                    map.insert(key, parser.value(depth_left)?);
                    Ok(())
                })?;
                Ok(Json::Object(map))
            }
            _ => match self.word(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-'))? {
                "True" | "true" => Ok(Json::from(true)),
                "False" | "false" => Ok(Json::from(false)),
                "None" | "null" => Ok(Json::Null),
                number => serde_json::from_str::<serde_json::Number>(&number.replace('_', "")).map(Json::from).map_err(|_| Fault::Wrong),
            },
        }
    }

    /// Items parted by commas up to `close`.
    fn items(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        loop {
            self.skip_space();
            if self.take(close)? {
                return Ok(());
            }
            item(self)?;
            self.skip_space();
            if !self.take(',')? {
                return self.expect(close);
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<String, Fault> {
        self.next()?;
        let mut text = String::new();
        loop {
            match self.next()? {
                c if c == quote => return Ok(text),
                '\\' => match self.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    '\n' => {}
                    c @ ('\\' | '\'' | '"' | '/') => text.push(c),
                    'u' => text.push(self.unicode()?),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
    }

    /// The four digits after `\u`, and the second half of a pair.
    fn unicode(&mut self) -> Result<char, Fault> {
        let unit =
            |parser: &mut Self| (0..4).try_fold(0u32, |sum, _| parser.next()?.to_digit(16).map(|d| sum * 16 + d).ok_or(Fault::Wrong));
        let first = unit(self)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Fault::Wrong);
        }
        self.expect('\\')?;
        self.expect('u')?;
        let second = unit(self)?;
        let pair = [first as u16, second as u16];
        char::decode_utf16(pair).next().and_then(Result::ok).ok_or(Fault::Wrong)
    }
}
