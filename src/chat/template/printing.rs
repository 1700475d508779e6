//! Values as Python prints them: `str(x)`, `repr(x)` and the shortest float, since that is what templates were written against.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Lists in lists deeper than this are refused, so that printing can't exhaust the stack.
pub const DEPTH_MAX: usize = 256;

/// `str(value)`: text as it is, everything else as [`repr`] has it; an undefined value is empty.
pub fn str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            write_repr(value, DEPTH_MAX, &mut out)?;
            Ok(out)
        }
    }
}

fn write_repr(value: &Value, depth_left: usize, out: &mut String) -> Result<(), Error> {
    if depth_left == 0 {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => write_float(f64::try_from(value.clone())?, out),
        ValueKind::Seq => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in value.try_iter()?.checked() {
                if count > 0 {
                    out.push_str(", ");
                }
                write_repr(&item?, depth_left - 1, out)?;
                count += 1;
            }
            if tuple && count == 1 {
                out.push(',');
            }
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.checked().enumerate() {
                let key = key?;
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, depth_left - 1, out)?;
                out.push_str(": ");
                write_repr(&value.get_item(&key)?, depth_left - 1, out)?;
            }
            out.push('}');
        }
        // Integers, booleans, None and what only minijinja has: it prints them as Python does.
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// The refusal of a value that is nested deeper than [`DEPTH_MAX`].
pub fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("the value is nested more than {DEPTH_MAX} levels deep"))
}

/// Python's `repr` of a float: the fewest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
pub fn write_float(x: f64, out: &mut String) {
    use std::fmt::Write;
    if !x.is_finite() {
        return out.push_str(match (x.is_nan(), x > 0.0) {
            (true, _) => "nan",
            (_, true) => "inf",
            _ => "-inf",
        });
    }
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let shortest = format!("{x:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.abs()).ok();
    } else {
        // `{:?}` keeps `.0` on whole numbers, as Python does, but switches to an exponent on bounds of its own.
        let plain = format!("{x}");
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    }
}

/// Python's `repr` of text: single quotes unless only double ones avoid an escape; what can't be seen is escaped.
fn write_quoted(text: &str, out: &mut String) {
    use std::fmt::Write;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x100 => write!(out, "\\x{:02x}", c as u32).unwrap_or_default(),
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32).unwrap_or_default(),
            c => write!(out, "\\U{:08x}", c as u32).unwrap_or_default(),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable` but for unassigned code points, whose list changes with every Unicode version.
fn is_printable(c: char) -> bool {
    let invisible = c.is_control() || c != ' ' && c.is_whitespace();
    let format = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}');
    let private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    !(invisible || format || private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_switch_to_an_exponent_where_python_does() {
        for (x, want) in [
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e-7, "1.5e-07"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-0.0, "-0.0"),
            (3e100, "3e+100"),
            (123456789.123, "123456789.123"),
            (f64::NAN, "nan"),
            (9007199254740993.0, "9007199254740992.0"),
            (5e-324, "5e-324"),
        ] {
            let mut out = String::new();
            write_float(x, &mut out);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn text_in_a_list_is_quoted_and_escaped_as_in_python() {
        let list = Value::from(vec!["a\"b", "a'b", "a'\"b", "\n\\\t", "é😀\u{7}\u{200b}\u{f0000}"]);
        assert_eq!(str(&list).unwrap(), r#"['a"b', "a'b", 'a\'"b', '\n\\\t', 'é😀\x07\u200b\U000f0000']"#);
    }

    #[test]
    fn endless_nesting_is_refused() {
        let deep = (0..DEPTH_MAX + 1).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        assert!(str(&deep).unwrap_err().to_string().contains("256 levels"));
    }
}
