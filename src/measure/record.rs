//! A run as a file: JSON with the machine's text beside the figures, CSV at 1 Hz, and the table for people.

use super::contention::SHARE_MAX;
use super::load::Turn;
use super::series::{Second, Source};
use super::sustained::{Sustained, length_words};
use super::versus::{Difference, Versus};
use serde::{Deserialize, Serialize};

/// What a record calls itself, and its version.
pub const KIND: &str = "hearth-sustained";
pub const VERSION: u32 = 1;

fn one() -> usize {
    1
}

/// One run on one board on one day. Fields that came later are absent from older records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`KIND`] and [`VERSION`].
    pub kind: String,
    pub version: u32,
    /// Of Hearth.
    pub hearth: String,
    pub source: Source,
    /// Date and time of the end, UTC: `2026-11-24T12:00:00Z`.
    pub date: String,
    pub board: String,
    pub machine: Machine,
    /// Case, fan, supply: what no file tells.
    pub note: String,
    /// As the caller says; a thermometer's word is in the figures.
    pub room_c: Option<f64>,
    pub model: ModelFacts,
    /// The load in words, and as figures.
    pub workload: String,
    #[serde(default)]
    pub turn: Option<Turn>,
    /// Boards that this is of: one. A figure of more is somebody's table of records.
    #[serde(default = "one")]
    pub boards: usize,
    pub threads: usize,
    pub backend: String,
    /// Hearth's governor in what `figures` are of.
    pub governor: String,
    /// Of two settings in turn the second; the first is `governor`. In older records that was the second itself.
    #[serde(default)]
    pub governor_b: Option<String>,
    /// Why the governor could not cap the clock, where it could not: then it had threads alone.
    #[serde(default)]
    pub uncapped: Option<String>,
    /// Where watts were metered; figures from different places are not comparable.
    pub power_place: Option<String>,
    pub figures: Sustained,
    /// A run of two settings in turn has these too; `figures` are then those of its first leg.
    pub versus: Option<Versus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub memory_bytes: u64,
    pub kernel: String,
    /// Boot loader or BIOS with its date.
    pub firmware: Option<String>,
    /// Of the working cores: cpufreq's governor, and its driver.
    pub clock_governor: String,
    #[serde(default)]
    pub clock_driver: String,
    pub cores: usize,
    /// The kernels' tier.
    pub device: String,
    /// Processors that the threads may run on: `4-7`.
    #[serde(default)]
    pub affinity: String,
    /// How threads wait for each other.
    #[serde(default)]
    pub wait_policy: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    pub file: String,
    pub architecture: String,
    /// How its weights are stored: `Q4_K_M`.
    pub file_type: String,
    pub bytes: u64,
    pub sha256: String,
}

impl Record {
    /// A file name that sorts by board and date.
    pub fn file_stem(&self) -> String {
        let mut plain: String = self.board.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        while plain.contains("--") {
            plain = plain.replace("--", "-");
        }
        let date = self.date.split('T').next().unwrap_or_default();
        format!("{}-{}-{date}", plain.trim_matches('-'), if self.source == Source::Simulated { "simulated" } else { "measured" })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let f = &self.figures;
        let measured = f.room_c.map(|[a, b]| format!(", room {a:.1} → {b:.1} °C"));
        let room = measured.or(self.room_c.map(|c| format!(", room {c:.0} °C")));
        // A kelvin of the room is worth 1 to 3 % on a hot board: a board's figure without it is half a figure.
        let is_board = self.source == Source::Real;
        let room = room.or(is_board.then(|| ", room not told (--room)".to_owned()));
        let mut rows = vec![
            format!("{} — {}{}", self.board, source_words(self.source), room.unwrap_or_default()),
            format!(
                "  {}, {} on {}, governor {}; {}",
                self.model.file,
                threads_words(self.threads),
                self.backend,
                self.governor,
                self.date
            ),
        ];
        rows.extend(
            [self.machine.line(), self.workload.clone(), self.note.clone()].iter().filter(|l| !l.is_empty()).map(|l| format!("  {l}")),
        );
        if let Some(why) = &self.uncapped {
            rows.push(format!("  the governor had threads alone, and no cap on the clock: {why}"));
        }
        if is_board && self.note.is_empty() {
            rows.push("  case, fan and supply not told (--note)".into());
        }
        let mut row = |name: &str, text: String| rows.push(format!("  {name:<12} {text}"));
        row("peak", format!("{:8.2} tok/s", f.peak_tok_s));
        let [low, high] = f.sustained_95;
        let name = if f.steady { "sustained" } else { "at the end" };
        row(name, format!("{:8.2} tok/s  [{low:.2} … {high:.2}]   {:.0} % of peak", f.sustained_tok_s, 100.0 * f.ratio));
        if f.p5_tok_s > 0.0 {
            row("slowest 5 %", format!("{:8.2} tok/s over 10 s", f.p5_tok_s));
        }
        let over = format!("over the last {} of {}", length_words(f.window_s), length_words(f.run_s));
        let by = if f.judged_by == "speed alone" { ", by its speed alone" } else { "" };
        row("steady", if f.steady { format!("yes{by}, {over}") } else { format!("NO: {}; figures are {over}", f.unsteady_because) });
        if let Some(ms) = f.token_ms {
            row(
                "per token",
                format!("{:.1} ms in the middle, {:.1} at 95 %, {:.1} at 99 %, {:.0} at most", ms.p50, ms.p95, ms.p99, ms.max),
            );
        }
        if let Some(turns) = &f.turns {
            let ms = turns.first_token_ms;
            row(
                "first token",
                format!("{:.0} ms in the middle, {:.0} at 95 %; {:.0} at first", ms.p50, ms.p95, turns.first_token_ms_at_first),
            );
            let joules = turns.joules_per_turn.map_or(String::new(), |j| format!(", {j:.1} J"));
            row("turns", format!("{} of {:.1} s{joules}; prompts at {:.1} tok/s", turns.count, turns.turn_s, turns.prompt_tok_s));
        }
        if let Some(alone) = self.alone() {
            row("alone", alone);
        }
        row("heat", self.heat());
        row("throttled", self.throttled());
        row("clock", self.clock());
        row("power", self.power());
        let boards = match self.source {
            Source::Real => "n = 1 board",
            Source::Pc => "n = 1 machine",
            Source::Simulated => "no board",
        };
        row("of", format!("{boards}, one run: others have to repeat it before it is more than an anecdote"));
        let mut table = rows.join("\n") + "\n";
        if let Some(versus) = &self.versus {
            table += if versus.legs.is_empty() {
                "  (above: what there is of the first of eight legs, with the governor off)\n"
            } else {
                "  (above: the first of eight legs, with the governor off)\n"
            };
            table += &versus.table(self.governor_b.as_deref().unwrap_or(&self.governor));
        }
        table
    }

    /// The room, measured (the mean of its beginning and end) or else as the caller says.
    pub fn room(&self) -> Option<f64> {
        self.figures.room_c.map(|[first, last]| (first + last) / 2.0).or(self.room_c)
    }

    /// Whether the machine was ours; `None` where it does not tell.
    fn alone(&self) -> Option<String> {
        let share = self.figures.contention?;
        let verdict = if share.is_too_much() { "NO: " } else { "yes: " };
        let early = self.figures.peak_contention.filter(|c| c.is_too_much());
        let early = early.map_or(String::new(), |c| format!("; in the first minute {}, so the peak may be too low", c.words()));
        Some(format!("{verdict}{} (at most {:.0} % may){early}", share.words(), 100.0 * SHARE_MAX))
    }

    fn heat(&self) -> String {
        let f = &self.figures;
        let Some(max) = f.max_c else {
            return "no thermometer here: heat is not seen, and the start may have been warm".into();
        };
        let steady = f.steady_c.map_or("? (the thermometer fell silent)".into(), |c| format!("{c:.1} °C"));
        let start = f.start_c.map_or(String::new(), |c| format!("{c:.1} → "));
        let warm = match f.cold_start.is_cold {
            Some(false) => format!("; NOT cold at the start (after {} s of rest)", f.cold_start.waited_s),
            Some(true) => format!("; cold after {} s of rest", f.cold_start.waited_s),
            None => "; NOT known to be cold at the start (no rest was seen)".into(),
        };
        let eighty = f.t80_s.map_or(String::new(), |s| format!(", 80 °C after {s} s"));
        let tau = if f.tau_known { format!("; τ {:.0} s", f.tau_s) } else { String::new() };
        format!("{start}{steady}, at most {max:.1}{eighty}{tau}{warm}")
    }

    fn throttled(&self) -> String {
        let f = &self.figures;
        let shares: Vec<String> = f.throttled.iter().map(|(why, share)| format!("{:.0} % of the window ({why})", 100.0 * share)).collect();
        match (shares.is_empty(), f.first_throttled_s) {
            (true, None) => "never, as far as this machine tells".into(),
            (true, Some(first)) => format!("not in the window; first after {first} s"),
            (false, first) => format!("{}{}", shares.join(", "), first.map_or(String::new(), |s| format!(", first after {s} s"))),
        }
    }

    fn clock(&self) -> String {
        let f = &self.figures;
        let mhz = |v: Option<f64>| v.map_or("not told".into(), |v| format!("{v:.0} MHz"));
        let slowest = f.measured_p5_mhz.map_or(String::new(), |v| format!(" (slowest 5 %: {v:.0})"));
        let swing = if f.period_s > 0 && f.turns.is_none() { format!(", swings every {} s", f.period_s) } else { String::new() };
        format!("asked {}, measured {}{slowest}{swing}", mhz(f.requested_mhz), mhz(f.measured_mhz))
    }

    fn power(&self) -> String {
        let f = &self.figures;
        let (Some(watts), Some(gross)) = (f.watts, f.joules_per_token) else { return "no meter".into() };
        let net = f
            .joules_per_token_net
            .zip(f.idle_watts)
            .map_or(String::new(), |(net, idle)| format!(", {net:.3} net of the {idle:.1} W at rest"));
        let place = self.power_place.as_deref().unwrap_or("unknown");
        format!("{watts:.2} W at `{place}`{}; {gross:.3} J/token gross{net}", meter_words(place))
    }
}

impl Machine {
    /// What tells two machines of one name apart, in a line; what is not known is left out.
    fn line(&self) -> String {
        let memory = (self.memory_bytes > 0).then(|| format!("{:.1} GiB", self.memory_bytes as f64 / f64::from(1 << 30)));
        let kernel = (!self.kernel.is_empty()).then(|| format!("Linux {}", self.kernel));
        let clock: Vec<&str> =
            [&self.clock_driver, &self.clock_governor].into_iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
        let clock = (!clock.is_empty()).then(|| format!("clock by {}", clock.join(", ")));
        let place = (!self.affinity.is_empty()).then(|| format!("threads on processors {}", self.affinity));
        let wait = (!self.wait_policy.is_empty()).then(|| format!("waiting {}", self.wait_policy));
        let parts = [memory, kernel, self.firmware.clone(), clock, place, wait];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Which meter a place's word stands for; figures from different ones are not comparable.
fn meter_words(place: &str) -> &'static str {
    match place {
        "pmic" => " (the firmware's rails, by the formula that was fitted to a meter at the supply)",
        p if p.starts_with("VDD_") => " (INA3221 rail)",
        p if p.starts_with("package") || p.starts_with("psys") => " (RAPL)",
        p if p.starts_with("nvidia") => " (NVML, the card alone)",
        _ => "",
    }
}

/// What a source is called wherever its figures stand.
pub fn source_words(source: Source) -> &'static str {
    match source {
        Source::Real => "measured on the board",
        Source::Pc => "measured on a PC, not a board",
        Source::Simulated => "SIMULATED, nothing was measured",
    }
}

/// `1 thread`, `4 threads`.
pub fn threads_words(threads: usize) -> String {
    format!("{threads} {}", if threads == 1 { "thread" } else { "threads" })
}

impl Versus {
    fn count_words(&self) -> String {
        if self.is_whole() { "eight".into() } else { format!("cut short, {} of eight", self.legs.len()) }
    }

    fn table(&self, governor: &str) -> String {
        let length = length_words(self.leg_s);
        let mut out = format!("  a = off, b = {governor}: {} legs of {length}, ABBA BAAB (τ {:.0} s)\n", self.count_words(), self.tau_s);
        for (n, leg) in self.legs.iter().enumerate() {
            let start = leg.start_c.map_or(String::new(), |c| format!(", from {c:.1} °C"));
            let joules = leg.joules_per_token.map_or(String::new(), |j| format!(", {j:.3} J/token"));
            let first = leg.first_token_ms.map_or(String::new(), |ms| format!(", first token after {ms:.0} ms"));
            out += &format!("    {} {}  {:8.2} tok/s{first}{joules}{start}\n", n + 1, leg.setting, leg.tok_s);
        }
        for pair in self.pairs.iter().filter(|p| !p.rejected.is_empty()) {
            out += &format!("    a pair does not count: {}\n", pair.rejected);
        }
        let words = |d: Difference| format!("{:+.1} %  [{:+.1} … {:+.1}]", 100.0 * d.mean, 100.0 * d.low, 100.0 * d.high);
        out += &match self.speed {
            Some(d) => format!("  b against a  {} tok/s", words(d)),
            None => "  b against a  fewer than two pairs count, so nothing can be said".into(),
        };
        for (what, d) in [("J/token", self.joules), ("to the first token", self.first_token), ("turn", self.turn)] {
            out += &d.map_or(String::new(), |d| format!(", {} {what}", words(d)));
        }
        out += match self.not_worse {
            Some(true) => "\n  b is not worse (less than 1 % is lost with 97.5 % certainty)\n",
            Some(false) => "\n  that b is not worse is NOT shown\n",
            None => "\n",
        };
        for unchecked in &self.unchecked {
            out += &format!("  not checked: {unchecked}\n");
        }
        out
    }
}

/// The series at 1 Hz: rest before the run has negative seconds.
pub fn csv(cold: &[Second], hot: &[Second]) -> String {
    let mut out = String::from(
        "second,tokens,busy_seconds,celsius,skin_celsius,room_celsius,requested_mhz,measured_mhz,throttled,watts,threads,\
         prompt_tokens,prompt_seconds,first_token_ms,others,stolen\n",
    );
    let field = |v: Option<f64>| v.map_or(String::new(), |v| format!("{v:.3}"));
    let first = -(cold.len() as i64);
    for (at, s) in (first..).zip(cold.iter().chain(hot)) {
        let columns = [s.celsius, s.skin_celsius, s.room_celsius, s.requested_mhz, s.measured_mhz].map(field).join(",");
        let threads = s.threads.map_or(String::new(), |t| t.to_string());
        out += &format!("{at},{:.4},{:.4},{columns},{},{},{threads},", s.tokens, s.seconds, s.throttled, field(s.watts));
        let first = s.first_token_ms.last().map(|&ms| f64::from(ms));
        let [others, stolen] = [s.contention.map(|c| c.others), s.contention.map(|c| c.stolen)];
        out += &format!("{:.4},{:.4},{},{},{}\n", s.prompt_tokens, s.prompt_seconds, field(first), field(others), field(stolen));
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::contention::Contention;
    use super::super::sustained::judge;
    use super::*;

    /// 25 min at 10 tok/s and 60 °C.
    pub fn record(source: Source) -> Record {
        let rest = vec![Second { celsius: Some(45.0), ..Second::default() }; 320];
        let hot = vec![Second { tokens: 10.0, seconds: 1.0, celsius: Some(60.0), ..Second::default() }; 1500];
        Record {
            kind: KIND.into(),
            version: VERSION,
            hearth: "0.1.0".into(),
            source,
            date: "2026-11-24T12:00:00Z".into(),
            board: "Raspberry Pi 5 Model B (rev 1.0)".into(),
            machine: Machine::default(),
            note: "alu case".into(),
            room_c: Some(22.0),
            model: ModelFacts { file: "m.gguf".into(), ..ModelFacts::default() },
            workload: String::new(),
            turn: None,
            boards: 1,
            threads: 4,
            backend: "cpu".into(),
            governor: "off".into(),
            governor_b: None,
            uncapped: None,
            power_place: None,
            figures: judge(&rest, &hot),
            versus: None,
        }
    }

    #[test]
    fn a_table_says_what_it_is_of_and_what_it_does_not_know() {
        let table = record(Source::Simulated).table();
        for part in [
            "SIMULATED",
            "room 22 °C",
            "100 % of peak",
            "yes, over the last 10 min of 25 min",
            "no board, one run",
            "no meter",
            "not told",
            "alu case",
            "never, as far as",
        ] {
            assert!(table.contains(part), "`{part}` is missing from\n{table}");
        }
        let mut blind = record(Source::Pc);
        blind.figures = judge(&[], &vec![Second { tokens: 10.0, seconds: 1.0, ..Second::default() }; 300]);
        let table = blind.table();
        for part in ["not a board", "no thermometer", "at the end", "NO: 5 min are too short", "last 150 s of 5 min", "n = 1 machine"] {
            assert!(table.contains(part), "`{part}` is missing from\n{table}");
        }
        assert!(!table.contains("alone  ") && !table.contains("first token"), "{table}");
    }

    #[test]
    fn a_run_that_began_without_rest_is_not_called_cold() {
        assert!(record(Source::Real).table().contains("; cold after 320 s of rest"));
        let hot = |celsius: fn(usize) -> Option<f64>| -> Vec<Second> {
            (0..1500).map(|i| Second { tokens: 10.0, seconds: 1.0, celsius: celsius(i), ..Second::default() }).collect()
        };
        let table = Record { figures: judge(&[], &hot(|_| Some(60.0))), ..record(Source::Real) }.table();
        assert!(table.contains("NOT known to be cold") && !table.contains("cold after"), "{table}");
        let silent = Record { figures: judge(&[], &hot(|i| (i < 300).then_some(60.0))), ..record(Source::Real) }.table();
        assert!(silent.contains("fell silent), at most 60.0") && !silent.contains("no thermometer"), "{silent}");
    }

    #[test]
    fn a_table_tells_machines_of_one_name_apart_and_whether_it_was_alone() {
        let mut record = record(Source::Pc);
        let shared = |others| Some(Contention { others, stolen: 0.0 });
        let second = |i: usize| Second {
            tokens: 10.0,
            seconds: 1.0,
            contention: shared(if i < 60 { 0.4 } else { 0.01 }),
            first_token_ms: if i.is_multiple_of(20) { vec![2500.0] } else { vec![] },
            turn_s: if i.is_multiple_of(20) { vec![20.0] } else { vec![] },
            ..Second::default()
        };
        record.figures = judge(&[], &(0..1500).map(second).collect::<Vec<_>>());
        record.machine = Machine {
            memory_bytes: 4 << 30,
            kernel: "6.12.47".into(),
            firmware: Some("boot loader of 2025-09-16".into()),
            clock_governor: "ondemand".into(),
            clock_driver: "cpufreq-dt".into(),
            affinity: "0-3".into(),
            wait_policy: "spins".into(),
            ..Machine::default()
        };
        let table = record.table();
        for part in [
            "4.0 GiB; Linux 6.12.47; boot loader of 2025-09-16; clock by cpufreq-dt, ondemand; threads on processors 0-3; waiting spins",
            "yes: others took 1.0 % of the machine (at most 3 % may); in the first minute others took 40.0 %",
            "2500 ms in the middle",
            "30 of 20.0 s",
            "yes, by its speed alone, over",
        ] {
            assert!(table.contains(part), "`{part}` is missing from\n{table}");
        }
    }

    #[test]
    fn a_boards_record_asks_for_what_no_file_tells_and_names_its_meter() {
        let mut bare = Record { room_c: None, note: String::new(), power_place: Some("VDD_IN".into()), ..record(Source::Real) };
        (bare.figures.watts, bare.figures.joules_per_token) = (Some(7.0), Some(0.7));
        let table = bare.table();
        for part in ["room not told (--room)", "supply not told (--note)", "7.00 W at `VDD_IN` (INA3221 rail); 0.700 J/token gross"] {
            assert!(table.contains(part), "`{part}` is missing from\n{table}");
        }
        assert!(!table.contains("threads alone"));
        let uncapped = Record { uncapped: Some("not ours to write".into()), ..record(Source::Real) };
        assert!(uncapped.table().contains("threads alone, and no cap on the clock: not ours to write"));
        assert!(!record(Source::Pc).table().contains("not told (--"));
    }

    #[test]
    fn a_record_of_an_older_hearth_is_read() {
        let mut old = serde_json::to_value(record(Source::Real)).unwrap();
        for (at, fields) in [
            ("", &["turn", "boards", "governor_b", "uncapped"][..]),
            ("/machine", &["clock_driver", "affinity", "wait_policy"]),
            ("/figures", &["judged_by", "period_s", "turns", "contention", "peak_contention"]),
        ] {
            let part = old.pointer_mut(at).and_then(serde_json::Value::as_object_mut).unwrap();
            fields.iter().for_each(|field| assert!(part.remove(*field).is_some(), "{field}"));
        }
        let read: Record = serde_json::from_value(old).unwrap();
        assert_eq!((read.boards, read.figures.peak_tok_s), (1, 10.0));
    }

    #[test]
    fn a_file_name_sorts_by_board_and_day_and_tells_a_simulation() {
        assert_eq!(record(Source::Real).file_stem(), "raspberry-pi-5-model-b-rev-1-0-measured-2026-11-24");
        assert!(record(Source::Simulated).file_stem().contains("-simulated-"));
    }

    #[test]
    fn the_series_has_a_line_a_second_and_empty_fields_for_what_is_not_known() {
        let work =
            Second { tokens: 9.5, seconds: 1.0, celsius: Some(61.25), throttled: "thermal".into(), threads: Some(4), ..Second::default() };
        let text = csv(&[Second::default()], &[work]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..], ["-1,0.0000,0.0000,,,,,,,,,0.0000,0.0000,,,", "0,9.5000,1.0000,61.250,,,,,thermal,,4,0.0000,0.0000,,,"]);
        assert!(lines.iter().all(|l| l.split(',').count() == lines[0].split(',').count()));
    }
}
