//! Where a prompt's special tokens come from: the template, or somebody's message. Only the template's are special.
//!
//! # How
//! The text of the prompt is what the template renders from the plain variables, always: nothing below changes a byte of it.
//! A second rendering tells who wrote what. In it, every character of a user's text that begins or ends a special token (`<`, `>`, `[`, …)
//! is replaced by a stand-in, one character for one, that occurs nowhere else. With the stand-ins put back, both renderings must agree; then
//! a special token in the text is the template's own if neither its first nor its last character came from a user. So a role between
//! `<|` and `|>` makes a special token, a token spelled out in a message doesn't, nor does one pieced together from a message's end and the
//! template's next character, or that appears once a filter has removed a letter from a message's middle.
//!
//! They don't agree when the template looks for something in a message: `'</think>' in message.content`, `content.split('<|channel|>')`.
//! Then the template's own string literals that occur in messages (by role) are left as they are; and those of them that turn out not to
//! matter are replaced again, one by one. What remains is what the template itself reads as structure.
//!
//! If even so nothing agrees (a template that sorts or measures its messages by what is in them), a special token that occurs in any user's
//! text counts as text wherever it stands: a prompt that the model may understand less well, never one that a user has forged.

use super::Variables;
use minijinja::State;
use minijinja::value::Object;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Plain text: what it spells, no token in it is special.
    Text(String),
    /// A special token, by its text.
    Special(String),
}

/// The prompt that pieces make.
pub fn text_of(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|p| match p {
            Piece::Text(t) | Piece::Special(t) => t.as_str(),
        })
        .collect()
}

/// Renderings that one prompt may cost; a template with more literals in its messages than this is answered by the cautious rule.
const RENDERINGS_MAX: usize = 32;

/// Cuts `text`, the rendering of `variables`, into pieces. `render` renders painted variables by the same template, or fails.
pub fn pieces(
    text: String,
    variables: &Variables,
    special: &[String],
    trusted: &[&str],
    literals: &[String],
    render: impl Fn(&Variables, &Arc<Ink>) -> Option<String>,
) -> Vec<Piece> {
    let special = Specials::new(special);
    let found = special.find_all(&text);
    if found.is_empty() {
        return cut(&text, &[]);
    }
    let users = |name: &str| !trusted.contains(&name);
    let ink = Ink::new(&special, variables, &text, literals).map(Arc::new);
    match ink.and_then(|ink| origins(&text, variables, &ink, literals, users, render)) {
        Some(from_user) => {
            // `from_user` is by characters; positions of `found` are bytes.
            let char_at: BTreeMap<usize, bool> =
                text.char_indices().zip(from_user).filter(|(_, user)| *user).map(|((at, _), user)| (at, user)).collect();
            let last = |token: &str, at: usize| at + token.char_indices().next_back().map_or(0, |(i, _)| i);
            let own: Vec<_> =
                found.into_iter().filter(|&(at, token)| !char_at.contains_key(&at) && !char_at.contains_key(&last(token, at))).collect();
            cut(&text, &own)
        }
        None => cut(&text, &cautious(&text, found, variables, users)),
    }
}

/// The model's special tokens; at one place the longest counts.
struct Specials<'a> {
    longest_first: Vec<&'a str>,
}

impl<'a> Specials<'a> {
    fn new(special: &'a [String]) -> Self {
        let mut longest_first: Vec<&str> = special.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
        longest_first.sort_by_key(|s| std::cmp::Reverse(s.len()));
        Self { longest_first }
    }

    /// Every special token in `text` with its byte position, left to right, none overlapping.
    fn find_all<'t>(&self, text: &'t str) -> Vec<(usize, &'t str)> {
        let firsts: BTreeSet<char> = self.longest_first.iter().filter_map(|s| s.chars().next()).collect();
        let mut found = Vec::new();
        let mut free_from = 0;
        for (at, _) in text.match_indices(|c| firsts.contains(&c)) {
            if at >= free_from
                && let Some(token) = self.longest_first.iter().find(|s| text[at..].starts_with(**s))
            {
                found.push((at, &text[at..at + token.len()]));
                free_from = at + token.len();
            }
        }
        found
    }
}

/// Stand-ins for the characters that begin and end special tokens. The filters that look at single characters ask for it.
#[derive(Debug)]
pub struct Ink {
    stand_in: BTreeMap<char, char>,
    original: BTreeMap<char, char>,
}

impl Object for Ink {}

impl Ink {
    /// The variable by which a painted rendering hands its ink to filters.
    pub const VARIABLE: &str = "__ink";

    /// The ink of the rendering at hand, if it is a painted one.
    pub fn of(state: &State) -> Option<Arc<Self>> {
        state.lookup(Self::VARIABLE)?.downcast_object()
    }

    /// The character that `c` stands in for.
    pub fn original(&self, c: char) -> Option<char> {
        self.original.get(&c).copied()
    }

    /// Rare ideographs: to Python and to Jinja's filters they are letters without case, so nothing is done to them.
    const ALPHABET: std::ops::RangeInclusive<char> = '\u{20000}'..='\u{2a6d0}';

    /// `None` if the texts use up the alphabet, which nobody does by accident.
    fn new(special: &Specials, variables: &Variables, text: &str, literals: &[String]) -> Option<Self> {
        let edges: BTreeSet<char> =
            special.longest_first.iter().flat_map(|s| [s.chars().next(), s.chars().next_back()]).flatten().collect();
        let mut taken: BTreeSet<char> =
            text.chars().chain(literals.iter().flat_map(|l| l.chars())).filter(|c| Self::ALPHABET.contains(c)).collect();
        for value in variables.values() {
            each_text(value, &mut |s| taken.extend(s.chars().filter(|c| Self::ALPHABET.contains(c))));
        }
        let mut free = Self::ALPHABET.filter(|c| !taken.contains(c));
        let stand_in = edges.into_iter().map(|c| Some((c, free.next()?))).collect::<Option<BTreeMap<_, _>>>()?;
        let original = stand_in.iter().map(|(c, s)| (*s, *c)).collect();
        Some(Self { stand_in, original })
    }

    /// `text` with stand-ins, but for the places where one of `kept` occurs.
    fn paint(&self, text: &str, kept: &[&str]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut keep_until = 0;
        for (at, c) in text.char_indices() {
            if let Some(longest) = kept.iter().filter(|k| text[at..].starts_with(**k)).map(|k| k.len()).max() {
                keep_until = keep_until.max(at + longest);
            }
            out.push(if at < keep_until { c } else { self.stand_in.get(&c).copied().unwrap_or(c) });
        }
        out
    }
}

/// What the template may read in messages of one role.
type Kept<'a> = BTreeSet<(String, &'a str)>;

/// For every character of `text`: did it come from a user? `None` if the painted renderings don't tell.
fn origins(
    text: &str,
    variables: &Variables,
    ink: &Arc<Ink>,
    literals: &[String],
    users: impl Fn(&str) -> bool,
    render: impl Fn(&Variables, &Arc<Ink>) -> Option<String>,
) -> Option<Vec<bool>> {
    let attempt = |kept: &Kept| -> Option<Vec<bool>> {
        let painted = render(&paint_variables(variables, ink, kept, &users), ink)?;
        let mut from_user = Vec::with_capacity(text.len());
        let mut plain = text.chars();
        for c in painted.chars() {
            let original = ink.original(c);
            (plain.next()? == original.unwrap_or(c)).then_some(())?;
            from_user.push(original.is_some());
        }
        plain.next().is_none().then_some(from_user)
    };
    if let Some(found) = attempt(&Kept::new()) {
        return Some(found);
    }
    let mut kept = literals_in_texts(variables, ink, literals, &users);
    if kept.len() > RENDERINGS_MAX {
        return None;
    }
    let mut found = attempt(&kept)?;
    for candidate in kept.clone() {
        kept.remove(&candidate);
        match attempt(&kept) {
            Some(better) => found = better,
            None => {
                kept.insert(candidate);
            }
        }
    }
    Some(found)
}

/// The template's literals with characters worth a stand-in that occur in users' texts, with the role of the message.
fn literals_in_texts<'a>(variables: &Variables, ink: &Ink, literals: &'a [String], users: &impl Fn(&str) -> bool) -> Kept<'a> {
    let literals: BTreeSet<&str> =
        literals.iter().map(String::as_str).filter(|l| l.chars().any(|c| ink.stand_in.contains_key(&c))).collect();
    let mut kept = Kept::new();
    for (_, role, value) in by_role(variables).filter(|(name, _, _)| users(name)) {
        each_text(value, &mut |text| {
            for literal in literals.iter().filter(|l| text.contains(**l)) {
                kept.insert((role.to_owned(), *literal));
            }
        });
    }
    kept
}

/// All values with the variable they are in and, for the messages, their role.
fn by_role(variables: &Variables) -> impl Iterator<Item = (&str, &str, &Json)> {
    variables.iter().flat_map(|(name, value)| {
        let items = match value {
            Json::Array(items) if name == "messages" => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        items.iter().map(move |item| (name.as_str(), role_of(name, item), item))
    })
}

fn role_of<'a>(name: &str, item: &'a Json) -> &'a str {
    match name {
        "messages" => item.get("role").and_then(Json::as_str).unwrap_or_default(),
        _ => "",
    }
}

fn paint_variables(variables: &Variables, ink: &Ink, kept: &Kept, users: &impl Fn(&str) -> bool) -> Variables {
    let paint = |name: &str, item: &Json| {
        let role = role_of(name, item);
        let kept: Vec<&str> = kept.iter().filter(|(r, _)| r == role).map(|(_, literal)| *literal).collect();
        paint_value(item, ink, &kept)
    };
    let paint_variable = |(name, value): (&String, &Json)| {
        let painted = match value {
            _ if !users(name) => value.clone(),
            Json::Array(items) if name == "messages" => items.iter().map(|item| paint(name, item)).collect(),
            other => paint(name, other),
        };
        (name.clone(), painted)
    };
    variables.iter().map(paint_variable).collect()
}

fn paint_value(value: &Json, ink: &Ink, kept: &[&str]) -> Json {
    match value {
        Json::String(text) => Json::String(ink.paint(text, kept)),
        Json::Array(items) => items.iter().map(|item| paint_value(item, ink, kept)).collect(),
        Json::Object(map) => Json::Object(map.iter().map(|(k, v)| (ink.paint(k, kept), paint_value(v, ink, kept))).collect()),
        other => other.clone(),
    }
}

fn each_text<'a>(value: &'a Json, visit: &mut impl FnMut(&'a str)) {
    match value {
        Json::String(text) => visit(text),
        Json::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        Json::Object(map) => map.iter().for_each(|(key, value)| {
            visit(key);
            each_text(value, visit);
        }),
        _ => {}
    }
}

/// Of the found tokens those that no user's text contains.
fn cautious<'t>(
    text: &'t str,
    mut found: Vec<(usize, &'t str)>,
    variables: &Variables,
    users: impl Fn(&str) -> bool,
) -> Vec<(usize, &'t str)> {
    debug_assert!(found.iter().all(|(at, token)| text[*at..].starts_with(token)));
    for (_, value) in variables.iter().filter(|(name, _)| users(name)) {
        each_text(value, &mut |user| found.retain(|(_, token)| !user.contains(token)));
    }
    found
}

/// `text` cut at the given special tokens.
fn cut(text: &str, special: &[(usize, &str)]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2 * special.len() + 1);
    let mut done = 0;
    for (at, token) in special {
        if done < *at {
            pieces.push(Piece::Text(text[done..*at].to_owned()));
        }
        pieces.push(Piece::Special((*token).to_owned()));
        done = at + token.len();
    }
    if done < text.len() {
        pieces.push(Piece::Text(text[done..].to_owned()));
    }
    pieces
}
