//! The searches that encoders share: which scale (and minimum) loses least. All minimise the squared error of a group, with every
//! weight counted alike. What a format does with the scale (rounding it to its own bits) stands in the format's file.
//!
//! Groups hold a multiple of [`LANES`] weights; sums run in that many lanes so that they vectorise, and are f32.

/// Lanes of a sum.
const LANES: usize = 8;

/// The nearest integer, ties to even; right for |v| < 2^22. `f32::round` is a library call on baseline x86-64, this vectorises.
#[inline]
pub fn nearest(v: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves no bits for a fraction
    (v + SHIFT) - SHIFT
}

/// 1/v, and 0 for 0: a group of zeros gets codes of zero.
#[inline]
pub fn inverse(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { 1.0 / v }
}

/// The weight of largest magnitude, with its sign; 0 for an empty group.
pub fn extreme(x: &[f32]) -> f32 {
    x.iter().copied().fold(0.0, |a, v| if v.abs() > f32::abs(a) { v } else { a })
}

/// (smallest, largest).
pub fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)))
}

/// The scale `s` for x ≈ s·q with q in `lo..=hi` and `lo` the code of largest magnitude.
///
/// Starts from the scale that gives the largest weight the code `lo`, tries 19 scales up to 0.9 codes around it, and refits each by
/// least squares on the codes it led to.
pub fn signed_scale(x: &[f32], lo: f32, hi: f32) -> f32 {
    let extreme = extreme(x);
    best_scale(x, extreme, (-9..=9).map(|step| (lo + 0.1 * step as f32) / extreme), |v| nearest(v).clamp(lo, hi))
}

/// The scale `s` for x ≈ s·q with q of −1, 0 and 1. The largest weight is far outside its best range: tries 36 scales down to a quarter of
/// it, and refits each.
pub fn ternary_scale(x: &[f32]) -> f32 {
    let extreme = extreme(x);
    best_scale(x, extreme, (5..=40).map(|step| 0.1 * step as f32 / extreme), |v| nearest(v).clamp(-1.0, 1.0))
}

/// The scale `s` for x ≈ s·c with c from `codes` (ascending); tries 15 scales within a fifth of the one that gives the largest weight
/// the code of largest magnitude, and refits each.
pub fn codebook_scale<const N: usize>(x: &[f32], codes: &[i8; N]) -> f32 {
    let extreme = extreme(x);
    let (lo, hi) = (f32::from(codes[0]), f32::from(codes[N - 1]));
    let peak = if -lo > hi { lo } else { hi };
    best_scale(x, extreme, (-7..=7).map(|step| peak * (1.0 + 0.03 * step as f32) / extreme), |v| {
        // The nearest code as a sum of the steps passed on the way up: without an index, so that it vectorises.
        (1..N).fold(lo, |code, i| {
            let (below, above) = (f32::from(codes[i - 1]), f32::from(codes[i]));
            code + if 2.0 * v > below + above { above - below } else { 0.0 }
        })
    })
}

/// Index of the code nearest to `v`; `codes` ascend.
#[inline]
pub fn nearest_code<const N: usize>(v: f32, codes: &[i8; N]) -> usize {
    (1..N).filter(|&i| 2.0 * v > f32::from(codes[i - 1]) + f32::from(codes[i])).count()
}

/// Of the tried inverse scales the one whose codes, refitted, leave the least error: (Σxq)²/Σq² is what a fit explains.
fn best_scale(x: &[f32], extreme: f32, inverses: impl Iterator<Item = f32>, code: impl Fn(f32) -> f32) -> f32 {
    let (mut explained, mut best) = (0.0, 0.0);
    if extreme == 0.0 {
        return 0.0;
    }
    for inverse in inverses {
        let (mut xq, mut qq) = ([0.0f32; LANES], [0.0f32; LANES]);
        for chunk in x.chunks_exact(LANES) {
            for i in 0..LANES {
                let q = code(chunk[i] * inverse);
                xq[i] += chunk[i] * q;
                qq[i] += q * q;
            }
        }
        let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
        if xq * xq > explained * qq {
            (explained, best) = (xq * xq / qq, xq / qq);
        }
    }
    best
}

/// (scale, minimum), neither negative, for x ≈ scale·q − minimum with q in `0..=top`.
///
/// Starts from the group's range widened to hold 0, tries 20 scales around it, and refits each (both numbers) by least squares.
pub fn scale_and_minimum(x: &[f32], top: f32) -> (f32, f32) {
    let (lo, hi) = range(x);
    let lo = lo.min(0.0);
    if hi <= lo {
        return (0.0, -lo);
    }
    let n = x.len() as f32;
    let sum = x.iter().sum::<f32>();
    let (mut least, mut best) = (f32::INFINITY, ((hi - lo) / top, -lo));
    for step in -13..=6 {
        let inverse = (top + 0.1 * step as f32) / (hi - lo);
        let (mut q1, mut q2, mut xq) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
        for chunk in x.chunks_exact(LANES) {
            for i in 0..LANES {
                let q = nearest((chunk[i] - lo) * inverse).clamp(0.0, top);
                q1[i] += q;
                q2[i] += q * q;
                xq[i] += chunk[i] * q;
            }
        }
        let (q1, q2, xq) = (q1.iter().sum::<f32>(), q2.iter().sum::<f32>(), xq.iter().sum::<f32>());
        let determinant = n * q2 - q1 * q1;
        if determinant <= 0.0 {
            continue;
        }
        let mut scale = (n * xq - sum * q1) / determinant;
        let mut minimum = (q1 * xq - q2 * sum) / determinant;
        if minimum < 0.0 {
            (scale, minimum) = (xq / q2, 0.0);
        }
        // Σ(x − scale·q + minimum)² less the constant Σx².
        let error = scale * (scale * q2 - 2.0 * xq) + minimum * (2.0 * sum - 2.0 * scale * q1 + n * minimum);
        if scale > 0.0 && error < least {
            (least, best) = (error, (scale, minimum));
        }
    }
    best
}
