//! The story of a run in one picture: speed, temperature, clock and power over time, peak and sustained drawn in, throttling shaded by
//! its cause. SVG by plotters; the PNG is the same SVG drawn by resvg, with a font of our own: a headless board has none.

use super::record::{Record, source_words, threads_words};
use super::series::{Second, Source, totals};
use super::statistics::mean;
use super::sustained::length_words;
use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: u32 = 1200;
/// Title, subtitle and legend.
const HEAD: u32 = 112;
/// Height of a panel; speed is the story and gets twice the room.
const PANEL: u32 = 150;
const FOOT: u32 = 40;
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(120, 126, 136);
const SPEED: RGBColor = RGBColor(31, 95, 168);
const HEAT: RGBColor = RGBColor(200, 60, 40);
const CLOCK: RGBColor = RGBColor(96, 72, 150);
const POWER: RGBColor = RGBColor(20, 130, 90);
const FIRST: RGBColor = RGBColor(150, 90, 20);
const SIMULATED: RGBColor = RGBColor(190, 90, 0);
/// What throttling is shaded with, by cause.
const CAUSES: [(&str, RGBColor); 3] =
    [("thermal", RGBColor(255, 222, 210)), ("under-voltage", RGBColor(228, 218, 250)), ("power-limit", RGBColor(255, 240, 200))];
/// Points of a curve: more than a screen has columns tell nothing.
const POINTS: usize = 600;
/// Built in, so that a board without fonts draws words too.
const FONT_FAMILY: &str = "DejaVu Sans";

#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the picture cannot be drawn: {0}")]
    Draw(String),
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The picture as SVG. `trips`: temperatures to draw, with their names.
pub fn svg(record: &Record, hot: &[Second], trips: &[(String, f64)]) -> Result<String, PictureError> {
    let mut out = String::new();
    draw(&mut out, record, hot, trips).map_err(|e| PictureError::Draw(e.to_string()))?;
    Ok(out)
}

/// An SVG as PNG, at twice its size.
pub fn png(svg: &str) -> Result<Vec<u8>, PictureError> {
    let drawn = |e: &dyn std::fmt::Display| PictureError::Draw(e.to_string());
    let mut options = resvg::usvg::Options::default();
    // The system's fonts help with letters that ours lacks, in a note for one.
    options.fontdb_mut().load_system_fonts();
    options.fontdb_mut().load_font_data(dejavu::sans::regular().to_vec());
    options.fontdb_mut().set_sans_serif_family(FONT_FAMILY);
    let tree = resvg::usvg::Tree::from_str(svg, &options).map_err(|e| drawn(&e))?;
    let size = tree.size().to_int_size().scale_by(2.0).ok_or_else(|| drawn(&"it has no size"))?;
    let mut pixels = resvg::tiny_skia::Pixmap::new(size.width(), size.height()).ok_or_else(|| drawn(&"no memory"))?;
    resvg::render(&tree, resvg::tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| drawn(&e))
}

fn draw(out: &mut String, record: &Record, hot: &[Second], trips: &[(String, f64)]) -> Drawn {
    let panels = panels(record, hot, trips);
    let height = HEAD + PANEL * (panels.len() as u32 + 1) + FOOT;
    let area = SVGBackend::with_string(out, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let (head, mut rest) = area.split_vertically(HEAD);
    title(&head, record, hot)?;
    for (i, panel) in panels.iter().enumerate() {
        let is_last = i + 1 == panels.len();
        let (this, below) = rest.split_vertically(PANEL * if i == 0 { 2 } else { 1 } + if is_last { FOOT } else { 0 });
        panel.draw(&this, hot, is_last)?;
        rest = below;
    }
    area.present()?;
    Ok(())
}

fn ink(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

fn title(area: &Area, record: &Record, hot: &[Second]) -> Drawn {
    let f = &record.figures;
    let end = if f.steady { "sustained" } else { "at the end, NOT steady" };
    let story = format!("{:.1} tok/s at its peak, {:.1} {end} ({:.0} %)", f.peak_tok_s, f.sustained_tok_s, 100.0 * f.ratio);
    let story = match &f.turns {
        Some(t) => format!("{story}; first token {:.1} → {:.1} s", t.first_token_ms_at_first / 1000.0, t.first_token_ms.p50 / 1000.0),
        None => story,
    };
    area.draw_text(&story, &ink(30, INK), (24, 14))?;
    let color = if record.source == Source::Simulated { SIMULATED } else { INK };
    let what = format!("{}: {}", record.board, source_words(record.source));
    area.draw_text(&cut(&what, 100), &ink(18, color), (24, 52))?;
    let load = record.turn.map_or(String::new(), |t| format!(" under the load `{}`", t.load.word()));
    let note = if record.note.is_empty() { String::new() } else { format!(", {}", record.note) };
    let line = format!(
        "{}{load}, {}, governor {}, {}{note}",
        record.model.file,
        threads_words(record.threads),
        record.governor,
        record.date.replace('T', " ")
    );
    area.draw_text(&cut(&line, 150), &ink(14, FAINT), (24, 78))?;
    // The legend, right: the thick line is the window that the figure is of; then what the shades are.
    let mut entries: Vec<(String, RGBColor, i32)> =
        vec![(format!("{} of the last {}", if f.steady { "sustained" } else { "mean" }, length_words(f.window_s)), SPEED, 5)];
    for (cause, color) in CAUSES.iter().filter(|(cause, _)| hot.iter().any(|s| s.throttled == *cause)) {
        let words = if *cause == "thermal" { "throttled by heat".to_owned() } else { format!("throttled: {cause}") };
        entries.push((words, *color, 15));
    }
    for (i, (words, color, thick)) in entries.into_iter().enumerate() {
        let (x, y) = (WIDTH as i32 - 244, 18 + 22 * i as i32);
        let above = (15 - thick) / 2;
        area.draw(&Rectangle::new([(x, y + above), (x + 24, y + above + thick)], color.filled()))?;
        area.draw_text(&words, &ink(14, INK), (x + 32, y))?;
    }
    Ok(())
}

/// At most so many letters, and none that XML does not allow: a note or a file's name may have any.
fn cut(text: &str, letters: usize) -> String {
    let plain = || text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    if plain().count() <= letters { plain().collect() } else { plain().take(letters - 1).chain(['…']).collect() }
}

struct Panel {
    name: String,
    color: RGBColor,
    /// Over minutes; the first is the one that counts, others stand behind it.
    curves: Vec<Vec<(f64, f64)>>,
    from_zero: bool,
    marks: Vec<Mark>,
}

/// A level with its name, over a span of minutes; `None` is all of it.
struct Mark {
    name: String,
    level: f64,
    span: Option<(f64, f64)>,
    /// Drawn as a band of this half-width around it.
    band: Option<[f64; 2]>,
}

/// What there is to show. A machine without sensors has one panel, and a word on what it does not see.
fn panels(record: &Record, hot: &[Second], trips: &[(String, f64)]) -> Vec<Panel> {
    let f = &record.figures;
    let series = |pick: &dyn Fn(&Second) -> Option<f64>| thin(hot, pick);
    let minutes = hot.len() as f64 / 60.0;
    let window = (minutes - f.window_s as f64 / 60.0, minutes);
    let end = if f.steady { "sustained" } else { "at the end" };
    let peak = Mark { name: format!("peak {:.1}", f.peak_tok_s), level: f.peak_tok_s, span: None, band: None };
    let [low, high] = f.sustained_95;
    let interval = if high - low > 0.005 * f.sustained_tok_s { format!(" [{low:.1} … {high:.1}]") } else { String::new() };
    let sustained = Mark {
        name: format!("{end} {:.1}{interval}", f.sustained_tok_s),
        level: f.sustained_tok_s,
        span: Some(window),
        band: Some([low, high]),
    };
    let level = |(name, level): &(String, f64)| Mark { name: format!("{name} {level:.0} °C"), level: *level, span: None, band: None };
    let first: Vec<(f64, f64)> = hot
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.first_token_ms.iter().map(move |ms| (i as f64 / 60.0, f64::from(*ms) / 1000.0)))
        .collect();
    let first_marks = f.turns.iter().flat_map(|turns| {
        let mark = |name: String, ms: f64, span| Mark { name, level: ms / 1000.0, span, band: None };
        let [early, middle] = [turns.first_token_ms_at_first, turns.first_token_ms.p50];
        [
            mark(format!("at first {:.1}", early / 1000.0), early, None),
            mark(format!("{:.1}; 95 % within {:.1}", middle / 1000.0, turns.first_token_ms.p95 / 1000.0), middle, Some(window)),
        ]
    });
    let (heat, skin) = (series(&|s| s.celsius), series(&|s| s.skin_celsius));
    let (measured, asked) = (series(&|s| s.measured_mhz.map(|m| m / 1000.0)), series(&|s| s.requested_mhz.map(|m| m / 1000.0)));
    let power = series(&|s| s.watts);
    let hidden: Vec<&str> =
        [("temperature", heat.is_empty()), ("clock", measured.is_empty() && asked.is_empty()), ("power", power.is_empty())]
            .into_iter()
            .filter_map(|(name, is_hidden)| is_hidden.then_some(name))
            .collect();
    let blind = if hidden.is_empty() { String::new() } else { format!("   (this machine does not tell its {})", hidden.join(", ")) };
    let place = record.power_place.as_deref().unwrap_or("unknown place");
    // Trips far above the curve would flatten it.
    let hottest = heat.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let near: Vec<Mark> = trips.iter().filter(|t| t.1 < hottest + 25.0).map(level).collect();
    let heats: Vec<_> = [heat, skin].into_iter().filter(|c| !c.is_empty()).collect();
    let heat_name = if heats.len() > 1 { "°C of the chip; fainter: of the skin" } else { "°C" };
    let (clocks, clock_name) = match (measured.is_empty(), asked.is_empty()) {
        (false, false) => (vec![measured, asked], "GHz as measured; fainter: as asked for"),
        (false, true) => (vec![measured], "GHz as measured"),
        _ => (vec![asked], "GHz as asked for (not measured)"),
    };
    [
        Panel {
            name: format!("tokens per second{blind}"),
            color: SPEED,
            curves: vec![rates(hot, 10), rates(hot, 1)],
            from_zero: true,
            marks: vec![peak, sustained],
        },
        Panel {
            name: "seconds from a turn's begin to its first token".into(),
            color: FIRST,
            curves: vec![first],
            from_zero: true,
            marks: first_marks.collect(),
        },
        Panel { name: heat_name.into(), color: HEAT, curves: heats, from_zero: false, marks: near },
        Panel { name: clock_name.into(), color: CLOCK, curves: clocks, from_zero: true, marks: Vec::new() },
        Panel { name: format!("W at {place}"), color: POWER, curves: vec![power], from_zero: true, marks: Vec::new() },
    ]
    .into_iter()
    .filter(|p| p.curves.first().is_some_and(|c| !c.is_empty()))
    .collect()
}

impl Panel {
    fn draw(&self, area: &Area, hot: &[Second], last: bool) -> Drawn {
        let minutes = (hot.len() as f64 / 60.0).max(1.0 / 60.0);
        let points = || self.curves.iter().flatten().map(|p| p.1);
        let values = || points().chain(self.marks.iter().map(|m| m.level));
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let room = (high - if self.from_zero { 0.0 } else { low }).max(0.02 * high.abs()).max(1e-3);
        let (bottom, top) = (if self.from_zero { 0.0 } else { low - 0.15 * room }, high + 0.22 * room);
        let mut chart = ChartBuilder::on(area)
            .margin_left(12)
            .margin_right(24)
            .margin_top(28)
            .x_label_area_size(if last { FOOT } else { 4 })
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..minutes, bottom..top)?;
        let shade = |from: f64, to: f64, color: RGBColor| Rectangle::new([(from, bottom), (to, top)], color.filled());
        for (cause, color) in CAUSES {
            chart.draw_series(spans(hot, cause).into_iter().map(|(from, to)| shade(from, to, color)))?;
        }
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.10)).axis_style(FAINT);
        mesh.y_labels(if last { 4 } else { 5 })
            .label_style(ink(14, FAINT))
            .x_label_formatter(&|m| format!("{m:.0}"))
            .y_label_formatter(&|v: &f64| tick(*v));
        if last {
            mesh.x_desc("minutes of work").axis_desc_style(ink(14, INK));
        } else {
            mesh.x_labels(0);
        }
        mesh.draw()?;
        for (i, curve) in self.curves.iter().enumerate().rev() {
            let style = if i == 0 { self.color.stroke_width(2) } else { self.color.mix(0.28).stroke_width(1) };
            chart.draw_series(LineSeries::new(curve.iter().copied(), style))?;
        }
        for mark in &self.marks {
            let (from, to) = mark.span.unwrap_or((0.0, minutes));
            if let Some([a, b]) = mark.band {
                chart.draw_series([Rectangle::new([(from, a), (to, b)], self.color.mix(0.25).filled())])?;
                chart.draw_series(LineSeries::new([(from, mark.level), (to, mark.level)], self.color.stroke_width(3)))?;
            } else {
                chart.draw_series(DashedLineSeries::new([(from, mark.level), (to, mark.level)], 7, 5, self.color.stroke_width(1)))?;
            }
        }
        // A level of the whole run is named above its line, at the left; one of a window below all that happens in it.
        for mark in &self.marks {
            let from = mark.span.map_or(0.0, |s| s.0);
            let levels = self.marks.iter().map(|m| m.level);
            let lowest = self.curves.iter().flatten().filter(|p| p.0 >= from).map(|p| p.1).chain(levels).fold(mark.level, f64::min);
            let level = if mark.span.is_some() { lowest } else { mark.level };
            let (x, y) = chart.backend_coord(&(from, level));
            let (left, above) = area.get_base_pixel();
            let y = if mark.span.is_some() { (y + 8).min(chart.backend_coord(&(from, bottom)).1 - 20) } else { y - 20 };
            let room = WIDTH as i32 - 30 - mark.name.chars().count() as i32 * 8;
            area.draw_text(&mark.name, &ink(15, self.color), ((x + 6).min(room) - left, y - above))?;
        }
        area.draw_text(&self.name, &ink(15, self.color), (24, 6))?;
        Ok(())
    }
}

/// A number at an axis, without a needless `.0`.
fn tick(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Speeds over minutes as means of `width` seconds, of so many places as can be seen.
fn rates(hot: &[Second], width: usize) -> Vec<(f64, f64)> {
    let step = hot.len().div_ceil(POINTS).max(1);
    (0..hot.len())
        .step_by(step)
        .filter_map(|at| {
            let from = at.saturating_sub(width / 2);
            let (tokens, seconds) = totals(&hot[from..(from + width.max(step)).min(hot.len())]);
            (seconds > 0.0).then(|| (at as f64 / 60.0, tokens / seconds))
        })
        .collect()
}

/// Means of so many seconds that at most [`POINTS`] points are left, over minutes.
fn thin(hot: &[Second], pick: &dyn Fn(&Second) -> Option<f64>) -> Vec<(f64, f64)> {
    let each = hot.len().div_ceil(POINTS).max(1);
    hot.chunks(each)
        .enumerate()
        .filter_map(|(i, part)| {
            let values: Vec<f64> = part.iter().filter_map(pick).collect();
            (!values.is_empty()).then(|| ((i * each) as f64 / 60.0, mean(&values)))
        })
        .collect()
}

/// Spans of throttling for one cause, in minutes; gaps below ten seconds are closed, or a limit cycle would be a barcode.
fn spans(hot: &[Second], cause: &str) -> Vec<(f64, f64)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for (i, _) in hot.iter().enumerate().filter(|(_, s)| s.throttled == cause) {
        match spans.last_mut() {
            Some(span) if i <= span.1 + 10 => span.1 = i + 1,
            _ => spans.push((i, i + 1)),
        }
    }
    spans.into_iter().map(|(a, b)| (a as f64 / 60.0, b as f64 / 60.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::super::sustained::judge;
    use super::*;

    #[test]
    fn close_throttle_spans_are_one_shade_and_causes_stay_apart() {
        let second = |hot: bool| Second { throttled: if hot { "thermal".into() } else { String::new() }, ..Second::default() };
        let run: Vec<Second> = (0..300).map(|i| second((100..200).contains(&i) && i % 5 < 2)).collect();
        assert_eq!(spans(&run, "thermal").len(), 1);
        assert!(spans(&run, "under-voltage").is_empty());
    }

    #[test]
    fn curves_are_thinned_to_what_a_screen_shows() {
        let run = vec![Second { celsius: Some(50.0), tokens: 2.0, seconds: 1.0, ..Second::default() }; 7200];
        let points = thin(&run, &|s| s.celsius);
        assert!(points.len() <= POINTS && points.iter().all(|p| p.1 == 50.0));
        assert!(rates(&run, 10).len() <= POINTS && rates(&run, 10).iter().all(|p| p.1 == 2.0));
    }

    /// A run with everything, or with its speed alone.
    fn picture(source: Source, sees: bool) -> String {
        let second = |i: usize| Second {
            tokens: if i > 300 { 7.0 } else { 10.0 },
            seconds: 1.0,
            celsius: sees.then(|| 85.0_f64.min(45.0 + i as f64 / 8.0)),
            measured_mhz: sees.then_some(if i > 300 { 1700.0 } else { 2400.0 }),
            requested_mhz: sees.then_some(2400.0),
            watts: sees.then_some(8.0),
            throttled: if sees && i > 300 { "thermal".into() } else { String::new() },
            ..Second::default()
        };
        let hot: Vec<Second> = (0..1500).map(second).collect();
        let record = Record { figures: judge(&[], &hot), ..record(source) };
        svg(&record, &hot, &[("passive".into(), 80.0), ("critical".into(), 160.0)]).unwrap()
    }

    #[test]
    fn a_picture_names_what_it_shows_and_what_it_cannot() {
        let whole = picture(Source::Real, true);
        for part in [
            "10.0 tok/s at its peak, 7.0 sustained (70 %)",
            "measured on the board",
            "throttled by heat",
            "passive 80 °C",
            "GHz as measured",
            "W at",
        ] {
            assert!(whole.contains(part), "`{part}` is missing");
        }
        assert!(!whole.contains("critical"), "a trip far away would flatten the curve");
        let blind = picture(Source::Pc, false);
        assert!(blind.contains("does not tell its temperature, clock, power") && blind.contains("not a board") && !blind.contains("GHz"));
        assert!(picture(Source::Simulated, true).contains("SIMULATED"));
        assert!(!whole.contains("first token"));
    }

    #[test]
    fn a_note_with_any_letters_can_be_drawn() {
        let record = Record { note: "\u{1b}[31m<b>&\0\n\"fan\"\u{ffff}".into(), ..record(Source::Real) };
        let drawn = svg(&record, &vec![Second { tokens: 10.0, seconds: 1.0, ..Second::default() }; 60], &[]).unwrap();
        assert!(png(&drawn).is_ok(), "{drawn}");
    }

    #[test]
    fn a_mixed_load_shows_how_long_the_first_token_takes() {
        let second = |i: usize| Second {
            tokens: if i % 20 < 10 { 10.0 } else { 0.0 },
            seconds: if i % 20 < 10 { 1.0 } else { 0.0 },
            first_token_ms: if i.is_multiple_of(20) { vec![if i < 600 { 2000.0 } else { 3500.0 }] } else { vec![] },
            turn_s: if i % 20 == 19 { vec![20.0] } else { vec![] },
            ..Second::default()
        };
        let hot: Vec<Second> = (0..1500).map(second).collect();
        let record = Record { figures: judge(&[], &hot), ..record(Source::Pc) };
        let drawn = svg(&record, &hot, &[]).unwrap();
        for part in ["first token 2.0 → 3.5 s", "seconds from a turn", "at first 2.0", "3.5; 95 % within 3.5"] {
            assert!(drawn.contains(part), "`{part}` is missing");
        }
    }

    #[test]
    fn the_png_has_words_without_any_font_of_the_system() {
        let png = png(&picture(Source::Simulated, true)).unwrap();
        assert_eq!(&png[1..4], b"PNG");
        let pixels = resvg::tiny_skia::Pixmap::decode_png(&png).unwrap();
        // The title is ink on white, in the top left corner; the paper beside it is bare.
        let dark = |x: std::ops::Range<u32>| {
            x.flat_map(|x| (30..90).map(move |y| (x, y))).filter(|&(x, y)| pixels.pixel(x, y).is_some_and(|p| p.red() < 128)).count()
        };
        assert!(dark(48..600) > 500 && dark(0..40) == 0);
    }
}
