//! Memory that several threads write at once, each its own part.
//!
//! A step's buffers belong to nobody while it runs: the schedule says who writes which rows and columns in which stage, and the crew's
//! meeting points put every read after the writes it needs. Rust cannot check that, so the rule stands here, and the only way to break
//! it is to ask for the same part twice within a stage: whoever calls `part_mut` promises not to.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts are handed out to threads.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]` that is split among threads; `part` and `part_mut` put the duty of disjointness on the caller.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
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
