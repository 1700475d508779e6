//! Tiny random models, one or two per architecture, with logits in float64 from an independent implementation.

use crate::fixtures::{Prompt, Table, json, open, shared};
use crate::session::{Session, argmax, largest_difference};
use hearth::backend::{BLOCK_TOKENS, Backend, KvType, LoadOptions};
use hearth::gguf::Gguf;
use hearth::model;
use hearth::program::Program;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Largest logit difference in f32 arithmetic: small faults of a formula show as 1e-2 and more.
const EXACT: f32 = 1e-3;
/// The same with keys and values in F16.
const F16_CACHE: f32 = 3e-2;

#[derive(Deserialize)]
struct Index {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: PathBuf,
    logits: PathBuf,
    prompts: Vec<Prompt>,
    greedy: Greedy,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: String,
    ids: Vec<u32>,
    margins: Vec<f32>,
}

struct Model {
    entry: Entry,
    file: Arc<Gguf>,
    program: Arc<Program>,
    logits: Table,
}

impl Model {
    /// Room for a prompt: the smallest power of two from 256, which is what decides between short and long rope factors.
    fn session(&self, backend: &dyn Backend, length: usize, sequences: usize, kv: KvType) -> Session {
        let context = length.next_power_of_two().max(256);
        let options = LoadOptions { context, kv, exact: true, ..LoadOptions::default() };
        Session::new(backend, &self.file, &self.program, sequences, &options)
    }

    /// Compares logits of a prompt's stored positions.
    fn check(&self, backend: &dyn Backend, prompt: &Prompt, how: &str, got: &[Vec<f32>], bound: f32) {
        assert_eq!(got.len(), prompt.positions.len());
        for (i, got) in got.iter().enumerate() {
            let want = self.logits.row(prompt.first_row + i);
            let (worst, at) = largest_difference(got, want);
            assert!(
                worst <= bound,
                "{} {} {how}, {} position {}: logit {at} is {}, not {} (off by {worst}, bound {bound})",
                backend.info().backend,
                self.entry.name,
                prompt.name,
                prompt.positions[i],
                got[at],
                want[at],
            );
        }
    }
}

fn models() -> Vec<Model> {
    let Some(folder) = shared("oracle") else { return Vec::new() };
    let index: Index = json(&folder.join("index.json"));
    let load = |entry: Entry| {
        let file = open(&folder.join(&entry.file));
        let program = model::build(&file).unwrap_or_else(|e| panic!("{e}")).program;
        Model { logits: Table::read(&folder.join(&entry.logits)), entry, file, program }
    };
    index.models.into_iter().map(load).collect()
}

/// Every stored position of every prompt of every model on every backend. Emulated, the longest prompt comes in one batch alone: all that a
/// processor does with few rows, and with a cache in F16, it does within two blocks of positions; the rest is the program's.
fn every_prompt(kv: KvType, chunk: usize, how: &str, bound: f32) {
    for model in models() {
        for backend in crate::held_to_references() {
            let long = |prompt: &Prompt| prompt.ids.len() > 2 * BLOCK_TOKENS;
            for prompt in model.entry.prompts.iter().filter(|p| !(crate::emulated() && chunk < usize::MAX && long(p))) {
                let mut session = model.session(&*backend, prompt.ids.len(), 1, kv);
                let got = session.feed(&prompt.ids, chunk, &prompt.positions);
                model.check(&*backend, prompt, how, &got, bound);
            }
        }
    }
}

#[test]
fn every_architecture_agrees_in_one_batch() {
    every_prompt(KvType::F32, usize::MAX, "in one batch", EXACT);
}

#[test]
fn every_architecture_agrees_token_by_token() {
    every_prompt(KvType::F32, 1, "token by token", EXACT);
}

#[test]
fn every_architecture_agrees_in_chunks_of_seven() {
    every_prompt(KvType::F32, 7, "in chunks of 7", EXACT);
}

#[test]
fn a_cache_in_f16_stays_within_its_noise() {
    every_prompt(KvType::F16, 64, "with an F16 cache", F16_CACHE);
}

/// Three prompts advance side by side, each at its own pace, in shared steps.
#[test]
fn sequences_batched_together_do_not_disturb_each_other() {
    for model in models() {
        for backend in crate::held_to_references() {
            let prompts: Vec<&Prompt> = model.entry.prompts.iter().filter(|p| p.ids.len() <= 256).collect();
            let mut session = model.session(&*backend, 256, prompts.len() + 1, KvType::F32);
            let mut got = vec![Vec::new(); prompts.len() + 1];
            // The first prompt runs twice, the second time three steps late and by a token a step.
            let lanes: Vec<(usize, &Prompt, usize, usize)> = prompts
                .iter()
                .enumerate()
                .map(|(lane, prompt)| (lane, *prompt, 5 + 8 * lane, 0))
                .chain([(prompts.len(), prompts[0], 1, 3)])
                .collect();
            for step in 0.. {
                let parts: Vec<(usize, &[u32])> = lanes
                    .iter()
                    .filter(|(.., late)| step >= *late)
                    .filter_map(|(lane, prompt, pace, late)| Some((*lane, prompt.ids.chunks(*pace).nth(step - late)?)))
                    .collect();
                if parts.is_empty() {
                    break;
                }
                let wants = |lane: usize, position: usize| lanes[lane].1.positions.contains(&position);
                let before: Vec<usize> = lanes.iter().map(|(lane, ..)| session.length(*lane)).collect();
                let mut logits = session.step(&parts, wants).into_iter();
                for (lane, tokens) in &parts {
                    let count = (before[*lane]..before[*lane] + tokens.len()).filter(|p| wants(*lane, *p)).count();
                    got[*lane].extend(logits.by_ref().take(count));
                }
            }
            for (lane, prompt, ..) in &lanes {
                model.check(&*backend, prompt, "beside others", &got[*lane], EXACT);
            }
        }
    }
}

#[test]
fn greedy_answers_are_the_references_up_to_the_first_close_call() {
    for model in models() {
        for backend in crate::held_to_references() {
            let greedy = &model.entry.greedy;
            let prompt = model.entry.prompts.iter().find(|p| p.name == greedy.prompt).expect("the prompt is listed");
            let mut session = model.session(&*backend, 256, 1, KvType::F32);
            let mut logits = session.feed(&prompt.ids, usize::MAX, &[prompt.ids.len() - 1]);
            for (step, (want, margin)) in greedy.ids.iter().zip(&greedy.margins).enumerate() {
                if *margin < 2.0 * EXACT {
                    break;
                }
                assert_eq!(argmax(&logits[0]), *want, "{} {}, step {step}", backend.info().backend, model.entry.name);
                logits = session.step(&[(0, &[*want])], |_, _| true);
            }
        }
    }
}
