//! Granite 3 and 4 without recurrent layers, dense or with experts. Source: IBM's model cards and the implementation in transformers.
//!
//! Llama's form with four multipliers: on the embedding, on what each half of a block adds, on attention scores (in place of 1/√k_dim),
//! and a divisor of the logits. Beside that:
//! - With `expert_count` the feed-forward part is a mixture as in Mixtral; with `expert_shared_feed_forward_length` each token goes
//!   through one more expert, which all share.
//! - Dense models with `rope.scaling.finetuned` false don't rotate: positions are told apart only by what comes before them.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder, FULL, MoeOptions};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Neighbours)?;
    let rotates = h.experts.is_some() || h.flag("rope.scaling.finetuned")?.unwrap_or(true);
    let embedding = h.optional_positive("embedding_scale")?.unwrap_or(1.0);
    let residual = h.optional_positive("residual_scale")?.unwrap_or(1.0);
    let logit = h.optional_positive("logit_scale")?.unwrap_or(1.0);
    let attention = AttentionOptions { scale: h.optional_positive("attention.scale")?, ..FULL };
    let shared = h.optional_integer("expert_shared_feed_forward_length", 0..=usize::MAX)?.filter(|&width| width > 0);

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), embedding); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (mut q, mut k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        if rotates {
            (q, k) = (l.rope(q, rope), l.rope(k, rope));
        }
        let o = l.attention(q, k, v, attention); // [n, heads, v_dim]
        x = l.add(x, l.scale(l.linear(o, "attn_output", h.dim), residual));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let ff = h.ff[l.layer];
        let f = match (h.experts, shared) {
            (None, _) => l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", ff),
            (Some(e), None) => l.moe(f, MoeOptions::mixtral(e.count, e.used, ff)),
            (Some(e), Some(width)) => {
                let picked = l.moe(f, MoeOptions::mixtral(e.count, e.used, ff));
                l.add(picked, l.swiglu(f, "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", width))
            }
        };
        x = l.add(x, l.scale(f, residual));
    }
    Ok(b.scale(b.head(b.rms_norm(x, "output_norm", h.eps)), 1.0 / logit)) // [n, vocabulary]
}
