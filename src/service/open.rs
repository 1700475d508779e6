//! From a file to an engine: what is read in which order, and how much memory the model gets.

use super::model::{Model, ModelInfo};
use super::prompt::ChatPrompt;
use super::request::Defaults;
use super::warm::warm;
use crate::backend::{self, BLOCK_TOKENS, Backend, Kind, KvType, LoadError, LoadOptions, Progress, memory};
use crate::engine::{Engine, Shape};
use crate::gguf::{Gguf, GgufError, file_type};
use crate::model::{self, ModelError};
use crate::program::Program;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::units::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most positions of a sequence where nobody says, even if the model was trained for more: their cache takes memory.
const CONTEXT_DEFAULT: usize = 4096;
/// A chat in less is none; below this a model is refused rather than squeezed in.
const CONTEXT_LEAST: usize = 512;
/// Memory left to everything else on the board. A guess.
const SPARE: u64 = 64 << 20;
/// Snapshots of recurrent state beside those of the running sequences: instructions, last turn, and one of another conversation.
const SNAPSHOTS: usize = 3;

/// How to open a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// What clients call it; `None`: the file's name without `.gguf`.
    pub name: Option<String>,
    pub backend: Kind,
    pub threads: Option<usize>,
    /// The folder where measurements of this board are kept ([`cache_folder`](crate::backend::cache_folder)); `None`: nowhere.
    pub remember: Option<PathBuf>,
    /// Most positions of a sequence; `None`: what it was trained for, at most 4096, and what fits in memory.
    pub context: Option<usize>,
    pub kv: KvType,
    /// Conversations computed at the same time.
    pub sequences: usize,
    /// Requests that may wait beside them.
    pub queue: usize,
    /// Bring the file into memory first, where it fits. Else pages come as steps need them, and the first answer waits for them.
    pub warm: bool,
    pub defaults: Defaults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            backend: Kind::Auto,
            threads: None,
            remember: None,
            context: None,
            kv: KvType::default(),
            sequences: 4,
            queue: 16,
            warm: false,
            defaults: Defaults::default(),
        }
    }
}

/// Why a model can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Model(#[from] Box<ModelError>),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("{path}: {source}")]
    Load { path: String, source: LoadError },
    #[error("{path}: the vocabulary has {tokenizer} tokens, but the model's output {model}; the file does not belong together")]
    Vocabulary { path: String, tokenizer: usize, model: usize },
    #[error("the engine's thread can't be started: {0}")]
    Thread(std::io::Error),
}

/// Opens `path`. Takes as long as the device needs to have the weights; `progress` is told, and can end it.
pub fn open(path: &Path, options: &Options, progress: &dyn Progress) -> Result<Model, OpenError> {
    let file = Arc::new(Gguf::open(path)?);
    let built = model::build(&file).map_err(Box::new)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let named = |source| OpenError::Load { path: path.display().to_string(), source };
    let vocabulary = built.program.vocabulary;
    if tokenizer.vocab().len() > vocabulary {
        return Err(OpenError::Vocabulary { path: path.display().to_string(), tokenizer: tokenizer.vocab().len(), model: vocabulary });
    }
    let backend = backend::open(options.backend).map_err(named)?;
    let room = memory::available().saturating_sub(file.bytes() + SPARE);
    let load = choose(&*backend, &built.program, options, built.context, room);
    if options.warm && !warm(&file, memory::available(), progress)? {
        let mib = Bytes(file.bytes()).mebibytes();
        tracing::warn!(
            "{}: {mib:.0} MiB are more than the memory that is free; the file is read again and again, and answers crawl",
            path.display()
        );
    }
    let loaded = backend.load(built.program.clone(), file.clone(), &load, progress).map_err(named)?;
    let device = loaded.info().clone();
    let cache = loaded.memory();
    let shape = Shape {
        context: load.context,
        blocks: load.blocks,
        slots: load.slots,
        rows: load.rows,
        vocabulary,
        running: options.sequences.max(1),
        waiting: options.queue,
    };
    let engine = Engine::start(loaded, shape).map_err(OpenError::Thread)?;
    let info = ModelInfo {
        name: options.name.clone().unwrap_or_else(|| name_of(path)),
        path: path.to_owned(),
        architecture: built.architecture.to_owned(),
        file_type: file.meta().u32("general.file_type").map(|t| file_type::name(t).into_owned()).unwrap_or_default(),
        parameters: file.tensors().iter().map(|t| t.shape.iter().product::<usize>() as u64).sum(),
        bytes: Bytes(file.bytes()),
        context: engine.shape().context,
        context_trained: built.context,
        vocabulary,
        dim: built.dim,
        layers: built.layers,
        backend: device.backend,
        device: device.detail,
        threads: device.threads,
        cache,
        created: std::fs::metadata(path).and_then(|m| m.modified()).ok(),
    };
    let chat = ChatPrompt::read(&file, &tokenizer);
    file.check()?;
    Ok(Model::new(info, file, tokenizer, chat, engine, options.defaults.clone()))
}

/// The file's name, without the ending and without the number of its part.
fn name_of(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".gguf").unwrap_or(&name);
    match stem.split_once("-00001-of-") {
        Some((stem, _)) => stem.to_owned(),
        None => stem.to_owned(),
    }
}

/// Context and blocks that fit into `room` bytes: first fewer conversations at full length, then shorter ones. What the user asked
/// for is never cut; if it does not fit, loading says so.
fn choose(backend: &dyn Backend, program: &Program, options: &Options, trained: usize, room: u64) -> LoadOptions {
    let sequences = options.sequences.max(1);
    let of = |context: usize, sequences: usize| LoadOptions {
        context,
        blocks: context.div_ceil(BLOCK_TOKENS) * sequences,
        slots: if program.needs_slots() { sequences + SNAPSHOTS } else { 0 },
        kv: options.kv,
        threads: options.threads,
        remember: options.remember.clone(),
        ..LoadOptions::default()
    };
    let fits = |load: &LoadOptions| {
        let fit = backend.fit(program, load);
        fit.weights.0 + fit.cache.0 + fit.scratch.0 <= room
    };
    let mut context = options.context.unwrap_or_else(|| trained.clamp(1, CONTEXT_DEFAULT));
    loop {
        if let Some(load) = (1..=sequences).rev().map(|s| of(context, s)).find(fits) {
            return load;
        }
        if options.context.is_some() || context <= CONTEXT_LEAST {
            return of(context, 1);
        }
        context = (context / 2).max(CONTEXT_LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Builder;

    #[test]
    fn fewer_conversations_take_fewer_slots() {
        let b = Builder::new(&|_| false);
        let logits = b.head(b.short_conv(b.embed("token_embd", 32, 64), "conv", 4));
        let program = b.finish("a convolution", logits).unwrap();
        let backend = backend::open(Kind::Cpu).unwrap();
        let need = |slots| {
            let fit = backend.fit(&program, &LoadOptions { slots, ..LoadOptions::default() });
            fit.weights.0 + fit.cache.0 + fit.scratch.0
        };
        let options = Options { sequences: 8, ..Options::default() };
        let slots = |room| choose(&*backend, &program, &options, 2048, room).slots;
        assert_eq!([need(8 + SNAPSHOTS), need(2 + SNAPSHOTS), 0].map(slots), [8, 2, 1].map(|n| n + SNAPSHOTS));
    }

    #[test]
    fn a_split_models_name_has_no_part_number() {
        assert_eq!(name_of(Path::new("/models/Big-Q4_K_M-00001-of-00003.gguf")), "Big-Q4_K_M");
        assert_eq!(name_of(Path::new("small.gguf")), "small");
    }
}
