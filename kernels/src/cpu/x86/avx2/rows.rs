//! Products with rows as they lie in the file, for one token or a few: each run of 256 weights is unpacked once, into the first-level
//! cache, and multiplied by every token. Reads each row once.
//!
//! VPMADDUBSW multiplies unsigned by signed bytes and adds pairs in 16 bits, which saturate: codes up to 127 are safe. Signed codes go
//! in as magnitudes, their signs to the activations (128 · 127 · 2 still fits).

use crate::cpu::form::{Form, Planes};
use crate::cpu::linear::{Product, Route};
use crate::cpu::runs::{self, Run, Unpack};
use crate::quant::blocks;
use std::arch::x86_64::*;

/// Bytes ahead that are asked for.
const AHEAD: usize = 2048;
/// Tokens multiplied while a run is at hand.
const TOKENS: usize = 8;

/// The way for few tokens of a format.
pub fn route<B: Unpack>() -> Route {
    Route { form: Form::Int8By32, row_tile: 1, scratch: |_| 0, run: mat_mul::<B> }
}

/// # Safety
/// Needs AVX2 and FMA; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn mat_mul<B: Unpack>(p: &mut Product) {
    let planes = Planes::new(p.cols, 32);
    let mut run = Run::EMPTY;
    for first in (0..p.tokens).step_by(TOKENS) {
        let n = TOKENS.min(p.tokens - first);
        for r in 0..p.rows {
            let row = &p.weights[r * p.row_bytes..][..p.row_bytes];
            let mut sums = [_mm256_setzero_ps(); TOKENS];
            for (i, blocks) in blocks::<B>(row).chunks(256 / B::WEIGHTS).enumerate() {
                let bytes = size_of_val(blocks);
                for line in (0..bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(blocks.as_ptr().cast::<i8>().wrapping_add(AHEAD + line));
                }
                runs::unpack(blocks, &mut run);
                let cols = blocks.len() * B::WEIGHTS;
                for (t, sum) in sums.iter_mut().enumerate().take(n) {
                    let x = &p.activations[(first + t) * planes.stride..][..planes.stride];
                    let codes = &x[256 * i..][..cols];
                    let x_sums = &x[planes.sums + 32 * i..][..cols / 8];
                    let scales = &x[planes.scales + 32 * i..][..cols / 8];
                    *sum = multiply::<B>(&run, codes, x_sums, scales, *sum);
                }
            }
            for (t, sum) in sums.iter().enumerate().take(n) {
                p.out.token(first + t)[r] = add_up(*sum);
            }
        }
    }
}

/// `Σ w·x` over a run, spread over the lanes of the sum.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<B: Unpack>(run: &Run, codes: &[u8], x_sums: &[u8], scales: &[u8], mut sum: __m256) -> __m256 {
    let ones = _mm256_set1_epi16(1);
    let mut of_offsets = 0.0;
    for (g, x) in codes.as_chunks::<32>().0.iter().enumerate() {
        let scale = f32::from_le_bytes(scales[4 * g..][..4].try_into().expect("four bytes"));
        // SAFETY: 32 bytes each.
        let (w, x) = unsafe { (_mm256_loadu_si256(run.codes[32 * g..][..32].as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().cast())) };
        let pairs = if B::SIGNED {
            _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(x, w))
        } else {
            _mm256_maddubs_epi16(w, x)
        };
        let fours = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones));
        let by = if B::PER_16 {
            // Lanes 0–3 are the first sixteen.
            let (a, b) = (run.scales[2 * g] * scale, run.scales[2 * g + 1] * scale);
            _mm256_set_m128(_mm_set1_ps(b), _mm_set1_ps(a))
        } else {
            _mm256_set1_ps(run.scales[2 * g] * scale)
        };
        sum = _mm256_fmadd_ps(fours, by, sum);
        if !B::SIGNED {
            let x_sum = |j: usize| f32::from(i16::from_le_bytes(x_sums[2 * j..][..2].try_into().expect("two bytes")));
            let both = run.offsets[2 * g].mul_add(x_sum(2 * g), run.offsets[2 * g + 1] * x_sum(2 * g + 1));
            of_offsets = both.mul_add(scale, of_offsets);
        }
    }
    _mm256_add_ps(sum, in_first_lane(of_offsets))
}

/// The number in the first lane, zeros in the others.
#[inline]
#[target_feature(enable = "avx2")]
fn in_first_lane(x: f32) -> __m256 {
    _mm256_zextps128_ps256(_mm_set_ss(x))
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_up(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
