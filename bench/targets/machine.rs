//! The machine at hand: its name and text for the record, its read bandwidth, and the models measured on it.

use anyhow::{Context, ensure};
use hearth::board::pressure::Ticks;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A name for files: what the firmware calls the board, else the processor.
pub fn name() -> String {
    let board = fs::read_to_string("/sys/firmware/devicetree/base/model").ok();
    let processor = || fact("/proc/cpuinfo", "model name");
    let text = board.or_else(processor).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let words = text.trim_end_matches('\0').to_lowercase();
    let dashed: String = words.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    dashed.split('-').filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-")
}

/// Kernel, processor, cores, memory, and the commit measured.
pub fn text() -> String {
    let first_line = |path: &str| fs::read_to_string(path).ok().and_then(|t| t.lines().next().map(str::to_owned)).unwrap_or_default();
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    format!(
        "machine    {}\nprocessor  {}\ncores      {}\nmemory     {}\nkernel     Linux {}\nload       {}\ncommit     {}\n",
        name(),
        fact("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores(),
        fact("/proc/meminfo", "MemTotal").unwrap_or_default(),
        first_line("/proc/sys/kernel/osrelease"),
        first_line("/proc/loadavg"),
        commit.unwrap_or_default(),
    )
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Clock ticks of a second in the kernel's texts, on every processor that Linux still runs on but one (Alpha).
const USER_HZ: f64 = 100.0;

/// Processor seconds so far: of everybody, and of us with those we started.
pub struct Busy {
    all: f64,
    ours: f64,
    at: Instant,
}

pub fn busy() -> Busy {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let everybody = Ticks::of(&text("/proc/stat")).unwrap_or_default();
    // After the name: user, system, and those of its children.
    let own = text("/proc/self/stat").rsplit(')').next().unwrap_or_default().to_owned();
    let ours: f64 = own.split_whitespace().skip(11).take(4).filter_map(|n| n.parse::<f64>().ok()).sum();
    Busy { all: (everybody.all - everybody.idle) as f64 / USER_HZ, ours: ours / USER_HZ, at: Instant::now() }
}

/// The share of the machine that others took since then.
pub fn others(before: &Busy) -> f64 {
    let now = busy();
    let theirs = (now.all - before.all) - (now.ours - before.ours);
    (theirs / before.at.elapsed().as_secs_f64() / cores() as f64).max(0.0)
}

/// The value of `key: value` in one of the kernel's texts.
fn fact(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// GB/s that `threads` threads read together: each compares the halves of a buffer that no cache holds (the C library's `memcmp`:
/// two streams, no stores). The best of five. A lower bound of what the machine can do.
pub fn read_bandwidth(threads: usize) -> f64 {
    const HALF: usize = 128 << 20;
    let buffers: Vec<Vec<u8>> = (0..threads).map(|_| vec![1; 2 * HALF]).collect();
    let once = || {
        let start = Instant::now();
        std::thread::scope(|s| {
            for b in &buffers {
                s.spawn(|| std::hint::black_box(b[..HALF] == b[HALF..]));
            }
        });
        (threads * 2 * HALF) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}

/// GB/s that `threads` threads read of a file together, by loads alone: two streams each, the best of five. Where in memory the system
/// put a file, and in which pages its host did, makes up to a quarter of it.
pub fn file_bandwidth(path: &Path, threads: usize) -> anyhow::Result<f64> {
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    // SAFETY: nobody changes the models of a benchmark while it runs.
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    _ = map.advise(memmap2::Advice::HugePage);
    let part = map.len() / (2 * threads) / 64 * 64;
    let sum = |bytes: &[u8]| {
        let (a, b) = bytes.split_at(part);
        let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
        words.fold(0, |sum, (a, b)| sum ^ u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))
    };
    let once = || {
        let start = Instant::now();
        std::thread::scope(|s| {
            for bytes in map.chunks_exact(2 * part) {
                s.spawn(move || std::hint::black_box(sum(bytes)));
            }
        });
        (threads * 2 * part) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    Ok((0..5).map(|_| once()).fold(0.0, f64::max))
}

/// Files made by `hearth synth` once and kept in the cache folder (`$MODELS`, else `~/.cache/hearth/models`).
pub fn synthetic(hearth: &Path, shape: &str, file_type: &str, cut: Option<(u32, u32)>) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os("MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
            cache.context("neither MODELS, XDG_CACHE_HOME nor HOME is set")?.join("hearth/models")
        }
    };
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let cut_name = cut.map(|(layers, words)| format!("-{layers}x{words}")).unwrap_or_default();
    let path = folder.join(format!("synth-{shape}{cut_name}-{file_type}.gguf"));
    if !path.exists() {
        let mut command = Command::new(hearth);
        command.args(["synth", shape, file_type]).arg(&path);
        if let Some((layers, words)) = cut {
            command.args(["--layers", &layers.to_string(), "--vocabulary", &words.to_string()]);
        }
        ensure!(command.status()?.success(), "{} could not be made", path.display());
    }
    Ok(path)
}
