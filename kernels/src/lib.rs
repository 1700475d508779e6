//! What runs on a device: quantized formats and the kernels that compute on them in place.
//! Knows no file, no model and no thread; slices and numbers go in, slices come out.
//!
//! - [`quant`]: one file a weight format (layout, plain decode, plain dot, encode), and the table of them.
//! - [`cpu`]: kernels by tier, chosen once at start.

pub mod cpu;
pub mod quant;
