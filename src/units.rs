//! Quantities that cross a boundary, as newtypes.
//! No arithmetic lives here beyond what a reader would do in their head.

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $repr);
    };
}

quantity!(
    /// A temperature, or a difference of two, in degrees Celsius (kelvin for a difference).
    Celsius(f32)
);
quantity!(
    /// Power in watts.
    Watts(f32)
);
quantity!(
    /// A frequency in hertz.
    Hertz(u64)
);
quantity!(
    /// An amount of memory or of file in bytes.
    Bytes(u64)
);
quantity!(
    /// A rate of tokens, per second of wall-clock time.
    TokensPerSecond(f32)
);
quantity!(
    /// A span of time in seconds.
    Seconds(f64)
);

quantity!(
    /// A core's speed beside the strongest's, as the kernel gives it (`cpu_capacity`): 0–1024.
    Capacity(u32)
);

impl Capacity {
    /// Whether a core of this capacity works beside one of `best`: two thirds of it. Cores of one make differ by their clocks (RK3588: 1024
    /// and 1008; a QCS6490 has one at 2.7 GHz beside three at 2.4), those of a smaller make have about half and less.
    pub fn works_beside(self, best: Capacity) -> bool {
        u64::from(self.0) * 3 >= u64::from(best.0) * 2
    }
}

impl Hertz {
    pub fn megahertz(self) -> f32 {
        self.0 as f32 / 1e6
    }
}

impl Bytes {
    pub fn mebibytes(self) -> f64 {
        self.0 as f64 / (1024.0 * 1024.0)
    }
}

/// Index of a token in the model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u32);
