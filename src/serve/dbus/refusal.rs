//! `org.hearth.Error.*`.

use super::carried;
use crate::service::Error;
use zbus::DBusError;

/// Each carries plain words with the next step.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.hearth.Error")]
pub enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    Busy(String),
    NotReady(String),
    BadRequest(String),
    ContextFull(String),
    TooHot(String),
    Cancelled(String),
    NotFound(String),
    NoMemory(String),
    Failed(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let words = carried(error.to_string());
        match error {
            Error::Busy(_) => Refusal::Busy(words),
            Error::NotReady(_) => Refusal::NotReady(words),
            Error::BadRequest { .. } => Refusal::BadRequest(words),
            Error::ContextFull { .. } => Refusal::ContextFull(words),
            Error::TooHot => Refusal::TooHot(words),
            Error::Cancelled => Refusal::Cancelled(words),
            Error::NotFound(_) => Refusal::NotFound(words),
            Error::NoMemory(_) => Refusal::NoMemory(words),
            Error::Failed(_) => Refusal::Failed(words),
        }
    }
}
