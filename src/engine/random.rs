//! Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators"), the same on every
//! machine. Good enough to draw words; no cryptography.

use std::hash::{BuildHasher, Hasher};

#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn from_seed(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A seed from the operating system, by way of the standard library's hash keys.
    pub fn fresh_seed() -> u64 {
        std::hash::RandomState::new().build_hasher().finish()
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), all 53 bits of an `f64`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_zero_gives_the_published_sequence() {
        // The first outputs of the reference implementation (prng.di.unimi.it/splitmix64.c) for seed 0.
        let mut random = Random::from_seed(0);
        assert_eq!([random.bits(), random.bits(), random.bits()], [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
