//! An answer on its way to people: byte for byte into a file or a pipe, and to a terminal without what would steer it.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// To stdout, at once.
pub fn show(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let text = if out.is_terminal() { harmless(text) } else { Cow::Borrowed(text) };
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What stands beside the answer on stderr: paler, where that is a terminal that may have colours.
pub fn dim(text: &str) -> Cow<'_, str> {
    if !std::io::stderr().is_terminal() {
        return Cow::Borrowed(text);
    }
    let text = harmless(text);
    if std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) { format!("\x1b[2m{text}\x1b[0m").into() } else { text }
}

/// Control characters as their pictures, but for line ends and tabs: by others a terminal is cleared, renamed, or made to type, and what
/// a model says may have been put into its mouth by the text it was asked about.
fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let picture = |c: char| match c {
        c if !steers(c) => c,
        '\0'..' ' => char::from_u32('\u{2400}' as u32 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_shown_as_pictures() {
        assert_eq!(harmless("\x1b]0;pwned\x07\x1b[2J\u{9b}5n\r\x7f\0"), "␛]0;pwned␇␛[2J\u{fffd}5n␍␡␀");
        assert!(matches!(harmless("Grüße,\n\t👩‍👩‍👧"), Cow::Borrowed("Grüße,\n\t👩‍👩‍👧")));
    }
}
