//! Where keys and values lie. One lazily filled mapping per load: pages (large ones, where the system has them) exist once they are
//! written, so a long context costs memory only as far as it is used.
//!
//! For each cache of the program, then each group of blocks, then each head: the blocks' tiles, keys and values in turn. What is in a tile
//! is the kernels' business ([`hearth_kernels::cpu::kv`]).

use crate::backend::{BLOCK_TOKENS, BlockId, KvType, LoadError};
use crate::program::{Program, State, StateId};
use hearth_kernels::cpu::kv::{GROUP, Kind, POSITIONS, place};
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
    /// Bytes from a group of blocks to the next.
    pub stride: usize,
    /// Where the first group begins.
    start: usize,
    /// Bytes of all groups.
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
        let refused = |error| LoadError::Refused { what: "keys and values", need: need as u64 >> 20, error };
        let memory = MmapOptions::new().len(need).no_reserve_swap().map_anon().map_err(refused)?;
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
            for head in 0..region.kv_heads {
                self.memory.copy_within(region.pair(from.0, head), region.pair(to.0, head).start);
            }
        }
    }
}

impl Layout {
    fn new(program: &Program, kv: KvType, blocks: usize) -> Layout {
        let kind = kind(kv);
        let mut start = 0;
        let region = |state: &State| match *state {
            State::Kv { kv_heads, k_dim, v_dim, .. } => {
                let stride = GROUP * kv_heads * kind.pair(k_dim, v_dim);
                let region = Region { kind, kv_heads, k_dim, v_dim, stride, start, bytes: stride * blocks.div_ceil(GROUP) };
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
    /// A block's tiles of a head.
    fn pair(&self, block: u32, head: usize) -> Range<usize> {
        let pair = self.kind.pair(self.k_dim, self.v_dim);
        let at = self.start + head * GROUP * pair + place(block as usize, self.stride, pair);
        at..at + pair
    }

    /// The tile of a head's keys in a block.
    pub fn key_tile(&self, block: u32, head: usize) -> Range<usize> {
        let at = self.pair(block, head).start;
        at..at + self.kind.key_tile(self.k_dim)
    }

    /// The tile of a head's values in a block.
    pub fn value_tile(&self, block: u32, head: usize) -> Range<usize> {
        let pair = self.pair(block, head);
        pair.end - self.kind.value_tile(self.v_dim)..pair.end
    }

    /// Everything from a head's first tile to the end of the cache, as [`Cache`](hearth_kernels::cpu::kv::Cache) wants it.
    pub fn tiles_of(&self, head: usize) -> Range<usize> {
        self.pair(0, head).start..self.start + self.bytes
    }
}
