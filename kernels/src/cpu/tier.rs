//! Tiers: what a CPU can do, as far as kernels care. Detected at run time, so that one binary serves a Pi and a server.

use std::fmt;

/// A set of instructions that kernels are written for. Within an architecture a later tier has all that an earlier one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Plain Rust, on every architecture.
    Generic,
    /// ARMv8.0.
    Neon,
    /// ARMv8.2 with `dotprod`.
    Dotprod,
    /// `dotprod` and `i8mm`.
    I8mm,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL besides.
    Avx512,
    /// AVX-512 VNNI besides.
    Avx512Vnni,
}

/// Why the tier that `HEARTH_CPU` asks for can't be had.
#[derive(Debug, PartialEq, Eq)]
pub struct BadTier {
    asked: String,
}

impl fmt::Display for BadTier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let known: Vec<_> = Tier::of_this_architecture().map(Tier::name).collect();
        write!(f, "HEARTH_CPU={:?} names no tier of this architecture; use one of: {}", self.asked, known.join(", "))
    }
}

impl std::error::Error for BadTier {}

impl Tier {
    const ALL: [Tier; 7] = [Tier::Generic, Tier::Neon, Tier::Dotprod, Tier::I8mm, Tier::Avx2, Tier::Avx512, Tier::Avx512Vnni];

    /// As `HEARTH_CPU` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Generic => "generic",
            Tier::Neon => "neon",
            Tier::Dotprod => "dotprod",
            Tier::I8mm => "i8mm",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
            Tier::Avx512Vnni => "avx512vnni",
        }
    }

    /// Lowest first.
    pub fn of_this_architecture() -> impl Iterator<Item = Tier> {
        Self::ALL.into_iter().filter(|t| match t {
            Tier::Generic => true,
            Tier::Neon | Tier::Dotprod | Tier::I8mm => cfg!(target_arch = "aarch64"),
            Tier::Avx2 | Tier::Avx512 | Tier::Avx512Vnni => cfg!(target_arch = "x86_64"),
        })
    }

    /// Those that this CPU runs, lowest first.
    pub fn available() -> impl Iterator<Item = Tier> {
        Self::of_this_architecture().filter(|t| t.is_available())
    }

    pub fn is_available(self) -> bool {
        match self {
            Tier::Generic => true,
            #[cfg(target_arch = "aarch64")]
            Tier::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Tier::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Tier::I8mm => Tier::Dotprod.is_available() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => {
                Tier::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => Tier::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            _ => false,
        }
    }

    /// The highest tier of this CPU.
    pub fn best() -> Tier {
        Self::available().last().unwrap_or(Tier::Generic)
    }

    /// The highest tier of this CPU that is not above what the environment's `HEARTH_CPU` names: it lowers, never raises.
    pub fn from_environment() -> Result<Tier, BadTier> {
        match std::env::var_os("HEARTH_CPU") {
            // Set to nothing is how service files and shells take a variable away.
            Some(asked) if !asked.is_empty() => Self::at_most(&asked.to_string_lossy()),
            _ => Ok(Self::best()),
        }
    }

    /// As [`from_environment`](Self::from_environment), with the variable's text.
    pub fn at_most(asked: &str) -> Result<Tier, BadTier> {
        let limit = Self::of_this_architecture()
            .find(|t| t.name().eq_ignore_ascii_case(asked.trim()))
            .ok_or_else(|| BadTier { asked: asked.to_owned() })?;
        Ok(Self::available().filter(|t| *t <= limit).last().unwrap_or(Tier::Generic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_lowers_the_tier_and_never_raises_it() {
        assert_eq!(Tier::at_most("generic"), Ok(Tier::Generic));
        assert_eq!(Tier::at_most(" Generic "), Ok(Tier::Generic));
        for tier in Tier::of_this_architecture() {
            let got = Tier::at_most(tier.name()).expect("a tier of this architecture");
            assert!(got <= tier && got.is_available(), "{tier:?} gave {got:?}");
        }
    }

    #[test]
    fn a_wrong_tier_is_named_beside_the_right_ones() {
        let text = Tier::at_most("fast").expect_err("no such tier").to_string();
        assert!(text.contains("\"fast\"") && text.contains("generic"), "{text}");
        let foreign = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
        assert!(Tier::at_most(foreign).is_err());
    }
}
