//! A model's forward pass as data. A [`Builder`] records it once; backends, the memory plan, the fit calculator and the golden
//! texts all read the same [`Program`]. No device, format, thread or file is known here.
//!
//! - [`op`]: every operation with its formula: what a backend has to compute.
//! - [`rope`]: rotary embedding, its scalings, and the one computation of its frequencies.
//! - [`builder`]: records a program that reads like the paper; checks shapes.
//! - [`rows`]: finds which operations the rows without logits can skip.
//! - [`plan`]: which values may share a buffer.
//! - [`print`]: the program as text.
//!
//! # How a backend runs a program
//!
//! A step has `n` rows (tokens), each with a sequence, a position and a token id; `m ≤ n` of them want logits. Every value is one
//! dense f32 matrix, a line per row, and belongs to one of two row domains ([`Rows`]): all `n` rows, or the `m` wanted ones in
//! their order. [`Op::Select`] goes from the first to the second; every other operation keeps the domain of its operands, and
//! those that read positions ([`Op::Rope`], [`Op::Attention`]) use the positions and sequences of the rows of that domain.
//! With `m = 0` the wanted half of the program is empty work, not an error.
//!
//! Steps run in order. Each writes one value, except [`Op::Store`], which appends to a key/value cache and writes none. States are
//! touched by [`Op::Store`], [`Op::ShortConv`] and [`Op::DeltaRule`] alone (always in the domain of all rows), and read by
//! [`Op::Attention`] too. Formulas are over real numbers: f32 arithmetic in any order is a correct backend, and how far a faster
//! one may stray is said by its tests.
//!
//! An operand names a value and how this operation looks at it: `[rows, groups, width]` with `groups · width` fixed. So a
//! projection is `[n, 1, 576]` where it is computed and `[n, 9, 64]` where each head is normalised, without a step between.

pub mod builder;
pub mod op;
pub mod plan;
mod print;
pub mod rope;
mod rows;

pub use builder::{Builder, ProgramError};
pub use op::{Activation, Gating, Matrix, Op};
pub use plan::{Plan, plan};
pub use rope::{Pairing, Rope, RopeFactors, RopeScaling};

/// A whole forward pass: tokens in, logits out.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The architecture, for people.
    pub name: String,
    pub steps: Vec<Step>,
    pub values: Vec<ValueInfo>,
    pub weights: Vec<Weight>,
    pub states: Vec<State>,
    /// `[m, vocabulary]`: written by the last step, for the wanted rows.
    pub logits: Value,
    /// Tokens have ids below this.
    pub vocabulary: usize,
}

/// One operation and the value it writes (`None` for [`Op::Store`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub op: Op,
    pub out: Option<ValueId>,
    /// Rows it runs over: those of its result; for [`Op::Select`] the wanted ones.
    pub rows: Rows,
}

/// Index into [`Program::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index into [`Program::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Index into [`Program::states`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

/// An operand: a value looked at as `[rows, groups, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    pub id: ValueId,
    pub groups: usize,
    pub width: usize,
}

impl Value {
    /// Floats a row.
    pub fn floats(self) -> usize {
        self.groups * self.width
    }
}

/// Size and row domain of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Floats a row.
    pub floats: usize,
    pub rows: Rows,
}

/// Which rows of a step a value has a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Every row.
    All,
    /// The rows that want logits.
    Wanted,
}

/// A tensor the program reads, by its name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    pub name: String,
    /// Slowest axis first: a matrix is `[out, in]`, experts are `[experts, out, in]`.
    pub shape: Vec<usize>,
    pub role: Role,
}

/// What a tensor is for, which says how it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows for dot products or look-up: any weight format, read where it lies.
    Matrix,
    /// A short list (norm weights, biases, convolution kernels, rope factors): F32, F16 or BF16, to be held as f32.
    Vector,
}

/// What the model remembers of a sequence between steps, per layer or for layers that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Keys and values of every position. With a `window`, positions `window` or more behind the newest are never read again.
    Kv { kv_heads: usize, k_dim: usize, v_dim: usize, window: Option<usize> },
    /// The last `tail` inputs of a causal convolution, `[tail, channels]`, oldest first; zeros at a sequence's start.
    Conv { channels: usize, tail: usize },
    /// One matrix a head, `[heads, k_dim, v_dim]`; zeros at a sequence's start.
    Recurrent { heads: usize, k_dim: usize, v_dim: usize },
}

impl State {
    /// Floats held once per sequence; 0 for a key/value cache, which grows by the position.
    pub fn slot_floats(&self) -> usize {
        match *self {
            State::Kv { .. } => 0,
            State::Conv { channels, tail } => channels * tail,
            State::Recurrent { heads, k_dim, v_dim } => heads * k_dim * v_dim,
        }
    }

    /// Numbers (keys and values together) held per position; 0 for what is held once per sequence.
    pub fn position_numbers(&self) -> usize {
        match *self {
            State::Kv { kv_heads, k_dim, v_dim, .. } => kv_heads * (k_dim + v_dim),
            State::Conv { .. } | State::Recurrent { .. } => 0,
        }
    }
}

impl Program {
    /// Whether a sequence needs a slot: state other than key/value caches.
    pub fn needs_slots(&self) -> bool {
        self.states.iter().any(|s| s.slot_floats() > 0)
    }

    /// Floats one slot holds.
    pub fn slot_floats(&self) -> usize {
        self.states.iter().map(State::slot_floats).sum()
    }

    /// Numbers (keys and values of all layers) one position holds in the caches.
    pub fn position_numbers(&self) -> usize {
        self.states.iter().map(State::position_numbers).sum()
    }

    pub fn value(&self, id: ValueId) -> &ValueInfo {
        &self.values[id.0 as usize]
    }

    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    pub fn state(&self, id: StateId) -> &State {
        &self.states[id.0 as usize]
    }
}
