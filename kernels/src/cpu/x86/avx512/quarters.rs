//! Runs of 256 weights so that each quarter of a vector belongs to one scale of 32: how [`rows`](super::rows) multiplies one token.
//!
//! Vectors 0 and 1 hold four groups of 32 codes, 2 and 3 the four others, as unpacking leaves them; so a run costs two conversions and two
//! multiplications with scales where [lanes of one scale](super::lanes) cost one, and saves the shuffles that bring codes there, for
//! which a single token would pay alone.

use super::arrangement::{Arrangement, group_by_group, group_order, indices, run_in_order};
use super::chunk::Unpack;
use crate::cpu::form::Planes;
use std::arch::x86_64::*;
use std::marker::PhantomData;

pub struct Quarters<F>(PhantomData<F>);

/// A run of one token's activations, for weights of one format.
#[repr(C, align(64))]
pub struct Prepared {
    codes: [[u8; 64]; 4],
    /// Of each lane of vectors 0 and 1, and of 2 and 3.
    scales: [[f32; 16]; 2],
    /// Where [`Unpack::ZERO`] is known, `−zero · Σ codes` of those lanes, as i32. Else the first has in lanes `2g + 1` `scale · Σ codes` of
    /// group `g`, as f32.
    rest: [[u32; 16]; 2],
}

/// For each lane of vectors 0 and 1 (`pair` 0) or 2 and 3 the group of 32 whose codes it has.
const fn groups<F: Unpack>(pair: usize) -> [i32; 16] {
    let mut groups = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        groups[lane] = (group_order::<F>()[2 * pair][lane / 4] / 2) as i32;
        lane += 1;
    }
    groups
}

/// For each lane `2g + 1` one that group `g` has in vectors 0 and 1, or, 16 more, in 2 and 3.
const fn lanes_of_groups<F: Unpack>() -> [i32; 16] {
    let mut lanes = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        lanes[2 * groups::<F>(0)[lane] as usize + 1] = lane as i32;
        lanes[2 * groups::<F>(1)[lane] as usize + 1] = 16 + lane as i32;
        lane += 1;
    }
    lanes
}

impl<F: Unpack> Arrangement for Quarters<F> {
    type Prepared = Prepared;
    const BYTES: usize = F::BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn prepare(row: &[u8], planes: Planes, run: usize, cols: usize) -> Prepared {
        let (codes, of_groups) = run_in_order(row, planes, run, cols, group_order::<F>());
        let mut out = Prepared { codes: [[0; 64]; 4], scales: [[0.0; 16]; 2], rest: [[0; 16]; 2] };
        let (mut sums, mut scales) = ([_mm512_setzero_si512(); 2], [of_groups; 2]);
        for (pair, groups) in const { [groups::<F>(0), groups::<F>(1)] }.into_iter().enumerate() {
            scales[pair] = _mm512_permutexvar_ps(indices(groups), of_groups);
            for codes in &codes[2 * pair..][..2] {
                sums[pair] = _mm512_dpbusd_epi32(sums[pair], _mm512_set1_epi8(1), *codes);
            }
        }
        let rest = match F::ZERO {
            Some(zero) => sums.map(|sums| _mm512_mullo_epi32(sums, _mm512_set1_epi32(-i32::from(zero)))),
            None => {
                let mut of_quarters = [_mm512_setzero_ps(); 2];
                for ((to, sums), scales) in of_quarters.iter_mut().zip(sums).zip(scales) {
                    let pairs = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b10_11_00_01>(sums));
                    let sums = _mm512_add_epi32(pairs, _mm512_shuffle_epi32::<0b01_00_11_10>(pairs));
                    *to = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales);
                }
                let [a, b] = of_quarters;
                let by_group = _mm512_permutex2var_ps(a, indices(const { lanes_of_groups::<F>() }), b);
                [_mm512_castps_si512(by_group), _mm512_setzero_si512()]
            }
        };
        // SAFETY: vectors of 64 bytes.
        unsafe {
            for (to, x) in out.codes.iter_mut().zip(codes) {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            }
            for (to, x) in out.scales.iter_mut().zip(scales) {
                _mm512_storeu_ps(to.as_mut_ptr(), x);
            }
            for (to, x) in out.rest.iter_mut().zip(rest) {
                _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
            }
        }
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn multiply<const N: usize>(
        at: *const u8,
        weights: Option<usize>,
        x: &[*const Prepared; N],
        run: usize,
        sums: &mut [__m512; N],
    ) {
        const { assert!(!F::PER_16) };
        // SAFETY: by the contract.
        let mut chunk = unsafe { F::unpack(at) };
        if let Some(weights) = weights {
            chunk = chunk.first(weights);
        }
        let codes = group_by_group::<F>(chunk.codes);
        let mut scales = [chunk.numbers; 2];
        for (scales, groups) in scales.iter_mut().zip(const { [groups::<F>(0), groups::<F>(1)] }) {
            *scales = _mm512_permutexvar_ps(_mm512_slli_epi32::<1>(indices(groups)), *scales);
        }
        for (x, sum) in x.iter().zip(sums) {
            // SAFETY: by the contract; eight vectors at multiples of 64 bytes.
            unsafe {
                let x = &*x.add(run);
                let load = |x: &[u8; 64]| _mm512_load_si512(x.as_ptr().cast());
                let rest = |pair: usize| _mm512_load_si512(x.rest[pair].as_ptr().cast());
                for pair in 0..2 {
                    let mut dots = if F::ZERO.is_some() { rest(pair) } else { _mm512_setzero_si512() };
                    dots = _mm512_dpbusd_epi32(dots, codes[2 * pair], load(&x.codes[2 * pair]));
                    dots = _mm512_dpbusd_epi32(dots, codes[2 * pair + 1], load(&x.codes[2 * pair + 1]));
                    let scales = _mm512_mul_ps(scales[pair], _mm512_load_ps(x.scales[pair].as_ptr()));
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scales, *sum);
                }
                if F::ZERO.is_none() {
                    // Lanes of offsets alone: a scale's infinity by zero would be NaN.
                    *sum = _mm512_mask3_fmadd_ps(chunk.numbers, _mm512_castsi512_ps(rest(0)), *sum, 0xAAAA);
                }
            }
        }
    }
}
