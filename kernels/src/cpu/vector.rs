//! A vector of f32 of any width, so that a kernel is written once for AVX2, AVX-512 and NEON. Only what attention and exact products need.

/// # Safety
/// Of every method: the CPU has the vector's features (AVX2, FMA and F16C; AVX-512 F; NEON), and the caller enables them; loads and stores
/// are within readable or writable memory of [`Vector::LANES`] elements, at any address.
pub trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_f16(at: *const u16) -> Self;
    /// Bytes 0, 1, 2 and 3 of each of the words at `at`.
    unsafe fn load_four_i8(at: *const i8) -> [Self; 4];
    unsafe fn store(self, at: *mut f32);
    unsafe fn mul(self, by: Self) -> Self;
    /// `self · by + plus`
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self;
    /// Four numbers in a row by which vectors are multiplied: in a register where a product can pick one of its lanes, else a pointer.
    type Four: Copy;
    unsafe fn four(at: *const f32) -> Self::Four;
    /// `self · by[I] + plus`
    unsafe fn mul_add_one<const I: usize>(self, by: Self::Four, plus: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// The larger of both in each lane; where `self` is NaN, the other.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn sum(self) -> f32;
    /// Of all lanes. None is NaN.
    unsafe fn largest(self) -> f32;
    /// Prefetches the cache line at an address that is read about a microsecond from now: a hint, so any address will do.
    fn prefetch(at: *const u8);
}

/// A vector of a processor that multiplies int8: each lane of 32 bits takes the sum of four products.
///
/// # Safety
/// Of every method: as [`Vector`], and the CPU has VNNI or dot products.
pub trait Dots: Vector {
    /// i32 in every lane.
    type Words: Copy;
    /// Four codes for every lane, as [`add_dots`](Self::add_dots) wants them.
    unsafe fn load_codes(at: *const i8) -> Self::Words;
    /// Sums of no products yet; the codes that [`add_dots`](Self::add_dots) is going to multiply by add up to `sum`.
    unsafe fn no_dots(sum: i32) -> Self::Words;
    /// Four words of four codes or weights each, as [`Vector::Four`].
    type FourWords: Copy;
    unsafe fn four_words(at: *const i32) -> Self::FourWords;
    /// To each lane the products of its four codes with the four of `by[I]`.
    unsafe fn add_dots<const I: usize>(sums: Self::Words, codes: Self::Words, by: Self::FourWords) -> Self::Words;
    /// Whether bytes of a weight are unsigned to [`add_weighted`](Self::add_weighted), else signed.
    const UNSIGNED_WEIGHTS: bool;
    /// Four codes for every lane, as [`add_weighted`](Self::add_weighted) wants them.
    unsafe fn load_values(at: *const i8) -> Self::Words;
    /// To each lane the products of its four codes with the four weights of `by[I]`.
    unsafe fn add_weighted<const I: usize>(sums: Self::Words, codes: Self::Words, by: Self::FourWords) -> Self::Words;
    /// `256 · high + low`, which fits 32 bits, as numbers.
    unsafe fn joined(high: Self::Words, low: Self::Words) -> Self;
}
