//! What quantized weights and quantized arithmetic cost in quality: perplexity of a text, and the divergence from a reference.
//!
//! The text is cut into windows of `context` tokens, each starting afresh (with the beginning-of-text token where the model has one).
//! Only the second half of a window is counted, where every token has at least half a window behind it; so figures of the same
//! `context` compare with those of llama.cpp's perplexity tool.

use super::session::{Session, SessionError, Wants};
use crate::units::TokenId;
use rayon::prelude::*;
use serde::Serialize;

/// Over all counted positions.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// exp(−mean ln p(next token)).
    pub ppl: f64,
    /// Positions counted.
    pub tokens: usize,
    /// Mean of Σ p·ln(p/q) in nats: p the reference's distribution, q the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_mean: Option<f64>,
    /// The divergence that 99 % of the positions stay below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kld_p99: Option<f64>,
    /// Share of positions where both hold the same token for the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_agreement: Option<f64>,
    /// The reference's own perplexity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_ppl: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the text has {tokens} tokens, but one window needs {context}; give a longer text or a smaller --ctx")]
    TooShort { tokens: usize, context: usize },
    #[error("the reference has a vocabulary of {reference} words, the model one of {model}; only models of one family compare")]
    Vocabulary { reference: usize, model: usize },
    #[error("window {window}: the logits of the model, or of its reference, are no numbers (NaN): there is no perplexity of them")]
    NoNumber { window: usize },
}

/// So many rows of logits are held at once: a window's would be 1 GB each for model and reference, with 4096 tokens and a vocabulary of
/// 128 thousand.
const ROWS: usize = 64;

/// One counted position.
struct Position {
    nll: f64,
    reference: Option<Against>,
}

struct Against {
    nll: f64,
    kld: f64,
    same_top: bool,
}

impl Position {
    fn is_number(&self) -> bool {
        !self.nll.is_nan() && self.reference.as_ref().is_none_or(|r| !r.nll.is_nan() && !r.kld.is_nan())
    }
}

/// Measures `model` on `tokens`, against `reference` where there is one. `first` begins every window. `report` hears of each window
/// done and of their number.
pub fn measure(
    model: &mut Session,
    mut reference: Option<&mut Session>,
    tokens: &[TokenId],
    first: Option<TokenId>,
    context: usize,
    mut report: impl FnMut(usize, usize),
) -> Result<Quality, QualityError> {
    let vocabulary = model.vocabulary();
    if let Some(reference) = &reference
        && reference.vocabulary() != vocabulary
    {
        return Err(QualityError::Vocabulary { reference: reference.vocabulary(), model: vocabulary });
    }
    let fresh = context - usize::from(first.is_some());
    let windows: Vec<&[TokenId]> = tokens.chunks_exact(fresh).collect();
    if windows.is_empty() {
        return Err(QualityError::TooShort { tokens: tokens.len(), context });
    }
    let mut positions: Vec<Position> = Vec::new();
    for (number, window) in windows.iter().enumerate() {
        let fed: Vec<TokenId> = first.iter().chain(*window).copied().collect();
        // The logits after the last token say nothing that the window could check.
        let (fed, counted) = (&fed[..fed.len() - 1], &fed[context / 2 + 1..]);
        let before = positions.len();
        let (behind, rows) = fed.split_at(fed.len() - counted.len());
        model.reset();
        model.feed(0, behind, Wants::Last(0))?;
        if let Some(reference) = &mut reference {
            reference.reset();
            reference.feed(0, behind, Wants::Last(0))?;
        }
        for (rows, next) in rows.chunks(ROWS).zip(counted.chunks(ROWS)) {
            let logits = model.feed(0, rows, Wants::All)?;
            let other = reference.as_mut().map(|reference| reference.feed(0, rows, Wants::All)).transpose()?;
            positions.par_extend(next.par_iter().enumerate().map(|(i, next)| {
                let row = |logits: &[f32]| log_softmax(&logits[i * vocabulary..][..vocabulary]);
                compare(&row(logits), other.map(row).as_deref(), next.0 as usize)
            }));
        }
        if !positions[before..].iter().all(Position::is_number) {
            return Err(QualityError::NoNumber { window: number + 1 });
        }
        report(number + 1, windows.len());
    }
    Ok(summary(&positions))
}

fn compare(q: &[f64], p: Option<&[f64]>, next: usize) -> Position {
    let reference = p.map(|p| Against { nll: -p[next], kld: divergence(p, q), same_top: top(p) == top(q) });
    Position { nll: -q[next], reference }
}

/// Σ p·ln(p/q) of logarithms. Rounding may make it a little less than 0, which no divergence is; what is no number stays none.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    // What the reference rules out weighs nothing, whatever the model says of it.
    let term = |(p, q): (&f64, &f64)| if *p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) };
    let sum: f64 = p.iter().zip(q).map(term).sum();
    if sum <= 0.0 { 0.0 } else { sum }
}

fn summary(positions: &[Position]) -> Quality {
    let count = positions.len() as f64;
    let against: Vec<&Against> = positions.iter().filter_map(|p| p.reference.as_ref()).collect();
    let with_reference = |f: &dyn Fn(&[&Against]) -> f64| (!against.is_empty()).then(|| f(&against));
    Quality {
        ppl: (positions.iter().map(|p| p.nll).sum::<f64>() / count).exp(),
        tokens: positions.len(),
        kld_mean: with_reference(&|all| all.iter().map(|a| a.kld).sum::<f64>() / count),
        kld_p99: with_reference(&|all| {
            let mut klds: Vec<f64> = all.iter().map(|a| a.kld).collect();
            klds.sort_by(f64::total_cmp);
            klds[(klds.len() * 99).div_ceil(100) - 1]
        }),
        top1_agreement: with_reference(&|all| all.iter().filter(|a| a.same_top).count() as f64 / count),
        reference_ppl: with_reference(&|all| (all.iter().map(|a| a.nll).sum::<f64>() / count).exp()),
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum();
    logits.iter().map(|&l| f64::from(l) - largest - sum.ln()).collect()
}

fn top(logs: &[f64]) -> usize {
    (0..logs.len()).max_by(|&a, &b| logs[a].total_cmp(&logs[b])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_do_not_diverge() {
        let p = log_softmax(&[1.0, 2.0, 3.0]);
        let quality = summary(&[compare(&p, Some(&p), 2)]);
        assert_eq!((quality.kld_mean, quality.top1_agreement), (Some(0.0), Some(1.0)));
        assert!((quality.ppl - quality.reference_ppl.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn divergence_is_that_of_the_reference_from_the_model() {
        // p = (3/4, 1/4), q = (1/2, 1/2): Σ p ln(p/q).
        let (p, q) = (log_softmax(&[3f32.ln(), 0.0]), log_softmax(&[0.0, 0.0]));
        let want = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        let kld = compare(&q, Some(&p), 0).reference.unwrap().kld;
        assert!((kld - want).abs() < 1e-7, "{kld} for {want}");
    }

    #[test]
    fn what_is_no_number_diverges_and_is_told() {
        let (p, broken) = (log_softmax(&[1.0, 2.0]), log_softmax(&[1.0, f32::NAN]));
        assert!(divergence(&p, &broken).is_nan() && divergence(&broken, &p).is_nan());
        assert!(!compare(&broken, None, 0).is_number() && !compare(&p, Some(&broken), 0).is_number());
        assert!(compare(&p, Some(&p), 0).is_number());
        // A word that is ruled out by the reference, by the model, by both.
        let ruled_out = log_softmax(&[1.0, f32::NEG_INFINITY]);
        assert!((divergence(&ruled_out, &p) + p[0]).abs() < 1e-12);
        assert_eq!((divergence(&p, &ruled_out), divergence(&ruled_out, &ruled_out)), (f64::INFINITY, 0.0));
    }

    #[test]
    fn the_99th_percentile_leaves_one_in_a_hundred_above() {
        let position = |kld| Position { nll: 0.0, reference: Some(Against { nll: 0.0, kld, same_top: true }) };
        let positions: Vec<Position> = (1..=200).map(|i| position(f64::from(i))).collect();
        assert_eq!(summary(&positions).kld_p99, Some(198.0));
    }
}
