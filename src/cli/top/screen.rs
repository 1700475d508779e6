//! What `hearth top` draws: a head, four curves with their figures, a line on the queue. On a small terminal curves shrink to a line each
//! and then go, the figures last.

use super::history::{History, SPAN, Sample};
use crate::measure::record::threads_words;
use crate::units::Bytes;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, RenderDirection, Sparkline};
use std::time::Instant;

/// Width of a curve's figures.
const FIGURES: u16 = 34;
/// Below this width there are figures only.
const CURVES_FROM: u16 = FIGURES + 12;
/// A cell of a sparkline has so many steps.
const STEPS: f64 = 8.0;

/// Styles, or none: then bold and dim say what color would.
pub struct Colors {
    plain: bool,
}

impl Colors {
    pub fn of(no_color: bool) -> Colors {
        Colors { plain: no_color }
    }

    fn ink(&self, color: Color) -> Style {
        if self.plain { Style::default() } else { Style::default().fg(color) }
    }

    fn bold(&self, color: Color) -> Style {
        self.ink(color).add_modifier(Modifier::BOLD)
    }

    fn dim(&self) -> Style {
        Style::default().add_modifier(Modifier::DIM)
    }

    /// By how near throttling is.
    fn heat(headroom: Option<f64>) -> Color {
        match headroom {
            Some(h) if h >= 1.0 => Color::Red,
            Some(h) if h >= 0.7 => Color::Yellow,
            _ => Color::Green,
        }
    }
}

/// One curve with its figures.
struct Curve {
    name: &'static str,
    value: String,
    beside: String,
    color: Color,
    pick: fn(&Sample) -> Option<f64>,
    /// What the lowest and the full cell mean; `None`: what was seen.
    range: (Option<f64>, Option<f64>),
}

pub fn draw(frame: &mut Frame, history: &History, colors: &Colors, now: Instant) {
    let area = frame.area();
    let head = head(history, colors, now, area.width.into());
    let (head_rows, foot_rows) = (head.len() as u16, 1);
    let curves = curves(history);
    let room = area.height.saturating_sub(head_rows + foot_rows);
    // One line for the span, where curves have room to breathe.
    let each = (room / curves.len() as u16).clamp(1, 8);
    let rows = [Constraint::Length(head_rows)]
        .into_iter()
        .chain(curves.iter().map(|_| Constraint::Length(each)))
        .chain([Constraint::Fill(1), Constraint::Length(foot_rows)]);
    let parts = Layout::vertical(rows).split(area);
    frame.render_widget(Paragraph::new(head), parts[0]);
    for (curve, part) in curves.iter().zip(parts.iter().skip(1)) {
        // What has no room is left out, from below; the queue's line stays.
        if part.bottom() + foot_rows <= area.bottom() || area.height < head_rows {
            curve.draw(frame, *part, history, colors, now);
        }
    }
    if let Some(last) = parts.last().filter(|_| area.height > head_rows) {
        frame.render_widget(Paragraph::new(foot(history, colors)), *last);
    }
}

fn head(history: &History, colors: &Colors, now: Instant, width: usize) -> Vec<Line<'static>> {
    let report = &history.report;
    let word = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    let counts = &history.counts;
    let model = if counts.model.is_empty() { "no model".to_owned() } else { counts.model.clone() };
    let mut title = vec![Span::styled("hearth ", colors.bold(Color::Cyan)), Span::styled(model, colors.bold(Color::Reset))];
    if !counts.state.is_empty() && counts.state != "ok" {
        title.push(Span::styled(format!("  {}", counts.state), colors.ink(Color::Yellow)));
    }
    match word("source").as_str() {
        "simulated" => title.push(Span::styled("  SIMULATED board", colors.bold(Color::Yellow))),
        "pc" => title.push(Span::styled("  on a PC", colors.dim())),
        _ => (),
    }
    if let Some(why) = &history.lost {
        let mut lines = vec![Line::from(title)];
        let letters: Vec<char> = format!("looking for the daemon: {why}").chars().collect();
        let styled = |part: &[char]| Line::styled(part.iter().collect::<String>(), colors.bold(Color::Red));
        lines.extend(letters.chunks(width.max(1)).take(2).map(styled));
        return lines;
    }
    if report.is_null() {
        return vec![Line::from(title), Line::styled(format!("waiting for {}", history.socket), colors.dim())];
    }
    if let Some(age) = history.stale(now) {
        let line = format!("no news for {} s; the figures are old", age.as_secs());
        return vec![Line::from(title), Line::styled(line, colors.bold(Color::Red))];
    }
    let mut governor =
        vec![Span::styled(word("level"), colors.bold(Color::Reset)), Span::raw(format!(": {}", word("cause").replace('-', " ")))];
    let degraded = word("degraded");
    if !degraded.is_empty() && degraded != word("cause") {
        governor.push(Span::styled(format!("   {}", degraded.replace('-', " ")), colors.bold(Color::Red)));
    }
    vec![Line::from(title), Line::from(governor)]
}

fn curves(history: &History) -> [Curve; 4] {
    let report = &history.report;
    let decision = &report["decision"];
    let number = |v: &serde_json::Value| v.as_f64();
    let shown = |v: Option<f64>, digits: usize| v.map_or("–".into(), |v| format!("{v:.digits$}"));
    let headroom = number(&decision["headroom"]);
    let speed = &report["speed"];
    let watts = number(&report["power"]).map(|w| format!(" {w:.1} W at {}", report["power_place"].as_str().unwrap_or("?")));
    let threads = decision["decode"]["threads"].as_u64().map(|n| threads_words(n as usize)).unwrap_or_default();
    let cap = number(&decision["decode"]["cap"]).map(|hz| format!(", held at {:.1}", hz / 1e9)).unwrap_or_default();
    let in_60_s = number(&decision["in_60_s"]["headroom"]).map(|h| format!(" in 60 s {h:.2}"));
    let until = number(&decision["time_to_throttle"]).map(|s| format!(", throttles in {s:.0} s")).unwrap_or_default();
    let measured = if report["measured"].is_null() && !report["requested"].is_null() { " asked for" } else { "" };
    let hertz = number(&report["measured"]).or(number(&report["requested"])).map(|hz| hz / 1e9);
    let heat = Colors::heat(headroom);
    [
        Curve {
            name: "tok/s",
            value: shown(number(&speed["now"]), 1),
            beside: format!(" peak {}, mean {}", shown(number(&speed["peak"]), 1), shown(number(&speed["sustained"]), 1)),
            color: Color::Blue,
            pick: |s| s.tok_s,
            range: (Some(0.0), number(&speed["peak"]).filter(|p| *p > 0.0)),
        },
        Curve {
            name: "°C",
            value: shown(number(&report["temperature"]), 1),
            beside: watts.unwrap_or_default(),
            color: heat,
            pick: |s| s.celsius,
            range: (Some(30.0), None),
        },
        Curve {
            name: "GHz",
            value: shown(hertz, 2),
            beside: format!("{measured} {threads}{cap}"),
            color: Color::Magenta,
            pick: |s| s.gigahertz,
            range: (Some(0.0), None),
        },
        Curve {
            name: "headroom",
            value: shown(headroom, 2),
            beside: format!("{}{until}", in_60_s.unwrap_or_default()),
            color: heat,
            pick: |s| s.headroom,
            range: (Some(0.0), Some(1.0)),
        },
    ]
}

impl Curve {
    fn draw(&self, frame: &mut Frame, area: Rect, history: &History, colors: &Colors, now: Instant) {
        let [figures, curve] = Layout::horizontal([Constraint::Length(FIGURES), Constraint::Fill(1)]).areas(area);
        let (figures, has_curve) = if area.width >= CURVES_FROM { (figures, true) } else { (area, false) };
        let mut lines = vec![Line::from(vec![
            Span::styled(format!("{:>8} ", self.name), colors.dim()),
            Span::styled(format!("{:>6}", self.value), colors.bold(self.color)),
            Span::raw(if area.height == 1 { self.beside.clone() } else { String::new() }),
        ])];
        if area.height > 1 {
            lines.push(Line::styled(format!("{:>9}{}", "", self.beside.trim_start()), colors.dim()));
        }
        frame.render_widget(Paragraph::new(lines), figures);
        if has_curve {
            // A free line between curves that are tall enough.
            let height = if curve.height >= 4 { curve.height - 1 } else { curve.height };
            let curve = Rect { height, ..curve };
            if !curve.is_empty() {
                frame.render_widget(self.sparkline(curve, history, now).style(colors.ink(self.color)), curve);
            }
        }
    }

    fn sparkline(&self, area: Rect, history: &History, now: Instant) -> Sparkline<'static> {
        let values = history.curve(area.width.into(), now, self.pick);
        let seen = || values.iter().flatten().copied();
        let low = self.range.0.unwrap_or(f64::INFINITY).min(seen().fold(f64::INFINITY, f64::min));
        let high = self.range.1.unwrap_or(f64::NEG_INFINITY).max(seen().fold(f64::NEG_INFINITY, f64::max));
        let full = STEPS * f64::from(area.height);
        // What is there at all is at least one step high.
        let bar = |v: f64| (((v - low) / (high - low).max(1e-9)) * full).min(full).max(1.0) as u64;
        let bars: Vec<Option<u64>> = values.iter().map(|v| v.map(bar)).collect();
        Sparkline::default().data(bars).max(full as u64).direction(RenderDirection::LeftToRight).absent_value_symbol(" ")
    }
}

fn foot(history: &History, colors: &Colors) -> Line<'static> {
    let counts = &history.counts;
    let mut parts = Vec::new();
    if let (Some(running), Some(waiting)) = (counts.running, counts.waiting) {
        parts.push(format!("{running:.0} running, {waiting:.0} waiting"));
    }
    if let Some(generated) = counts.generated {
        parts.push(format!("{generated:.0} tokens"));
    }
    if let Some(bytes) = counts.resident_bytes {
        parts.push(format!("{:.0} MiB", Bytes(bytes as u64).mebibytes()));
    }
    parts.push(format!("the last {} min; q quits", SPAN.as_secs() / 60));
    Line::styled(parts.join("   "), colors.dim())
}

#[cfg(test)]
mod tests {
    use super::super::feed::{Counts, News};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn report(second: u32) -> Value {
        json!({
            "temperature": 50.0 + f64::from(second) / 10.0, "requested": 2.4e9, "measured": 1.8e9, "power": 6.4, "power_place": "pmic",
            "source": "real", "speed": {"now": 11.6, "peak": 12.9, "sustained": 11.7}, "level": "ride", "cause": "board-throttles-well",
            "degraded": "high-operating-temperature", "mechanism": "progressive",
            "decision": {"headroom": 1.02, "in_60_s": {"at": 84.0, "sigma": 1.0, "headroom": 1.05}, "time_to_throttle": null,
                         "decode": {"threads": 4, "cap": null}},
        })
    }

    /// Five minutes of a Pi 5, and the time after them.
    fn history() -> (History, Instant) {
        let start = Instant::now();
        let mut history = History::new("/run/hearth/hearth.sock".into());
        for second in 0..300 {
            history.take(News::Thermal(report(second)), start + Duration::from_secs(second.into()));
        }
        let counts = Counts {
            state: "ok".into(),
            model: "SmolLM2-135M".into(),
            running: Some(1.0),
            waiting: Some(3.0),
            generated: Some(812.0),
            resident_bytes: Some(2e8),
        };
        history.take(News::Counts(counts), start);
        (history, start + Duration::from_secs(299))
    }

    fn rows(history: &History, now: Instant, width: u16, height: u16, no_color: bool) -> (Vec<String>, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, history, &Colors::of(no_color), now)).unwrap();
        let buffer = terminal.backend().buffer();
        let rows = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned()).collect();
        (rows, buffer.content().iter().any(|cell| cell.fg != Color::Reset))
    }

    #[test]
    fn a_usual_terminal_shows_everything() {
        let (history, now) = history();
        let (rows, colored) = rows(&history, now, 80, 24, false);
        let text = rows.join("\n");
        for part in [
            "SmolLM2-135M",
            "ride: board throttles well",
            "high operating temperature",
            "11.6",
            "peak 12.9, mean 11.7",
            "79.9",
            "6.4 W at pmic",
            "1.80",
            "4 threads",
            "1.02",
            "in 60 s 1.05",
            "1 running, 3 waiting",
            "q quits",
            "█",
        ] {
            assert!(text.contains(part), "`{part}` is missing from\n{text}");
        }
        assert!(colored);
    }

    #[test]
    fn no_color_means_none() {
        let (history, now) = history();
        assert!(!rows(&history, now, 80, 24, true).1);
    }

    #[test]
    fn small_terminals_keep_the_figures() {
        let (history, now) = history();
        for (width, height) in [(40, 10), (30, 7)] {
            let text = rows(&history, now, width, height, false).0.join("\n");
            for part in ["ride", "11.6", "79.9", "1.80", "1.02", "running"] {
                assert!(text.contains(part), "{width}×{height}: `{part}` is missing from\n{text}");
            }
        }
        for (width, height) in [(1, 1), (5, 2), (20, 3), (80, 1), (3, 40), (500, 200)] {
            rows(&history, now, width, height, false);
        }
    }

    #[test]
    fn a_lost_a_silent_and_an_unknown_daemon_are_told() {
        let (mut history, now) = history();
        let text = |history: &History, now| rows(history, now, 80, 24, false).0.join("\n");
        assert!(text(&history, now + Duration::from_secs(40)).contains("no news for 40 s"));
        history.take(News::Lost("/run/hearth/hearth.sock: no daemon answers here".into()), now);
        history.take(News::Lost(format!("{}the end", "long ".repeat(20))), now);
        assert!(text(&history, now).contains("looking for the daemon: long") && text(&history, now).contains("the end"));
        let fresh = History::new("/tmp/s".into());
        let shown = text(&fresh, now);
        assert!(shown.contains("waiting for /tmp/s") && shown.contains('–'), "{shown}");
    }

    #[test]
    fn a_board_without_sensors_shows_its_speed() {
        let (mut history, now) = history();
        let bare = json!({"temperature": null, "requested": null, "measured": null, "power": null, "source": "pc",
            "speed": {"now": 61.0, "peak": 73.0, "sustained": 60.0}, "level": "blind", "cause": "sensor-lost", "degraded": "", "decision": {"headroom": null}});
        history.take(News::Thermal(bare), now);
        let shown = rows(&history, now, 80, 24, false).0.join("\n");
        assert!(shown.contains("61.0") && shown.contains("on a PC") && shown.contains("°C      –"), "{shown}");
    }
}
