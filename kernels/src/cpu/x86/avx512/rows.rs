//! Products with rows as they lie in the file, for one token or a few: each run of 256 weights is unpacked once and multiplied by every
//! token while it is in registers. Reads each row once, `row_bytes`, and the activations from cache.
//!
//! ```text
//! for each row: for each 256 weights: (codes, scales, offsets) = unpack
//!     for each token: y += Σ_j scale[j]·s[j/2]·(codes_j · x_j) + offset[j]·s[j/2]·Σ x_j          j: runs of 16
//! ```
//! 1. How codes meet activations is an [`Arrangement`]. In [lanes](super::lanes) of one scale each a token costs four VPDPBUSD, one
//!    conversion, one multiplication and one addition; in [quarters](super::quarters) two of each of the latter, but fewer shuffles for
//!    all tokens together. Nothing is added across lanes before the row's end.
//! 2. Activations are brought into the same order once a call, with what else a lane needs of them.
//! 3. Where offsets follow from scales (`−zero · scale`), sums start at `−zero · Σ x`: exact, and free.
//! 4. The last run of a row that is no multiple of 256 is read with the bytes after it, whose scales are masked out.

use super::arrangement::Arrangement;
use super::chunk::LONGEST;
use crate::cpu::form::{Form, Planes};
use crate::cpu::linear::{Product, Route};
use std::arch::x86_64::*;

/// How many bytes ahead rows are prefetched, in each of the places read. On two cores of an Emerald Rapids 1.25 to 3 KiB are alike; 4 KiB,
/// after which the first-level cache's sets repeat, are 3–5 % slower, 0.5 KiB and 8 KiB more. Two places beat one by 6–37 %, four are no
/// better than two.
const AHEAD: usize = 2560;
/// Tokens multiplied while a run is in registers: their sums are 8 of the 32.
const TOKENS: usize = 8;

/// The route for one token.
pub fn one<A: Arrangement>() -> Route {
    Route { form: Form::Int8By32, row_tile: 1, scratch: scratch::<A, 1>, run: one_token::<A> }
}

/// The route for a few tokens.
pub fn few<A: Arrangement>() -> Route {
    Route { form: Form::Int8By32, row_tile: 1, scratch: scratch::<A, TOKENS>, run: few_tokens::<A> }
}

/// Bytes of so many tokens, prepared, and room to align them.
fn scratch<A: Arrangement, const TOKENS: usize>(cols: usize) -> usize {
    (cols.div_ceil(256) * TOKENS + 1) * size_of::<A::Prepared>()
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them, of one token.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn one_token<A: Arrangement>(p: &mut Product) {
    // SAFETY: passed on.
    unsafe { tokens::<A, 1, 2>(p, 0, 1) }
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn few_tokens<A: Arrangement>(p: &mut Product) {
    // Passes of one size, so that none is left with a token or two.
    let each = p.tokens.div_ceil(p.tokens.div_ceil(TOKENS));
    for first in (0..p.tokens).step_by(each) {
        let n = each.min(p.tokens - first);
        // SAFETY: passed on; the tokens exist.
        unsafe {
            match n {
                ..=2 => tokens::<A, 2, 2>(p, first, n),
                3..=4 => tokens::<A, 4, 1>(p, first, n),
                5..=6 => tokens::<A, 6, 1>(p, first, n),
                _ => tokens::<A, TOKENS, 1>(p, first, n),
            }
        }
    }
}

/// `n` tokens from `first` on, at most `N`: those that are not there are the last one again, and are not written. `R` rows go together,
/// as far apart as they can be: so many places of memory are read at a time.
///
/// # Safety
/// As [`few_tokens`]; the tokens exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tokens<A: Arrangement, const N: usize, const R: usize>(p: &mut Product, first: usize, n: usize) {
    const { assert!(A::BYTES <= LONGEST && N <= TOKENS) };
    let apart = p.rows / R;
    // The first bytes, which the rows' own prefetches, so far ahead, leave out: before the tokens are prepared, so that memory is busy
    // meanwhile.
    for place in 0..R {
        let start = p.weights[place * apart * p.row_bytes..].as_ptr();
        for line in (0..AHEAD).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast());
        }
    }
    let planes = Planes::new(p.cols, 32);
    let runs = p.cols.div_ceil(256);
    let prepared = p.scratch.as_mut_ptr().wrapping_add(p.scratch.as_ptr().align_offset(align_of::<A::Prepared>())).cast::<A::Prepared>();
    for t in 0..n {
        let row = &p.activations[(first + t) * planes.stride..][..planes.stride];
        for run in 0..runs {
            // SAFETY: the scratch holds `runs` of so many tokens, and room to align.
            unsafe { prepared.add(t * runs + run).write(A::prepare(row, planes, run, p.cols)) };
        }
    }
    let x: [*const A::Prepared; N] = std::array::from_fn(|t| prepared.cast_const().wrapping_add(t.min(n - 1) * runs));
    for r in 0..apart {
        let mut together = [r; R];
        for (i, row) in together.iter_mut().enumerate() {
            *row += i * apart;
        }
        // SAFETY: the rows exist, and the tokens are prepared; passed on.
        unsafe { rows::<A, N, R>(p, together, x, first, n) };
    }
    for r in R * apart..p.rows {
        // SAFETY: as above.
        unsafe { rows::<A, N, 1>(p, [r], x, first, n) };
    }
}

/// Some rows by the tokens at `x`, of which `n` are written, from token `first` on.
///
/// # Safety
/// As [`few_tokens`]; rows and tokens exist, and `x` are whole rows of prepared runs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn rows<A: Arrangement, const N: usize, const R: usize>(
    p: &mut Product,
    rows: [usize; R],
    x: [*const A::Prepared; N],
    first: usize,
    n: usize,
) {
    let whole = p.cols / 256;
    let mut sums = [[_mm512_setzero_ps(); N]; R];
    let mut starts = [p.weights.as_ptr(); R];
    for (start, r) in starts.iter_mut().zip(rows) {
        *start = p.weights[r * p.row_bytes..].as_ptr();
    }
    // A place ends where the next one began, which was read already. Whoever reads these rows reads those after them next, as a rule, and
    // as many: what is wanted is the beginning of that next one's next place. (Rows longer than AHEAD go without.)
    let mut aheads = [AHEAD; R];
    for (place, (ahead, row)) in aheads.iter_mut().zip(rows).enumerate().take(R - 1) {
        let left = (place + 1) * (p.rows / R) - row;
        if left * p.row_bytes <= AHEAD {
            *ahead += p.weights.len();
        }
    }
    for run in 0..whole {
        for ((start, sums), ahead) in starts.iter().zip(&mut sums).zip(aheads) {
            let at = start.wrapping_add(run * A::BYTES);
            for line in 0..A::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead + 64 * line).cast());
            }
            // SAFETY: the row has `whole` whole runs, and so have the prepared tokens.
            unsafe { A::multiply(at, None, &x, run, sums) };
        }
    }
    if !p.cols.is_multiple_of(256) {
        for (r, sums) in rows.iter().zip(&mut sums) {
            let mut buffer = [0; LONGEST];
            let rest = &p.weights[r * p.row_bytes + whole * A::BYTES..];
            let mut at = rest.as_ptr();
            if rest.len() < A::BYTES {
                buffer[..rest.len()].copy_from_slice(rest);
                at = buffer.as_ptr();
            }
            // SAFETY: a run's bytes are there, of this row and those after it or of the buffer.
            unsafe { A::multiply(at, Some(p.cols % 256), &x, whole, sums) };
        }
    }
    for (r, sums) in rows.into_iter().zip(sums) {
        for (t, sum) in sums.iter().enumerate().take(n) {
            p.out.token(first + t)[r] = _mm512_reduce_add_ps(*sum);
        }
    }
}
