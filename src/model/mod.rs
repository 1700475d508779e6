//! Architectures: from a file's metadata to a [`Program`]. [`build`] finds the architecture by its name, reads and checks its
//! hyper-parameters, records its program, and checks every tensor the program reads against the file: after that a backend finds each
//! weight there, in the shape it expects.
//!
//! - `hyper`: the settings, each value validated.
//! - One file an architecture, which reads like its paper. To add one: such a file, and a row in [`ARCHITECTURES`].
//!
//! Conventions of the files, as the usual converters write them: `llama`, `granite` and `smollm3` store query and key rows permuted,
//! so that neighbouring elements rotate together; all others rotate halves. The Gemmas and `qwen35` store 1 + the trained norm weight.
//! Nothing here knows a device, a thread or a quantization.

mod gemma2;
mod gemma3;
mod gemma4;
mod granite;
pub mod hyper;
mod lfm2;
mod llama;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen35;
mod qwen3moe;
mod smollm3;

use crate::gguf::{Gguf, GgufError};
use crate::program::{Builder, Program, ProgramError, Role, Value, Weight};
use hearth_kernels::quant::Format;
use hyper::Hyper;
use std::path::PathBuf;
use std::sync::Arc;

/// Records one architecture's forward pass; answers its logits.
type Build = fn(&Hyper, &Builder) -> Result<Value, ModelError>;

/// Every architecture, by its name in `general.architecture`.
pub const ARCHITECTURES: &[(&str, Build)] = &[
    ("gemma2", gemma2::build),
    ("gemma3", gemma3::build),
    ("gemma4", gemma4::build),
    ("granite", granite::build),
    ("lfm2", lfm2::build),
    ("llama", llama::build),
    ("olmo2", olmo2::build),
    ("phi3", phi3::build),
    ("qwen2", qwen2::build),
    ("qwen3", qwen3::build),
    ("qwen35", qwen35::build),
    ("qwen3moe", qwen3moe::build),
    ("smollm3", smollm3::build),
];

/// A model that a backend can load.
#[derive(Clone, Debug)]
pub struct Model {
    pub program: Arc<Program>,
    /// The name in `general.architecture`.
    pub architecture: &'static str,
    /// Positions it was trained for.
    pub context: usize,
    pub layers: usize,
    pub dim: usize,
}

/// Why a file is no model we can run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("{}: the architecture (`general.architecture`) is `{name}`, which is not supported; supported are {}", path.display(), supported())]
    Architecture { path: PathBuf, name: String },
    #[error("{}: metadata key `{key}` is {found}, but must be {want}", path.display())]
    Key { path: PathBuf, key: String, found: String, want: String },
    #[error("{}: tensor `{tensor}` is missing, which the architecture {arch} needs", path.display())]
    MissingTensor { path: PathBuf, tensor: String, arch: String },
    #[error("{}: tensor `{tensor}` has the shape {found:?}, but {wanted:?} follows from {sizes}", path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, wanted: Vec<usize>, sizes: String },
    #[error("{}: tensor `{tensor}` is stored as {found}, but must be {want}; get the model in another quantization", path.display())]
    Type { path: PathBuf, tensor: String, found: String, want: &'static str },
    #[error("{}: the settings don't fit together: {error}", path.display())]
    Program { path: PathBuf, error: ProgramError },
}

/// Builds the program of a file, and checks that the file has its weights. Reads metadata and the tensor list only.
pub fn build(file: &Gguf) -> Result<Model, ModelError> {
    let (h, program) = record(file, &|tensor| file.info(tensor).is_some())?;
    program.weights.iter().try_for_each(|weight| check(file, &h, weight))?;
    Ok(Model { program: Arc::new(program), architecture: h.arch, context: h.context, layers: h.layers, dim: h.dim })
}

/// The program of a file of metadata alone, for making models: its weights say which tensors are still to be written.
/// `has` chooses among the optional tensors.
pub fn outline(file: &Gguf, has: &dyn Fn(&str) -> bool) -> Result<Program, ModelError> {
    record(file, has).map(|(_, program)| program)
}

fn record<'a>(file: &'a Gguf, has: &dyn Fn(&str) -> bool) -> Result<(Hyper<'a>, Program), ModelError> {
    let name = file.meta().str("general.architecture")?;
    let found = ARCHITECTURES.iter().find(|(known, _)| *known == name);
    let (arch, build) = found.ok_or_else(|| ModelError::Architecture { path: file.path().into(), name: hyper::shown(name) })?;
    let h = Hyper::read(file, arch)?;
    let b = Builder::new(has);
    let logits = build(&h, &b)?;
    let program = b.finish(arch, logits).map_err(|error| ModelError::Program { path: file.path().into(), error })?;
    Ok((h, program))
}

/// Whether the file has this weight, in its shape, and in a type it can be computed with.
fn check(file: &Gguf, h: &Hyper, weight: &Weight) -> Result<(), ModelError> {
    let path = || PathBuf::from(file.path());
    let tensor = || weight.name.clone();
    let Some(info) = file.info(&weight.name) else {
        return Err(ModelError::MissingTensor { path: path(), tensor: tensor(), arch: h.arch.into() });
    };
    // A file lists the length of a row first, and may leave out or add axes of 1 at the end.
    let mut found: Vec<usize> = info.shape.iter().rev().copied().collect();
    while found.len() > weight.shape.len() && found[0] == 1 {
        found.remove(0);
    }
    if found != weight.shape {
        return Err(ModelError::Shape { path: path(), tensor: tensor(), found, wanted: weight.shape.clone(), sizes: h.sizes() });
    }
    let want = match weight.role {
        Role::Matrix if info.format.is_some() => return Ok(()),
        Role::Vector if matches!(info.format, Some(Format::F32 | Format::F16 | Format::BF16)) => return Ok(()),
        Role::Matrix => "of a type of weights that this build knows",
        Role::Vector => "F32, F16 or BF16",
    };
    Err(ModelError::Type { path: path(), tensor: tensor(), found: info.type_name(), want })
}

fn supported() -> String {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
