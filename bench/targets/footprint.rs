//! What running costs besides speed: memory, time to start, and rest between requests.

use crate::hearth::Run;
use crate::speeds::Bench;
use crate::table::Figure;
use anyhow::{Context, ensure};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HEARTHD: &str = env!("CARGO_BIN_EXE_hearthd");
const MIB: f64 = 1048576.0;
/// Keys and values of 2048 tokens in the 1B shape: 16 layers, 8 heads of 64, two bytes each.
const KV_BYTES: f64 = (2 * 16 * 8 * 64 * 2 * 2048) as f64;
/// How long a daemon at rest is watched: what it does once a minute is seen twice.
const IDLE: Duration = Duration::from_secs(120);
/// Longest a daemon may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn memory(bench: &mut Bench) -> anyhow::Result<()> {
    let model = bench.model("Q4_K_M")?;
    let allowed = fs::metadata(&model)?.len() as f64 + KV_BYTES + 25.0 * MIB;
    let peak = |prefill| {
        let run = Run { context: Some(2048), prefill, ..Run::on(bench.threads) };
        Ok::<_, anyhow::Error>(run.bench(&model)?.peak_rss_bytes / MIB)
    };
    let (some, all) = (peak(512)?, peak(1984)?);
    bench.table.at_most("peak resident memory, context 2048, f16, prompt of 512", some, allowed / MIB, "MiB");
    bench.table.at_most("the same with every position used", all, allowed / MIB, "MiB");
    Ok(())
}

/// Starts with the file in the page cache, then without it; then the daemon at rest.
pub fn start(bench: &mut Bench) -> anyhow::Result<()> {
    let model = bench.model("Q4_K_M")?;
    read_all(&model)?;
    let first_token =
        |threads| Ok::<_, anyhow::Error>(Run { prefill: 0, decode: 0, ..Run::on(threads) }.bench(&model)?.first_token_ms / 1e3);
    let mut ready = Vec::new();
    for _ in 0..bench.rounds {
        ready.push(Daemon::start(&model)?.ready.as_secs_f64());
    }
    bench.table.at_most("warm start: to READY=1", Figure::from_iter(ready), 0.10, "s");
    let warm = (0..bench.rounds).map(|_| first_token(bench.threads)).collect::<anyhow::Result<Vec<_>>>()?;
    bench.table.at_most("warm start: to the first token of a 32-token prompt", Figure::from_iter(warm), 0.20, "s");

    forget(&model)?;
    let cold_read = read_all(&model)?;
    let title = "cold start: to the first token, against reading the file once";
    if cold_read < 1.5 * read_all(&model)? {
        bench.table.skip(title, "the page cache could not be emptied of the file");
    } else {
        forget(&model)?;
        // Whatever is computed after the last page came in is what a start that reads ahead cannot hide.
        let cold = first_token(bench.threads)?;
        bench.table.tell("cold: the file read once from the disk", fs::metadata(&model)?.len() as f64 / 1e9 / cold_read, "GB/s");
        bench.table.at_most(title, cold, 1.1 * cold_read + 0.05, "s");
    }

    let daemon = Daemon::start(&model)?;
    std::thread::sleep(Duration::from_secs(1));
    let before = daemon.processor_seconds()?;
    std::thread::sleep(IDLE);
    let share = (daemon.processor_seconds()? - before) / IDLE.as_secs_f64();
    // What rounds to 0.0 %.
    bench.table.at_most("idle: processor time between requests", 100.0 * share, 0.05, "%");
    Ok(())
}

/// Seconds that reading the file from start to end takes.
fn read_all(path: &Path) -> anyhow::Result<f64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 4 << 20];
    let start = Instant::now();
    while file.read(&mut buffer)? > 0 {}
    Ok(start.elapsed().as_secs_f64())
}

/// Drops the file from the page cache.
fn forget(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// `hearthd` with a configuration of its own, ended when dropped.
struct Daemon {
    process: Child,
    /// From its start until it said READY=1.
    ready: Duration,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start(model: &Path) -> anyhow::Result<Daemon> {
        let folder = tempfile::tempdir()?;
        let (config, socket, notify) = (folder.path().join("c.toml"), folder.path().join("s"), folder.path().join("n"));
        fs::write(&config, format!("[model]\npath = {model:?}\ncontext = 2048\n[serve]\nsocket = {socket:?}\nbus = \"off\"\n"))?;
        let listener = UnixDatagram::bind(&notify)?;
        listener.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        let process = Command::new(HEARTHD)
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify)
            .env("CACHE_DIRECTORY", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut daemon = Daemon { process, ready: Duration::ZERO, _folder: folder };
        let mut message = [0; 4096];
        loop {
            let length = listener.recv(&mut message).context("hearthd did not get ready")?;
            if String::from_utf8_lossy(&message[..length]).lines().any(|l| l == "READY=1") {
                daemon.ready = start.elapsed();
                return Ok(daemon);
            }
        }
    }

    /// Seconds that its threads have run so far, those that have ended among them: by the scheduler's own count, as ticks are too coarse.
    fn processor_seconds(&self) -> anyhow::Result<f64> {
        let process = libc::pid_t::try_from(self.process.id())?;
        let (mut clock, mut time) = (libc::CLOCK_REALTIME, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both fill in what they are given, and nothing else.
        let read = unsafe { libc::clock_getcpuclockid(process, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0 };
        ensure!(read, "hearthd has ended");
        Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
