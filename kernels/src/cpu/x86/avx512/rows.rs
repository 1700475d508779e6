//! Products with rows as they lie in the file, for one token or a few: each run of 256 weights is unpacked once and multiplied by every
//! token while it is in registers. Reads each row once, `row_bytes`, and the activations from cache.
//!
//! ```text
//! for each row: for each 256 weights: (codes, scales, offsets) = unpack
//!     for each token: y += Σ_j scale[j]·s[j/2]·(codes_j · x_j) + offset[j]·s[j/2]·Σ x_j          j: runs of 16
//! ```
//! 1. Codes stand [in lanes](super::lanes) of one scale each, so that a token costs four VPDPBUSD, one conversion, one multiplication
//!    and one addition, and nothing is added across lanes before the row's end.
//! 2. Activations are brought into the same order once a call, with what else a lane needs of them.
//! 3. Where offsets follow from scales (`−zero · scale`), sums start at `−zero · Σ x`: exact, and free.
//! 4. The last run of a row that is no multiple of 256 is read with the bytes after it, whose scales are masked out.

use super::chunk::Unpack;
use super::lanes::{self, Prepared};
use crate::cpu::form::{Form, Planes};
use crate::cpu::linear::{Product, Route};
use std::arch::x86_64::*;

/// Bytes ahead that are asked for, in each of the places read. On two cores of an Emerald Rapids (4 KiB pages of a file, 25–33 GB/s in
/// all) 2 to 6 KiB are alike, 1 KiB is 10 % slower; two places beat one by 6–32 %, four are no better than two.
const AHEAD: usize = 4096;
/// Tokens multiplied while a run is in registers.
const TOKENS: usize = 8;
/// Bytes of 256 weights of the longest format.
const LONGEST: usize = 272;

/// The way for few tokens of format `F`.
pub fn route<F: Unpack>() -> Route {
    let scratch = |cols: usize| (cols.div_ceil(256) * TOKENS + 1) * size_of::<Prepared>();
    Route { form: Form::Int8By32, row_tile: 1, scratch, run: mat_mul::<F> }
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn mat_mul<F: Unpack>(p: &mut Product) {
    // Passes of one size, so that none is left with a token or two.
    let each = p.tokens.div_ceil(p.tokens.div_ceil(TOKENS));
    for first in (0..p.tokens).step_by(each) {
        let n = each.min(p.tokens - first);
        // SAFETY: passed on; the tokens exist.
        unsafe {
            match n {
                1 => tokens::<F, 1, 2>(p, first, n),
                2 => tokens::<F, 2, 2>(p, first, n),
                3..=4 => tokens::<F, 4, 1>(p, first, n),
                5..=6 => tokens::<F, 6, 1>(p, first, n),
                _ => tokens::<F, TOKENS, 1>(p, first, n),
            }
        }
    }
}

/// `n` tokens from `first` on, at most `N`: those that are not there are the last one again, and are not written. `R` rows go together,
/// as far apart as they can be: so many places of memory are read at a time.
///
/// # Safety
/// As [`mat_mul`]; the tokens exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tokens<F: Unpack, const N: usize, const R: usize>(p: &mut Product, first: usize, n: usize) {
    const { assert!(F::BYTES <= LONGEST && N <= TOKENS) };
    let planes = Planes::new(p.cols, 32);
    let runs = p.cols.div_ceil(256);
    let prepared = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(align_of::<Prepared>())).cast::<Prepared>();
    for t in 0..n {
        let row = &p.activations[(first + t) * planes.stride..][..planes.stride];
        for run in 0..runs {
            // SAFETY: the scratch holds `runs` of `TOKENS` tokens, and room to align.
            unsafe { prepared.add(t * runs + run).write(lanes::prepare::<F>(row, planes, run, p.cols)) };
        }
    }
    let x: [*const Prepared; N] = std::array::from_fn(|t| prepared.cast_const().wrapping_add(t.min(n - 1) * runs));
    let apart = p.rows / R;
    // What the rows' own hints, so far ahead of them, leave out.
    for place in 0..R {
        let start = p.weights[place * apart * p.row_bytes..].as_ptr();
        for line in (0..AHEAD).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast());
        }
    }
    for r in 0..apart {
        let mut together = [r; R];
        for (i, row) in together.iter_mut().enumerate() {
            *row += i * apart;
        }
        // SAFETY: the rows exist, and the tokens are prepared; passed on.
        unsafe { rows::<F, N, R>(p, together, x, first, n) };
    }
    for r in R * apart..p.rows {
        // SAFETY: as above.
        unsafe { rows::<F, N, 1>(p, [r], x, first, n) };
    }
}

/// Some rows by the tokens at `x`, of which `n` are written, from token `first` on.
///
/// # Safety
/// As [`mat_mul`]; rows and tokens exist, and `x` are whole rows of prepared runs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<F: Unpack, const N: usize, const R: usize>(
    p: &mut Product,
    rows: [usize; R],
    x: [*const Prepared; N],
    first: usize,
    n: usize,
) {
    let whole = p.cols / 256;
    let mut sums = [[_mm512_setzero_ps(); N]; R];
    let mut starts = [p.weights.as_ptr(); R];
    for (start, r) in starts.iter_mut().zip(rows) {
        *start = p.weights[r * p.row_bytes..].as_ptr();
    }
    for run in 0..whole {
        for (start, sums) in starts.iter().zip(&mut sums) {
            let at = start.wrapping_add(run * F::BYTES);
            for line in 0..F::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 64 * line).cast());
            }
            // SAFETY: the row has `whole` whole runs, and so have the prepared tokens.
            unsafe { multiply::<F, N>(at, None, &x, run, sums) };
        }
    }
    if !p.cols.is_multiple_of(256) {
        // Lanes of the last run that belong to the row.
        let inside = lanes::below::<F>(p.cols % 256);
        for (r, sums) in rows.iter().zip(&mut sums) {
            let mut buffer = [0; LONGEST];
            let rest = &p.weights[r * p.row_bytes + whole * F::BYTES..];
            let mut at = rest.as_ptr();
            if rest.len() < F::BYTES {
                buffer[..rest.len()].copy_from_slice(rest);
                at = buffer.as_ptr();
            }
            // SAFETY: a run's bytes are there, of this row and those after it or of the buffer.
            unsafe { multiply::<F, N>(at, Some(inside), &x, whole, sums) };
        }
    }
    for (r, sums) in rows.into_iter().zip(sums) {
        for (t, sum) in sums.iter().enumerate().take(n) {
            p.out.token(first + t)[r] = _mm512_reduce_add_ps(*sum);
        }
    }
}

/// Adds `Σ w·x` over run `run` to each token's sum, spread over its lanes; only lanes of `mask` count, where there is one.
///
/// (Loops over arrays, not `map` and `from_fn`: those lack the features, and what they call is not inlined.)
///
/// # Safety
/// [`Unpack::BYTES`] bytes are readable at `at`; the tokens at `x` have so many runs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply<F: Unpack, const N: usize>(
    at: *const u8,
    mask: Option<__mmask16>,
    x: &[*const Prepared; N],
    run: usize,
    sums: &mut [__m512; N],
) {
    // SAFETY: by the contract.
    let w = lanes::arrange::<F>(unsafe { F::unpack(at) }, mask);
    for (x, sum) in x.iter().zip(sums) {
        // SAFETY: by the contract; five vectors at multiples of 64 bytes, then one of integers or numbers.
        let (x, scales, rest) = unsafe {
            let x = &*x.add(run);
            (x, _mm512_load_ps(x.scales.as_ptr()), _mm512_load_si512(x.rest.as_ptr().cast()))
        };
        let mut dots = if F::ZERO.is_some() { rest } else { _mm512_setzero_si512() };
        for (w, x) in w.codes.iter().zip(&x.codes) {
            // SAFETY: as above.
            dots = _mm512_dpbusd_epi32(dots, *w, unsafe { _mm512_load_si512(x.as_ptr().cast()) });
        }
        if F::ZERO.is_none() {
            *sum = _mm512_fmadd_ps(w.offsets, _mm512_castsi512_ps(rest), *sum);
        }
        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(w.scales, scales), *sum);
    }
}
