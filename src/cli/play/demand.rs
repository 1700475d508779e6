//! How many processors a process wants: what its threads ran, and what they waited for a processor to run on. On a machine that is busy
//! with other things it gets less, and would still heat a board of its own as much.

use anyhow::bail;
use std::path::PathBuf;

pub struct Demand {
    process: Option<PathBuf>,
    wanted_s: f64,
    last_cores: f32,
}

impl Demand {
    pub fn of(pid: u32) -> anyhow::Result<Demand> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let Some(wanted_s) = wanted_s(&process) else { bail!("there is no process {pid}") };
        Ok(Demand { process: Some(process), wanted_s, last_cores: 0.0 })
    }

    #[cfg(test)]
    pub fn fixed(cores: f32) -> Demand {
        Demand { process: None, wanted_s: 0.0, last_cores: cores }
    }

    /// Over the `seconds` since it was last asked. A process that has ended wants nothing.
    pub fn cores(&mut self, seconds: f32) -> f32 {
        let Some(process) = &self.process else { return self.last_cores };
        let now = wanted_s(process).unwrap_or(self.wanted_s);
        // Threads that ended take their count with them.
        let more = (now - std::mem::replace(&mut self.wanted_s, now)).max(0.0);
        if seconds > 0.0 {
            self.last_cores = more as f32 / seconds;
        }
        self.last_cores
    }
}

/// The first two fields of each thread's `schedstat`: nanoseconds on a processor, and in wait for one.
fn wanted_s(process: &std::path::Path) -> Option<f64> {
    let threads = std::fs::read_dir(process.join("task")).ok()?;
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(text.split_whitespace().take(2).filter_map(|ns| ns.parse::<f64>().ok()).sum::<f64>() / 1e9)
    };
    Some(threads.flatten().filter_map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_process_that_works_wants_a_processor() {
        let mut demand = Demand::of(std::process::id()).unwrap();
        let began = Instant::now();
        let mut wanted = 0.0;
        // However little a busy machine gives us, what we want adds up.
        while wanted < 0.2 {
            std::hint::black_box((0..100_000u64).sum::<u64>());
            wanted += demand.cores(1.0);
            assert!(began.elapsed().as_secs() < 120, "{wanted}");
        }
        assert!(Demand::of(u32::MAX).is_err());
    }
}
