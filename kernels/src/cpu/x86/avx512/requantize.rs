//! Weights whose scales are of 16 or 32 rounded anew to eight bits with one scale for 64, for [panels](super::panel).

use super::arrangement::indices;
use super::chunk::{Chunk, Unpack};
use std::arch::x86_64::*;

/// What turns the codes of a row into codes with one scale for 64; or those of two rows, where scales are of 32.
///
/// In 16 bits, 8 of them a fraction: `(by · code + plus) >> 8`. With scales of 16, lane `j` is of weights `16j .. 16j + 16`. With scales of
/// 32, lane `2g` is of weights `32g .. 32g + 32` of the first row, lane `2g + 1` of the second: most of the work on a lane then serves
/// both.
pub struct Factors {
    /// In both halves of each lane.
    by: __m512i,
    /// As `by`; with the half that makes it round.
    plus: __m512i,
    /// The new scales, in each lane that takes part in them.
    scales: __m512,
}

impl Factors {
    /// Rows that share factors.
    pub const fn rows<F: Unpack>() -> usize {
        if F::PER_16 { 1 } else { 2 }
    }

    /// Of one row, twice, or of two ([`Factors::rows`]). With them the largest weight that scales of 16 or 32 allow becomes ±127.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn of<F: Unpack>(first: &Chunk, second: &Chunk) -> Factors {
        let (mut s, mut o) = first.scales_and_offsets::<F>();
        if !F::PER_16 {
            let (s_second, o_second) = second.scales_and_offsets::<F>();
            (s, o) = (_mm512_mask_mov_ps(s, 0xAAAA, s_second), _mm512_mask_mov_ps(o, 0xAAAA, o_second));
        }
        let ends = _mm512_max_ps(_mm512_abs_ps(o), _mm512_abs_ps(_mm512_fmadd_ps(s, _mm512_set1_ps(f32::from(F::LARGEST)), o)));
        // Over the lanes of a quarter, of every other one where they are of two rows.
        let largest = if F::PER_16 { _mm512_max_ps(ends, _mm512_permute_ps::<0b10_11_00_01>(ends)) } else { ends };
        let largest = _mm512_max_ps(largest, _mm512_permute_ps::<0b01_00_11_10>(largest));
        // A maximum with NaN may lose it; a sum does not.
        let largest = _mm512_mask_mov_ps(largest, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(ends, ends), ends);
        let live = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(largest, _mm512_set1_ps(1e-35));
        let by = _mm512_maskz_mul_ps(live, _mm512_rcp14_ps(largest), _mm512_set1_ps(127.0 * 256.0));
        let half = _mm512_set1_epi16(128);
        Factors {
            by: words(_mm512_cvtps_epi32(_mm512_mul_ps(s, by))),
            plus: match F::ZERO {
                Some(_) => half,
                None => _mm512_add_epi16(words(_mm512_cvtps_epi32(_mm512_mul_ps(o, by))), half),
            },
            scales: _mm512_maskz_mul_ps(live, largest, _mm512_set1_ps(1.0 / 127.0)),
        }
    }

    /// Those of the first row (`side` 0) or the second.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn scales(&self, side: usize) -> [f32; 4] {
        let mut of_lanes = [0.0; 16];
        // SAFETY: sixteen numbers.
        unsafe { _mm512_storeu_ps(of_lanes.as_mut_ptr(), self.scales) };
        std::array::from_fn(|g| of_lanes[4 * g + side])
    }

    /// Signed codes of that row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn apply<F: Unpack>(&self, mut codes: [__m512i; 4], side: usize) -> [__m512i; 4] {
        let of_codes = |n: usize| {
            let at = _mm512_add_epi32(indices(const { factor_lanes::<F>() }[n]), _mm512_set1_epi32(side as i32));
            let plus = if F::ZERO.is_some() { self.plus } else { _mm512_permutexvar_epi32(at, self.plus) };
            (_mm512_permutexvar_epi32(at, self.by), plus)
        };
        if F::LARGEST == 15 && F::ZERO.is_none() {
            // What each code becomes, sixteen a quarter: two vectors share it.
            let first_eight = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
            for pair in 0..2 {
                let (by, plus) = of_codes(2 * pair);
                let low = _mm512_add_epi16(_mm512_mullo_epi16(by, first_eight), plus);
                let high = _mm512_add_epi16(low, _mm512_slli_epi16::<3>(by));
                let table = _mm512_packs_epi16(_mm512_srai_epi16::<8>(low), _mm512_srai_epi16::<8>(high));
                for c in &mut codes[2 * pair..][..2] {
                    *c = _mm512_shuffle_epi8(table, *c);
                }
            }
            return codes;
        }
        for (n, c) in codes.iter_mut().enumerate() {
            let (even, odd) = match F::ZERO {
                Some(zero) => {
                    let c = _mm512_sub_epi8(*c, _mm512_set1_epi8(zero as i8));
                    (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(c)), _mm512_srai_epi16::<8>(c))
                }
                None => (_mm512_and_si512(*c, _mm512_set1_epi16(255)), _mm512_srli_epi16::<8>(*c)),
            };
            let (by, plus) = of_codes(n);
            let (even, odd) = (_mm512_add_epi16(_mm512_mullo_epi16(by, even), plus), _mm512_add_epi16(_mm512_mullo_epi16(by, odd), plus));
            // The upper byte of each word.
            *c = _mm512_mask_mov_epi8(_mm512_srli_epi16::<8>(even), 0xAAAA_AAAA_AAAA_AAAA, odd);
        }
        codes
    }
}

/// For each four codes of each vector the lane of [`Factors`] that is theirs, in the first row.
const fn factor_lanes<F: Unpack>() -> [[i32; 16]; 4] {
    let mut lanes = [[0; 16]; 4];
    let mut i = 0;
    while i < 64 {
        let piece = F::ORDER[i / 16][i % 16 / 4] as i32;
        lanes[i / 16][i % 16] = if F::PER_16 { piece } else { piece / 2 * 2 };
        i += 1;
    }
    lanes
}

/// The low half of each 32 bits in both halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(x: __m512i) -> __m512i {
    _mm512_mask_mov_epi16(x, 0xAAAA_AAAA, _mm512_slli_epi32::<16>(x))
}
