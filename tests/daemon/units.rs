//! The units as systemd sees them.

use crate::process::ended;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of ten points of exposure; the unit as shipped has 0.3.
const EXPOSURE_MAX: f64 = 0.4;

/// Plain words, whatever the terminal and the caller like.
fn analyze(verb: &str) -> Command {
    let mut command = Command::new("systemd-analyze");
    command.arg(verb).env("SYSTEMD_COLORS", "0").env("SYSTEMD_URLIFY", "0").env_remove("SYSTEMD_LOG_LEVEL");
    command
}

/// Copies with a program that is there; `None`, loudly, without systemd's tool.
fn copies() -> Option<(tempfile::TempDir, PathBuf)> {
    if analyze("--version").output().is_err() {
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for name in ["hearthd.service", "hearthd.socket"] {
        let text = fs::read_to_string(shipped.join(name)).unwrap();
        fs::write(
            folder.path().join(name),
            text.replace("/usr/libexec/hearth/hearthd", "/bin/true").replace("/usr/bin/hearth", "/bin/true"),
        )
        .unwrap();
    }
    let service = folder.path().join("hearthd.service");
    Some((folder, service))
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let Some((folder, service)) = copies() else { return };
    let output = ended(analyze("verify").arg("--man=no").arg(&service).arg(folder.path().join("hearthd.socket")));
    let words = String::from_utf8_lossy(&output.stderr);
    // Without a running systemd it may complain about other units; ours must not be named.
    assert!(!words.lines().any(|l| l.contains("hearthd.service:") || l.contains("hearthd.socket:")), "{words}");
}

#[test]
fn the_service_is_shut_in() {
    let Some((_folder, service)) = copies() else { return };
    let output = ended(analyze("security").args(["--offline=true", "--no-pager"]).arg(&service));
    let words = String::from_utf8_lossy(&output.stdout);
    let Some(line) = words.lines().find(|l| l.contains("Overall exposure level")) else {
        eprintln!("SKIPPED: this systemd-analyze can't judge a unit offline: {}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let score: f64 = line.split(": ").nth(1).and_then(|s| s.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    assert!(score <= EXPOSURE_MAX, "{line}");
}

#[test]
fn the_drop_ins_are_sound_too() {
    let Some((folder, service)) = copies() else { return };
    for name in ["clock.conf", "raspberry-pi.conf"] {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
        let together = fs::read_to_string(&service).unwrap() + &fs::read_to_string(shipped).unwrap();
        let unit = folder.path().join("hearthd-with.service");
        fs::write(&unit, together).unwrap();
        let output = ended(analyze("verify").arg("--man=no").arg(&unit));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!words.lines().any(|l| l.contains("hearthd-with.service:")), "{name}: {words}");
    }
}

#[test]
fn journalctl_takes_the_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let catalogues = folder.path().join("usr/lib/systemd/catalog");
    fs::create_dir_all(&catalogues).unwrap();
    fs::create_dir_all(folder.path().join("var/lib/systemd/catalog")).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/hearth.catalog");
    fs::copy(&shipped, catalogues.join("hearth.catalog")).unwrap();
    let run = |arguments: &[&str]| Command::new("journalctl").arg("--root").arg(folder.path()).args(arguments).output();
    let Ok(output) = run(&["--update-catalog"]) else {
        eprintln!("SKIPPED: journalctl is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(run(&["--list-catalog"]).unwrap().stdout).unwrap();
    assert_eq!(listed.lines().filter(|l| l.contains(" hearth: ")).count(), 6, "{listed}");
}
