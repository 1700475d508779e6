//! Every tokenizer against the golden vectors beside the checkout (`../shared/fixtures/tokenizer`, or `$HEARTH_SHARED`): ids with
//! and without special tokens, decoding, the bytes of tokens, whole and streamed. Without them the tests are skipped, loudly;
//! the small vocabularies in `src/tokenizer/tests.rs` stand in.

use hearth::gguf::Gguf;
use hearth::tokenizer::{Options, TokenStream, Tokenizer};
use hearth::units::TokenId;
use serde_json::Value;
use std::path::PathBuf;

const PLAIN: Options = Options { add_special: false, parse_special: false };
const SPECIAL: Options = Options { add_special: false, parse_special: true };
const FULL: Options = Options { add_special: true, parse_special: true };

struct Fixture {
    name: &'static str,
    tokenizer: Tokenizer,
    vectors: Value,
    /// What went wrong, told all at once.
    wrong: Vec<String>,
}

fn open(name: &'static str) -> Option<Fixture> {
    let shared =
        std::env::var_os("HEARTH_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("fixtures/tokenizer");
    if !folder.exists() {
        eprintln!("SKIPPED: no tokenizer vectors at {}", folder.display());
        return None;
    }
    let gguf = Gguf::open(folder.join(format!("{name}.gguf"))).unwrap();
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    Some(Fixture { name, tokenizer, vectors: serde_json::from_slice(&text).unwrap(), wrong: Vec::new() })
}

fn ids(value: &Value) -> Vec<TokenId> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A text of the vectors: a string, or `{"hex": …}` where it is not UTF-8.
fn bytes(value: &Value) -> Vec<u8> {
    match value.as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => unhex(value["hex"].as_str().unwrap()),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

impl Fixture {
    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: String, got: T, wanted: &[T]) {
        if !wanted.contains(&got) {
            self.wrong.push(format!("{what}: got {got:?}, wanted {wanted:?}"));
        }
    }

    fn rows(&self, list: &str) -> Vec<Value> {
        self.vectors[list].as_array().unwrap().clone()
    }

    /// Either reference's ids will do.
    fn encodes(&mut self) {
        let (bos, eos) = (ids(&self.vectors["bos"]), ids(&self.vectors["eos"]));
        for row in self.rows("encode") {
            let text = row["t"].as_str().unwrap();
            let plain = self.tokenizer.encode(text, PLAIN);
            let mut wanted = vec![ids(&row["ids"])];
            wanted.extend(row.get("hf").map(ids));
            self.expect(format!("ids of {text:?}"), plain.clone(), &wanted);

            let wanted = row.get("special").map_or(wanted, |ids_| vec![ids(ids_)]);
            let special = self.tokenizer.encode(text, SPECIAL);
            self.expect(format!("ids of {text:?}, special tokens parsed"), special.clone(), &wanted);
            let full = [bos.clone(), special, eos.clone()].concat();
            self.expect(format!("all ids of {text:?}"), self.tokenizer.encode(text, FULL), &[full]);
        }
    }

    /// The byte-level kinds give back the text itself; the references' clean-up of spaces is not done, nor wanted.
    fn decodes_what_was_encoded(&mut self) {
        let clean = self.name == "bert-bge";
        for row in self.rows("encode") {
            let text = row["t"].as_str().unwrap();
            let back = row.get("back").map_or(text.as_bytes().to_vec(), bytes);
            let mut wanted = vec![back];
            if !clean {
                wanted.push(text.as_bytes().to_vec());
            }
            if !row.as_object().unwrap().contains_key("hf") {
                self.expect(format!("text of the ids of {text:?}"), self.tokenizer.decode(&ids(&row["ids"]), true), &wanted);
            }
            if let Some(special) = row.get("special").map(ids) {
                let shown = self.tokenizer.decode(&special, true);
                self.expect(format!("{text:?} with special tokens shown"), shown, &[bytes(&row["special_text"])]);
                let hidden = self.tokenizer.decode(&special, false);
                self.expect(format!("{text:?} with special tokens hidden"), hidden, &[bytes(&row["special_hidden"])]);
            }
        }
    }

    fn knows_the_bytes_of_tokens(&mut self) {
        for row in self.rows("pieces") {
            let id = TokenId(row[0].as_u64().unwrap() as u32);
            let shown = unhex(row[1].as_str().unwrap());
            let hidden = row.get(2).map_or(shown.clone(), |hex| unhex(hex.as_str().unwrap()));
            self.expect(format!("bytes of token {id:?}"), self.tokenizer.token_bytes(id), &[shown]);
            let mut stream = TokenStream::continuing(false);
            stream.push(&self.tokenizer, id);
            self.expect(format!("bytes of token {id:?}, special ones hidden"), stream.last_bytes().to_vec(), &[hidden]);
        }
    }

    fn decodes_any_ids(&mut self) {
        for row in self.rows("decode") {
            let list = ids(&row["ids"]);
            let text = bytes(&row["text"]);
            let plain = row.get("plain").map_or(text.clone(), bytes);
            let joined: Vec<u8> = list.iter().flat_map(|id| self.tokenizer.token_bytes(*id)).collect();
            let decoded = self.tokenizer.decode(&list, true);
            // Where the references' clean-up of spaces changed the text, the tokens' own bytes are right.
            let cleaned = self.name != "bert-bge" && text != joined && without_spaces(&text) == without_spaces(&joined);
            let wanted = if cleaned { vec![text, joined] } else { vec![text] };
            self.expect(format!("text of {list:?}"), decoded.clone(), &wanted);
            if !cleaned {
                self.expect(format!("text of {list:?}, special tokens hidden"), self.tokenizer.decode(&list, false), &[plain]);
            }
            if self.name != "bert-bge" {
                let mut stream = TokenStream::new(true);
                let mut streamed: String = list.iter().map(|id| stream.push(&self.tokenizer, *id)).collect();
                streamed += &stream.finish();
                self.expect(format!("streamed text of {list:?}"), streamed, &[String::from_utf8_lossy(&decoded).into_owned()]);
            }
        }
    }

    fn report(self) {
        let shown: Vec<&String> = self.wrong.iter().take(8).collect();
        assert!(self.wrong.is_empty(), "{}: {} differences, the first: {shown:#?}", self.name, self.wrong.len());
    }
}

fn without_spaces(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|b| *b != b' ').collect()
}

macro_rules! agrees_with_the_vectors {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            let Some(mut fixture) = open($name) else { return };
            fixture.encodes();
            fixture.decodes_what_was_encoded();
            fixture.knows_the_bytes_of_tokens();
            fixture.decodes_any_ids();
            fixture.report();
        }
    )*};
}

agrees_with_the_vectors! {
    llama_bpe_agrees: "llama-bpe",
    qwen2_agrees: "qwen2",
    qwen35_agrees: "qwen35",
    gpt_2_agrees: "gpt-2",
    smollm_agrees: "smollm",
    tekken_agrees: "tekken",
    lfm2_agrees: "lfm2",
    gpt_4o_agrees: "gpt-4o",
    default_agrees: "default",
    llama_spm_agrees: "llama-spm",
    phi_3_agrees: "phi-3",
    gemma3_agrees: "gemma3",
    gemma4_agrees: "gemma4",
    bert_bge_agrees: "bert-bge",
}
