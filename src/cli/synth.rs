//! `hearth synth`: a model of random weights in a known shape, for speed and plumbing. What it writes is noise, but its tensors have
//! the sizes, formats and mixes of files that people download, so what is measured on it is measured on those.
//!
//! - [`shape`]: the shapes, and the tensors of each architecture.
//! - [`mix`]: which tensor gets which format in a file type such as Q4_K_M.
//! - [`vocabulary`]: words of the right number.

mod mix;
mod shape;
mod vocabulary;

use crate::gguf::file_type;
use crate::gguf::writer::{Plan, Writer};
use anyhow::{Context, bail};
use hearth_kernels::quant::{Format, encode};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use shape::{Shape, Tensor};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The model whose shape to take
    #[arg(value_name = "SHAPE", value_parser = clap::builder::PossibleValuesParser::new(shape::names()))]
    shape: String,
    /// File type, such as Q4_K_M, Q4_0, Q8_0, IQ4_XS, F16
    #[arg(value_name = "TYPE", value_parser = clap::builder::PossibleValuesParser::new(mix::names()), ignore_case = true)]
    file_type: String,
    /// Where to write the model
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Same seed, same file
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cut the shape to this many layers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    layers: Option<u32>,
    /// Cut the vocabulary to this many words
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(512..=262144))]
    vocabulary: Option<u32>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut shape = shape::named(&args.shape).context("no such shape")?;
    shape.layers = args.layers.map_or(shape.layers, |n| n as usize);
    shape.vocabulary = args.vocabulary.map_or(shape.vocabulary, |n| n as usize);
    // What a name leads to is replaced: for root that could be a device.
    if fs::metadata(&args.out).is_ok_and(|there| !there.is_file()) {
        bail!("{} is there and is no file; name the file to write", args.out.display());
    }
    // A rename at the end: nobody sees half a model, and a process that has the old one mapped keeps it.
    let partial = args.out.with_added_extension("part");
    let written = write(&shape, &args.file_type.to_uppercase(), args.seed, &partial).and_then(|()| fs::rename(&partial, &args.out));
    if written.is_err() {
        let _ = fs::remove_file(&partial); // the error below is the one that counts
    }
    written.with_context(|| format!("{} cannot be written", args.out.display()))
}

fn write(shape: &Shape, file_type: &str, seed: u64, path: &Path) -> io::Result<()> {
    let tensors = shape.tensors();
    let mut plan = Plan::new();
    describe(shape, file_type, &mut plan);
    for t in &tensors {
        plan.tensor(&t.name, mix::format(file_type, t, shape), &t.dimensions);
    }
    let mut out = plan.start(BufWriter::with_capacity(1 << 20, File::create(path)?))?;
    let pool = gaussians(seed);
    let progress = ProgressBar::new(tensors.iter().map(Tensor::weights).sum::<usize>() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:40} {percent}% {msg}").expect("the template is well-formed"));
    for (index, t) in tensors.iter().enumerate() {
        progress.set_message(t.name.clone());
        fill(t, mix::format(file_type, t, shape), &pool, mixed(seed, index as u64), &mut out)?;
        progress.inc(t.weights() as u64);
    }
    progress.finish_and_clear();
    out.finish()?.into_inner().map_err(|e| e.into_error())?.sync_all()
}

/// Metadata that a loader needs: architecture, sizes, vocabulary.
fn describe(s: &Shape, file_type: &str, plan: &mut Plan) {
    let arch = s.architecture.name();
    let key = |k: &str| format!("{arch}.{k}");
    plan.set("general.architecture", arch).set("general.type", "model").set("general.name", format!("synth {}", s.name));
    plan.set("general.file_type", file_type::id(file_type).unwrap_or(0)).set("general.quantization_version", 2u32);
    plan.set(&key("block_count"), s.layers as u32).set(&key("context_length"), s.context);
    plan.set(&key("embedding_length"), s.width as u32).set(&key("feed_forward_length"), s.feed_forward as u32);
    plan.set(&key("attention.head_count"), s.heads as u32).set(&key("attention.head_count_kv"), s.kv_heads as u32);
    plan.set(&key("attention.key_length"), s.head as u32).set(&key("attention.value_length"), s.head as u32);
    plan.set(&key("attention.layer_norm_rms_epsilon"), s.architecture.epsilon());
    plan.set(&key("rope.dimension_count"), s.head as u32).set(&key("rope.freq_base"), s.rope_base);
    plan.set(&key("vocab_size"), s.vocabulary as u32);
    if let Some(window) = s.window {
        plan.set(&key("attention.sliding_window"), window);
    }
    if let Some(experts) = s.experts {
        plan.set(&key("expert_count"), experts.count as u32).set(&key("expert_used_count"), experts.used as u32);
        plan.set(&key("expert_feed_forward_length"), s.feed_forward as u32);
    }
    vocabulary::describe(s, plan);
}

/// Weights that one task generates and encodes.
const TASK_WEIGHTS: usize = 1 << 16;
/// Bytes that are encoded before they are written.
const BATCH_BYTES: usize = 16 << 20;

/// Generates, encodes and writes one tensor. What a task generates depends on its place only, never on who runs it.
fn fill(t: &Tensor, format: Format, pool: &[f32], seed: u64, out: &mut Writer<impl Write>) -> io::Result<()> {
    if let Some(values) = &t.values {
        return values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()));
    }
    let cols = t.dimensions[0];
    let row_bytes = format.row_bytes(cols).expect("the mix chose a format whose blocks fit the row");
    let rows = t.weights() / cols;
    let task_rows = (TASK_WEIGHTS / cols).max(1);
    let starts: Vec<usize> = (0..rows).step_by(task_rows).collect();
    let encoded = |start: &usize| {
        let mut random = Random(mixed(seed, *start as u64));
        let rows = task_rows.min(rows - start);
        let weights: Vec<f32> = (0..rows * cols).map(|_| t.mean + t.spread * pool[random.next() as usize % pool.len()]).collect();
        let mut bytes = vec![0; rows * row_bytes];
        encode(format, &weights, &mut bytes);
        bytes
    };
    for batch in starts.chunks((BATCH_BYTES / (task_rows * row_bytes)).max(1)) {
        let pieces: Vec<Vec<u8>> = batch.par_iter().map(encoded).collect();
        pieces.iter().try_for_each(|bytes| out.write_all(bytes))?;
    }
    Ok(())
}

/// 65536 draws from the normal distribution (Box and Muller 1958). Weights are drawn from these: a billion would take minutes.
fn gaussians(seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let mut uniform = move || ((random.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let mut pair = || {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        [(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]
    };
    (0..1 << 15).flat_map(|_| pair()).collect()
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A seed for part `index` of what `seed` stands for.
fn mixed(seed: u64, index: u64) -> u64 {
    Random(Random(seed).next() ^ index).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;
    use hearth_kernels::quant::decode;

    #[test]
    fn what_is_there_and_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for out in [folder.path(), &link] {
            let out = out.to_owned();
            let told = run(Args { shape: "tiny".into(), file_type: "Q8_0".into(), out, seed: 1, layers: None, vocabulary: None });
            assert!(told.unwrap_err().to_string().contains("is there and is no file"));
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    fn model(file_type: &str, seed: u64) -> (tempfile::TempDir, Gguf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        write(&shape::named("tiny").unwrap(), file_type, seed, &path).unwrap();
        let file = Gguf::open(&path).unwrap();
        (folder, file)
    }

    #[test]
    fn same_seed_same_file_and_other_seed_other_weights() {
        let weights = |seed| model("Q4_0", seed).1.tensor("blk.1.ffn_up.weight").unwrap().data.to_vec();
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }

    #[test]
    fn weights_are_spread_as_the_width_asks() {
        let (_folder, file) = model("F32", 1);
        let view = file.tensor("blk.0.ffn_gate.weight").unwrap();
        let mut x = vec![0.0; view.rows() * view.cols()];
        decode(view.format, view.data, &mut x);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / x.len() as f32).sqrt();
        let want = (view.cols() as f32).sqrt().recip();
        assert!(
            mean.abs() < 0.02 * want && (deviation / want - 1.0).abs() < 0.02,
            "mean {mean}, deviation {deviation}, wanted 0 and {want}"
        );
    }

    #[test]
    fn every_file_type_can_be_written_in_every_shape() {
        for name in shape::names() {
            let shape = shape::named(name).unwrap();
            for file_type in mix::names() {
                for t in shape.tensors() {
                    let format = mix::format(file_type, &t, &shape);
                    assert!(format.row_bytes(t.dimensions[0]).is_some(), "{name} {file_type} {}: {}", t.name, format.name());
                }
            }
        }
    }
}
