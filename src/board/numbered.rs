//! Folders that the kernel numbers (`thermal_zone3`, `hwmon1`) are known by what one of their files says, never by their number: numbers
//! change after a resume, with the order of drivers, and from kernel to kernel.

use super::root::{Miss, Root, text};
use std::path::{Path, PathBuf};

/// One such folder, looked for again whenever it is no longer where it was.
pub struct Numbered {
    root: Root,
    class: Class,
    says: String,
    /// Which of those that say the same, in the order of their numbers.
    nth: usize,
    path: Option<PathBuf>,
}

/// Where such folders are, their name before the number, and the file that tells them apart.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub dir: &'static str,
    pub prefix: &'static str,
    pub file: &'static str,
}

pub const ZONE: Class = Class { dir: "sys/class/thermal", prefix: "thermal_zone", file: "type" };
pub const COOLING: Class = Class { dir: "sys/class/thermal", prefix: "cooling_device", file: "type" };
pub const HWMON: Class = Class { dir: "sys/class/hwmon", prefix: "hwmon", file: "name" };

impl Numbered {
    /// All that there are now, with what they say.
    pub fn all(root: &Root, class: Class) -> Vec<(String, Numbered)> {
        let mut found: Vec<(String, Numbered)> = Vec::new();
        for path in root.numbered(class.dir, class.prefix) {
            let Ok(says) = text(&path.join(class.file)) else { continue };
            let nth = found.iter().filter(|(s, _)| *s == says).count();
            found.push((says.clone(), Numbered { root: root.clone(), class, says, nth, path: Some(path) }));
        }
        found
    }

    /// Its name for people and as a key: what it says, and `#2`, `#3` … where several say the same.
    pub fn label(&self) -> String {
        if self.nth == 0 { self.says.clone() } else { format!("{}#{}", self.says, self.nth + 1) }
    }

    /// Where it is now.
    pub fn path(&mut self) -> Result<&Path, Miss> {
        let Numbered { root, class, says, nth, path } = self;
        let is_it = |path: &PathBuf| text(&path.join(class.file)).is_ok_and(|t| t == *says);
        if !path.as_ref().is_some_and(is_it) {
            *path = root.numbered(class.dir, class.prefix).into_iter().filter(is_it).nth(*nth);
        }
        path.as_deref().ok_or_else(|| Miss::Absent { path: root.at(format!("{}/{}*/{} = {says}", class.dir, class.prefix, class.file)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_say_the_same_stay_apart_and_are_found_under_other_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let zones = dir.path().join("sys/class/thermal");
        for (n, says) in [(0, "acpitz"), (1, "cpu"), (2, "acpitz")] {
            std::fs::create_dir_all(zones.join(format!("thermal_zone{n}"))).unwrap();
            std::fs::write(zones.join(format!("thermal_zone{n}/type")), says).unwrap();
        }
        let mut all = Numbered::all(&Root::new(dir.path()), ZONE);
        let labels: Vec<String> = all.iter().map(|(_, n)| n.label()).collect();
        assert_eq!(labels, ["acpitz", "cpu", "acpitz#2"]);
        std::fs::rename(zones.join("thermal_zone1"), zones.join("thermal_zone9")).unwrap();
        assert!(all[1].1.path().unwrap().ends_with("thermal_zone9"));
        assert!(all[2].1.path().unwrap().ends_with("thermal_zone2"));
        std::fs::remove_dir_all(zones.join("thermal_zone9")).unwrap();
        let told = all[1].1.path().unwrap_err().to_string();
        assert!(told.contains("type = cpu"), "{told}");
    }
}
