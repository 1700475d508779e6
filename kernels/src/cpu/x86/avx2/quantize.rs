//! Activations to int8, eight at a time. Codes and scales are those of the plain kernel, bit for bit, but where 32 numbers share a
//! scale: there the largest becomes whichever of ±127, ±126, … ±122 loses least, as on AVX-512, where it is said why.

use super::tiles;
use super::transpose::transpose;
use crate::cpu::form::{Form, Planes, SMALLEST};
use std::arch::x86_64::*;

/// As [`plain::linear::quantize`](crate::cpu::plain::linear::quantize).
///
/// # Safety
/// Needs AVX2 and FMA; lengths as `Kernels::quantize` checks them.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn quantize(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    let Some(per) = form.per() else {
        // SAFETY: any f32 is four bytes, and the lengths are equal.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len() * 4) });
        return;
    };
    if form.is_panel() {
        return tiles::quantize(x, cols, out);
    }
    let planes = Planes::new(cols, per);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(planes.stride)) {
        let mut of_runs = [[0.0; 2]; RUNS];
        for (run, x_run) in x.chunks(per).enumerate() {
            let (scale, inverse) = if per == 32 {
                if run % RUNS == 0 {
                    let runs = &x.as_chunks::<32>().0[run..];
                    of_runs = best_scales(&runs[..runs.len().min(RUNS)]);
                }
                of_runs[run % RUNS].into()
            } else {
                scale(x_run)
            };
            out[planes.scales + 4 * run..][..4].copy_from_slice(&scale.to_le_bytes());
            for (i, x) in x_run.as_chunks::<32>().0.iter().enumerate() {
                let at = run * per + 32 * i;
                let codes = to_codes(x, inverse);
                out[at..at + 32].copy_from_slice(&codes);
                for (half, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
                    out[planes.sums + at / 8 + 2 * half..][..2].copy_from_slice(&(sum(codes) as i16).to_le_bytes());
                }
            }
        }
    }
}

/// Scale and inverse of each of up to eight runs of 32, as [`scale`] gives them or, of those that are tried, the one that loses least. A
/// lane is a run, so that nothing is added across lanes.
///
/// # Panics
/// When there are none or more than eight.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub fn best_scales(runs: &[[f32; 32]]) -> [[f32; 2]; RUNS] {
    assert!((1..=RUNS).contains(&runs.len()));
    // `[32, 8]`; a run that is not there is the last one again.
    let mut x = [_mm256_setzero_ps(); 32];
    for part in 0..4 {
        let mut rows = [_mm256_setzero_ps(); RUNS];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: eight of 32 numbers.
            *row = unsafe { _mm256_loadu_ps(runs[r.min(runs.len() - 1)].as_ptr().add(8 * part)) };
        }
        x[8 * part..][..8].copy_from_slice(&transpose(rows));
    }
    // Magnitudes of floats are ordered as integers are, with infinity and NaN above all numbers.
    let mut largest = _mm256_setzero_si256();
    for x in x {
        largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(i32::MAX)));
    }
    let largest = _mm256_castsi256_ps(largest);
    let finite = _mm256_cmp_ps::<_CMP_LT_OQ>(largest, _mm256_set1_ps(f32::INFINITY));
    let live = _mm256_and_ps(finite, _mm256_cmp_ps::<_CMP_GE_OQ>(largest, _mm256_set1_ps(SMALLEST)));
    // Added and subtracted again, it rounds to an integer.
    let round = _mm256_set1_ps(1.5 * (1 << 23) as f32);
    let (mut least, mut scale, mut inverse) = (_mm256_set1_ps(f32::INFINITY), _mm256_setzero_ps(), _mm256_setzero_ps());
    for tops in TOPS {
        // Two at a time share the load of each number.
        let by = [_mm256_div_ps(_mm256_set1_ps(tops[0]), largest), _mm256_div_ps(_mm256_set1_ps(tops[1]), largest)];
        let mut errors = [_mm256_setzero_ps(); 2];
        for x in x {
            for (error, by) in errors.iter_mut().zip(by) {
                let code = _mm256_sub_ps(_mm256_fmadd_ps(x, by, round), round);
                let lost = _mm256_fmsub_ps(x, by, code);
                *error = _mm256_fmadd_ps(lost, lost, *error);
            }
        }
        for n in 0..2 {
            let error = _mm256_mul_ps(errors[n], _mm256_set1_ps(tops[n].powi(-2)));
            let better = _mm256_cmp_ps::<_CMP_LT_OQ>(error, least);
            least = _mm256_blendv_ps(least, error, better);
            inverse = _mm256_blendv_ps(inverse, by[n], better);
            scale = _mm256_blendv_ps(scale, _mm256_div_ps(largest, _mm256_set1_ps(tops[n])), better);
        }
    }
    let scale = _mm256_blendv_ps(_mm256_set1_ps(f32::NAN), _mm256_and_ps(scale, live), finite);
    let (mut scales, mut inverses) = ([0.0; RUNS], [0.0; RUNS]);
    // SAFETY: eight numbers each.
    unsafe {
        _mm256_storeu_ps(scales.as_mut_ptr(), scale);
        _mm256_storeu_ps(inverses.as_mut_ptr(), _mm256_and_ps(inverse, live));
    }
    std::array::from_fn(|i| [scales[i], inverses[i]])
}

/// Runs whose scales are searched together.
pub const RUNS: usize = 8;
/// What the largest number of a run may become; a tie goes to the first.
const TOPS: [[f32; 2]; 3] = [[127.0, 126.0], [125.0, 124.0], [123.0, 122.0]];

/// The scale of a run, and what its numbers are multiplied by to become codes.
#[inline]
#[target_feature(enable = "avx2")]
fn scale(x: &[f32]) -> (f32, f32) {
    // Magnitudes of floats are ordered as integers are, with infinity and NaN above all numbers.
    let mut largest = [0u32; 8];
    for x in x.as_chunks::<8>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = (*largest).max(x.to_bits() & i32::MAX as u32);
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    match largest {
        _ if !largest.is_finite() => (f32::NAN, 0.0),
        _ if largest < SMALLEST => (0.0, 0.0),
        _ => (largest / 127.0, 127.0 / largest),
    }
}

/// 32 codes. With the inverse 0 (a run of zeros, or one with NaN or infinity) all are 0.
#[inline]
#[target_feature(enable = "avx2")]
pub fn to_codes(x: &[f32; 32], inverse: f32) -> [u8; 32] {
    if inverse == 0.0 {
        return [0; 32];
    }
    let mut codes = [0; 32];
    let by = _mm256_set1_ps(inverse);
    // SAFETY: eight numbers each; 32 bytes.
    unsafe {
        let code = |i: usize| _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(8 * i)), by));
        let (a, b) = (_mm256_packs_epi32(code(0), code(1)), _mm256_packs_epi32(code(2), code(3)));
        // Packing works in halves of a vector: fours stand as 0 2 4 6 1 3 5 7.
        let packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed);
    }
    codes
}

#[inline]
#[target_feature(enable = "avx2")]
pub fn sum(codes: &[u8]) -> i32 {
    codes.iter().map(|&c| i32::from(c as i8)).sum()
}
