//! Attention over the cache, one key head and one row at a time: each stored key and value is read once for all query heads that share it.

use super::running::View;
use crate::backend::plain::ops::Attend;
use crate::backend::{BLOCK_TOKENS, KvType};
use crate::program::Op;
use hearth_kernels::quant::{Format, decode};

impl View<'_> {
    /// One a line and key head.
    pub fn attention_pieces(&self, index: usize) -> usize {
        let Op::Attention { cache, .. } = self.run.program.steps[index].op else { unreachable!("an attention") };
        self.step.lines(self.domain(index)).len() * self.run.layout.region(cache).kv_heads
    }

    pub fn attend(&self, index: usize, piece: usize) {
        let Op::Attention { q, cache, scale, window, softcap, sinks } = self.run.program.steps[index].op else { unreachable!("an attention") };
        let region = self.run.layout.region(cache);
        let (row, kv_head) = (piece / region.kv_heads, piece % region.kv_heads);
        let line = self.step.lines(self.domain(index))[row];
        let heads = q.groups / region.kv_heads;
        let first = window.map_or(0, |w| (line.position + 1).saturating_sub(w));
        let count = line.position + 1 - first;
        let (mut keys, mut values) = (vec![0.0; count * region.k_dim], vec![0.0; count * region.v_dim]);
        for position in first..=line.position {
            let block = self.step.blocks[line.sequence][position / BLOCK_TOKENS];
            let within = position % BLOCK_TOKENS;
            let at = region.keys(block, kv_head).start + within * region.k_bytes;
            // SAFETY: nobody writes to the cache in a stage that reads it.
            read_row(self.run.layout.kv, unsafe { self.cache.part(at..at + region.k_bytes) }, &mut keys[(position - first) * region.k_dim..][..region.k_dim]);
            let at = region.values(block, kv_head).start + within * region.v_bytes;
            // SAFETY: as above.
            read_row(self.run.layout.kv, unsafe { self.cache.part(at..at + region.v_bytes) }, &mut values[(position - first) * region.v_dim..][..region.v_dim]);
        }
        let q_row = self.rows(q, row..row + 1);
        let (out, floats) = self.result(index);
        for head in kv_head * heads..(kv_head + 1) * heads {
            let attend = Attend { keys: &keys, values: &values, scale, softcap, sink: sinks.map(|id| self.vector(id)[head]) };
            let at = row * floats + head * region.v_dim;
            // SAFETY: this head of this row is this piece's alone.
            let y = unsafe { out.part_mut(at..at + region.v_dim) };
            attend.head(&q_row[head * region.k_dim..][..region.k_dim], y);
        }
    }
}

fn read_row(kv: KvType, place: &[u8], x: &mut [f32]) {
    match kv {
        KvType::F32 => decode(Format::F32, place, x),
        KvType::F16 => decode(Format::F16, place, x),
        KvType::Q8_0 => {
            let mut padded = vec![0.0; x.len().next_multiple_of(32)];
            decode(Format::Q8_0, place, &mut padded);
            x.copy_from_slice(&padded[..x.len()]);
        }
    }
}
