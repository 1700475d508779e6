//! The text of a template before minijinja sees it: read as [`tags`](mod@super::tags), and rewritten where Python's Jinja and minijinja differ.
//!
//! What changes, always by tokens, so that strings, comments, raw blocks and plain text are left alone:
//!
//! - line ends become `\n`, as Jinja reads them;
//! - `{% generation %}` (Hugging Face marks an answer's tokens for training with it) becomes a scope that renders its body;
//! - string literals are decoded by Python's rules and written down again in the one way on which both agree;
//! - `a < b` becomes `__compare('<', a, b)`, because minijinja orders values of different types and Python refuses to;
//! - `'…' % x` becomes `__percent('…', x)`, which minijinja takes for arithmetic;
//! - `{% for x in y %}` becomes `{% for x in __iterate(y) %}`, because minijinja takes `none` for an empty list;
//! - `a + b` becomes `__add(a, b)`, because Python escapes what it adds to a safe string, and a list added to itself must be paid for;
//! - `{% set ns.x = y %}` becomes `{% set ns.x = __keep(y) %}`, which refuses endless nesting: a namespace is all that outlives a loop's turn;
//! - `a ~ b` becomes `__concat(a, b)`, which prints floats as Python does; `{{ a, b }}` gets the brackets of a tuple; `+a` is `a`.
//!
//! A text whose tags can't be read is passed on as it is, so that the syntax error is minijinja's, with its line.

use super::tags::{Kind, Tag, tags};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// The most words and signs that one tag may have; the longest seen (2026) has some 300. Reading a tag can cost their square.
pub const TAG_TOKENS_MAX: usize = 2048;

/// The template as minijinja is to read it.
///
/// # Errors
/// The line of a tag with more than [`TAG_TOKENS_MAX`] tokens.
pub fn rewrite(source: &str) -> Result<String, usize> {
    let source = with_unix_line_ends(source);
    let Some((tags, raws)) = tags(&source) else { return Ok(source.into_owned()) };
    if let Some(tag) = tags.iter().find(|tag| tag.tokens.len() > TAG_TOKENS_MAX) {
        return Err(1 + source[..tag.inner.start].matches('\n').count());
    }
    Ok(rewrite_tags(&source, tags, raws))
}

/// Every string literal in the template's tags, decoded: what a template may look for in a message.
pub fn string_literals(source: &str) -> Vec<String> {
    let source = with_unix_line_ends(source);
    let Some((tags, _)) = tags(&source) else { return Vec::new() };
    tags.into_iter()
        .flat_map(|tag| tag.tokens)
        .filter_map(|token| match token.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        })
        .collect()
}

fn rewrite_tags(source: &str, tags: Vec<Tag>, raws: Vec<usize>) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut done = 0;
    let mut raws = raws.into_iter().peekable();
    // minijinja drops a line end after `{% raw %}`, Jinja doesn't: there it is written twice.
    let mut plain = |from: usize, to: usize, out: &mut String| {
        let mut from = from;
        while let Some(raw) = raws.next_if(|raw| *raw <= to) {
            out.push_str(&source[from..raw]);
            out.push_str(if source[raw..].starts_with('\n') && !source[..raw].ends_with("-%}") { "\n" } else { "" });
            from = raw;
        }
        out.push_str(&source[from..to]);
    };
    for tag in tags {
        plain(done, tag.inner.start, &mut out);
        rewrite_tag(source, &tag, &mut out);
        done = tag.inner.end;
    }
    plain(done, source.len(), &mut out);
    out
}

fn rewrite_tag(source: &str, tag: &Tag, out: &mut String) {
    let texts: Vec<&str> = tag.tokens.iter().map(|t| &source[t.at.clone()]).collect();
    if tag.block && texts == ["generation"] {
        return out.push_str(" with ");
    }
    if tag.block && texts == ["endgeneration"] {
        return out.push_str(" endwith ");
    }
    let line = Line { tag, texts: &texts };
    let calls = calls(&line);
    let is_comma: BTreeSet<usize> = calls.iter().flat_map(|c| c.operators.iter().copied()).collect();
    let mut done = tag.inner.start;
    for (index, token) in tag.tokens.iter().enumerate() {
        out.push_str(&source[done..token.at.start]);
        for call in calls.iter().filter(|c| c.operands.start == index) {
            // A word may stand right before the operand: `if(a)<b`.
            out.push_str(if out.ends_with(|c: char| c == '_' || c.is_alphanumeric()) { " " } else { "" });
            out.push_str(&call.opening);
        }
        match &token.kind {
            _ if is_comma.contains(&index) => out.push(','),
            _ if texts[index] == "+" && line.is_sign(index) => {}
            Kind::Text(text) => write_literal(text, out),
            _ => out.push_str(texts[index]),
        }
        for call in calls.iter().filter(|c| c.operands.end == index + 1) {
            out.push_str(call.closing);
        }
        done = token.at.end;
    }
    out.push_str(&source[done..tag.inner.end]);
}

/// An expression that becomes a function call: `opening operand , operand … closing`.
struct Call {
    opening: String,
    closing: &'static str,
    /// The tokens that become commas.
    operators: Vec<usize>,
    /// Token indices of all operands with the operators between them.
    operands: Range<usize>,
}

/// The calls of a tag; of those that start at one token, the widest first.
fn calls(line: &Line) -> Vec<Call> {
    let (tag, texts) = (line.tag, line.texts);
    let mut calls: Vec<Call> = line.iterated().into_iter().chain(line.bare_tuple()).chain(line.kept()).collect();
    let mut chained = BTreeSet::new();
    for index in 0..texts.len() {
        if chained.contains(&index) {
            continue;
        }
        if line.is(index, &["<", "<=", ">", ">="]) {
            let opening = format!("__compare('{}', ", texts[index]);
            let call = line.chain(index, &COMPARISONS, &[&LOOSER, &COMPARISONS], opening);
            chained.extend(call.iter().flat_map(|c| c.operators.iter().copied()));
            calls.extend(call.filter(|c| c.operators.len() == 1));
        } else if line.is(index, &["%"]) && index > 0 && matches!(tag.tokens[index - 1].kind, Kind::Text(_)) {
            let call = line.chain(index, &PRODUCTS, &[&LOOSER, &COMPARISONS, &SUMS, &["~"], &PRODUCTS], "__percent(".to_owned());
            calls.extend(call.filter(|c| c.operators.len() == 1));
        } else if line.is(index, &["+"]) && !line.is_sign(index) {
            let call = line.chain(index, &SUMS, &[&LOOSER, &COMPARISONS, &SUMS], "__add(".to_owned());
            chained.extend(call.iter().flat_map(|c| c.operators.iter().copied()));
            calls.extend(call.filter(|c| c.operators.iter().all(|&o| texts[o] == "+")));
        } else if line.is(index, &["~"]) {
            let call = line.chain(index, &["~"], &[&LOOSER, &COMPARISONS, &SUMS, &["~"]], "__concat(".to_owned());
            chained.extend(call.iter().flat_map(|c| c.operators.iter().copied()));
            calls.extend(call);
        }
    }
    calls.sort_by_key(|c| (c.operands.start, std::cmp::Reverse(c.operands.end)));
    calls
}

const COMPARISONS: [&str; 7] = ["<", "<=", ">", ">=", "==", "!=", "in"];
const SUMS: [&str; 2] = ["+", "-"];
const PRODUCTS: [&str; 4] = ["*", "/", "//", "%"];
/// What binds more loosely than a comparison, and so ends its operands.
const LOOSER: [&str; 12] = ["and", "or", "not", "if", "else", "elif", "for", "recursive", ",", ":", "=", "set"];

/// A tag's tokens with their texts.
struct Line<'a> {
    tag: &'a Tag,
    texts: &'a [&'a str],
}

impl Line<'_> {
    /// Whether the token is one of these words or operators, not a literal, and no member of something (`x.in`).
    fn is(&self, index: usize, set: &[&str]) -> bool {
        let member = index > 0 && self.texts[index - 1] == ".";
        !member && matches!(self.tag.tokens[index].kind, Kind::Name | Kind::Operator) && set.contains(&self.texts[index])
    }

    /// Whether a `+` or `-` stands before its only operand.
    fn is_sign(&self, index: usize) -> bool {
        let first = usize::from(self.tag.block);
        let before = [&LOOSER[..], &COMPARISONS, &SUMS, &PRODUCTS, &["~", "**", "(", "[", "{", "|"]];
        self.is(index, &SUMS) && (index <= first || before.iter().any(|set| self.is(index - 1, set)))
    }

    /// All operands joined by `operators` around the one at `index`, each ending where one of `ends` or an outer bracket stands.
    /// `None` if an operand is missing.
    fn chain(&self, index: usize, operators: &[&str], ends: &[&[&str]], opening: String) -> Option<Call> {
        let ends_at = |i: usize| ends.iter().any(|set| self.is(i, set)) && !self.is_sign(i);
        let mut call = Call {
            opening,
            closing: ")",
            operators: vec![index],
            operands: self.operand_before(index, ends_at)..self.operand_after(index, ends_at),
        };
        while call.operands.start > usize::from(self.tag.block) && self.is(call.operands.start - 1, operators) {
            call.operators.insert(0, call.operands.start - 1);
            call.operands.start = self.operand_before(call.operands.start - 1, ends_at);
        }
        while call.operands.end < self.texts.len() && self.is(call.operands.end, operators) {
            call.operators.push(call.operands.end);
            call.operands.end = self.operand_after(call.operands.end, ends_at);
        }
        let edges = call.operands.start < call.operators[0] && call.operators[call.operators.len() - 1] + 1 < call.operands.end;
        (edges && call.operators.windows(2).all(|pair| pair[0] + 1 < pair[1])).then_some(call)
    }

    /// Where the operand that ends before `index` starts.
    fn operand_before(&self, index: usize, ends_at: impl Fn(usize) -> bool) -> usize {
        let mut depth = 0usize;
        // The first word of a block is its name and belongs to no operand.
        for i in (usize::from(self.tag.block)..index).rev() {
            if self.is(i, &[")", "]", "}"]) {
                depth += 1;
            } else if self.is(i, &["(", "[", "{"]) {
                if depth == 0 {
                    return i + 1;
                }
                depth -= 1;
            } else if depth == 0 && ends_at(i) {
                return i + 1;
            }
        }
        usize::from(self.tag.block)
    }

    /// Where the operand that starts after `index` ends.
    fn operand_after(&self, index: usize, ends_at: impl Fn(usize) -> bool) -> usize {
        let mut depth = 0usize;
        for i in index + 1..self.texts.len() {
            if self.is(i, &["(", "[", "{"]) {
                depth += 1;
            } else if self.is(i, &[")", "]", "}"]) {
                if depth == 0 {
                    return i;
                }
                depth -= 1;
            } else if depth == 0 && ends_at(i) {
                return i;
            }
        }
        self.texts.len()
    }

    /// All of `{{ a, b }}`.
    fn bare_tuple(&self) -> Option<Call> {
        let mut depth = 0isize;
        let comma = (0..self.texts.len()).any(|i| {
            depth += isize::from(self.is(i, &["(", "[", "{"])) - isize::from(self.is(i, &[")", "]", "}"]));
            depth == 0 && self.is(i, &[","])
        });
        let call = Call { opening: "(".to_owned(), closing: ")", operators: Vec::new(), operands: 0..self.texts.len() };
        (comma && !self.tag.block).then_some(call)
    }

    /// What `set ns.x =` puts into a namespace.
    fn kept(&self) -> Option<Call> {
        let is_assignment =
            self.tag.block && self.texts.len() > 5 && self.texts[0] == "set" && self.texts[2] == "." && self.texts[4] == "=";
        is_assignment.then(|| Call { opening: "__keep((".to_owned(), closing: "))", operators: Vec::new(), operands: 5..self.texts.len() })
    }

    /// What a `for` goes through: from its `in` to its `if`.
    fn iterated(&self) -> Option<Call> {
        (self.tag.block && self.texts.first() == Some(&"for")).then_some(())?;
        let start = (1..self.texts.len()).find(|&i| self.is(i, &["in"]))? + 1;
        let end = self.operand_after(start - 1, |i| self.is(i, &["if", "recursive"]));
        (start < end).then(|| Call { opening: "__iterate((".to_owned(), closing: "))", operators: Vec::new(), operands: start..end })
    }
}

fn write_literal(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn with_unix_line_ends(source: &str) -> Cow<'_, str> {
    if source.contains('\r') { Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(source: &str) -> String {
        super::rewrite(source).unwrap()
    }

    #[test]
    fn generation_becomes_a_scope_only_where_it_is_a_tag() {
        let source =
            "{%- generation -%}a{% endgeneration %}{# {% generation %} #}{% raw %}{% generation %}{% endraw %}{{ '{% generation %}' }}";
        assert_eq!(
            rewrite(source),
            "{%- with -%}a{% endwith %}{# {% generation %} #}{% raw %}{% generation %}{% endraw %}{{ \"{% generation %}\" }}"
        );
    }

    #[test]
    fn literals_are_decoded_as_python_does() {
        let literals = string_literals(r#"{{ '\x41\n\d\101\u00e9\ud83d\ude00\'' ~ "\"" }} 'not this' {# 'nor' #}"#);
        assert_eq!(literals, ["A\n\\dAé😀'", "\""]);
    }

    #[test]
    fn comparison_takes_whole_operands() {
        assert_eq!(
            rewrite("{% if a.b[1 < 2]|length + 1 > c % 2 and d %}"),
            "{% if __compare('>', __add(a.b[__compare('<', 1 , 2)]|length , 1) , c % 2) and d %}"
        );
        assert_eq!(rewrite("{{ x if not m.in >= 3 else y }}"), "{{ x if not __compare('>=', m.in , 3) else y }}");
        assert_eq!(rewrite("{% set q = f(a=b <= c) %}"), "{% set q = f(a=__compare('<=', b , c)) %}");
    }

    #[test]
    fn chained_comparison_is_left_alone() {
        assert_eq!(rewrite("{{ 1 < 2 < 3 }}"), "{{ 1 < 2 < 3 }}");
    }

    #[test]
    fn percent_is_formatting_only_after_a_literal() {
        assert_eq!(rewrite("{{ 'a' ~ '%s' % x ~ n % 2 }}"), "{{ __concat(\"a\" , __percent(\"%s\" , x) , n % 2) }}");
    }

    #[test]
    fn loops_check_what_they_go_through() {
        assert_eq!(rewrite("{%- for k, v in d.items() if v -%}"), "{%- for k, v in __iterate((d.items())) if v -%}");
        assert_eq!(rewrite("{% for x in (a if b else c) recursive %}"), "{% for x in __iterate(((a if b else c))) recursive %}");
    }

    #[test]
    fn sums_become_calls() {
        assert_eq!(rewrite("{{ a + b - c }}"), "{{ a + b - c }}");
        assert_eq!(rewrite("{% set ns.x = [1] + ns.x %}"), "{% set ns.x = __keep((__add([1] , ns.x))) %}");
        assert_eq!(rewrite("{{ 'x'|safe + a.b + -c|d if e else f + g - h }}"), "{{ __add(\"x\"|safe , a.b , -c|d) if e else f + g - h }}");
    }

    #[test]
    fn tuples_get_brackets_and_signs_go() {
        assert_eq!(rewrite("{{ f(1, 2), +a ~ -b ~ c }}"), "{{ (f(1, 2), __concat(a , -b , c)) }}");
        assert_eq!(rewrite("{{ (1, 2) }}{% set a, b = +1, 2 %}"), "{{ (1, 2) }}{% set a, b = 1, 2 %}");
    }

    #[test]
    fn endless_tags_are_refused_by_line() {
        assert_eq!(super::rewrite(&format!("a\n{{{{ 1{} }}}}", " ~ 1".repeat(TAG_TOKENS_MAX))), Err(2));
    }

    #[test]
    fn unreadable_source_is_passed_on() {
        for source in ["{{ 'unclosed }}", "{# never closed", "{% if )", "{{ '\\x' }}", "{% raw %} x"] {
            assert_eq!(rewrite(source), source);
        }
    }
}
