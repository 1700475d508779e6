//! The table: a row per target, printed as it is measured and kept for the record.

use crate::hearth::median;
use std::fmt::Display;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Short,
    Skipped,
    /// No target: a limit of the machine, or how busy others kept it.
    Measured,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Short => "SHORT",
            Verdict::Skipped => "skipped",
            Verdict::Measured => "measured",
        }
    }
}

pub struct Row {
    pub verdict: Verdict,
    pub name: String,
    /// What was measured; of a skipped row the reason.
    pub figure: String,
    pub target: String,
}

/// One value, or the median of several with the range they had.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    value: f64,
    range: Option<(f64, f64)>,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Figure { value, range: None }
    }
}

impl FromIterator<f64> for Figure {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let values: Vec<f64> = values.into_iter().collect();
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        Figure { value: median(values.iter().copied()), range: (values.len() > 1).then_some((least, most)) }
    }
}

#[derive(Default)]
pub struct Table {
    pub rows: Vec<Row>,
}

impl Table {
    /// A figure that should be `target` or more.
    pub fn at_least(&mut self, name: impl Display, figure: impl Into<Figure>, target: f64, unit: &str) {
        let figure = figure.into();
        self.judge(name, figure, figure.value >= target, "≥", target, unit);
    }

    /// A figure that should be `target` or less.
    pub fn at_most(&mut self, name: impl Display, figure: impl Into<Figure>, target: f64, unit: &str) {
        let figure = figure.into();
        self.judge(name, figure, figure.value <= target, "≤", target, unit);
    }

    /// A figure without a target.
    pub fn tell(&mut self, name: impl Display, figure: impl Into<Figure>, unit: &str) {
        let figure = shown(figure.into(), unit);
        self.push(Row { verdict: Verdict::Measured, name: name.to_string(), figure, target: "–".to_owned() });
    }

    pub fn skip(&mut self, name: impl Display, why: impl Display) {
        self.push(Row { verdict: Verdict::Skipped, name: name.to_string(), figure: why.to_string(), target: "–".to_owned() });
    }

    pub fn is_short(&self) -> bool {
        self.rows.iter().any(|r| r.verdict == Verdict::Short)
    }

    fn judge(&mut self, name: impl Display, figure: Figure, reached: bool, sign: &str, target: f64, unit: &str) {
        let verdict = if reached { Verdict::Ok } else { Verdict::Short };
        self.push(Row {
            verdict,
            name: name.to_string(),
            figure: shown(figure, unit),
            target: format!("{sign} {}", written(target, unit)),
        });
    }

    fn push(&mut self, row: Row) {
        println!("{:<8} {:<66} {:>28}   {}", row.verdict.word(), row.name, row.figure, row.target);
        self.rows.push(row);
    }
}

fn shown(figure: Figure, unit: &str) -> String {
    let range = figure.range.map(|(least, most)| format!(" ({}…{})", written(least, ""), written(most, ""))).unwrap_or_default();
    written(figure.value, unit) + &range
}

/// With three to four significant digits.
fn written(x: f64, unit: &str) -> String {
    let digits = match x.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 0.1 => 3,
        0.0 => 0,
        _ => 6,
    };
    format!("{x:.digits$} {unit}").trim_end().to_owned()
}
