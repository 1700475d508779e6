//! Sums of values by their weights, as f32.

use super::lines::{add_lines, multiply, of_four, prefetch};
use super::storage::InLine;
use super::{QUERIES, Scores, Tile};
use crate::cpu::kv::{Kind, POSITIONS, WORDS};
use crate::cpu::plain;
use crate::cpu::vector::Vector;
use std::ops::Range;

/// Elements of a line of [`Kind::Q8_0`] that have one scale.
pub const RUN: usize = 32;

/// Values of a tile, lines of `dim`, and what they are summed by.
#[derive(Clone)]
pub struct Weighted<'a> {
    pub tile: &'a Tile<'a>,
    pub dim: usize,
    /// 0 for positions that a query does not see.
    pub weights: &'a Scores,
    /// What each query's sums so far are multiplied by.
    pub kept: [f32; QUERIES],
    /// The positions that any query sees.
    pub seen: Range<usize>,
}

/// As [`Storage::add_values`](super::storage::Storage::add_values), of values that lie side by side.
///
/// # Safety
/// As [`attend`](super::attend).
#[inline(always)]
pub unsafe fn add_values_in_line<V: Vector, S: InLine, const N: usize>(of: &Weighted, acc: &mut [f32]) {
    let mut start = 0;
    while start < of.dim {
        let room = of.dim - start;
        // SAFETY: `start` and as many elements as are computed are within a line of the tile.
        start += unsafe {
            if room >= N * V::LANES {
                add_in_line::<V, S, N>(of, start, acc)
            } else if room >= 2 * V::LANES {
                add_in_line::<V, S, 2>(of, start, acc)
            } else if room >= V::LANES {
                add_in_line::<V, S, 1>(of, start, acc)
            } else {
                let value = |p: usize, i: usize| plain::attention::code(S::KIND, of.tile.values, p * of.dim + i);
                add_one_by_one(of, start..of.dim, acc, value)
            }
        };
    }
}

/// `N` vectors of elements from `start` on; their number.
///
/// # Safety
/// As [`add_values_in_line`]; they are within a line.
#[inline(always)]
unsafe fn add_in_line<V: Vector, S: InLine, const N: usize>(of: &Weighted, start: usize, acc: &mut [f32]) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let mut sums = kept_sums::<V, N>(of, start, acc);
        let by = of.weights.each_ref().map(|w| w.as_ptr());
        let line = |p: usize| p * of.dim + start;
        add_lines::<V, S, N>(&mut sums, of.tile.values.as_ptr(), of.tile.next_values, of.seen.clone(), line, by);
        put::<V, N>(&sums, acc, of.dim, start)
    }
}

/// As [`Storage::add_values`](super::storage::Storage::add_values), of [`Kind::Q8_0`]: an element of four positions lies together.
///
/// # Safety
/// As [`attend`](super::attend).
#[inline(always)]
pub unsafe fn add_values_q8<V: Vector, const N: usize>(of: &Weighted, acc: &mut [f32]) {
    for run in (0..of.dim).step_by(RUN) {
        // Weights take the scales; 0 where nothing is seen, and nothing may be written.
        let mut of_run: Scores = [[0.0; POSITIONS]; QUERIES];
        // SAFETY: by the contract.
        let scales = unsafe { scales::<V>(of.tile, of.dim, run) };
        for (of_run, weights) in of_run.iter_mut().zip(of.weights) {
            for p in of.seen.clone() {
                of_run[p] = weights[p] * scales[p];
            }
        }
        let of = &Weighted { weights: &of_run, ..of.clone() };
        let end = of.dim.min(run + RUN);
        let mut start = run;
        while start < end {
            let room = end - start;
            // SAFETY: `start` and as many elements as are computed are within a run.
            start += unsafe {
                if room >= N * V::LANES {
                    add_q8::<V, N>(of, start, acc)
                } else if room >= 2 * V::LANES {
                    add_q8::<V, 2>(of, start, acc)
                } else if room >= V::LANES {
                    add_q8::<V, 1>(of, start, acc)
                } else {
                    add_one_by_one(of, start..end, acc, |p, i| code(of.tile, of.dim, p, i))
                }
            };
        }
    }
}

/// `N` vectors of elements from `start` on; their number.
///
/// # Safety
/// As [`add_values_q8`]; they are within a run.
#[inline(always)]
unsafe fn add_q8<V: Vector, const N: usize>(of: &Weighted, start: usize, acc: &mut [f32]) -> usize {
    // SAFETY: by the contract.
    unsafe {
        let mut sums = kept_sums::<V, N>(of, start, acc);
        for word in fours_of_words(of.seen.clone()).flat_map(|first| first..first + 4) {
            let at = (word * of.dim + start) * 4;
            prefetch::<V>(of.tile.next_values.wrapping_add(at), N * V::LANES * 4);
            let mut x = [[V::splat(0.0); 4]; N];
            for (v, x) in x.iter_mut().enumerate() {
                *x = V::load_four_i8(of.tile.values.as_ptr().add(at + v * V::LANES * 4).cast());
            }
            for j in 0..4 {
                multiply(&mut sums, of_four(&x, j), |q| *of.weights.get_unchecked(q).get_unchecked(word + j * WORDS));
            }
        }
        put::<V, N>(&sums, acc, of.dim, start)
    }
}

/// The first of every four words that hold any of the positions.
#[inline(always)]
pub fn fours_of_words(seen: Range<usize>) -> impl Iterator<Item = usize> {
    let has_any = move |word: &usize| (*word..POSITIONS).step_by(WORDS).any(|p| p < seen.end && p + 4 > seen.start);
    (0..WORDS).step_by(4).filter(has_any)
}

/// The scales of all positions, of the run of elements that begins at `first`.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn scales<V: Vector>(tile: &Tile, dim: usize, first: usize) -> [f32; POSITIONS] {
    let mut scales = [0.0; POSITIONS];
    let bytes = &tile.values[Kind::Q8_0.value_codes(dim) + first / RUN * POSITIONS * 2..][..POSITIONS * 2];
    for p in (0..POSITIONS).step_by(V::LANES) {
        // SAFETY: 64 numbers are whole vectors of every width.
        unsafe { V::load_f16(bytes.as_ptr().cast::<u16>().add(p)).store(scales.as_mut_ptr().add(p)) };
    }
    scales
}

/// An element of [`Kind::Q8_0`] without its scale.
pub fn code(tile: &Tile, dim: usize, position: usize, element: usize) -> f32 {
    plain::attention::code(Kind::Q8_0, tile.values, Kind::Q8_0.value_at(dim, position, element))
}

/// Elements that fill no vector, one by one; their number.
#[inline(always)]
pub fn add_one_by_one(of: &Weighted, elements: Range<usize>, acc: &mut [f32], value: impl Fn(usize, usize) -> f32) -> usize {
    for (q, acc) in acc.chunks_exact_mut(of.dim).enumerate() {
        for i in elements.clone() {
            acc[i] = of.seen.clone().fold(acc[i] * of.kept[q], |sum, p| value(p, i).mul_add(of.weights[q][p], sum));
        }
    }
    elements.len()
}

/// The sums so far of `N` vectors from `start` on, times what is kept of them. A query that is not there has the last one's.
///
/// # Safety
/// As [`Vector`]; they are within a line of `acc`, which has at most four.
#[inline(always)]
pub unsafe fn kept_sums<V: Vector, const N: usize>(of: &Weighted, start: usize, acc: &[f32]) -> [[V; N]; QUERIES] {
    let last = acc.len() / of.dim - 1;
    // SAFETY: by the contract.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; QUERIES];
        for (q, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(acc.as_ptr().add(q.min(last) * of.dim + start + v * V::LANES)).mul(V::splat(of.kept[q]));
            }
        }
        sums
    }
}

/// Stores the sums of the queries that are there; the number of elements.
///
/// # Safety
/// As [`kept_sums`].
#[inline(always)]
pub unsafe fn put<V: Vector, const N: usize>(sums: &[[V; N]; QUERIES], acc: &mut [f32], dim: usize, start: usize) -> usize {
    for (sums, acc) in sums.iter().zip(acc.chunks_exact_mut(dim)) {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { sum.store(acc.as_mut_ptr().add(start + v * V::LANES)) };
        }
    }
    N * V::LANES
}
