//! Architectures: from a file's metadata to a [`Program`]. [`build`] finds the architecture by its name, reads and checks its
//! hyper-parameters, records its program, and checks every tensor the program reads against the file: after that a backend finds each
//! weight there, in the shape it expects.
//!
//! - `hyper`: the settings, each value validated.
//! - One file an architecture, which reads like its paper. To add one: such a file, and a row in [`ARCHITECTURES`].
//!
//! Conventions of the files, as the usual converters write them: `llama`, `granite` and `smollm3` store query and key rows permuted,
//! so that neighbouring elements rotate together; all others rotate halves. The Gemmas and `qwen35` store 1 + the trained norm weight.
//! What other converters name otherwise or leave out is said where it is read.
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
use std::collections::HashSet;
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
    ("granitemoe", granite::build),
    ("lfm2", lfm2::build),
    ("llama", llama::build),
    ("olmo2", olmo2::build),
    ("olmo3", olmo2::build), // Ollama's name for what everybody else's files call `olmo2`
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
    #[error("{}: tensor `{tensor}` is missing; it is called for by {sizes}", path.display())]
    MissingTensor { path: PathBuf, tensor: String, sizes: String },
    #[error("{}: tensor `{tensor}` has the shape {found:?}; {wanted:?} is called for by {sizes}", path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, wanted: Vec<usize>, sizes: String },
    #[error("{}: tensor `{tensor}` is stored as {found}, but must be {want}; get the model in another quantization", path.display())]
    Type { path: PathBuf, tensor: String, found: String, want: &'static str },
    #[error("{}: the settings don't fit together: {error}, by {sizes}", path.display())]
    Program { path: PathBuf, error: ProgramError, sizes: String },
}

/// Builds the program of a file, and checks that the file has its weights. Reads metadata and the tensor list only.
pub fn build(file: &Gguf) -> Result<Model, ModelError> {
    let (h, program) = record(file, &|tensor| file.info(tensor).is_some())?;
    program.weights.iter().try_for_each(|weight| check(file, &h, weight))?;
    warn_of_unused(file, &program);
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
    let program = b.finish(arch, logits).map_err(|error| ModelError::Program { path: file.path().into(), error, sizes: h.sizes() })?;
    Ok((h, program))
}

/// Whether the file has this weight, in its shape, and in a type it can be computed with.
fn check(file: &Gguf, h: &Hyper, weight: &Weight) -> Result<(), ModelError> {
    let path = || PathBuf::from(file.path());
    let tensor = || weight.name.clone();
    let Some(info) = file.info(&weight.name) else {
        return Err(ModelError::MissingTensor { path: path(), tensor: tensor(), sizes: h.sizes() });
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

/// Tensors that the program doesn't read are either harmless extras or a variant of the architecture that we don't know.
fn warn_of_unused(file: &Gguf, program: &Program) {
    let used: HashSet<&str> = program.weights.iter().map(|w| w.name.as_str()).collect();
    let mut unused = file.tensors().iter().filter(|t| !used.contains(t.name.as_str()));
    if let Some(first) = unused.next() {
        let (tensor, others) = (&first.name, unused.count());
        tracing::warn!(
            "{}: tensor `{tensor}` and {others} others are not used by the architecture {}",
            file.path().display(),
            program.name
        );
    }
}

fn supported() -> String {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::writer::Plan;
    use std::path::Path;

    /// One block of Q8_0, so that a norm could be stored in it.
    const DIM: usize = 32;
    const KV: usize = 16;

    /// A file of one Llama layer, whose metadata and tensors a test may spoil before it is written.
    struct File {
        keys: Plan,
        tensors: Vec<(String, Format, Vec<usize>)>,
    }

    fn llama(spoil: impl FnOnce(&mut File)) -> Result<Model, ModelError> {
        let mut keys = Plan::new();
        keys.set("general.architecture", "llama");
        let shapes: [(&str, &[usize]); 11] = [
            ("token_embd.weight", &[DIM, 12]),
            ("output_norm.weight", &[DIM]),
            ("blk.0.attn_norm.weight", &[DIM]),
            ("blk.0.attn_q.weight", &[DIM, DIM]),
            ("blk.0.attn_k.weight", &[DIM, KV]),
            ("blk.0.attn_v.weight", &[DIM, KV]),
            ("blk.0.attn_output.weight", &[DIM, DIM]),
            ("blk.0.ffn_norm.weight", &[DIM]),
            ("blk.0.ffn_gate.weight", &[DIM, 16]),
            ("blk.0.ffn_up.weight", &[DIM, 16]),
            ("blk.0.ffn_down.weight", &[16, DIM]),
        ];
        let tensors = shapes.map(|(name, shape)| (name.to_owned(), Format::F32, shape.to_vec()));
        let mut file = File { keys, tensors: tensors.to_vec() };
        spoil(&mut file);
        let mut data = Vec::new();
        for (name, format, shape) in &file.tensors {
            file.keys.tensor(name, *format, shape);
            data.push(vec![0; format.row_bytes(shape.iter().product()).expect("whole blocks")]);
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, file.keys.to_bytes(data.iter().map(Vec::as_slice))).expect("the folder can be written");
        build(&Gguf::open(Path::new(&path))?)
    }

    /// The usual settings, but for `except`.
    fn settings(file: &mut File, except: &str) {
        let integers = [("block_count", 1), ("context_length", 64), ("embedding_length", DIM as u32), ("feed_forward_length", 16)];
        for (key, value) in integers.into_iter().chain([("attention.head_count", 2), ("attention.head_count_kv", 1)]) {
            if key != except {
                file.keys.set(&format!("llama.{key}"), value);
            }
        }
        if except != "attention.layer_norm_rms_epsilon" {
            file.keys.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
        }
    }

    #[test]
    fn a_whole_file_builds() {
        let model = llama(|file| settings(file, "")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((model.architecture, model.layers, model.dim, model.context), ("llama", 1, DIM, 64));
        assert_eq!(model.program.vocabulary, 12);
    }

    #[test]
    fn senseless_settings_are_refused_by_the_name_of_their_key() {
        let integers = [
            ("block_count", 0),
            ("block_count", 9),
            ("block_count", u32::MAX),
            ("embedding_length", 0),
            ("embedding_length", 1 << 31),
            ("feed_forward_length", 0),
            ("context_length", 0),
            ("attention.head_count", 0),
            ("attention.head_count", 3),
            ("attention.head_count", u32::MAX),
            ("attention.head_count_kv", 0),
            ("attention.head_count_kv", 8),
            ("attention.key_length", 0),
            ("attention.key_length", u32::MAX),
            ("rope.dimension_count", 0),
            ("rope.dimension_count", 3),
            ("rope.dimension_count", 1024),
            ("expert_count", 8),
            ("expert_count", u32::MAX),
        ];
        for (key, value) in integers {
            refused(key, value);
        }
        for key in ["attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor"] {
            for value in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
                refused(key, value);
            }
        }
        refused("rope.scaling.type", "spiral");
        refused("attention.head_count", "four");
        refused("attention.head_count_kv", vec![1u32; 7]);
    }

    fn refused(key: &str, value: impl crate::gguf::writer::Put) {
        let error = llama(|file| {
            settings(file, key);
            file.keys.set(&format!("llama.{key}"), value);
        });
        let message = error.err().unwrap_or_else(|| panic!("{key} was accepted")).to_string();
        let last = key.rsplit('.').next().unwrap_or(key);
        assert!(message.contains(last), "{key}: {message}");
    }

    #[test]
    fn missing_settings_are_named() {
        for key in ["block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon"] {
            let message = llama(|file| settings(file, key)).err().unwrap_or_else(|| panic!("{key} was not missed")).to_string();
            assert!(message.contains(&format!("`llama.{key}` is missing")), "{message}");
        }
    }

    #[test]
    fn tensors_that_are_missing_or_of_another_shape_or_type_are_named() {
        let message = |spoil: fn(&mut File)| {
            let model = llama(|file| {
                settings(file, "");
                spoil(file);
            });
            model.expect_err("it is refused").to_string()
        };
        let missing = message(|file| file.tensors.retain(|(name, ..)| name != "blk.0.ffn_up.weight"));
        assert!(missing.contains("`blk.0.ffn_up.weight` is missing"), "{missing}");
        let swapped = message(|file| file.tensors[10].2.reverse());
        assert!(swapped.contains("`blk.0.ffn_down.weight`") && swapped.contains("[16, 32]") && swapped.contains("[32, 16]"), "{swapped}");
        let quantized = message(|file| file.tensors[1].1 = Format::Q8_0);
        assert!(quantized.contains("`output_norm.weight` is stored as Q8_0"), "{quantized}");
    }

    /// The text of the program of a file of these settings, besides the usual ones.
    fn outlined(arch: &str, set: impl FnOnce(&mut Plan)) -> String {
        let mut keys = Plan::new();
        keys.set("general.architecture", arch).set("tokenizer.ggml.tokens", vec!["a", "b"]);
        for (key, value) in [("block_count", 6), ("embedding_length", 32), ("feed_forward_length", 16), ("attention.head_count", 2)] {
            keys.set(&format!("{arch}.{key}"), value as u32);
        }
        set(&mut keys);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), keys.to_bytes([])).expect("it can be written");
        let file = Gguf::open(file.path()).unwrap_or_else(|e| panic!("{e}"));
        outline(&file, &|_| false).unwrap_or_else(|e| panic!("{e}")).to_string()
    }

    #[test]
    fn gemma_3_without_its_constants_gets_them() {
        let text = |context: u32, set: fn(&mut Plan)| {
            outlined("gemma3", |keys| {
                keys.set("gemma3.context_length", context).set("gemma3.attention.sliding_window", 8u32);
                set(keys);
            })
        };
        let bare = text(131_072, |_| {});
        assert!(
            bare.contains("attn_norm.weight [32] eps 1e-6") && bare.contains("base 1000000 linear 8") && bare.contains("base 10000\n"),
            "{bare}"
        );
        assert!(text(32_768, |_| {}).contains("base 1000000\n"), "a short one was not stretched");
        let named = text(32_768, |keys| {
            keys.set("gemma3.rope.global.freq_base", 5e5f32).set("gemma3.rope.local.freq_base", 2e4f32);
        });
        assert!(named.contains("base 500000\n") && named.contains("base 20000\n"), "{named}");
    }

    #[test]
    fn gemma_3_without_a_window_is_global_throughout() {
        let text = outlined("gemma3", |keys| {
            keys.set("gemma3.context_length", 64u32).set("gemma3.rope.freq_base", 7e4f32);
        });
        assert!(!text.contains("base 10000\n") && !text.contains("window") && text.matches("base 70000").count() == 12, "{text}");
    }

    #[test]
    fn a_model_that_sees_what_is_to_come_is_refused() {
        let error = llama(|file| {
            settings(file, "");
            file.keys.set("llama.attention.causal", false);
        });
        assert!(error.expect_err("it writes nothing").to_string().contains("`llama.attention.causal` is false"));
    }

    #[test]
    fn an_unknown_architecture_is_told_what_is_known() {
        let error = llama(|file| {
            file.keys = Plan::new();
            file.keys.set("general.architecture", "mamba");
        });
        let message = error.expect_err("it is refused").to_string();
        assert!(message.contains("`mamba`") && message.contains("llama") && message.contains("qwen35"), "{message}");
    }
}
