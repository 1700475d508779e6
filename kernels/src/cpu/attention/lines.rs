//! Lines of a tile, each times a number: what scores and sums of values have in common.

use super::QUERIES;
use super::storage::InLine;
use crate::cpu::vector::Vector;
use std::ops::Range;

/// `sums[q] += Σ_i by[q][i] · x_i` over the lines `i`, each of which begins at number `at(i)` of the tile. Those of the next tile are
/// prefetched.
///
/// # Safety
/// As [`InLine::load`], for `N` vectors of each line; `by` have a number for each line.
#[inline(always)]
pub unsafe fn add_lines<V: Vector, S: InLine, const N: usize>(
    sums: &mut [[V; N]; QUERIES],
    tile: *const u8,
    next: *const u8,
    lines: Range<usize>,
    at: impl Fn(usize) -> usize,
    by: [*const f32; QUERIES],
) {
    let fours = lines.end - lines.len() % 4;
    // SAFETY: by the contract.
    unsafe {
        for i in (lines.start..fours).step_by(4) {
            let by = fours_of::<V>(by, i);
            multiply_one::<V, N, 0>(sums, load::<V, S, N>(tile, next, at(i)), by);
            multiply_one::<V, N, 1>(sums, load::<V, S, N>(tile, next, at(i + 1)), by);
            multiply_one::<V, N, 2>(sums, load::<V, S, N>(tile, next, at(i + 2)), by);
            multiply_one::<V, N, 3>(sums, load::<V, S, N>(tile, next, at(i + 3)), by);
        }
        for i in fours..lines.end {
            multiply(sums, load::<V, S, N>(tile, next, at(i)), |q| *by[q].add(i));
        }
    }
}

/// # Safety
/// As [`InLine::load`], for `N` vectors.
#[inline(always)]
unsafe fn load<V: Vector, S: InLine, const N: usize>(tile: *const u8, next: *const u8, at: usize) -> [V; N] {
    // SAFETY: by the contract.
    unsafe {
        let mut x = [V::splat(0.0); N];
        for (v, x) in x.iter_mut().enumerate() {
            *x = S::load(tile, at + v * V::LANES);
        }
        if S::AHEAD {
            prefetch::<V>(next.wrapping_add(at * S::BYTES), N * V::LANES * S::BYTES);
        }
        x
    }
}

/// Four numbers of each query, from number `first` on.
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn fours_of<V: Vector>(of_queries: [*const f32; QUERIES], first: usize) -> [V::Four; QUERIES] {
    let [a, b, c, d] = of_queries;
    // SAFETY: by the contract.
    unsafe { [V::four(a.add(first)), V::four(b.add(first)), V::four(c.add(first)), V::four(d.add(first))] }
}

/// Number `j` of each four.
#[inline(always)]
pub fn of_four<V: Vector, const N: usize>(fours: &[[V; 4]; N], j: usize) -> [V; N] {
    let mut out = [fours[0][j]; N];
    for (out, four) in out.iter_mut().zip(fours) {
        *out = four[j];
    }
    out
}

/// `sums[q] += by[q][I] · x`
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn multiply_one<V: Vector, const N: usize, const I: usize>(sums: &mut [[V; N]; QUERIES], x: [V; N], by: [V::Four; QUERIES]) {
    for (sums, by) in sums.iter_mut().zip(by) {
        for (sum, x) in sums.iter_mut().zip(x) {
            // SAFETY: by the contract.
            *sum = unsafe { x.mul_add_one::<I>(by, *sum) };
        }
    }
}

/// `sums[q] += by(q) · x`
///
/// # Safety
/// As [`Vector`].
#[inline(always)]
pub unsafe fn multiply<V: Vector, const N: usize>(sums: &mut [[V; N]; QUERIES], x: [V; N], by: impl Fn(usize) -> f32) {
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

/// Prefetches the cache lines of so many bytes.
#[inline(always)]
pub fn prefetch<V: Vector>(at: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        V::prefetch(at.wrapping_add(line));
    }
}
