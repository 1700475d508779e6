//! Models made here in code: for each architecture a few settings, and random weights for whatever its program asks. They need no
//! fixture, so that every architecture is tested everywhere; what their logits ought to be was frozen when the plain backend agreed
//! with the references of `oracle`.

use crate::session::{Session, largest_difference};
use hearth::backend::{KvType, LoadOptions};
use hearth::gguf::Gguf;
use hearth::gguf::writer::Plan;
use hearth::model;
use hearth::program::{Program, Role, Weight};
use hearth_kernels::quant::Format;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const VOCABULARY: usize = 40;
const CONTEXT: usize = 256;
/// Largest difference of logits between two orders of the same f32 arithmetic.
const EXACT: f32 = 1e-3;

/// An architecture with what it has beside the settings all share.
pub struct Tiny {
    pub name: &'static str,
    layers: u32,
    set: fn(&mut Plan),
    /// Optional tensors the file has.
    tensors: &'static [&'static str],
    dim: u32,
    feed_forward: u32,
    /// For queries, and for keys and values.
    heads: [u32; 2],
    context: usize,
}

const SMALL: Tiny = Tiny { name: "", layers: 2, set: |_| {}, tensors: &[], dim: 32, feed_forward: 40, heads: [4, 2], context: CONTEXT };

/// Wide enough that every product is cut into pieces for threads, with a context that attention splits too.
pub const WIDE: Tiny = Tiny { name: "llama", tensors: &["output.weight"], dim: 256, feed_forward: 1024, context: 2048, ..SMALL };

/// With experts wide enough for the same, and some rows for each of them in steps of a few.
pub const WIDE_EXPERTS: Tiny = Tiny { name: "qwen3moe", set: wide_experts, dim: 256, context: 2048, ..SMALL };

/// The same without a choice in it.
pub const EVERY_WIDE_EXPERT: Tiny = Tiny { set: every_wide_expert, ..WIDE_EXPERTS };

pub const TINY: &[Tiny] = &[
    Tiny { name: "llama", layers: 2, set: |_| {}, tensors: &["rope_freqs.weight"], ..SMALL },
    Tiny { name: "qwen2", layers: 2, set: |_| {}, tensors: QWEN2_BIASES, ..SMALL },
    Tiny { name: "qwen3", layers: 2, set: yarn, tensors: &[], ..SMALL },
    Tiny { name: "qwen3moe", layers: 2, set: experts, tensors: &[], ..SMALL },
    Tiny { name: "gemma2", layers: 2, set: window, tensors: &[], ..SMALL },
    Tiny { name: "gemma3", layers: 7, set: window, tensors: &[], ..SMALL },
    Tiny {
        name: "gemma4",
        layers: 6,
        set: gemma4,
        tensors: &["rope_freqs.weight", "blk.0.attn_v.weight", "blk.0.layer_output_scale.weight"],
        ..SMALL
    },
    Tiny { name: "phi3", layers: 2, set: long_rope, tensors: &["rope_factors_long.weight", "rope_factors_short.weight"], ..SMALL },
    Tiny { name: "smollm3", layers: 4, set: |_| {}, tensors: &[], ..SMALL },
    Tiny { name: "lfm2", layers: 3, set: lfm2, tensors: &[], ..SMALL },
    Tiny { name: "granite", layers: 2, set: granite, tensors: &[], ..SMALL },
    Tiny { name: "olmo2", layers: 4, set: window, tensors: &[], ..SMALL },
    Tiny { name: "qwen35", layers: 4, set: qwen35, tensors: &["output.weight"], ..SMALL },
];

const QWEN2_BIASES: &[&str] = &[
    "output.weight",
    "blk.0.attn_q.bias",
    "blk.0.attn_k.bias",
    "blk.0.attn_v.bias",
    "blk.1.attn_q.bias",
    "blk.1.attn_k.bias",
    "blk.1.attn_v.bias",
];

fn yarn(p: &mut Plan) {
    p.set("qwen3.rope.scaling.type", "yarn").set("qwen3.rope.scaling.factor", 4.0f32);
    p.set("qwen3.rope.scaling.original_context_length", 64u32);
}

fn experts(p: &mut Plan) {
    using_experts(p, [4, 2, 12]);
}

fn every_expert(p: &mut Plan) {
    using_experts(p, [4, 4, 12]);
}

fn wide_experts(p: &mut Plan) {
    using_experts(p, [9, 2, 256]);
}

fn every_wide_expert(p: &mut Plan) {
    using_experts(p, [3, 3, 256]);
}

/// So many, of which so many are used, each so wide.
fn using_experts(p: &mut Plan, [count, used, width]: [u32; 3]) {
    p.set("qwen3moe.expert_count", count).set("qwen3moe.expert_used_count", used).set("qwen3moe.expert_feed_forward_length", width);
}

fn window(p: &mut Plan) {
    for arch in ["gemma2", "gemma3", "olmo2"] {
        p.set(&format!("{arch}.attention.sliding_window"), 9u32);
    }
    p.set("gemma3.rope.freq_base", 1e4f32);
}

fn gemma4(p: &mut Plan) {
    p.set("gemma4.attention.sliding_window", 9u32).set("gemma4.attention.shared_kv_layers", 2u32);
    p.set("gemma4.attention.sliding_window_pattern", vec![true, true, true, false, true, false]);
    p.set("gemma4.attention.key_length_swa", 4u32).set("gemma4.embedding_length_per_layer_input", 6u32);
    p.set("gemma4.final_logit_softcapping", 8.0f32).set("gemma4.feed_forward_length", vec![40u32, 40, 40, 40, 48, 48]);
}

fn long_rope(p: &mut Plan) {
    p.set("phi3.rope.scaling.original_context_length", 64u32).set("phi3.rope.scaling.attn_factor", 1.1f32);
}

fn lfm2(p: &mut Plan) {
    p.set("lfm2.attention.head_count_kv", vec![0u32, 2, 0]).set("lfm2.shortconv.l_cache", 3u32);
}

fn granite(p: &mut Plan) {
    p.set("granite.embedding_scale", 1.5f32).set("granite.residual_scale", 0.7f32);
    p.set("granite.logit_scale", 0.9f32).set("granite.attention.scale", 0.3f32);
}

fn qwen35(p: &mut Plan) {
    p.set("qwen35.ssm.conv_kernel", 4u32).set("qwen35.ssm.state_size", 4u32).set("qwen35.ssm.group_count", 2u32);
    p.set("qwen35.ssm.time_step_rank", 4u32).set("qwen35.ssm.inner_size", 24u32).set("qwen35.rope.dimension_count", 4u32);
}

impl Tiny {
    /// The keys; what an architecture sets for itself comes in place of the shared setting.
    fn plan(&self) -> Plan {
        let mut p = Plan::new();
        p.set("general.architecture", self.name);
        p.set("tokenizer.ggml.tokens", (0..VOCABULARY).map(|i| format!("<{i}>")).collect::<Vec<_>>());
        let shared = [
            ("block_count", self.layers),
            ("context_length", self.context as u32),
            ("embedding_length", self.dim),
            ("attention.head_count", self.heads[0]),
        ];
        let unless = |other: &str, key, value| (self.name != other).then_some((key, value));
        let lists = [unless("lfm2", "attention.head_count_kv", self.heads[1]), unless("gemma4", "feed_forward_length", self.feed_forward)];
        for (key, value) in shared.into_iter().chain(lists.into_iter().flatten()) {
            p.set(&format!("{}.{key}", self.name), value);
        }
        p.set(&format!("{}.attention.layer_norm_rms_epsilon", self.name), 1e-5f32);
        (self.set)(&mut p);
        p
    }

    /// The same without a choice in it: every expert is used. Which of two nearly equal experts is picked may turn on the last bit.
    pub fn without_choices(&self) -> Tiny {
        let set = if self.name == "qwen3moe" { every_expert } else { self.set };
        Tiny { set, ..*self }
    }

    /// The same of another shape.
    pub fn shaped(self, dim: u32, feed_forward: u32, heads: [u32; 2]) -> Tiny {
        Tiny { dim, feed_forward, heads, ..self }
    }

    pub fn program(&self, folder: &TempDir) -> Program {
        let path = folder.path().join("outline.gguf");
        std::fs::write(&path, self.plan().to_bytes([])).expect("the folder can be written");
        let file = Gguf::open(&path).unwrap_or_else(|e| panic!("{e}"));
        model::outline(&file, &|name| self.tensors.contains(&name)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The whole file, matrices in `format`, opened, and the program that its model is.
    pub fn open(&self, folder: &TempDir, format: Format) -> (Arc<Gguf>, Arc<Program>) {
        self.open_mixed(folder, &|_| format)
    }

    /// The same, matrices in formats by their names.
    pub fn open_mixed(&self, folder: &TempDir, format: &dyn Fn(&str) -> Format) -> (Arc<Gguf>, Arc<Program>) {
        let file = crate::fixtures::open(&self.write_mixed(folder, format));
        let program = model::build(&file).unwrap_or_else(|e| panic!("{e}")).program;
        (file, program)
    }

    /// The whole file, matrices in `format`.
    pub fn write(&self, folder: &TempDir, format: Format) -> PathBuf {
        self.write_mixed(folder, &|_| format)
    }

    fn write_mixed(&self, folder: &TempDir, format: &dyn Fn(&str) -> Format) -> PathBuf {
        let program = self.program(folder);
        let mut plan = self.plan();
        let mut random = Random(7);
        let mut data = Vec::new();
        for weight in &program.weights {
            let columns = *weight.shape.last().expect("no weight is empty");
            let format = format(&weight.name);
            let format = match weight.role {
                Role::Matrix if format.row_bytes(columns).is_some() => format,
                Role::Matrix | Role::Vector => Format::F32,
            };
            plan.tensor(&weight.name, format, &weight.shape.iter().rev().copied().collect::<Vec<_>>());
            let (middle, spread) = magnitude(weight);
            let numbers: Vec<f32> = (0..weight.shape.iter().product()).map(|_| middle + spread * random.next()).collect();
            let mut bytes = vec![0; format.row_bytes(numbers.len()).expect("whole rows")];
            hearth_kernels::quant::encode(format, &numbers, &mut bytes);
            data.push(bytes);
        }
        let path = folder.path().join(format!("{}.gguf", self.name));
        std::fs::write(&path, plan.to_bytes(data.iter().map(Vec::as_slice))).expect("the folder can be written");
        path
    }
}

/// SplitMix64: a fixed sequence.
pub struct Random(pub u64);

impl Random {
    /// From −1 to 1.
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A number `x` from −1 to 1 becomes `middle + spread · x`, of the size that this tensor has in trained models.
fn magnitude(weight: &Weight) -> (f32, f32) {
    let columns = *weight.shape.last().unwrap_or(&1) as f32;
    match weight.name.as_str() {
        name if name.contains("norm") || name.contains("scale") => (1.0, 0.3),
        name if name.contains("rope") => (2.0, 1.0),
        name if name.ends_with("ssm_a") => (-1.0, -0.5),
        name if name.ends_with(".bias") => (0.0, 0.2),
        name if name.contains("token_embd") => (0.0, 1.0),
        _ => (0.0, 2.5 / columns.sqrt()),
    }
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 17 + i * i) % VOCABULARY) as u32).collect()
}

#[test]
fn batch_chunks_and_single_tokens_give_the_same_logits_on_every_backend() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = tokens(100);
    let every: Vec<usize> = (0..tokens.len()).collect();
    for tiny in TINY.iter().chain([&EVERY_WIDE_EXPERT]) {
        let (file, program) = tiny.open(&folder, Format::F32);
        let mut reference: Option<Vec<Vec<f32>>> = None;
        for backend in crate::backends() {
            let options = LoadOptions { context: CONTEXT, kv: KvType::F32, exact: true, ..LoadOptions::default() };
            let mut session = Session::new(&*backend, &file, &program, 1, &options);
            for chunk in [tokens.len(), 1, 7, 64] {
                let got = session.feed(&tokens, chunk, &every);
                let want = reference.get_or_insert_with(|| got.clone());
                for (position, (got, want)) in got.iter().zip(want).enumerate() {
                    let (worst, at) = largest_difference(got, want);
                    assert!(
                        worst <= EXACT,
                        "{} {} in steps of {chunk}, position {position}: logit {at} is {}, not {}",
                        backend.info().backend,
                        tiny.name,
                        got[at],
                        want[at]
                    );
                }
            }
        }
    }
}

#[test]
fn logits_are_those_frozen_when_they_agreed_with_the_references() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = tokens(100);
    let mut text = String::new();
    let mut logits = Vec::new();
    for tiny in TINY {
        let (file, program) = tiny.open(&folder, Format::F32);
        let options = LoadOptions { context: CONTEXT, kv: KvType::F32, exact: true, ..LoadOptions::default() };
        let mut session = Session::new(&*crate::backends()[0], &file, &program, 1, &options);
        let last = session.feed(&tokens, usize::MAX, &[tokens.len() - 1]).remove(0);
        let first: Vec<String> = last[..6].iter().map(|x| format!("{x:.4}")).collect();
        text += &format!("{} {}\n", tiny.name, first.join(" "));
        logits.push(last);
    }
    let frozen = crate::programs::golden("tiny_logits.txt", &text);
    for ((line, tiny), logits) in frozen.lines().zip(TINY).zip(&logits) {
        let want: Vec<f32> = line.split(' ').skip(1).map(|x| x.parse().expect("a number")).collect();
        let (worst, at) = largest_difference(&logits[..want.len()], &want);
        assert!(line.starts_with(tiny.name) && worst <= EXACT, "{}: logit {at} is {}, not {}", tiny.name, logits[at], want[at]);
    }
    assert_eq!(frozen.lines().count(), TINY.len());
}

#[test]
fn a_copied_block_and_slot_carry_a_sequence_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = tokens(90);
    for tiny in TINY {
        let (file, program) = tiny.open(&folder, Format::F32);
        for backend in crate::held_to_references() {
            let options = LoadOptions { context: CONTEXT, kv: KvType::F32, exact: true, ..LoadOptions::default() };
            let mut session = Session::new(&*backend, &file, &program, 2, &options);
            let want = session.feed(&tokens, usize::MAX, &[tokens.len() - 1]);
            session.feed(&tokens[..70], usize::MAX, &[]);
            session.copy(0, 1);
            // The original goes another way in between.
            session.step(&[(0, &[3, 3, 3])], |_, _| false);
            let got = session.step(&[(1, &tokens[70..])], |_, position| position == tokens.len() - 1);
            let (worst, at) = largest_difference(&got[0], &want[0]);
            assert!(worst <= EXACT, "{} {}: logit {at} is {}, not {}", backend.info().backend, tiny.name, got[0][at], want[0][at]);
        }
    }
}

/// Quantized matrices against the same numbers decoded, and a quantized cache against an exact one.
#[test]
fn quantized_weights_and_caches_stay_near_their_exact_twins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokens = tokens(70);
    let wanted = [tokens.len() - 1];
    for tiny in TINY {
        let (file, program) = tiny.open(&folder, Format::Q8_0);
        for backend in crate::held_to_references() {
            let logits = |kv, exact, chunk| {
                let options = LoadOptions { context: CONTEXT, kv, exact, ..LoadOptions::default() };
                Session::new(&*backend, &file, &program, 1, &options).feed(&tokens, chunk, &wanted).remove(0)
            };
            let exact = logits(KvType::F32, true, usize::MAX);
            for (kv, exact_products, chunk, bound) in [
                (KvType::F16, true, usize::MAX, 3e-2),
                (KvType::Q8_0, true, usize::MAX, 0.5),
                // Few rows are read another way.
                (KvType::Q8_0, true, 5, 0.5),
                (KvType::F16, false, usize::MAX, 0.5),
            ] {
                let (worst, at) = largest_difference(&logits(kv, exact_products, chunk), &exact);
                assert!(
                    worst <= bound,
                    "{} {} with {kv:?}, exact {exact_products}, in steps of {chunk}: logit {at} off by {worst}",
                    backend.info().backend,
                    tiny.name
                );
            }
        }
    }
}
