//! Where a product goes: some columns of a row-major matrix, the rest of which other threads may be writing.

use std::marker::PhantomData;
use std::ops::Range;

/// `tokens` × `width` numbers, `stride` apart from a token to the next.
#[derive(Debug)]
pub struct Columns<'a> {
    first: *mut f32,
    stride: usize,
    tokens: usize,
    width: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for exclusive access to its numbers, as a `&mut [f32]` of them would.
unsafe impl Send for Columns<'_> {}
// SAFETY: a shared `Columns` gives no access.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// The whole of a matrix `[tokens, width]`.
    ///
    /// # Panics
    /// When `matrix` is no whole number of rows.
    pub fn of(matrix: &'a mut [f32], width: usize) -> Columns<'a> {
        let tokens = matrix.len().checked_div(width).unwrap_or(0);
        assert_eq!(matrix.len(), tokens * width, "no whole rows of {width}");
        Columns { first: matrix.as_mut_ptr(), stride: width, tokens, width, matrix: PhantomData }
    }

    /// `width` columns of a matrix that has rows of `stride` numbers, from the first of them on.
    ///
    /// # Safety
    /// `first` points to the first of `tokens` rows that lie `stride` numbers apart, in memory that lives for `'a`; while the result
    /// lives, nothing else may touch those columns. (Threads that share a matrix take disjoint ranges.)
    pub unsafe fn new(first: *mut f32, stride: usize, tokens: usize, width: usize) -> Columns<'a> {
        Columns { first, stride, tokens, width, matrix: PhantomData }
    }

    /// Some of the columns.
    ///
    /// # Safety
    /// While the result lives, nothing else may touch those columns. (Threads that share a matrix take disjoint ranges.)
    pub unsafe fn range(&self, columns: Range<usize>) -> Columns<'a> {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns {columns:?} of {}", self.width);
        Columns { first: self.first.wrapping_add(columns.start), width: columns.len(), ..*self }
    }

    /// The same columns, borrowed from these.
    pub fn reborrow(&mut self) -> Columns<'_> {
        Columns { matrix: PhantomData, ..*self }
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// One token's numbers.
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.tokens);
        // SAFETY: within the matrix by the assertion and `range`'s; exclusive by `range`'s contract.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(token * self.stride), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disjoint_columns_fill_a_matrix() {
        let mut matrix = [0.0; 6];
        let all = Columns::of(&mut matrix, 3);
        // SAFETY: disjoint ranges.
        let (mut left, mut right) = unsafe { (all.range(0..1), all.range(1..3)) };
        left.token(1)[0] = 1.0;
        right.token(0).copy_from_slice(&[2.0, 3.0]);
        right.token(1)[1] = 4.0;
        assert_eq!(matrix, [0.0, 2.0, 3.0, 1.0, 0.0, 4.0]);
    }
}
