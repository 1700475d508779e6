//! 256 weights unpacked into memory: codes straight, and per 16 weights a scale and an offset. Simple loops over arrays of fixed size,
//! which a compiler turns into vector code; tiers without unpacking of their own compile it under their features.

use crate::quant::{Block, iq4_nl, iq4_xs, mxfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0};

/// `w[i] = scales[i/16] · codes[i] + offsets[i/16]`; what lies beyond a row's end is zeros.
pub struct Run {
    pub codes: [u8; 256],
    pub scales: [f32; 16],
    pub offsets: [f32; 16],
}

impl Run {
    pub const EMPTY: Run = Run { codes: [0; 256], scales: [0.0; 16], offsets: [0.0; 16] };
}

/// A format that unpacks into runs.
pub trait Unpack: Block {
    /// The largest code; with [`Unpack::SIGNED`] of either sign.
    const LARGEST: u8;
    /// Codes are i8, and there are no offsets.
    const SIGNED: bool = false;
    /// Scales differ from 16 weights to the next.
    const PER_16: bool = false;

    /// Block `index` of a run.
    fn unpack(&self, run: &mut Run, index: usize);
}

/// The blocks of a run, up to 256 weights.
#[inline(always)]
pub fn unpack<B: Unpack>(blocks: &[B], run: &mut Run) {
    for (i, block) in blocks.iter().enumerate() {
        block.unpack(run, i);
    }
    run.scales[blocks.len() * B::WEIGHTS / 16..].fill(0.0);
    run.offsets[blocks.len() * B::WEIGHTS / 16..].fill(0.0);
}

/// Sets what two pieces of 16 share.
#[inline(always)]
fn scale_32(run: &mut Run, group: usize, scale: f32, offset: f32) {
    for j in [2 * group, 2 * group + 1] {
        run.scales[j] = scale;
        run.offsets[j] = offset;
    }
}

/// Low nibbles, then high ones.
#[inline(always)]
fn nibbles(qs: &[u8; 16], codes: &mut [u8; 32]) {
    for i in 0..16 {
        codes[i] = qs[i] & 15;
        codes[i + 16] = qs[i] >> 4;
    }
}

#[inline(always)]
fn group(run: &mut Run, index: usize) -> &mut [u8; 32] {
    (&mut run.codes[32 * index..][..32]).try_into().expect("32 codes")
}

/// Adds the fifth bits: bit `i` of the word is weight `i`'s.
#[inline(always)]
fn fifth_bits(qh: [u8; 4], codes: &mut [u8; 32]) {
    for i in 0..32 {
        codes[i] |= (qh[i / 8] >> (i % 8) & 1) << 4;
    }
}

impl Unpack for q4_0::Block {
    const LARGEST: u8 = 15;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        scale_32(run, index, self.d.get(), -8.0 * self.d.get());
    }
}

impl Unpack for q4_1::Block {
    const LARGEST: u8 = 15;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        scale_32(run, index, self.d.get(), self.m.get());
    }
}

impl Unpack for q5_0::Block {
    const LARGEST: u8 = 31;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        fifth_bits(self.qh, group(run, index));
        scale_32(run, index, self.d.get(), -16.0 * self.d.get());
    }
}

impl Unpack for q5_1::Block {
    const LARGEST: u8 = 31;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        fifth_bits(self.qh, group(run, index));
        scale_32(run, index, self.d.get(), self.m.get());
    }
}

impl Unpack for q8_0::Block {
    const LARGEST: u8 = 128;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        *group(run, index) = self.qs.map(|q| q as u8);
        scale_32(run, index, self.d.get(), 0.0);
    }
}

/// Codes to levels.
#[inline(always)]
fn look_up(levels: &[i8; 16], codes: &mut [u8; 32]) {
    for code in codes {
        *code = levels[usize::from(*code)] as u8;
    }
}

impl Unpack for iq4_nl::Block {
    const LARGEST: u8 = 127;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        look_up(&iq4_nl::LEVELS, group(run, index));
        scale_32(run, index, self.d.get(), 0.0);
    }
}

impl Unpack for mxfp4::Block {
    const LARGEST: u8 = 12;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, index: usize) {
        nibbles(&self.qs, group(run, index));
        look_up(&mxfp4::DOUBLED, group(run, index));
        scale_32(run, index, mxfp4::half_power(self.e), 0.0);
    }
}

impl Unpack for iq4_xs::Block {
    const LARGEST: u8 = 127;
    const SIGNED: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        let d = self.d.get();
        for (j, qs) in self.qs.as_chunks::<16>().0.iter().enumerate() {
            nibbles(qs, group(run, j));
            look_up(&iq4_nl::LEVELS, group(run, j));
            scale_32(run, j, d * f32::from(self.scale(j)), 0.0);
        }
    }
}

/// Nibbles of `Q4_K` and `Q5_K`: 32 bytes hold a group in the low and one in the high nibbles.
#[inline(always)]
fn nibbles_of_groups(qs: &[u8; 128], run: &mut Run) {
    for (qs, codes) in qs.as_chunks::<32>().0.iter().zip(run.codes.as_chunks_mut::<64>().0) {
        for i in 0..32 {
            codes[i] = qs[i] & 15;
            codes[i + 32] = qs[i] >> 4;
        }
    }
}

#[inline(always)]
fn scales_and_minima(d: f32, dmin: f32, scales: &[u8; 12], run: &mut Run) {
    for j in 0..8 {
        let (s, m) = q4_k::scale_and_minimum(scales, j);
        scale_32(run, j, d * f32::from(s), -dmin * f32::from(m));
    }
}

impl Unpack for q4_k::Block {
    const LARGEST: u8 = 15;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        nibbles_of_groups(&self.qs, run);
        scales_and_minima(self.d.get(), self.dmin.get(), &self.scales, run);
    }
}

impl Unpack for q5_k::Block {
    const LARGEST: u8 = 31;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        nibbles_of_groups(&self.qs, run);
        for (j, codes) in run.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for i in 0..32 {
                codes[i] |= (self.qh[i] >> j & 1) << 4;
            }
        }
        scales_and_minima(self.d.get(), self.dmin.get(), &self.scales, run);
    }
}

impl Unpack for q6_k::Block {
    const LARGEST: u8 = 63;
    const PER_16: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        for (half, codes) in run.codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (ql, qh) = (&self.ql[64 * half..][..64], &self.qh[32 * half..][..32]);
            for i in 0..32 {
                codes[i] = ql[i] & 15 | (qh[i] & 3) << 4;
                codes[i + 32] = ql[i + 32] & 15 | (qh[i] >> 2 & 3) << 4;
                codes[i + 64] = ql[i] >> 4 | (qh[i] >> 4 & 3) << 4;
                codes[i + 96] = ql[i + 32] >> 4 | (qh[i] >> 6) << 4;
            }
        }
        let d = self.d.get();
        for j in 0..16 {
            run.scales[j] = d * f32::from(self.scales[j]);
            run.offsets[j] = -32.0 * run.scales[j];
        }
    }
}

/// The 2-bit fields of `Q2_K` and `Q3_K`.
#[inline(always)]
fn pairs_of_bits(qs: &[u8; 64], run: &mut Run) {
    for (qs, codes) in qs.as_chunks::<32>().0.iter().zip(run.codes.as_chunks_mut::<128>().0) {
        for i in 0..32 {
            for quarter in 0..4 {
                codes[32 * quarter + i] = qs[i] >> (2 * quarter) & 3;
            }
        }
    }
}

impl Unpack for q2_k::Block {
    const LARGEST: u8 = 3;
    const PER_16: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        pairs_of_bits(&self.qs, run);
        let (d, dmin) = (self.d.get(), self.dmin.get());
        for j in 0..16 {
            run.scales[j] = d * f32::from(self.scales[j] & 15);
            run.offsets[j] = -dmin * f32::from(self.scales[j] >> 4);
        }
    }
}

impl Unpack for q3_k::Block {
    const LARGEST: u8 = 7;
    const PER_16: bool = true;

    #[inline(always)]
    fn unpack(&self, run: &mut Run, _: usize) {
        pairs_of_bits(&self.qs, run);
        for (j, codes) in run.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for i in 0..32 {
                codes[i] |= (self.hmask[i] >> j & 1) << 2;
            }
        }
        let d = self.d.get();
        for j in 0..16 {
            run.scales[j] = d * f32::from(q3_k::scale(&self.scales, j));
            run.offsets[j] = -4.0 * run.scales[j];
        }
    }
}
