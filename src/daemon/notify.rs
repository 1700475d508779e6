//! What systemd is told. Without a systemd that listens, all of this is silent.

use sd_notify::NotifyState;
use std::time::Duration;

/// While a model loads, each sign of progress buys this much time. A slow card reads some MB/s, so a tensor can take a while.
const MORE_TIME: Duration = Duration::from_secs(60);

pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Still loading, and getting on.
pub fn loading(status: &str) {
    send(&[NotifyState::ExtendTimeoutUsec(MORE_TIME.as_micros() as u32), NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Only to one who asked for it: a reader that does not read would hold us.
pub fn watchdog() {
    if watchdog_interval().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

/// Within how long [`watchdog`] has to be called, if at all.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd can't be told");
    }
}
