//! A line on stderr with the time left, for what takes longer than two seconds. Nothing where stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::time::Duration;

/// Until then nothing is shown: a line that comes and goes is a flicker.
const AFTER: Duration = Duration::from_secs(2);

/// One piece of work, from here until it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// `what` stands before the bar: `reading the model`.
    pub fn new(what: &'static str) -> Progress {
        Progress::shown(what, "{prefix} {bar:24} {percent:>3} %, {eta} left  {msg}")
    }

    /// As [`Progress::new`], for work by the clock, whose caller knows the time left better than its pace tells, and says it.
    pub fn timed(what: &'static str) -> Progress {
        Progress::shown(what, "{prefix} {bar:24} {percent:>3} %, {msg}")
    }

    fn shown(what: &'static str, template: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let later = bar.clone();
        // A thread, since the work may not say a word for minutes. indicatif shows nothing where stderr is no terminal.
        let thread = std::thread::Builder::new().name("progress".into());
        let started = thread.spawn(move || {
            std::thread::sleep(AFTER);
            if !later.is_finished() {
                let style = ProgressStyle::with_template(template);
                later.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                later.set_prefix(what);
                later.set_draw_target(ProgressDrawTarget::stderr());
                later.enable_steady_tick(Duration::from_secs(1));
            }
        });
        // Work goes on without a line.
        drop(started);
        Progress(bar)
    }

    /// `done` of `all`, in any unit.
    pub fn at(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    /// A word on how it goes.
    pub fn say(&self, word: String) {
        self.0.set_message(word);
    }

    /// A line that stays, above the progress.
    pub fn note(&self, line: &str) {
        // The terminal may be gone, which is no reason to end the work.
        self.0.suspend(|| _ = writeln!(std::io::stderr(), "{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A model that loads.
impl crate::backend::Progress for Progress {
    fn loaded(&self, done: u64, total: u64) -> bool {
        self.at(done, total);
        true
    }
}
