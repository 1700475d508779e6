//! A model for tests, made in code: random weights, one token a byte, and the marks of a chat. Its answers mean nothing, but they are text.

use super::{Model, Options};
use crate::engine::random::Random;
use crate::gguf::Gguf;
use crate::gguf::writer::{Format, Plan};
use crate::model;
use crate::program::Role;
use crate::tokenizer::Tokenizer;
use crate::units::TokenId;
use std::path::PathBuf;

/// Positions it says it was trained for.
pub const CONTEXT: usize = 512;
/// The bytes' tokens begin here.
const BYTES: u32 = 3;
/// Control tokens, after those of the bytes.
const MARKS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

pub fn byte(b: u8) -> TokenId {
    TokenId(BYTES + u32::from(b))
}

/// A temporary folder with the model's file in it.
pub struct Tiny {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Tiny {
    /// Of the architecture `arch`; `set` adds its own settings.
    pub fn new(arch: &str, set: impl Fn(&mut Plan)) -> Tiny {
        Self::lacking(None, arch, set)
    }

    /// A llama whose vocabulary can't write one letter.
    pub fn without(letter: u8) -> Tiny {
        Self::lacking(Some(letter), "llama", |_| {})
    }

    fn lacking(letter: Option<u8>, arch: &str, set: impl Fn(&mut Plan)) -> Tiny {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, plan(arch, letter, &set).to_bytes([])).unwrap();
        let program = model::outline(&Gguf::open(&path).unwrap(), &|_| false).unwrap();
        let mut plan = plan(arch, letter, &set);
        let mut random = Random::from_seed(3);
        let mut data = Vec::new();
        for weight in &program.weights {
            plan.tensor(&weight.name, Format::F32, &weight.shape.iter().rev().copied().collect::<Vec<_>>());
            let columns = *weight.shape.last().unwrap() as f32;
            let scale = if weight.role == Role::Vector { 0.3 } else { 3.0 / columns.sqrt() };
            let mean = if weight.name.contains("norm") { 1.0 } else { 0.0 };
            let count = weight.shape.iter().product::<usize>();
            let numbers = (0..count).map(|_| mean + scale * (2.0 * random.unit() as f32 - 1.0));
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            data.push(bytes);
        }
        std::fs::write(&path, plan.to_bytes(data.iter().map(Vec::as_slice))).unwrap();
        Tiny { folder, path }
    }

    pub fn llama() -> Tiny {
        Tiny::new("llama", |_| {})
    }

    /// With convolutions between its attentions: state that is no list of positions.
    pub fn recurrent() -> Tiny {
        Tiny::new("lfm2", |p| {
            p.set("lfm2.attention.head_count_kv", vec![0u32, 2]).set("lfm2.shortconv.l_cache", 3u32);
        })
    }

    pub fn open(&self, options: &Options) -> Model {
        assert!(self.folder.path().is_dir());
        Model::open(&self.path, options, &()).unwrap_or_else(|e| panic!("{e}"))
    }

    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_gguf(&Gguf::open(&self.path).unwrap()).unwrap()
    }

    pub fn file(&self) -> Gguf {
        Gguf::open(&self.path).unwrap()
    }
}

fn plan(arch: &str, lacks: Option<u8>, set: &dyn Fn(&mut Plan)) -> Plan {
    let mut p = Plan::new();
    p.set("general.architecture", arch);
    let key = |name: &str| format!("{arch}.{name}");
    p.set(&key("block_count"), 2u32).set(&key("context_length"), CONTEXT as u32).set(&key("embedding_length"), 32u32);
    p.set(&key("attention.head_count"), 4u32).set(&key("feed_forward_length"), 40u32);
    if arch != "lfm2" {
        p.set(&key("attention.head_count_kv"), 2u32);
    }
    p.set(&key("attention.layer_norm_rms_epsilon"), 1e-5f32);
    let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
    let tokens: Vec<String> =
        ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).chain(MARKS.map(str::to_owned)).collect();
    let mut kinds: Vec<i32> = [2, 3, 3].into_iter().chain([6; 256]).chain([3; MARKS.len()]).collect();
    if let Some(letter) = lacks {
        kinds[byte(letter).0 as usize] = 3;
    }
    p.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.scores", vec![0f32; tokens.len()]);
    p.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", kinds);
    p.set("tokenizer.ggml.bos_token_id", 1u32).set("tokenizer.ggml.eos_token_id", 2u32);
    p.set("tokenizer.ggml.add_bos_token", false).set("tokenizer.ggml.add_space_prefix", false);
    set(&mut p);
    p
}
