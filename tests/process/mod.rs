//! What tests start: each process and each reply has a deadline, so that a fault fails its test in words instead of holding up the run.
//! A folder, for a file of this name in `tests/` would be a test of its own; each test crate takes what it needs.

#![allow(dead_code, reason = "no crate needs all of it")]

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Far beyond what anything here takes, half a minute at most, also on a machine that stands still for a while; a test that reaches it has
/// failed.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Between two looks at what has no event to wait for: a look costs a process or a read, and the machine has other work.
pub const POLL: Duration = Duration::from_millis(50);

/// Of a process that was just killed, to hand over its last words.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a command without input to its end.
#[track_caller]
pub fn ended(command: &mut Command) -> Output {
    end_of(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")),
    )
}

/// Waits for the end of a process that runs, and for what it still says.
#[track_caller]
pub fn end_of(child: Child) -> Output {
    let process = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    if let Ok(output) = told.recv_timeout(DEADLINE) {
        return output.unwrap();
    }
    let _ = kill_process(process, Signal::KILL);
    panic!("no end after {DEADLINE:?}; it was killed: {:?}", told.recv_timeout(LAST_WORDS));
}

/// The same of a process whose words go elsewhere. Polls, since a child's end has no event that std could wait for with a deadline.
#[track_caller]
pub fn wait(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() >= DEADLINE {
            let _ = child.kill();
            panic!("no end after {DEADLINE:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// Waits for something to read. (Not by the socket's own timeout: where there is one, a read fails when the tests are stopped meanwhile, as
/// by Ctrl-Z, and go on.)
pub fn in_time(from: impl AsFd) -> io::Result<()> {
    let deadline = Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    match retry_on_intr(|| poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&deadline)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing came in {DEADLINE:?}"))),
        _ => Ok(()),
    }
}

/// A pipe or a socket whose next bytes come by the deadline, or it fails.
pub struct InTime<R>(pub R);

impl<R: Read + AsFd> Read for InTime<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        in_time(&self.0)?;
        self.0.read(buffer)
    }
}

/// A process that does not outlive its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
