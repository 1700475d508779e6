//! Scores of int8 keys by int8 products: queries are rounded to two int8 an element, `q = scale · (256 · high + low)`, with a scale for
//! every 32 elements. That is 15 bits and a sign; the products are exact.

use super::storage::{Q8, Storage, ask_for, store};
use super::{ALIGNMENT, QUERIES, Scores, Tile};
use crate::cpu::kv::{Kind, POSITIONS};
use crate::cpu::vector::{Dots, Vector};
use std::marker::PhantomData;

/// Elements with one scale, as the keys have it.
const RUN: usize = 32;
/// Words of four codes in a run, high and low ones.
const WORDS: usize = RUN / 4 * 2;
/// Numbers of a run: its words in pairs of high and low, the sums of both, and the scale.
const RUN_NUMBERS: usize = WORDS + 3;
/// The largest magnitude: its high byte is 127.
const LARGEST: f32 = 127.0 * 256.0;

/// Numbers of a rounded query.
pub const fn stride(dim: usize) -> usize {
    dim.div_ceil(RUN) * RUN_NUMBERS
}

/// Keys of [`Kind::Q8_0`], and rounded queries.
pub struct Rounded<V>(PhantomData<V>);

impl<D: Dots> Storage for Rounded<D> {
    const KIND: Kind = Kind::Q8_0;
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
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: passed on.
        unsafe { Q8::load(tile, index) }
    }

    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[u32]; QUERIES], scores: &mut Scores) {
        // SAFETY: passed on.
        unsafe { score::<D>(tile, dim, queries, scores) }
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
    out[WORDS + 2] = scale.to_bits();
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
    (out[WORDS], out[WORDS + 1]) = (high.iter().sum::<i32>() as u32, low.iter().sum::<i32>() as u32);
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
                let mut high = of_run.map(|q| [V::no_dots(q[WORDS] as i32); N]);
                let mut low = of_run.map(|q| [V::no_dots(q[WORDS + 1] as i32); N]);
                for i in (first..dim.min(first + RUN)).step_by(4) {
                    let at = i * POSITIONS + start * 4;
                    ask_for::<V>(ahead, N * V::LANES * 4);
                    ahead = ahead.wrapping_add(N * V::LANES * 4);
                    let word = (i - first) / 2;
                    for v in 0..N {
                        let keys = V::load_codes(tile.keys.as_ptr().add(at + v * V::LANES * 4).cast());
                        for q in 0..QUERIES {
                            high[q][v] = V::add_dots(high[q][v], keys, *of_run[q].get_unchecked(word) as i32);
                            low[q][v] = V::add_dots(low[q][v], keys, *of_run[q].get_unchecked(word + 1) as i32);
                        }
                    }
                }
                for v in 0..N {
                    let scale = V::load_f16(scales.add(run * POSITIONS + start + v * V::LANES));
                    for q in 0..QUERIES {
                        let scale = scale.mul(V::splat(f32::from_bits(of_run[q][WORDS + 2])));
                        sums[q][v] = V::joined(high[q][v], low[q][v]).mul_add(scale, sums[q][v]);
                    }
                }
            }
            store(&sums, scores, start);
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
        let scale = f32::from_bits(run[WORDS + 2]);
        let (mut high_sum, mut low_sum) = (0, 0);
        for (i, x) in x.iter().enumerate() {
            let code = |word: u32| i32::from(word.to_le_bytes()[i % 4] as i8);
            let (high, low) = (code(run[i / 4 * 2]), code(run[i / 4 * 2 + 1]));
            assert!(high != -128 && ((high * 256 + low) as f32 * scale - x).abs() <= scale * 0.51, "{i}: {x} as {high} and {low}");
            high_sum += high;
            low_sum += low;
        }
        assert_eq!((run[WORDS] as i32, run[WORDS + 1] as i32), (high_sum, low_sum));
        assert_eq!((run[14] >> 16, run[15] >> 16), (0, 0), "beyond the end");
    }

    #[test]
    fn a_run_that_has_no_scale_says_so_or_is_nothing() {
        assert!(f32::from_bits(round(&[1.0, f32::NAN])[WORDS + 2]).is_nan());
        assert!(f32::from_bits(round(&[f32::NEG_INFINITY; 32])[WORDS + 2]).is_nan());
        assert_eq!(round(&[0.0; 32]), [0; RUN_NUMBERS]);
    }
}
