//! Codebooks of the `IQ1`, `IQ2` and `IQ3` formats: a codeword gives four or eight neighbouring weights at once. Here: the expanded
//! tables, the search for a codeword, and the signs that go beside it. The packed tables are data, in files of their own.

mod iq1;
mod iq2;
mod iq3;

/// Values −1, 0, 1 of eight weights.
pub static IQ1: [[i8; 8]; 2048] = expand(&iq1::IQ1, 2, &[-1, 0, 1]);

/// Magnitudes in the `IQ2` formats.
pub const IQ2_LEVELS: [i8; 3] = [8, 25, 43];
pub static IQ2_XXS: [[i8; 8]; 256] = expand(&iq2::XXS, 2, &IQ2_LEVELS);
pub static IQ2_XS: [[i8; 8]; 512] = expand(&iq2::XS, 2, &IQ2_LEVELS);
pub static IQ2_S: [[i8; 8]; 1024] = expand(&iq2::S, 2, &IQ2_LEVELS);

pub const IQ3_XXS_LEVELS: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
pub static IQ3_XXS: [[i8; 4]; 256] = expand(&iq3::XXS, 3, &IQ3_XXS_LEVELS);
pub const IQ3_S_LEVELS: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
pub static IQ3_S: [[i8; 4]; 512] = expand(&iq3::S, 3, &IQ3_S_LEVELS);

const fn expand<const N: usize, const D: usize>(packed: &[u16; N], bits: usize, values: &[i8]) -> [[i8; D]; N] {
    let mut grid = [[0; D]; N];
    let mut n = 0;
    while n < N {
        let mut i = 0;
        while i < D {
            grid[n][i] = values[(packed[n] >> (bits * i)) as usize & ((1 << bits) - 1)];
            i += 1;
        }
        n += 1;
    }
    grid
}

/// Index of the codeword nearest to `target`.
pub(super) fn nearest<const D: usize>(grid: &[[i8; D]], target: &[f32; D]) -> usize {
    let (mut index, mut best) = (0, f32::NEG_INFINITY);
    for (n, word) in grid.iter().enumerate() {
        // |t − g|² = |t|² − Σ g·(2t − g); |t|² is the same for all.
        let closeness = (0..D).map(|i| f32::from(word[i]) * (2.0 * target[i] - f32::from(word[i]))).sum();
        if closeness > best {
            (index, best) = (n, closeness);
        }
    }
    index
}

/// Eight sign bits from seven: the eighth makes the number of negative weights even.
pub fn even_signs(seven: u8) -> u8 {
    let seven = seven & 127;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// The weight with its sign applied: bit set, negative.
#[inline]
pub(super) fn signed(v: f32, signs: u8, bit: usize) -> f32 {
    if signs >> bit & 1 == 1 { -v } else { v }
}

/// Magnitudes and sign bits of eight weights.
pub(super) fn split_signs(x: &[f32]) -> ([f32; 8], u8) {
    let signs = (0..8).map(|i| u8::from(x[i] < 0.0) << i).sum();
    (std::array::from_fn(|i| x[i].abs()), signs)
}

/// As [`split_signs`], with an even number of sign bits: where the weights' own are odd, the smallest weight counts as of the other sign.
pub(super) fn split_even_signs(x: &[f32]) -> ([f32; 8], u8) {
    let (mut magnitudes, mut signs) = split_signs(x);
    if signs.count_ones() % 2 == 1 {
        let smallest = (1..8).fold(0, |a, i| if magnitudes[i] < magnitudes[a] { i } else { a });
        magnitudes[smallest] = -magnitudes[smallest];
        signs ^= 1 << smallest;
    }
    (magnitudes, signs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_from_seven_bits_are_even() {
        assert!((0..128).all(|s| even_signs(s).count_ones().is_multiple_of(2) && even_signs(s) & 127 == s));
    }

    #[test]
    fn a_codeword_is_nearest_to_itself() {
        for n in [0, 1, 77, 1023, 2047] {
            let found = nearest(&IQ1, &IQ1[n].map(f32::from));
            assert_eq!(IQ1[found], IQ1[n]);
        }
        assert_eq!(nearest(&IQ3_S, &IQ3_S[300].map(f32::from)), 300);
    }
}
