//! Every kernel as its formula: the lowest tier, and the oracle of the others. Written to be read, never tuned.
//!
//! Sums run in f64 and are rounded once at the end, so what a faster kernel is held to has no error of its own worth counting.

pub mod attention;
pub mod elementwise;
pub mod linear;
pub mod sums;
