//! The methods of Python's `str`, `dict` and `list` that templates call, with Python's idea of white space and lines.
//!
//! What would change a value (`append`, `update`, `pop`, …) is refused, as in the sandbox that templates were written for.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// The methods of values that minijinja itself knows none of; what isn't here is minijinja-contrib's or unknown.
pub fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => call_on_text(state, value, text, method, args),
            None => Err(Error::from(ErrorKind::UnknownMethod)),
        },
        ValueKind::Map | ValueKind::Seq if method == "copy" => {
            let () = from_args(args)?;
            Ok(value.clone())
        }
        ValueKind::Seq if method == "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            match value.try_iter()?.position(|item| item == *wanted) {
                Some(index) => Ok(Value::from(index)),
                None => Err(wrong(format!("{wanted} is not in list"))),
            }
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn call_on_text(state: &mut State, value: &Value, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, set, method != "rstrip", method != "lstrip")))
        }
        "split" | "rsplit" => {
            let (separator, limit, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(named.get("sep")?).filter(|s| !s.is_none());
            let limit = limit.or(named.get("maxsplit")?).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            named.assert_all_used()?;
            let parts = match separator.as_ref().map(|s| s.as_str().ok_or_else(|| wrong(format!("{method}: the separator must be text")))) {
                Some(separator) => split_at(text, separator?, limit, method == "rsplit")?,
                None => split_at_spaces(text, limit, method == "rsplit"),
            };
            state.consume_fuel(parts.len() as u64)?;
            Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
        }
        "splitlines" => {
            let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(named.get("keepends")?).unwrap_or(false);
            named.assert_all_used()?;
            Ok(Value::from(lines(text, keep).into_iter().map(Value::from).collect::<Vec<_>>()))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return Err(wrong("empty separator"));
            }
            let parts = match (if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) }, method) {
                (Some((head, tail)), _) => [head, separator, tail],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, method, args),
        "startswith" | "endswith" => {
            let (affix, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let text = &text[char_range(text, start, end)];
            let has = |affix: &Value| match affix.as_str() {
                Some(affix) if method == "startswith" => Ok(text.starts_with(affix)),
                Some(affix) => Ok(text.ends_with(affix)),
                None => Err(wrong(format!("{method} first arg must be str or a tuple of str, not {}", affix.kind()))),
            };
            if affix.is_tuple() {
                for one in affix.try_iter()? {
                    if has(&one)? {
                        return Ok(Value::from(true));
                    }
                }
                return Ok(Value::from(false));
            }
            Ok(Value::from(has(affix)?))
        }
        "ljust" | "rjust" | "center" | "zfill" => pad(state, text, method, args),
        "join" => {
            let (items,): (&Value,) = from_args(args)?;
            let mut joined = String::new();
            for (index, item) in items.try_iter()?.checked().enumerate() {
                let item = item?;
                let item =
                    item.as_str().ok_or_else(|| wrong(format!("sequence item {index}: expected str instance, {} found", item.kind())))?;
                state.consume_fuel(1 + (text.len() + item.len()) as u64 / 64)?;
                if index > 0 {
                    joined.push_str(text);
                }
                joined.push_str(item);
            }
            Ok(Value::from(joined))
        }
        // Each digit of a width may cost ten times as much text.
        "format" if text.as_bytes().split(|b| !b.is_ascii_digit()).any(|digits| digits.len() > 4) => {
            Err(wrong("format: widths and precisions have at most four digits"))
        }
        "title" => {
            let () = from_args(args)?;
            Ok(Value::from(title(text)))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped =
                text.chars().flat_map(|c| if c.is_uppercase() { c.to_lowercase().collect::<Vec<_>>() } else { c.to_uppercase().collect() });
            Ok(Value::from(swapped.collect::<String>()))
        }
        "casefold" => {
            let () = from_args(args)?;
            Ok(Value::from(text.to_lowercase().replace('ß', "ss")))
        }
        "isspace" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(is_space)))
        }
        "isdecimal" => {
            let () = from_args(args)?;
            Ok(Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let word = text.chars().all(|c| c == '_' || c.is_alphanumeric());
            Ok(Value::from(word && !text.starts_with(|c: char| c.is_numeric()) && !text.is_empty()))
        }
        "istitle" => {
            let () = from_args(args)?;
            Ok(Value::from(text.chars().any(char::is_alphabetic) && title(text) == text))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// White space as `str.isspace` has it: Unicode's, and the four separators of ASCII.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// `str.strip(set)` on one side or both; without a set, white space.
pub fn strip<'t>(mut text: &'t str, set: Option<&str>, left: bool, right: bool) -> &'t str {
    let goes = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    if left {
        text = text.trim_start_matches(goes);
    }
    if right {
        text = text.trim_end_matches(goes);
    }
    text
}

fn split_at<'t>(text: &'t str, separator: &str, limit: usize, from_right: bool) -> Result<Vec<&'t str>, Error> {
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let parts = limit.saturating_add(1);
    Ok(if from_right {
        let mut found: Vec<&str> = text.rsplitn(parts, separator).collect();
        found.reverse();
        found
    } else {
        text.splitn(parts, separator).collect()
    })
}

/// `split()` without a separator: runs of white space part the words, and none are empty.
fn split_at_spaces(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() && parts.len() < limit {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut else { break };
        let (part, remaining) = if from_right {
            let after = cut + rest[cut..].chars().next().map_or(1, char::len_utf8);
            (&rest[after..], rest[..cut].trim_end_matches(is_space))
        } else {
            (&rest[..cut], rest[cut..].trim_start_matches(is_space))
        };
        parts.push(part);
        rest = remaining;
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// `str.splitlines`: all that Python takes for the end of a line.
fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep_ends { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `find`, `rfind`, `index`, `rindex`, `count`, all with `(what, start, end)` in characters.
fn search(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let range = char_range(text, start, end);
    let part = &text[range.clone()];
    if method == "count" {
        return Ok(Value::from(part.matches(what).count()));
    }
    match if method.starts_with('r') { part.rfind(what) } else { part.find(what) } {
        Some(at) => Ok(Value::from(text[..range.start + at].chars().count())),
        None if method.ends_with("index") => Err(wrong("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

/// The bytes of `text[start:end]`, counted in characters, from the end where negative.
fn char_range(text: &str, start: Option<i64>, end: Option<i64>) -> std::ops::Range<usize> {
    if start.is_none() && end.is_none() {
        return 0..text.len();
    }
    let count = text.chars().count() as i64;
    let clamp = |at: i64| if at < 0 { at.saturating_add(count).max(0) } else { at.min(count) } as usize;
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let start = byte(clamp(start.unwrap_or(0)));
    start..byte(clamp(end.unwrap_or(count))).max(start)
}

/// `ljust`, `rjust`, `center` and `zfill`.
fn pad(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = match (fill, method) {
        (None, "zfill") => "0",
        (None, _) => " ",
        (Some(fill), _) if fill.chars().count() == 1 => fill,
        _ => return Err(wrong("The fill character must be exactly one character long")),
    };
    let length = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    state.consume_fuel(missing as u64 / 16)?;
    // CPython gives the odd one to the left where the width is odd.
    let left = match method {
        "ljust" => 0,
        "center" => missing / 2 + (missing & width as usize & 1),
        _ => missing,
    };
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) if method == "zfill" => text.split_at(text.len() - digits.len()),
        _ => ("", text),
    };
    Ok(Value::from(format!("{sign}{}{digits}{}", fill.repeat(left), fill.repeat(missing - left))))
}

/// `str.title`: a letter is upper case unless a letter stands before it (so `it's` becomes `It'S`).
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
