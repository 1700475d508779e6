//! Where the daemon's words go: to the journal with their fields when systemd started us, else to stderr.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Wins over the configuration.
const VARIABLE: &str = "HEARTH_LOG";

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
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    // A second call (in a test of the same process) keeps the first.
    let _ = match journal {
        Some(journal) => registry.with(journal.with_field_prefix(Some("HEARTH".into()))).try_init(),
        None => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false).without_time();
            registry.with(lines).try_init()
        }
    };
    Ok(())
}
