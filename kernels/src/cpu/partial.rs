//! Attention over a part of the positions, as its caller sees it: which positions a query sees, how they are scored, and what comes of it,
//! to be merged with other parts and finished.

/// What attention has to know besides the cache.
#[derive(Clone, Copy, Debug)]
pub struct Scoring {
    /// `s = cap · tanh(q · k / cap)` instead of `q · k`.
    pub softcap: Option<f32>,
    /// Tiles are brought into f32 once for all queries of a call. The caller says so, since the result may differ in the last bits from
    /// what a few queries get, and must not depend on how its own prompt was cut. On an Emerald Rapids, tiles in the second-level cache, it
    /// pays from 16 to 32 queries on with `F16`, from 8 on with `Q8_0` on AVX2; with int8 products (VNNI) it gains
    /// nothing up to 64.
    pub decoded: bool,
}

/// The positions that one query sees: `from .. to`, within the tiles given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u32,
    pub to: u32,
}

/// Attention of some queries over some of the positions, to be merged with what comes of the other positions, then finished.
/// `sum` and `acc` are relative to `exp(max)`.
#[derive(Debug)]
pub struct Partial<'a> {
    /// `[queries]`: the largest score; −∞ when none was seen.
    pub max: &'a mut [f32],
    /// `[queries]`: Σ exp(s − max)
    pub sum: &'a mut [f32],
    /// `[queries, value_dim]`: Σ exp(s − max) · v
    pub acc: &'a mut [f32],
}

impl Partial<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.acc.fill(0.0);
    }

    /// Merges what the same queries saw of other positions.
    pub fn merge(&mut self, other: &Partial) {
        let width = self.acc.len() / self.max.len().max(1);
        for i in 0..self.max.len() {
            let max = larger(self.max[i], other.max[i]);
            let (mine, theirs) = (share(self.max[i], max), share(other.max[i], max));
            self.max[i] = max;
            self.sum[i] = self.sum[i] * mine + other.sum[i] * theirs;
            for (a, b) in self.acc[i * width..][..width].iter_mut().zip(&other.acc[i * width..][..width]) {
                *a = *a * mine + *b * theirs;
            }
        }
    }

    /// `out[query] = acc / sum`, each query's sink (if there are sinks, one a query) counted in the sum; zeros for a query that saw
    /// nothing. `out`: `[queries, value_dim]`.
    pub fn finish(&self, sinks: Option<&[f32]>, out: &mut [f32]) {
        assert_eq!(out.len(), self.acc.len());
        let width = self.acc.len() / self.max.len().max(1);
        for i in 0..self.max.len() {
            let (mut sum, mut scale) = (self.sum[i], 1.0);
            if let Some(sinks) = sinks {
                let max = larger(self.max[i], sinks[i]);
                scale = share(self.max[i], max);
                sum = sum * scale + share(sinks[i], max);
            }
            let inverse = if sum == 0.0 { 0.0 } else { scale / sum };
            for (out, a) in out[i * width..][..width].iter_mut().zip(&self.acc[i * width..][..width]) {
                *out = a * inverse;
            }
        }
    }
}

/// The larger; NaN if either is, so that a score that is no number is seen in the result.
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// exp(of − max), where −∞ (nothing seen) counts nothing.
fn share(of: f32, max: f32) -> f32 {
    if of == f32::NEG_INFINITY { 0.0 } else { (of - max).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_with_nothing_changes_nothing() {
        let (mut max, mut sum, mut acc) = ([2.0], [3.0], [4.0, 5.0]);
        let mut seen = Partial { max: &mut max, sum: &mut sum, acc: &mut acc };
        let (mut m, mut s, mut a) = ([0.0], [1.0], [1.0, 1.0]);
        let mut nothing = Partial { max: &mut m, sum: &mut s, acc: &mut a };
        nothing.clear();
        seen.merge(&nothing);
        assert_eq!((&*seen.max, &*seen.sum, &*seen.acc), (&[2.0][..], &[3.0][..], &[4.0, 5.0][..]));
        nothing.merge(&seen);
        assert_eq!((&*nothing.max, &*nothing.sum, &*nothing.acc), (&[2.0][..], &[3.0][..], &[4.0, 5.0][..]));
    }

    #[test]
    fn a_sink_takes_its_share() {
        let (mut max, mut sum, mut acc) = ([1.0], [1.0], [6.0]);
        let seen = Partial { max: &mut max, sum: &mut sum, acc: &mut acc };
        let mut out = [0.0];
        seen.finish(Some(&[1.0 + 2f32.ln()]), &mut out);
        assert!((out[0] - 2.0).abs() < 1e-6, "{out:?}: the sink weighs twice what was seen");
        seen.finish(None, &mut out);
        assert_eq!(out, [6.0]);
    }
}
