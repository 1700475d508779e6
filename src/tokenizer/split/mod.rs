//! Cutting text into words before byte-pair merging, by the rule that the vocabulary was trained with.
//!
//! A [`Rule`] is a list of steps; each cuts the pieces that the step before left, and what a step does not match is a piece too.
//! The published rules are regular expressions of one shape: an ordered choice of short sequences of classes, at most one of them
//! with a look ahead. [`rules`] holds them as data for the small matcher here. That costs nothing at start-up (compiling the
//! Unicode classes of one such expression takes milliseconds), needs no look-around engine, and runs in linear time; a test holds
//! every rule against the published expression. [`class`] knows what a character is.

pub mod class;
mod rules;
#[cfg(test)]
pub mod tests;

pub use rules::{DEFAULT_FAMILY, Family, family};

use class::{Class, Kinds};
use std::ops::Range;

/// How one family of models cuts text, step by step.
pub type Rule = &'static [Step];

/// One pass over the pieces of the pass before.
pub enum Step {
    /// Cuts out every leftmost match; at each place the first alternative that matches counts.
    Matches(&'static [Alternative]),
    /// Cuts runs of this class into threes counted from their end: 12 345 678. `\d{1,3}(?=(\d{3})*…)` and its kin,
    /// which would look at a long run of digits again for every digit of it. `alone`: the run is cut from its surroundings too.
    Threes { of: Class, unless_before: Option<Class>, alone: bool },
    /// Cuts off the white space at the very end, `\s+$`, which would try again at every space of a long run.
    TrailingSpace,
}

pub type Alternative = &'static [Item];

/// A part of an alternative.
pub enum Item {
    /// `[class]{min,max}`, as many as there are, fewer where what follows needs it.
    Run { class: Class, min: usize, max: usize },
    /// `(?:'s|'t|…)`, of either case or (`exact`) lower case only; `optional`: `(?:…)?`.
    Contraction { endings: &'static [&'static str], exact: bool, optional: bool },
    /// `(?!\S)`: the piece ends here, or white space follows.
    BeforeSpaceOrEnd,
}

/// A text taken apart into characters.
struct Characters {
    chars: Vec<char>,
    kinds: Vec<Kinds>,
}

/// Calls `word` with every piece of `text` from left to right. Together they are the text.
pub fn split<'a>(rule: Rule, text: &'a str, mut word: impl FnMut(&'a str)) {
    let chars: Vec<char> = text.chars().collect();
    let characters = Characters { kinds: chars.iter().map(|c| Kinds::of(*c)).collect(), chars };
    let mut rest = text;
    characters.cut(rule, 0..characters.chars.len(), &mut |piece| {
        let bytes = characters.chars[piece].iter().map(|c| c.len_utf8()).sum();
        let (head, tail) = rest.split_at(bytes);
        word(head);
        rest = tail;
    });
}

impl Characters {
    /// Applies the first step to `range`, the others to what comes of it.
    fn cut(&self, steps: &[Step], range: Range<usize>, emit: &mut dyn FnMut(Range<usize>)) {
        let Some((step, later)) = steps.split_first() else {
            return emit(range);
        };
        let mut done = range.start;
        let mut cut_until = |end: usize| {
            if done < end {
                self.cut(later, done..end, emit);
                done = end;
            }
        };
        let mut at = range.start;
        while at < range.end {
            at = match step {
                Step::Matches(alternatives) => match self.first_match(alternatives, at, range.end) {
                    Some(end) => {
                        cut_until(at);
                        cut_until(end);
                        end
                    }
                    None => at + 1,
                },
                Step::Threes { of, unless_before, alone } => {
                    let count = self.run(of, at, range.end);
                    let end = at + count;
                    let barred = unless_before.is_some_and(|class| end < range.end && self.is(&class, end));
                    if !barred {
                        let around = |place: usize| (*alone && count > 0).then_some(place);
                        let threes = (at + count % 3..end).step_by(3);
                        around(at).into_iter().chain(threes).chain(around(end)).for_each(&mut cut_until);
                    }
                    end.max(at + 1)
                }
                Step::TrailingSpace => {
                    let spaces = self.kinds[range.clone()].iter().rev().take_while(|k| k.any_of(class::SPACE)).count();
                    cut_until(range.end - spaces);
                    range.end
                }
            };
        }
        cut_until(range.end);
    }

    /// Where the match that begins at `at` ends; matches are never empty.
    fn first_match(&self, alternatives: &[Alternative], at: usize, end: usize) -> Option<usize> {
        alternatives.iter().find_map(|items| self.matches(items, at, end)).filter(|to| *to > at)
    }

    fn matches(&self, items: &[Item], at: usize, end: usize) -> Option<usize> {
        let Some((item, rest)) = items.split_first() else {
            return Some(at);
        };
        match item {
            Item::Run { class, min, max } => {
                let most = self.run(class, at, end.min(at.saturating_add(*max)));
                if rest.is_empty() {
                    return (most >= *min).then_some(at + most);
                }
                (*min..=most).rev().find_map(|n| self.matches(rest, at + n, end))
            }
            Item::Contraction { endings, exact, optional } => {
                let found = endings.iter().find_map(|ending| self.contraction(ending, *exact, at, end));
                match found {
                    Some(to) => self.matches(rest, to, end),
                    None if *optional => self.matches(rest, at, end),
                    None => None,
                }
            }
            Item::BeforeSpaceOrEnd => (at == end || self.kinds[at].any_of(class::SPACE)).then(|| self.matches(rest, at, end))?,
        }
    }

    /// How many characters from `at` on are of the class.
    fn run(&self, class: &Class, at: usize, end: usize) -> usize {
        (at..end).take_while(|i| self.is(class, *i)).count()
    }

    fn is(&self, class: &Class, at: usize) -> bool {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        class.has(self.chars[at], self.kinds[at])
    }

    /// The end of an apostrophe and `ending` at `at`. Case folding knows one more `s` than ASCII does: `ſ`.
    fn contraction(&self, ending: &str, exact: bool, at: usize, end: usize) -> Option<usize> {
        let text = self.chars[at..end].strip_prefix(&['\''])?;
        let same = |c: char, e: char| c == e || (!exact && (c.to_ascii_lowercase() == e || (c == 'ſ' && e == 's')));
        let fits = ending.len() <= text.len() && text.iter().zip(ending.chars()).all(|(c, e)| same(*c, e));
        fits.then_some(at + 1 + ending.len())
    }
}
