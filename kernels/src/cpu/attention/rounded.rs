//! Attention over int8 keys and values by int8 products: queries, and weights that have taken the values' scales, are rounded to two
//! bytes a number, `x = scale · (256 · high + low)`, with a scale for every 32 elements of a query and for a tile of weights. That is 15
//! bits, and a sign in queries; the products are exact.

use super::lines::prefetch;
use super::storage::{Storage, store};
use super::values::{self, RUN, Weighted};
use super::weigh::{largest, total};
use super::{ALIGNMENT, QUERIES, Scores, Tile};
use crate::cpu::kv::{Kind, POSITIONS, WORDS};
use crate::cpu::vector::{Dots, Vector};
use std::marker::PhantomData;

/// Words of four codes in a run of a query, high and low ones.
const QUERY_WORDS: usize = RUN / 4 * 2;
/// Numbers of a run: its words in pairs of high and low, the sums of both, and the scale.
const RUN_NUMBERS: usize = QUERY_WORDS + 3;
/// The largest magnitude: its high byte is 127.
const LARGEST: f32 = 127.0 * 256.0;
/// Added to a smaller number that is not negative, it leaves the nearest whole number in the low bits: from 2²³ to 2²⁴ all f32 are whole.
const WHOLE: f32 = 8388608.0;
/// A tile whose largest weight is below this counts for nothing beside the position that has weight 1, and its inverse might overflow.
const WEIGHTLESS: f32 = 1e-30;

/// Numbers of a rounded query.
pub const fn stride(dim: usize) -> usize {
    dim.div_ceil(RUN) * RUN_NUMBERS
}

/// Keys of [`Kind::Q8_0`], and rounded queries.
pub struct Rounded<V>(PhantomData<V>);

impl<D: Dots> Storage for Rounded<D> {
    /// As bits: codes, whole numbers, a float.
    type Number = u32;

    fn stride(dim: usize) -> usize {
        stride(dim)
    }

    #[inline(always)]
    fn prepare<'a>(queries: &'a [f32], dim: usize, scratch: &'a mut [u8]) -> &'a [u32] {
        let start = scratch.as_ptr().align_offset(ALIGNMENT);
        let bytes = queries.len() / dim * stride(dim) * size_of::<u32>();
        // SAFETY: any bytes are numbers of 32 bits.
        let (_, out, _) = unsafe { scratch[start..][..bytes].align_to_mut::<u32>() };
        for (query, out) in queries.chunks_exact(dim).zip(out.chunks_exact_mut(stride(dim))) {
            for (run, out) in query.chunks(RUN).zip(out.as_chunks_mut().0) {
                *out = round(run);
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[u32]; QUERIES], scores: &mut Scores) {
        // SAFETY: passed on.
        unsafe { score::<D>(tile, dim, queries, scores) }
    }

    #[inline(always)]
    unsafe fn add_values<V: Vector, const N: usize>(of: &Weighted, acc: &mut [f32]) {
        // SAFETY: passed on.
        unsafe { add_values::<D>(of, acc) }
    }
}

/// A run of at most 32 numbers. One with NaN or infinity has a scale of NaN.
#[inline(always)]
fn round(x: &[f32]) -> [u32; RUN_NUMBERS] {
    let mut run = [0.0; RUN];
    run[..x.len()].copy_from_slice(x);
    let mut out = [0; RUN_NUMBERS];
    let largest = run.iter().fold(0.0, |a: f32, x| if x.abs() > a { x.abs() } else { a });
    let scale = if run.iter().all(|x| x.is_finite()) { largest / LARGEST } else { f32::NAN };
    out[QUERY_WORDS + 2] = scale.to_bits();
    if !scale.is_normal() {
        return out;
    }
    let inverse = 1.0 / scale;
    let (mut high, mut low) = ([0i32; RUN], [0i32; RUN]);
    for i in 0..RUN {
        // SAFETY: at most 127 · 256 in magnitude, and some rounding.
        let code = unsafe { (run[i] * inverse).round_ties_even().to_int_unchecked::<i32>() };
        high[i] = (code + 128) >> 8;
        low[i] = code - (high[i] << 8);
    }
    let word = |codes: &[i32]| (0..4).fold(0, |word, i| word | (codes[i] as u32 & 0xff) << (8 * i));
    for i in 0..RUN / 4 {
        (out[2 * i], out[2 * i + 1]) = (word(&high[4 * i..4 * i + 4]), word(&low[4 * i..4 * i + 4]));
    }
    (out[QUERY_WORDS], out[QUERY_WORDS + 1]) = (high.iter().sum::<i32>() as u32, low.iter().sum::<i32>() as u32);
    out
}

/// Vectors of positions computed together: 4 queries · high and low · 2 are 16 vectors of sums.
const N: usize = 2;

/// # Safety
/// As [`Storage::score`].
#[inline(always)]
unsafe fn score<V: Dots>(tile: &Tile, dim: usize, queries: [&[u32]; QUERIES], scores: &mut Scores) {
    // SAFETY: the tile has `dim` elements of 64 keys, rounded up to four; where the last are beyond the head's, the query has zeros.
    unsafe {
        let scales = tile.keys.as_ptr().add(Kind::Q8_0.key_codes(dim)).cast::<u16>();
        // In the order of addresses, unlike the keys: so the processor's own prefetching joins in.
        let mut ahead = tile.next_keys;
        for start in (0..POSITIONS).step_by(N * V::LANES) {
            let mut sums = [[V::splat(0.0); N]; QUERIES];
            for (run, first) in (0..dim).step_by(RUN).enumerate() {
                let of_run = queries.map(|q| &q[run * RUN_NUMBERS..][..RUN_NUMBERS]);
                let mut high = of_run.map(|q| [V::no_dots(q[QUERY_WORDS] as i32); N]);
                let mut low = of_run.map(|q| [V::no_dots(q[QUERY_WORDS + 1] as i32); N]);
                for i in (first..dim.min(first + RUN)).step_by(8) {
                    // The high and low codes of eight elements, of which the last four may be beyond the head's.
                    let [a, b, c, d] = of_run.map(|q| q.as_ptr().cast::<i32>().add((i - first) / 2));
                    let by = [V::four_words(a), V::four_words(b), V::four_words(c), V::four_words(d)];
                    let line = tile.keys.as_ptr().add(i * POSITIONS + start * 4).cast();
                    prefetch::<V>(ahead, N * V::LANES * 4);
                    add_keys::<V, 0, 1>(&mut high, &mut low, line, by);
                    ahead = ahead.wrapping_add(N * V::LANES * 4);
                    if i + 4 < dim {
                        prefetch::<V>(ahead, N * V::LANES * 4);
                        add_keys::<V, 2, 3>(&mut high, &mut low, line.add(4 * POSITIONS), by);
                        ahead = ahead.wrapping_add(N * V::LANES * 4);
                    }
                }
                for v in 0..N {
                    let scale = V::load_f16(scales.add(run * POSITIONS + start + v * V::LANES));
                    for q in 0..QUERIES {
                        let scale = scale.mul(V::splat(f32::from_bits(of_run[q][QUERY_WORDS + 2])));
                        sums[q][v] = V::joined(high[q][v], low[q][v]).mul_add(scale, sums[q][v]);
                    }
                }
            }
            store(&sums, scores, start);
        }
    }
}

/// Four elements of the keys at `line`, by the words `HIGH` and `LOW` of each query.
///
/// # Safety
/// As [`score`]; the keys are in the tile.
#[inline(always)]
unsafe fn add_keys<V: Dots, const HIGH: usize, const LOW: usize>(
    high: &mut [[V::Words; N]; QUERIES],
    low: &mut [[V::Words; N]; QUERIES],
    line: *const i8,
    by: [V::FourWords; QUERIES],
) {
    for v in 0..N {
        // SAFETY: by the contract.
        unsafe {
            let keys = V::load_codes(line.add(v * V::LANES * 4));
            for q in 0..QUERIES {
                high[q][v] = V::add_dots::<HIGH>(high[q][v], keys, by[q]);
                low[q][v] = V::add_dots::<LOW>(low[q][v], keys, by[q]);
            }
        }
    }
}

/// The weights of a tile with the scales of one run of its values: word `k` has those of the positions `k`, `k + 16`, `k + 32` and
/// `k + 48`.
#[derive(Clone, Copy)]
struct Weights {
    high: [i32; WORDS],
    low: [i32; WORDS],
    scale: f32,
}

impl Weights {
    const NONE: Weights = Weights { high: [0; WORDS], low: [0; WORDS], scale: 0.0 };

    /// The codes of `weights · scales`, which are numbers from 0 to `LARGEST`; where one is NaN, its codes mean nothing.
    #[inline(always)]
    fn round<V: Dots>(&mut self, weights: &[f32; POSITIONS], scales: &[f32; POSITIONS]) {
        // What a signed low byte carries into the high one.
        let carry = if V::UNSIGNED_WEIGHTS { 0 } else { 128 };
        for k in 0..WORDS {
            let code = |j: usize| weights[k + j * WORDS].mul_add(scales[k + j * WORDS], WHOLE).to_bits();
            let codes = [code(0), code(1), code(2), code(3)];
            let high = |j: usize| (codes[j] + carry) >> 8 & 0xff;
            let low = |j: usize| codes[j] & 0xff;
            self.high[k] = (high(0) | high(1) << 8 | high(2) << 16 | high(3) << 24) as i32;
            self.low[k] = (low(0) | low(1) << 8 | low(2) << 16 | low(3) << 24) as i32;
        }
    }
}

/// # Safety
/// As [`Storage::add_values`].
#[inline(always)]
unsafe fn add_values<V: Dots>(of: &Weighted, acc: &mut [f32]) {
    let (tile, dim, weights) = (of.tile, of.dim, of.weights);
    // Loops, not methods of arrays: those are functions of their own, which know nothing of this processor.
    let mut largest_weights = [0.0; QUERIES];
    let mut of_largest = *weights;
    for q in 0..QUERIES {
        // Weights of NaN make the query's sum NaN, and with it the result.
        // SAFETY: by the contract.
        largest_weights[q] = unsafe { largest::<V>(0.0, &weights[q]) };
        let by = if largest_weights[q] > WEIGHTLESS { LARGEST / largest_weights[q] } else { 0.0 };
        for weight in &mut of_largest[q] {
            *weight *= by;
        }
    }
    let mut coded = [Weights::NONE; QUERIES];
    for run in (0..dim).step_by(RUN) {
        // SAFETY: by the contract.
        let mut scales = unsafe { values::scales::<V>(tile, dim, run) };
        if of.seen != (0..POSITIONS) {
            scales[..of.seen.start].fill(0.0);
            scales[of.seen.end..].fill(0.0);
        }
        // SAFETY: by the contract.
        let (largest_scale, total) = unsafe { (largest::<V>(0.0, &scales), total::<V>(&scales)) };
        let inverse = if largest_scale > 0.0 { 1.0 / largest_scale } else { 0.0 };
        for scale in &mut scales {
            *scale *= inverse;
        }
        // A scale of NaN at one position spoils the run for all of them.
        let of_run = if total.is_finite() { largest_scale / LARGEST } else { f32::NAN };
        for q in 0..QUERIES {
            coded[q].round::<V>(&of_largest[q], &scales);
            coded[q].scale = largest_weights[q] * of_run;
        }
        let end = dim.min(run + RUN);
        let mut start = run;
        while start < end {
            let room = end - start;
            // SAFETY: `start` and as many elements as are computed are within a run.
            start += unsafe {
                if room >= N * V::LANES {
                    add_elements::<V, N>(of, start, &coded, acc)
                } else if room >= V::LANES {
                    add_elements::<V, 1>(of, start, &coded, acc)
                } else {
                    let mut weights = *weights;
                    for (weight, scale) in weights.iter_mut().flat_map(|of_query| of_query.iter_mut().zip(&scales)) {
                        *weight *= scale * largest_scale;
                    }
                    let of = Weighted { weights: &weights, ..of.clone() };
                    values::add_one_by_one(&of, start..end, acc, |p, i| values::code(tile, dim, p, i))
                }
            };
        }
    }
}

/// `N` vectors of elements from `start` on; their number.
///
/// # Safety
/// As [`Storage::add_values`]; they are within a run.
#[inline(always)]
unsafe fn add_elements<V: Dots, const N: usize>(of: &Weighted, start: usize, weights: &[Weights; QUERIES], acc: &mut [f32]) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let mut high = [[V::no_dots(0); N]; QUERIES];
        let mut low = [[V::no_dots(0); N]; QUERIES];
        let [a, b, c, d] = weights;
        for word in values::fours_of_words(of.seen.clone()) {
            let words = |numbers: &[i32; WORDS]| V::four_words(numbers.as_ptr().add(word));
            let by = [
                [words(&a.high), words(&b.high), words(&c.high), words(&d.high)],
                [words(&a.low), words(&b.low), words(&c.low), words(&d.low)],
            ];
            let at = |further: usize| ((word + further) * of.dim + start) * 4;
            add_word::<V, N, 0>(&mut high, &mut low, of.tile, at(0), by);
            add_word::<V, N, 1>(&mut high, &mut low, of.tile, at(1), by);
            add_word::<V, N, 2>(&mut high, &mut low, of.tile, at(2), by);
            add_word::<V, N, 3>(&mut high, &mut low, of.tile, at(3), by);
        }
        let mut sums = values::kept_sums::<V, N>(of, start, acc);
        for (q, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = V::joined(high[q][v], low[q][v]).mul_add(V::splat(weights[q].scale), *sum);
            }
        }
        values::put::<V, N>(&sums, acc, of.dim, start)
    }
}

/// Elements of four positions, at `at` of the values, by word `I` of each query's high and low weights.
///
/// # Safety
/// As [`add_elements`].
#[inline(always)]
unsafe fn add_word<V: Dots, const N: usize, const I: usize>(
    high: &mut [[V::Words; N]; QUERIES],
    low: &mut [[V::Words; N]; QUERIES],
    tile: &Tile,
    at: usize,
    by: [[V::FourWords; QUERIES]; 2],
) {
    prefetch::<V>(tile.next_values.wrapping_add(at), N * V::LANES * 4);
    for v in 0..N {
        // SAFETY: by the contract.
        unsafe {
            let codes = V::load_values(tile.values.as_ptr().add(at + v * V::LANES * 4).cast());
            for q in 0..QUERIES {
                high[q][v] = V::add_weighted::<I>(high[q][v], codes, by[0][q]);
                low[q][v] = V::add_weighted::<I>(low[q][v], codes, by[1][q]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_run_is_near_and_its_codes_are_int8() {
        let x: Vec<f32> = (0..30).map(|i| (i as f32 * 0.7).sin() * (i as f32 - 11.0)).collect();
        let run = round(&x);
        let scale = f32::from_bits(run[QUERY_WORDS + 2]);
        let (mut high_sum, mut low_sum) = (0, 0);
        for (i, x) in x.iter().enumerate() {
            let code = |word: u32| i32::from(word.to_le_bytes()[i % 4] as i8);
            let (high, low) = (code(run[i / 4 * 2]), code(run[i / 4 * 2 + 1]));
            assert!(high != -128 && ((high * 256 + low) as f32 * scale - x).abs() <= scale * 0.51, "{i}: {x} as {high} and {low}");
            high_sum += high;
            low_sum += low;
        }
        assert_eq!((run[QUERY_WORDS] as i32, run[QUERY_WORDS + 1] as i32), (high_sum, low_sum));
        assert_eq!((run[14] >> 16, run[15] >> 16), (0, 0), "beyond the end");
    }

    #[test]
    fn a_run_that_has_no_scale_says_so_or_is_nothing() {
        assert!(f32::from_bits(round(&[1.0, f32::NAN])[QUERY_WORDS + 2]).is_nan());
        assert!(f32::from_bits(round(&[f32::NEG_INFINITY; 32])[QUERY_WORDS + 2]).is_nan());
        assert_eq!(round(&[0.0; 32]), [0; RUN_NUMBERS]);
    }
}
