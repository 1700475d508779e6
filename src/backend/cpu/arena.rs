//! Memory that several threads write at once, each its own part.
//!
//! A step's buffers belong to nobody while it runs: the schedule says who writes which rows and columns in which stage, and the crew's
//! meeting points put every read after the writes it needs. Rust cannot check that, so the rule stands here, and the only way to break
//! it is to ask for the same part twice within a stage: whoever calls `part_mut` promises not to.

use hearth_kernels::cpu::Columns;
use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts are handed out to threads.
#[derive(Debug)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: it stands for a `&mut [T]` that is split among threads; `part` and `part_mut` put the duty of disjointness on the caller.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// A part that can be handed on in parts itself.
    pub fn within(&self, range: Range<usize>) -> Shared<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the line above.
        Shared { start: unsafe { self.start.add(range.start) }, len: range.end - range.start, owner: PhantomData }
    }

    /// A part to read.
    ///
    /// # Safety
    /// Nobody writes into `range` as long as the part is used.
    pub unsafe fn part(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the line above, alive for 'a; unwritten by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }

    /// A part to write.
    ///
    /// # Safety
    /// Nobody else reads or writes `range` as long as the part is used.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part_mut(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the line above, alive for 'a; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

impl<'a> Shared<'a, f32> {
    /// The same memory as the bytes it is.
    pub fn bytes(&self) -> Shared<'a, u8> {
        Shared { start: self.start.cast(), len: self.len * size_of::<f32>(), owner: PhantomData }
    }

    /// Columns `columns` of the matrix `[tokens, width]` at its start.
    ///
    /// # Safety
    /// Nobody else touches those columns as long as the result is used.
    pub unsafe fn columns(&self, tokens: usize, width: usize, columns: Range<usize>) -> Columns<'a> {
        assert!(tokens * width <= self.len, "[{tokens}, {width}] of {}", self.len);
        assert!(columns.start <= columns.end && columns.end <= width, "columns {columns:?} of {width}");
        // SAFETY: within the matrix by the lines above; not aliased by the caller's promise.
        unsafe { Columns::new(self.start.add(columns.start), width, tokens, columns.end - columns.start) }
    }
}

/// Bytes at an address that is a multiple of 64, as vector kernels like them.
#[derive(Debug, Default)]
pub struct AlignedBytes(Box<[CacheLine]>);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

impl AlignedBytes {
    /// Makes room for `bytes`; what was there may be lost. What is new is zero, and takes memory only once it is written.
    pub fn reserve(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if self.0.len() < lines {
            // Not both at once: with long prompts these are the largest pieces of memory beside the model.
            self.0 = Box::default();
            // SAFETY: zeros make a `CacheLine`.
            self.0 = unsafe { Box::new_zeroed_slice(lines).assume_init() };
        }
    }

    pub fn len(&self) -> usize {
        self.0.len() * 64
    }

    pub fn as_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        // SAFETY: a `CacheLine` is 64 bytes without padding, and any bytes make one.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }

    /// The same bytes as numbers.
    pub fn as_floats_mut(&mut self) -> &mut [f32] {
        let floats = self.len() / size_of::<f32>();
        // SAFETY: a `CacheLine` is 16 aligned f32 without padding, and any bytes make them.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), floats) }
    }
}

/// Numbers as the bytes they are.
pub fn bytes_of(x: &[f32]) -> &[u8] {
    // SAFETY: every f32 is four bytes, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), std::mem::size_of_val(x)) }
}
