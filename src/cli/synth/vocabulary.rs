//! A byte-level vocabulary of any size: 256 bytes, then merges of letters, then special words. It splits and joins text as a real
//! one does; what it lacks is frequency, so a text takes more tokens than it would.

use super::shape::{Architecture, Shape};
use crate::gguf::writer::Plan;

/// So that what serves chats can be measured and tested too.
const CHAT_TEMPLATE: &str =
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

/// Special words at the end, unless the vocabulary is small.
const SPECIAL: usize = 256;
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Adds the vocabulary's metadata.
pub fn describe(shape: &Shape, plan: &mut Plan) {
    let special = SPECIAL.min(shape.vocabulary / 8);
    let plain = shape.vocabulary - special;
    let (mut words, merges) = words(plain);
    words.extend(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"].map(str::to_owned));
    words.extend((words.len()..shape.vocabulary).map(|id| format!("<|reserved_{id}|>")));
    let kinds = (0..shape.vocabulary).map(|id| if id < plain { NORMAL } else { CONTROL }).collect::<Vec<_>>();
    let split = match shape.architecture {
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe => "qwen2",
        Architecture::Llama if shape.name.starts_with("smollm") => "smollm",
        Architecture::Llama | Architecture::Gemma3 => "llama-bpe",
    };
    plan.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", split);
    plan.set("tokenizer.ggml.tokens", words).set("tokenizer.ggml.token_type", kinds).set("tokenizer.ggml.merges", merges);
    plan.set("tokenizer.ggml.bos_token_id", plain as u32).set("tokenizer.ggml.eos_token_id", plain as u32 + 1);
    plan.set("tokenizer.chat_template", CHAT_TEMPLATE);
    plan.set("tokenizer.ggml.eot_token_id", plain as u32 + 2).set("tokenizer.ggml.add_bos_token", split == "llama-bpe");
}

/// `count` words (at most 256 + 27·26 + 702·676) and the merges that make them.
fn words(count: usize) -> (Vec<String>, Vec<String>) {
    let mut words = byte_letters();
    let space = words[usize::from(b' ')].clone();
    let letters = || (b'a'..=b'z').map(|b| char::from(b).to_string());
    let pairs: Vec<(String, String)> =
        std::iter::once(space.clone()).chain(letters()).flat_map(|a| letters().map(move |b| (a.clone(), b))).collect();
    let fours = pairs.iter().flat_map(|p| pairs.iter().filter(|q| q.0 != space).map(|q| (p.0.clone() + &p.1, q.0.clone() + &q.1)));
    let steps = pairs.iter().cloned().chain(fours).take(count - words.len());
    let merges: Vec<String> = steps
        .map(|(a, b)| {
            words.push(format!("{a}{b}"));
            format!("{a} {b}")
        })
        .collect();
    (words, merges)
}

/// The printable letter that stands for each byte in byte-level vocabularies: itself where it is printable Latin-1, else the next
/// unused letter from 256 on.
fn byte_letters() -> Vec<String> {
    let mut spare = 256u32;
    let mut letter = |b: u8| match b {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(b),
        _ => {
            spare += 1;
            char::from_u32(spare - 1).expect("letters from 256 on are valid")
        }
    };
    (0..=255).map(|b| letter(b).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_word_is_new_and_every_merge_joins_words_that_stand_before() {
        let (words, merges) = words(40_000);
        let mut known: HashSet<&str> = words[..256].iter().map(String::as_str).collect();
        assert_eq!((known.len(), words.len(), merges.len()), (256, 40_000, 40_000 - 256));
        for (word, merge) in words[256..].iter().zip(&merges) {
            let (a, b) = merge.split_once(' ').unwrap();
            assert!(known.contains(a) && known.contains(b) && *word == [a, b].concat(), "{merge}");
            assert!(known.insert(word), "{word} stands twice");
        }
    }
}
