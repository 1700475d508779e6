//! Where keys and values lie. One lazily filled mapping per load: pages (large ones, where the system has them) exist once they are
//! written, so a long context costs memory only as far as it is used.
//!
//! For each cache of the program, then each block, the key tiles of its heads, then their value tiles. What is in a tile is the
//! kernels' business ([`hearth_kernels::cpu::kv`]).

use crate::backend::{BLOCK_TOKENS, BlockId, KvType, LoadError};
use crate::program::{Program, State, StateId};
use hearth_kernels::cpu::kv::{Kind, POSITIONS};
use memmap2::{Advice, MmapMut, MmapOptions};
use std::ops::Range;

const _: () = assert!(BLOCK_TOKENS == POSITIONS, "a block has one tile a head");

pub struct Cache {
    memory: MmapMut,
    layout: Layout,
}

/// Where things lie.
pub struct Layout {
    regions: Vec<Option<Region>>,
    blocks: usize,
}

/// One cache of the program.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub kind: Kind,
    pub kv_heads: usize,
    pub k_dim: usize,
    pub v_dim: usize,
    /// Bytes from a block to the next.
    pub stride: usize,
    /// Where the first block begins.
    start: usize,
    /// Bytes of all blocks.
    bytes: usize,
}

fn kind(kv: KvType) -> Kind {
    match kv {
        KvType::F32 => Kind::F32,
        KvType::F16 => Kind::F16,
        KvType::Q8_0 => Kind::Q8_0,
    }
}

/// Bytes that `blocks` blocks of all caches of `program` take.
pub fn bytes(program: &Program, kv: KvType, blocks: usize) -> usize {
    Layout::new(program, kv, blocks).bytes()
}

impl Cache {
    pub fn new(program: &Program, kv: KvType, blocks: usize) -> Result<Cache, LoadError> {
        let layout = Layout::new(program, kv, blocks);
        let need = layout.bytes().max(1);
        let memory = MmapOptions::new().len(need).no_reserve_swap().map_anon().map_err(|_| LoadError::NoMemory {
            what: "keys and values",
            need: need as u64 >> 20,
            have: 0,
        })?;
        // Attention jumps from tile to tile: in pages of 4 KiB every few of them is a walk through the page tables. A refusal costs speed
        // only.
        _ = memory.advise(Advice::HugePage);
        Ok(Cache { memory, layout })
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
            let source = region.start + from.0 as usize * region.stride;
            self.memory.copy_within(source..source + region.stride, region.start + to.0 as usize * region.stride);
        }
    }
}

impl Layout {
    fn new(program: &Program, kv: KvType, blocks: usize) -> Layout {
        let kind = kind(kv);
        let mut start = 0;
        let region = |state: &State| match *state {
            State::Kv { kv_heads, k_dim, v_dim, .. } => {
                let stride = kv_heads * (kind.key_tile(k_dim) + kind.value_tile(v_dim));
                let region = Region { kind, kv_heads, k_dim, v_dim, stride, start, bytes: stride * blocks };
                start += region.bytes;
                Some(region)
            }
            State::Conv { .. } | State::Recurrent { .. } => None,
        };
        Layout { regions: program.states.iter().map(region).collect(), blocks }
    }

    fn bytes(&self) -> usize {
        self.regions.iter().flatten().map(|r| r.bytes).sum()
    }

    /// # Panics
    /// When `id` is no key/value cache: a program's stores and attentions name such.
    pub fn region(&self, id: StateId) -> Region {
        self.regions[id.0 as usize].expect("a key/value cache")
    }
}

impl Region {
    /// The tile of a head's keys in a block.
    pub fn key_tile(&self, block: u32, head: usize) -> Range<usize> {
        let size = self.kind.key_tile(self.k_dim);
        let at = self.start + block as usize * self.stride + head * size;
        at..at + size
    }

    /// The tile of a head's values in a block.
    pub fn value_tile(&self, block: u32, head: usize) -> Range<usize> {
        let size = self.kind.value_tile(self.v_dim);
        let at = self.start + block as usize * self.stride + self.kv_heads * self.kind.key_tile(self.k_dim) + head * size;
        at..at + size
    }

    /// Everything from a head's first key tile to the end of the cache: block `i`'s is at `i · stride`.
    pub fn keys_of(&self, head: usize) -> Range<usize> {
        self.key_tile(0, head).start..self.start + self.bytes
    }

    /// As [`keys_of`](Self::keys_of), of the values.
    pub fn values_of(&self, head: usize) -> Range<usize> {
        self.value_tile(0, head).start..self.start + self.bytes
    }
}
