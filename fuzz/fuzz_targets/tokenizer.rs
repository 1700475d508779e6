//! Bytes → a file → its vocabulary. Whatever vocabulary opens cuts texts of every kind into its own tokens, and gives text back.
#![no_main]

use hearth::gguf::Gguf;
use hearth::tokenizer::{Options, TokenStream, Tokenizer};
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 5] = ["", "ab <s>e\u{301}\n\n  123456 </s> 中文 'll <|end|>\0x", "aaaaaaaaaaaaaaaa", "<0x41>▁▁", "\u{10FFFF}\u{FFFD}"];

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("hearth-fuzz-tokenizer-{}.gguf", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder takes files");
    let Ok(file) = Gguf::open(&path) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&file) else { return };
    for text in TEXTS {
        for (add_special, parse_special) in [(true, true), (false, false)] {
            let ids = tokenizer.encode(text, Options { add_special, parse_special });
            assert!(ids.iter().all(|id| (id.0 as usize) < tokenizer.vocab().len()));
            std::hint::black_box(tokenizer.decode(&ids, true));
            let mut stream = TokenStream::new(false);
            let streamed: String = ids.iter().map(|id| stream.push(&tokenizer, *id)).collect();
            std::hint::black_box((streamed, stream.finish()));
        }
    }
});
