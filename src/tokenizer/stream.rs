//! Text from tokens as they come, never splitting a character: tokens may end in the middle of one.

use super::Tokenizer;
use crate::units::TokenId;

/// Collects bytes and gives text: the characters that are whole. What can never become one is U+FFFD.
#[derive(Default)]
pub struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// The characters that `bytes` completes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    rest = broken;
                    if let Some(length) = error.error_len() {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &broken[length..];
                        continue;
                    }
                }
            }
            break;
        }
        self.held = rest.to_vec();
        text
    }

    /// At the end: U+FFFD if a character was never completed.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    /// Whether a character is incomplete.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }
}

/// Text of an answer, token by token. Control tokens are hidden unless `show_special`.
pub struct TokenStream {
    text: Utf8Stream,
    bytes: Vec<u8>,
    show_special: bool,
    /// The next token begins the text, so the space that SentencePiece put before it is dropped.
    begins: bool,
}

impl TokenStream {
    /// Of a text of its own, as an answer in a chat is.
    pub fn new(show_special: bool) -> Self {
        Self { text: Utf8Stream::default(), bytes: Vec::new(), show_special, begins: true }
    }

    /// Of text that continues other text: a space at its beginning is kept.
    pub fn continuing(show_special: bool) -> Self {
        Self { begins: false, ..Self::new(show_special) }
    }

    /// The characters that this token completes.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> String {
        self.bytes.clear();
        tokenizer.append_bytes(id, self.show_special, self.begins, &mut self.bytes);
        self.begins = false;
        self.text.push(&self.bytes)
    }

    /// The bytes of the last token, whole characters or not.
    pub fn last_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// At the end: U+FFFD if a character was never completed.
    pub fn finish(&mut self) -> String {
        self.text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole_however_their_bytes_are_cut() {
        let text = "aé€😁\u{10FFFF}z";
        for size in 1..=text.len() {
            let mut stream = Utf8Stream::default();
            let mut out: String = text.as_bytes().chunks(size).map(|chunk| stream.push(chunk)).collect();
            assert!(!stream.is_holding());
            out += &stream.finish();
            assert_eq!(out, text, "in chunks of {size}");
        }
    }

    #[test]
    fn broken_bytes_become_what_a_lossy_decoder_makes_of_them() {
        let cases: [&[u8]; 6] = [b"a\xFFb", b"\xE2\x82", b"\xE2\x82a", b"\xF0\x9F\x98", b"\xED\xA0\x80", b"\xC3\xC3\xA9"];
        for bytes in cases {
            for size in 1..=bytes.len() {
                let mut stream = Utf8Stream::default();
                let mut out: String = bytes.chunks(size).map(|chunk| stream.push(chunk)).collect();
                out += &stream.finish();
                assert_eq!(out, String::from_utf8_lossy(bytes), "{bytes:x?} in chunks of {size}");
            }
        }
    }
}
