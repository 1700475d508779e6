//! The split rules, and which value of `tokenizer.ggml.pre` means which.
//!
//! Sources: the `pre_tokenizer` of each family's published `tokenizer.json`, and the names llama.cpp's converter gives them. Above
//! each rule stands its expression; where llama.cpp approximates a published rule (marks counted as letters in `tekken` and
//! `gpt-4o`), the published one is meant.

use super::class::{
    BLANK, CONNECTOR, DIGIT, HAN, LETTER, LETTER_NUMBER, LOWER, MARK, MODIFIER, NEWLINE, NUMBER, OTHER_LETTER, PUNCTUATION, Ranges, SLASH,
    SPACE, SYMBOL, TITLE, UPPER,
};
use super::class::{Class, not, of, ranges};
use super::{Alternative, Item, Rule, Step};

/// What the name of a pre-tokenizer stands for.
#[derive(Clone, Copy)]
pub struct Family {
    pub rule: Rule,
    /// A word that is a token is taken whole, whether or not merges lead to it.
    pub whole_words: bool,
    /// The beginning-of-sequence token is added unless the file says otherwise.
    pub adds_bos: bool,
    /// Text is brought into Unicode's composed form first.
    pub composes: bool,
}

/// For a file that names no rule, or one unknown here.
pub const DEFAULT_FAMILY: Family = plain(DEFAULT);

const fn plain(rule: Rule) -> Family {
    Family { rule, whole_words: false, adds_bos: false, composes: false }
}

/// The family of that name; `None` for a name unknown here.
pub fn family(pre: &str) -> Option<Family> {
    let whole = |rule| Family { whole_words: true, ..plain(rule) };
    Some(match pre {
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano" => {
            Family { adds_bos: true, ..whole(LLAMA3) }
        }
        "dbrx" | "smaug-bpe" | "glm4" | "chatglm-bpe" => plain(LLAMA3),
        "tekken" => Family { adds_bos: true, ..whole(TEKKEN) },
        "gpt-4o" | "llama4" | "kanana2" | "talkie" => whole(GPT_4O),
        "minimax-m2" => plain(GPT_4O),
        "granite-embed-multi-97m" => whole(GPT_4O),
        "tiny_aya" | "cohere2moe" => plain(TINY_AYA),
        "qwen2" => Family { composes: true, ..plain(QWEN2) },
        "qwen35" => Family { composes: true, ..plain(QWEN35) },
        "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" | "grok-2" => plain(QWEN2),
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "gigachat" | "jina-v2-es" | "jina-v2-de" | "a.x-4.0" | "mellum" | "modern-bert"
        | "jina-v1-en" | "jina-v2-code" | "roberta-bpe" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" | "exaone4" => {
            plain(GPT2)
        }
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => plain(DIGITS_GPT2),
        "default" => DEFAULT_FAMILY,
        "falcon" => plain(FALCON),
        "deepseek-llm" => plain(DEEPSEEK_LLM),
        "deepseek-coder" => plain(DEEPSEEK_CODER),
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => plain(DEEPSEEK_V3),
        "poro-chat" | "bloom" | "gpt3-finnish" => plain(BLOOM),
        "viking" => plain(VIKING),
        "jais-2" => plain(JAIS2),
        "superbpe" => plain(SUPERBPE),
        "kimi-k2" => plain(KIMI_K2),
        "seed-coder" => plain(SEED_CODER),
        "bailingmoe" | "bailingmoe2" | "llada-moe" => plain(BAILING),
        "minicpm5" => whole(MINICPM5),
        "youtu" => whole(YOUTU),
        "afmoe" => plain(AFMOE),
        "laguna" => plain(LAGUNA),
        "ufakzeka" => plain(UFAKZEKA),
        _ => return None,
    })
}

// Parts that recur.

const fn run(class: Class, min: usize, max: usize) -> Item {
    Item::Run { class, min, max }
}
const fn one(class: Class) -> Item {
    run(class, 1, 1)
}
const fn maybe(class: Class) -> Item {
    run(class, 0, 1)
}
const fn some(class: Class) -> Item {
    run(class, 1, usize::MAX)
}
const fn any(class: Class) -> Item {
    run(class, 0, usize::MAX)
}

/// `[^\s\p{L}\p{N}]`
const OTHER: Class = not(SPACE.or(LETTER).or(NUMBER));
/// `[^\r\n\p{L}\p{N}]`
const NO_WORD: Class = not(NEWLINE.or(LETTER).or(NUMBER));
const ENDINGS: &[&str] = &["s", "t", "re", "ve", "m", "ll", "d"];
/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
const MAYBE_CONTRACTION: Item = Item::Contraction { endings: ENDINGS, exact: false, optional: true };

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
const CONTRACTION: Alternative = &[Item::Contraction { endings: ENDINGS, exact: false, optional: false }];
/// `'s|'t|'re|'ve|'m|'ll|'d`
const EXACT_CONTRACTION: Alternative = &[Item::Contraction { endings: ENDINGS, exact: true, optional: false }];
/// `[^\r\n\p{L}\p{N}]?\p{L}+`
const WORD: Alternative = &[maybe(NO_WORD), some(of(LETTER))];
/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const SIGNS: Alternative = &[maybe(of(BLANK)), some(OTHER), any(of(NEWLINE))];
/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
const SIGNS_SLASH: Alternative = &[maybe(of(BLANK)), some(OTHER), any(of(NEWLINE.or(SLASH)))];
/// `\p{N}`
const DIGIT_ALONE: Alternative = &[one(of(NUMBER))];
/// `\p{N}{1,3}`
const UP_TO_THREE: Alternative = &[run(of(NUMBER), 1, 3)];
/// `\p{N}+`
const NUMBERS: Alternative = &[some(of(NUMBER))];
/// `[0-9][0-9][0-9]`
const THREE_ASCII: Alternative = &[run(ranges(&[('0', '9')]), 3, 3)];
/// `\s*[\r\n]+`
const LINES: Alternative = &[any(of(SPACE)), some(of(NEWLINE))];
/// `\s+(?!\S)`
const SPACES_BUT_ONE: Alternative = &[some(of(SPACE)), Item::BeforeSpaceOrEnd];
/// `\s+`
const SPACES: Alternative = &[some(of(SPACE))];

// The rules.

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const LLAMA3: Rule = &[Step::Matches(&[CONTRACTION, WORD, UP_TO_THREE, SIGNS, LINES, SPACES_BUT_ONE, SPACES])];

/// As `LLAMA3` with `\p{N}`
const QWEN2: Rule = &[Step::Matches(&[CONTRACTION, WORD, DIGIT_ALONE, SIGNS, LINES, SPACES_BUT_ONE, SPACES])];

/// As `QWEN2`, marks counted as letters:
/// `…|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|…`
const QWEN35: Rule = &[Step::Matches(&[
    CONTRACTION,
    &[maybe(NO_WORD), some(of(LETTER.or(MARK)))],
    DIGIT_ALONE,
    &[maybe(of(BLANK)), some(not(SPACE.or(LETTER).or(MARK).or(NUMBER))), any(of(NEWLINE))],
    LINES,
    SPACES_BUT_ONE,
    SPACES,
])];

/// As `QWEN2` without contractions
const UFAKZEKA: Rule = &[Step::Matches(&[WORD, DIGIT_ALONE, SIGNS, LINES, SPACES_BUT_ONE, SPACES])];

/// `[^\n]+|[\n]+`, then `QWEN2`
const LAGUNA: Rule = &[
    Step::Matches(&[&[some(ranges(&[('\n', '\n')]))]]),
    Step::Matches(&[CONTRACTION, WORD, DIGIT_ALONE, SIGNS, LINES, SPACES_BUT_ONE, SPACES]),
];

/// `\p{N}{1,3}`, then `LLAMA3` with `\p{N}+`
const MINICPM5: Rule = &[Step::Matches(&[UP_TO_THREE]), Step::Matches(&[CONTRACTION, WORD, NUMBERS, SIGNS, LINES, SPACES_BUT_ONE, SPACES])];

/// As `QWEN2` with ` ?[^\s\p{L}\p{N}\r\n]+`
const SEED_CODER: Rule =
    &[Step::Matches(&[CONTRACTION, WORD, DIGIT_ALONE, &[maybe(of(BLANK)), some(OTHER)], LINES, SPACES_BUT_ONE, SPACES])];

/// `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
const BAILING: Rule =
    &[Step::Matches(&[CONTRACTION, WORD, DIGIT_ALONE, SIGNS, &[any(of(SPACE)), one(of(NEWLINE))], SPACES_BUT_ONE, SPACES])];

/// As `LLAMA3`, long white space in powers of two: `…|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`
const JAIS2: Rule = &[Step::Matches(&[
    CONTRACTION,
    WORD,
    UP_TO_THREE,
    SIGNS,
    LINES,
    &[run(of(SPACE), 512, 512), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 256, 256), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 128, 128), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 64, 64), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 32, 32), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 16, 16), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 8, 8), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 4, 4), Item::BeforeSpaceOrEnd],
    &[run(of(SPACE), 1, 2), Item::BeforeSpaceOrEnd],
    &[one(of(SPACE))],
])];

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const GPT2_WORDS: Step = Step::Matches(&[
    EXACT_CONTRACTION,
    &[maybe(of(BLANK)), some(of(LETTER))],
    &[maybe(of(BLANK)), some(of(NUMBER))],
    &[maybe(of(BLANK)), some(OTHER)],
    SPACES_BUT_ONE,
    SPACES,
]);
const GPT2: Rule = &[GPT2_WORDS];

/// `\p{N}`, then `GPT2`
const DIGITS_GPT2: Rule = &[Step::Matches(&[DIGIT_ALONE]), GPT2_WORDS];

/// ``[\p{P}$+<=>^~|`]+``, then `GPT2`, then `[0-9][0-9][0-9]`
const FALCON: Rule = &[
    Step::Matches(&[&[some(of(PUNCTUATION).and(&[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('`', '`'), ('|', '|'), ('~', '~')]))]]),
    GPT2_WORDS,
    Step::Matches(&[THREE_ASCII]),
];

/// `[\p{P}$+<=>^~|]+`, then `GPT2`, then `\p{N}+`, then `[0-9][0-9][0-9]`: what a file gets that names no rule, or an unknown one
const DEFAULT: Rule = &[
    Step::Matches(&[&[some(of(PUNCTUATION).and(&[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('|', '|'), ('~', '~')]))]]),
    GPT2_WORDS,
    Step::Matches(&[NUMBERS]),
    Step::Matches(&[THREE_ASCII]),
];

// `o200k` and its kin: a word begins with capitals or ends in small letters; letters without case and marks are both.

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
const HEAD: Class = of(UPPER.or(TITLE).or(MODIFIER).or(OTHER_LETTER).or(MARK));
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
const TAIL: Class = of(LOWER.or(MODIFIER).or(OTHER_LETTER).or(MARK));

/// `[^\r\n\p{L}\p{N}]?HEAD*TAIL+|[^\r\n\p{L}\p{N}]?HEAD+TAIL*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const TEKKEN: Rule = &[Step::Matches(&[
    &[maybe(NO_WORD), any(HEAD), some(TAIL)],
    &[maybe(NO_WORD), some(HEAD), any(TAIL)],
    DIGIT_ALONE,
    SIGNS_SLASH,
    LINES,
    SPACES_BUT_ONE,
    SPACES,
])];

/// As `TEKKEN`, a contraction ending the word, and `\p{N}{1,3}`
const GPT_4O_WORDS: Step = Step::Matches(&[
    &[maybe(NO_WORD), any(HEAD), some(TAIL), MAYBE_CONTRACTION],
    &[maybe(NO_WORD), some(HEAD), any(TAIL), MAYBE_CONTRACTION],
    UP_TO_THREE,
    SIGNS_SLASH,
    LINES,
    SPACES_BUT_ONE,
    SPACES,
]);
const GPT_4O: Rule = &[GPT_4O_WORDS];

/// `\d{1,3}(?=(?:\d{3})*\b)`, then `GPT_4O`
const TINY_AYA: Rule = &[Step::Threes { of: of(DIGIT), unless_before: Some(WORD_CHARACTER), alone: true }, GPT_4O_WORDS];

/// `\w`: letters, marks, digits, connectors and joiners.
const WORD_CHARACTER: Class = of(LETTER.or(MARK).or(DIGIT).or(LETTER_NUMBER).or(CONNECTOR)).and(&[('\u{200C}', '\u{200D}')]);

/// Hangul, full-width signs, Bopomofo, Chinese and Japanese runs, then `GPT_4O` with `\p{N}`
const YOUTU: Rule = &[
    Step::Matches(&[
        &[some(ranges(&[('\u{3131}', '\u{318E}'), ('\u{AC00}', '\u{D7A3}')]))],
        &[some(ranges(&[
            ('\u{2014}', '\u{2014}'),
            ('\u{2018}', '\u{2019}'),
            ('\u{201C}', '\u{201D}'),
            ('\u{2026}', '\u{2026}'),
            ('\u{3001}', '\u{303F}'),
            ('\u{FE30}', '\u{FE4F}'),
            ('\u{FF01}', '\u{FF01}'),
            ('\u{FF0C}', '\u{FF0C}'),
            ('\u{FF1A}', '\u{FF1B}'),
        ]))],
        &[some(ranges(&[('\u{3105}', '\u{312F}')]))],
        CHINESE_JAPANESE,
    ]),
    Step::Matches(&[
        &[maybe(NO_WORD), any(HEAD), some(TAIL), MAYBE_CONTRACTION],
        &[maybe(NO_WORD), some(HEAD), any(TAIL), MAYBE_CONTRACTION],
        DIGIT_ALONE,
        SIGNS_SLASH,
        LINES,
        SPACES_BUT_ONE,
        SPACES,
    ]),
];

/// `[\p{Han}]+`, then as `GPT_4O` with `HEAD&&[^\p{Han}]`, `TAIL&&[^\p{Han}]` and ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const KIMI_K2: Rule = &[Step::Matches(&[
    &[some(of(HAN))],
    &[maybe(NO_WORD), any(HEAD.except(HAN)), some(TAIL.except(HAN)), MAYBE_CONTRACTION],
    &[maybe(NO_WORD), some(HEAD.except(HAN)), any(TAIL.except(HAN)), MAYBE_CONTRACTION],
    UP_TO_THREE,
    SIGNS,
    LINES,
    SPACES_BUT_ONE,
    SPACES,
])];

// DeepSeek.

/// `[一-龥\u3040-ゟ゠-ヿ]+`
const CHINESE_JAPANESE: Alternative = &[some(ranges(&[('\u{3040}', '\u{30FF}'), ('\u{4E00}', '\u{9FA5}')]))];
/// `[一-龥ࠀ-一가-퟿]+`
const CHINESE_KOREAN: Alternative = &[some(ranges(&[('\u{800}', '\u{9FA5}'), ('\u{AC00}', '\u{D7FF}')]))];
const ASCII_SIGN: Class = ranges(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]);
const ASCII_LETTER: Class = ranges(&[('A', 'Z'), ('a', 'z')]);
/// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``
const DEEPSEEK_V3_WORDS: Step = Step::Matches(&[
    &[one(ASCII_SIGN), some(ASCII_LETTER)],
    &[maybe(not(NEWLINE.or(LETTER).or(PUNCTUATION).or(SYMBOL))), some(of(LETTER.or(MARK)))],
    &[maybe(of(BLANK)), some(of(PUNCTUATION.or(SYMBOL))), any(of(NEWLINE))],
    LINES,
    SPACES_BUT_ONE,
    SPACES,
]);

/// `\p{N}{1,3}`, then `[一-龥\u3040-ゟ゠-ヿ]+`, then the words above
const DEEPSEEK_V3: Rule = &[Step::Matches(&[UP_TO_THREE]), Step::Matches(&[CHINESE_JAPANESE]), DEEPSEEK_V3_WORDS];

/// `[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}`
const DEEPSEEK_CODER: Rule = &[
    Step::Matches(&[&[one(of(NEWLINE))]]),
    Step::Matches(&[&[maybe(of(SPACE)), some(of(LETTER))]]),
    Step::Matches(&[&[maybe(of(SPACE)), some(of(PUNCTUATION))]]),
    Step::Matches(&[CHINESE_KOREAN]),
    Step::Matches(&[DIGIT_ALONE]),
];

/// `[\r\n]`, `\s?[cased letters]+`, `\s?[!-/:-~！-／：-～‘-‟\u3000-。]+`, `\s+$`, `[一-龥ࠀ-一가-퟿]+`, `\p{N}+`
const DEEPSEEK_LLM: Rule = &[
    Step::Matches(&[&[one(of(NEWLINE))]]),
    Step::Matches(&[&[maybe(of(SPACE)), some(ranges(CASED))]]),
    Step::Matches(&[&[
        maybe(of(SPACE)),
        some(ranges(&[
            ('!', '/'),
            (':', '~'),
            ('\u{2018}', '\u{201F}'),
            ('\u{3000}', '\u{3002}'),
            ('\u{FF01}', '\u{FF0F}'),
            ('\u{FF1A}', '\u{FF5E}'),
        ])),
    ]]),
    Step::TrailingSpace,
    Step::Matches(&[CHINESE_KOREAN]),
    Step::Matches(&[NUMBERS]),
];

/// Digits in threes from the end, runs of scripts without spaces, then DeepSeek's words
const AFMOE: Rule = &[
    Step::Threes { of: of(DIGIT), unless_before: None, alone: true },
    Step::Matches(&[&[some(ranges(&[
        ('\u{E00}', '\u{EFF}'),
        ('\u{1000}', '\u{109F}'),
        ('\u{1100}', '\u{11FF}'),
        ('\u{1780}', '\u{17FF}'),
        ('\u{2F00}', '\u{2FDF}'),
        ('\u{3040}', '\u{30FF}'),
        ('\u{3400}', '\u{4DBF}'),
        ('\u{4E00}', '\u{9FFF}'),
        ('\u{A9E0}', '\u{A9FF}'),
        ('\u{AA60}', '\u{AA7F}'),
        ('\u{AC00}', '\u{D7AF}'),
        ('\u{F900}', '\u{FAFF}'),
        ('\u{FF65}', '\u{FF9F}'),
    ]))]]),
    DEEPSEEK_V3_WORDS,
];

// Others.

/// ` ?[^(\s|.,!?…。，、।۔،)]+`
const BLOOM_WORDS: Step = Step::Matches(&[&[
    maybe(of(BLANK)),
    some(not(SPACE).and(&[
        ('!', '!'),
        ('(', ')'),
        (',', ','),
        ('.', '.'),
        ('?', '?'),
        ('|', '|'),
        ('\u{60C}', '\u{60C}'),
        ('\u{6D4}', '\u{6D4}'),
        ('\u{964}', '\u{964}'),
        ('…', '…'),
        ('、', '。'),
        ('，', '，'),
    ])),
]]);
const BLOOM: Rule = &[BLOOM_WORDS];

/// `BLOOM`, then `\p{N}`
const VIKING: Rule = &[BLOOM_WORDS, Step::Matches(&[DIGIT_ALONE])];

/// `\p{N}+`, then digits in threes from the end; words go on across spaces
const SUPERBPE: Rule = &[Step::Matches(&[NUMBERS]), Step::Threes { of: of(DIGIT), unless_before: None, alone: false }];

/// Letters with case as `deepseek-llm` lists them.
const CASED: Ranges = &[
    ('A', 'Z'),
    ('a', 'z'),
    ('\u{B5}', '\u{B5}'),
    ('\u{C0}', '\u{D6}'),
    ('\u{D8}', '\u{F6}'),
    ('\u{F8}', '\u{1BA}'),
    ('\u{1BC}', '\u{1BF}'),
    ('\u{1C4}', '\u{293}'),
    ('\u{295}', '\u{2AF}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{377}'),
    ('\u{37B}', '\u{37D}'),
    ('\u{37F}', '\u{37F}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38A}'),
    ('\u{38C}', '\u{38C}'),
    ('\u{38E}', '\u{3A1}'),
    ('\u{3A3}', '\u{3F5}'),
    ('\u{3F7}', '\u{481}'),
    ('\u{48A}', '\u{52F}'),
    ('\u{531}', '\u{556}'),
    ('\u{10A0}', '\u{10C5}'),
    ('\u{13A0}', '\u{13F5}'),
    ('\u{13F8}', '\u{13FD}'),
    ('\u{1C90}', '\u{1CBA}'),
    ('\u{1CBD}', '\u{1CBF}'),
    ('\u{1D00}', '\u{1D2B}'),
    ('\u{1D6B}', '\u{1D77}'),
    ('\u{1D79}', '\u{1D9A}'),
    ('\u{1E00}', '\u{1F15}'),
    ('\u{1F18}', '\u{1F1D}'),
    ('\u{1F20}', '\u{1F45}'),
    ('\u{1F48}', '\u{1F4D}'),
    ('\u{1F50}', '\u{1F57}'),
    ('\u{1F59}', '\u{1F59}'),
    ('\u{1F5B}', '\u{1F5B}'),
    ('\u{1F5D}', '\u{1F5D}'),
    ('\u{1F5F}', '\u{1F7D}'),
    ('\u{1F80}', '\u{1FB4}'),
    ('\u{1FB6}', '\u{1FBC}'),
    ('\u{1FBE}', '\u{1FBE}'),
    ('\u{1FC2}', '\u{1FC4}'),
    ('\u{1FC6}', '\u{1FCC}'),
    ('\u{1FD0}', '\u{1FD3}'),
    ('\u{1FD6}', '\u{1FDB}'),
    ('\u{1FE0}', '\u{1FEC}'),
    ('\u{1FF2}', '\u{1FF4}'),
    ('\u{1FF6}', '\u{1FFC}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210A}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211D}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212A}', '\u{212D}'),
    ('\u{212F}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213C}', '\u{213F}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214E}', '\u{214E}'),
    ('\u{2183}', '\u{2184}'),
    ('\u{2C00}', '\u{2C7B}'),
    ('\u{2C7E}', '\u{2CE4}'),
    ('\u{2CEB}', '\u{2CEE}'),
    ('\u{2CF2}', '\u{2CF3}'),
    ('\u{A640}', '\u{A66D}'),
    ('\u{A680}', '\u{A69B}'),
    ('\u{A722}', '\u{A76F}'),
    ('\u{A771}', '\u{A787}'),
    ('\u{A78B}', '\u{A78E}'),
    ('\u{AB70}', '\u{ABBF}'),
    ('\u{FB00}', '\u{FB06}'),
    ('\u{FB13}', '\u{FB17}'),
    ('\u{FF21}', '\u{FF3A}'),
    ('\u{FF41}', '\u{FF5A}'),
    ('\u{10400}', '\u{1044F}'),
    ('\u{104B0}', '\u{104D3}'),
    ('\u{104D8}', '\u{104FB}'),
    ('\u{10C80}', '\u{10CB2}'),
    ('\u{10CC0}', '\u{10CF2}'),
    ('\u{118A0}', '\u{118DF}'),
    ('\u{1E900}', '\u{1E943}'),
];
