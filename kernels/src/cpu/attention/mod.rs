//! Attention over tiles of the cache, for any width of vector: the online softmax of Milakov and Gimelshein ("Online normalizer calculation
//! for softmax", 2018, arXiv 1805.02867), which goes on from tile to tile, over tiles as in FlashAttention (Dao et al. 2022, arXiv
//! 2205.14135).
//!
//! ```text
//! for each tile of 64 positions: for each query that sees any of it:
//!     s[q, p] = Σ_i q[i] · k[i, p];  soft-cap;  −∞ outside the query's span
//!     m' = max(m, max s);  e[q, p] = exp(s − m');  sum = sum · exp(m − m') + Σ e;  acc = acc · exp(m − m') + Σ_p e[q, p] · v[p]
//! ```
//! 1. In scores a lane is a position, in sums of values an element: nothing is added across lanes but the 64 weights of a tile.
//! 2. A tile of keys, and one of values, is read from memory once for all queries, and the next one is prefetched meanwhile. For few
//!    queries it is converted anew for every four ([`storage`], [`values`]; int8 by [`rounded`] queries and weights where the processor
//!    multiplies int8), for many once ([`Scoring::decoded`]).
//! 3. Scores and sums are computed for four queries together, weighed for sixteen ([`weigh`]).
//! 4. Values outside every span are not summed: that part of a tile may never have been written.

mod lines;
mod rounded;
mod storage;
mod values;
mod weigh;

use super::vector::{Dots, Vector};
use crate::cpu::kv::{Cache, Kind, POSITIONS};
use crate::cpu::partial::{Partial, Scoring, Span};
use rounded::Rounded;
use std::ops::Range;
use storage::{Coded, Decoded, F16, F32, Q8, Storage};
use values::Weighted;
use weigh::{WEIGHED, weigh};

/// Queries computed together: 4 × 4 vectors of sums in 32 registers, or 4 × 2 in 16.
const QUERIES: usize = 4;

/// Scores, then weights, of the queries computed together.
type Scores = [[f32; POSITIONS]; QUERIES];

/// What `Kernels::attend` is given to read.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub cache: &'a Cache<'a>,
    pub scoring: Scoring,
    pub queries: &'a [f32],
    pub spans: &'a [Span],
}

/// Bytes of scratch for some queries: a decoded tile of keys and one of values, or the queries rounded.
pub fn scratch_bytes(key_dim: usize, value_dim: usize, queries: usize) -> usize {
    let tiles = (key_dim + value_dim) * POSITIONS;
    tiles.max(queries * rounded::stride(key_dim)) * size_of::<f32>() + ALIGNMENT
}

/// Of what lies in the scratch: a cache line.
const ALIGNMENT: usize = 64;

/// # Safety
/// As [`Vector`]; lengths as `Kernels::attend` checks them. `4 · N` sums fit the registers; `N` is 2 or 4.
#[inline(always)]
pub unsafe fn attend<V: Vector, const N: usize>(asked: Asked, out: &mut Partial, scratch: &mut [u8]) {
    // SAFETY: passed on.
    unsafe {
        match (asked.cache.kind, asked.scoring.decoded) {
            (Kind::F32, _) => attend_stored::<V, F32, N>(asked, out, scratch),
            (Kind::F16, false) => attend_stored::<V, F16, N>(asked, out, scratch),
            (Kind::Q8_0, false) => attend_stored::<V, Q8, N>(asked, out, scratch),
            (Kind::F16, true) => attend_decoded::<V, F16, N>(asked, out, scratch),
            (Kind::Q8_0, true) => attend_decoded::<V, Q8, N>(asked, out, scratch),
        }
    }
}

/// As [`attend`], where the processor multiplies int8.
///
/// # Safety
/// As [`attend`] and [`Dots`].
#[inline(always)]
pub unsafe fn attend_by_dots<V: Dots, const N: usize>(asked: Asked, out: &mut Partial, scratch: &mut [u8]) {
    // SAFETY: passed on.
    unsafe {
        if asked.cache.kind == Kind::Q8_0 && !asked.scoring.decoded {
            attend_stored::<V, Rounded<V>, N>(asked, out, scratch);
        } else {
            attend::<V, N>(asked, out, scratch);
        }
    }
}

/// The tiles of which any query sees a position.
fn tiles(spans: &[Span]) -> impl Iterator<Item = usize> {
    let seeing = spans.iter().filter(|s| s.from < s.to);
    let (first, end) = seeing.fold((u32::MAX, 0), |(first, end), s| (first.min(s.from), end.max(s.to)));
    let is_seen = move |index: &usize| spans.iter().any(|span| !inside(index * POSITIONS, span).is_empty());
    (first as usize / POSITIONS..(end as usize).div_ceil(POSITIONS)).filter(is_seen)
}

/// Keys and values of 64 positions, and where those of the next are.
struct Tile<'a> {
    /// The position of the first.
    start: usize,
    keys: &'a [u8],
    values: &'a [u8],
    next_keys: *const u8,
    next_values: *const u8,
}

impl<'a> Tile<'a> {
    /// The tile to prefetch: the sequence's next block, or this one again at its end. Past a split's end it is the next split's first,
    /// which another worker is about to read.
    fn of(cache: &Cache<'a>, index: usize) -> Tile<'a> {
        let next = (index + 1).min(cache.blocks.len() - 1);
        let (next_keys, next_values) = (cache.key_tile(next).as_ptr(), cache.value_tile(next).as_ptr());
        Tile { start: index * POSITIONS, keys: cache.key_tile(index), values: cache.value_tile(index), next_keys, next_values }
    }
}

/// Where a query sees in the tile that begins at position `start`.
fn inside(start: usize, span: &Span) -> Range<usize> {
    let within = |position: u32| (position as usize).saturating_sub(start).min(POSITIONS);
    within(span.from)..within(span.to)
}

/// Reads tiles as they lie in the cache.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn attend_stored<V: Vector, S: Storage, const N: usize>(asked: Asked, out: &mut Partial, scratch: &mut [u8]) {
    let queries = S::prepare(asked.queries, asked.cache.key_dim, scratch);
    let mut scores = [[0.0; POSITIONS]; WEIGHED];
    for index in tiles(asked.spans) {
        // SAFETY: the tiles are of this kind and size.
        unsafe { over_tile::<V, S, N>(&Tile::of(asked.cache, index), asked, queries, &mut scores, out) };
    }
}

/// Brings tiles into f32 first.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn attend_decoded<V: Vector, S: Coded, const N: usize>(asked: Asked, out: &mut Partial, scratch: &mut [u8]) {
    let Asked { cache, queries, spans, .. } = asked;
    let start = scratch.as_ptr().align_offset(ALIGNMENT);
    let mut scores = [[0.0; POSITIONS]; WEIGHED];
    let (keys, values) = scratch[start..].split_at_mut(cache.key_dim * POSITIONS * size_of::<f32>());
    for index in tiles(spans) {
        let tile = Tile::of(cache, index);
        // SAFETY: the tiles are of this kind and size, and so is the scratch: `scratch_bytes`.
        unsafe {
            S::decode_keys::<V>(&tile, cache.key_dim, keys.as_mut_ptr().cast());
            S::decode_values::<V>(&tile, cache.value_dim, values.as_mut_ptr().cast());
            over_tile::<V, Decoded, N>(&Tile { keys, values, ..tile }, asked, queries, &mut scores, out);
        }
    }
}

/// One tile, for all queries. `scores` is scratch.
///
/// # Safety
/// As [`attend`]; the tile is of the storage's kind and the cache's size.
#[inline(always)]
unsafe fn over_tile<V: Vector, S: Storage, const N: usize>(
    tile: &Tile,
    asked: Asked,
    queries: &[S::Number],
    scores: &mut [[f32; POSITIONS]; WEIGHED],
    out: &mut Partial,
) {
    let Asked { cache, scoring, spans, .. } = asked;
    let stride = S::stride(cache.key_dim);
    let mut kept = [0.0; WEIGHED];
    for first in (0..spans.len()).step_by(WEIGHED) {
        let spans = &spans[first..spans.len().min(first + WEIGHED)];
        let strips = spans.chunks(QUERIES).enumerate();
        for (strip, spans) in strips.clone() {
            if seen_by_any(tile.start, spans).is_none() {
                continue;
            }
            // A query that is not there is the first one again; its weights are not used.
            let row = |i: usize| &queries[(first + strip * QUERIES + if i < spans.len() { i } else { 0 }) * stride..][..stride];
            let rows = [row(0), row(1), row(2), row(3)];
            // SAFETY: by the contract.
            unsafe { S::score::<V, N>(tile, cache.key_dim, rows, strip_of(scores, strip)) };
        }
        let here = first..first + spans.len();
        let insides: [Range<usize>; WEIGHED] = std::array::from_fn(|i| spans.get(i).map_or(0..0, |span| inside(tile.start, span)));
        let (max, sum) = (&mut out.max[here.clone()], &mut out.sum[here]);
        // SAFETY: by the contract.
        unsafe { weigh::<V>(scoring, &insides[..spans.len()], scores, max, sum, &mut kept) };
        for (strip, spans) in strips {
            let Some(seen) = seen_by_any(tile.start, spans) else { continue };
            let kept = kept.as_chunks().0[strip];
            let acc = &mut out.acc[(first + strip * QUERIES) * cache.value_dim..][..spans.len() * cache.value_dim];
            // SAFETY: as above.
            unsafe { S::add_values::<V, N>(&Weighted { tile, dim: cache.value_dim, weights: strip_of(scores, strip), kept, seen }, acc) };
        }
    }
}

/// The scores of the queries that are computed together as number `strip`.
fn strip_of(scores: &mut [[f32; POSITIONS]; WEIGHED], strip: usize) -> &mut Scores {
    &mut scores.as_chunks_mut().0[strip]
}

/// The part of the tile beginning at `start` in which all lies that these queries see of it; `None` when they see nothing of it.
fn seen_by_any(start: usize, spans: &[Span]) -> Option<Range<usize>> {
    let seen = spans.iter().map(|s| inside(start, s)).filter(|r| !r.is_empty());
    seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
}

/// A function `attend` of a tier: `(features, vector, vectors a query, this or attend_by_dots)`.
macro_rules! attention {
    ($features:literal, $vector:ty, $n:literal, $attend:ident) => {
        /// # Safety
        /// Needs the tier's features; lengths as `Kernels::attend` checks them.
        #[target_feature(enable = $features)]
        unsafe fn $attend(cache: &Cache, scoring: Scoring, queries: &[f32], spans: &[Span], out: &mut Partial, scratch: &mut [u8]) {
            // SAFETY: passed on; 4 · N sums fit the registers.
            unsafe {
                let asked = crate::cpu::attention::Asked { cache, scoring, queries, spans };
                crate::cpu::attention::$attend::<$vector, $n>(asked, out, scratch)
            }
        }
    };
}
pub(super) use attention;
