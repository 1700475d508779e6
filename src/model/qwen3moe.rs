//! Qwen 3 with experts (30B-A3B and its kin). Paper: arXiv 2505.09388.
//!
//! Qwen 3 whose feed-forward part is a mixture in every layer: softmax over all experts, the weights of the used ones made to sum to 1.

use super::{Hyper, ModelError, qwen3};
use crate::program::builder::{Builder, FULL, MoeOptions};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let Some(e) = h.experts else { return Err(h.refuse("expert_count", "missing or 0", "the number of experts")) };
    let width = e.width.unwrap_or((h.ff[0] / e.used).max(1)); // the used ones as wide together as one dense part
    let scale = h.optional_positive("expert_weights_scale")?.unwrap_or(1.0);
    let moe = MoeOptions { scale, ..MoeOptions::mixtral(e.count, e.used, width) };
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        x = l.add(x, qwen3::attention(h, &l, l.rms_norm(x, "attn_norm", h.eps), rope, FULL));
        x = l.add(x, l.moe(l.rms_norm(x, "ffn_norm", h.eps), moe));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
