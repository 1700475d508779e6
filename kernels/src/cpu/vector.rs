//! A vector of f32 of any width, so that a kernel is written once for AVX2, AVX-512 and NEON. Only what attention and exact products need.

/// # Safety
/// Of every method: the CPU has the vector's features (AVX2, FMA and F16C; AVX-512 F; NEON), and the caller enables them; loads and stores
/// are within readable or writable memory of [`Vector::LANES`] elements, at any address.
pub trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn load_f16(at: *const u16) -> Self;
    unsafe fn load_i8(at: *const i8) -> Self;
    /// Bytes 0, 1, 2 and 3 of each of the words at `at`.
    unsafe fn load_four_i8(at: *const i8) -> [Self; 4];
    unsafe fn store(self, at: *mut f32);
    unsafe fn mul(self, by: Self) -> Self;
    /// `self · by + plus`
    unsafe fn mul_add(self, by: Self, plus: Self) -> Self;
    unsafe fn sum(self) -> f32;
    /// Brings the line of an address into the cache: a hint, so any address will do.
    fn prefetch(at: *const u8);
}
