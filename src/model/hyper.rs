//! A model's hyper-parameters, read from metadata and checked: after this no size is zero or absurd, no number is NaN, and sizes that
//! must divide each other do. A refusal names the key. What only one architecture knows is asked for by that architecture's file,
//! through the same checked getters.

use super::ModelError;
use crate::gguf::{Array, Fault, Gguf, Metadata, Value as MetaValue};
use crate::program::{Builder, Pairing, Rope, RopeFactors, RopeScaling, Value};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::Path;

/// Most layers; the deepest models known have 126. A guess with room.
const LAYERS_MAX: usize = 1024;
/// Widest vector: embedding, feed-forward, all heads together. A guess with room (Llama 3 405B: 53248).
const WIDTH_MAX: usize = 1 << 22;
/// Most heads, and most experts, of a layer. A guess with room.
const HEADS_MAX: usize = 4096;

/// Architectures of which files are about without an epsilon, since it is the same in all their models.
const EPSILON_LEFT_OUT: [(&str, f32); 1] = [("gemma3", 1e-6)];

/// What most architectures share. Keys stand below the architecture's name, as `llama.block_count`.
pub struct Hyper<'a> {
    pub arch: &'static str,
    /// `block_count`
    pub layers: usize,
    /// `embedding_length`
    pub dim: usize,
    /// `feed_forward_length`, a layer
    pub ff: Vec<usize>,
    /// `attention.head_count`
    pub heads: usize,
    /// `attention.head_count_kv`, a layer; 0 marks a layer without attention
    pub kv_heads: Vec<usize>,
    /// `attention.key_length`, else `embedding_length / head_count`
    pub k_dim: usize,
    /// `attention.value_length`, else as the keys
    pub v_dim: usize,
    /// `attention.layer_norm_rms_epsilon`
    pub eps: f32,
    /// `context_length`: positions it was trained for
    pub context: usize,
    /// Length of the vocabulary: of its list of tokens, else of the embedding table
    pub vocabulary: usize,
    pub experts: Option<Experts>,
    meta: Metadata<'a>,
    path: &'a Path,
    /// Keys of integers that were asked for, with their values.
    read: RefCell<Vec<(String, String)>>,
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// `expert_count`
    pub count: usize,
    /// `expert_used_count`
    pub used: usize,
    /// `expert_feed_forward_length`
    pub width: Option<usize>,
}

impl<'a> Hyper<'a> {
    pub fn read(file: &'a Gguf, arch: &'static str) -> Result<Self, ModelError> {
        let mut h = Hyper {
            arch,
            layers: 0,
            dim: 0,
            ff: vec![],
            heads: 0,
            kv_heads: vec![],
            k_dim: 0,
            v_dim: 0,
            eps: 0.0,
            context: 0,
            vocabulary: 0,
            experts: None,
            meta: file.meta(),
            path: file.path(),
            read: RefCell::default(),
        };
        h.layers = h.size("block_count", LAYERS_MAX)?;
        let last = format!("blk.{}.", h.layers - 1);
        if !file.tensors().is_empty() && !file.tensors().iter().any(|t| t.name.starts_with(&last)) {
            return Err(h.refuse("block_count", h.layers, format!("the number of layers: no tensor is named `{last}…`")));
        }
        h.dim = h.size("embedding_length", WIDTH_MAX)?;
        // A model whose every layer is a mixture may give the width of its experts alone.
        let ff = match h.per_layer("feed_forward_length", 1..=WIDTH_MAX)? {
            None => h.per_layer("expert_feed_forward_length", 1..=WIDTH_MAX)?,
            given => given,
        };
        h.ff = h.needed("feed_forward_length", ff)?;
        h.read_heads()?;
        const EPSILON: &str = "attention.layer_norm_rms_epsilon";
        let known = EPSILON_LEFT_OUT.iter().find(|(name, _)| *name == arch).map(|(_, epsilon)| *epsilon);
        h.eps = h.needed(EPSILON, h.optional_positive(EPSILON)?.or(known))?;
        if h.flag("attention.causal")? == Some(false) {
            return Err(h.refuse("attention.causal", false, "true: a model that sees what is to come writes nothing"));
        }
        h.context = h.size("context_length", usize::MAX)?;
        h.vocabulary = h.read_vocabulary(file)?;
        h.experts = h.read_experts(file)?;
        Ok(h)
    }

    fn read_heads(&mut self) -> Result<(), ModelError> {
        let heads = self.needed("attention.head_count", self.per_layer("attention.head_count", 1..=HEADS_MAX)?)?;
        self.heads = heads[0];
        if heads.iter().any(|&h| h != self.heads) {
            return Err(self.refuse("attention.head_count", "a list of different numbers", "one number for all layers"));
        }
        self.kv_heads = self.per_layer("attention.head_count_kv", 0..=HEADS_MAX)?.unwrap_or(heads);
        if let Some(bad) = self.kv_heads.iter().find(|&&kv| kv > self.heads || kv > 0 && !self.heads.is_multiple_of(kv)) {
            return Err(self.refuse("attention.head_count_kv", bad, format!("a divisor of head_count, {}", self.heads)));
        }
        if self.kv_heads.iter().all(|&kv| kv == 0) {
            return Err(self.refuse("attention.head_count_kv", 0, format!("a divisor of head_count, {}", self.heads)));
        }
        self.k_dim = match self.optional_size("attention.key_length", WIDTH_MAX / self.heads)? {
            Some(given) => given,
            None if self.dim.is_multiple_of(self.heads) => self.dim / self.heads,
            None => return Err(self.refuse("attention.head_count", self.heads, format!("a divisor of embedding_length, {}", self.dim))),
        };
        self.v_dim = self.optional_size("attention.value_length", WIDTH_MAX / self.heads)?.unwrap_or(self.k_dim);
        Ok(())
    }

    fn read_vocabulary(&self, file: &Gguf) -> Result<usize, ModelError> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        let tokens: Option<Array> = self.meta.optional(TOKENS)?;
        let table = file.info("token_embd.weight").and_then(|t| t.shape.get(1).copied());
        // What stands for an image may be a word without a row: the tokenizer leaves it out too.
        let names_images = |t: &Array| t.iter().last() == Some(MetaValue::String(b"<image_soft_token>"));
        let extra = |t: &Array| usize::from(table.is_some_and(|rows| t.len == rows + 1) && names_images(t));
        match tokens.map(|t| t.len - extra(&t)).or(table) {
            Some(0) => Err(ModelError::Key {
                path: self.path.into(),
                key: TOKENS.into(),
                found: "an empty list".into(),
                want: "the vocabulary".into(),
            }),
            Some(count) => Ok(count),
            None => Err(Fault::MissingTensor { tensor: "token_embd.weight".into() }.at(self.path).into()),
        }
    }

    fn read_experts(&self, file: &Gguf) -> Result<Option<Experts>, ModelError> {
        const ROUTER: &str = ".ffn_gate_inp.weight";
        let Some(count) = self.optional_integer("expert_count", 0..=HEADS_MAX)?.filter(|&count| count > 0) else { return Ok(None) };
        if !file.tensors().is_empty() && !file.tensors().iter().any(|t| t.name.ends_with(ROUTER)) {
            return Err(self.refuse("expert_count", count, format!("0 in a file without a tensor `…{ROUTER}`")));
        }
        let used = self.size("expert_used_count", HEADS_MAX)?;
        if used > count {
            return Err(self.refuse("expert_used_count", used, format!("at most expert_count, {count}")));
        }
        Ok(Some(Experts { count, used, width: self.optional_size("expert_feed_forward_length", WIDTH_MAX)? }))
    }

    /// The model's rotary embedding, `rope.*`, for heads of `k_dim`: base, scaling, and divisors where the file has them: `rope_freqs`,
    /// or long rope's `rope_factors_{short,long}` (arXiv 2402.13753).
    pub fn rope(&self, b: &Builder, pairing: Pairing) -> Result<Rope, ModelError> {
        let rope = self.rope_of(pairing, "rope.dimension_count", self.k_dim, "rope.freq_base")?;
        let scaling = self.rope_scaling()?;
        let factors = if b.has("rope_freqs.weight") {
            RopeFactors::Always(b.rope_factors("rope_freqs.weight", rope.dims))
        } else if b.has("rope_factors_long.weight") {
            RopeFactors::ByContext {
                short: b.rope_factors("rope_factors_short.weight", rope.dims),
                long: b.rope_factors("rope_factors_long.weight", rope.dims),
                original_context: self.optional_size("rope.scaling.original_context_length", usize::MAX)?.unwrap_or(self.context),
            }
        } else {
            RopeFactors::None
        };
        let attention_factor = self.optional_positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        Ok(Rope { scaling, factors, attention_factor, ..rope })
    }

    /// An unscaled rotary embedding for heads of `width`, its dimensions and base under keys of their own.
    pub fn rope_of(&self, pairing: Pairing, dims_key: &str, width: usize, base_key: &str) -> Result<Rope, ModelError> {
        let dims = self.optional_integer(dims_key, 0..=usize::MAX)?.unwrap_or(width);
        if dims == 0 || !dims.is_multiple_of(2) || dims > width {
            return Err(self.refuse(dims_key, dims, format!("even, and at most the head's {}.attention.key_length, {width}", self.arch)));
        }
        let base = self.optional_positive(base_key)?.unwrap_or(10_000.0);
        Ok(Rope { pairing, dims, base, scaling: RopeScaling::None, factors: RopeFactors::None, attention_factor: 1.0 })
    }

    /// `rope.scaling.*`. A factor without a type is linear, as older files have it.
    fn rope_scaling(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.text("rope.scaling.type")?;
        let factor = self.first_positive(&["rope.scaling.factor", "rope.scale_linear"])?.unwrap_or(1.0);
        match kind {
            Some("yarn") => Ok(RopeScaling::Yarn {
                factor,
                original_context: self.optional_size("rope.scaling.original_context_length", usize::MAX)?.unwrap_or(self.context),
                beta_fast: self.first_positive(&["rope.scaling.yarn_beta_fast", "rope.scaling.beta_fast"])?.unwrap_or(32.0),
                beta_slow: self.first_positive(&["rope.scaling.yarn_beta_slow", "rope.scaling.beta_slow"])?.unwrap_or(1.0),
            }),
            None | Some("linear") if factor != 1.0 => Ok(RopeScaling::Linear { factor }),
            // Long rope lies in its two tensors of factors.
            None | Some("none" | "linear" | "longrope") => Ok(RopeScaling::None),
            Some(other) => Err(self.refuse("rope.scaling.type", format!("\"{}\"", shown(other)), "none, linear, yarn or longrope")),
        }
    }

    /// Queries, keys and values of a layer in the usual sizes, see [`Builder::qkv`].
    pub fn qkv(&self, l: &Builder, x: Value) -> (Value, Value, Value) {
        l.qkv(x, self.heads, self.kv_heads[l.layer], self.k_dim, self.v_dim)
    }

    // ---- checked getters, keys below the architecture's name --------------------------------------------------------------------

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.meta.get(&self.key(key)).is_some()
    }

    /// An integer from 1 to `max`.
    pub fn size(&self, key: &str, max: usize) -> Result<usize, ModelError> {
        self.needed(key, self.optional_size(key, max)?)
    }

    /// An integer from 1 to `max`, where the key is there.
    pub fn optional_size(&self, key: &str, max: usize) -> Result<Option<usize>, ModelError> {
        self.optional_integer(key, 1..=max)
    }

    /// An integer of a range, where the key is there.
    pub fn optional_integer(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, ModelError> {
        let value: Option<usize> = self.meta.optional(&self.key(key))?;
        match value {
            Some(n) if !range.contains(&n) => Err(self.outside(key, n, &range)),
            other => {
                other.iter().for_each(|n| self.note(key, n));
                Ok(other)
            }
        }
    }

    /// A finite number above 0, where the key is there.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let value: Option<f32> = self.meta.optional(&self.key(key))?;
        match value {
            Some(x) if !(x.is_finite() && x > 0.0) => Err(self.refuse(key, x, "a finite number above 0")),
            other => Ok(other),
        }
    }

    /// A finite number above 0, under the first of these keys that is there.
    pub fn first_positive(&self, keys: &[&str]) -> Result<Option<f32>, ModelError> {
        keys.iter().find(|key| self.has(key)).map_or(Ok(None), |key| self.optional_positive(key))
    }

    /// True or false, where the key is there.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        Ok(self.meta.optional(&self.key(key))?)
    }

    /// One integer for all layers, or a list of one a layer.
    pub fn per_layer(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<Vec<usize>>, ModelError> {
        let values = match self.meta.get(&self.key(key)) {
            None => return Ok(None),
            Some(MetaValue::Array(_)) => {
                self.note(key, &"a list");
                self.layer_list(self.meta.required(&self.key(key))?, key)?
            }
            Some(_) => {
                let value: usize = self.meta.required(&self.key(key))?;
                self.note(key, &value);
                vec![value; self.layers]
            }
        };
        match values.iter().find(|n| !range.contains(n)) {
            Some(&n) => Err(self.outside(key, n, &range)),
            None => Ok(Some(values)),
        }
    }

    /// A list of true or false, one a layer, where the key holds such a list.
    pub fn flags(&self, key: &str) -> Result<Option<Vec<bool>>, ModelError> {
        let Some(MetaValue::Array(array)) = self.meta.get(&self.key(key)) else { return Ok(None) };
        let flags = array.iter().map(|v| match v {
            MetaValue::Bool(b) => Some(b),
            other => other.integer().map(|n| n != 0),
        });
        let flags: Option<Vec<bool>> = flags.collect();
        let flags = flags.ok_or_else(|| self.refuse(key, "a list of something else", "a list of true or false"))?;
        self.layer_list(flags, key).map(Some)
    }

    /// Which layers slide. A list of flags where the file has one; else all but every `period`-th, with the key's own period if given.
    pub fn sliding_layers(&self, period: usize) -> Result<Vec<bool>, ModelError> {
        const KEY: &str = "attention.sliding_window_pattern";
        if let Some(flags) = self.flags(KEY)? {
            return Ok(flags);
        }
        let period = self.optional_size(KEY, LAYERS_MAX)?.unwrap_or(period);
        Ok((0..self.layers).map(|layer| (layer + 1) % period != 0).collect())
    }

    /// `attention.sliding_window`; `None` where it is absent or 0.
    pub fn window(&self) -> Result<Option<usize>, ModelError> {
        Ok(self.optional_integer("attention.sliding_window", 0..=usize::MAX)?.filter(|&w| w > 0))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        Ok(self.meta.optional(&self.key(key))?)
    }

    fn layer_list<T>(&self, list: Vec<T>, key: &str) -> Result<Vec<T>, ModelError> {
        match list.len() == self.layers {
            true => Ok(list),
            false => Err(self.refuse(key, format!("a list of {}", list.len()), format!("one for each of {} layers", self.layers))),
        }
    }

    /// The refusal of a key's value.
    pub fn refuse(&self, key: &str, found: impl std::fmt::Display, want: impl std::fmt::Display) -> ModelError {
        ModelError::Key { path: self.path.into(), key: self.key(key), found: found.to_string(), want: want.to_string() }
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, ModelError> {
        let missing = || Fault::MissingKey { key: self.key(key) }.at(self.path);
        value.ok_or_else(|| missing().into())
    }

    fn outside(&self, key: &str, found: usize, range: &RangeInclusive<usize>) -> ModelError {
        match (*range.start(), *range.end()) {
            (least, usize::MAX) => self.refuse(key, found, format!("at least {least}")),
            (least, most) => self.refuse(key, found, format!("from {least} to {most}")),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    /// The integers that were read, which tensor shapes follow from, for messages.
    pub(super) fn sizes(&self) -> String {
        let read: Vec<String> = self.read.borrow().iter().map(|(key, value)| format!("{key} {value}")).collect();
        format!("{}.({}), and a vocabulary of {} tokens", self.arch, read.join(", "), self.vocabulary)
    }

    fn note(&self, key: &str, value: &dyn std::fmt::Display) {
        let mut read = self.read.borrow_mut();
        if !read.iter().any(|(known, _)| known == key) {
            read.push((key.to_owned(), value.to_string()));
        }
    }
}

/// A name from a file, short and without control characters.
pub(super) fn shown(text: &str) -> String {
    crate::gguf::error::printable(text.as_bytes())
}
