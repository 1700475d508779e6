//! Keys and values into the cache, and attention over it.

use crate::cpu::kv::{Cache, Kind, POSITIONS};
use crate::cpu::partial::{Partial, Scoring, Span};
use half::f16;

/// Writes one head's key (`x`, its length the head's size) at `position` of a tile.
pub fn store_key(kind: Kind, x: &[f32], tile: &mut [u8], position: usize) {
    let codes = kind.key_codes(x.len());
    let place = |i: usize| match kind {
        Kind::F32 | Kind::F16 => i * POSITIONS + position,
        Kind::Q8_0 => (i / 4 * POSITIONS + position) * 4 + i % 4,
    };
    store(kind, x, tile, codes, position, place);
}

/// Writes one head's value at `position` of a tile.
pub fn store_value(kind: Kind, x: &[f32], tile: &mut [u8], position: usize) {
    let codes = kind.value_codes(x.len());
    store(kind, x, tile, codes, position, |i| kind.value_at(x.len(), position, i));
}

fn store(kind: Kind, x: &[f32], tile: &mut [u8], codes: usize, position: usize, place: impl Fn(usize) -> usize) {
    match kind {
        Kind::F32 => x.iter().enumerate().for_each(|(i, x)| tile[place(i) * 4..][..4].copy_from_slice(&x.to_le_bytes())),
        Kind::F16 => {
            x.iter().enumerate().for_each(|(i, x)| tile[place(i) * 2..][..2].copy_from_slice(&f16::from_f32(*x).to_le_bytes()));
        }
        Kind::Q8_0 => {
            for (run, x) in x.chunks(32).enumerate() {
                let (scale, inverse) = q8_0_scale(x);
                tile[codes + (run * POSITIONS + position) * 2..][..2].copy_from_slice(&scale.to_le_bytes());
                for (i, x) in (32 * run..).zip(x) {
                    tile[place(i)] = (x * inverse).round_ties_even() as i8 as u8;
                }
            }
        }
    }
}

/// Scale and what numbers are multiplied by to become codes. The codes fit the exact scale, before it is rounded to f16, as the weight
/// format's encoders in other programs do.
fn q8_0_scale(x: &[f32]) -> (f16, f32) {
    if !x.iter().all(|x| x.is_finite()) {
        return (f16::NAN, 0.0);
    }
    let scale = x.iter().fold(0.0, |a, x| f32::max(a, x.abs())) / 127.0;
    // Past the range of f16 the scale is infinite, and below it zero; the codes follow.
    let inverse = if scale > 1e-30 { 1.0 / scale } else { 0.0 };
    (f16::from_f32(scale), inverse)
}

/// Element `i` of the key at `position` of a tile.
pub fn key(kind: Kind, dim: usize, tile: &[u8], position: usize, i: usize) -> f32 {
    match kind {
        Kind::F32 | Kind::F16 => code(kind, tile, i * POSITIONS + position),
        Kind::Q8_0 => q8_0(tile, (i / 4 * POSITIONS + position) * 4 + i % 4, kind.key_codes(dim), position, i),
    }
}

/// Element `i` of the value at `position` of a tile.
pub fn value(kind: Kind, dim: usize, tile: &[u8], position: usize, i: usize) -> f32 {
    let at = kind.value_at(dim, position, i);
    match kind {
        Kind::F32 | Kind::F16 => code(kind, tile, at),
        Kind::Q8_0 => q8_0(tile, at, kind.value_codes(dim), position, i),
    }
}

/// What stands at `index` of a tile, without its scale.
pub fn code(kind: Kind, tile: &[u8], index: usize) -> f32 {
    match kind {
        Kind::F32 => f32::from_le_bytes(tile[index * 4..][..4].try_into().expect("four bytes")),
        Kind::F16 => f16::from_le_bytes(tile[index * 2..][..2].try_into().expect("two bytes")).to_f32(),
        Kind::Q8_0 => f32::from(tile[index] as i8),
    }
}

fn q8_0(tile: &[u8], index: usize, codes: usize, position: usize, i: usize) -> f32 {
    code(Kind::F16, &tile[codes..], i / 32 * POSITIONS + position) * code(Kind::Q8_0, tile, index)
}

/// For each query (`queries`: `[spans, key_dim]`) the positions of its span, added to what `out` has seen already.
pub fn attend(cache: &Cache, scoring: Scoring, queries: &[f32], spans: &[Span], out: &mut Partial, _scratch: &mut [u8]) {
    for (n, (span, q)) in spans.iter().zip(queries.chunks_exact(cache.key_dim)).enumerate() {
        let score = |p: usize| {
            let tile = cache.key_tile(p / POSITIONS);
            let dot: f64 =
                (0..cache.key_dim).map(|i| f64::from(q[i]) * f64::from(key(cache.kind, cache.key_dim, tile, p % POSITIONS, i))).sum();
            scoring.softcap.map_or(dot, |cap| f64::from(cap) * (dot / f64::from(cap)).tanh())
        };
        let positions = span.from as usize..span.to as usize;
        // A score of NaN makes the maximum NaN, and with it everything.
        let larger = |a: f64, b: f64| if a.is_nan() || a > b { a } else { b };
        let max = positions.clone().map(score).fold(f64::from(out.max[n]), larger) as f32;
        let kept = if out.max[n] == f32::NEG_INFINITY { 0.0 } else { (f64::from(out.max[n]) - f64::from(max)).exp() };
        let acc = &mut out.acc[n * cache.value_dim..][..cache.value_dim];
        let mut sum = f64::from(out.sum[n]) * kept;
        acc.iter_mut().for_each(|a| *a = (f64::from(*a) * kept) as f32);
        for p in positions {
            let weight = (score(p) - f64::from(max)).exp();
            let tile = cache.value_tile(p / POSITIONS);
            sum += weight;
            for (i, a) in acc.iter_mut().enumerate() {
                *a += (weight * f64::from(value(cache.kind, cache.value_dim, tile, p % POSITIONS, i))) as f32;
            }
        }
        (out.max[n], out.sum[n]) = (max, sum as f32);
    }
}
