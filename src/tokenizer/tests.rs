//! Tokenizers over small vocabularies made here: what must hold of every kind, and what damaged files do.

use super::split::tests::random_texts;
use super::*;
use crate::gguf::writer::Plan;

const PLAIN: Options = Options { add_special: false, parse_special: false };
const SPECIAL: Options = Options { add_special: false, parse_special: true };
const FULL: Options = Options { add_special: true, parse_special: true };

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A vocabulary in the making: tokens with their kinds, and further keys.
struct Draft {
    plan: Plan,
    tokens: Vec<Vec<u8>>,
    kinds: Vec<i32>,
    scores: Vec<f32>,
}

impl Draft {
    fn new(model: &str, pre: &str) -> Self {
        let mut plan = Plan::new();
        plan.set("general.architecture", "llama").set("tokenizer.ggml.model", model);
        if !pre.is_empty() {
            plan.set("tokenizer.ggml.pre", pre);
        }
        Self { plan, tokens: Vec::new(), kinds: Vec::new(), scores: Vec::new() }
    }

    fn token(mut self, text: &str, kind: i32, score: f32) -> Self {
        self.tokens.push(text.as_bytes().to_vec());
        self.kinds.push(kind);
        self.scores.push(score);
        self
    }

    fn tokens(self, kind: i32, texts: &[&str]) -> Self {
        texts.iter().fold(self, |draft, text| draft.token(text, kind, 0.0))
    }

    /// A byte-level vocabulary: `<|end|>` of kind control, every byte, and a token for each of these merges.
    fn bytes(pre: &str, merges: &[&str]) -> Self {
        let mut draft = Draft::new("gpt2", pre).tokens(CONTROL, &["<|end|>"]);
        for byte in 0..=255 {
            let mut letter = String::new();
            byte_level::write(&[byte], &mut letter);
            draft = draft.token(&letter, NORMAL, 0.0);
        }
        for merge in merges {
            draft = draft.token(&merge.replacen(' ', "", 1), NORMAL, 0.0);
        }
        draft.set("tokenizer.ggml.merges", merges.to_vec())
    }

    fn byte_fallback(self) -> Self {
        (0..=255).fold(self, |draft, byte| draft.token(&format!("<0x{byte:02X}>"), BYTE, 0.0))
    }

    fn set(mut self, key: &str, value: impl crate::gguf::writer::Put) -> Self {
        self.plan.set(key, value);
        self
    }

    fn open(mut self) -> Result<Tokenizer, TokenizerError> {
        let tokens: Vec<&[u8]> = self.tokens.iter().map(Vec::as_slice).collect();
        self.plan.set("tokenizer.ggml.tokens", tokens);
        self.plan.set("tokenizer.ggml.token_type", self.kinds);
        self.plan.set("tokenizer.ggml.scores", self.scores);
        open(self.plan)
    }
}

fn open(plan: Plan) -> Result<Tokenizer, TokenizerError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plan.to_bytes([])).unwrap();
    Tokenizer::from_gguf(&Gguf::open(file.path()).unwrap())
}

impl Tokenizer {
    /// The texts of tokens, as the file has them.
    fn names(&self, ids: &[TokenId]) -> Vec<&str> {
        ids.iter().map(|id| std::str::from_utf8(self.vocabulary.text(*id).unwrap()).unwrap()).collect()
    }

    fn pieces_of(&self, text: &str, options: Options) -> Vec<&str> {
        self.names(&self.encode(text, options))
    }
}

const NONE: [&str; 0] = [];

#[test]
fn byte_level_text_comes_back_whatever_it_is() {
    let merges = ["Ġ a", "a b", "ab c", "1 2", "Ġ Ġ", "Ċ Ċ", "Ð ¿", "' s"];
    for pre in
        ["gpt-2", "llama-bpe", "tekken", "gpt-4o", "default", "deepseek-llm", "deepseek-v3", "superbpe", "bloom", "kimi-k2", "tiny_aya"]
    {
        let tokenizer = Draft::bytes(pre, &merges).open().unwrap();
        for text in random_texts(3, 100) {
            let ids = tokenizer.encode(&text, PLAIN);
            assert_eq!(String::from_utf8(tokenizer.decode(&ids, true)).unwrap(), text, "{pre}");
            let mut stream = TokenStream::new(true);
            let streamed: String = ids.iter().map(|id| stream.push(&tokenizer, *id)).collect();
            assert_eq!(streamed, text, "{pre}, streamed");
        }
    }
}

#[test]
fn the_best_merge_goes_first_and_words_stay_apart() {
    let tokenizer = Draft::bytes("gpt-2", &["b c", "a b", "Ġ a", "Ġa bc"]).open().unwrap();
    assert_eq!(tokenizer.pieces_of("abc abc", PLAIN), ["a", "bc", "Ġabc"]);
    assert_eq!(tokenizer.pieces_of("", FULL), NONE);
}

#[test]
fn a_word_that_is_a_token_is_taken_whole_only_where_the_family_does_so() {
    let draft = |pre| Draft::bytes(pre, &["x y"]).tokens(NORMAL, &["abc"]).open().unwrap();
    assert_eq!(draft("llama-bpe").pieces_of("abc", PLAIN), ["abc"]);
    assert_eq!(draft("gpt-2").pieces_of("abc", PLAIN), ["a", "b", "c"]);
}

#[test]
fn qwen_text_is_composed_first() {
    let tokenizer = Draft::bytes("qwen2", &["Ã ©"]).open().unwrap();
    assert_eq!(tokenizer.pieces_of("e\u{301}", PLAIN), ["Ã©"]);
}

#[test]
fn control_tokens_need_permission() {
    let tokenizer = Draft::bytes("gpt-2", &["e n"]).open().unwrap();
    assert_eq!(tokenizer.pieces_of("a<|end|>b", SPECIAL), ["a", "<|end|>", "b"]);
    assert_eq!(tokenizer.pieces_of("<|end|>", PLAIN), ["<", "|", "en", "d", "|", ">"]);
    assert_eq!(tokenizer.decode(&[TokenId(0), TokenId(66)], false), b"A");
    assert_eq!(tokenizer.decode(&[TokenId(0), TokenId(66)], true), b"<|end|>A");
}

#[test]
fn user_text_cannot_forge_structure() {
    let draft = Draft::bytes("gpt-2", &["h i"]).tokens(USER_DEFINED, &["<|tool|>", "<b>"]);
    let tokenizer = draft.open().unwrap();
    let pieces = |list: &[Piece]| tokenizer.names(&tokenizer.encode_pieces(list)).join(" ");
    assert_eq!(pieces(&[Piece::Special("<|end|>"), Piece::Text("hi"), Piece::Special("<|end|>")]), "<|end|> hi <|end|>");
    assert_eq!(pieces(&[Piece::Text("<|end|>")]), "< | e n d | >");
    assert_eq!(pieces(&[Piece::Text("<|tool|>")]), "< | t o o l | >", "typed as user-defined, looks like structure");
    assert_eq!(pieces(&[Piece::Text("<b>"), Piece::Special("<|tool|>")]), "<b> <|tool|>");
    assert_eq!(pieces(&[Piece::Special("<|e"), Piece::Text("nd|>")]), "< | e n d | >", "half of it is the user's");
    assert_eq!(pieces(&[Piece::Special("<|e"), Piece::Special("nd|>")]), "<|end|>");
    assert_eq!(pieces(&[Piece::Text("h"), Piece::Special("i"), Piece::Special("")]), "hi", "words go on across pieces");
}

#[test]
fn the_longest_and_leftmost_added_token_counts() {
    let tokenizer = Draft::bytes("gpt-2", &["x y"]).tokens(USER_DEFINED, &["ab", "abc", "bcd"]).open().unwrap();
    assert_eq!(tokenizer.pieces_of("abcd", PLAIN), ["abc", "d"]);
    assert_eq!(tokenizer.pieces_of("éabbcd", PLAIN), ["Ã", "©", "ab", "bcd"]);
}

/// A SentencePiece vocabulary with bytes: `▁` alone, a few words, `<s>`, `</s>`.
fn sentence_piece() -> Draft {
    let draft = Draft::new("llama", "").token("<unk>", UNKNOWN, 0.0).token("<s>", CONTROL, 0.0).token("</s>", CONTROL, 0.0);
    let words = [("▁", -10.0), ("a", -11.0), ("b", -12.0), ("ab", -2.0), ("▁a", -1.0), ("▁ab", -3.0), ("ba", -2.0)];
    words.into_iter().fold(draft.byte_fallback(), |d, (word, score)| d.token(word, NORMAL, score))
}

#[test]
fn sentence_piece_merges_the_likeliest_first_and_falls_back_to_bytes() {
    let tokenizer = sentence_piece().open().unwrap();
    assert_eq!(tokenizer.pieces_of("ab", PLAIN), ["▁ab"]);
    assert_eq!(tokenizer.pieces_of("bab", PLAIN), ["▁", "ba", "b"], "the left one of equal scores");
    assert_eq!(tokenizer.pieces_of("é", FULL), ["<s>", "▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.pieces_of("a<s>a", SPECIAL), ["▁a", "<s>", "▁a"], "a space before text after a special token");
    let ids = tokenizer.encode(" é a", FULL);
    assert_eq!(tokenizer.decode(&ids[1..], false), " é a".as_bytes(), "the first space is the encoder's");
    assert_eq!(tokenizer.decode(&ids, true), "<s>  é a".as_bytes());
    let mut answer = TokenStream::continuing(false);
    assert_eq!(answer.push(&tokenizer, ids[1]), " ");
}

#[test]
fn without_byte_tokens_the_unknown_token_stands_in() {
    let tokenizer = Draft::new("llama", "").token("<unk>", UNKNOWN, 0.0).token("a", NORMAL, 0.0).open().unwrap();
    assert_eq!(tokenizer.pieces_of("aé", PLAIN), ["<unk>", "<unk>", "<unk>", "a", "<unk>", "<unk>"]);
}

#[test]
fn phi_3_swallows_white_space_after_its_special_tokens() {
    let draft = |name| sentence_piece().set("general.name", name).open().unwrap();
    assert_eq!(draft("Phi-3-mini").pieces_of("</s> \n a<s> a", SPECIAL), ["</s>", "▁a", "<s>", "▁", "▁a"]);
    assert_eq!(draft("other").pieces_of("</s> a", SPECIAL), ["</s>", "▁", "▁a"]);
}

#[test]
fn gemma_4_merges_over_spaces_but_not_over_lines() {
    let merges = ["▁ a", "a ▁a", "\n a"];
    let draft = Draft::new("gemma4", "").tokens(CONTROL, &["<bos>"]).byte_fallback().tokens(NORMAL, &["▁", "a", "▁a", "a▁a", "\n", "\n\n"]);
    let tokenizer = draft.set("tokenizer.ggml.merges", merges.to_vec()).set("tokenizer.ggml.bos_token_id", 0u32).open().unwrap();
    assert_eq!(tokenizer.pieces_of("a a\n\na", FULL), ["<bos>", "a▁a", "\n\n", "a"]);
    assert_eq!(tokenizer.pieces_of("é\n\n\n", PLAIN), ["<0xC3>", "<0xA9>", "\n", "\n", "\n"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode(" a é", PLAIN), true), " a é".as_bytes());
}

#[test]
fn word_piece_normalises_then_takes_the_longest_piece() {
    let draft = Draft::new("bert", "").tokens(CONTROL, &["[CLS]", "[SEP]"]).tokens(UNKNOWN, &["[UNK]"]);
    let draft = draft.tokens(NORMAL, &["▁cafe", "▁ca", "fe", "s", "▁!", "▁中", "▁a", "a", "▁'"]);
    let id = |n: u32| n;
    let tokenizer = draft
        .set("tokenizer.ggml.cls_token_id", id(0))
        .set("tokenizer.ggml.seperator_token_id", id(1))
        .set("tokenizer.ggml.unknown_token_id", id(2))
        .open()
        .unwrap();
    assert_eq!(tokenizer.pieces_of("  CAFÉs!中a\u{0}x", FULL), ["[CLS]", "▁cafe", "s", "▁!", "▁中", "[UNK]", "[SEP]"]);
    assert_eq!(tokenizer.pieces_of(&"a".repeat(100), PLAIN).len(), 100);
    assert_eq!(tokenizer.pieces_of(&"a".repeat(101), PLAIN), ["[UNK]"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("cafes !", PLAIN), true), b" cafes!");
    assert_eq!(wpm::clean_up(b"a ' b 's c 've d .e"), b"a'b's c've d.e");
}

#[test]
fn tokens_that_end_an_answer_are_known_by_key_and_by_name() {
    let ends = |draft: Draft| {
        let tokenizer = draft.open().unwrap();
        tokenizer.names(&tokenizer.vocab().special().ends).join(" ")
    };
    let named = |texts: &[&str]| Draft::bytes("gpt-2", &["x y"]).tokens(NORMAL, texts).set("tokenizer.ggml.eos_token_id", 66u32);
    assert_eq!(ends(named(&["<|im_end|>", "plain"])), "<|end|> A <|im_end|>");
    assert_eq!(ends(named(&["<|return|>", "<|call|>"])), "A <|return|> <|call|>", "in the harmony format an answer goes on after <|end|>");
    assert_eq!(ends(named(&["<turn|>", "<|tool_response>", "</s>"])), "<|end|> A <turn|> <|tool_response>", "</s> is HTML in Gemma 4");
    let tokenizer = named(&["<|im_end|>"]).open().unwrap();
    let id = tokenizer.vocab().find(b"<|im_end|>").unwrap();
    assert!(tokenizer.vocab().ends_generation(id));
    assert_eq!(tokenizer.vocab().kind(id), TokenKind::Control, "whatever the file says");
}

#[test]
fn an_unknown_pre_tokenizer_is_refused_and_a_missing_one_is_a_warning() {
    let warnings = |pre| Draft::bytes(pre, &["x y"]).open().unwrap().warnings().to_vec();
    assert_eq!(warnings("gpt-2"), []);
    assert_eq!(warnings(""), [Warning::NoSplit]);
    let refused = Draft::bytes("from-the-\nfuture", &["x y"]).open().err().expect("nobody knows it").to_string();
    assert!(refused.contains("`from-the-\\nfuture` (`tokenizer.ggml.pre`)"), "{refused}");
}

#[test]
fn what_other_converters_leave_out_or_call_otherwise_is_known() {
    let mut draft = sentence_piece();
    draft.plan = Plan::new();
    draft.plan.set("general.architecture", "gemma3").set("tokenizer.ggml.model", "llama");
    let gemma = draft.open().unwrap();
    assert_eq!(gemma.pieces_of("ab", PLAIN), ["ab"], "no Gemma wants a space before its text");

    let draft = Draft::new("llama", "gemma4").tokens(CONTROL, &["<bos>"]).tokens(NORMAL, &["▁", "a", "▁a"]);
    let gemma = draft.set("tokenizer.ggml.merges", vec!["▁ a"]).set("tokenizer.ggml.bos_token_id", 0u32).open().unwrap();
    assert_eq!(gemma.pieces_of("a a", FULL), ["<bos>", "a", "▁a"], "Gemma 4 merges by rank, though the file says `llama`");

    let draft = Draft::bytes("", &["1 2"]);
    let fill = (draft.tokens.len()..128_009).map(|i| format!("({i})")).collect::<Vec<_>>();
    let draft = fill.iter().fold(draft, |draft, text| draft.token(text, NORMAL, 0.0));
    let llama = draft.token("<|eot_id|>", NORMAL, 0.0).open().unwrap();
    assert!(llama.warnings().is_empty() && llama.adds_bos, "Llama 3's vocabulary, from before files named their rule");

    let mut plan = Plan::new();
    plan.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.tokens", vec!["<unk>", "a", "<image_soft_token>"]);
    plan.tensor("token_embd.weight", crate::gguf::writer::Format::F32, &[1, 2]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), plan.to_bytes([&[0u8; 8][..]])).unwrap();
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(file.path()).unwrap()).unwrap();
    assert_eq!(tokenizer.vocab().len(), 2, "the model has no row for images");
}

#[test]
fn special_ids_out_of_range_are_a_warning_and_minus_one_is_none() {
    let draft = Draft::bytes("gpt-2", &["x y"]).set("tokenizer.ggml.eos_token_id", 9999u32).set("tokenizer.ggml.padding_token_id", -1i32);
    let tokenizer = draft.open().unwrap();
    let [warning] = tokenizer.warnings() else { panic!("{:?}", tokenizer.warnings()) };
    assert!(warning.to_string().contains("`tokenizer.ggml.eos_token_id` is 9999"), "{warning}");
    assert_eq!(tokenizer.vocab().special().padding, None);
}

#[test]
fn damaged_vocabularies_are_refused_by_key() {
    let refused = |plan: Plan| open(plan).err().map(|e| e.to_string()).unwrap_or_default();
    let base = |model: &str| {
        let mut plan = Plan::new();
        plan.set("tokenizer.ggml.model", model);
        plan
    };
    let check = |plan: Plan, words: &[&str]| {
        let message = refused(plan);
        assert!(words.iter().all(|w| message.contains(w)) && !message.contains('\n'), "{message:?} should say {words:?}");
    };
    check(Plan::new(), &["tokenizer.ggml.model"]);
    check(base("rwkv"), &["rwkv", "not supported"]);
    check(base("llama"), &["tokenizer.ggml.tokens", "missing"]);
    check(base("gpt2"), &["tokenizer.ggml.merges", "missing"]);

    let mut plan = base("llama");
    plan.set("tokenizer.ggml.tokens", Vec::<&str>::new());
    check(plan, &["tokenizer.ggml.tokens"]);
    let mut plan = base("llama");
    plan.set("tokenizer.ggml.tokens", vec![1u32, 2]);
    check(plan, &["tokenizer.ggml.tokens"]);
    let mut plan = base("llama");
    plan.set("tokenizer.ggml.tokens", vec!["a", "b"]).set("tokenizer.ggml.scores", vec![0.0f32]);
    check(plan, &["tokenizer.ggml.scores", "1 entries for 2 tokens"]);
    let mut plan = base("llama");
    plan.set("tokenizer.ggml.tokens", vec!["a", "b"]).set("tokenizer.ggml.token_type", vec![1i32]);
    check(plan, &["tokenizer.ggml.token_type", "1 entries for 2 tokens"]);
    let mut plan = base("llama");
    plan.set("tokenizer.ggml.tokens", vec!["a"]).set("tokenizer.ggml.token_type", vec!["x"]);
    check(plan, &["tokenizer.ggml.token_type", "position 0"]);
    check(base("new\nkind"), &["`new\\nkind`", "not supported"]);
    for key in ["bos_token_id", "eos_token_id", "fim_pre_token_id"].map(|key| format!("tokenizer.ggml.{key}")) {
        let mut plan = base("llama");
        plan.set("tokenizer.ggml.tokens", vec!["a"]).set(&key, "0");
        check(plan, &[&key, "the text \"0\""]);
    }
}

#[test]
fn odd_vocabularies_work_without_panic() {
    let odd = ["", "a", "a", "<0xZZ>", "<0x", "\u{FFFD}", "▁▁", "ab"];
    for model in ["llama", "gpt2", "gemma4", "bert"] {
        for kind in 0..=7 {
            let draft = Draft::new(model, "").tokens(kind, &odd).token("ab", kind, f32::NAN);
            let draft = draft.set("tokenizer.ggml.merges", vec!["", " ", "a", "a b", "no such", "a  b", " a"]);
            let tokenizer = draft.open().unwrap();
            for text in random_texts(5, 20).chain(["".to_owned(), "aab ab<0xZZ>".to_owned()]) {
                for options in [PLAIN, SPECIAL, FULL] {
                    let ids = tokenizer.encode(&text, options);
                    assert!(ids.iter().all(|id| (id.0 as usize) < odd.len() + 1));
                    tokenizer.decode(&ids, false);
                }
            }
            assert_eq!(tokenizer.decode(&[TokenId(u32::MAX)], true), b"");
        }
    }
}
