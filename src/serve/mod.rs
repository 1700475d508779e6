//! The ways in: [`http`] on the Unix socket, [`dbus`] on the bus. Each parses, calls the service, and formats; the verbs live in the
//! service, once.
//!
//! - [`Shared`]: what both are given by the daemon.
//! - [`wire`]: a request as JSON in OpenAI's fields, which both take.
//! - [`followed`]: an answer on its way out, counted; [`counts`]: what is counted, and its Prometheus text.
//! - [`thermal`]: what the daemon tells of board and governor.
//!
//! No socket is bound and no signal is handled here: the daemon does that.

pub mod counts;
pub mod dbus;
pub mod followed;
pub mod http;
pub mod thermal;
pub mod wire;

use crate::service::{Error, Model, Service};
use counts::Counts;
use followed::Followed;
use std::sync::Arc;
use std::time::Duration;
use thermal::{Followers, Holds, Thermal};
use tokio::sync::watch;

/// The version that clients are told.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every way in works with. Clones are handles to the same.
#[derive(Clone)]
pub struct Shared {
    pub service: Service,
    pub counts: Arc<Counts>,
    /// The latest of board and governor.
    pub thermal: watch::Receiver<Arc<Thermal>>,
    /// Who follows it as it comes.
    pub followers: Followers,
    /// Modes that clients hold; the daemon's tick looks at them.
    pub holds: Arc<watch::Sender<Holds>>,
    /// Between signs of life on a stream that has no words yet.
    pub keep_alive: Duration,
}

impl Shared {
    /// Asks the model, and counts whatever comes of it.
    pub fn ask(&self, model: &Model, ask: impl FnOnce(&Model) -> Result<crate::service::Answer, Error>) -> Result<Followed, Error> {
        match ask(model) {
            Ok(answer) => Ok(Followed::new(answer, self.counts.clone())),
            Err(error) => {
                self.counts.refused(&error);
                Err(error)
            }
        }
    }
}
