//! Activations to int8, eight at a time. Codes and scales are those of the plain kernel, bit for bit, but where 32 numbers share a
//! scale: there the largest becomes whichever of ±127, ±126, … ±122 loses least, as on AVX-512, where it is said why.

use super::gemm;
use crate::cpu::form::{Form, Planes, SMALLEST};
use std::arch::x86_64::*;

/// As [`plain::linear::quantize`](crate::cpu::plain::linear::quantize).
///
/// # Safety
/// Needs AVX2; lengths as `Kernels::quantize` checks them.
#[target_feature(enable = "avx2")]
pub unsafe fn quantize(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    let Some(per) = form.per() else {
        // SAFETY: any f32 is four bytes, and the lengths are equal.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len() * 4) });
        return;
    };
    if form.is_panel() {
        return gemm::quantize_panel(x, cols, out);
    }
    let planes = Planes::new(cols, per);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(planes.stride)) {
        for (run, x) in x.chunks(per).enumerate() {
            let (scale, inverse) = match x.try_into() {
                Ok(x) => best_scale(x),
                Err(_) => scale(x),
            };
            out[planes.scales + 4 * run..][..4].copy_from_slice(&scale.to_le_bytes());
            for (i, x) in x.as_chunks::<32>().0.iter().enumerate() {
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

/// As [`scale`], of the scales that are tried the one that loses least.
#[inline]
#[target_feature(enable = "avx2")]
pub fn best_scale(x: &[f32; 32]) -> (f32, f32) {
    let (mut best, mut inverse) = scale(x);
    if inverse == 0.0 {
        return (best, inverse);
    }
    let largest = inverse.recip() * 127.0;
    let mut least = f32::INFINITY;
    for top in [127.0, 126.0, 125.0, 124.0, 123.0, 122.0] {
        let by = if top == 127.0 { inverse } else { top / largest };
        let mut squares = [0.0f32; 8];
        for x in x.as_chunks::<8>().0 {
            for (square, x) in squares.iter_mut().zip(x) {
                let error = x * by - (x * by).round_ties_even();
                *square += error * error;
            }
        }
        let error = squares.iter().sum::<f32>() / (top * top);
        if error < least {
            (least, best, inverse) = (error, if top == 127.0 { best } else { largest / top }, by);
        }
    }
    (best, inverse)
}

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
