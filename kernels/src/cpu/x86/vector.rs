//! Vectors of AVX-512 and AVX2.

use crate::cpu::vector::{Dots, Vector};
use std::arch::x86_64::*;

impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: by the contract, here and below.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_four_i8(at: *const i8) -> [Self; 4] {
        // SAFETY: as above.
        unsafe {
            let x = _mm512_loadu_si512(at.cast());
            let top = [_mm512_slli_epi32::<24>(x), _mm512_slli_epi32::<16>(x), _mm512_slli_epi32::<8>(x), x];
            [
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top[0])),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top[1])),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top[2])),
                _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top[3])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(self, by) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, by, plus) }
    }

    type Four = *const f32;

    #[inline(always)]
    unsafe fn four(at: *const f32) -> *const f32 {
        at
    }

    #[inline(always)]
    unsafe fn mul_add_one<const I: usize>(self, by: *const f32, plus: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, _mm512_set1_ps(by.add(I).read_unaligned()), plus) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above. Of NaN and a number this instruction gives the second.
        unsafe { _mm512_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(self) }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_ps(self) }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // Not into the first-level cache, where lines awaited from memory hold up those at hand (f16 16.6 GB/s there, 19.1 here; measured
        // with AVX-512). SAFETY: a hint; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T2>(at.cast()) };
    }
}

/// VNNI multiplies unsigned bytes with signed ones: codes of keys are moved up by 128, and sums begin with what that adds to them; weights
/// are the unsigned ones of their products.
impl Dots for __m512 {
    type Words = __m512i;

    #[inline(always)]
    unsafe fn load_codes(at: *const i8) -> __m512i {
        // SAFETY: by the contract, here and below.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(at.cast()), _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn no_dots(sum: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(-128 * sum) }
    }

    type FourWords = *const i32;

    #[inline(always)]
    unsafe fn four_words(at: *const i32) -> *const i32 {
        at
    }

    #[inline(always)]
    unsafe fn add_dots<const I: usize>(sums: __m512i, codes: __m512i, by: *const i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(by.add(I).read_unaligned())) }
    }

    const UNSIGNED_WEIGHTS: bool = true;

    #[inline(always)]
    unsafe fn load_values(at: *const i8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_loadu_si512(at.cast()) }
    }

    #[inline(always)]
    unsafe fn add_weighted<const I: usize>(sums: __m512i, codes: __m512i, by: *const i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(by.add(I).read_unaligned()), codes) }
    }

    #[inline(always)]
    unsafe fn joined(high: __m512i, low: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<8>(high), low)) }
    }
}

impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: by the contract, here and below.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const u16) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_four_i8(at: *const i8) -> [Self; 4] {
        // SAFETY: as above.
        unsafe {
            let x = _mm256_loadu_si256(at.cast());
            let top = [_mm256_slli_epi32::<24>(x), _mm256_slli_epi32::<16>(x), _mm256_slli_epi32::<8>(x), x];
            [
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top[0])),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top[1])),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top[2])),
                _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top[3])),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(self, by) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(self, by, plus) }
    }

    type Four = *const f32;

    #[inline(always)]
    unsafe fn four(at: *const f32) -> *const f32 {
        at
    }

    #[inline(always)]
    unsafe fn mul_add_one<const I: usize>(self, by: *const f32, plus: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(self, _mm256_set1_ps(by.add(I).read_unaligned()), plus) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above. Of NaN and a number this instruction gives the second.
        unsafe { _mm256_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // Not into the first-level cache, where lines awaited from memory hold up those at hand (f16 16.6 GB/s there, 19.1 here; measured
        // with AVX-512). SAFETY: a hint; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T2>(at.cast()) };
    }
}
