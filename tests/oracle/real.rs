//! Two trained models, teacher-forced along another engine's greedy answers: its ids are fed at each step, and the five best logits are
//! compared. Quantized activations make engines differ; the bounds are what one engine differs from itself by, with another cache.

use crate::fixtures::{json, open, shared};
use crate::session::{Session, argmax};
use hearth::backend::{Backend, LoadOptions};
use hearth::model;
use serde::Deserialize;
use std::path::PathBuf;

/// A best token may differ where the reference's lead is smaller.
const MARGIN: f32 = 1.0;
/// Centred logits of the reference's best five: largest difference at a step, and in the median of a prompt.
const STEP: f32 = 1.5;
const MEDIAN: f32 = 0.5;

#[derive(Deserialize)]
struct Index {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: PathBuf,
    prompts: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    /// Before each step: the five best (id, logit).
    top5: Vec<Vec<(u32, f32)>>,
}

/// The folder of downloaded models: `$HEARTH_MODELS`, else the cache folder that the Makefile fills.
fn folder() -> PathBuf {
    let cache =
        || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    std::env::var_os("HEARTH_MODELS").map_or_else(|| cache().unwrap_or_default().join("hearth/models"), PathBuf::from)
}

/// How many of a model's prompts a backend runs: the plain one is too slow for more than its shortest.
fn prompts(backend: &dyn Backend, entry: &Entry) -> usize {
    if backend.info().backend == "plain" { 1 } else { entry.prompts.len() }
}

#[test]
fn trained_models_answer_as_another_engine_does() {
    let Some(fixtures) = shared("real") else { return };
    let index: Index = json(&fixtures.join("greedy.json"));
    for mut entry in index.models {
        let path = folder().join(&entry.file);
        if !path.is_file() {
            eprintln!("SKIPPED: no model at {}", path.display());
            continue;
        }
        entry.prompts.sort_by_key(|p| p.prompt_ids.len());
        let file = open(&path);
        let program = model::build(&file).unwrap_or_else(|e| panic!("{e}")).program;
        for backend in crate::held_to_references() {
            let mut session = Session::new(&*backend, &file, &program, 1, &LoadOptions { context: 1024, ..LoadOptions::default() });
            for answer in &entry.prompts[..prompts(&*backend, &entry)] {
                let who = format!("{} {}, prompt of {}", backend.info().backend, entry.file.display(), answer.prompt_ids.len());
                follow(&mut session, answer, &who);
            }
        }
    }
}

fn follow(session: &mut Session, answer: &Answer, who: &str) {
    let mut logits = session.feed(&answer.prompt_ids, 256, &[answer.prompt_ids.len() - 1]);
    let mut differences = Vec::new();
    for (step, (id, top5)) in answer.ids.iter().zip(&answer.top5).enumerate() {
        let got = argmax(&logits[0]);
        let margin = top5[0].1 - top5[1].1;
        assert!(got == top5[0].0 || margin < MARGIN, "{who}, step {step}: {got}, not {} (margin {margin})", top5[0].0);
        let want: Vec<f32> = centred(top5.iter().map(|(_, logit)| *logit));
        let got: Vec<f32> = centred(top5.iter().map(|(id, _)| logits[0][*id as usize]));
        let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= STEP, "{who}, step {step}: {got:?}, not {want:?}");
        differences.push(worst);
        logits = session.step(&[(0, &[*id])], |_, _| true);
    }
    differences.sort_by(f32::total_cmp);
    let median = differences[differences.len() / 2];
    assert!(median <= MEDIAN, "{who}: median difference {median}");
}

/// Each number less their mean.
fn centred(numbers: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let mean = numbers.clone().sum::<f32>() / numbers.clone().count() as f32;
    numbers.map(|x| x - mean).collect()
}
