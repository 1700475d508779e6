//! Every captured tree is a board: known by its device tree, read to the last sensor, matched with its profile.

use crate::{hearth, printed, refused, stem, trees};
use hearth::board::poll::Latest;
use hearth::board::{Identity, Kind, Root, Sense, sources, thermal};
use hearth::governor::Mechanism;
use hearth::governor::profile::Profile;
use hearth::helm;
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// What the sensors below a root mean, read once, on this thread.
fn sense(root: &Root) -> Sense {
    let now = Instant::now();
    let mut latest = Latest::default();
    for reading in sources(root).iter_mut().filter_map(|s| s.read().ok()).flatten() {
        latest.readings.insert(reading.what.clone(), (reading, now));
    }
    Sense::of(&latest, now, &Identity::of(root).working_policies())
}

#[test]
fn every_board_is_known_and_matched_with_its_profile() {
    for path in trees() {
        let (root, name) = (Root::open(&path).unwrap(), stem(&path));
        let identity = Identity::of(&root);
        let profile = Profile::for_compatible(&identity.compatible);
        if identity.kind == Kind::Pc {
            assert!(profile.is_none() && identity.firmware.is_some(), "{name}");
            continue;
        }
        let profile = profile.unwrap_or_else(|| panic!("{name}: no file of config/boards has an entry of {:?}", identity.compatible));
        assert!(name.starts_with(&profile.id), "{name} was taken for {}", profile.id);
        let big = identity.big().unwrap();
        assert_eq!(big.capacity, Some(1024), "{name}");
        let steps: Vec<f32> = big.steps_khz.iter().map(|&khz| khz as f32 / 1000.0).collect();
        assert!(steps.is_empty() || steps == profile.soc.f_mhz, "{name}: {steps:?}");
        assert!(identity.memory_bytes > 1 << 28 && !identity.kernel.is_empty(), "{name}");
    }
}

#[test]
fn every_profile_of_a_real_board_has_a_tree() {
    let names: Vec<String> = trees().iter().map(|p| stem(p)).collect();
    for profile in Profile::all().iter().filter(|p| !p.compatible.is_empty()) {
        assert!(names.iter().any(|n| n.starts_with(&profile.id)), "config/boards/{}.toml has no captured tree beside it", profile.id);
    }
}

/// Temperature of the die, clock of the working cores (measured, or else asked for) in MHz, place of power with its watts, what slows the
/// board (`-` if it does not say), and how it throttles as far as its kernel and its profile know.
#[expect(clippy::type_complexity, reason = "a table, whose columns are named above it")]
const SENSES: [(&str, f64, f64, Option<(&str, f64)>, &str, Mechanism); 8] = [
    ("h618", 45.1, 480.0, None, "", Mechanism::Progressive),
    ("jetson-orin-nano", 49.031, 729.6, Some(("VDD_IN", 7.52)), "", Mechanism::Step),
    ("pi4", 48.212, 600.16992, None, "", Mechanism::Step),
    ("pi5", 52.9, 1500.019456, Some(("pmic", 3.0568)), "", Mechanism::Progressive),
    ("rk3588-mainline", 48.077, 408.0, None, "", Mechanism::Step),
    ("rk3588-vendor", 48.076, 408.0, None, "", Mechanism::Progressive),
    ("x86-n100", 46.0, 1100.0, None, "", Mechanism::Unknown),
    ("zero2w", 46.2, 600.0, None, "", Mechanism::Progressive),
];

#[test]
fn the_sensors_of_every_board_mean_what_they_should() {
    let trees = trees();
    assert_eq!(trees.iter().map(|p| stem(p)).collect::<Vec<_>>(), SENSES.map(|s| s.0.to_owned()));
    for (path, (name, celsius, mhz, power, slowed, mechanism)) in trees.iter().zip(SENSES) {
        let root = Root::open(path).unwrap();
        let sense = sense(&root);
        assert_eq!(sense.soc.map(|v| v.0), Some(celsius), "{name}");
        let hertz = sense.measured.or(sense.requested).unwrap().0;
        assert!((hertz / 1e6 - mhz).abs() < 1e-3, "{name}: {hertz}");
        let found = sense.power.map(|p| (p.place, (p.watts * 1e4).round() / 1e4));
        assert_eq!(found, power.map(|(place, watts)| (place.to_owned(), watts)), "{name}");
        assert_eq!(sense.slowed.map_or("-", |s| s.word()), slowed, "{name}");
        assert!(!sense.fan_failed, "{name}");
        assert_eq!(helm::prior(&thermal::zones(&root), &Identity::of(&root)).mechanism, mechanism, "{name}");
    }
}

/// Writes over a file of an unpacked tree.
fn put(at: &Path, file: &str, text: &str) {
    std::fs::write(at.join(file), text).unwrap();
}

/// A tree, unpacked where a test may change it.
fn unpacked(name: &str) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let path = trees().into_iter().find(|p| stem(p) == name).unwrap();
    hearth::board::tree::Tree::load(&path).unwrap().unpack(dir.path()).unwrap();
    let root = Root::new(dir.path());
    (dir, root)
}

#[test]
fn what_slows_a_board_is_told_by_its_own_word() {
    let (dir, root) = unpacked("pi4");
    put(dir.path(), "firmware/get_throttled", "throttled=0x50005\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "under-voltage");
    put(dir.path(), "firmware/get_throttled", "throttled=0xe0008\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "thermal");
    put(dir.path(), "firmware/get_throttled", "throttled=0xe0000\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "", "what stuck from before is not now");
    put(dir.path(), "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "under-voltage", "the kernel's word counts too");
    let (dir, root) = unpacked("rk3588-vendor");
    put(dir.path(), "sys/class/thermal/cooling_device3/cur_state", "5\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "", "the GPU's clock is not the processor's");
    put(dir.path(), "sys/class/thermal/cooling_device1/cur_state", "5\n");
    assert_eq!(sense(&root).slowed.unwrap().word(), "thermal");
}

#[test]
fn a_fan_that_does_not_turn_is_told() {
    let (dir, root) = unpacked("pi5");
    put(dir.path(), "sys/class/hwmon/hwmon2/pwm1", "255\n");
    put(dir.path(), "sys/class/hwmon/hwmon2/fan1_input", "0\n");
    assert!(sense(&root).fan_failed);
    let shown = printed(&["board", "--root", dir.path().to_str().unwrap()]);
    assert!(shown.contains("the fan is told to turn and does not"), "{shown}");
}

#[test]
fn the_command_shows_a_tree_as_text_and_as_json() {
    for path in trees() {
        let at = path.to_str().unwrap();
        let shown: Value = serde_json::from_str(&printed(&["board", "--root", at, "--json"])).unwrap();
        assert!(shown["captured"] == true && shown["readings"].as_array().unwrap().len() > 3, "{at}: {shown}");
        assert!(shown["readings"].as_array().unwrap().iter().all(|r| r["source"].is_string() && r["age_s"].is_number()), "{at}");
        let text = printed(&["board", "--root", at]);
        assert!(text.contains("a captured tree") && text.contains("°C"), "{text}");
    }
}

#[test]
fn a_capture_of_a_tree_is_the_tree_as_a_file_and_as_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    for path in trees() {
        let (file, folder) = (dir.path().join(stem(&path) + ".tree"), dir.path().join(stem(&path)));
        for to in [&file, &folder] {
            printed(&["board", "capture", "--root", path.to_str().unwrap(), to.to_str().unwrap(), "--note", "on a desk"]);
        }
        let (a, b, c) = (Root::open(&path).unwrap(), Root::open(&file).unwrap(), Root::open(&folder).unwrap());
        assert_eq!(Identity::of(&a), Identity::of(&b), "{}", path.display());
        assert_eq!(sense(&a), sense(&b), "{}", path.display());
        assert_eq!(sense(&a), sense(&c), "{}", path.display());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("# on a desk") && text.len() < 64 << 10);
    }
    // It never writes over anything.
    let taken = dir.path().join("pi5.tree");
    assert!(refused(&["board", "capture", "--root", trees()[3].to_str().unwrap(), taken.to_str().unwrap()]).contains("cannot be written"));
}

#[test]
fn what_was_kept_and_cannot_be_read_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    // A folder in its place: root too cannot read that.
    let said = refused(&["board", "release", "--root", at, "--kept", at]);
    assert!(said.contains(at) && said.contains("`hearth board release`, run as root"), "{said}");
    let none = dir.path().join("clock-cap");
    assert_eq!(printed(&["board", "release", "--root", at, "--kept", none.to_str().unwrap()]), "0 clock caps given back\n");
}

#[test]
fn a_root_without_end_is_refused() {
    let said = refused(&["board", "--root", "/dev/zero"]);
    assert!(said.contains("/dev/zero: longer than"), "{said}");
}

#[test]
fn this_machine_can_be_captured_and_says_nothing_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("here.tree");
    printed(&["board", "capture", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(&file).unwrap();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(name.trim().len() < 4 || !text.contains(name.trim()));
    assert!(hearth(&["board", "--root", file.to_str().unwrap()]).status.success());
}

#[test]
fn a_root_that_is_no_tree_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(&["board", "--root", "/no/such/tree"]).contains("/no/such/tree"));
    let file = dir.path().join("x.tree");
    for (text, part) in [("hello\n", "line 1"), ("hearth board tree 1\n== ../x\n  1\n", "leaves the tree")] {
        std::fs::write(&file, text).unwrap();
        assert!(refused(&["board", "--root", file.to_str().unwrap()]).contains(part));
    }
}
