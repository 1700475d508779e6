//! x86-64: AVX2 with FMA and F16C; AVX-512; AVX-512 VNNI.

pub mod avx2;
pub mod avx512;
mod vector;
