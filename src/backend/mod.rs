//! The seam to a device. A backend gets a whole [`Program`](crate::program::Program) once and a [`Batch`] a step; it never sees an
//! architecture, a text or a client. The engine owns ids (sequences, blocks, slots); the backend owns the bytes behind them.
//!
//! - [`plain`]: every op as its formula, in f32, one thread: the oracle the others are held to.
//! - [`cpu`]: the same program on the kernels' best tier with a thread pool.
//! - [`memory`]: how much there is to be had.

pub mod cpu;
pub mod memory;
pub mod plain;

use crate::gguf::{Gguf, GgufError};
use crate::program::Program;
use crate::units::{Bytes, TokenId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// So many rows of a sequence in one step are computed one way by every backend; fewer may be rounded elsewhere: other products, another
/// reading of the cache. A prompt that is to be repeatable has no chunk of fewer, as far as limits allow, so that its answer does not turn
/// on how time cut it. (That holds without mixtures of experts: each expert has the rows that picked it, which may be few in any step.)
pub const ALIKE: usize = 24;

/// Positions held by one block of key/value cache, in every layer that keeps one.
pub const BLOCK_TOKENS: usize = 64;

/// One block of key/value cache: [`BLOCK_TOKENS`] positions in all layers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The state of one sequence that is no list of positions: convolution tails and recurrent matrices, in all layers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// One token to compute.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Index into [`Batch::sequences`].
    pub sequence: u32,
    /// Position in the sequence, from 0.
    pub position: u32,
    pub token: TokenId,
    /// Whether the logits after this token are asked for.
    pub wants_logits: bool,
}

/// Where the state of a sequence lies. Position `p` is in `blocks[p / BLOCK_TOKENS]`.
#[derive(Clone, Copy, Debug)]
pub struct SequenceState<'a> {
    pub blocks: &'a [BlockId],
    /// Present exactly when the program has states other than key/value caches ([`Program::needs_slots`]).
    pub slot: Option<SlotId>,
}

/// What one step computes. Rows of a sequence stand together, positions ascending without a gap; the cache already holds all
/// positions before the first of them. A row at position 0 starts its sequence: the backend clears the slot first.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub rows: &'a [Row],
    pub sequences: &'a [SequenceState<'a>],
}

/// What a step gives back; buffers are kept and reused by the caller.
#[derive(Debug, Default)]
pub struct StepOut {
    /// `[rows that want logits, vocabulary]`, in the order of the rows.
    pub logits: Vec<f32>,
    pub time: Duration,
    /// Threads that computed it.
    pub threads: usize,
}

/// Storage of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    F32,
    #[default]
    F16,
    Q8_0,
}

/// How a model is to be loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Most positions a sequence may have.
    pub context: usize,
    /// Key/value blocks to keep, shared by all sequences.
    pub blocks: usize,
    /// Slots to keep (0 where the program needs none).
    pub slots: usize,
    /// Most rows in one step.
    pub rows: usize,
    pub kv: KvType,
    /// Worker threads, for every kind of step; `None`: as many as measured best.
    pub threads: Option<usize>,
    /// The folder where what was measured on this board is kept for the next time; `None`: nothing is read or written.
    pub remember: Option<PathBuf>,
    /// Activations stay f32 and every product is exact: the reference for quality, not for speed.
    pub exact: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            context: 2048,
            blocks: 2048 / BLOCK_TOKENS,
            slots: 1,
            rows: 512,
            kv: KvType::F16,
            threads: None,
            remember: None,
            exact: false,
        }
    }
}

/// Where measurements of this board are kept: what systemd gives a daemon (`CacheDirectory=`), else the user's own folder for such.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(list) = set("CACHE_DIRECTORY") {
        return std::env::split_paths(&list).next();
    }
    let own = set("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")));
    Some(own?.join("hearth"))
}

/// What a device is, in words and figures.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// `plain`, `cpu`, `vulkan`, `cuda`.
    pub backend: &'static str,
    /// Such as the kernels' tier or a GPU's name.
    pub detail: String,
    /// Most threads of this process that compute at once.
    pub threads: usize,
    /// Of them, those that compute single tokens, and prompts: chosen by the user, or measured (see [`Loaded::settled`]).
    pub decode_threads: usize,
    pub prefill_threads: usize,
}

/// The backends there can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The best that works here.
    #[default]
    Auto,
    Cpu,
    Plain,
    Vulkan,
    Cuda,
}

/// Opens a backend.
pub fn open(kind: Kind) -> Result<Box<dyn Backend>, LoadError> {
    match kind {
        Kind::Auto | Kind::Cpu => Ok(Box::new(cpu::Cpu::new()?)),
        Kind::Plain => Ok(Box::new(plain::Plain::new())),
        Kind::Vulkan => Err(LoadError::NotBuilt { backend: "vulkan" }),
        Kind::Cuda => Err(LoadError::NotBuilt { backend: "cuda" }),
    }
}

/// What a model would need here.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    pub weights: Bytes,
    pub cache: Bytes,
    pub scratch: Bytes,
}

/// The engine's pace, set by the governor and applied at a step boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Threads for steps of few rows; `None` leaves the backend's own choice.
    pub decode_threads: Option<usize>,
    /// Threads for steps of many rows.
    pub prefill_threads: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("this build of Hearth has no {backend} backend; use `cpu` or `auto`")]
    NotBuilt { backend: &'static str },
    #[error("tensor `{tensor}`: {reason}")]
    Tensor { tensor: String, reason: String },
    #[error("the model needs {need} MiB for {what}, but only {have} MiB are free; choose a smaller context or model")]
    NoMemory { what: &'static str, need: u64, have: u64 },
    #[error("the system refuses {need} MiB for {what}: {error}; choose a smaller context or model, or lift the limit (`ulimit -v`)")]
    Refused { what: &'static str, need: u64, error: std::io::Error },
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Cpu(#[from] hearth_kernels::cpu::BadTier),
    #[error("loading was cancelled")]
    Cancelled,
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    #[error("the device is out of memory: {0}")]
    OutOfMemory(String),
    /// The model's file changed under the step: what it computed means nothing.
    #[error(transparent)]
    File(#[from] GgufError),
}

/// Told how far a load has come; answers whether to go on.
pub trait Progress: Send + Sync {
    /// Nobody need wait any longer for `done` of `total` bytes: they are in memory, or come with the first steps. `false` cancels the load.
    fn loaded(&self, done: u64, total: u64) -> bool;
}

/// For those who need no progress.
impl Progress for () {
    fn loaded(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// A device that can run programs.
pub trait Backend: Send + Sync {
    fn info(&self) -> &DeviceInfo;
    /// What `program` would need; refuses nothing.
    fn fit(&self, program: &Program, options: &LoadOptions) -> Fit;
    /// Compiles `program` for this device and finds its weights in `file`. Weights stay where they are wherever the device can read them there.
    fn load(
        &self,
        program: Arc<Program>,
        file: Arc<Gguf>,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Loaded>, LoadError>;
}

/// A model on a device, with its caches.
pub trait Loaded: Send {
    fn info(&self) -> &DeviceInfo;
    /// Computes every row, appends to the caches, and fills `out`.
    fn step(&mut self, batch: &Batch<'_>, out: &mut StepOut) -> Result<(), StepError>;
    /// Copies whole blocks; sources and destinations are disjoint.
    fn copy_blocks(&mut self, moves: &[(BlockId, BlockId)]) -> Result<(), StepError>;
    /// Copies whole slots (a snapshot of recurrent state at a position the engine remembers).
    fn copy_slots(&mut self, moves: &[(SlotId, SlotId)]) -> Result<(), StepError>;
    /// Takes effect from the next step on.
    fn limit(&mut self, pace: Pace);
    /// Bytes held in caches and in what steps compute with (not the mapped file, nor the little that each thread has of its own).
    fn memory(&self) -> Bytes;
    /// Whether all is chosen that is measured while it runs, such as numbers of threads. Only who measures speed has to ask.
    fn settled(&self) -> bool {
        true
    }
}
