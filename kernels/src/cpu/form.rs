//! Activations as products want them: the layouts of one operand of [`mat_mul`](super::Kernels::mat_mul).
//!
//! An int8 form of a row of `cols` numbers is three planes, one after the other, then padding up to a multiple of 64 bytes:
//!
//! | plane  | type             | meaning                                                                       |
//! |--------|------------------|-------------------------------------------------------------------------------|
//! | codes  | i8 × cols        | `x[i] ≈ scale[i / per] · code[i]`, codes within ±127                          |
//! | sums   | i16 × cols/16    | sums of 16 codes: what a format's minima and offsets are multiplied by        |
//! | scales | f32 × cols/per   | largest magnitude of the run / 127, or a little more where that rounds better |
//!
//! So scales of 32 are `Q8_0`'s and scales of 256 `Q8_K`'s, with the scale kept in f32. A run that holds NaN or infinity gets the scale
//! NaN and codes 0: whatever it is multiplied with becomes NaN. A run whose largest magnitude is below [`SMALLEST`] counts as zeros.

use std::ops::Range;

/// How activations are stored. Which form a product takes is the tier's choice: [`Kernels::form`](super::Kernels::form).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are, `[tokens, cols]`, little endian: exact products, for every format.
    F32,
    /// Int8 with a scale per 32.
    Int8By32,
    /// Int8 with a scale per 64; a row's last 32 may have one of their own.
    Int8By64,
    /// Int8 with a scale per 256.
    Int8By256,
    /// The tier's own arrangement of [`Int8By32`](Form::Int8By32) for many tokens at once, in groups of [`Form::group`] tokens.
    PanelBy32,
    /// The same of [`Int8By64`](Form::Int8By64), with no sums; a last run of 32 is filled up with zeros.
    PanelBy64,
}

/// A run of activations whose largest magnitude is below this is taken for zeros: its inverse might overflow.
pub const SMALLEST: f32 = 1e-30;

/// Where the planes of one row in an int8 form begin, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    pub sums: usize,
    pub scales: usize,
    /// From a row to the next.
    pub stride: usize,
}

impl Planes {
    /// Of rows of `cols` numbers (a multiple of 32) with a scale per `per`.
    pub const fn new(cols: usize, per: usize) -> Planes {
        let scales = cols + cols / 16 * 2;
        Planes { sums: cols, scales, stride: (scales + cols.div_ceil(per) * 4).next_multiple_of(64) }
    }
}

impl Form {
    /// Numbers that share a scale; `None` for [`Form::F32`].
    pub const fn per(self) -> Option<usize> {
        match self {
            Form::F32 => None,
            Form::Int8By32 | Form::PanelBy32 => Some(32),
            Form::Int8By64 | Form::PanelBy64 => Some(64),
            Form::Int8By256 => Some(256),
        }
    }

    pub const fn is_panel(self) -> bool {
        matches!(self, Form::PanelBy32 | Form::PanelBy64)
    }

    /// The token-major form with the same scales.
    pub const fn rows(self) -> Form {
        match self {
            Form::F32 => Form::F32,
            Form::Int8By32 | Form::PanelBy32 => Form::Int8By32,
            Form::Int8By64 | Form::PanelBy64 => Form::Int8By64,
            Form::Int8By256 => Form::Int8By256,
        }
    }

    /// Tokens that are stored together. Threads that share the work of quantizing cut at multiples of it.
    pub const fn group(self) -> usize {
        if self.is_panel() { PANEL_TOKENS } else { 1 }
    }

    /// Numbers of which a row must be a multiple.
    pub const fn step(self) -> usize {
        match self {
            Form::F32 => 1,
            Form::Int8By32 | Form::PanelBy32 | Form::Int8By64 | Form::PanelBy64 => 32,
            Form::Int8By256 => 256,
        }
    }

    /// Bytes that `tokens` rows of `cols` numbers take; whole groups, so the last may hold room for tokens that are not there.
    pub const fn bytes(self, cols: usize, tokens: usize) -> usize {
        let whole_groups = tokens.next_multiple_of(self.group());
        match self {
            Form::F32 => cols * tokens * 4,
            Form::Int8By32 => Planes::new(cols, 32).stride * tokens,
            Form::Int8By64 => Planes::new(cols, 64).stride * tokens,
            Form::Int8By256 => Planes::new(cols, 256).stride * tokens,
            // Codes, and three words of 32 bits for each 32.
            Form::PanelBy32 => (cols + cols / 32 * 12) * whole_groups,
            // Codes, and a word for each 64, whole.
            Form::PanelBy64 => cols.div_ceil(64) * (64 + 4) * whole_groups,
        }
    }
}

/// Columns, from a multiple of it on, that lie together in every tier's panels.
pub const PIECE: usize = 256;

/// How a tier lays out a panel: in tiles of some tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    /// Tokens of a tile.
    pub tokens: usize,
    /// Tokens are written in multiples of this, those that are not there too.
    pub written: usize,
    pub part: Part,
}

/// Where some columns of one [`PIECE`] lie in tile `n` of a panel of rows of `cols`: ranges of bytes, whose order and lengths depend on the
/// number of columns alone, not on where they begin. Some may be empty.
pub type Part = fn(form: Form, cols: usize, columns: Range<usize>, n: usize) -> [Range<usize>; 4];

/// Tokens in a group of a panel: a multiple of the tokens in every tier's tile (3, 8 and 12).
pub const PANEL_TOKENS: usize = 24;
