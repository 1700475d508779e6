//! Pressure stall information. A sudden slow decode is memory pressure (weights paged out) before it is heat.

use super::root::{Miss, Root};
use super::{Reading, Source, What};

pub fn sources(root: &Root) -> Vec<Box<dyn Source>> {
    if root.at("proc/pressure/memory").exists() { vec![Box::new(Memory(root.clone()))] } else { Vec::new() }
}

struct Memory(Root);

impl Source for Memory {
    fn name(&self) -> String {
        "memory pressure".into()
    }

    fn read(&mut self) -> Result<Vec<Reading>, Miss> {
        let path = self.0.at("proc/pressure/memory");
        let text = self.0.text("proc/pressure/memory")?;
        let percent = some_avg10(&text).ok_or_else(|| Miss::Nonsense { path: path.clone(), text })?;
        Ok(vec![Reading { what: What::MemoryPressure, value: percent / 100.0, source: path.display().to_string() }])
    }
}

/// From `some avg10=0.12 avg60=…`, in percent.
fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find(|l| l.starts_with("some "))?;
    line.split_whitespace().find_map(|w| w.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_the_last_ten_seconds_is_read() {
        assert_eq!(some_avg10("some avg10=1.25 avg60=0.5 avg300=0 total=7\nfull avg10=9.0 avg60=0 avg300=0 total=1"), Some(1.25));
        assert_eq!(some_avg10("full avg10=9.0"), None);
        assert_eq!(some_avg10(""), None);
    }
}
