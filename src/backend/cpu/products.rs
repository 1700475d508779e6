//! Matrix products: rows of weights where they lie in the file, times the activations of all rows of the step.

use super::arena::bytes_of;
use super::feeds;
use super::rowwise::activation as kernel_activation;
use super::walk::{Scratch, View};
use crate::program::{Activation, Matrix, Op, Value};
use hearth_kernels::cpu::form::PIECE;
use hearth_kernels::cpu::{Activations, Columns, Form, Weights};
use std::ops::Range;

/// Most bytes of weights in one chunk for one token. On two cores of an Emerald Rapids 160 KiB are 2–5 % slower, 640 KiB no faster.
const CHUNK_BYTES: usize = 320 << 10;
/// The same for a few tokens, which wait for memory less.
const CHUNK_BYTES_FEW: usize = 192 << 10;
/// The same for a worker by itself. Nobody waits for its last chunk; what is left to mind is a neighbour, who gets the core between two.
const CHUNK_BYTES_ALONE: usize = 640 << 10;
/// Fewest, where there are more.
const CHUNK_BYTES_LEAST: usize = 16 << 10;
/// What the memory could have brought while a chunk begins: a cold run of addresses, and the claim. On two cores of an Emerald Rapids 4 to
/// 12 KiB are within 2 % of each other.
pub const START_BYTES: usize = 6 << 10;

/// Bytes of one chunk where `workers` share products of `all` bytes for some tokens. Starts cost `START / chunk` of the time, and whoever
/// claims the last chunk lets the others wait for `chunk / 2` on average, which is `chunk · workers / (2 · all)` of it: least in sum at
/// the root of `2 · START · all / workers`. (Of two products in one piece either counts, alone: the piece has two starts and two chunks.)
pub fn chunk_bytes(all: usize, workers: usize, tokens: usize) -> usize {
    let most = match (workers, tokens) {
        (1, 1) => return CHUNK_BYTES_ALONE,
        (_, 1) => CHUNK_BYTES,
        _ => CHUNK_BYTES_FEW,
    };
    (2 * START_BYTES as u64 * all as u64 / workers as u64).isqrt().clamp(CHUNK_BYTES_LEAST as u64, most as u64) as usize
}

impl<'a> View<'a> {
    /// Bytes of a product's weights, and its tokens in this step.
    pub fn product_size(&self, index: usize) -> (usize, usize) {
        let Op::Linear { weight, .. } = self.run.program.steps[index].op else { unreachable!("a product") };
        (self.weights(weight).bytes.len(), self.step.lines(self.domain(index)).len())
    }

    /// Weight rows of one piece of about `chunk` bytes, and of all. Where pieces convert what they make ([`gated_columns`](Self::gated_columns)
    /// other than 1), each is whole runs of `columns` in one [`PIECE`] of a panel.
    pub fn product_cut(&self, index: usize, chunk: usize, workers: usize, columns: usize) -> (usize, usize) {
        let Op::Linear { x, weight, .. } = self.run.program.steps[index].op else { unreachable!("a product") };
        let tokens = self.step.lines(self.domain(index)).len();
        if tokens == 0 {
            return (1, 0);
        }
        let weights = self.weights(weight);
        let form = self.form(weights, tokens);
        let tile = self.run.kernels.row_tile(weights.format, form, tokens).next_multiple_of(columns);
        let chunks = weights.bytes.len().div_ceil(chunk);
        // As many for each worker, where there is one for each.
        let chunks = if chunks > workers { (chunks + workers / 2) / workers * workers } else { chunks };
        // A panel is made once a tile, whatever the tile's row bytes: the smallest piece shares the work best.
        let each = if form.is_panel() || columns > 1 { tile } else { weight.rows.div_ceil(chunks.max(1)).next_multiple_of(tile) };
        debug_assert_eq!(x.floats(), weight.columns);
        debug_assert!(columns == 1 || PIECE.is_multiple_of(each), "{each} rows of columns that are converted");
        (each, weight.rows)
    }

    /// `y[r, o] = Σᵢ weight[o, i] · x[r, i] (+ bias[o])` for `o` in `rows`.
    pub fn product(&self, index: usize, rows: Range<usize>, scratch: &mut Scratch) {
        let tokens = self.step.lines(self.domain(index)).len();
        let (out, floats) = self.result(index);
        // SAFETY: these columns belong to this piece alone.
        let columns = unsafe { out.columns(tokens, floats, rows.clone()) };
        self.linear(index, rows, columns, scratch.kernel.as_mut());
    }

    /// `y = to + (weight · x (+ bias))` for rows `rows` of the weights.
    pub fn added_product(&self, linear: usize, added: usize, to: Value, rows: Range<usize>, scratch: &mut Scratch) {
        let tokens = self.step.lines(self.domain(added)).len();
        let size = tokens * rows.len();
        scratch.gates.resize(size.max(scratch.gates.len()), 0.0);
        let products = &mut scratch.gates[..size];
        self.linear(linear, rows.clone(), Columns::of(products, rows.len()), scratch.kernel.as_mut());
        let (out, floats) = self.result(added);
        let (operand, own) = (self.value(to.id), self.is_over(added, to));
        for (token, product) in products.chunks_exact(rows.len()).enumerate() {
            let part = token * floats + rows.start..token * floats + rows.end;
            // SAFETY: these columns of the result belong to this piece alone. So do they of an operand that has the same place.
            let y = unsafe { out.part_mut(part.clone()) };
            if own {
                self.run.kernels.add_scaled(y, 1.0, product);
            } else {
                // SAFETY: it was made by an earlier stage, and has another place.
                self.run.kernels.add(unsafe { operand.part(part) }, product, y);
            }
        }
    }

    /// `y = f(gate · x) · (up · x)` for rows `rows` of both.
    pub fn gated_product(&self, gate: usize, up: usize, gated: usize, activation: Activation, rows: Range<usize>, scratch: &mut Scratch) {
        let (Op::Linear { x, weight: g, .. }, Op::Linear { weight: u, .. }) =
            (&self.run.program.steps[gate].op, &self.run.program.steps[up].op)
        else {
            unreachable!("two products")
        };
        let tokens = self.step.lines(self.domain(gated)).len();
        let size = tokens * rows.len();
        scratch.gates.resize(size.max(scratch.gates.len()), 0.0);
        scratch.ups.resize(size.max(scratch.ups.len()), 0.0);
        let (gates, ups) = (&mut scratch.gates[..size], &mut scratch.ups[..size]);
        self.multiply(*g, rows.clone(), *x, tokens, Columns::of(gates, rows.len()), scratch.kernel.as_mut());
        self.multiply(*u, rows.clone(), *x, tokens, Columns::of(ups, rows.len()), scratch.kernel.as_mut());
        let activation = kernel_activation(activation);
        let each = gates.chunks_exact_mut(rows.len()).zip(ups.chunks_exact(rows.len()));
        let id = self.run.program.steps[gated].out.expect("it has a result");
        if self.run.places.find(id).is_some() {
            let (out, floats) = self.result(gated);
            // SAFETY: these columns belong to this piece alone.
            let mut out = unsafe { out.columns(tokens, floats, rows) };
            for (token, (gate, up)) in each.enumerate() {
                self.run.kernels.gated(activation, gate, up, out.token(token));
            }
            return;
        }
        // Nobody reads it as numbers: four bytes become one before they leave this core.
        let mut results = [0.0; PIECE];
        for (gate, up) in each {
            let results = &mut results[..rows.len()];
            self.run.kernels.gated(activation, gate, up, results);
            gate.copy_from_slice(results);
        }
        let feed = self.fed.feed_of(id);
        let (form, memory) = self.fed.forms(feed)[0];
        let bytes = form.bytes(rows.len(), tokens);
        scratch.panel.reserve(bytes);
        let width = self.run.feeds.feed(feed).value.width;
        self.run.kernels.quantize_columns(form, width, rows, gates, &mut scratch.panel.as_mut()[..bytes], |at, bytes| {
            // SAFETY: these columns belong to this piece alone, and who read what lay here before is done.
            unsafe { memory.part_mut(at..at + bytes.len()) }.copy_from_slice(bytes);
        });
    }

    /// The granularity of a gated product's pieces, in columns of its result: where they convert what they make, one scale's run.
    pub fn gated_columns(&self, gated: usize) -> usize {
        let id = self.run.program.steps[gated].out.expect("it has a result");
        if self.run.places.find(id).is_some() {
            return 1;
        }
        self.fed.forms(self.fed.feed_of(id))[0].0.per().expect("a panel")
    }

    /// Rows `rows` of a linear step, whose result is `out`.
    fn linear(&self, index: usize, rows: Range<usize>, mut out: Columns, scratch: &mut [u8]) {
        let Op::Linear { x, weight, bias } = self.run.program.steps[index].op else { unreachable!("a product") };
        self.multiply(weight, rows.clone(), x, out.tokens(), out.reborrow(), scratch);
        if let Some(bias) = bias {
            let bias = &self.vector(bias)[rows];
            for token in 0..out.tokens() {
                out.token(token).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }

    fn multiply(&self, weight: Matrix, rows: Range<usize>, x: Value, tokens: usize, out: Columns, scratch: &mut [u8]) {
        let weights = self.weights(weight);
        let form = self.form(weights, tokens);
        let bytes = match form {
            // A product that may take this form has its numbers kept: `feeds::may_be_numbers`.
            Form::F32 => bytes_of(self.rows(x, 0..tokens)),
            // SAFETY: the feed was finished by the stage before, and its memory is not reused while this value is read.
            _ => unsafe { self.fed.bytes(x.id, form, weights.cols, tokens) },
        };
        let row_bytes = weights.bytes.len() / weight.rows;
        let part = Weights { bytes: &weights.bytes[rows.start * row_bytes..rows.end * row_bytes], ..weights };
        self.run.kernels.mat_mul(part, Activations { form, bytes, tokens }, out, scratch);
    }

    fn form(&self, weights: Weights, tokens: usize) -> Form {
        feeds::form(self.run.kernels, weights.format, weights.cols, tokens, self.run.exact)
    }

    /// Scratch that the products of the program need in this step.
    pub fn product_scratch(&self) -> usize {
        let need = |matrix: Matrix, tokens: usize| {
            let weights = self.weights(matrix);
            self.run.kernels.scratch_bytes(weights.format, self.form(weights, tokens), weights.cols, tokens)
        };
        let of_step = |step: &crate::program::Step| match step.op {
            Op::Linear { weight, .. } => need(weight, self.step.lines(step.rows).len()),
            // Of each expert as many as picked it.
            Op::Moe { gate, up, down, .. } => {
                let of_any = |matrix| feeds::thresholds(self.run.kernels, self.weights(matrix).format).map(|tokens| need(matrix, tokens));
                [gate, up, down].into_iter().flat_map(of_any).max().unwrap_or(0)
            }
            _ => 0,
        };
        self.run.program.steps.iter().map(of_step).max().unwrap_or(0)
    }
}
