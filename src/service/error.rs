//! What can go wrong with a request, in the words that every way in shares (`org.hearth.Error.*`, HTTP's `type`).

use crate::engine::Refused;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The queue is full; the same request may succeed in a moment.
    #[error("{0}")]
    Busy(String),
    /// There is no model now.
    #[error("{0}")]
    NotReady(String),
    /// `param` is the name of the field as the wire formats have it.
    #[error("`{param}`: {message}")]
    BadRequest { param: &'static str, message: String },
    #[error(
        "the prompt has {prompt_tokens} tokens, and the context holds {context} with the answer; shorten the conversation, or load the \
         model with a larger context"
    )]
    ContextFull { prompt_tokens: usize, context: usize },
    #[error("the board is too hot for another request; try again when it has cooled down")]
    TooHot,
    #[error("the request was cancelled")]
    Cancelled,
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    NoMemory(String),
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The last part of the error's name on the bus.
    pub fn word(&self) -> &'static str {
        match self {
            Error::Busy(_) => "Busy",
            Error::NotReady(_) => "NotReady",
            Error::BadRequest { .. } => "BadRequest",
            Error::ContextFull { .. } => "ContextFull",
            Error::TooHot => "TooHot",
            Error::Cancelled => "Cancelled",
            Error::NotFound(_) => "NotFound",
            Error::NoMemory(_) => "NoMemory",
            Error::Failed(_) => "Failed",
        }
    }

    pub(super) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Error::BadRequest { param, message: message.into() }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy { .. } => Error::Busy(refused.to_string()),
            Refused::ContextFull { prompt, context } => Error::ContextFull { prompt_tokens: prompt, context },
            Refused::Empty | Refused::Token { .. } => Error::bad("prompt", refused.to_string()),
            Refused::Closed => Error::TooHot,
            Refused::Stopping => Error::NotReady(refused.to_string()),
            Refused::Failed(_) => Error::Failed(refused.to_string()),
        }
    }
}
