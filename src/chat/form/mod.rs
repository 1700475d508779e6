//! The form that an answer is to have: JSON by a schema, or calls of tools in the model's own way of writing them.
//!
//! Here: [`Form`], a small language for such forms, and [`Hold`], what a request can ask for. [`calls`] writes calls in each dialect,
//! so that what is asked for here is what [`super::deltas`] reads. Who turns a form into tokens is the service's `grammar`.

mod calls;

use super::deltas::Format;
use super::message::Tool;
use serde_json::Value as Json;

/// What a text has to look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Exactly this; special tokens are written by their names.
    Text(String),
    /// A JSON value that fits the schema.
    Json(Json),
    /// What a grammar in llama.cpp's notation (GBNF) says; at most one in a form.
    Grammar(String),
    /// Anything up to this mark, and the mark.
    Until(String),
    /// Anything.
    Free,
    /// A little white space, or none.
    Space,
    Sequence(Vec<Form>),
    /// One of these; none of none.
    OneOf(Vec<Form>),
    Optional(Box<Form>),
    /// Once or several times.
    Repeated(Box<Form>),
}

/// What an answer is held to.
#[derive(Debug, Clone, Copy)]
pub enum Hold<'a> {
    /// A JSON value that fits this schema.
    Json(&'a Json),
    /// A grammar in llama.cpp's notation.
    Grammar(&'a str),
    /// A call of one of the tools, or `several`, and nothing else.
    Calls { several: bool },
    /// Anything, but what begins as a call is one, and ends the answer unless there may be `several`.
    Talk { several: bool },
}

impl Form {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn optional(self) -> Self {
        Self::Optional(Box::new(self))
    }

    pub fn repeated(self) -> Self {
        Self::Repeated(Box::new(self))
    }
}

/// The form of the answer to `prompt` by a model that writes as `format` says. `thinks`: it may think first; a thought is free.
///
/// `None` where the format has no form for this: a dialect that is not known, or calls that can't be told from talk as they begin.
pub fn form(format: &Format, tools: &[Tool], prompt: &str, thinks: bool, hold: Hold<'_>) -> Option<Form> {
    if format.harmony {
        return calls::harmony(tools, hold);
    }
    let thought = |marks: super::deltas::Marks| [Form::Until(marks.close.into()), Form::Space];
    let opened = format.thought_opened_by(prompt);
    let mut parts = match (opened, format.reasoning.filter(|_| thinks)) {
        (Some(marks), _) => Vec::from(thought(marks)),
        // What may be the beginning of a thought and of talk can't be held to either.
        (None, Some(_)) if matches!(hold, Hold::Talk { .. }) => return None,
        (None, Some(marks)) => {
            let whole = [Form::text(marks.open)].into_iter().chain(thought(marks)).collect();
            vec![Form::Sequence(whole).optional()]
        }
        (None, None) => Vec::new(),
    };
    parts.push(match hold {
        Hold::Json(schema) => match calls::whole(format, tools, true) {
            Some(calls) if !tools.is_empty() => Form::OneOf(vec![Form::Json(schema.clone()), calls]),
            _ => Form::Json(schema.clone()),
        },
        Hold::Grammar(grammar) => Form::Grammar(grammar.to_owned()),
        Hold::Calls { several } => calls::whole(format, tools, several)?,
        Hold::Talk { several } => calls::within_talk(format, tools, several)?,
    });
    Some(Form::Sequence(parts))
}
