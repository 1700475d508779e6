//! Runs of 256 weights or activations so that each lane of 32 bits belongs to one scale: how [`rows`](super::rows) multiplies a few tokens,
//! and one where scales are of 16 weights.
//!
//! Four vectors hold 256 codes. Lane `l` of each of them holds four codes of the same piece of 16 (where scales are of 16), or two lanes
//! eight codes each of the same group of 32 (elsewhere): so the dot products of all four vectors may be added up before they are scaled,
//! and scales need no spreading. Four to eight shuffles a run bring weights there; further tokens cost none.

use super::arrangement::{Arrangement, group_by_group, group_order, indices, run_in_order};
use super::chunk::{STRAIGHT, Unpack};
use crate::cpu::form::Planes;
use std::arch::x86_64::*;
use std::marker::PhantomData;

pub struct Lanes<F>(PhantomData<F>);

/// A run of one token's activations, for weights of one format.
#[repr(C, align(64))]
pub struct Prepared {
    codes: [[u8; 64]; 4],
    scales: [f32; 16],
    /// Where [`Unpack::ZERO`] is known, `−zero · Σ codes` of each lane, as i32; else `scale · Σ codes`, as f32.
    rest: [u32; 16],
}

/// For each lane the piece of 16 whose codes it has, or one of the two pieces of its group.
const fn pieces<F: Unpack>() -> [i32; 16] {
    let mut pieces = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        pieces[lane] = if F::PER_16 {
            // By `by_pieces`.
            lane % 4 * 4 + lane / 4
        } else {
            // By `by_groups`: two lanes of a group of the first two vectors, two of one of the others.
            group_order::<F>()[lane % 4 / 2 * 2][lane / 4]
        } as i32;
        lane += 1;
    }
    pieces
}

/// For each lane where [`Chunk::numbers`](super::chunk::Chunk::numbers) of 32s have its scale, or, 1 further, its offset.
const fn numbers<F: Unpack>(further: i32) -> [i32; 16] {
    let mut at = pieces::<F>();
    let mut lane = 0;
    while lane < 16 {
        at[lane] = at[lane] / 2 * 2 + further;
        lane += 1;
    }
    at
}

/// Pieces `4n + k` of vector `n` go to lanes `4k + n` of all four.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_pieces(c: [__m512i; 4]) -> [__m512i; 4] {
    let (a, b) = (_mm512_unpacklo_epi32(c[0], c[1]), _mm512_unpackhi_epi32(c[0], c[1]));
    let (d, e) = (_mm512_unpacklo_epi32(c[2], c[3]), _mm512_unpackhi_epi32(c[2], c[3]));
    [_mm512_unpacklo_epi64(a, d), _mm512_unpackhi_epi64(a, d), _mm512_unpacklo_epi64(b, e), _mm512_unpackhi_epi64(b, e)]
}

/// Whole groups in the quarters of two vectors each, to eight codes of each group a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn by_groups(c: [__m512i; 4]) -> [__m512i; 4] {
    [
        _mm512_unpacklo_epi64(c[0], c[2]),
        _mm512_unpackhi_epi64(c[0], c[2]),
        _mm512_unpacklo_epi64(c[1], c[3]),
        _mm512_unpackhi_epi64(c[1], c[3]),
    ]
}

impl<F: Unpack> Arrangement for Lanes<F> {
    type Prepared = Prepared;
    const BYTES: usize = F::BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn prepare(row: &[u8], planes: Planes, run: usize, cols: usize) -> Prepared {
        let (codes, scales) = run_in_order(row, planes, run, cols, if F::PER_16 { STRAIGHT } else { group_order::<F>() });
        let codes = if F::PER_16 { by_pieces(codes) } else { by_groups(codes) };
        let scales = _mm512_permutexvar_ps(_mm512_srli_epi32::<1>(indices(const { pieces::<F>() })), scales);
        let mut out = Prepared { codes: [[0; 64]; 4], scales: [0.0; 16], rest: [0; 16] };
        let mut sums = _mm512_setzero_si512();
        // SAFETY: vectors of 64 bytes.
        unsafe {
            for (to, x) in out.codes.iter_mut().zip(codes) {
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), x);
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            }
            let rest = match F::ZERO {
                Some(zero) => _mm512_mullo_epi32(sums, _mm512_set1_epi32(-i32::from(zero))),
                None => _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales)),
            };
            _mm512_storeu_ps(out.scales.as_mut_ptr(), scales);
            _mm512_storeu_si512(out.rest.as_mut_ptr().cast(), rest);
        }
        out
    }

    // Loops over arrays, not `map` and `from_fn`: those lack the features, and what they call is not inlined.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn multiply<const N: usize>(
        at: *const u8,
        weights: Option<usize>,
        x: &[*const Prepared; N],
        run: usize,
        sums: &mut [__m512; N],
    ) {
        // SAFETY: by the contract.
        let mut chunk = unsafe { F::unpack(at) };
        if let Some(weights) = weights {
            chunk = chunk.first(weights);
        }
        let codes = if F::PER_16 { by_pieces(chunk.codes) } else { by_groups(group_by_group::<F>(chunk.codes)) };
        let (of_16, scale, offset) = const { (pieces::<F>(), numbers::<F>(0), numbers::<F>(1)) };
        let (scales, offsets) = if F::PER_16 {
            (_mm512_permutexvar_ps(indices(of_16), chunk.numbers), _mm512_permutexvar_ps(indices(of_16), chunk.offsets))
        } else {
            (_mm512_permutexvar_ps(indices(scale), chunk.numbers), _mm512_permutexvar_ps(indices(offset), chunk.numbers))
        };
        for (x, sum) in x.iter().zip(sums) {
            // SAFETY: by the contract; six vectors at multiples of 64 bytes.
            unsafe {
                let x = &*x.add(run);
                let rest = _mm512_load_si512(x.rest.as_ptr().cast());
                let mut dots = if F::ZERO.is_some() { rest } else { _mm512_setzero_si512() };
                for (w, x) in codes.iter().zip(&x.codes) {
                    dots = _mm512_dpbusd_epi32(dots, *w, _mm512_load_si512(x.as_ptr().cast()));
                }
                if F::ZERO.is_none() {
                    *sum = _mm512_fmadd_ps(offsets, _mm512_castsi512_ps(rest), *sum);
                }
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(scales, _mm512_load_ps(x.scales.as_ptr())), *sum);
            }
        }
    }
}
