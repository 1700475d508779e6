//! A clock that wakes once a ring. Tokio's own timer wakes once for each level of its wheel that lies before a deadline: twice for a second,
//! three times from four seconds on; and once more where it is set anew. A daemon at rest does little else than wake.

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use std::io;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// The kernel's timer. It is read as a pipe is, where each ring has written eight bytes.
pub struct Alarm(Receiver);

impl Alarm {
    /// Does not ring yet. Tokio has to be running.
    pub fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Alarm(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Rings once, `after` so long from now. What was set before is forgotten, and what has rung and was not heard.
    pub fn set(&self, after: Duration) {
        // A timer set to 0 would never ring.
        let after = Timespec::try_from(after.max(Duration::from_nanos(1))).expect("a time that somebody waits for");
        let times = Itimerspec { it_value: after, it_interval: Timespec::default() };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &times).expect("a timer takes every such time");
    }

    /// Waits until it rings.
    pub async fn ring(&self) {
        loop {
            if self.0.readable().await.is_err() {
                // The runtime ends.
                return std::future::pending().await;
            }
            if self.0.try_read(&mut [0; 8]).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn it_rings_when_it_is_time_and_as_it_was_set_last() {
        let alarm = Alarm::new().unwrap();
        let time = Duration::from_millis(20);
        for _ in 0..2 {
            let start = Instant::now();
            alarm.set(time);
            alarm.ring().await;
            assert!(start.elapsed() >= time);
            // It rings, and is not heard.
            alarm.set(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
