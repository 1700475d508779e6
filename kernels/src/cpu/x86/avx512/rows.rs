//! Products with rows as they lie in the file, for one token or a few: each run of 256 weights is unpacked once and multiplied by every
//! token while it is in registers. Reads each row once, `row_bytes`, and the activations from cache.
//!
//! ```text
//! for each row: for each 256 weights: (codes, scales, offsets) = unpack
//!     for each token: y += Σ_j scale[j]·s[j/2]·(codes_j · x_j) + offset[j]·s[j/2]·Σ x_j          j: runs of 16
//! ```
//! 1. VPDPBUSD leaves sums of four in 16 lanes, four lanes a run; scales are spread to those lanes, so nothing is added across lanes
//!    before the row's end.
//! 2. Activations are brought into the order of the unpacked codes by one shuffle, not the codes into theirs.
//! 3. The last run of a row that is no multiple of 256 is copied to a padded buffer whose scales are zero.

use super::chunk::{Chunk, Order, Unpack};
use crate::cpu::form::{Form, Planes};
use crate::cpu::linear::{Product, Route};
use std::arch::x86_64::*;

/// Bytes ahead that are asked for: about two pages' worth of misses in flight (measured: 1–3 KiB alike, none 15 % slower).
const AHEAD: usize = 2048;
/// Tokens multiplied while a run is in registers.
const TOKENS: usize = 8;

/// The way for few tokens of format `F`.
pub fn route<F: Unpack>() -> Route {
    Route { form: Form::Int8By32, row_tile: 1, scratch: |_| 0, run: mat_mul::<F> }
}

/// One token's activations of a run of 256: codes, sums of 16, scales of 32.
#[derive(Clone, Copy)]
struct Run {
    codes: *const i8,
    sums: *const i16,
    scales: *const f32,
}

/// A run padded with zeros.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Padded {
    codes: [u8; 256],
    sums: [u8; 32],
    scales: [u8; 32],
}

/// # Safety
/// Needs AVX-512 F, BW and VNNI; lengths as `Kernels::mat_mul` checks them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn mat_mul<F: Unpack>(p: &mut Product) {
    let mut first = 0;
    while first < p.tokens {
        // SAFETY: passed on; the tokens exist.
        first += unsafe {
            match p.tokens - first {
                TOKENS.. => tokens::<F, TOKENS>(p, first),
                4.. => tokens::<F, 4>(p, first),
                2.. => tokens::<F, 2>(p, first),
                _ => tokens::<F, 1>(p, first),
            }
        };
    }
}

/// `N` tokens from `first` on; `N`.
///
/// # Safety
/// As [`mat_mul`]; the tokens exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tokens<F: Unpack, const N: usize>(p: &mut Product, first: usize) -> usize {
    let planes = Planes::new(p.cols, 32);
    let (runs, rest) = (p.cols / 256, p.cols % 256);
    let rest_bytes = rest / F::BLOCK * (F::BYTES / (256 / F::BLOCK));
    let rows: [*const u8; N] = std::array::from_fn(|t| p.activations[(first + t) * planes.stride..][..planes.stride].as_ptr());
    let mut padded = [Padded { codes: [0; 256], sums: [0; 32], scales: [0; 32] }; N];
    if rest > 0 {
        for (row, padded) in p.activations[first * planes.stride..].chunks_exact(planes.stride).zip(&mut padded) {
            padded.codes[..rest].copy_from_slice(&row[runs * 256..][..rest]);
            padded.sums[..rest / 8].copy_from_slice(&row[planes.sums + runs * 32..][..rest / 8]);
            padded.scales[..rest / 8].copy_from_slice(&row[planes.scales + runs * 32..][..rest / 8]);
        }
    }
    for r in 0..p.rows {
        let row = &p.weights[r * p.row_bytes..][..p.row_bytes];
        let mut sums = [[_mm512_setzero_ps(); 2]; N];
        let mut at = row.as_ptr();
        for run in 0..runs {
            for line in 0..F::BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 64 * line).cast());
            }
            // SAFETY: the row has `runs` whole runs, and each token's planes have as many.
            unsafe {
                let chunk = F::unpack(at);
                for (x, sums) in rows.iter().zip(&mut sums) {
                    let x = Run {
                        codes: x.add(256 * run).cast(),
                        sums: x.add(planes.sums + 32 * run).cast(),
                        scales: x.add(planes.scales + 32 * run).cast(),
                    };
                    multiply::<F>(&chunk, x, sums);
                }
                at = at.add(F::BYTES);
            }
        }
        if rest > 0 {
            let mut buffer = [0; LONGEST];
            buffer[..rest_bytes].copy_from_slice(&row[row.len() - rest_bytes..]);
            // SAFETY: no format is longer than the buffer; the padded runs are whole.
            unsafe {
                let chunk = F::unpack(buffer.as_ptr());
                for (x, sums) in padded.iter().zip(&mut sums) {
                    let x = Run { codes: x.codes.as_ptr().cast(), sums: x.sums.as_ptr().cast(), scales: x.scales.as_ptr().cast() };
                    multiply::<F>(&chunk, x, sums);
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            p.out.token(first + t)[r] = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
        }
    }
    N
}

/// Bytes of 256 weights of the longest format.
const LONGEST: usize = 272;

/// `Σ w·x` over a run, spread over the lanes of `sums`.
///
/// # Safety
/// The run's planes are readable: 256 codes, 16 sums, 8 scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply<F: Unpack>(chunk: &Chunk, x: Run, sums: &mut [__m512; 2]) {
    const { assert!(F::BYTES <= LONGEST) };
    // SAFETY: by the contract.
    let (load, scales, x_sums) = unsafe {
        let load: [__m512i; 4] = std::array::from_fn(|n| _mm512_loadu_si512(x.codes.add(64 * n).cast()));
        (load, _mm256_loadu_ps(x.scales), _mm256_loadu_si256(x.sums.cast()))
    };
    let scales = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), _mm512_castps256_ps512(scales));
    let offsets = _mm512_mul_ps(chunk.offsets, scales);
    let scales = _mm512_mul_ps(chunk.scales, scales);
    sums[0] = _mm512_fmadd_ps(offsets, _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(x_sums)), sums[0]);
    // Scales to lanes: `p` are the pieces of 16 that stand in a vector.
    let spread = |p: [i32; 4]| {
        let index = _mm512_setr_epi32(p[0], p[0], p[0], p[0], p[1], p[1], p[1], p[1], p[2], p[2], p[2], p[2], p[3], p[3], p[3], p[3]);
        _mm512_permutexvar_ps(index, scales)
    };
    let dot = |n: usize, x: __m512i, sum: __m512i| _mm512_dpbusd_epi32(sum, chunk.codes[n], x);
    let zero = _mm512_setzero_si512();
    match F::ORDER {
        Order::Straight => {
            for n in 0..4 {
                let i = 4 * n as i32;
                sums[n % 2] = _mm512_fmadd_ps(spread([i, i + 1, i + 2, i + 3]), _mm512_cvtepi32_ps(dot(n, load[n], zero)), sums[n % 2]);
            }
        }
        Order::Halves => {
            for h in 0..2 {
                let (a, b, i) = (load[2 * h], load[2 * h + 1], 8 * h as i32);
                let x = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
                sums[0] = _mm512_fmadd_ps(spread([i, i + 1, i + 4, i + 5]), _mm512_cvtepi32_ps(dot(2 * h, x, zero)), sums[0]);
                let x = _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b);
                sums[1] = _mm512_fmadd_ps(spread([i + 2, i + 3, i + 6, i + 7]), _mm512_cvtepi32_ps(dot(2 * h + 1, x, zero)), sums[1]);
            }
        }
        Order::Quarters => {
            for h in 0..2 {
                let (a, b, i) = (load[2 * h], load[2 * h + 1], 8 * h as i32);
                let even = dot(2 * h, _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), zero);
                let both = dot(2 * h + 1, _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b), even);
                sums[h] = _mm512_fmadd_ps(spread([i, i + 2, i + 4, i + 6]), _mm512_cvtepi32_ps(both), sums[h]);
            }
        }
    }
}
