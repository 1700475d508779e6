//! How keys and values lie in the cache: tiles of [`POSITIONS`] positions of one head, laid out for the kernels that read them.
//!
//! | kind   | key tile                                                       | value tile                                          |
//! |--------|----------------------------------------------------------------|-----------------------------------------------------|
//! | `F32`  | f32 `[dim, position]`                                          | f32 `[position, dim]`                               |
//! | `F16`  | f16 `[dim, position]`                                          | f16 `[position, dim]`                               |
//! | `Q8_0` | i8 `[dim/4, position, 4]`, then f16 scales `[dim/32, position]` | i8 `[16, dim, 4]`, then f16 scales `[dim/32, position]` |
//!
//! Divisions round up. In a key tile positions lie side by side, so a score needs no sum across a vector: a lane is a position. In a value
//! tile elements do, for the same reason. Instructions that multiply int8 take four at a time, so four elements of a key lie together, and
//! one element of four positions of the values: word `k` has positions `k`, `k + 16`, `k + 32` and `k + 48`, so that shifts alone make the
//! other factor of the weights. `Q8_0` has one scale (largest magnitude / 127, rounded to f16) per 32 elements of a line, as in a weight
//! file; only its place differs. A line with NaN or infinity gets scale NaN and codes 0 in that run.

/// Positions in a tile.
pub const POSITIONS: usize = 64;
/// Words that hold an element of all positions in a `Q8_0` value tile, four positions in each.
pub const WORDS: usize = POSITIONS / 4;

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    F32,
    F16,
    Q8_0,
}

impl Kind {
    /// Bytes of the codes of a key tile, after which scales begin; a multiple of 64 for every `dim`.
    pub const fn key_codes(self, dim: usize) -> usize {
        match self {
            Kind::F32 => dim * POSITIONS * 4,
            Kind::F16 => dim * POSITIONS * 2,
            Kind::Q8_0 => dim.next_multiple_of(4) * POSITIONS,
        }
    }

    /// As [`key_codes`](Self::key_codes), of a value tile.
    pub const fn value_codes(self, dim: usize) -> usize {
        match self {
            Kind::F32 => dim * POSITIONS * 4,
            Kind::F16 => dim * POSITIONS * 2,
            Kind::Q8_0 => dim * POSITIONS,
        }
    }

    /// Where the code of an element is in a value tile, counted in codes.
    pub const fn value_at(self, dim: usize, position: usize, element: usize) -> usize {
        match self {
            Kind::F32 | Kind::F16 => position * dim + element,
            Kind::Q8_0 => (position % WORDS * dim + element) * 4 + position / WORDS,
        }
    }

    const fn scales(self, dim: usize) -> usize {
        match self {
            Kind::F32 | Kind::F16 => 0,
            Kind::Q8_0 => dim.div_ceil(32) * POSITIONS * 2,
        }
    }

    /// Bytes of the tile of one head's keys; a multiple of 64.
    pub const fn key_tile(self, dim: usize) -> usize {
        self.key_codes(dim) + self.scales(dim)
    }

    /// Bytes of the tile of one head's values; a multiple of 64.
    pub const fn value_tile(self, dim: usize) -> usize {
        self.value_codes(dim) + self.scales(dim)
    }

    /// Bytes of both.
    pub const fn pair(self, key_dim: usize, value_dim: usize) -> usize {
        self.key_tile(key_dim) + self.value_tile(value_dim)
    }
}

/// Blocks whose tiles of one head lie one after the other, so that attention reads long runs of memory (a sequence's blocks mostly follow
/// each other too). Eight, and keys beside values, took attention to 4096 positions of `Q8_0` from 14.0 to 13.2 % of a step's samples (two
/// cores of an Emerald Rapids); other numbers were not tried.
pub const GROUP: usize = 8;

/// One head's keys and values of a sequence. Block `b` is a tile of keys, then one of values; this pair begins at byte
/// `b / GROUP · stride + b % GROUP · pair` of `memory`, which starts at the head's place within the first group.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    pub kind: Kind,
    pub memory: &'a [u8],
    /// Bytes from a group of blocks to the next.
    pub stride: usize,
    /// Of the sequence, in the order of its positions.
    pub blocks: &'a [u32],
    pub key_dim: usize,
    pub value_dim: usize,
}

impl<'a> Cache<'a> {
    /// Tile `index` of the keys.
    ///
    /// # Panics
    /// When it lies beyond the memory.
    pub fn key_tile(&self, index: usize) -> &'a [u8] {
        &self.memory[self.place(index)..][..self.kind.key_tile(self.key_dim)]
    }

    /// Tile `index` of the values; panics as [`key_tile`](Self::key_tile).
    pub fn value_tile(&self, index: usize) -> &'a [u8] {
        &self.memory[self.place(index) + self.kind.key_tile(self.key_dim)..][..self.kind.value_tile(self.value_dim)]
    }

    fn place(&self, index: usize) -> usize {
        place(self.blocks[index] as usize, self.stride, self.kind.pair(self.key_dim, self.value_dim))
    }
}

/// Where a block's pair of tiles begins, in bytes from its head's first pair.
pub const fn place(block: usize, stride: usize, pair: usize) -> usize {
    block / GROUP * stride + block % GROUP * pair
}
