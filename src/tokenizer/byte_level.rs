//! The byte alphabet of GPT-2: every byte written as one printable character, so that vocabularies can be text files.
//!
//! Bytes that print in Latin-1 stand for themselves; the other 68 become U+0100 and following, in order (a space is `Ġ`, U+0120).
//! Source: `bytes_to_unicode` of the GPT-2 release.

/// First character of those that stand for unprintable bytes.
const SHIFTED: u32 = 0x100;

const fn prints(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The bytes that do not print, in order: `UNPRINTABLE[i]` is written as U+0100 + i.
const UNPRINTABLE: [u8; 68] = {
    let (mut list, mut count, mut byte) = ([0; 68], 0, 0);
    while byte < 256 {
        if !prints(byte as u8) {
            list[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    list
};

/// The character that stands for a byte, by byte.
const CHARS: [char; 256] = {
    let (mut chars, mut byte, mut shifted) = (['\0'; 256], 0, 0);
    while byte < 256 {
        chars[byte] = if prints(byte as u8) {
            byte as u8 as char
        } else {
            shifted += 1;
            match char::from_u32(SHIFTED + shifted - 1) {
                Some(c) => c,
                None => unreachable!(),
            }
        };
        byte += 1;
    }
    chars
};

/// Appends `bytes` in the byte alphabet.
pub fn write(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|b| CHARS[usize::from(*b)]));
}

/// The byte that a character of the alphabet stands for.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..SHIFTED => u8::try_from(code).ok().filter(|b| prints(*b)),
        code => UNPRINTABLE.get((code - SHIFTED) as usize).copied(),
    }
}

/// Appends the bytes that a word of the alphabet stands for. What is not of the alphabet stands for itself.
pub fn read(word: &[u8], out: &mut Vec<u8>) {
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character_and_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let (mut text, mut back) = (String::new(), Vec::new());
        write(&all, &mut text);
        read(text.as_bytes(), &mut back);
        assert_eq!(text.chars().collect::<std::collections::HashSet<_>>().len(), 256);
        assert_eq!(back, all);
        assert_eq!(text.chars().nth(0x20), Some('Ġ'));
    }
}
