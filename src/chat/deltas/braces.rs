//! The objects of Gemma's calls: JSON whose keys are bare and whose text stands between marks, `{key:<|"|>text<|"|>,list:[1,true]}`.

use super::calls::Fault;
use crate::chat::message::is_tool_name_char;
use serde_json::{Map, Value as Json};

/// Brackets in brackets deeper than this are no call.
const DEPTH_MAX: usize = 64;

/// The object that `text` begins with, and the bytes that it takes. `quote` stands on both sides of text.
pub fn object(text: &str, quote: &str) -> Result<(Map<String, Json>, usize), Fault> {
    let mut parser = Parser { text, at: 0, quote };
    match parser.value(DEPTH_MAX)? {
        Json::Object(map) => Ok((map, parser.at)),
        _ => Err(Fault::Wrong),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    quote: &'t str,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn take(&mut self, wanted: char) -> Result<bool, Fault> {
        let found = self.rest().chars().next().ok_or(Fault::Ends)? == wanted;
        self.at += if found { wanted.len_utf8() } else { 0 };
        Ok(found)
    }

    fn expect(&mut self, wanted: char) -> Result<(), Fault> {
        if self.take(wanted)? { Ok(()) } else { Err(Fault::Wrong) }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn value(&mut self, depth_left: usize) -> Result<Json, Fault> {
        let depth_left = depth_left.checked_sub(1).ok_or(Fault::Wrong)?;
        self.skip_space();
        if let Some(text) = self.quoted()? {
            return Ok(Json::from(text));
        }
        if self.take('{')? {
            let mut map = Map::new();
            loop {
                self.skip_space();
                if self.take('}')? {
                    return Ok(Json::Object(map));
                }
                let key = match self.quoted()? {
                    Some(key) => key,
                    None => self.bare()?,
                };
                self.skip_space();
                self.expect(':')?;
                let value = self.value(depth_left)?;
                map.insert(key, value);
                self.skip_space();
                if !self.take(',')? {
                    self.expect('}')?;
                    return Ok(Json::Object(map));
                }
            }
        }
        if self.take('[')? {
            let mut items = Vec::new();
            loop {
                self.skip_space();
                if self.take(']')? {
                    return Ok(Json::from(items));
                }
                items.push(self.value(depth_left)?);
                self.skip_space();
                if !self.take(',')? {
                    self.expect(']')?;
                    return Ok(Json::from(items));
                }
            }
        }
        let word = self.bare()?;
        Ok(match word.as_str() {
            "true" | "True" => Json::from(true),
            "false" | "False" => Json::from(false),
            "null" | "None" => Json::Null,
            _ => serde_json::from_str::<serde_json::Number>(&word).map_or(Json::from(word), Json::from),
        })
    }

    /// Text between two quotes, if one comes next.
    fn quoted(&mut self) -> Result<Option<String>, Fault> {
        for quote in [self.quote, "\""] {
            let rest = self.rest();
            if let Some(inner) = rest.strip_prefix(quote) {
                let len = inner.find(quote).ok_or(Fault::Ends)?;
                let text = inner[..len].to_owned();
                self.at += len + 2 * quote.len();
                return Ok(Some(text));
            }
            if quote.starts_with(rest) {
                return Err(Fault::Ends);
            }
        }
        Ok(None)
    }

    /// A key, a number or a word without quotes.
    fn bare(&mut self) -> Result<String, Fault> {
        let belongs = |c: char| is_tool_name_char(c) && c != ':' || matches!(c, '+' | ' ' | '$' | '@');
        let len = self.rest().find(|c| !belongs(c)).ok_or(Fault::Ends)?;
        let word = self.rest()[..len].trim().to_owned();
        self.at += len;
        if word.is_empty() { Err(Fault::Wrong) } else { Ok(word) }
    }
}
