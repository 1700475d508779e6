//! The bus, asked with busctl, gdbus and a program that reads the stream's pipe.

use crate::house::{House, Plan, client, hearthd, python, slow_model};
use crate::process::{InTime, end_of, ended};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const ROOT: [&str; 2] = ["org.hearth.Hearth1", "/org/hearth/Hearth1"];
/// Each has its XML with prose in `systemd/dbus/`.
const INTERFACES: [&str; 4] = ["org.hearth.Engine1", "org.hearth.Governor1", "org.hearth.Job1", "org.hearth.Model1"];

fn on(house: &House, tool: &str) -> Command {
    let mut command = Command::new(tool);
    command.env("DBUS_SESSION_BUS_ADDRESS", house.bus_address());
    command
}

fn busctl(house: &House, arguments: &[&str]) -> Output {
    ended(on(house, "busctl").args(["--user", "--timeout=120"]).args(arguments))
}

/// `hearth ask` over the bus, in the middle of its answer.
fn asking(house: &House) -> Child {
    let mut command = on(house, env!("CARGO_BIN_EXE_hearth"));
    command.args(["ask", "--bus", "session", "hello"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ask = command.spawn().unwrap();
    InTime(ask.stdout.as_mut().unwrap()).read_exact(&mut [0]).unwrap();
    ask
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn busctl_and_gdbus_ask_and_look() {
    let house = House::open(Plan { bus: true, ..Plan::default() });
    let ask =
        ["call", ROOT[0], ROOT[1], "org.hearth.Engine1", "Ask", "sa{sv}", "hello", "2", "max_tokens", "u", "6", "ignore_eos", "b", "true"];
    assert!(text(busctl(&house, &ask)).starts_with("s \""));
    let mut gdbus = on(&house, "gdbus");
    gdbus.args(["call", "--session", "--timeout", "120", "-d", ROOT[0], "-o", ROOT[1], "-m", "org.hearth.Engine1.Ask", "hello"]);
    assert!(text(ended(gdbus.arg("{'max_tokens': <uint32 3>}"))).starts_with('('));
    let property = |name: &str| text(busctl(&house, &["get-property", ROOT[0], ROOT[1], "org.hearth.Engine1", name]));
    assert_eq!(property("Version").trim(), format!("s \"{}\"", env!("CARGO_PKG_VERSION")));
    let objects = text(busctl(&house, &["call", ROOT[0], ROOT[1], "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"]));
    assert!(objects.contains("/org/hearth/Hearth1/models/tiny") && objects.contains("\"Architecture\" s \"llama\""), "{objects}");
}

#[test]
fn refusals_have_their_names() {
    let house = House::open(Plan { bus: true, model_lines: "context = 128", ..Plan::default() });
    let refused = |member: &str, signature: &str, arguments: &[&str]| {
        let mut gdbus = on(&house, "gdbus");
        gdbus.args(["call", "--session", "-d", ROOT[0], "-o", ROOT[1], "-m"]);
        gdbus.arg(format!("{}.{member}", if signature == "governor" { "org.hearth.Governor1" } else { "org.hearth.Engine1" }));
        let output = ended(gdbus.args(arguments));
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused("Ask", "", &["hi", "{'temperature': <9.0>}"]);
    assert!(error.contains("org.hearth.Error.BadRequest") && error.contains("temperature"), "{error}");
    let error = refused("Ask", "", &[&"word ".repeat(500), "{}"]);
    assert!(error.contains("org.hearth.Error.ContextFull"), "{error}");
    assert!(refused("Chat", "", &["no json", "{}"]).contains("org.hearth.Error.BadRequest"));
    assert!(refused("HoldMode", "governor", &["warp", "why not"]).contains("org.hearth.Error.BadRequest"));
    assert!(refused("ReleaseMode", "governor", &["77"]).contains("org.hearth.Error.NotFound"));
}

/// No string on the bus may hold one: the bus throws its sender off.
#[test]
fn a_nul_in_an_answer_or_a_refusal_does_not_cost_the_daemon_its_place_on_the_bus() {
    let house = House::open(Plan { bus: true, ..Plan::default() });
    let call = |member: &str, arguments: &[&str]| {
        let output = busctl(&house, &[&["call", ROOT[0], ROOT[1], "org.hearth.Engine1", member, "sa{sv}"], arguments].concat());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let unknown =
        r#"{"messages": [{"role": "user", "content": "a"}], "tools": [{"function": {"name": "f"}}], "tool_choice": {"name": "x\u0000y"}}"#;
    let refused = call("Chat", &[unknown, "0"]);
    assert!(refused.contains("there is no tool `x\u{fffd}y`"), "{refused}");
    let said = call("Ask", &["hello", "2", "max_tokens", "u", "2", "grammar", "s", r"root ::= [\x00]+"]);
    // As busctl writes the bytes of U+FFFD.
    assert!(said.starts_with(r#"s "\357\277\275"#), "{said}");
    assert!(!house.log().contains("the bus is gone"), "{}", house.log());
}

#[test]
fn a_client_that_reads_the_stream_gets_lines_figures_and_signals() {
    let Some(python) = python() else { return };
    let house =
        House::open(Plan { bus: true, model: slow_model(), model_lines: "sequences = 1", serve_lines: "queue = 0", ..Plan::default() });
    client(&python, "bus_client.py", &[], &[("DBUS_SESSION_BUS_ADDRESS", house.bus_address())]);
    // The clients that left in the middle of their answers are gone from the engine too.
    house.wait_for_metric("hearth_requests{state=\"running\"}", 0.0);
    // Its last act was to hold a mode and leave.
    let holds = || text(busctl(&house, &["get-property", ROOT[0], ROOT[1], "org.hearth.Governor1", "ActiveHolds"]));
    house.wait_until("no mode held", || holds().trim() == "aa{sv} 0");
}

#[test]
fn hearth_ask_streams_over_the_bus_and_over_the_socket() {
    let house = House::open(Plan { bus: true, ..Plan::default() });
    let ask = |arguments: &[&str]| {
        let mut ask = on(&house, env!("CARGO_BIN_EXE_hearth"));
        let output = ended(ask.args(["ask", "-n", "5", "--temp", "0"]).args(arguments).arg("hello"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("tok/s"), "{}", String::from_utf8_lossy(&output.stderr));
        text(output)
    };
    let socket = house.socket.to_str().unwrap();
    assert_eq!(ask(&["--bus", "session"]), ask(&["--socket", socket]));
    let status = ended(on(&house, env!("CARGO_BIN_EXE_hearth")).args(["status", "--json", "--socket", socket]));
    let status: serde_json::Value = serde_json::from_str(&text(status)).unwrap();
    assert_eq!((&status["state"], &status["model"]["id"]), (&"ok".into(), &"tiny".into()));
}

#[test]
fn sigterm_ends_a_stream_on_the_bus_with_a_last_line() {
    let mut house = House::open(Plan { bus: true, model: slow_model(), ..Plan::default() });
    let ask = asking(&house);
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
    end_of(ask);
}

#[test]
fn a_bus_that_went_away_is_joined_again_when_it_is_back() {
    let mut house = House::open(Plan { bus: true, model: slow_model(), ..Plan::default() });
    let ask = asking(&house);
    house.stop_bus();
    house.wait_for_log("the bus is gone");
    end_of(ask);
    // Whoever asked over it is gone; the socket answers on.
    house.wait_for_metric("hearth_requests{state=\"running\"}", 0.0);
    assert_eq!(house.get("/health").0, 200);
    house.restart_bus();
    house.wait_for_log("on the Session bus again");
    let call = ["call", ROOT[0], ROOT[1], "org.hearth.Engine1", "Ask", "sa{sv}", "hello", "1", "max_tokens", "u", "2"];
    assert!(text(busctl(&house, &call)).starts_with("s \""));
    let objects = text(busctl(&house, &["call", ROOT[0], ROOT[1], "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"]));
    assert!(objects.contains("/org/hearth/Hearth1/models/slow"), "{objects}");
    house.signal("TERM");
    assert_eq!(house.exit_code(), Some(0));
}

#[test]
fn a_second_daemon_does_not_take_the_name() {
    let house = House::open(Plan { bus: true, ..Plan::default() });
    let config = house.folder.path().join("second.toml");
    crate::house::write_config(&config, crate::house::model(), "", &house.folder.path().join("s2"), "session", "");
    let output = ended(hearthd(&config).env("DBUS_SESSION_BUS_ADDRESS", house.bus_address()));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("another daemon carries the name"), "{words}");
}

/// `BLESS=1` rewrites the files; the difference is to be read.
#[test]
fn the_xml_that_is_installed_is_the_one_that_is_served() {
    let house = House::open(Plan { bus: true, ..Plan::default() });
    let Some(python) = python() else { return };
    let served = client(&python, "introspect.py", &[], &[("DBUS_SESSION_BUS_ADDRESS", house.bus_address())]);
    for interface in INTERFACES {
        let start = served.find(&format!("<interface name=\"{interface}\">")).unwrap_or_else(|| panic!("{interface} is not served"));
        let length = served[start..].find("</interface>").unwrap() + "</interface>".len();
        let want = format!(
            "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n\
             <!-- /usr/share/dbus-1/interfaces/{interface}.xml -->\n<node>\n  {}\n</node>\n",
            &served[start..start + length]
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/dbus").join(format!("{interface}.xml"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &want).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), want, "{}: BLESS=1 rewrites it", path.display());
    }
}
