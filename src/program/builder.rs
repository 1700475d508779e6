//! Records a program. Methods take `&self`, so calls nest and a model file reads like its paper; a first mistake (shapes that don't
//! meet, a tensor asked for in two shapes) is kept and told by [`Builder::finish`], naming the operation and the tensor.
//!
//! Tensors are named as the file has them, without `.weight` for matrices and norms; inside [`Builder::layers`] names stand under
//! `blk.{i}.`. A matrix brings its `.bias` along where the file has one. Every size is given, so the program says what shape each
//! tensor must have, and a file is checked against that.

use super::*;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// A mistake in a program: a bug of an architecture file, or settings that don't fit together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProgramError {
    #[error("{op}{at}: {reason}")]
    Shape { op: &'static str, at: String, reason: String },
    #[error("tensor `{tensor}` is asked for as {first:?} and as {second:?}")]
    TwoShapes { tensor: String, first: Vec<usize>, second: Vec<usize> },
}

/// Records operations under a prefix of tensor names.
#[derive(Clone)]
pub struct Builder<'a> {
    prefix: String,
    /// Number of this layer; 0 outside of layers.
    pub layer: usize,
    has: &'a dyn Fn(&str) -> bool,
    recording: Rc<RefCell<Recording>>,
}

/// What an attention does beside `softmax(scale · q·k) · v`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// `None`: 1 / √k_dim.
    pub scale: Option<f32>,
    pub window: Option<usize>,
    pub softcap: Option<f32>,
    /// Name of a vector of one number a head.
    pub sinks: Option<&'static str>,
}

/// Full attention with the usual scale.
pub const FULL: AttentionOptions = AttentionOptions { scale: None, window: None, softcap: None, sinks: None };

/// Which experts, and how their scores become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoeOptions {
    pub experts: usize,
    pub used: usize,
    /// Width inside an expert.
    pub width: usize,
    pub gating: Gating,
    pub normalise: bool,
    pub scale: f32,
    pub activation: Activation,
}

impl MoeOptions {
    /// As in Mixtral (arXiv 2401.04088) and most others: softmax over all experts, the weights of the used ones made to sum to 1.
    pub fn mixtral(experts: usize, used: usize, width: usize) -> MoeOptions {
        let (gating, activation) = (Gating::Softmax, Activation::Silu);
        MoeOptions { experts, used, width, gating, normalise: true, scale: 1.0, activation }
    }
}

#[derive(Default)]
struct Recording {
    steps: Vec<Step>,
    values: Vec<ValueInfo>,
    weights: Vec<Weight>,
    states: Vec<State>,
    vocabulary: usize,
    error: Option<ProgramError>,
}

impl<'a> Builder<'a> {
    /// `has` tells whether the file has a tensor of that full name.
    pub fn new(has: &'a dyn Fn(&str) -> bool) -> Self {
        Builder { prefix: String::new(), layer: 0, has, recording: Rc::default() }
    }

    /// A builder for each layer, whose names stand under `blk.{i}.`.
    pub fn layers(&self, count: usize) -> impl Iterator<Item = Builder<'a>> {
        let outer = self.clone();
        (0..count).map(move |layer| Builder { prefix: format!("blk.{layer}."), layer, ..outer.clone() })
    }

    /// Whether the file has this tensor (full name below the prefix, with its suffix).
    pub fn has(&self, name: &str) -> bool {
        (self.has)(&self.full(name))
    }

    /// The program: rows without logits skip what only logits need, and what nothing reads is left out.
    pub fn finish(self, name: &str, logits: Value) -> Result<Program, ProgramError> {
        let recording = self.recording.take();
        if let Some(error) = recording.error {
            return Err(error);
        }
        let program = Program {
            name: name.to_owned(),
            steps: recording.steps,
            values: recording.values,
            weights: recording.weights,
            states: recording.states,
            logits,
            vocabulary: recording.vocabulary,
        };
        Ok(rows::narrow(program))
    }

    // ---- from tokens, to logits -------------------------------------------------------------------------------------------------

    /// Rows of `NAME.weight` `[vocabulary, width]` by token id. → `[n, width]`
    pub fn embed(&self, name: &str, vocabulary: usize, width: usize) -> Value {
        let weight = self.weight(format!("{name}.weight"), &[vocabulary, width], Role::Matrix);
        self.recording.borrow_mut().vocabulary = vocabulary;
        self.push(Op::Embed { table: Matrix { weight, first_row: 0, rows: vocabulary, columns: width } }, 1, width)
    }

    /// The output head: `output` where the file has it, else the embedding table over again. → `[n, vocabulary]`
    pub fn head(&self, x: Value) -> Value {
        let vocabulary = self.recording.borrow().vocabulary;
        let name = if self.has("output.weight") { "output" } else { "token_embd" };
        self.linear(x, name, vocabulary)
    }

    // ---- products ---------------------------------------------------------------------------------------------------------------

    /// `NAME.weight` `[out, width of x]`, plus `NAME.bias` or times `NAME.scale` (one number) where the file has it. → `[n, out]`
    pub fn linear(&self, x: Value, name: &str, out: usize) -> Value {
        self.linear_part(x, name, 0..out, out)
    }

    /// The same with an own name for the bias, which must be there.
    pub fn linear_bias(&self, x: Value, name: &str, bias: &str, out: usize) -> Value {
        self.rows_of(x, name, 0..out, out, Some(bias))
    }

    /// Rows `part` of a tensor that holds `whole` rows: one of several projections fused in the file. → `[n, part]`
    pub fn linear_part(&self, x: Value, name: &str, part: Range<usize>, whole: usize) -> Value {
        let (bias, scale) = (format!("{name}.bias"), format!("{name}.scale"));
        let (has_bias, has_scale) = (self.has(&bias), self.has(&scale));
        if has_bias && (has_scale || part.len() != whole) {
            return self.fail("linear", &bias, "a bias on a fused or scaled projection is not supported".into());
        }
        let y = self.rows_of(x, name, part, whole, has_bias.then_some(&bias));
        if has_scale { self.mul_vector(y, &scale, 1) } else { y }
    }

    /// Queries, keys and values of heads: `attn_q`, `attn_k` and `attn_v`, or, where the file has that, the rows of all three one after
    /// the other in `attn_qkv`. → `[n, heads, k_dim]`, `[n, kv_heads, k_dim]`, `[n, kv_heads, v_dim]`
    pub fn qkv(&self, x: Value, heads: usize, kv_heads: usize, k_dim: usize, v_dim: usize) -> (Value, Value, Value) {
        const FUSED: &str = "attn_qkv";
        let (keys, values) = (heads * k_dim, (heads + kv_heads) * k_dim); // where they begin
        let whole = values + kv_heads * v_dim;
        let biased = self.has("attn_qkv.bias").then(|| self.linear(x, FUSED, whole));
        let is_fused = self.has("attn_qkv.weight");
        let part = |name: &str, rows: Range<usize>| {
            let bias = format!("{name}.bias");
            match biased {
                Some(all) => self.slice(all, rows),
                None if is_fused => self.rows_of(x, FUSED, rows, whole, self.has(&bias).then_some(&bias)),
                None => self.linear(x, name, rows.len()),
            }
        };
        let (q, k, v) = (part("attn_q", 0..keys), part("attn_k", keys..values), part("attn_v", values..whole));
        (self.heads(q, heads), self.heads(k, kv_heads), self.heads(v, kv_heads))
    }

    /// `down(silu(gate x) · up x)`, hidden width `width`. → as `x`
    pub fn swiglu(&self, x: Value, gate: &str, up: &str, down: &str, width: usize) -> Value {
        let hidden = self.gated(Activation::Silu, self.linear(x, gate, width), self.linear(x, up, width));
        self.linear(hidden, down, x.floats())
    }

    /// `down(gelu(gate x) · up x)`, hidden width `width`. → as `x`
    pub fn geglu(&self, x: Value, gate: &str, up: &str, down: &str, width: usize) -> Value {
        let hidden = self.gated(Activation::GeluTanh, self.linear(x, gate, width), self.linear(x, up, width));
        self.linear(hidden, down, x.floats())
    }

    /// Experts `ffn_{gate,up,down}_exps` picked by the router `ffn_gate_inp`. → as `x`
    pub fn moe(&self, x: Value, options: MoeOptions) -> Value {
        let MoeOptions { experts, used, width, gating, normalise, scale, activation } = options;
        let dim = x.floats();
        if used == 0 || used > experts {
            return self.fail("moe", "ffn_gate_exps", format!("{used} of {experts} experts"));
        }
        if let Some(scale) = ["gate", "up", "down"].map(|part| format!("ffn_{part}_exps.scale")).iter().find(|name| self.has(name)) {
            return self.fail("moe", scale, "a scale for each expert is not supported".into());
        }
        let router = self.linear(x, "ffn_gate_inp", experts);
        let stack = |name: &str, out: usize, columns: usize| {
            let weight = self.weight(format!("{name}.weight"), &[experts, out, columns], Role::Matrix);
            Matrix { weight, first_row: 0, rows: experts * out, columns }
        };
        let (gate, up, down) = (stack("ffn_gate_exps", width, dim), stack("ffn_up_exps", width, dim), stack("ffn_down_exps", dim, width));
        self.push(Op::Moe { x, router, gate, up, down, experts, used, gating, normalise, scale, activation }, 1, dim)
    }

    // ---- attention and other memory ---------------------------------------------------------------------------------------------

    /// Looks at a projection as heads. → `[n, heads, …]`
    pub fn heads(&self, x: Value, heads: usize) -> Value {
        if heads == 0 || !x.floats().is_multiple_of(heads) {
            return self.fail("heads", "", format!("{} numbers don't make {heads} heads", x.floats()));
        }
        Value { id: x.id, groups: heads, width: x.floats() / heads }
    }

    /// Looks at heads as one line. → `[n, heads · width]`
    pub fn flat(&self, x: Value) -> Value {
        Value { id: x.id, groups: 1, width: x.floats() }
    }

    /// Turns each head. → as `x`
    pub fn rope(&self, x: Value, rope: Rope) -> Value {
        if rope.dims == 0 || !rope.dims.is_multiple_of(2) || rope.dims > x.width {
            return self.fail("rope", "", format!("cannot turn {} of {} elements", rope.dims, x.width));
        }
        self.push(Op::Rope { x, rope }, x.groups, x.width)
    }

    /// The tensor of rope factors for `dims` elements a head.
    pub fn rope_factors(&self, name: &str, dims: usize) -> WeightId {
        self.vector(name, dims / 2)
    }

    /// Stores `k` `[n, kv_heads, k_dim]` and `v` `[n, kv_heads, v_dim]` in a cache of their own and attends. → `[n, heads, v_dim]`
    pub fn attention(&self, q: Value, k: Value, v: Value, options: AttentionOptions) -> Value {
        let cache = self.store(k, v, options.window);
        self.attend(q, cache, options)
    }

    /// Declares a cache and stores keys and values of this step in it.
    pub fn store(&self, k: Value, v: Value, window: Option<usize>) -> StateId {
        if k.groups != v.groups {
            self.fail("store", "", format!("{} key heads but {} value heads", k.groups, v.groups));
        }
        let cache = self.state(State::Kv { kv_heads: k.groups, k_dim: k.width, v_dim: v.width, window });
        self.recording.borrow_mut().steps.push(Step { op: Op::Store { k, v, cache }, out: None, rows: Rows::All });
        cache
    }

    /// Attends to a cache stored before, by this layer or an earlier one. → `[n, heads, v_dim]`
    pub fn attend(&self, q: Value, cache: StateId, options: AttentionOptions) -> Value {
        let state = self.recording.borrow().states[cache.0 as usize];
        let State::Kv { kv_heads, k_dim, v_dim, window } = state else {
            return self.fail("attention", "", "its state is no key/value cache".into());
        };
        if q.width != k_dim || !q.groups.is_multiple_of(kv_heads) {
            return self.fail("attention", "", format!("queries {}×{} don't meet keys {kv_heads}×{k_dim}", q.groups, q.width));
        }
        if window != options.window {
            return self.fail("attention", "", format!("window {:?} over a cache of window {window:?}", options.window));
        }
        let sinks = options.sinks.map(|name| self.vector(name, q.groups));
        let scale = options.scale.unwrap_or(1.0 / (k_dim as f32).sqrt());
        self.push(Op::Attention { q, cache, scale, window, softcap: options.softcap, sinks }, q.groups, v_dim)
    }

    /// A causal convolution a channel, kernel `NAME.weight` `[channels, length]`. → as `x`
    pub fn short_conv(&self, x: Value, name: &str, length: usize) -> Value {
        if length < 2 {
            return self.fail("short_conv", name, format!("a kernel of length {length}"));
        }
        let kernel = self.weight(format!("{name}.weight"), &[x.floats(), length], Role::Vector);
        let state = self.state(State::Conv { channels: x.floats(), tail: length - 1 });
        self.push(Op::ShortConv { x, kernel, state }, x.groups, x.width)
    }

    /// The gated delta rule with a state of its own; shapes as in [`Op::DeltaRule`], scale 1 / √k_dim. → as `v`
    pub fn delta_rule(&self, q: Value, k: Value, v: Value, decay: Value, beta: Value) -> Value {
        let heads = v.groups;
        if (q.groups, q.width) != (k.groups, k.width)
            || !heads.is_multiple_of(k.groups)
            || decay.floats() != heads
            || beta.floats() != heads
        {
            return self.fail("delta_rule", "", format!("q {}×{}, k {}×{}, {heads} value heads", q.groups, q.width, k.groups, k.width));
        }
        let state = self.state(State::Recurrent { heads, k_dim: k.width, v_dim: v.width });
        let scale = 1.0 / (k.width as f32).sqrt();
        self.push(Op::DeltaRule { q, k, v, decay, beta, state, scale }, v.groups, v.width)
    }

    // ---- norms ------------------------------------------------------------------------------------------------------------------

    /// Root-mean-square norm of each group, times `NAME.weight` `[width]`. → as `x`
    pub fn rms_norm(&self, x: Value, name: &str, eps: f32) -> Value {
        let weight = Some(self.vector(&format!("{name}.weight"), x.width));
        self.push(Op::RmsNorm { x, weight, eps }, x.groups, x.width)
    }

    /// The same without a weight. → as `x`
    pub fn rms_norm_plain(&self, x: Value, eps: f32) -> Value {
        self.push(Op::RmsNorm { x, weight: None, eps }, x.groups, x.width)
    }

    /// Norm by mean and variance of each group, times `NAME.weight`, plus `NAME.bias` where the file has it. → as `x`
    pub fn layer_norm(&self, x: Value, name: &str, eps: f32) -> Value {
        let weight = Some(self.vector(&format!("{name}.weight"), x.width));
        let bias_name = format!("{name}.bias");
        let bias = self.has(&bias_name).then(|| self.vector(&bias_name, x.width));
        self.push(Op::LayerNorm { x, weight, bias, eps }, x.groups, x.width)
    }

    /// Each group scaled to length 1. → as `x`
    pub fn l2_norm(&self, x: Value, eps: f32) -> Value {
        self.push(Op::L2Norm { x, eps }, x.groups, x.width)
    }

    // ---- element by element -----------------------------------------------------------------------------------------------------

    pub fn add(&self, a: Value, b: Value) -> Value {
        self.same_size("add", a, b);
        self.push(Op::Add { a, b }, a.groups, a.width)
    }

    pub fn mul(&self, a: Value, b: Value) -> Value {
        self.same_size("mul", a, b);
        self.push(Op::Mul { a, b }, a.groups, a.width)
    }

    /// `f(gate) · up`. → as `up`
    pub fn gated(&self, activation: Activation, gate: Value, up: Value) -> Value {
        self.same_size("gated", gate, up);
        self.push(Op::Gated { gate, up, activation }, up.groups, up.width)
    }

    pub fn apply(&self, activation: Activation, x: Value) -> Value {
        self.push(Op::Apply { x, activation }, x.groups, x.width)
    }

    /// Each group times a vector (full name, of `size` = the group's width, or 1). → as `x`
    pub fn mul_vector(&self, x: Value, name: &str, size: usize) -> Value {
        if size != x.width && size != 1 {
            return self.fail("mul_vector", name, format!("{size} numbers for a width of {}", x.width));
        }
        let weight = self.vector(name, size);
        self.push(Op::MulVector { x, weight }, x.groups, x.width)
    }

    /// Times a number; times 1 is nothing at all. → as `x`
    pub fn scale(&self, x: Value, by: f32) -> Value {
        if by == 1.0 {
            return x;
        }
        self.push(Op::Scale { x, by }, x.groups, x.width)
    }

    pub fn soft_cap(&self, x: Value, cap: f32) -> Value {
        self.push(Op::SoftCap { x, cap }, x.groups, x.width)
    }

    /// Columns `part` of each group. → `[n, groups, part]`
    pub fn slice(&self, x: Value, part: Range<usize>) -> Value {
        if part.end > x.width || part.start >= part.end {
            return self.fail("slice", "", format!("columns {part:?} of {}", x.width));
        }
        self.push(Op::Slice { x, start: part.start, width: part.len() }, x.groups, part.len())
    }

    // ---- recording --------------------------------------------------------------------------------------------------------------

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn push(&self, op: Op, groups: usize, width: usize) -> Value {
        let mut recording = self.recording.borrow_mut();
        let id = ValueId(recording.values.len() as u32);
        recording.values.push(ValueInfo { floats: groups * width, rows: Rows::All });
        recording.steps.push(Step { op, out: Some(id), rows: Rows::All });
        Value { id, groups, width }
    }

    /// The product with rows `part` of a matrix of `whole` rows.
    fn rows_of(&self, x: Value, name: &str, part: Range<usize>, whole: usize, bias: Option<&str>) -> Value {
        if part.end > whole || part.start >= part.end {
            return self.fail("linear", name, format!("rows {part:?} of {whole}"));
        }
        let out = part.len();
        let weight = self.matrix(name, part, whole, x.floats());
        let bias = bias.map(|name| self.vector(name, out));
        self.push(Op::Linear { x, weight, bias }, 1, out)
    }

    fn matrix(&self, name: &str, part: Range<usize>, whole: usize, columns: usize) -> Matrix {
        let weight = self.weight(format!("{name}.weight"), &[whole, columns], Role::Matrix);
        Matrix { weight, first_row: part.start, rows: part.len(), columns }
    }

    fn vector(&self, name: &str, size: usize) -> WeightId {
        self.weight(name.to_owned(), &[size], Role::Vector)
    }

    fn weight(&self, name: String, shape: &[usize], role: Role) -> WeightId {
        let name = self.full(&name);
        let mut recording = self.recording.borrow_mut();
        let known = recording.weights.iter().position(|w| w.name == name);
        let index = known.unwrap_or_else(|| {
            recording.weights.push(Weight { name: name.clone(), shape: shape.to_vec(), role });
            recording.weights.len() - 1
        });
        let first = recording.weights[index].shape.clone();
        if first != shape {
            recording.error.get_or_insert(ProgramError::TwoShapes { tensor: name, first, second: shape.to_vec() });
        }
        WeightId(index as u32)
    }

    fn state(&self, state: State) -> StateId {
        let mut recording = self.recording.borrow_mut();
        recording.states.push(state);
        StateId(recording.states.len() as u32 - 1)
    }

    fn same_size(&self, op: &'static str, a: Value, b: Value) {
        if a.floats() != b.floats() {
            self.fail(op, "", format!("{} numbers and {}", a.floats(), b.floats()));
        }
    }

    /// Keeps the first mistake and goes on with a value that fits nowhere.
    fn fail(&self, op: &'static str, tensor: &str, reason: String) -> Value {
        let at = match (self.prefix.as_str(), tensor) {
            ("", "") => String::new(),
            (prefix, tensor) => format!(" at `{prefix}{tensor}`"),
        };
        self.recording.borrow_mut().error.get_or_insert(ProgramError::Shape { op, at, reason });
        Value { id: ValueId(0), groups: 1, width: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of building one layer whose query has `q` numbers and whose key has `k`.
    fn message(q: usize, k: usize) -> Option<String> {
        let b = Builder::new(&|_| false);
        let x = b.embed("token_embd", 10, 8);
        let mut y = x;
        for l in b.layers(1) {
            let q = l.heads(l.linear(x, "attn_q", q), 2);
            let k = l.heads(l.linear(x, "attn_k", k), 1);
            y = l.linear(l.attention(q, k, k, FULL), "attn_output", 8);
        }
        let logits = b.head(y);
        b.finish("one", logits).err().map(|e| e.to_string())
    }

    #[test]
    fn queries_that_do_not_meet_their_keys_are_told_with_sizes_and_layer() {
        assert_eq!(message(8, 4), None);
        assert_eq!(message(8, 5).as_deref(), Some("attention at `blk.0.`: queries 2×4 don't meet keys 1×5"));
        assert_eq!(message(7, 4).as_deref(), Some("heads at `blk.0.`: 7 numbers don't make 2 heads"));
    }

    #[test]
    fn a_tensor_asked_for_in_two_shapes_is_named() {
        let b = Builder::new(&|_| false);
        let x = b.embed("token_embd", 10, 8);
        let y = b.linear(b.linear(x, "twice", 4), "twice", 4);
        let error = b.finish("two", y).expect_err("[4, 8] and [4, 4]");
        assert_eq!(error, ProgramError::TwoShapes { tensor: "twice.weight".into(), first: vec![4, 8], second: vec![4, 4] });
    }

    #[test]
    fn bias_and_own_head_are_used_where_the_file_has_them() {
        let names = |present: &'static [&'static str]| {
            let has = move |name: &str| present.contains(&name);
            let b = Builder::new(&has);
            let x = b.embed("token_embd", 10, 8);
            let logits = b.head(b.linear(x, "proj", 8));
            let program = b.finish("names", logits).expect("it fits together");
            program.weights.iter().map(|w| w.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["token_embd.weight", "proj.weight"]);
        assert_eq!(names(&["proj.bias", "output.weight"]), ["token_embd.weight", "proj.weight", "proj.bias", "output.weight"]);
        assert_eq!(names(&["proj.scale"]), ["token_embd.weight", "proj.weight", "proj.scale"]);
    }

    #[test]
    fn queries_keys_and_values_come_from_three_tensors_or_from_one() {
        let text = |present: &'static [&'static str]| {
            let has = move |name: &str| present.contains(&name);
            let b = Builder::new(&has);
            let x = b.embed("token_embd", 10, 8);
            let (q, k, v) = b.qkv(x, 2, 1, 4, 3);
            let logits = b.head(b.linear(b.attention(q, k, v, FULL), "attn_output", 8));
            let program = b.finish("qkv", logits).expect("it fits together").to_string();
            program.lines().filter(|line| line.contains("attn_q") || line.contains("slice")).map(str::to_owned).collect::<Vec<_>>()
        };
        let check = |present: &'static [&'static str], count: usize, keys: &str| {
            let text = text(present);
            assert!(text.len() == count && text.iter().any(|line| line.ends_with(keys)), "{text:#?} should have {keys}");
        };
        check(&["attn_q.bias"], 1, " attn_q.weight [8, 8] attn_q.bias [8]");
        check(&["attn_qkv.weight", "attn_k.bias"], 3, " attn_qkv.weight [15, 8] rows 8..12 attn_k.bias [4]");
        check(&["attn_qkv.weight", "attn_qkv.bias"], 4, " columns 8..12");
    }
}
