//! One real model, end to end.

use crate::house::{House, Plan};
use serde_json::json;
use std::path::PathBuf;

fn smollm2() -> Option<PathBuf> {
    let model = std::env::var_os("HEARTH_SMOLLM2").map(PathBuf::from).filter(|p| p.is_file());
    if model.is_none() {
        eprintln!("SKIPPED: $HEARTH_SMOLLM2 names no SmolLM2-135M-Instruct Q4_1; `make test` fetches it");
    }
    model
}

#[test]
fn smollm2_tells_why_the_sky_is_blue_over_the_socket() {
    let Some(model) = smollm2() else { return };
    let house = House::open(Plan { model: &model, ..Plan::default() });
    let request = json!({"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 40, "temperature": 0});
    let (status, reply) = house.post("/v1/chat/completions", request.clone());
    let text = reply["choices"][0]["message"]["content"].as_str().unwrap().to_lowercase();
    assert_eq!(status, 200);
    assert!(text.contains("light") || text.contains("scatter"), "{text}");
    let (_, again) = house.post("/v1/chat/completions", request);
    let usage = &again["usage"];
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() + 1, usage["prompt_tokens"].as_u64().unwrap());
}

/// What the cache spares may change the last bits of a logit, and with them a word; but not where a seed was named.
#[test]
fn smollm2_says_the_same_for_the_same_seed_whatever_is_known_already() {
    let Some(model) = smollm2() else { return };
    let house = House::open(Plan { model: &model, ..Plan::default() });
    for seed in 1..4 {
        let talk = json!([{"role": "user", "content": format!("Tell me a story of {seed} birds and a very old tree.")}]);
        let request = json!({"messages": talk, "max_tokens": 40, "temperature": 1.0, "seed": seed});
        let (_, first) = house.post("/v1/chat/completions", request.clone());
        for _ in 0..2 {
            let (_, again) = house.post("/v1/chat/completions", request.clone());
            assert_eq!(again["choices"][0]["message"], first["choices"][0]["message"], "seed {seed}");
        }
    }
}
