//! The options shared by every verb that loads a model.

use super::arguments::{self, Count};
use crate::backend::{self, BLOCK_TOKENS, Kind, KvType, LoadOptions};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub struct ModelOptions {
    /// The model, a GGUF file (of a split model, its first part)
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Device to run on
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// Worker threads; -1: measured best [default: -1]
    #[arg(short, long, value_parser = threads)]
    pub threads: Option<Threads>,
    /// Most tokens a sequence may have [default: what the model was trained for, at most 4096]
    #[arg(long = "ctx", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Storage of keys and values
    #[arg(long, value_enum, default_value = "f16")]
    pub kv: KvChoice,
}

/// A number of threads; a negative one asks for what is measured best, as in llama.cpp's commands.
#[derive(Clone, Copy, Debug)]
pub struct Threads(Option<usize>);

/// Most threads: no board has more cores.
const THREADS_MAX: u32 = 512;

fn threads(text: &str) -> Result<Threads, String> {
    let count = arguments::count(text).ok().filter(|Count(n)| n.is_none_or(|n| (1..=THREADS_MAX).contains(&n)));
    let wrong = || format!("must be a whole number from 1 to {THREADS_MAX}, or negative for what is measured best");
    count.map(|Count(n)| Threads(n.map(|n| n as usize))).ok_or_else(wrong)
}

/// The same options for a verb that can do without a model: `None` when none is named.
pub struct OptionalModel(pub Option<ModelOptions>);

impl Args for OptionalModel {
    fn augment_args(command: clap::Command) -> clap::Command {
        ModelOptions::augment_args(command).mut_arg("model", |a| a.required(false))
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        OptionalModel::augment_args(command)
    }
}

impl clap::FromArgMatches for OptionalModel {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let named = matches.contains_id("model");
        Ok(OptionalModel(if named { Some(ModelOptions::from_arg_matches(matches)?) } else { None }))
    }
    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = OptionalModel::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum BackendChoice {
    Auto,
    Cpu,
    Vulkan,
    Cuda,
    /// Every operation as its formula, one thread: the reference, slow
    Plain,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
pub enum KvChoice {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<BackendChoice> for Kind {
    fn from(b: BackendChoice) -> Self {
        match b {
            BackendChoice::Auto => Kind::Auto,
            BackendChoice::Cpu => Kind::Cpu,
            BackendChoice::Vulkan => Kind::Vulkan,
            BackendChoice::Cuda => Kind::Cuda,
            BackendChoice::Plain => Kind::Plain,
        }
    }
}

impl From<KvChoice> for KvType {
    fn from(k: KvChoice) -> Self {
        match k {
            KvChoice::F32 => KvType::F32,
            KvChoice::F16 => KvType::F16,
            KvChoice::Q8_0 => KvType::Q8_0,
        }
    }
}

impl ModelOptions {
    /// As many as were asked for; `None` leaves it to what is measured.
    pub fn threads(&self) -> Option<usize> {
        self.threads.and_then(|t| t.0)
    }

    /// Room for `sequences` sequences of `context` tokens each.
    pub fn load_options(&self, context: usize, sequences: usize) -> LoadOptions {
        LoadOptions {
            context,
            blocks: context.div_ceil(BLOCK_TOKENS) * sequences,
            slots: sequences,
            kv: self.kv.into(),
            threads: self.threads(),
            remember: backend::cache_folder(),
            ..LoadOptions::default()
        }
    }
}
