//! What several verbs are given: seeds, counts, and texts from files and pipes.

use anyhow::{Context, ensure};
use std::io::Read;

/// Most bytes of a text that is read at once, from a file or from stdin: a hundred times the longest context.
pub const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A seed; a negative one asks for chance, as elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub Option<u64>);

/// As [`Seed`] says.
pub fn seed(text: &str) -> Result<Seed, String> {
    let is_negative = || text.parse().is_ok_and(|n: i64| n < 0);
    match text.parse() {
        Ok(seed) => Ok(Seed(Some(seed))),
        Err(_) if is_negative() => Ok(Seed(None)),
        Err(_) => Err(format!("must be a whole number from 0 to {}, or negative for chance", u64::MAX)),
    }
}

/// A count; a negative one sets no bound, as in llama.cpp's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub Option<u32>);

/// As [`Count`] says.
pub fn count(text: &str) -> Result<Count, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Ok(Count(None)),
        Ok(n) if n <= u32::MAX.into() => Ok(Count(Some(n as u32))),
        _ => Err(format!("must be a whole number from 0 to {}, or negative for no bound", u32::MAX)),
    }
}

/// Reads a text to its end. `from` is what an error names.
pub fn text(from: &str, source: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    source.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| from.to_owned())?;
    ensure!(bytes.len() as u64 <= TEXT_BYTES_MAX, "{from}: is longer than the {TEXT_BYTES_MAX} bytes of text that are taken; cut it");
    String::from_utf8(bytes).with_context(|| format!("{from}: is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_seed_is_chance() {
        assert_eq!((seed("-1"), seed("7")), (Ok(Seed(None)), Ok(Seed(Some(7)))));
        assert_eq!(seed("18446744073709551615"), Ok(Seed(Some(u64::MAX))));
        assert!(seed("1.5").is_err() && seed("18446744073709551616").is_err());
    }

    #[test]
    fn a_negative_count_is_no_bound() {
        assert_eq!((count("-1"), count("-2"), count("0")), (Ok(Count(None)), Ok(Count(None)), Ok(Count(Some(0)))));
        assert_eq!(count("4294967295"), Ok(Count(Some(u32::MAX))));
        assert!(["4294967296", "1.5", "", "all"].iter().all(|text| count(text).is_err()));
    }

    #[test]
    fn a_text_without_end_is_refused() {
        let refused = |source: &mut dyn Read| text("/dev/zero", source).unwrap_err().to_string();
        assert!(refused(&mut std::io::repeat(b'a')).starts_with("/dev/zero: is longer than the 67108864 bytes"));
        assert!(refused(&mut &[0xff][..]).starts_with("/dev/zero: is no UTF-8"));
        assert_eq!(text("stdin", &b"Gr\xc3\xbc\xc3\x9fe"[..]).unwrap(), "Grüße");
    }
}
