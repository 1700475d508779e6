//! Attention over tiles of the cache, for any width of vector.
//!
//! ```text
//! for each tile of 64 positions: for each 4 queries that see any of it:
//!     s[q, p] = Σ_i q[i] · k[i, p];  soft-cap;  −∞ outside the query's span
//!     m' = max(m, max s);  e[q, p] = exp(s − m');  sum = sum · exp(m − m') + Σ e;  acc = acc · exp(m − m') + Σ_p e[q, p] · v[p]
//! ```
//! 1. In scores a lane is a position, in sums of values an element: nothing is added across lanes but the 64 weights of a tile.
//! 2. A tile of keys, and one of values, is read from memory once for all queries, and converted once for four; the next tile is asked
//!    for meanwhile.
//! 3. Values outside every span are not touched: that part of a tile may never have been written.

use super::vector::Vector;
use super::{lanes, plain};
use crate::cpu::kv::{Cache, Kind, POSITIONS, Partial, Scoring, Span};
use std::ops::Range;

/// Queries computed together: 4 × 4 vectors of sums of 32 registers, or 4 × 2 of 16.
const QUERIES: usize = 4;

/// Scores, then weights, of the queries computed together.
type Scores = [[f32; POSITIONS]; QUERIES];

/// # Safety
/// As [`Vector`]; lengths as `Kernels::attend` checks them. `4 · N` sums fit the registers; `N` is 2 or 4.
#[inline(always)]
pub unsafe fn attend<V: Vector, const N: usize>(cache: &Cache, scoring: Scoring, queries: &[f32], spans: &[Span], out: &mut Partial) {
    // SAFETY: passed on.
    unsafe {
        match cache.kind {
            Kind::F16 => attend_kind::<V, F16, N>(cache, scoring, queries, spans, out),
            Kind::F32 => attend_kind::<V, F32, N>(cache, scoring, queries, spans, out),
            Kind::Q8_0 => attend_kind::<V, Q8, N>(cache, scoring, queries, spans, out),
        }
    }
}

/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn attend_kind<V: Vector, S: Storage, const N: usize>(
    cache: &Cache,
    scoring: Scoring,
    queries: &[f32],
    spans: &[Span],
    out: &mut Partial,
) {
    let first = spans.iter().map(|s| s.from).min().unwrap_or(0) as usize / POSITIONS;
    let end = spans.iter().map(|s| s.to).max().unwrap_or(0) as usize;
    let end = end.div_ceil(POSITIONS);
    for tile in first..end {
        let start = tile * POSITIONS;
        let inside =
            |s: &Span| (s.from as usize).saturating_sub(start).min(POSITIONS)..(s.to as usize).saturating_sub(start).min(POSITIONS);
        let (keys, values) = (cache.key_tile(tile), cache.value_tile(tile));
        let next = if tile + 1 < end { tile + 1 } else { tile };
        let (next_keys, next_values) = (cache.key_tile(next).as_ptr(), cache.value_tile(next).as_ptr());
        for q in (0..spans.len()).step_by(QUERIES) {
            let n = QUERIES.min(spans.len() - q);
            let seen = spans[q..q + n].iter().map(inside).filter(|r| !r.is_empty());
            let Some(seen) = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else { continue };
            let mut scores: Scores = [[0.0; POSITIONS]; QUERIES];
            // A query that is not there is the last one again; its weights are zero.
            let mut rows = [&queries[q * cache.key_dim..][..cache.key_dim]; QUERIES];
            for (i, row) in rows.iter_mut().enumerate().take(n) {
                *row = &queries[(q + i) * cache.key_dim..][..cache.key_dim];
            }
            // SAFETY: the tiles are of this kind and size.
            unsafe { S::score::<V, N>(keys, next_keys, rows, &mut scores) };
            let mut kept = [1.0; QUERIES];
            for i in 0..n {
                kept[i] = weigh(scoring, inside(&spans[q + i]), &mut scores[i], &mut out.max[q + i], &mut out.sum[q + i]);
            }
            let acc = &mut out.acc[q * cache.value_dim..][..n * cache.value_dim];
            // SAFETY: as above.
            unsafe { gather::<V, S, N>(values, next_values, cache.value_dim, &scores, kept, seen, acc) };
        }
    }
}

/// Scores to weights; what was summed up before has to be multiplied by the result.
#[inline(always)]
fn weigh(scoring: Scoring, seen: Range<usize>, scores: &mut [f32; POSITIONS], max: &mut f32, sum: &mut f32) -> f32 {
    for s in scores.iter_mut() {
        *s *= scoring.scale;
    }
    if let Some(cap) = scoring.softcap {
        for s in scores.iter_mut() {
            *s = lanes::capped(*s, cap);
        }
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let mut parts = [f32::NEG_INFINITY; 16];
    for s in scores.as_chunks::<16>().0 {
        for (part, s) in parts.iter_mut().zip(s) {
            *part = if *s > *part { *s } else { *part };
        }
    }
    let largest = halved(parts, |a, b| if b > a { b } else { a });
    let largest = if largest > *max { largest } else { *max };
    // Where nothing weighs, any reference will do; NaN gets to the result by way of the sum.
    let (reference, kept) = match *max {
        _ if largest == f32::NEG_INFINITY => (0.0, 1.0),
        f32::NEG_INFINITY => (largest, 0.0),
        before if before == largest => (largest, 1.0),
        before => (largest, lanes::exp(before - largest)),
    };
    let mut total = [0.0; 16];
    for s in scores.as_chunks_mut::<16>().0 {
        for (total, s) in total.iter_mut().zip(s) {
            *s = lanes::exp(*s - reference);
            *total += *s;
        }
    }
    *sum = *sum * kept + halved(total, |a, b| a + b);
    *max = largest;
    kept
}

/// All of them by one operation, half with half: whole vectors at a time, where one after the other would be sixteen steps. (Each
/// half has an array of its own: the compiler knows no widths of a loop over widths, and goes by single numbers through memory.)
#[inline(always)]
fn halved(x: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut eight, mut four, mut two) = ([0.0; 8], [0.0; 4], [0.0; 2]);
    for i in 0..8 {
        eight[i] = f(x[i], x[i + 8]);
    }
    for i in 0..4 {
        four[i] = f(eight[i], eight[i + 4]);
    }
    for i in 0..2 {
        two[i] = f(four[i], four[i + 2]);
    }
    f(two[0], two[1])
}

/// A kind of cache, as this room reads it.
trait Storage {
    const KIND: Kind;

    /// Elements `index ..` of a tile's codes, as many as a vector has.
    ///
    /// # Safety
    /// As [`attend`]; they are there.
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V;

    /// `scores[q, p] = Σ_i q[i] · k[i, p]`
    ///
    /// # Safety
    /// As [`attend`].
    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(keys: &[u8], next: *const u8, queries: [&[f32]; QUERIES], scores: &mut Scores) {
        let width = N * V::LANES;
        // SAFETY: the tile has `dim` lines of 64 keys, and `start` and the vectors after it are within one.
        unsafe {
            for start in (0..POSITIONS).step_by(width) {
                let mut sums = [[V::splat(0.0); N]; QUERIES];
                for i in 0..queries[0].len() {
                    let at = i * POSITIONS + start;
                    let mut k = [V::splat(0.0); N];
                    for (v, k) in k.iter_mut().enumerate() {
                        *k = Self::load(keys.as_ptr(), at + v * V::LANES);
                    }
                    ask_for::<V>(next.wrapping_add(at * size(Self::KIND)), width * size(Self::KIND));
                    multiply(&mut sums, k, |q| *queries[q].get_unchecked(i));
                }
                store(&sums, scores, start);
            }
        }
    }
}

/// Bytes of an element.
const fn size(kind: Kind) -> usize {
    match kind {
        Kind::F32 => 4,
        Kind::F16 => 2,
        Kind::Q8_0 => 1,
    }
}

/// Brings the lines of so many bytes into the cache.
#[inline(always)]
fn ask_for<V: Vector>(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        V::prefetch(at.wrapping_add(line));
    }
}

/// `sums[q] += by(q) · x`
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
unsafe fn multiply<V: Vector, const N: usize>(sums: &mut [[V; N]; QUERIES], x: [V; N], by: impl Fn(usize) -> f32) {
    for (q, sums) in sums.iter_mut().enumerate() {
        // SAFETY: by the contract.
        unsafe {
            let by = V::splat(by(q));
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = x.mul_add(by, *sum);
            }
        }
    }
}

/// # Safety
/// As [`Vector`]; the vectors from `start` on are within a line of scores.
#[inline(always)]
unsafe fn store<V: Vector, const N: usize>(sums: &[[V; N]; QUERIES], scores: &mut Scores, start: usize) {
    for (sums, scores) in sums.iter().zip(scores) {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { sum.store(scores.as_mut_ptr().add(start + v * V::LANES)) };
        }
    }
}

struct F16;
struct F32;
struct Q8;

impl Storage for F16 {
    const KIND: Kind = Kind::F16;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { V::load_f16(tile.cast::<u16>().add(index)) }
    }
}

impl Storage for F32 {
    const KIND: Kind = Kind::F32;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { V::load(tile.cast::<f32>().add(index)) }
    }
}

impl Storage for Q8 {
    const KIND: Kind = Kind::Q8_0;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { V::load_i8(tile.cast::<i8>().add(index)) }
    }

    /// Four elements of each key lie together; a run of 32 has a scale.
    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(keys: &[u8], next: *const u8, queries: [&[f32]; QUERIES], scores: &mut Scores) {
        // SAFETY: passed on.
        unsafe {
            match N {
                // Two vectors of sums a query: one would wait for its own additions.
                4 => score_q8::<V, 2>(keys, next, queries, scores),
                _ => score_q8::<V, 1>(keys, next, queries, scores),
            }
        }
    }
}

/// As [`Storage::score`], with `N` vectors of sums a query.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn score_q8<V: Vector, const N: usize>(keys: &[u8], next: *const u8, queries: [&[f32]; QUERIES], scores: &mut Scores) {
    let dim = queries[0].len();
    // SAFETY: as in the provided method; the last four of a head's elements may be partly beyond it, and are left out.
    unsafe {
        let scales = keys.as_ptr().add(Kind::Q8_0.key_codes(dim)).cast::<u16>();
        for start in (0..POSITIONS).step_by(N * V::LANES) {
            let mut sums = [[V::splat(0.0); N]; QUERIES];
            for run in (0..dim).step_by(32) {
                let mut of_run = [[V::splat(0.0); N]; QUERIES];
                for i in (run..dim.min(run + 32)).step_by(4) {
                    let at = i * POSITIONS + start * 4;
                    ask_for::<V>(next.wrapping_add(at), N * V::LANES * 4);
                    let mut k = [[V::splat(0.0); 4]; N];
                    for (v, k) in k.iter_mut().enumerate() {
                        *k = V::load_four_i8(keys.as_ptr().add(at + v * V::LANES * 4).cast());
                    }
                    for j in 0..4.min(dim - i) {
                        let mut of_element = [V::splat(0.0); N];
                        for (of_element, k) in of_element.iter_mut().zip(&k) {
                            *of_element = k[j];
                        }
                        multiply(&mut of_run, of_element, |q| *queries[q].get_unchecked(i + j));
                    }
                }
                for v in 0..N {
                    let scale = V::load_f16(scales.add(run / 32 * POSITIONS + start + v * V::LANES));
                    for (sum, of_run) in sums.iter_mut().zip(&of_run) {
                        sum[v] = of_run[v].mul_add(scale, sum[v]);
                    }
                }
            }
            store(&sums, scores, start);
        }
    }
}

/// `acc[q] = acc[q] · kept[q] + Σ_p weights[q, p] · v[p]`, for as many queries as `acc` has lines.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn gather<V: Vector, S: Storage, const N: usize>(
    values: &[u8],
    next: *const u8,
    dim: usize,
    weights: &Scores,
    kept: [f32; QUERIES],
    seen: Range<usize>,
    acc: &mut [f32],
) {
    let mut scaled: Scores = *weights;
    let mut start = 0;
    while start < dim {
        let mut room = dim - start;
        if S::KIND == Kind::Q8_0 {
            // Weights take the scale of a run of 32 elements.
            room = room.min(32 - start % 32);
            // SAFETY: a line of 64 scales each 32 elements.
            unsafe {
                let scales = values.as_ptr().add(S::KIND.value_codes(dim)).cast::<u16>().add(start / 32 * POSITIONS);
                for p in (0..POSITIONS).step_by(V::LANES) {
                    let scale = V::load_f16(scales.add(p));
                    for (scaled, weights) in scaled.iter_mut().zip(weights) {
                        V::load(weights.as_ptr().add(p)).mul(scale).store(scaled.as_mut_ptr().add(p));
                    }
                }
            }
        }
        let seen = seen.clone();
        // SAFETY: `start` and as many elements as are computed are within a line of the tile.
        start += unsafe {
            if room >= N * V::LANES {
                add_values::<V, S, N>(values, next, dim, start, &scaled, kept, seen, acc)
            } else if room >= 2 * V::LANES {
                add_values::<V, S, 2>(values, next, dim, start, &scaled, kept, seen, acc)
            } else if room >= V::LANES {
                add_values::<V, S, 1>(values, next, dim, start, &scaled, kept, seen, acc)
            } else {
                for (q, acc) in acc.chunks_exact_mut(dim).enumerate() {
                    for (i, acc) in acc.iter_mut().enumerate().skip(start).take(room) {
                        let value = |p: usize| plain::attention::code(S::KIND, values, p * dim + i);
                        *acc = seen.clone().fold(*acc * kept[q], |sum, p| value(p).mul_add(scaled[q][p], sum));
                    }
                }
                room
            }
        };
    }
}

/// `N` vectors of elements from `start` on; their number.
///
/// # Safety
/// As [`gather`]; they are within a line.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the body of a loop, with the loop's variables")]
unsafe fn add_values<V: Vector, S: Storage, const N: usize>(
    values: &[u8],
    next: *const u8,
    dim: usize,
    start: usize,
    weights: &Scores,
    kept: [f32; QUERIES],
    seen: Range<usize>,
    acc: &mut [f32],
) -> usize {
    let last = acc.len() / dim - 1;
    // SAFETY: by the contract; a query that is not there reads the last one's sums and writes none.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; QUERIES];
        for (q, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(acc.as_ptr().add(q.min(last) * dim + start + v * V::LANES)).mul(V::splat(kept[q]));
            }
        }
        for p in seen {
            let at = p * dim + start;
            let mut x = [V::splat(0.0); N];
            for (v, x) in x.iter_mut().enumerate() {
                *x = S::load(values.as_ptr(), at + v * V::LANES);
            }
            ask_for::<V>(next.wrapping_add(at * size(S::KIND)), N * V::LANES * size(S::KIND));
            multiply(&mut sums, x, |q| *weights.get_unchecked(q).get_unchecked(p));
        }
        for (sums, acc) in sums.iter().zip(acc.chunks_exact_mut(dim)) {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(acc.as_mut_ptr().add(start + v * V::LANES));
            }
        }
    }
    N * V::LANES
}

/// A function `attend` of a tier: `(features, vector, vectors a query)`.
macro_rules! attention {
    ($features:literal, $vector:ty, $n:literal) => {
        /// # Safety
        /// Needs the tier's features; lengths as `Kernels::attend` checks them.
        #[target_feature(enable = $features)]
        unsafe fn attend(cache: &Cache, scoring: Scoring, queries: &[f32], spans: &[Span], out: &mut Partial, _: &mut [u8]) {
            // SAFETY: passed on; 4 · N sums fit the registers.
            unsafe { crate::cpu::attention::attend::<$vector, $n>(cache, scoring, queries, spans, out) }
        }
    };
}
pub(super) use attention;
