//! Every operation of a program, with its formula. `x[r, g, i]` is row `r`, group `g`, element `i` of an operand; `y` is what the
//! operation writes. Nothing here says how to compute it fast.

use super::{Rope, StateId, Value, WeightId};

/// One operation. The shape of the result stands at the end of each entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `y[r] = table[token of r]`, a row of the matrix. → `[n, 1, columns]`
    Embed { table: Matrix },
    /// `y[r, o] = Σᵢ weight[o, i] · x[r, i] (+ bias[o])`; groups of `x` are read as one line. → `[rows, 1, weight.rows]`
    Linear { x: Value, weight: Matrix, bias: Option<WeightId> },
    /// `y[r, g, i] = x[r, g, i] / √(meanᵢ(x[r, g]²) + eps) (· weight[i])`, each group by itself. → as `x`
    RmsNorm { x: Value, weight: Option<WeightId>, eps: f32 },
    /// `y = (x − mean) / √(variance + eps) (· weight[i]) (+ bias[i])`, each group by itself, variance over `width`. → as `x`
    LayerNorm { x: Value, weight: Option<WeightId>, bias: Option<WeightId>, eps: f32 },
    /// `y[r, g, i] = x[r, g, i] / √(Σᵢ x[r, g]² + eps)`, each group by itself. → as `x`
    L2Norm { x: Value, eps: f32 },
    /// Turns pairs of each group by angles `position · frequency`, see [`Rope`]. → as `x`
    Rope { x: Value, rope: Rope },
    /// Appends the keys `k` `[n, kv_heads, k_dim]` and values `v` `[n, kv_heads, v_dim]` of each row to its sequence's cache, at its
    /// position. Writes no value. All rows are stored before any later step reads.
    Store { k: Value, v: Value, cache: StateId },
    /// Each row and head `h` of `q` `[rows, heads, k_dim]` looks at the cached positions `p ≤` its own of its sequence (with a
    /// window `w`: `p >` its own `− w`), of key head `h / (heads / kv_heads)`:
    /// `s_p = scale · q · k_p`, then `s_p = cap · tanh(s_p / cap)` if capped; `y = Σ_p softmax(s)_p · v_p`.
    /// With sinks, `exp(sinks[h])` is added to the softmax's denominator. → `[rows, heads, v_dim]`
    Attention { q: Value, cache: StateId, scale: f32, window: Option<usize>, softcap: Option<f32>, sinks: Option<WeightId> },
    /// `y = f(gate) · up`, element by element. → as `up`
    Gated { gate: Value, up: Value, activation: Activation },
    /// `y = f(x)`, element by element. → as `x`
    Apply { x: Value, activation: Activation },
    /// A mixture of feed-forward networks. `p = gating(router[r])` over the experts; the `used` largest are picked (of equals the
    /// lower index); their `p`, divided by their sum if `normalise`, times `scale`, weigh
    /// `down_e · (f(gate_e · x) · (up_e · x))`. Matrices are `[experts · out, in]`, expert after expert. → `[rows, 1, columns of x]`
    Moe {
        x: Value,
        router: Value,
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        experts: usize,
        used: usize,
        gating: Gating,
        normalise: bool,
        scale: f32,
        activation: Activation,
    },
    /// A causal convolution of each channel by itself, over the rows of a sequence and the tail kept in `state`, `K = kernel length`:
    /// `y[t, c] = Σⱼ kernel[c, j] · x[t − K + 1 + j, c]`. Afterwards the tail holds the last `K − 1` inputs. → as `x`
    ShortConv { x: Value, kernel: WeightId, state: StateId },
    /// The gated delta rule, row after row of a sequence. Value head `h` has a state `S` `[k_dim, v_dim]` and reads key head
    /// `h mod key_heads`: `S ← exp(decay[h]) · S`; `S ← S + k ⊗ (beta[h] · (v − Sᵀk))`; `y[h] = scale · Sᵀq`.
    /// `q`, `k`: `[n, key_heads, k_dim]`; `v`: `[n, heads, v_dim]`; `decay`, `beta`: `[n, 1, heads]`. → as `v`
    DeltaRule { q: Value, k: Value, v: Value, decay: Value, beta: Value, state: StateId, scale: f32 },
    /// `y = a + b`, element by element. → as `a`
    Add { a: Value, b: Value },
    /// `y = a · b`, element by element. → as `a`
    Mul { a: Value, b: Value },
    /// `y[r, g, i] = x[r, g, i] · weight[i]`, or `· weight[0]` where the weight has one element. → as `x`
    MulVector { x: Value, weight: WeightId },
    /// `y = by · x`. → as `x`
    Scale { x: Value, by: f32 },
    /// `y = cap · tanh(x / cap)`. → as `x`
    SoftCap { x: Value, cap: f32 },
    /// `y[r, g, i] = x[r, g, start + i]` for `i < width`. → `[rows, groups of x, width]`
    Slice { x: Value, start: usize, width: usize },
    /// The wanted rows of `x`, in their order. → `[m, …]` as `x`
    Select { x: Value },
}

/// Rows of a weight: `first_row .. first_row + rows` of a tensor whose rows have `columns` weights. A fused tensor is read by parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    pub weight: WeightId,
    pub first_row: usize,
    pub rows: usize,
    pub columns: usize,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`
    Silu,
    /// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`
    GeluTanh,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `ln(1 + eˣ)`
    Softplus,
}

/// How a router's scores become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Each expert by itself.
    Sigmoid,
}

impl Op {
    /// The name it prints under, and by which a backend refuses it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Linear { .. } => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::L2Norm { .. } => "l2_norm",
            Op::Rope { .. } => "rope",
            Op::Store { .. } => "store",
            Op::Attention { .. } => "attention",
            Op::Gated { .. } => "gated",
            Op::Apply { .. } => "apply",
            Op::Moe { .. } => "moe",
            Op::ShortConv { .. } => "short_conv",
            Op::DeltaRule { .. } => "delta_rule",
            Op::Add { .. } => "add",
            Op::Mul { .. } => "mul",
            Op::MulVector { .. } => "mul_vector",
            Op::Scale { .. } => "scale",
            Op::SoftCap { .. } => "soft_cap",
            Op::Slice { .. } => "slice",
            Op::Select { .. } => "select",
        }
    }

    /// The values it reads, in the order of its fields.
    pub fn operands(&self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut copy = *self;
        copy.for_each_operand(|v| found.push(*v));
        found
    }

    /// Whether a row of the result depends on other rows of the step by way of a state it writes.
    pub fn advances_state(&self) -> bool {
        matches!(self, Op::Store { .. } | Op::ShortConv { .. } | Op::DeltaRule { .. })
    }

    /// Calls `visit` on each operand, so that a pass can rename them.
    pub(super) fn for_each_operand(&mut self, mut visit: impl FnMut(&mut Value)) {
        match self {
            Op::Embed { .. } => {}
            Op::Linear { x, .. }
            | Op::RmsNorm { x, .. }
            | Op::LayerNorm { x, .. }
            | Op::L2Norm { x, .. }
            | Op::Rope { x, .. }
            | Op::Apply { x, .. }
            | Op::ShortConv { x, .. }
            | Op::MulVector { x, .. }
            | Op::Scale { x, .. }
            | Op::SoftCap { x, .. }
            | Op::Slice { x, .. }
            | Op::Select { x }
            | Op::Attention { q: x, .. } => visit(x),
            Op::Store { k, v, .. } => {
                visit(k);
                visit(v);
            }
            Op::Gated { gate: a, up: b, .. } | Op::Moe { x: a, router: b, .. } | Op::Add { a, b } | Op::Mul { a, b } => {
                visit(a);
                visit(b);
            }
            Op::DeltaRule { q, k, v, decay, beta, .. } => {
                for value in [q, k, v, decay, beta] {
                    visit(value);
                }
            }
        }
    }
}
