//! Activations to int8, sixteen at a time. Codes and scales are those of the plain kernel, bit for bit, but where 32 numbers share a
//! scale: there the largest becomes whichever of ±127, ±126, … ±122 loses least. That takes 14–17 % off the squared error (normal, Laplace and
//! t₄ noise; ±127 … ±124 take 11–14 %, finer steps less) for about two instructions a number.

use super::gemm::quantize_panel;
use crate::cpu::form::{Form, Planes, SMALLEST};
use std::arch::x86_64::*;

/// As [`plain::linear::quantize`](crate::cpu::plain::linear::quantize).
///
/// # Safety
/// Needs AVX-512 F, BW and DQ; lengths as `Kernels::quantize` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub unsafe fn quantize(form: Form, x: &[f32], cols: usize, out: &mut [u8]) {
    let Some(per) = form.per() else {
        // SAFETY: any f32 is four bytes, and the lengths are equal.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len() * 4) });
        return;
    };
    if form.is_panel() {
        return quantize_panel(x, cols, out);
    }
    let planes = Planes::new(cols, per);
    for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact_mut(planes.stride)) {
        for (run, x) in x.chunks_exact(per).enumerate() {
            let (scale, inverse) = match x.try_into() {
                Ok(x) => best_scale(x),
                Err(_) => scale(x),
            };
            out[planes.scales + 4 * run..][..4].copy_from_slice(&scale.to_le_bytes());
            for (i, x) in x.chunks_exact(32).enumerate() {
                let at = run * per + 32 * i;
                // SAFETY: 32 numbers are there to read and 32 codes to write.
                let codes = unsafe {
                    let (a, b) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
                    let codes = to_codes(a, b, inverse);
                    _mm256_storeu_si256(out[at..at + 32].as_mut_ptr().cast(), codes);
                    codes
                };
                out[planes.sums + at / 8..][..4].copy_from_slice(&sums(codes).to_le_bytes());
            }
        }
    }
}

/// Scale, codes and their sum.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn run_of_32(x: &[f32; 32]) -> (f32, [u8; 32], i32) {
    let (scale, inverse) = best_scale(x);
    let mut bytes = [0; 32];
    // SAFETY: 32 numbers to read, 32 bytes to write.
    let codes = unsafe {
        let codes = to_codes(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)), inverse);
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), codes);
        codes
    };
    let sums = sums(codes);
    (scale, bytes, i32::from(sums as i16) + i32::from((sums >> 16) as i16))
}

/// As [`scale`], of the scales that are tried the one that loses least.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn best_scale(x: &[f32; 32]) -> (f32, f32) {
    let (mut best, mut inverse) = scale(x);
    if inverse == 0.0 {
        return (best, inverse);
    }
    let largest = inverse.recip() * 127.0;
    // SAFETY: 32 numbers.
    let (a, b) = unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))) };
    let mut least = f32::INFINITY;
    for top in [127.0, 126.0, 125.0, 124.0, 123.0, 122.0] {
        let by = if top == 127.0 { inverse } else { top / largest };
        let error = |x: __m512| {
            let x = _mm512_mul_ps(x, _mm512_set1_ps(by));
            _mm512_sub_ps(x, _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(x))
        };
        let (a, b) = (error(a), error(b));
        let error = _mm512_reduce_add_ps(_mm512_fmadd_ps(a, a, _mm512_mul_ps(b, b))) / (top * top);
        if error < least {
            (least, best, inverse) = (error, if top == 127.0 { best } else { largest / top }, by);
        }
    }
    (best, inverse)
}

/// The scale of a run, and what its numbers are multiplied by to become codes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn scale(x: &[f32]) -> (f32, f32) {
    // Magnitudes of floats are ordered as integers are, with infinity and NaN above all numbers.
    let mut largest = _mm512_setzero_si512();
    for x in x.chunks_exact(16) {
        // SAFETY: sixteen numbers.
        let bits = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX)));
    }
    let largest = f32::from_bits(_mm512_reduce_max_epu32(largest));
    match largest {
        _ if !largest.is_finite() => (f32::NAN, 0.0),
        _ if largest < SMALLEST => (0.0, 0.0),
        _ => (largest / 127.0, 127.0 / largest),
    }
}

/// 32 codes. With the inverse 0 (a run of zeros, or one with NaN or infinity) all are 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn to_codes(a: __m512, b: __m512, inverse: f32) -> __m256i {
    let by = _mm512_set1_ps(inverse);
    // The conversion rounds to nearest, ties to even; NaN and infinity times 0 become the smallest integer, which the mask clears.
    let live = if inverse == 0.0 { 0 } else { u16::MAX };
    let code = |x: __m512| _mm512_maskz_cvtps_epi32(live, _mm512_mul_ps(x, by));
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(_mm512_cvtsepi32_epi8(code(a))), _mm512_cvtsepi32_epi8(code(b)))
}

/// The sums of the two halves, in the low and the high 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sums(codes: __m256i) -> u32 {
    // Raised by 128, the codes are unsigned and VPSADBW adds eight.
    let sums = _mm256_sad_epu8(_mm256_xor_si256(codes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    let sums = _mm256_add_epi64(sums, _mm256_unpackhi_epi64(sums, sums));
    let low = _mm256_extract_epi16::<0>(sums) - 2048;
    let high = _mm256_extract_epi16::<8>(sums) - 2048;
    low as u32 & 0xffff | (high as u32) << 16
}
