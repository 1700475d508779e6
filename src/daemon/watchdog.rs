//! Whether the engine turns. systemd hears of us only while it does: a heartbeat that moved, or an engine that answered a nudge.

use crate::service::Model;
use std::sync::{Arc, Weak};

/// The heartbeat as it was at the last tick.
#[derive(Debug, Default)]
pub struct Pulse {
    seen: Option<(Weak<Model>, u64)>,
}

impl Pulse {
    /// To be called at every tick: whether there was a beat since the last. Asks for the next one.
    pub fn beats(&mut self, model: &Arc<Model>) -> bool {
        let now = model.heartbeat();
        let same_as = |(seen, beat): &(Weak<Model>, u64)| std::ptr::eq(seen.as_ptr(), Arc::as_ptr(model)) && *beat == now;
        let stands_still = self.seen.as_ref().is_some_and(same_as);
        self.seen = Some((Arc::downgrade(model), now));
        model.nudge();
        !stands_still
    }
}
