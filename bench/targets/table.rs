//! The table: a row per target, printed as it is measured and kept for the record.

use std::fmt::Display;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Short,
    Skipped,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Short => "SHORT",
            Verdict::Skipped => "skipped",
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

#[derive(Default)]
pub struct Table {
    pub rows: Vec<Row>,
}

impl Table {
    /// A figure that should be `target` or more.
    pub fn at_least(&mut self, name: impl Display, figure: f64, target: f64, unit: &str) {
        self.judge(name, figure, figure >= target, "≥", target, unit);
    }

    /// A figure that should be `target` or less.
    pub fn at_most(&mut self, name: impl Display, figure: f64, target: f64, unit: &str) {
        self.judge(name, figure, figure <= target, "≤", target, unit);
    }

    pub fn skip(&mut self, name: impl Display, why: impl Display) {
        self.push(Row { verdict: Verdict::Skipped, name: name.to_string(), figure: why.to_string(), target: "–".to_owned() });
    }

    pub fn is_short(&self) -> bool {
        self.rows.iter().any(|r| r.verdict == Verdict::Short)
    }

    fn judge(&mut self, name: impl Display, figure: f64, reached: bool, sign: &str, target: f64, unit: &str) {
        let verdict = if reached { Verdict::Ok } else { Verdict::Short };
        self.push(Row {
            verdict,
            name: name.to_string(),
            figure: written(figure, unit),
            target: format!("{sign} {}", written(target, unit)),
        });
    }

    fn push(&mut self, row: Row) {
        println!("{:<8} {:<62} {:>18}   {}", row.verdict.word(), row.name, row.figure, row.target);
        self.rows.push(row);
    }
}

/// With three to four significant digits.
fn written(x: f64, unit: &str) -> String {
    let digits = match x.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 0.1 => 3,
        _ => 6,
    };
    format!("{x:.digits$} {unit}").trim_end().to_owned()
}
