//! What sequences remember: keys and values in blocks of positions, in F32, F16 or Q8_0, and slots of f32 state.

use crate::backend::{BLOCK_TOKENS, BlockId, KvType, LoadOptions, SequenceState, SlotId};
use crate::program::{Program, State};
use hearth_kernels::quant::{Format, decode, encode};

/// One state of the program, for all blocks or all slots.
pub enum Memory {
    Kv { keys: Lines, values: Lines },
    Slots { floats: usize, data: Vec<f32> },
}

impl Memory {
    pub fn new(state: &State, options: &LoadOptions) -> Self {
        match *state {
            State::Kv { kv_heads, k_dim, v_dim, .. } => {
                Memory::Kv { keys: Lines::new(kv_heads, k_dim, options), values: Lines::new(kv_heads, v_dim, options) }
            }
            State::Conv { .. } | State::Recurrent { .. } => {
                let floats = state.slot_floats();
                Memory::Slots { floats, data: vec![0.0; floats * options.slots] }
            }
        }
    }

    /// The f32 state of one slot.
    ///
    /// # Panics
    /// When this is a key/value cache, or the slot was not reserved at load.
    pub fn slot(&mut self, slot: SlotId) -> &mut [f32] {
        let Memory::Slots { floats, data } = self else { panic!("a key/value cache has no slots") };
        &mut data[slot.0 as usize * *floats..][..*floats]
    }

    pub fn copy_block(&mut self, from: BlockId, to: BlockId) {
        if let Memory::Kv { keys, values } = self {
            keys.copy_block(from, to);
            values.copy_block(from, to);
        }
    }

    pub fn copy_slot(&mut self, from: SlotId, to: SlotId) {
        if let Memory::Slots { floats, data } = self {
            let start = from.0 as usize * *floats;
            data.copy_within(start..start + *floats, to.0 as usize * *floats);
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Memory::Kv { keys, values } => (keys.data.len() + values.data.len()) as u64,
            Memory::Slots { data, .. } => (data.len() * 4) as u64,
        }
    }
}

/// Keys, or values, of every position of every block: `[block, position, head]` lines of `width` numbers.
pub struct Lines {
    format: Format,
    heads: usize,
    width: usize,
    /// `width`, rounded up to whole blocks of the format.
    padded: usize,
    line_bytes: usize,
    data: Vec<u8>,
}

impl Lines {
    fn new(heads: usize, width: usize, options: &LoadOptions) -> Self {
        let (format, padded, line_bytes) = line(width, options.kv);
        let data = vec![0; line_bytes * heads * BLOCK_TOKENS * options.blocks];
        Self { format, heads, width, padded, line_bytes, data }
    }

    /// Stores the line of `head` at `position` of a sequence.
    pub fn put(&mut self, sequence: &SequenceState, position: usize, head: usize, x: &[f32]) {
        let mut padded = x.to_vec();
        padded.resize(self.padded, 0.0);
        let at = self.at(sequence, position, head);
        encode(self.format, &padded, &mut self.data[at..][..self.line_bytes]);
    }

    /// Reads the line of `head` at `position` of a sequence; `out` has `width` numbers.
    pub fn get(&self, sequence: &SequenceState, position: usize, head: usize, out: &mut [f32]) {
        let bytes = &self.data[self.at(sequence, position, head)..][..self.line_bytes];
        if self.padded == self.width {
            decode(self.format, bytes, out);
        } else {
            let mut padded = vec![0.0; self.padded];
            decode(self.format, bytes, &mut padded);
            out.copy_from_slice(&padded[..self.width]);
        }
    }

    fn at(&self, sequence: &SequenceState, position: usize, head: usize) -> usize {
        let block = sequence.blocks[position / BLOCK_TOKENS].0 as usize;
        ((block * BLOCK_TOKENS + position % BLOCK_TOKENS) * self.heads + head) * self.line_bytes
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let bytes = BLOCK_TOKENS * self.heads * self.line_bytes;
        let start = from.0 as usize * bytes;
        self.data.copy_within(start..start + bytes, to.0 as usize * bytes);
    }
}

/// Format, numbers and bytes of a line of `width` numbers. A head whose width is no multiple of a block is stored padded.
fn line(width: usize, kv: KvType) -> (Format, usize, usize) {
    let format = match kv {
        KvType::F32 => Format::F32,
        KvType::F16 => Format::F16,
        KvType::Q8_0 => Format::Q8_0,
    };
    let layout = format.layout();
    let padded = width.next_multiple_of(layout.weights);
    (format, padded, padded / layout.weights * layout.bytes)
}

/// Bytes that all states of a program take.
pub fn bytes(program: &Program, options: &LoadOptions) -> u64 {
    let of_state = |state: &State| match *state {
        State::Kv { kv_heads, k_dim, v_dim, .. } => {
            (line(k_dim, options.kv).2 + line(v_dim, options.kv).2) * kv_heads * BLOCK_TOKENS * options.blocks
        }
        State::Conv { .. } | State::Recurrent { .. } => state.slot_floats() * 4 * options.slots,
    };
    program.states.iter().map(|s| of_state(s) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_from_its_own_place_in_every_storage() {
        for kv in [KvType::F32, KvType::F16, KvType::Q8_0] {
            let options = LoadOptions { blocks: 3, kv, ..LoadOptions::default() };
            // 20 numbers: no whole block of Q8_0.
            let mut lines = Lines::new(2, 20, &options);
            let blocks = [BlockId(2), BlockId(0)];
            let sequence = SequenceState { blocks: &blocks, slot: None };
            let line = |seed: usize| (0..20).map(|i| ((seed * 7 + i) % 13) as f32 - 6.0).collect::<Vec<_>>();
            let places = [(0, 0), (0, 1), (1, 0), (BLOCK_TOKENS - 1, 1), (BLOCK_TOKENS, 0), (2 * BLOCK_TOKENS - 1, 1)];
            for (seed, (position, head)) in places.into_iter().enumerate() {
                lines.put(&sequence, position, head, &line(seed));
            }
            for (seed, (position, head)) in places.into_iter().enumerate() {
                let mut got = [0.0; 20];
                lines.get(&sequence, position, head, &mut got);
                let worst = got.iter().zip(line(seed)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 6.0 / 254.0, "{kv:?}, position {position}, head {head}: off by {worst}");
            }
        }
    }
}
