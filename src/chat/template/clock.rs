//! `strftime_now(format)`: Python's `strftime` in the C locale, of a moment that the caller gives.

use jiff::civil::DateTime;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};

/// `now.strftime(format)` for a time without a zone; a directive that glibc doesn't know stays as it stands.
pub fn strftime(now: DateTime, format: &str) -> String {
    let config = Config::new().custom(PosixCustom::new()).lenient(true);
    let broken_down = BrokenDownTime::from(now);
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let directive = &rest[at..];
        // `%`, then flags and a width as in glibc, then one letter.
        let letter_at = directive[1..].find(|c: char| !matches!(c, '-' | '_' | '0'..='9' | '^' | '#')).map(|i| i + 1);
        let Some((letter_at, letter)) = letter_at.and_then(|i| Some((i, directive[i..].chars().next()?))) else {
            out.push_str(directive);
            return out;
        };
        let end = letter_at + letter.len_utf8();
        match letter {
            '%' => out.push('%'),
            'f' => out.push_str(&format!("{:06}", now.subsec_nanosecond() / 1000)),
            // A time without a zone has neither an offset nor a name for it.
            'z' | 'Z' => {}
            'a' | 'A' | 'b' | 'B' | 'c' | 'C' | 'd' | 'D' | 'e' | 'F' | 'g' | 'G' | 'h' | 'H' | 'I' | 'j' | 'k' | 'l' | 'm' | 'M' | 'n'
            | 'p' | 'P' | 'r' | 'R' | 'S' | 't' | 'T' | 'u' | 'U' | 'V' | 'w' | 'W' | 'x' | 'X' | 'y' | 'Y' => {
                match broken_down.to_string_with_config(&config, &directive[..end]) {
                    Ok(text) => out.push_str(&text),
                    Err(_) => out.push_str(&directive[..end]),
                }
            }
            _ => out.push_str(&directive[..end]),
        }
        rest = &directive[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn directives_print_as_in_python() {
        let now = jiff::civil::date(2026, 3, 5).at(4, 5, 6, 7_000);
        for (format, want) in [
            ("%d %b %Y", "05 Mar 2026"),
            ("%Y-%m-%d %H:%M:%S.%f", "2026-03-05 04:05:06.000007"),
            ("%A %a %B %j %U %W %V %u %w", "Thursday Thu March 064 09 09 10 4 4"),
            ("%-d/%-m %e|%_H|%I %p %-I", "5/3  5| 4|04 AM 4"),
            ("%c|%x|%X", "Thu Mar  5 04:05:06 2026|03/05/26|04:05:06"),
            ("%D %F %R %T %y %C %G %h%n%t%%", "03/05/26 2026-03-05 04:05 04:05:06 26 20 2026 Mar\n\t%"),
            ("[%z%Z] %Q %", "[] %Q %"),
        ] {
            assert_eq!(strftime(now, format), want, "{format}");
        }
    }
}
