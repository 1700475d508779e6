//! Eight vectors of eight, rows to columns.

use std::arch::x86_64::*;

/// 8 × 8 words of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub fn transpose(r: [__m256; 8]) -> [__m256; 8] {
    // Pairs of rows by 32 bits, fours by 64, then halves.
    let mut fours = r;
    for half in 0..2 {
        let [a, b, c, d] = [r[4 * half], r[4 * half + 1], r[4 * half + 2], r[4 * half + 3]];
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        fours[4 * half] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        fours[4 * half + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
        let (ab, cd) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        fours[4 * half + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
        fours[4 * half + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
    }
    let mut out = r;
    for i in 0..4 {
        out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        out[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
    }
    out
}
