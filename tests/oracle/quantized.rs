//! Models in quantized formats (mixes as quantizers make them), against float64 on the decoded weights. With exact products a backend
//! must come as close as arithmetic allows; with quantized activations it may stray as far as that costs in another engine.

use crate::fixtures::{Prompt, Table, json, open, shared};
use crate::session::{Session, divergence, largest_difference};
use hearth::backend::{Backend, KvType, LoadOptions};
use hearth::model;
use serde::Deserialize;
use std::path::PathBuf;

/// Largest logit difference with f32 activations. The models amplify: their logits have a deviation of 5.
const EXACT: f32 = 5e-3;

#[derive(Deserialize)]
struct Index {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    file: PathBuf,
    exact: PathBuf,
    prompts: Vec<Prompt>,
    noise: Noise,
}

/// What quantizing the activations costs in another engine.
#[derive(Deserialize)]
struct Noise {
    rms: f64,
    mean_kl: f64,
}

/// For every model and backend, the stored rows: (exact, computed).
fn every_model(exact: bool, check: impl Fn(&dyn Backend, &Entry, &[(Vec<f32>, Vec<f32>)])) {
    let Some(folder) = shared("quant-zoo") else { return };
    let index: Index = json(&folder.join("models.json"));
    for entry in &index.models {
        let file = open(&folder.join(&entry.file));
        let program = model::build(&file).unwrap_or_else(|e| panic!("{e}")).program;
        let table = Table::read(&folder.join(&entry.exact));
        for backend in crate::held_to_references() {
            let options = LoadOptions { context: 512, kv: KvType::F32, exact, ..LoadOptions::default() };
            let mut session = Session::new(&*backend, &file, &program, 1, &options);
            let mut rows = Vec::new();
            for prompt in &entry.prompts {
                let got = session.feed(&prompt.ids, usize::MAX, &prompt.positions);
                assert_eq!(got.len(), prompt.positions.len());
                rows.extend(got.into_iter().enumerate().map(|(i, got)| (table.row(prompt.first_row + i).to_vec(), got)));
            }
            check(&*backend, entry, &rows);
        }
    }
}

#[test]
fn exact_products_differ_by_rounding_alone() {
    every_model(true, |backend, entry, rows| {
        for (i, (want, got)) in rows.iter().enumerate() {
            let (worst, at) = largest_difference(got, want);
            assert!(
                worst <= EXACT,
                "{} {}, row {i}: logit {at} is {}, not {} (off by {worst})",
                backend.info().backend,
                entry.name,
                got[at],
                want[at]
            );
        }
    });
}

#[test]
fn quantized_activations_cost_no_more_than_they_must() {
    every_model(false, |backend, entry, rows| {
        let mean_kl = rows.iter().map(|(want, got)| divergence(want, got)).sum::<f64>() / rows.len() as f64;
        let squares = rows.iter().flat_map(|(want, got)| want.iter().zip(got)).map(|(a, b)| f64::from(a - b).powi(2));
        let rms = (squares.sum::<f64>() / rows.iter().map(|(want, _)| want.len()).sum::<usize>() as f64).sqrt();
        let (kl_bound, rms_bound) = (2.0 * entry.noise.mean_kl + 1e-3, 1.5 * entry.noise.rms);
        let who = format!("{} {}", backend.info().backend, entry.name);
        assert!(mean_kl <= kl_bound, "{who}: mean divergence {mean_kl:.5}, bound {kl_bound:.5}");
        assert!(rms <= rms_bound, "{who}: root mean square of the difference {rms:.4}, bound {rms_bound:.4}");
    });
}
