//! Programs on the CPU: the kernels' best tier, and one crew of threads.

pub mod cores;
pub mod pool;
