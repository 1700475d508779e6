//! `hearthd`: starts in order, answers, stops in order.
//!
//! Start: configuration, logs, sockets (so that nobody who comes early is turned away), HTTP, the bus, the model in the background,
//! READY=1. Stop: no new requests, answers end with a last event, connections close, the model goes, the socket's file goes.
//!
//! - [`config`]: the file and its checks; [`log`]: where words go; [`socket`]: the Unix socket; [`notify`]: what systemd is told.
//! - [`run`]: the loop. [`load`]: a model on its way in, at the start and at a reload; [`watchdog`]: whether the engine turns.
//! - [`tick`]: board, governor, engine and the board's levers, once a second; [`rest`]: when less often; [`work`]: what the engine did;
//!   [`told`]: what clients are told; [`notices`]: what the journal is; [`trace`]: a record to replay; [`power_saver`]: the desktop's wish.
//! - [`alarm`]: what wakes loop and tick.
//!
//! No request is read here and no answer written: that is `serve`'s.

mod alarm;
pub mod config;
mod load;
mod log;
mod notices;
mod notify;
mod power_saver;
mod rest;
mod run;
mod socket;
mod tick;
mod told;
mod trace;
mod watchdog;
mod work;

use clap::Parser;
use config::{Config, ConfigError};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Threads for sockets, bus, signals and the tick; the engine and the kernels have their own.
const THREADS: usize = 2;
/// At the very end, for work that nobody waits for any more (a template, a load that was given up).
const LINGER: Duration = Duration::from_millis(100);

/// The Hearth daemon: loads a model and answers on a Unix socket and on D-Bus.
#[derive(Parser)]
#[command(name = "hearthd", version, max_term_width = 100)]
struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Check the configuration, and end
    #[arg(long)]
    check: bool,
}

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] log::LogError),
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    #[error(transparent)]
    Bus(#[from] crate::serve::dbus::BusError),
    #[error("the runtime can't be started: {0}")]
    Runtime(std::io::Error),
    #[error("no model: {0}")]
    Model(String),
    #[error("the engine failed: {0}")]
    Engine(String),
}

/// Runs the daemon to its end: 0 when it was asked to stop, 1 with one line on stderr when it had to.
pub fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearthd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<(), Error> {
    let config = Config::read(&args.config)?;
    log::start(&config.log.filter)?;
    if args.check {
        return Ok(());
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("hearthd").enable_all();
    let runtime = crate::runtime::build(&mut builder).map_err(Error::Runtime)?;
    let sockets = socket::open(&config.serve)?;
    let ended = runtime.block_on(run::run(args.config, config, sockets));
    runtime.shutdown_timeout(LINGER);
    ended
}
