//! A template's tags, as tokens: names, numbers, decoded string literals, operators. Comments, raw blocks and plain text are passed over.
//! What is made of them is [`source`](super::source)'s.

use std::ops::Range;

/// `{% … %}` or `{{ … }}`; the delimiters with their `-` and `+` are outside of `inner`.
pub struct Tag {
    pub block: bool,
    pub inner: Range<usize>,
    pub tokens: Vec<Token>,
}

pub struct Token {
    pub at: Range<usize>,
    pub kind: Kind,
}

pub enum Kind {
    Name,
    Number,
    /// A string literal, decoded.
    Text(String),
    Operator,
}

/// All tags of a template, and the places where raw text begins, or `None` where it can't be read.
pub fn tags(source: &str) -> Option<(Vec<Tag>, Vec<usize>)> {
    let mut tags = Vec::new();
    let mut raws = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{') {
        let start = at + open;
        let rest = &source[start..];
        if let Some(comment) = rest.strip_prefix("{#") {
            at = start + 2 + comment.find("#}")? + 2;
        } else if rest.starts_with("{%") || rest.starts_with("{{") {
            let tag = read_tag(source, start)?;
            at = tag.inner.end + source[tag.inner.end..].find(if tag.block { "%}" } else { "}}" })? + 2;
            let raw = tag.block && matches!(tag.tokens.as_slice(), [only] if &source[only.at.clone()] == "raw");
            if raw {
                raws.push(at);
                at = end_of_raw(source, at)?;
            } else {
                tags.push(tag);
            }
        } else {
            at = start + 1;
        }
    }
    Some((tags, raws))
}

/// The position after the `{% endraw %}` that follows `at`.
fn end_of_raw(source: &str, mut at: usize) -> Option<usize> {
    loop {
        let inner = at + source[at..].find("{%")? + 2;
        let rest = source[inner..].trim_start_matches(['-', '+']).trim_start();
        if let Some(rest) = rest.strip_prefix("endraw") {
            let rest = rest.trim_start().trim_start_matches(['-', '+']);
            if rest.starts_with("%}") {
                return Some(source.len() - rest.len() + 2);
            }
        }
        at = inner;
    }
}

fn read_tag(source: &str, start: usize) -> Option<Tag> {
    let block = source[start..].starts_with("{%");
    let close = if block { "%}" } else { "}}" };
    let mut at = start + 2;
    at += usize::from(source[at..].starts_with(['-', '+']));
    let inner_start = at;
    let mut tokens = Vec::new();
    let mut open_brackets = 0usize;
    loop {
        let rest = &source[at..];
        let first = rest.chars().next()?;
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if open_brackets == 0 && (rest.starts_with(close) || (first == '-' || first == '+') && rest[1..].starts_with(close)) {
            return Some(Tag { block, inner: inner_start..at, tokens });
        }
        let (len, kind) = match first {
            '\'' | '"' => read_literal(rest, first)?,
            c if c.is_ascii_digit() => (number_len(rest, source[..at].ends_with('.')), Kind::Number),
            c if c == '_' || c.is_alphabetic() => (rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len()), Kind::Name),
            _ => {
                let double = rest.get(..2).is_some_and(|two| ["//", "**", "==", "!=", ">=", "<="].contains(&two));
                match first {
                    '(' | '[' | '{' => open_brackets += 1,
                    ')' | ']' | '}' => open_brackets = open_brackets.checked_sub(1)?,
                    _ => {}
                }
                (if double { 2 } else { first.len_utf8() }, Kind::Operator)
            }
        };
        tokens.push(Token { at: at..at + len, kind });
        at += len;
    }
}

/// Bytes of the number that `rest` begins with; after a dot (`x.0.1`) it has no fraction.
fn number_len(rest: &str, after_dot: bool) -> usize {
    let bytes = rest.as_bytes();
    let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let mut len = digits(0);
    if !after_dot && bytes.get(len) == Some(&b'.') && bytes.get(len + 1).is_some_and(u8::is_ascii_digit) {
        len = digits(len + 1);
    }
    let radix = bytes.get(1).is_some_and(|b| matches!(b, b'x' | b'X' | b'o' | b'O' | b'b' | b'B'));
    if !radix && matches!(bytes[len - 1], b'e' | b'E') && matches!(bytes.get(len), Some(b'+' | b'-')) {
        len = digits(len + 1);
    }
    len
}

/// A string literal as Python's `unicode-escape` reads it: an escape that means nothing stays as it stands.
fn read_literal(rest: &str, quote: char) -> Option<(usize, Kind)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((at + 1, Kind::Text(text)));
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        let (_, escape) = chars.next()?;
        let (value, digits) = match escape {
            '\n' => continue,
            'n' => ('\n', 0),
            't' => ('\t', 0),
            'r' => ('\r', 0),
            'a' => ('\x07', 0),
            'b' => ('\x08', 0),
            'f' => ('\x0c', 0),
            'v' => ('\x0b', 0),
            '\\' | '\'' | '"' => (escape, 0),
            '0'..='7' => {
                let octal: String = rest[at + 1..].chars().take(3).take_while(|c| c.is_digit(8)).collect();
                (char::from_u32(u32::from_str_radix(&octal, 8).ok()?)?, octal.len() - 1)
            }
            'x' => (hex(rest, at + 2, 2)?, 2),
            'u' => match hex(rest, at + 2, 4) {
                Some(c) => (c, 4),
                None => (surrogate_pair(rest.get(at..)?)?, 10),
            },
            'U' => (hex(rest, at + 2, 8)?, 8),
            other => {
                text.push('\\');
                (other, 0)
            }
        };
        text.push(value);
        for _ in 0..digits {
            chars.next()?;
        }
    }
    None
}

fn hex(rest: &str, at: usize, digits: usize) -> Option<char> {
    char::from_u32(u32::from_str_radix(rest.get(at..at + digits)?, 16).ok()?)
}

/// `\ud83d\ude00`, the one character that two escapes of UTF-16 stand for.
fn surrogate_pair(text: &str) -> Option<char> {
    let unit = |at: usize| u16::from_str_radix(text.get(at..at + 4)?, 16).ok();
    (text.get(6..8)? == "\\u").then_some(())?;
    char::decode_utf16([unit(2)?, unit(8)?]).next()?.ok()
}
