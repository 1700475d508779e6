//! The way to a running daemon over D-Bus: the answer comes through a pipe, a JSON object a line.

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd as StdFd;
use zbus::{Connection, OwnedFd, OwnedObjectPath, Proxy, Variant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BusChoice {
    System,
    Session,
}

/// An answer on its way. Dropping it leaves the bus, which ends the job.
pub struct Lines {
    _connection: Connection,
    lines: BufReader<File>,
}

impl Lines {
    /// `Engine1.Chat` with a request as the socket takes it.
    pub async fn chat(bus: BusChoice, request: &Value) -> anyhow::Result<Lines> {
        let connection = match bus {
            BusChoice::System => Connection::system().await,
            BusChoice::Session => Connection::session().await,
        };
        let connection = connection.with_context(|| format!("the {bus:?} bus can't be reached"))?;
        let engine = Proxy::new(&connection, "org.hearth.Hearth1", "/org/hearth/Hearth1", "org.hearth.Engine1").await?;
        let no_options = HashMap::<&str, Variant<'_>>::new();
        let reply: Result<(OwnedObjectPath, OwnedFd), zbus::Error> = engine.call("Chat", &(request.to_string(), no_options)).await;
        let (_, stream) = reply.map_err(|e| match e {
            zbus::Error::MethodError(_, Some(message), _) => anyhow!("{message}"),
            other => anyhow!("the daemon can't be asked over the bus: {other}"),
        })?;
        Ok(Lines { _connection: connection, lines: BufReader::new(File::from(StdFd::from(stream))) })
    }

    /// The next line; `None` at the end. An error line becomes an error.
    pub fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("the daemon's pipe")? == 0 {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(&line).context("the daemon sent a line that is no JSON")?;
        match value["error"]["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => Ok(Some(value)),
        }
    }
}
