//! Where the daemon's words go: to the journal with their fields when systemd connected our stderr to it, else to stderr.
//!
//! Events of the target [`CATALOGUED`] keep their fields' names as they are, so that their `MESSAGE_ID` is the journal's; the fields of
//! all others get the prefix `HEARTH_`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Wins over the configuration.
const VARIABLE: &str = "HEARTH_LOG";
/// Events that are in the message catalogue: see [`super::notices`].
pub const CATALOGUED: &str = "hearth::catalogued";

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{place} is no filter for logs: {source}; try `info` or `hearth=debug`")]
    Filter { place: &'static str, source: tracing_subscriber::filter::ParseError },
}

/// Logs from here on. `filter` comes from the configuration.
pub fn start(filter: &str) -> Result<(), LogError> {
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter).map_err(|source| LogError::Filter { place: VARIABLE, source })?,
        _ => EnvFilter::try_new(filter).map_err(|source| LogError::Filter { place: "`log.filter` of the configuration", source })?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let is_catalogued = |about: &Metadata<'_>| about.target() == CATALOGUED;
    // A second call (in a test of the same process) keeps the first.
    let _ = match journal() {
        Some([all, catalogued]) => registry
            .with(all.with_field_prefix(Some("HEARTH".into())).with_filter(filter_fn(move |about| !is_catalogued(about))))
            .with(catalogued.with_field_prefix(None).with_filter(filter_fn(is_catalogued)))
            .try_init(),
        None => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::layer().with_writer(Stderr).with_ansi(colours).with_target(false).without_time();
            registry.with(lines).try_init()
        }
    };
    Ok(())
}

/// The journal's own protocol, where stderr is the journal's.
fn journal() -> Option<[tracing_journald::Layer; 2]> {
    if !is_stream(&std::env::var("JOURNAL_STREAM").ok()?, std::io::stderr().as_fd()) {
        return None;
    }
    Some([tracing_journald::layer().ok()?, tracing_journald::layer().ok()?])
}

/// Whether `word`, `DEVICE:INODE`, means this open file. systemd sets it for the stream it opened; a child whose stderr went elsewhere
/// inherits the word, but not the stream.
fn is_stream(word: &str, file: BorrowedFd<'_>) -> bool {
    let about = file.try_clone_to_owned().and_then(|file| File::from(file).metadata());
    about.is_ok_and(|about| word == format!("{}:{}", about.dev(), about.ino()))
}

/// stderr, whose reader may go away: a word that nobody takes must not end the daemon.
#[derive(Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(std::io::stderr().write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        Stderr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_systemd_opened_is_the_journals() {
        let (ours, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let about = ours.metadata().unwrap();
        let word = format!("{}:{}", about.dev(), about.ino());
        assert!(is_stream(&word, ours.as_fd()));
        assert!(!is_stream(&word, other.as_fd()));
        assert!(!is_stream("", ours.as_fd()) && !is_stream("8:", ours.as_fd()));
    }
}
