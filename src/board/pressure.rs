//! What the processors and the memory are busy with. A sudden slow decode is memory pressure (weights paged out) before it is heat, and
//! a thermometer is judged by the load beside it.

use super::root::{Miss, Root};
use super::{Reading, Sensor, What};

type Make = fn() -> What;

/// Pressure stall information of the whole machine, and where it stands when `/proc` is hidden (systemd's `ProcSubset=pid`).
const KINDS: [(&str, Make); 3] = [("memory", || What::MemoryPressure), ("cpu", || What::CpuPressure), ("io", || What::IoPressure)];

pub fn sources(root: &Root) -> Vec<Box<dyn Sensor>> {
    let mut all: Vec<Box<dyn Sensor>> = Vec::new();
    for (kind, what) in KINDS {
        let files = [format!("proc/pressure/{kind}"), format!("sys/fs/cgroup/{kind}.pressure")];
        if let Some(file) = files.into_iter().find(|f| root.at(f).exists()) {
            all.push(Box::new(Pressure { root: root.clone(), file, kind, what }));
        }
    }
    if root.at("proc/stat").exists() {
        all.push(Box::new(Busy { root: root.clone(), last: None }));
    } else if root.is_machine() {
        all.push(Box::new(LoadAverage));
    }
    all
}

struct Pressure {
    root: Root,
    file: String,
    kind: &'static str,
    what: fn() -> What,
}

impl Sensor for Pressure {
    fn name(&self) -> String {
        format!("{} pressure", self.kind)
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let path = self.root.at(&self.file);
        let text = self.root.text(&self.file)?;
        let percent = some_avg10(&text).ok_or_else(|| Miss::Nonsense { path: path.clone(), text })?;
        Ok(vec![Reading::new((self.what)(), percent / 100.0, path.display())])
    }

    fn tells_of_work(&self) -> bool {
        true
    }
}

/// From `some avg10=0.12 avg60=…`, in percent.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find(|l| l.starts_with("some "))?;
    let percent: f64 = line.split_whitespace().find_map(|w| w.strip_prefix("avg10="))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// The share of all processors' time that was worked, from one read to the next.
struct Busy {
    root: Root,
    last: Option<Ticks>,
}

impl Sensor for Busy {
    fn name(&self) -> String {
        "processor time".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let path = self.root.at("proc/stat");
        let text = self.root.text("proc/stat")?;
        let now = Ticks::of(&text).ok_or_else(|| Miss::Nonsense { path: path.clone(), text: text.lines().next().unwrap_or("").into() })?;
        let passed = self.last.replace(now).map(|last| now.since(last)).filter(|t| t.all > 0);
        let share = passed.map(|t| 1.0 - (t.idle as f64 / t.all as f64).min(1.0));
        Ok(share.map(|share| Reading::new(What::Busy, share, path.display())).into_iter().collect())
    }

    fn tells_of_work(&self) -> bool {
        true
    }
}

/// What all processors did since the start, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// Rest; waiting for a disk is rest to a thermometer.
    pub idle: u64,
    /// A virtual machine wanted to work and its host did not let it.
    pub stolen: u64,
    pub all: u64,
}

impl Ticks {
    /// From `/proc/stat`, whose first line is `cpu  user nice system idle iowait irq softirq steal …`.
    pub fn of(text: &str) -> Option<Ticks> {
        let ticks: Vec<u64> = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|t| t.parse().ok()).take(8).collect();
        let at = |n: usize| ticks.get(n).copied().unwrap_or(0);
        let all = ticks.iter().try_fold(0u64, |sum, t| sum.checked_add(*t))?;
        (ticks.len() >= 4).then(|| Ticks { idle: at(3).saturating_add(at(4)), stolen: at(7), all })
    }

    /// What passed since an earlier look. A count that went back counts as none.
    pub fn since(self, earlier: Ticks) -> Ticks {
        let passed = |now: u64, then: u64| now.saturating_sub(then);
        Ticks { idle: passed(self.idle, earlier.idle), stolen: passed(self.stolen, earlier.stolen), all: passed(self.all, earlier.all) }
    }
}

/// Where `/proc/stat` is hidden: the kernel's load average of the last minute.
struct LoadAverage;

impl Sensor for LoadAverage {
    fn name(&self) -> String {
        "load average".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        // The call counts in 1/65536.
        let load = rustix::system::sysinfo().loads[0] as f64 / 65536.0;
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
        Ok(vec![Reading::new(What::Busy, (load / cores).min(1.0), "sysinfo(2)")])
    }

    fn tells_of_work(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_last_ten_seconds_is_read() {
        assert_eq!(some_avg10("some avg10=1.25 avg60=0.5 avg300=0 total=7\nfull avg10=9.0 avg60=0 avg300=0 total=1"), Some(1.25));
        for odd in ["full avg10=9.0", "", "some avg10=-1", "some avg10=NaN"] {
            assert_eq!(some_avg10(odd), None, "{odd}");
        }
    }

    #[test]
    fn processor_time_is_told_from_rest() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let put = |text: &str| std::fs::write(dir.path().join("proc/stat"), text).unwrap();
        put("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4\n");
        let mut source = sources(&Root::new(dir.path())).remove(0);
        assert!(source.read().unwrap().is_empty(), "one look tells no share");
        put("cpu  175 0 100 720 105 0 0 0 0 0\n");
        assert_eq!(source.read().unwrap()[0].value, 0.75);
        put("intr 5\n");
        assert!(matches!(source.read(), Err(Miss::Nonsense { .. })));
    }

    #[test]
    fn pressure_is_found_where_proc_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sys/fs/cgroup")).unwrap();
        std::fs::write(dir.path().join("sys/fs/cgroup/memory.pressure"), "some avg10=50.00 avg60=0 avg300=0 total=1\n").unwrap();
        let mut sources = sources(&Root::new(dir.path()));
        assert!(sources.iter().all(|source| source.tells_of_work()));
        let readings = sources[0].read().unwrap();
        assert_eq!((&readings[0].what, readings[0].value), (&What::MemoryPressure, 0.5));
    }
}
