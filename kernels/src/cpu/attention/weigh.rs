//! Scores to weights: the online softmax.

use super::QUERIES;
use crate::cpu::kv::POSITIONS;
use crate::cpu::lanes;
use crate::cpu::partial::Scoring;
use crate::cpu::vector::Vector;
use std::ops::Range;

/// Queries weighed together. A query's maximum is a chain of dependent operations; sixteen at once hide its latency.
pub const WEIGHED: usize = 4 * QUERIES;

/// Turns scores of a tile into weights, for as many queries as `seen` has ranges: the positions that each sees. Updates `max` and `sum`;
/// `kept` is set to what each query's sums so far have to be multiplied by.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn weigh<V: Vector>(
    scoring: Scoring,
    seen: &[Range<usize>],
    scores: &mut [[f32; POSITIONS]; WEIGHED],
    max: &mut [f32],
    sum: &mut [f32],
    kept: &mut [f32; WEIGHED],
) {
    let queries = seen.len();
    // Each query's largest score so far; where it has seen nothing, any finite number will do.
    let mut reference = [0.0; WEIGHED];
    for q in 0..queries {
        let scores = &mut scores[q];
        if let Some(cap) = scoring.softcap {
            for s in scores.iter_mut() {
                *s = lanes::capped(*s, cap);
            }
        }
        if seen[q] != (0..POSITIONS) {
            scores[..seen[q].start].fill(f32::NEG_INFINITY);
            scores[seen[q].end..].fill(f32::NEG_INFINITY);
        }
        // SAFETY: by the contract.
        let largest = unsafe { largest::<V>(max[q], scores) };
        reference[q] = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
        kept[q] = max[q] - reference[q];
        max[q] = largest;
    }
    for kept in kept.as_chunks_mut::<QUERIES>().0.iter_mut().take(queries.div_ceil(QUERIES)) {
        for kept in kept {
            *kept = lanes::exp_up_to_88(*kept);
        }
    }
    for (scores, reference) in scores.iter_mut().zip(reference).take(queries) {
        for s in scores {
            *s = lanes::exp_up_to_88(*s - reference);
        }
    }
    for q in 0..queries {
        // SAFETY: by the contract.
        sum[q] = sum[q] * kept[q] + unsafe { total::<V>(&scores[q]) };
    }
}

/// The largest of `least` and all numbers. NaN is ignored here: it reaches the result through the sum.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn largest<V: Vector>(least: f32, x: &[f32; POSITIONS]) -> f32 {
    // SAFETY: 64 numbers are whole vectors of every width.
    unsafe {
        let mut of_lanes = V::splat(least);
        for p in (0..POSITIONS).step_by(V::LANES) {
            of_lanes = V::load(x.as_ptr().add(p)).max(of_lanes);
        }
        of_lanes.largest()
    }
}

/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn total<V: Vector>(x: &[f32; POSITIONS]) -> f32 {
    // SAFETY: 64 numbers are an even number of vectors of every width.
    unsafe {
        let mut parts = [V::splat(0.0); 2];
        for p in (0..POSITIONS).step_by(2 * V::LANES) {
            for (v, part) in parts.iter_mut().enumerate() {
                *part = part.add(V::load(x.as_ptr().add(p + v * V::LANES)));
            }
        }
        parts[0].add(parts[1]).sum()
    }
}
