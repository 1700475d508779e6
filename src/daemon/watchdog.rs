//! Whether the engine turns. systemd hears of us only while it does: a heartbeat that moved, an engine that answered a nudge, or a step
//! that waits for the model's pages and gets them. A card that reads 20 MB/s makes a step of a large model last longer than systemd's
//! patience, and is no fault.

use crate::service::Model;
use std::sync::{Arc, Weak};

/// The heartbeat as it was at the last look.
#[derive(Debug, Default)]
pub struct Pulse {
    seen: Option<(Weak<Model>, u64)>,
    pages_read: Option<u64>,
}

impl Pulse {
    /// To be called at every look: whether the engine got on since the last. Asks for the next beat.
    pub fn beats(&mut self, model: &Arc<Model>) -> bool {
        let now = model.heartbeat();
        let same_as = |(seen, beat): &(Weak<Model>, u64)| std::ptr::eq(seen.as_ptr(), Arc::as_ptr(model)) && *beat == now;
        let stands_still = self.seen.as_ref().is_some_and(same_as);
        self.seen = Some((Arc::downgrade(model), now));
        model.nudge();
        let pages = pages_read();
        let pages_come = std::mem::replace(&mut self.pages_read, pages) < pages;
        !stands_still || pages_come
    }
}

/// Pages that the daemon had to wait for since its start: field 12 of proc_pid_stat(5), `majflt`; the name in field 2 may hold spaces.
fn pages_read() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_read_are_counted_here() {
        assert!(pages_read().is_some());
    }
}
