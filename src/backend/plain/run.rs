//! A step through the program, operation by operation.

use super::cache::Memory;
use super::ops::{self, Attend, Delta, Rows};
use crate::backend::{Batch, BlockId, DeviceInfo, LoadError, LoadOptions, Loaded, Pace, SlotId, StepError, StepOut};
use crate::gguf::Gguf;
use crate::program::{Matrix, Op, Plan, Program, Role, Rope, Rows as Domain, State, StateId, Value, WeightId, plan};
use crate::units::Bytes;
use hearth_kernels::quant::decode;
use std::sync::Arc;
use std::time::Instant;

/// A loaded model.
pub struct Running {
    info: DeviceInfo,
    program: Arc<Program>,
    file: Arc<Gguf>,
    options: LoadOptions,
    plan: Plan,
    /// The vectors among the weights, as f32; empty for matrices.
    vectors: Vec<Vec<f32>>,
    memory: Vec<Memory>,
    /// By [`Plan::buffers`].
    buffers: Vec<Vec<f32>>,
}

/// A row of one of the two domains.
#[derive(Clone, Copy)]
struct Line {
    /// Index into the batch's sequences.
    sequence: usize,
    position: usize,
    token: usize,
    /// Index into the batch's rows.
    row: usize,
}

impl Running {
    pub fn new(program: Arc<Program>, file: Arc<Gguf>, options: &LoadOptions, info: DeviceInfo) -> Result<Self, LoadError> {
        let mut vectors = Vec::new();
        for weight in &program.weights {
            let refuse = |error: crate::gguf::GgufError| LoadError::Tensor { tensor: weight.name.clone(), reason: error.fault.to_string() };
            let view = file.tensor(&weight.name).map_err(refuse)?;
            let mut numbers = Vec::new();
            if weight.role == Role::Vector {
                numbers.resize(weight.shape.iter().product(), 0.0);
                decode(view.format, view.data, &mut numbers);
            }
            vectors.push(numbers);
        }
        let memory = program.states.iter().map(|state| Memory::new(state, options)).collect();
        let plan = plan(&program);
        let buffers = vec![Vec::new(); plan.buffers.len()];
        Ok(Self { info, program, file, options: options.clone(), plan, vectors, memory, buffers })
    }

    fn read(&self, x: Value) -> &[f32] {
        &self.buffers[self.plan.buffer(x.id)]
    }

    fn vector(&self, id: WeightId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }

    fn rows(&self, matrix: Matrix) -> Rows<'_> {
        let view = self.file.tensor(&self.program.weight(matrix.weight).name).expect("every weight was found at load");
        Rows { format: view.format, bytes: view.data, row_bytes: view.data.len() / view.rows() }
    }

    /// Frequencies and magnitude.
    fn turn(&self, rope: &Rope) -> (Vec<f32>, f32) {
        let factors = rope.factors.for_context(self.options.context).map(|id| self.vector(id));
        (rope.frequencies(factors), rope.magnitude())
    }

    /// Computes one operation over `lines` into `y`, `[lines, …]`.
    fn compute(&mut self, op: &Op, lines: &[Line], batch: &Batch, y: &mut [f32]) {
        match *op {
            Op::Embed { table } => {
                let rows = self.rows(table);
                for (line, y) in lines.iter().zip(y.chunks_exact_mut(table.columns)) {
                    rows.decode(line.token, y);
                }
            }
            Op::Linear { x, weight, bias } => {
                ops::linear(&self.rows(weight), weight, bias.map(|b| self.vector(b)), self.read(x), y);
            }
            Op::RmsNorm { x, weight, eps } => {
                let weight = weight.map(|w| self.vector(w));
                each_group(x, self.read(x), y, |x, y| ops::rms_norm(x, weight, eps, y));
            }
            Op::LayerNorm { x, weight, bias, eps } => {
                let (weight, bias) = (weight.map(|w| self.vector(w)), bias.map(|b| self.vector(b)));
                each_group(x, self.read(x), y, |x, y| ops::layer_norm(x, weight, bias, eps, y));
            }
            Op::L2Norm { x, eps } => each_group(x, self.read(x), y, |x, y| ops::l2_norm(x, eps, y)),
            Op::Rope { x, ref rope } => {
                let (frequencies, magnitude) = self.turn(rope);
                let rows = self.read(x).chunks_exact(x.floats()).zip(y.chunks_exact_mut(x.floats()));
                for (line, (row, y)) in lines.iter().zip(rows) {
                    each_group(x, row, y, |x, y| ops::rope(x, rope.pairing, &frequencies, magnitude, line.position, y));
                }
            }
            Op::Store { k, v, cache } => self.store(k, v, cache, lines, batch),
            Op::Attention { .. } => self.attend(op, lines, batch, y),
            Op::Gated { gate, up, activation } => {
                pairwise(self.read(gate), self.read(up), y, |gate, up| ops::activate(activation, gate) * up);
            }
            Op::Apply { x, activation } => elementwise(self.read(x), y, |x| ops::activate(activation, x)),
            Op::Moe { .. } => self.moe(op, y),
            Op::ShortConv { x, kernel, state } => {
                let (memory, kernel) = (&mut self.memory[state.0 as usize], &self.vectors[kernel.0 as usize]);
                let rows = self.buffers[self.plan.buffer(x.id)].chunks_exact(x.floats()).zip(y.chunks_exact_mut(x.floats()));
                for (line, (x, y)) in lines.iter().zip(rows) {
                    ops::short_conv(kernel, memory.slot(slot(batch, *line)), x, y);
                }
            }
            Op::DeltaRule { .. } => self.delta_rule(op, lines, batch, y),
            Op::Add { a, b } => pairwise(self.read(a), self.read(b), y, |a, b| a + b),
            Op::Mul { a, b } => pairwise(self.read(a), self.read(b), y, |a, b| a * b),
            Op::MulVector { x, weight } => {
                let weight = self.vector(weight);
                each_group(x, self.read(x), y, |x, y| {
                    for (i, (x, y)) in x.iter().zip(y).enumerate() {
                        *y = x * weight[i % weight.len()];
                    }
                });
            }
            Op::Scale { x, by } => elementwise(self.read(x), y, |x| x * by),
            Op::SoftCap { x, cap } => elementwise(self.read(x), y, |x| ops::soft_cap(x, cap)),
            Op::Slice { x, start, width } => {
                for (x, y) in self.read(x).chunks_exact(x.width).zip(y.chunks_exact_mut(width)) {
                    y.copy_from_slice(&x[start..start + width]);
                }
            }
            Op::Select { x } => {
                for (line, y) in lines.iter().zip(y.chunks_exact_mut(x.floats())) {
                    y.copy_from_slice(&self.read(x)[line.row * x.floats()..][..x.floats()]);
                }
            }
        }
    }

    fn store(&mut self, k: Value, v: Value, cache: StateId, lines: &[Line], batch: &Batch) {
        let Memory::Kv { keys, values } = &mut self.memory[cache.0 as usize] else { panic!("stores go to key/value caches") };
        for (lines_of, x) in [(keys, k), (values, v)] {
            let data = &self.buffers[self.plan.buffer(x.id)];
            for (line, row) in lines.iter().zip(data.chunks_exact(x.floats())) {
                for (head, x) in row.chunks_exact(x.width).enumerate() {
                    lines_of.put(&batch.sequences[line.sequence], line.position, head, x);
                }
            }
        }
    }

    fn attend(&self, op: &Op, lines: &[Line], batch: &Batch, y: &mut [f32]) {
        let Op::Attention { q, cache, scale, window, softcap, sinks } = *op else { unreachable!() };
        let State::Kv { kv_heads, k_dim, v_dim, .. } = *self.program.state(cache) else { panic!("attention reads key/value caches") };
        let Memory::Kv { keys, values } = &self.memory[cache.0 as usize] else { panic!("attention reads key/value caches") };
        let heads_each = q.groups / kv_heads;
        let rows = self.read(q).chunks_exact(q.floats()).zip(y.chunks_exact_mut(q.groups * v_dim));
        for (line, (q_row, y_row)) in lines.iter().zip(rows) {
            let sequence = &batch.sequences[line.sequence];
            let first = window.map_or(0, |w| (line.position + 1).saturating_sub(w));
            let seen = first..=line.position;
            let (mut k, mut v) = (vec![0.0; (line.position + 1 - first) * k_dim], vec![0.0; (line.position + 1 - first) * v_dim]);
            for kv_head in 0..kv_heads {
                for (position, (k, v)) in seen.clone().zip(k.chunks_exact_mut(k_dim).zip(v.chunks_exact_mut(v_dim))) {
                    keys.get(sequence, position, kv_head, k);
                    values.get(sequence, position, kv_head, v);
                }
                for head in kv_head * heads_each..(kv_head + 1) * heads_each {
                    let sink = sinks.map(|id| self.vector(id)[head]);
                    let attend = Attend { keys: &k, values: &v, scale, softcap, sink };
                    attend.head(&q_row[head * k_dim..][..k_dim], &mut y_row[head * v_dim..][..v_dim]);
                }
            }
        }
    }

    fn moe(&self, op: &Op, y: &mut [f32]) {
        let Op::Moe { x, router, gate, up, down, used, gating, normalise, scale, activation, experts } = *op else { unreachable!() };
        let (gate_rows, up_rows, down_rows) = (self.rows(gate), self.rows(up), self.rows(down));
        let expert = |matrix: Matrix, e: usize| Matrix { first_row: matrix.rows / experts * e, rows: matrix.rows / experts, ..matrix };
        let width = gate.rows / experts;
        let (mut g, mut u, mut h, mut d) = (vec![0.0; width], vec![0.0; width], vec![0.0; width], vec![0.0; x.floats()]);
        let rows = self.read(x).chunks_exact(x.floats()).zip(self.read(router).chunks_exact(experts));
        for ((x, scores), y) in rows.zip(y.chunks_exact_mut(x.floats())) {
            y.fill(0.0);
            for (e, weight) in ops::pick_experts(scores, used, gating, normalise, scale) {
                ops::linear(&gate_rows, expert(gate, e), None, x, &mut g);
                ops::linear(&up_rows, expert(up, e), None, x, &mut u);
                pairwise(&g, &u, &mut h, |g, u| ops::activate(activation, g) * u);
                ops::linear(&down_rows, expert(down, e), None, &h, &mut d);
                for (y, d) in y.iter_mut().zip(&d) {
                    *y += weight * d;
                }
            }
        }
    }

    fn delta_rule(&mut self, op: &Op, lines: &[Line], batch: &Batch, y: &mut [f32]) {
        let Op::DeltaRule { q, k, v, decay, beta, state, scale } = *op else { unreachable!() };
        let memory = &mut self.memory[state.0 as usize];
        let row = |x: Value, r: usize| &self.buffers[self.plan.buffer(x.id)][r * x.floats()..][..x.floats()];
        for (r, (line, y)) in lines.iter().zip(y.chunks_exact_mut(v.floats())).enumerate() {
            let matrices = memory.slot(slot(batch, *line)).chunks_exact_mut(k.width * v.width);
            for (head, (matrix, y)) in matrices.zip(y.chunks_exact_mut(v.width)).enumerate() {
                let key_head = head % k.groups;
                let (q, k) = (&row(q, r)[key_head * q.width..][..q.width], &row(k, r)[key_head * k.width..][..k.width]);
                let v = &row(v, r)[head * v.width..][..v.width];
                let (decay, beta) = (row(decay, r)[head], row(beta, r)[head]);
                Delta { q, k, v, decay, beta, scale }.advance(matrix, y);
            }
        }
    }
}

impl Loaded for Running {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn step(&mut self, batch: &Batch<'_>, out: &mut StepOut) -> Result<(), StepError> {
        let start = Instant::now();
        let lines: Vec<Line> = batch
            .rows
            .iter()
            .enumerate()
            .map(|(row, r)| Line { sequence: r.sequence as usize, position: r.position as usize, token: r.token.0 as usize, row })
            .collect();
        let wanted: Vec<Line> = lines.iter().filter(|l| batch.rows[l.row].wants_logits).copied().collect();
        for line in &lines {
            assert!(line.token < self.program.vocabulary, "token {} of a vocabulary of {}", line.token, self.program.vocabulary);
            assert!(line.position < self.options.context, "position {} of a context of {}", line.position, self.options.context);
            if line.position == 0 && self.program.needs_slots() {
                let slot = slot(batch, *line);
                self.memory.iter_mut().filter(|m| matches!(m, Memory::Slots { .. })).for_each(|m| m.slot(slot).fill(0.0));
            }
        }
        let program = self.program.clone();
        for step in &program.steps {
            let lines = if step.rows == Domain::All { &lines } else { &wanted };
            let Some(id) = step.out else {
                self.compute(&step.op, lines, batch, &mut []);
                continue;
            };
            let buffer = self.plan.buffer(id);
            let mut y = std::mem::take(&mut self.buffers[buffer]);
            y.clear();
            y.resize(program.value(id).floats * lines.len(), 0.0);
            self.compute(&step.op, lines, batch, &mut y);
            self.buffers[buffer] = y;
        }
        out.logits.clear();
        out.logits.extend_from_slice(self.read(program.logits));
        (out.time, out.threads) = (start.elapsed(), 1);
        Ok(self.file.check()?)
    }

    fn copy_blocks(&mut self, moves: &[(BlockId, BlockId)]) -> Result<(), StepError> {
        for (from, to) in moves {
            self.memory.iter_mut().for_each(|m| m.copy_block(*from, *to));
        }
        Ok(())
    }

    fn copy_slots(&mut self, moves: &[(SlotId, SlotId)]) -> Result<(), StepError> {
        for (from, to) in moves {
            self.memory.iter_mut().for_each(|m| m.copy_slot(*from, *to));
        }
        Ok(())
    }

    /// One thread has one pace.
    fn limit(&mut self, _: Pace) {}

    fn memory(&self) -> Bytes {
        let buffers: usize = self.buffers.iter().map(|b| b.capacity() * 4).sum();
        Bytes(self.memory.iter().map(Memory::bytes).sum::<u64>() + buffers as u64)
    }
}

/// The slot of a line's sequence.
///
/// # Panics
/// When the sequence has none: who steps a program that needs slots gives each sequence one.
fn slot(batch: &Batch, line: Line) -> SlotId {
    batch.sequences[line.sequence].slot.expect("a program with slots gets a slot for each sequence")
}

fn each_group(operand: Value, x: &[f32], y: &mut [f32], mut f: impl FnMut(&[f32], &mut [f32])) {
    for (x, y) in x.chunks_exact(operand.width).zip(y.chunks_exact_mut(operand.width)) {
        f(x, y);
    }
}

fn elementwise(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    for (x, y) in x.iter().zip(y) {
        *y = f(*x);
    }
}

fn pairwise(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    for ((a, b), y) in a.iter().zip(b).zip(y) {
        *y = f(*a, *b);
    }
}
