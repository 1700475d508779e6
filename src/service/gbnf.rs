//! Grammars in llama.cpp's notation (GBNF), which clients send as `grammar`, written in llguidance's:
//! <https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>.
//!
//! Rules that don't lead back to themselves become terminals, which are matched as one regular expression, the longest match first.

use std::collections::HashMap;
use std::fmt::Write;

/// Most bytes of a grammar, and most brackets in brackets.
const BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 64;
/// Most repetitions that can be counted.
const TIMES_MAX: u32 = 2000;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum GbnfError {
    #[error("{0} bytes of grammar are more than the {BYTES_MAX} that are taken")]
    TooLong(usize),
    #[error("line {line}: {what}")]
    Line { line: usize, what: &'static str },
    #[error("the rule `{0}` is used, but not there")]
    NoRule(String),
    #[error("no text ends the rule `{0}`: each of its ways leads to a rule that has no end either; give it one that has")]
    Endless(String),
}

/// The same grammar in Lark's notation: the rule to begin with, and the rules, whose names are `g` or `T` and a number.
pub fn to_lark(grammar: &str) -> Result<(String, String), GbnfError> {
    if grammar.len() > BYTES_MAX {
        return Err(GbnfError::TooLong(grammar.len()));
    }
    let mut parser = Parser { text: grammar, at: 0, names: HashMap::new() };
    let mut rules: Vec<Option<Node>> = Vec::new();
    while parser.skip() {
        let id = parser.rule_name()?;
        let body = parser.choice(DEPTH_MAX)?;
        rules.resize_with(rules.len().max(parser.names.len()), || None);
        rules[id] = Some(body);
    }
    let root = *parser.names.get("root").ok_or_else(|| GbnfError::NoRule("root".into()))?;
    if let Some((name, _)) = parser.names.iter().filter(|(_, id)| rules.get(**id).is_none_or(Option::is_none)).min() {
        return Err(GbnfError::NoRule(name.to_string()));
    }
    let rules: Vec<Node> = rules.into_iter().flatten().collect();
    if let Some(endless) = endless(&rules, root) {
        let name = parser.names.iter().find(|(_, id)| **id == endless).map_or("root", |(name, _)| name);
        return Err(GbnfError::Endless(name.to_owned()));
    }
    let terminal = least(&rules, |body, is_terminal| body.all_rules(is_terminal));
    let name = |id: usize| if terminal[id] { format!("T{id}") } else { format!("g{id}") };
    let mut out = String::new();
    for (id, body) in rules.iter().enumerate() {
        let mut text = String::new();
        body.write(&name, &mut text);
        let _ = writeln!(out, "{}: {text}", name(id));
    }
    Ok((name(root), out))
}

/// Which rules `holds` of, where it holds of none but by others of which it does: the least such set. `holds` is told which are known.
fn least(rules: &[Node], holds: impl Fn(&Node, &dyn Fn(usize) -> bool) -> bool) -> Vec<bool> {
    let mut known = vec![false; rules.len()];
    loop {
        let before = known.clone();
        for (id, body) in rules.iter().enumerate() {
            known[id] = known[id] || holds(body, &|id| known[id]);
        }
        if known == before {
            return known;
        }
    }
}

/// A rule that an answer can come to and never leave: none of its texts is finite.
fn endless(rules: &[Node], root: usize) -> Option<usize> {
    let ends = least(rules, Node::ends);
    let (mut seen, mut next) = (vec![false; rules.len()], vec![root]);
    let mut found = None;
    while let Some(id) = next.pop() {
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        found = if ends[id] { found } else { Some(id) };
        rules[id].each_rule(&mut |id| next.push(id));
    }
    found
}

#[derive(Debug)]
enum Node {
    Literal(String),
    /// A regular expression for one character.
    Class(String),
    Rule(usize),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

impl Node {
    fn all_rules(&self, holds: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Node::Literal(_) | Node::Class(_) => true,
            Node::Rule(id) => holds(*id),
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().all(|part| part.all_rules(holds)),
            Node::Repeat(part, _, _) => part.all_rules(holds),
        }
    }

    /// Whether some finite text matches, by the rules of which that is known.
    fn ends(&self, known: &dyn Fn(usize) -> bool) -> bool {
        match self {
            Node::Literal(_) | Node::Class(_) => true,
            Node::Rule(id) => known(*id),
            Node::Sequence(parts) => parts.iter().all(|part| part.ends(known)),
            Node::Choice(parts) => parts.iter().any(|part| part.ends(known)),
            Node::Repeat(part, least, _) => *least == 0 || part.ends(known),
        }
    }

    /// Calls `f` with each rule that the text can come to.
    fn each_rule(&self, f: &mut dyn FnMut(usize)) {
        match self {
            Node::Literal(_) | Node::Class(_) | Node::Repeat(_, _, Some(0)) => {}
            Node::Rule(id) => f(*id),
            Node::Sequence(parts) | Node::Choice(parts) => parts.iter().for_each(|part| part.each_rule(f)),
            Node::Repeat(part, _, _) => part.each_rule(f),
        }
    }

    fn write(&self, name: &dyn Fn(usize) -> String, out: &mut String) {
        match self {
            Node::Literal(text) => *out += &serde_json::Value::from(text.as_str()).to_string(),
            Node::Class(class) => *out += &format!("/{class}/"),
            Node::Rule(id) => *out += &name(*id),
            Node::Sequence(parts) if parts.is_empty() => *out += "\"\"",
            Node::Sequence(parts) => join(parts, " ", name, out),
            Node::Choice(parts) => join(parts, " | ", name, out),
            Node::Repeat(part, least, most) => {
                out.push('(');
                part.write(name, out);
                *out += &match (least, most) {
                    (0, None) => ")*".into(),
                    (1, None) => ")+".into(),
                    (0, Some(1)) => ")?".into(),
                    (least, most) => format!("){{{least},{}}}", most.map(|n| n.to_string()).unwrap_or_default()),
                };
            }
        }
    }
}

fn join(parts: &[Node], between: &str, name: &dyn Fn(usize) -> String, out: &mut String) {
    for (at, part) in parts.iter().enumerate() {
        *out += if at == 0 { "(" } else { between };
        part.write(name, out);
    }
    out.push(')');
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// By the order in which they are first named.
    names: HashMap<&'t str, usize>,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: &'static str) -> GbnfError {
        GbnfError::Line { line: 1 + self.text[..self.at].matches('\n').count(), what }
    }

    /// Steps over white space and comments. Answers whether something is left.
    fn skip(&mut self) -> bool {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            match self.rest().strip_prefix('#') {
                Some(comment) => self.at += 1 + comment.find('\n').unwrap_or(comment.len()),
                None => return !self.rest().is_empty(),
            }
        }
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.rest().starts_with(mark);
        self.at += if found { mark.len() } else { 0 };
        found
    }

    fn expect(&mut self, mark: &str, what: &'static str) -> Result<(), GbnfError> {
        self.skip();
        if self.take(mark) { Ok(()) } else { Err(self.wrong(what)) }
    }

    fn name(&mut self) -> Option<&'t str> {
        let len = self.rest().find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(self.rest().len());
        let name = &self.rest()[..len];
        self.at += len;
        (len > 0).then_some(name)
    }

    fn number(&mut self, name: &'t str) -> usize {
        let next = self.names.len();
        *self.names.entry(name).or_insert(next)
    }

    /// `name ::=`
    fn rule_name(&mut self) -> Result<usize, GbnfError> {
        let name = self.name().ok_or_else(|| self.wrong("a rule's name and `::=` must come here"))?;
        self.expect("::=", "`::=` must come after a rule's name")?;
        Ok(self.number(name))
    }

    /// Sequences parted by `|`.
    fn choice(&mut self, depth_left: usize) -> Result<Node, GbnfError> {
        let depth_left = depth_left.checked_sub(1).ok_or_else(|| self.wrong("there are too many brackets in brackets"))?;
        let mut choices = vec![self.sequence(depth_left)?];
        while self.take("|") {
            choices.push(self.sequence(depth_left)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Node::Choice(choices) })
    }

    fn sequence(&mut self, depth_left: usize) -> Result<Node, GbnfError> {
        let mut parts = Vec::new();
        while self.skip() && !self.rest().starts_with(['|', ')']) && !self.at_rule() {
            let part = match self.rest().as_bytes()[0] {
                b'"' => self.literal()?,
                b'[' => self.class()?,
                b'.' if self.take(".") => Node::Class("(?s:.)".into()),
                b'(' if self.take("(") => {
                    let inner = self.choice(depth_left)?;
                    self.expect(")", "a `(` has no `)`")?;
                    inner
                }
                _ => {
                    let name = self.name().ok_or_else(|| self.wrong("this can't be read"))?;
                    Node::Rule(self.number(name))
                }
            };
            parts.push(self.repeated(part)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Sequence(parts) })
    }

    /// Whether another rule begins here.
    fn at_rule(&mut self) -> bool {
        let before = self.at;
        let begins = self.name().is_some() && self.skip() && self.rest().starts_with("::=");
        self.at = before;
        begins
    }

    fn repeated(&mut self, mut part: Node) -> Result<Node, GbnfError> {
        loop {
            let (least, most) = match self.rest().as_bytes().first() {
                Some(b'*') => (0, None),
                Some(b'+') => (1, None),
                Some(b'?') => (0, Some(1)),
                Some(b'{') => {
                    let len = self.rest().find('}').ok_or_else(|| self.wrong("a `{` has no `}`"))?;
                    let inner = &self.rest()[1..len];
                    self.at += len;
                    let count = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= TIMES_MAX);
                    let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
                    let wrong = || self.wrong("`{` takes one or two numbers, up to 2000");
                    let least = if least.trim().is_empty() { 0 } else { count(least).ok_or_else(wrong)? };
                    (least, if most.trim().is_empty() { None } else { Some(count(most).filter(|n| *n >= least).ok_or_else(wrong)?) })
                }
                _ => return Ok(part),
            };
            self.at += 1;
            part = Node::Repeat(Box::new(part), least, most);
            // Marks after marks (`+*?`) nest too.
            if self.text[..self.at].bytes().rev().take_while(|b| b"*+?}".contains(b)).count() > DEPTH_MAX {
                return Err(self.wrong("too many repetitions of repetitions"));
            }
        }
    }

    fn literal(&mut self) -> Result<Node, GbnfError> {
        self.at += 1;
        let mut text = String::new();
        while !self.take("\"") {
            text.push(self.character()?);
        }
        Ok(Node::Literal(text))
    }

    fn class(&mut self) -> Result<Node, GbnfError> {
        self.at += 1;
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let empty = class.len();
        while !self.take("]") {
            let first = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let last = if is_range && self.take("-") { self.character()? } else { first };
            if last < first {
                return Err(self.wrong("a range of characters ends before it begins"));
            }
            let _ = write!(class, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(first), u32::from(last));
        }
        if class.len() == empty {
            return Err(self.wrong("a class of no characters"));
        }
        class.push(']');
        Ok(Node::Class(class))
    }

    /// One character of a literal or a class, perhaps escaped.
    fn character(&mut self) -> Result<char, GbnfError> {
        let mut chars = self.rest().chars();
        let c = chars.next().ok_or_else(|| self.wrong("the grammar ends within quotes or brackets"))?;
        self.at += c.len_utf8();
        if c != '\\' {
            return Ok(c);
        }
        let escape = chars.next().ok_or_else(|| self.wrong("the grammar ends within an escape"))?;
        self.at += escape.len_utf8();
        let digits = match escape {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c if c.is_ascii_punctuation() => return Ok(c),
            _ => return Err(self.wrong("this escape is not known")),
        };
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        let code = code.ok_or_else(|| self.wrong("an escape names no character"))?;
        self.at += digits;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_rules_and_what_does_not_recur_a_terminal() {
        let lark = to_lark(
            "# a list\nroot ::= \"[\" item (\",\" item)* \"]\"\nitem ::= word | root\n\nword ::= [a-z\\-]{2,3} | \"\\u00e9\\\"\" .?\n",
        )
        .unwrap();
        let expected = "g0: (\"[\" g1 ((\",\" g1))* \"]\")\ng1: (T2 | g0)\nT2: ((/[\\x{61}-\\x{7a}\\x{2d}-\\x{2d}]/){2,3} | (\"é\\\"\" (/(?s:.)/)?))\n";
        assert_eq!(lark, ("g0".into(), expected.into()));
    }

    #[test]
    fn a_rule_that_no_text_ends_is_named_wherever_an_answer_can_come_to_it() {
        let endless = |text: &str| match to_lark(text) {
            Err(GbnfError::Endless(name)) => Some(name),
            Err(other) => panic!("{text}: {other}"),
            Ok(_) => None,
        };
        for text in [
            "root ::= \"a\" b\nb ::= b",
            "root ::= \"a\" b?\nb ::= \"x\" b",
            "root ::= \"a\" | \"x\" b\nb ::= c | \"y\" b\nc ::= (\"z\" b)+",
            "root ::= (\"a\" b)*\nb ::= \"x\"* b \"y\"{0,3}",
        ] {
            assert!(matches!(endless(text).as_deref(), Some("b" | "c")), "{text}");
        }
        assert_eq!(endless("root ::= root").as_deref(), Some("root"));
        for text in [
            "root ::= \"a\" b\nb ::= \"x\" b | \"y\"",
            "root ::= \"a\" b\nb ::= \"x\" b?",
            "root ::= b\nb ::= \"(\" b* \")\"",
            "root ::= \"a\"\nnobody-asks ::= nobody-asks",
            "root ::= \"a\" b{0}\nb ::= b",
        ] {
            assert_eq!(endless(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let line = |text: &str| match to_lark(text) {
            Err(GbnfError::Line { line, .. }) => line,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(line("root ::= \"a\"\nb ::= (\"c\"\n"), 3);
        assert_eq!(line("root ::= [z-a]"), 1);
        assert_eq!(line("root = x"), 1);
        assert_eq!(line("root ::= \"a\"{2,1}"), 1);
        assert_eq!(line("root ::= \"a"), 1);
        assert_eq!(line(&format!("root ::= {}", "(".repeat(5000))), 1);
        assert_eq!(line(&format!("root ::= \"a\"{}", "*".repeat(5000))), 1);
        assert_eq!(to_lark("a ::= \"b\""), Err(GbnfError::NoRule("root".into())));
        assert_eq!(to_lark("root ::= leaf"), Err(GbnfError::NoRule("leaf".into())));
    }
}
