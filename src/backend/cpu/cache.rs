//! Where keys and values lie. One lazily filled mapping per load: pages exist once they are written, so a long context costs memory
//! only as far as it is used.
//!
//! For each cache of the program, then each block, then each key head: the block's keys `[BLOCK_TOKENS, k_dim]`; after all keys of the
//! cache its values in the same order. So one head's keys of a block are one run of memory, which is how attention reads them.

use crate::backend::{BLOCK_TOKENS, BlockId, KvType, LoadError};
use crate::program::{Program, State, StateId};
use memmap2::{MmapMut, MmapOptions};
use std::ops::Range;

pub struct Cache {
    memory: MmapMut,
    layout: Layout,
}

/// Where things lie.
pub struct Layout {
    regions: Vec<Option<Region>>,
    blocks: usize,
    pub kv: KvType,
}

/// One cache of the program.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub kv_heads: usize,
    pub k_dim: usize,
    pub v_dim: usize,
    /// Bytes of one stored key, and of one value.
    pub k_bytes: usize,
    pub v_bytes: usize,
    keys_at: usize,
    values_at: usize,
}

/// Bytes of a row of `dim` numbers. A row of q8_0 has whole blocks of 32, the last one padded with zeros.
pub fn row_bytes(kv: KvType, dim: usize) -> usize {
    match kv {
        KvType::F32 => dim * 4,
        KvType::F16 => dim * 2,
        KvType::Q8_0 => dim.div_ceil(32) * 34,
    }
}

/// Bytes that `blocks` blocks of all caches of `program` take.
pub fn bytes(program: &Program, kv: KvType, blocks: usize) -> usize {
    let per_position = |s: &State| match *s {
        State::Kv { kv_heads, k_dim, v_dim, .. } => kv_heads * (row_bytes(kv, k_dim) + row_bytes(kv, v_dim)),
        _ => 0,
    };
    program.states.iter().map(per_position).sum::<usize>() * BLOCK_TOKENS * blocks
}

impl Cache {
    pub fn new(program: &Program, kv: KvType, blocks: usize) -> Result<Cache, LoadError> {
        let mut at = 0;
        let mut take = |bytes: usize| {
            let start = at;
            at += bytes;
            start
        };
        let regions = program
            .states
            .iter()
            .map(|state| match *state {
                State::Kv { kv_heads, k_dim, v_dim, .. } => {
                    let (k_bytes, v_bytes) = (row_bytes(kv, k_dim), row_bytes(kv, v_dim));
                    let rows = blocks * kv_heads * BLOCK_TOKENS;
                    Some(Region { kv_heads, k_dim, v_dim, k_bytes, v_bytes, keys_at: take(rows * k_bytes), values_at: take(rows * v_bytes) })
                }
                _ => None,
            })
            .collect();
        let need = at.max(1);
        let memory = MmapOptions::new()
            .len(need)
            .no_reserve_swap()
            .map_anon()
            .map_err(|_| LoadError::NoMemory { what: "keys and values", need: need as u64 >> 20, have: 0 })?;
        Ok(Cache { memory, layout: Layout { regions, blocks, kv } })
    }

    /// Bytes of address space it has; memory is taken as it is written.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// The bytes of everything, for writing, and the layout they have.
    pub fn split(&mut self) -> (&mut [u8], &Layout) {
        (&mut self.memory, &self.layout)
    }

    /// Copies the block `from` onto `to` in all caches.
    pub fn copy_block(&mut self, from: BlockId, to: BlockId) {
        assert!((from.0 as usize) < self.layout.blocks && (to.0 as usize) < self.layout.blocks, "a block of this cache");
        for region in self.layout.regions.iter().flatten() {
            for (start, bytes) in [(region.keys_at, region.k_bytes), (region.values_at, region.v_bytes)] {
                let size = region.kv_heads * BLOCK_TOKENS * bytes;
                let source = start + from.0 as usize * size;
                self.memory.copy_within(source..source + size, start + to.0 as usize * size);
            }
        }
    }
}

impl Layout {
    /// # Panics
    /// When `id` is no key/value cache: a program's stores and attentions name such.
    pub fn region(&self, id: StateId) -> Region {
        self.regions[id.0 as usize].expect("a key/value cache")
    }
}

impl Region {
    /// Where the keys of one head of one block lie.
    pub fn keys(&self, block: BlockId, head: usize) -> Range<usize> {
        let size = BLOCK_TOKENS * self.k_bytes;
        let at = self.keys_at + (block.0 as usize * self.kv_heads + head) * size;
        at..at + size
    }

    /// Where the values of one head of one block lie.
    pub fn values(&self, block: BlockId, head: usize) -> Range<usize> {
        let size = BLOCK_TOKENS * self.v_bytes;
        let at = self.values_at + (block.0 as usize * self.kv_heads + head) * size;
        at..at + size
    }
}
