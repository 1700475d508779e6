//! Products with rows as they lie in the file, for one token or a few: each run of 256 weights is unpacked once, into the first-level
//! cache, and multiplied by every token. Reads each row once.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes and adds pairs in 16 bits, which saturate: codes up to 127 are safe. Of signed codes the
//! magnitudes go in, and the activations take their signs (128 · 127 · 2 still fits).

use super::MANY;
use super::run::{Run, Unpack};
use crate::cpu::form::{Form, Planes};
use crate::cpu::linear::{Product, Route};
use crate::cpu::vector::Vector;
use crate::quant::blocks;
use std::arch::x86_64::*;

/// How many bytes ahead rows are prefetched: a guess. (On AVX-512 2 to 6 KiB were measured to be alike.)
const AHEAD: usize = 2048;
/// Tokens multiplied while an unpacked run is at hand: no fewer than there are before panels pay, so that every run is unpacked once.
const TOKENS: usize = 8;
const _: () = assert!(TOKENS >= MANY - 1);

/// The route for few tokens of a format.
pub fn route<B: Unpack>() -> Route {
    Route { form: Form::Int8By32, row_tile: 1, scratch: |_| 0, run: mat_mul::<B> }
}

/// One token's activations of a run of 256: codes, sums of 16, scales of 32.
#[derive(Clone, Copy)]
struct Activations {
    codes: *const u8,
    sums: *const u8,
    scales: *const u8,
}

/// A token's last run, cut short by the row's end and filled up with zeros.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Padded {
    codes: [u8; 256],
    sums: [u8; 32],
    scales: [u8; 32],
}

/// # Safety
/// Needs AVX2 and FMA; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn mat_mul<B: Unpack>(p: &mut Product) {
    let planes = Planes::new(p.cols, 32);
    let (whole, rest) = (p.cols / 256, p.cols % 256);
    let mut unpacked = Run::EMPTY;
    for first in (0..p.tokens).step_by(TOKENS) {
        let n = TOKENS.min(p.tokens - first);
        let x = &p.activations[first * planes.stride..][..n * planes.stride];
        let mut padded = [Padded { codes: [0; 256], sums: [0; 32], scales: [0; 32] }; TOKENS];
        for (x, padded) in x.chunks_exact(planes.stride).zip(&mut padded) {
            padded.codes[..rest].copy_from_slice(&x[whole * 256..][..rest]);
            padded.sums[..rest / 8].copy_from_slice(&x[planes.sums + whole * 32..][..rest / 8]);
            padded.scales[..rest / 8].copy_from_slice(&x[planes.scales + whole * 32..][..rest / 8]);
        }
        for r in 0..p.rows {
            let row = &p.weights[r * p.row_bytes..][..p.row_bytes];
            let mut sums = [_mm256_setzero_ps(); TOKENS];
            for (i, blocks) in blocks::<B>(row).chunks(256 / B::WEIGHTS).enumerate() {
                for line in (0..size_of_val(blocks)).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(blocks.as_ptr().cast::<i8>().wrapping_add(AHEAD + line));
                }
                // SAFETY: the features are enabled here.
                unsafe { B::unpack(blocks, &mut unpacked) };
                for (t, sum) in sums.iter_mut().enumerate().take(n) {
                    // SAFETY: `n` tokens of so many whole runs are there; the padded one is whole.
                    *sum = unsafe {
                        let x = if i < whole {
                            let x = x.as_ptr().add(t * planes.stride);
                            Activations { codes: x.add(256 * i), sums: x.add(planes.sums + 32 * i), scales: x.add(planes.scales + 32 * i) }
                        } else {
                            let Padded { codes, sums, scales } = &padded[t];
                            Activations { codes: codes.as_ptr(), sums: sums.as_ptr(), scales: scales.as_ptr() }
                        };
                        multiply::<B>(&unpacked, x, *sum)
                    };
                }
            }
            for (t, sum) in sums.iter().enumerate().take(n) {
                // SAFETY: the features are enabled here.
                p.out.token(first + t)[r] = unsafe { sum.sum() };
            }
        }
    }
}

/// `Σ w·x` over a run, spread over the lanes of the sum.
///
/// # Safety
/// 256 codes, 16 sums and 8 scales are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<B: Unpack>(run: &Run, x: Activations, sum: __m256) -> __m256 {
    let ones = _mm256_set1_epi16(1);
    let mut by = [0.0f32; 16];
    let mut sums = [sum, _mm256_setzero_ps()];
    // SAFETY: by the contract.
    unsafe {
        let scales = _mm256_loadu_ps(x.scales.cast());
        let twice = [_mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3), _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)];
        for (half, index) in twice.into_iter().enumerate() {
            let scale = _mm256_permutevar8x32_ps(scales, index);
            let mut w_scale = _mm256_loadu_ps(run.scales.as_ptr().add(8 * half));
            if B::WHOLE {
                w_scale = _mm256_mul_ps(w_scale, _mm256_set1_ps(run.unit));
            }
            _mm256_storeu_ps(by.as_mut_ptr().add(8 * half), _mm256_mul_ps(scale, w_scale));
            if !B::SIGNED {
                let offset = _mm256_mul_ps(scale, _mm256_loadu_ps(run.offsets.as_ptr().add(8 * half)));
                let x_sums = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(x.sums.add(16 * half).cast())));
                sums[half] = _mm256_fmadd_ps(offset, x_sums, sums[half]);
            }
        }
        for g in 0..8 {
            let (w, x) = (_mm256_loadu_si256(run.codes.as_ptr().add(32 * g).cast()), _mm256_loadu_si256(x.codes.add(32 * g).cast()));
            let pairs =
                if B::SIGNED { _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) } else { _mm256_maddubs_epi16(w, x) };
            let fours = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
            let by = if B::PER_16 {
                // Lanes 0–3 are the first sixteen.
                _mm256_set_m128(_mm_broadcast_ss(&by[2 * g + 1]), _mm_broadcast_ss(&by[2 * g]))
            } else {
                _mm256_broadcast_ss(&by[2 * g])
            };
            sums[g % 2] = _mm256_fmadd_ps(fours, by, sums[g % 2]);
        }
    }
    _mm256_add_ps(sums[0], sums[1])
}
