//! What tiles hold, as attention reads it: scores from each kind of keys, and tiles brought into f32.

use super::lines::{add_lines, fours_of, multiply, multiply_one, of_four, prefetch};
use super::values::{self, Weighted};
use super::{QUERIES, Scores, Tile};
use crate::cpu::kv::{Kind, POSITIONS, WORDS};
use crate::cpu::vector::Vector;

/// A kind of cache, as this room reads it.
pub trait Storage {
    /// What queries are made of.
    type Number: Copy;

    /// Numbers in a prepared query.
    fn stride(dim: usize) -> usize;

    /// The queries, brought into these numbers.
    fn prepare<'a>(queries: &'a [f32], dim: usize, scratch: &'a mut [u8]) -> &'a [Self::Number];

    /// `scores[q, p] = Σ_i q[i] · k[i, p]`
    ///
    /// # Safety
    /// As [`attend`](super::attend).
    unsafe fn score<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[Self::Number]; QUERIES], scores: &mut Scores);

    /// `acc[q] = acc[q] · kept[q] + Σ_p weights[q, p] · v[p]`, for as many queries as `acc` has lines.
    ///
    /// # Safety
    /// As [`attend`](super::attend).
    unsafe fn add_values<V: Vector, const N: usize>(of: &Weighted, acc: &mut [f32]);
}

/// A storage in which positions of a key, and elements of a value, lie side by side, one number each.
pub trait InLine {
    const KIND: Kind;
    /// Bytes of a number.
    const BYTES: usize;
    /// Whether the next tile is prefetched while this one is read.
    const AHEAD: bool = true;

    /// Numbers `index ..` of a tile, as many as a vector has.
    ///
    /// # Safety
    /// As [`attend`](super::attend); they are there.
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V;
}

/// A storage that can be brought into f32, as [`Kind::F32`] lies.
pub trait Coded: Storage {
    /// # Safety
    /// As [`attend`](super::attend); there is room for `dim · 64` numbers.
    unsafe fn decode_keys<V: Vector>(tile: &Tile, dim: usize, out: *mut f32);
    /// # Safety
    /// As [`decode_keys`](Self::decode_keys).
    unsafe fn decode_values<V: Vector>(tile: &Tile, dim: usize, out: *mut f32);
}

impl<S: InLine> Storage for S {
    type Number = f32;

    fn stride(dim: usize) -> usize {
        dim
    }

    fn prepare<'a>(queries: &'a [f32], _: usize, _: &'a mut [u8]) -> &'a [f32] {
        queries
    }

    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[f32]; QUERIES], scores: &mut Scores) {
        // SAFETY: the tile has `dim` lines of 64 keys, and `start` and the vectors after it are within one.
        unsafe {
            for start in (0..POSITIONS).step_by(N * V::LANES) {
                let mut sums = [[V::splat(0.0); N]; QUERIES];
                let line = |i: usize| i * POSITIONS + start;
                add_lines::<V, S, N>(&mut sums, tile.keys.as_ptr(), tile.next_keys, 0..dim, line, queries.map(<[f32]>::as_ptr));
                store(&sums, scores, start);
            }
        }
    }

    #[inline(always)]
    unsafe fn add_values<V: Vector, const N: usize>(of: &Weighted, acc: &mut [f32]) {
        // SAFETY: passed on.
        unsafe { values::add_values_in_line::<V, S, N>(of, acc) }
    }
}

/// # Safety
/// As [`Vector`]; the vectors from `start` on are within a line of scores.
#[inline(always)]
pub unsafe fn store<V: Vector, const N: usize>(sums: &[[V; N]; QUERIES], scores: &mut Scores, start: usize) {
    for (sums, scores) in sums.iter().zip(scores) {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { sum.store(scores.as_mut_ptr().add(start + v * V::LANES)) };
        }
    }
}

pub struct F16;
pub struct F32;
pub struct Q8;
/// A tile that was brought into f32 beforehand, when the next one was prefetched.
pub struct Decoded;

impl InLine for F16 {
    const KIND: Kind = Kind::F16;
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { V::load_f16(tile.cast::<u16>().add(index)) }
    }
}

impl InLine for F32 {
    const KIND: Kind = Kind::F32;
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { V::load(tile.cast::<f32>().add(index)) }
    }
}

impl Storage for Q8 {
    type Number = f32;

    fn stride(dim: usize) -> usize {
        dim
    }

    fn prepare<'a>(queries: &'a [f32], _: usize, _: &'a mut [u8]) -> &'a [f32] {
        queries
    }

    /// Four elements of each key lie together; a run of 32 has a scale.
    #[inline(always)]
    unsafe fn score<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[f32]; QUERIES], scores: &mut Scores) {
        // SAFETY: passed on.
        unsafe {
            match N {
                // Two vectors of sums a query: one would wait for its own additions.
                4 => score_q8::<V, 2>(tile, dim, queries, scores),
                _ => score_q8::<V, 1>(tile, dim, queries, scores),
            }
        }
    }

    #[inline(always)]
    unsafe fn add_values<V: Vector, const N: usize>(of: &Weighted, acc: &mut [f32]) {
        // SAFETY: passed on.
        unsafe { values::add_values_q8::<V, N>(of, acc) }
    }
}

/// As [`Storage::score`], with `N` vectors of sums a query.
///
/// # Safety
/// As [`attend`](super::attend).
#[inline(always)]
unsafe fn score_q8<V: Vector, const N: usize>(tile: &Tile, dim: usize, queries: [&[f32]; QUERIES], scores: &mut Scores) {
    // SAFETY: the tile has `dim` elements of 64 keys, rounded up to four; what is beyond the head of the last four is left out.
    unsafe {
        let scales = tile.keys.as_ptr().add(Kind::Q8_0.key_codes(dim)).cast::<u16>();
        for start in (0..POSITIONS).step_by(N * V::LANES) {
            let mut sums = [[V::splat(0.0); N]; QUERIES];
            for run in (0..dim).step_by(32) {
                let mut of_run = [[V::splat(0.0); N]; QUERIES];
                for i in (run..dim.min(run + 32)).step_by(4) {
                    let at = i * POSITIONS + start * 4;
                    prefetch::<V>(tile.next_keys.wrapping_add(at), N * V::LANES * 4);
                    let mut k = [[V::splat(0.0); 4]; N];
                    for (v, k) in k.iter_mut().enumerate() {
                        *k = V::load_four_i8(tile.keys.as_ptr().add(at + v * V::LANES * 4).cast());
                    }
                    if i + 4 <= dim {
                        let by = fours_of::<V>(queries.map(<[f32]>::as_ptr), i);
                        multiply_one::<V, N, 0>(&mut of_run, of_four(&k, 0), by);
                        multiply_one::<V, N, 1>(&mut of_run, of_four(&k, 1), by);
                        multiply_one::<V, N, 2>(&mut of_run, of_four(&k, 2), by);
                        multiply_one::<V, N, 3>(&mut of_run, of_four(&k, 3), by);
                    } else {
                        for j in 0..dim - i {
                            multiply(&mut of_run, of_four(&k, j), |q| *queries[q].get_unchecked(i + j));
                        }
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

impl InLine for Decoded {
    const KIND: Kind = Kind::F32;
    const BYTES: usize = 4;
    const AHEAD: bool = false;

    #[inline(always)]
    unsafe fn load<V: Vector>(tile: *const u8, index: usize) -> V {
        // SAFETY: by the contract.
        unsafe { F32::load(tile, index) }
    }
}

/// A tile of f16 as f32, in the order it has.
///
/// # Safety
/// As [`Coded::decode_keys`].
#[inline(always)]
unsafe fn decode_f16<V: Vector>(codes: &[u8], next: *const u8, dim: usize, out: *mut f32) {
    for at in (0..dim * POSITIONS).step_by(V::LANES) {
        prefetch::<V>(next.wrapping_add(at * F16::BYTES), V::LANES * F16::BYTES);
        // SAFETY: 64 positions are a multiple of every vector.
        unsafe { F16::load::<V>(codes.as_ptr(), at).store(out.add(at)) };
    }
}

impl Coded for F16 {
    #[inline(always)]
    unsafe fn decode_keys<V: Vector>(tile: &Tile, dim: usize, out: *mut f32) {
        // SAFETY: passed on.
        unsafe { decode_f16::<V>(tile.keys, tile.next_keys, dim, out) }
    }

    #[inline(always)]
    unsafe fn decode_values<V: Vector>(tile: &Tile, dim: usize, out: *mut f32) {
        // SAFETY: passed on.
        unsafe { decode_f16::<V>(tile.values, tile.next_values, dim, out) }
    }
}

impl Coded for Q8 {
    #[inline(always)]
    unsafe fn decode_keys<V: Vector>(tile: &Tile, dim: usize, out: *mut f32) {
        // SAFETY: four elements of each key lie together, the last four perhaps partly beyond the head's; a run of 32 has a scale.
        unsafe {
            let scales = tile.keys.as_ptr().add(Kind::Q8_0.key_codes(dim)).cast::<u16>();
            for (i, start) in (0..dim).step_by(4).flat_map(|i| (0..POSITIONS).step_by(V::LANES).map(move |start| (i, start))) {
                let at = (i * POSITIONS) + start * 4;
                prefetch::<V>(tile.next_keys.wrapping_add(at), V::LANES * 4);
                let four = V::load_four_i8(tile.keys.as_ptr().add(at).cast());
                let scale = V::load_f16(scales.add(i / 32 * POSITIONS + start));
                for (j, k) in four.into_iter().enumerate().take(dim - i) {
                    k.mul(scale).store(out.add((i + j) * POSITIONS + start));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn decode_values<V: Vector>(tile: &Tile, dim: usize, out: *mut f32) {
        for run in (0..dim).step_by(32) {
            let end = dim.min(run + 32);
            // SAFETY: four positions of each element lie together; of what is beyond the last vector of a run each by itself.
            unsafe {
                let scales = values::scales::<V>(tile, dim, run);
                for word in 0..WORDS {
                    let mut i = run;
                    while i + V::LANES <= end {
                        let at = (word * dim + i) * 4;
                        prefetch::<V>(tile.next_values.wrapping_add(at), V::LANES * 4);
                        let four = V::load_four_i8(tile.values.as_ptr().add(at).cast());
                        for (p, values) in (word..POSITIONS).step_by(WORDS).zip(four) {
                            values.mul(V::splat(scales[p])).store(out.add(p * dim + i));
                        }
                        i += V::LANES;
                    }
                    for (p, i) in (word..POSITIONS).step_by(WORDS).flat_map(|p| (i..end).map(move |i| (p, i))) {
                        *out.add(p * dim + i) = values::code(tile, dim, p, i) * scales[p];
                    }
                }
            }
        }
    }
}
