//! The daemon on boards that are played: heat that its own work makes, throttles, thermometers that fail, the clock's cap, and what all
//! of it looks like from outside. The boards' time runs faster than ours; nothing here depends on how fast.

use crate::house::{House, Plan, python, slow_model};
use crate::played::{Board, Load};
use crate::process::{ended, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Keys of the message catalogue, by their texts' first words.
fn message_id(subject: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/hearth.catalog")).unwrap();
    let entry = text.split("\n-- ").find(|entry| entry.contains(&format!("Subject: {subject}"))).unwrap();
    entry.lines().next().unwrap().to_owned()
}

fn house(board: &mut Board, policy: &str) -> House {
    let plan =
        Plan { bus: true, model: slow_model(), model_lines: "threads = 1", governor_lines: &board.governor(policy), ..Plan::default() };
    let house = House::open(plan);
    board.watch(&house);
    house
}

fn property(house: &House, name: &str) -> String {
    let mut busctl = Command::new("busctl");
    busctl.env("DBUS_SESSION_BUS_ADDRESS", house.bus_address()).args([
        "--user",
        "get-property",
        "org.hearth.Hearth1",
        "/org/hearth/Hearth1",
    ]);
    String::from_utf8(ended(busctl.args(["org.hearth.Governor1", name])).stdout).unwrap().trim().to_owned()
}

fn metric(house: &House, row: &str) -> Option<f64> {
    house.get("/metrics").1.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok())
}

fn wait_for_word(house: &House, field: &str, word: &str) {
    house.wait_until(&format!("{field} = {word}"), || house.thermal()[field] == word);
}

#[test]
fn work_heats_the_board_until_it_throttles_and_everybody_is_told() {
    let mut board = Board::play("h618-bare", 15.0, 20.0);
    let house = house(&mut board, "observe");
    house.wait_until("a temperature", || house.thermal()["temperature"].is_number());
    let cool = house.thermal()["temperature"].as_f64().unwrap();
    assert_eq!(house.thermal()["source"], "simulated");
    assert_eq!(property(&house, "Degraded"), "s \"\"");
    let load = Load::on(&house);
    wait_for_word(&house, "degraded", "high-operating-temperature");
    assert!(house.thermal()["temperature"].as_f64().unwrap() > cool + 5.0);
    house.wait_for_log(&message_id("Heat holds the board back"));
    house.wait_until("Degraded on the bus", || property(&house, "Degraded") == "s \"high-operating-temperature\"");
    house.wait_until("throttled seconds", || metric(&house, "hearth_throttled_seconds_total{reason=\"thermal\"}").is_some_and(|s| s > 0.0));
    assert_eq!(board.limit("policy0"), 1_512_000, "a board that throttles well is left to itself");
    drop(load);
    house.wait_for_log(&message_id("Heat does not hold the board back"));
    assert_eq!(property(&house, "Degraded"), "s \"\"");
    assert_eq!(metric(&house, "hearth_throttled{reason=\"thermal\"}"), Some(0.0));
}

#[test]
fn every_way_in_which_thermometers_fail_ends_in_stock_behaviour_and_is_got_over() {
    let mut board = Board::play("h618-bare", 30.0, 20.0);
    let house = house(&mut board, "performance");
    house.wait_until("a temperature", || house.thermal()["temperature"].is_number());
    let _load = Load::on(&house);
    for fault in ["missing", "unreadable", "hangs", "sentinel"] {
        board.tell(&format!("thermometer {fault}"));
        wait_for_word(&house, "degraded", "sensor-lost");
        wait_for_word(&house, "level", "blind");
        house.wait_until("no limit", || metric(&house, "hearth_governor_limit{kind=\"clock_hertz\",phase=\"decode\"}").is_none());
        assert_eq!(board.limit("policy0"), 1_512_000);
        assert_eq!(house.get("/health").0, 200);
        board.tell("thermometer works");
        house.wait_until(&format!("sight after `{fault}`"), || house.thermal()["degraded"] != "sensor-lost");
    }
    assert_eq!(house.log().matches(&message_id("No thermometer answers")).count(), 1, "one a minute: {}", house.log());
}

/// Waits until the board at its cliff is held below it.
fn wait_for_cap(house: &House, board: &Board) {
    house.wait_until("a cap", || house.thermal()["level"] == "stay" && board.limit("policy4") < 2_352_000);
    assert!(board.limit("policy4") >= 1_008_000, "never below the board's own low clock");
    assert_eq!(board.limit("policy6"), board.limit("policy4"));
    assert_eq!(board.limit("policy0"), 1_800_000, "the small cores do not matter");
}

#[test]
fn a_board_at_its_cliff_is_held_below_it_and_gets_its_clock_back() {
    let mut board = Board::play("rk3588-cliff75", 40.0, 20.0);
    let mut house = house(&mut board, "observe");
    let _load = Load::on(&house);
    wait_for_cap(&house, &board);
    assert_eq!(house.thermal()["mechanism"], "cliff");
    // Blind, it is not held any more; when it sees again, it is.
    board.tell("thermometer missing");
    house.wait_until("stock behaviour", || house.thermal()["level"] == "blind" && board.limit("policy4") == 2_352_000);
    board.tell("thermometer works");
    wait_for_cap(&house, &board);
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    assert_eq!((board.limit("policy4"), board.limit("policy6")), (2_352_000, 2_352_000));
}

#[test]
fn the_clock_of_a_daemon_that_was_killed_is_released() {
    let mut board = Board::play("rk3588-cliff75", 40.0, 20.0);
    let mut house = house(&mut board, "performance");
    let _load = Load::on(&house);
    wait_for_cap(&house, &board);
    house.signal("KILL");
    house.exit_code();
    assert!(board.limit("policy4") < 2_352_000);
    // As the unit's ExecStopPost does it.
    let kept = house.folder.path().join("clock-cap");
    let mut release = Command::new(env!("CARGO_BIN_EXE_hearth"));
    let output = ended(release.args(["board", "release", "--root"]).arg(&board.root).arg("--kept").arg(&kept));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((board.limit("policy4"), board.limit("policy6")), (2_352_000, 2_352_000));
    assert!(!kept.exists());
}

#[test]
fn a_weak_supply_and_a_dead_fan_are_faults_of_their_own() {
    let mut board = Board::play("pi5-active", 45.0, 20.0);
    let house = house(&mut board, "observe");
    house.wait_until("a temperature", || house.thermal()["temperature"].is_number());
    board.tell("supply low");
    wait_for_word(&house, "degraded", "under-voltage");
    house.wait_until("the metric", || metric(&house, "hearth_throttled{reason=\"under-voltage\"}") == Some(1.0));
    assert_eq!(metric(&house, "hearth_throttled{reason=\"thermal\"}"), Some(0.0), "it is not heat");
    house.wait_for_log(&message_id("The supply's voltage is too low"));
    board.tell("supply good");
    wait_for_word(&house, "degraded", "");
    board.tell("fan stuck");
    house.wait_for_log(&message_id("The fan does not turn"));
}

#[test]
fn above_the_ceiling_nobody_is_let_in_until_it_is_cooler() {
    let mut board = Board::play("h618-bare", 25.0, 100.0);
    let governor = board.governor("observe") + "\nceiling_celsius = 80.0";
    let house = House::open(Plan { bus: true, governor_lines: &governor, ..Plan::default() });
    let ask = || house.post("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}));
    assert_eq!(ask().0, 200);
    // At rest it is some 15 degrees warmer than the room: above this ceiling, and well below the one that the board itself has.
    board.tell("ambient 75");
    wait_for_word(&house, "cause", "too-hot");
    let (status, reply) = ask();
    assert_eq!(status, 503, "{reply}");
    assert!(reply["error"]["message"].as_str().unwrap().contains("too hot"), "{reply}");
    let mut gdbus = Command::new("gdbus");
    gdbus.env("DBUS_SESSION_BUS_ADDRESS", house.bus_address());
    gdbus.args([
        "call",
        "--session",
        "-d",
        "org.hearth.Hearth1",
        "-o",
        "/org/hearth/Hearth1",
        "-m",
        "org.hearth.Engine1.Ask",
        "hello",
        "{}",
    ]);
    let words = String::from_utf8(ended(&mut gdbus).stderr).unwrap();
    assert!(words.contains("org.hearth.Error.TooHot"), "{words}");
    assert_eq!(house.get("/health").0, 200, "it is well, only hot");
    // Another ceiling holds at once, for the engine that goes on with it.
    let heed = |ceiling: &str| {
        let config = std::fs::read_to_string(&house.config).unwrap();
        let other = config.lines().map(|line| if line.starts_with("ceiling_celsius") { ceiling } else { line });
        std::fs::write(&house.config, other.collect::<Vec<_>>().join("\n")).unwrap();
        house.signal("HUP");
    };
    heed("ceiling_celsius = 110.0");
    house.wait_until("let in by another ceiling", || ask().0 == 200);
    heed("ceiling_celsius = 80.0");
    house.wait_until("kept out again", || ask().0 == 503);
    board.tell("ambient 15");
    house.wait_until("let in again", || ask().0 == 200);
}

#[test]
fn whoever_follows_hears_every_second() {
    let mut board = Board::play("pi5-bare", 25.0, 1.0);
    let house = house(&mut board, "observe");
    let mut events = house.events("/v1/thermal");
    let seen: Vec<Value> = (0..3).map(|_| events.json()).collect();
    assert!(seen.iter().skip(1).all(|report| report["zones"]["cpu-thermal"].is_number() && report["decision"].is_object()), "{seen:?}");
    events.drop_it();
}

/// One of the client programs, on the house's bus, to be told what to do over its stdin.
fn program(python: &Path, house: &House, name: &str) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/clients").join(name);
    let mut command = Command::new(python);
    command.arg(script).env("DBUS_SESSION_BUS_ADDRESS", house.bus_address()).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_desktops_power_saver_means_eco() {
    let Some(python) = python() else { return };
    let mut board = Board::play("pi5-bare", 25.0, 1.0);
    let house = house(&mut board, "observe");
    let mut profiles = program(&python, &house, "power_profiles.py");
    let mut choose = |profile: &str| writeln!(profiles.stdin.as_mut().unwrap(), "{profile}").unwrap();
    choose("power-saver");
    house.wait_for_log("the governor means Eco");
    choose("balanced");
    house.wait_for_log("the governor means Observe");
    choose("power-saver");
    house.wait_until("eco again", || house.log().matches("the governor means Eco").count() == 2);
    // A daemon that leaves the bus asks for nothing any more.
    profiles.kill().unwrap();
    wait(&mut profiles);
    house.wait_until("observe again", || house.log().matches("the governor means Observe").count() == 2);
}

#[test]
fn a_held_mode_rules_until_its_holder_leaves_and_the_record_replays() {
    let Some(python) = python() else { return };
    let mut board = Board::play("h618-bare", 25.0, 1.0);
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.jsonl");
    let governor = format!("{}\ntrace = \"{}\"", board.governor("observe"), trace.display());
    let mut house = House::open(Plan { bus: true, governor_lines: &governor, ..Plan::default() });
    board.watch(&house);
    let mut holder = program(&python, &house, "hold_mode.py");
    writeln!(holder.stdin.as_mut().unwrap(), "quiet").unwrap();
    house.wait_for_log("the governor means Quiet");
    // It leaves the bus with its mode held.
    drop(holder.stdin.take());
    assert!(wait(&mut holder).success());
    house.wait_for_log("the governor means Observe");
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    let output = ended(Command::new(env!("CARGO_BIN_EXE_hearth")).args(["replay", "--json"]).arg(&trace));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(replayed["ticks"].as_u64().unwrap() > 0 && replayed["differ"] == 0 && replayed["source"] == "simulated", "{replayed}");
}

/// Names of metrics in a text, without the endings that a histogram's rows have.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("hearth_"));
    words.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()).collect()
}

#[test]
fn the_metrics_are_well_formed_and_the_dashboard_knows_no_others() {
    let mut board = Board::play("jetson-orin-nano-fan", 25.0, 1.0);
    let skin = board.root.join("sys/class/thermal/thermal_zone9");
    std::fs::create_dir(&skin).unwrap();
    std::fs::write(skin.join("type"), "skin-therm\n").unwrap();
    std::fs::write(skin.join("temp"), "31000\n").unwrap();
    let house = house(&mut board, "observe");
    house.wait_until("energy", || metric(&house, "hearth_energy_joules_total{place=\"VDD_IN\"}").is_some());
    let text = house.get("/metrics").1;
    let mut declared = BTreeSet::new();
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            assert!(declared.insert(about.split(' ').next().unwrap().to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(metrics_in(name.split('{').next().unwrap()).is_subset(&declared), "not declared: {line}");
        }
    }
    for name in [
        "hearth_soc_temperature_celsius",
        "hearth_skin_temperature_celsius",
        "hearth_cpu_frequency_hertz",
        "hearth_throttled",
        "hearth_throttled_seconds_total",
        "hearth_power_watts",
        "hearth_energy_joules_total",
        "hearth_governor_limit",
        "hearth_prompt_tokens_total",
        "hearth_generated_tokens_total",
        "hearth_time_to_first_token_seconds",
        "hearth_inter_token_seconds",
        "hearth_queue_seconds",
        "hearth_model_resident_bytes",
        "hearth_kv_bytes",
        "hearth_model_load_seconds",
        "hearth_requests_total",
        "hearth_build_info",
    ] {
        assert!(declared.contains(name), "{name} is missing: {text}");
    }
    let dashboard = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut used = metrics_in(&dashboard["annotations"].to_string());
    used.extend(metrics_in(&dashboard["templating"].to_string()));
    used.extend(metrics_in(&dashboard["panels"].to_string()));
    // Known only once the board has shown where its throttle begins.
    declared.insert("hearth_thermal_headroom_ratio".into());
    assert!(used.len() > 15 && used.is_subset(&declared), "not served: {:?}", used.difference(&declared));
}
