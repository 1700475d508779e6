//! Sixteen vectors of sixteen, rows to columns.

use std::arch::x86_64::*;

/// 16 × 16 words of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs of rows by 32 bits, fours by 64, then quarters twice.
    let by_32: [__m512i; 16] = std::array::from_fn(|i| {
        let (a, b) = (r[i & !1], r[i | 1]);
        if i % 2 == 0 { _mm512_unpacklo_epi32(a, b) } else { _mm512_unpackhi_epi32(a, b) }
    });
    // by_64[4q + c]: column c of each quarter, rows 4q .. 4q + 4.
    let by_64: [__m512i; 16] = std::array::from_fn(|i| {
        let (q, c) = (i / 4 * 4, i % 4);
        let (a, b) = (by_32[q + c / 2], by_32[q + 2 + c / 2]);
        if c % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) }
    });
    // Column 4k + c is quarter k of by_64[c], [4 + c], [8 + c], [12 + c].
    let mut out = r;
    for c in 0..4 {
        let (a, b) = (by_64[c], by_64[4 + c]);
        let (d, e) = (by_64[8 + c], by_64[12 + c]);
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
        let (de_even, de_odd) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xDD>(d, e));
        out[c] = _mm512_shuffle_i32x4::<0x88>(ab_even, de_even);
        out[8 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_even, de_even);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(ab_odd, de_odd);
        out[12 + c] = _mm512_shuffle_i32x4::<0xDD>(ab_odd, de_odd);
    }
    out
}
