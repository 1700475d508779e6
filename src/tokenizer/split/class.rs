//! Classes of characters, as the published split rules speak of them: sets of [`Kinds`], plus ranges where a rule lists characters.

use unicode_general_category::{GeneralCategory, get_general_category};

/// What a character is: a set of the bits below. Most characters have one, a line feed for example two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u32);

pub const UPPER: Kinds = Kinds(1); // Lu
pub const LOWER: Kinds = Kinds(1 << 1); // Ll
pub const TITLE: Kinds = Kinds(1 << 2); // Lt
pub const MODIFIER: Kinds = Kinds(1 << 3); // Lm
pub const OTHER_LETTER: Kinds = Kinds(1 << 4); // Lo
pub const MARK: Kinds = Kinds(1 << 5); // M
pub const DIGIT: Kinds = Kinds(1 << 6); // Nd
pub const LETTER_NUMBER: Kinds = Kinds(1 << 7); // Nl
pub const OTHER_NUMBER: Kinds = Kinds(1 << 16); // No
pub const CONNECTOR: Kinds = Kinds(1 << 8); // Pc
pub const OTHER_PUNCTUATION: Kinds = Kinds(1 << 9);
pub const SYMBOL: Kinds = Kinds(1 << 10); // S
/// `\s`: the property White_Space.
pub const SPACE: Kinds = Kinds(1 << 11);
/// U+0020 alone.
pub const BLANK: Kinds = Kinds(1 << 12);
/// `\r` and `\n`.
pub const NEWLINE: Kinds = Kinds(1 << 13);
pub const SLASH: Kinds = Kinds(1 << 14);
/// The script Han.
pub const HAN: Kinds = Kinds(1 << 15);

pub const LETTER: Kinds = UPPER.or(LOWER).or(TITLE).or(MODIFIER).or(OTHER_LETTER);
pub const NUMBER: Kinds = DIGIT.or(LETTER_NUMBER).or(OTHER_NUMBER);
pub const PUNCTUATION: Kinds = CONNECTOR.or(OTHER_PUNCTUATION);

impl Kinds {
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    pub const fn any_of(self, set: Kinds) -> bool {
        self.0 & set.0 != 0
    }

    pub fn of(c: char) -> Kinds {
        use GeneralCategory::*;
        let category = match get_general_category(c) {
            UppercaseLetter => UPPER,
            LowercaseLetter => LOWER,
            TitlecaseLetter => TITLE,
            ModifierLetter => MODIFIER,
            OtherLetter => OTHER_LETTER,
            NonspacingMark | SpacingMark | EnclosingMark => MARK,
            DecimalNumber => DIGIT,
            LetterNumber => LETTER_NUMBER,
            GeneralCategory::OtherNumber => OTHER_NUMBER,
            ConnectorPunctuation => CONNECTOR,
            DashPunctuation | OpenPunctuation | ClosePunctuation | InitialPunctuation | FinalPunctuation => OTHER_PUNCTUATION,
            GeneralCategory::OtherPunctuation => OTHER_PUNCTUATION,
            MathSymbol | CurrencySymbol | ModifierSymbol | OtherSymbol => SYMBOL,
            _ => Kinds(0),
        };
        let also = |yes: bool, kind: Kinds| if yes { kind } else { Kinds(0) };
        category
            .or(also(c.is_whitespace(), SPACE))
            .or(also(c == ' ', BLANK))
            .or(also(matches!(c, '\r' | '\n'), NEWLINE))
            .or(also(c == '/', SLASH))
            .or(also(in_ranges(c, HAN_RANGES), HAN))
    }
}

/// Inclusive ranges, ascending.
pub type Ranges = &'static [(char, char)];

/// A bracket of a split rule: the characters of some kinds or ranges, or all others.
#[derive(Clone, Copy)]
pub struct Class {
    kinds: Kinds,
    ranges: Ranges,
    /// Characters of these kinds are not in it, whatever else they are.
    without: Kinds,
    negated: bool,
}

/// `[…]` of kinds.
pub const fn of(kinds: Kinds) -> Class {
    Class { kinds, ranges: &[], without: Kinds(0), negated: false }
}

/// `[^…]` of kinds.
pub const fn not(kinds: Kinds) -> Class {
    Class { negated: true, ..of(kinds) }
}

/// `[…]` of single characters.
pub const fn ranges(ranges: Ranges) -> Class {
    Class { ranges, ..of(Kinds(0)) }
}

impl Class {
    /// Together with these characters (for a negated class: all but these too).
    pub const fn and(self, ranges: Ranges) -> Class {
        Class { ranges, ..self }
    }

    /// `&&[^…]`: without the characters of these kinds.
    pub const fn except(self, without: Kinds) -> Class {
        Class { without, ..self }
    }

    pub fn has(&self, c: char, kinds: Kinds) -> bool {
        (kinds.any_of(self.kinds) || in_ranges(c, self.ranges)) != self.negated && !kinds.any_of(self.without)
    }
}

fn in_ranges(c: char, ranges: Ranges) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= c);
    after > 0 && c <= ranges[after - 1].1
}

/// The script Han. Source: Unicode 16, Scripts.txt.
const HAN_RANGES: Ranges = &[
    ('\u{2E80}', '\u{2E99}'),
    ('\u{2E9B}', '\u{2EF3}'),
    ('\u{2F00}', '\u{2FD5}'),
    ('\u{3005}', '\u{3005}'),
    ('\u{3007}', '\u{3007}'),
    ('\u{3021}', '\u{3029}'),
    ('\u{3038}', '\u{303B}'),
    ('\u{3400}', '\u{4DBF}'),
    ('\u{4E00}', '\u{9FFF}'),
    ('\u{F900}', '\u{FA6D}'),
    ('\u{FA70}', '\u{FAD9}'),
    ('\u{16FE2}', '\u{16FE3}'),
    ('\u{16FF0}', '\u{16FF1}'),
    ('\u{20000}', '\u{2A6DF}'),
    ('\u{2A700}', '\u{2B739}'),
    ('\u{2B740}', '\u{2B81D}'),
    ('\u{2B820}', '\u{2CEA1}'),
    ('\u{2CEB0}', '\u{2EBE0}'),
    ('\u{2EBF0}', '\u{2EE5D}'),
    ('\u{2F800}', '\u{2FA1D}'),
    ('\u{30000}', '\u{3134A}'),
    ('\u{31350}', '\u{323AF}'),
];
