//! The story of a run in one picture: speed, temperature, clock and power over time, peak and sustained drawn in, throttling shaded.
//! SVG by plotters; the PNG is the same SVG drawn by resvg.

use super::record::Record;
use super::sustained::{Second, Source};
use plotters::prelude::*;

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 900;
const SPEED: RGBColor = RGBColor(31, 95, 168);
const HEAT: RGBColor = RGBColor(200, 60, 40);
const CLOCK: RGBColor = RGBColor(90, 90, 90);
const POWER: RGBColor = RGBColor(20, 130, 90);
const SHADE: RGBColor = RGBColor(255, 226, 214);
/// Points of a curve: more than a screen has columns tell nothing.
const POINTS: usize = 600;

#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the picture cannot be drawn: {0}")]
    Draw(String),
}

/// The picture as SVG. `trips`: temperatures to draw, with their names.
pub fn svg(record: &Record, hot: &[Second], trips: &[(String, f64)]) -> Result<String, PictureError> {
    let mut out = String::new();
    draw(&mut out, record, hot, trips).map_err(|e| PictureError::Draw(e.to_string()))?;
    Ok(out)
}

/// An SVG as PNG, at twice its size, and whether it has words: a machine without a font draws the curves only.
pub fn png(svg: &str) -> Result<(Vec<u8>, bool), PictureError> {
    let mut options = resvg::usvg::Options::default();
    options.fontdb_mut().load_system_fonts();
    let has_words = !options.fontdb.is_empty();
    // The SVG asks for sans-serif, which is a family of another system until it is named.
    let named = |name: &str| options.fontdb.faces().any(|f| f.families.iter().any(|(n, _)| n == name));
    let sans = ["DejaVu Sans", "Liberation Sans", "Noto Sans", "Arial"].into_iter().find(|n| named(n)).map(str::to_owned);
    if let Some(family) = sans.or_else(|| Some(options.fontdb.faces().next()?.families.first()?.0.clone())) {
        options.fontdb_mut().set_sans_serif_family(family);
    }
    let tree = resvg::usvg::Tree::from_str(svg, &options).map_err(|e| PictureError::Draw(e.to_string()))?;
    let mut pixels = resvg::tiny_skia::Pixmap::new(2 * WIDTH, 2 * HEIGHT).ok_or_else(|| PictureError::Draw("no memory".into()))?;
    resvg::render(&tree, resvg::tiny_skia::Transform::from_scale(2.0, 2.0), &mut pixels.as_mut());
    let png = pixels.encode_png().map_err(|e| PictureError::Draw(e.to_string()))?;
    Ok((png, has_words))
}

fn draw(out: &mut String, record: &Record, hot: &[Second], trips: &[(String, f64)]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(out, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let f = &record.figures;
    let source = match record.source {
        Source::Real => "real board",
        Source::Pc => "PC",
        Source::Simulated => "SIMULATED",
    };
    let title = format!("{}, {}: {:.1} tok/s at first, {:.1} sustained ({:.0} %)", record.board, source, f.peak_tok_s, f.sustained_tok_s, 100.0 * f.ratio);
    area.draw_text(&title, &("sans-serif", 24).into_font().into_text_style(&area), (20, 14))?;
    let why = f.throttled.first().map_or("not throttled".into(), |(why, share)| format!("{why}: {:.0} % of the end", 100.0 * share));
    let line = format!("{}, {} threads, governor {}; {why}; {}", record.model, record.threads, record.governor, record.date);
    area.draw_text(&line, &("sans-serif", 15).into_font().color(&CLOCK).into_text_style(&area), (20, 44))?;
    let shades = shades(hot);
    let minutes = hot.len() as f64 / 60.0;
    let series = |pick: &dyn Fn(&Second) -> Option<f64>| thin(hot, pick);
    let speed = series(&|s| Some(s.tokens / s.seconds.max(1e-6)));
    let heat = series(&|s| s.celsius);
    let clock = series(&|s| s.measured_mhz.or(s.requested_mhz));
    let power = series(&|s| s.watts);
    let lines = [
        Panel { name: "tok/s", color: SPEED, points: speed, from_zero: true, marks: vec![(format!("peak {:.1}", f.peak_tok_s), f.peak_tok_s), (format!("sustained {:.1}", f.sustained_tok_s), f.sustained_tok_s)] },
        Panel { name: "°C", color: HEAT, points: heat, from_zero: false, marks: trips.to_vec() },
        Panel { name: "MHz", color: CLOCK, points: clock, from_zero: true, marks: Vec::new() },
        Panel { name: "W", color: POWER, points: power, from_zero: true, marks: Vec::new() },
    ];
    let shown: Vec<Panel> = lines.into_iter().filter(|p| !p.points.is_empty()).collect();
    let (_, body) = area.split_vertically(70);
    // Speed is the story: it gets twice the room.
    let unit = (HEIGHT - 70) / (shown.len() as u32 + 1);
    let mut rest = body;
    for (i, panel) in shown.iter().enumerate() {
        let (this, below) = rest.split_vertically(if i == 0 { 2 * unit } else { unit });
        panel.draw(&this, minutes, &shades, i + 1 == shown.len())?;
        rest = below;
    }
    area.present()?;
    Ok(())
}

struct Panel {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
    from_zero: bool,
    marks: Vec<(String, f64)>,
}

impl Panel {
    fn draw(&self, area: &DrawingArea<SVGBackend, plotters::coord::Shift>, minutes: f64, shades: &[(f64, f64)], last: bool) -> Result<(), Box<dyn std::error::Error>> {
        let values = || self.points.iter().map(|p| p.1).chain(self.marks.iter().map(|m| m.1));
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let room = (high - low).max(0.05 * high.abs()).max(1e-3);
        let bottom = if self.from_zero { 0.0 } else { low - 0.15 * room };
        let mut chart = ChartBuilder::on(area)
            .margin_right(24)
            .margin_top(8)
            .x_label_area_size(if last { 44 } else { 8 })
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..minutes, bottom..high + 0.18 * room)?;
        for &(from, to) in shades {
            chart.draw_series([Rectangle::new([(from, bottom), (to, high + 0.18 * room)], SHADE.filled())])?;
        }
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(WHITE.mix(0.0)).bold_line_style(BLACK.mix(0.08)).y_desc(self.name).y_labels(5).axis_desc_style(("sans-serif", 16)).label_style(("sans-serif", 13));
        if last {
            mesh.x_desc("minutes of work; shaded: the board was throttled");
        } else {
            mesh.x_labels(0);
        }
        mesh.draw()?;
        chart.draw_series(LineSeries::new(self.points.iter().copied(), self.color.stroke_width(2)))?;
        for (name, value) in &self.marks {
            chart.draw_series(DashedLineSeries::new([(0.0, *value), (minutes, *value)], 6, 4, self.color.mix(0.8).stroke_width(1)))?;
            let style = ("sans-serif", 15).into_font().color(&self.color);
            chart.draw_series([Text::new(name.clone(), (minutes * 0.86, *value + 0.10 * room), style)])?;
        }
        Ok(())
    }
}

/// Means of so many seconds that at most [`POINTS`] points are left, over minutes.
fn thin(hot: &[Second], pick: &dyn Fn(&Second) -> Option<f64>) -> Vec<(f64, f64)> {
    let each = hot.len().div_ceil(POINTS).max(1);
    hot.chunks(each)
        .enumerate()
        .filter_map(|(i, part)| {
            let values: Vec<f64> = part.iter().filter_map(pick).collect();
            (!values.is_empty()).then(|| ((i * each) as f64 / 60.0, super::statistics::mean(&values)))
        })
        .collect()
}

/// Spans of throttling in minutes; gaps below ten seconds are closed, or a limit cycle would be a barcode.
fn shades(hot: &[Second]) -> Vec<(f64, f64)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for (i, _) in hot.iter().enumerate().filter(|(_, s)| !s.throttled.is_empty()) {
        match spans.last_mut() {
            Some(span) if i <= span.1 + 10 => span.1 = i + 1,
            _ => spans.push((i, i + 1)),
        }
    }
    spans.into_iter().map(|(a, b)| (a as f64 / 60.0, b as f64 / 60.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_throttle_spans_are_one_shade() {
        let second = |hot: bool| Second { throttled: if hot { "thermal".into() } else { String::new() }, ..Second::default() };
        let run: Vec<Second> = (0..300).map(|i| second((100..200).contains(&i) && i % 5 < 2)).collect();
        assert_eq!(shades(&run).len(), 1);
    }

    #[test]
    fn curves_are_thinned_to_what_a_screen_shows() {
        let run = vec![Second { celsius: Some(50.0), ..Second::default() }; 7200];
        let points = thin(&run, &|s| s.celsius);
        assert!(points.len() <= POINTS && points.iter().all(|p| p.1 == 50.0));
    }
}
