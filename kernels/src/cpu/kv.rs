//! How keys and values lie in the cache: tiles of [`POSITIONS`] positions of one head, laid out for the kernels that read them.
//!
//! | kind   | key tile                                                       | value tile                                          |
//! |--------|----------------------------------------------------------------|-----------------------------------------------------|
//! | `F32`  | f32 `[dim, position]`                                          | f32 `[position, dim]`                               |
//! | `F16`  | f16 `[dim, position]`                                          | f16 `[position, dim]`                               |
//! | `Q8_0` | i8 `[dim/4, position, 4]`, then f16 scales `[dim/32, position]` | i8 `[16, dim, 4]`, then f16 scales `[dim/32, position]` |
//!
//! Divisions round up. In a key tile positions lie side by side, so a score needs no sum across a vector: a lane is a position. In a
//! value tile elements do, for the same reason. Where processors multiply four int8 at a time, four elements of a key lie together, and
//! an element of four positions of the values: word `k` has those of `k`, `k + 16`, `k + 32` and `k + 48`, so that weights become its
//! other factor by shifts alone. `Q8_0` has one scale (largest magnitude / 127, rounded to f16) per 32 elements of a
//! line, as in a weight file; only its place differs. A line with NaN or infinity gets scale NaN and codes 0 in that run.

/// Positions in a tile.
pub const POSITIONS: usize = 64;
/// Words of a `Q8_0` value tile in which an element has all its positions, four in each.
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

    /// Where a value tile has the code of an element, counted in codes.
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

/// Blocks whose tiles of one head lie one after the other: attention then reads runs that are long enough for the memory, since blocks
/// of a sequence mostly follow each other too.
pub const GROUP: usize = 8;

/// One head's keys and values of a sequence. Block `b` has its tile of keys, then its tile of values, `b / GROUP · stride` and
/// `b % GROUP` such pairs into the memory, which starts at the head's place within the first group.
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

/// Where a block's pair of tiles is, from its head's first one on.
pub const fn place(block: usize, stride: usize, pair: usize) -> usize {
    block / GROUP * stride + block % GROUP * pair
}

/// What attention has to know besides the cache.
#[derive(Clone, Copy, Debug)]
pub struct Scoring {
    /// `s = cap · tanh(q · k / cap)` instead of `q · k`.
    pub softcap: Option<f32>,
    /// Tiles are brought into f32 once for all queries of a call: pays from a dozen of them on. The caller says so, since it may differ in
    /// the last bits from what a few queries get, and a result must not depend on who happens to be computed beside it.
    pub decoded: bool,
}

/// The positions that one query sees: `from .. to`, within the tiles given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u32,
    pub to: u32,
}

/// Attention over some of the positions, for some queries: to be merged with the others', then finished.
/// `sum` and `acc` are relative to `exp(max)`.
#[derive(Debug)]
pub struct Partial<'a> {
    /// `[queries]`: the largest score; −∞ when none was seen.
    pub max: &'a mut [f32],
    /// `[queries]`: Σ exp(s − max)
    pub sum: &'a mut [f32],
    /// `[queries, value_dim]`: Σ exp(s − max) · v
    pub acc: &'a mut [f32],
}

impl Partial<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.acc.fill(0.0);
    }

    /// Joins what was seen of other positions by the same queries.
    pub fn merge(&mut self, other: &Partial) {
        let width = self.acc.len() / self.max.len().max(1);
        for i in 0..self.max.len() {
            let max = larger(self.max[i], other.max[i]);
            let (mine, theirs) = (share(self.max[i], max), share(other.max[i], max));
            self.max[i] = max;
            self.sum[i] = self.sum[i] * mine + other.sum[i] * theirs;
            for (a, b) in self.acc[i * width..][..width].iter_mut().zip(&other.acc[i * width..][..width]) {
                *a = *a * mine + *b * theirs;
            }
        }
    }

    /// `out[query] = acc / sum`, each query's sink (if there are sinks, one a query) counted in the sum; zeros for a query that saw
    /// nothing. `out`: `[queries, value_dim]`.
    pub fn finish(&self, sinks: Option<&[f32]>, out: &mut [f32]) {
        assert_eq!(out.len(), self.acc.len());
        let width = self.acc.len() / self.max.len().max(1);
        for i in 0..self.max.len() {
            let (mut sum, mut scale) = (self.sum[i], 1.0);
            if let Some(sinks) = sinks {
                let max = larger(self.max[i], sinks[i]);
                scale = share(self.max[i], max);
                sum = sum * scale + share(sinks[i], max);
            }
            let inverse = if sum == 0.0 { 0.0 } else { scale / sum };
            for (out, a) in out[i * width..][..width].iter_mut().zip(&self.acc[i * width..][..width]) {
                *out = a * inverse;
            }
        }
    }
}

/// The larger; NaN if either is, so that a score that is no number is seen in the result.
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// exp(max − of), where −∞ (nothing seen) counts nothing.
fn share(of: f32, max: f32) -> f32 {
    if of == f32::NEG_INFINITY { 0.0 } else { (of - max).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_with_nothing_changes_nothing() {
        let (mut max, mut sum, mut acc) = ([2.0], [3.0], [4.0, 5.0]);
        let mut seen = Partial { max: &mut max, sum: &mut sum, acc: &mut acc };
        let (mut m, mut s, mut a) = ([0.0], [1.0], [1.0, 1.0]);
        let mut nothing = Partial { max: &mut m, sum: &mut s, acc: &mut a };
        nothing.clear();
        seen.merge(&nothing);
        assert_eq!((&*seen.max, &*seen.sum, &*seen.acc), (&[2.0][..], &[3.0][..], &[4.0, 5.0][..]));
        nothing.merge(&seen);
        assert_eq!((&*nothing.max, &*nothing.sum, &*nothing.acc), (&[2.0][..], &[3.0][..], &[4.0, 5.0][..]));
    }

    #[test]
    fn a_sink_takes_its_share() {
        let (mut max, mut sum, mut acc) = ([1.0], [1.0], [6.0]);
        let seen = Partial { max: &mut max, sum: &mut sum, acc: &mut acc };
        let mut out = [0.0];
        seen.finish(Some(&[1.0 + 2f32.ln()]), &mut out);
        assert!((out[0] - 2.0).abs() < 1e-6, "{out:?}: the sink weighs twice what was seen");
        seen.finish(None, &mut out);
        assert_eq!(out, [6.0]);
    }
}
