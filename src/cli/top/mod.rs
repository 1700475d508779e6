//! `hearth top`: the running daemon, live: speed, heat, clock, headroom, queue, and what the governor does and why.
//!
//! [`feed`] listens to the daemon's socket and nothing else, [`history`] remembers the last minutes, [`screen`] draws. The terminal is put
//! back at the end, on a panic and on a signal.

mod feed;
mod history;
mod screen;

use super::socket::SocketArg;
use anyhow::{Context, bail};
use feed::News;
use history::History;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    at: SocketArg,
}

/// Between two looks at keys and news: a key is answered at once, as far as a person feels.
const LOOK: Duration = Duration::from_millis(100);

pub fn run(args: Args) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        bail!("top draws on a terminal; `hearth status --json` is for pipes");
    }
    let news = feed::start(args.at.socket.clone())?;
    let mut history = History::new(args.at.socket.display().to_string());
    let colors = screen::Colors::of(std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()));
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
    // Whatever way this ends, the terminal is the person's again; a panic is seen to by the hook that `try_init` set.
    let ended = (|| -> anyhow::Result<()> {
        loop {
            loop {
                match news.try_recv() {
                    Ok(News::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                    Ok(news) => history.take(news, Instant::now()),
                    Err(TryRecvError::Empty) => break,
                }
            }
            terminal.draw(|frame| screen::draw(frame, &history, &colors, Instant::now())).context("drawing")?;
            if is_hung_up(std::io::stdin(), LOOK) {
                return Ok(());
            }
            while event::poll(Duration::ZERO).context("the keyboard")? {
                if event::read().is_ok_and(|e| quits(&e)) {
                    return Ok(());
                }
            }
        }
    })();
    if is_hung_up(std::io::stdin(), Duration::ZERO) {
        // A terminal that has gone can neither be given back nor told that it can't, which dropping it would try.
        std::mem::forget(terminal);
        return Ok(());
    }
    ratatui::restore();
    ended
}

/// Waits for a key, at most `for_at_most`, and tells whether the terminal has gone meanwhile. That has to be asked before the keyboard is:
/// crossterm reads the end of a terminal that is gone again and again, and never comes back from it.
fn is_hung_up(keyboard: impl AsFd, for_at_most: Duration) -> bool {
    let mut keys = [PollFd::new(&keyboard, PollFlags::IN)];
    let wait = Timespec { tv_sec: for_at_most.as_secs() as i64, tv_nsec: for_at_most.subsec_nanos().into() };
    // A signal may end the wait early, which is a look more.
    poll(&mut keys, Some(&wait)).is_ok() && keys[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// q, Escape and Ctrl-C end it.
fn quits(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else { return false };
    match code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_has_gone_is_noticed_and_one_that_is_silent_is_not_taken_for_it() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_hung_up(&ours, Duration::ZERO));
        std::io::Write::write_all(&mut &theirs, b"q").unwrap();
        assert!(!is_hung_up(&ours, Duration::from_millis(100)));
        drop(theirs);
        assert!(is_hung_up(&ours, Duration::from_millis(100)));
    }

    #[test]
    fn q_escape_and_control_c_quit_and_other_keys_do_not() {
        let key = |code, modifiers| quits(&Event::Key(KeyEvent::new(code, modifiers)));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !key(KeyCode::Enter, KeyModifiers::NONE));
        assert!(!quits(&Event::Resize(10, 10)));
    }
}
