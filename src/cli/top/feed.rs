//! News from the daemon's socket, on a thread of its own: reports of heat as they come, counts every two seconds. A daemon that is lost is
//! looked for again, every second.

use crate::cli::socket::{Events, block_on, json, text};
use anyhow::Context;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

const AGAIN: Duration = Duration::from_secs(1);
const COUNTS_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub enum News {
    /// What `/v1/thermal` says.
    Thermal(Value),
    Counts(Counts),
    /// No daemon answers: why.
    Lost(String),
    /// Somebody asked this program to end.
    Stop,
}

/// From `/health`, `/v1/models` and `/metrics`. What is not told is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// `ok`, or what the daemon is doing instead.
    pub state: String,
    pub model: String,
    pub running: Option<f64>,
    pub waiting: Option<f64>,
    pub generated: Option<f64>,
    pub resident_bytes: Option<f64>,
}

/// Begins to listen; ends when nobody takes the news any more.
pub fn start(socket: PathBuf) -> anyhow::Result<Receiver<News>> {
    let (tell, news) = channel();
    let thread = std::thread::Builder::new().name("feed".into());
    thread.spawn(move || {
        let told = tell.clone();
        if let Err(error) = block_on(listen(&socket, &tell)) {
            // Nobody may be left to hear it.
            let _ = told.send(News::Lost(format!("{error:#}")));
        }
    })?;
    Ok(news)
}

async fn listen(socket: &Path, tell: &Sender<News>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("signals")?;
    let mut hang_up = signal(SignalKind::hangup()).context("signals")?;
    let stop = async {
        tokio::select! { _ = term.recv() => (), _ = hang_up.recv() => () }
    };
    tokio::select! {
        () = stop => { let _ = tell.send(News::Stop); }
        () = reports(socket, tell) => (),
        () = counts(socket, tell) => (),
    }
    Ok(())
}

/// Ends when nobody listens.
async fn reports(socket: &Path, tell: &Sender<News>) {
    loop {
        let why = match Events::ask(socket, "/v1/thermal", None).await {
            Ok(mut events) => loop {
                let report = match events.next().await {
                    Ok(Some(report)) => report,
                    Ok(None) => break "the daemon has ended".to_owned(),
                    Err(error) => break format!("{error:#}"),
                };
                if tell.send(News::Thermal(report)).is_err() {
                    return;
                }
            },
            Err(error) => format!("{error:#}"),
        };
        if tell.send(News::Lost(why)).is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn counts(socket: &Path, tell: &Sender<News>) {
    let mut beat = interval(COUNTS_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        // A daemon that is away is told of by the other.
        if let Ok(counts) = look(socket).await
            && tell.send(News::Counts(counts)).is_err()
        {
            return;
        }
    }
}

async fn look(socket: &Path) -> anyhow::Result<Counts> {
    let health = json(socket, "/health").await?;
    let models = json(socket, "/v1/models").await?;
    Ok(counted(&health, &models, &text(socket, "/metrics").await?))
}

fn counted(health: &Value, models: &Value, metrics: &str) -> Counts {
    let metric = |name: &str| metrics.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok());
    Counts {
        state: health["status"].as_str().or(health["error"]["message"].as_str()).unwrap_or("unknown").to_owned(),
        model: models["data"][0]["id"].as_str().unwrap_or_default().to_owned(),
        running: metric("hearth_requests{state=\"running\"}"),
        waiting: metric("hearth_requests{state=\"waiting\"}"),
        generated: metric("hearth_generated_tokens_total"),
        resident_bytes: metric("hearth_resident_bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use serde_json::json;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// Far more than a try at the socket takes, so that a stalled machine does not fail.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn counts_are_read_from_the_metrics_text() {
        let metrics = "# TYPE hearth_requests gauge\nhearth_requests{state=\"running\"} 2\nhearth_requests{state=\"waiting\"} 5\nhearth_generated_tokens_total 1234\n";
        let counts = counted(&json!({"status": "ok"}), &json!({"data": [{"id": "SmolLM2"}]}), metrics);
        assert_eq!((counts.running, counts.waiting, counts.generated, counts.resident_bytes), (Some(2.0), Some(5.0), Some(1234.0), None));
        assert_eq!((counts.state.as_str(), counts.model.as_str()), ("ok", "SmolLM2"));
        assert_eq!(counted(&json!({"error": {"message": "Loading model: 5 %"}}), &json!(null), "").state, "Loading model: 5 %");
    }

    /// Reads a request's head and answers a stream of events; the counts' requests get nothing.
    fn serve(listener: &UnixListener, events: &str) {
        loop {
            let (mut stream, _) = listener.accept().expect("a try at the socket");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            if head.starts_with(b"GET /v1/thermal") {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}").as_bytes()).unwrap();
                return;
            }
        }
    }

    #[test]
    fn a_daemon_that_is_lost_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let news = start(socket.clone()).unwrap();
        let next = || loop {
            match news.recv_timeout(PATIENCE).expect("news") {
                News::Thermal(v) => return Ok(v["temperature"].as_f64().unwrap()),
                News::Lost(why) => return Err(why),
                _ => (),
            }
        };
        assert!(next().unwrap_err().contains("no daemon answers here"));
        let listener = UnixListener::bind(&socket).unwrap();
        set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE)).unwrap();
        serve(&listener, "data: {\"temperature\": 51.5}\n\n");
        // Lines about tries before the socket was there may come first.
        let first = std::iter::repeat_with(next).find_map(Result::ok);
        assert_eq!(first, Some(51.5));
        assert_eq!(next(), Err("the daemon has ended".to_owned()));
        serve(&listener, "data: {\"temperature\": 52.5}\n\n");
        assert_eq!(std::iter::repeat_with(next).find_map(Result::ok), Some(52.5));
    }
}
