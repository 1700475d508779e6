//! Granite 3, dense. Source: IBM's model cards and the implementation in transformers.
//!
//! Llama's form with four multipliers: on the embedding, on what each half of a block adds, on attention scores (in place of 1/√k_dim),
//! and a divisor of the logits.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder, FULL};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Neighbours)?;
    let embedding = h.optional_positive("embedding_scale")?.unwrap_or(1.0);
    let residual = h.optional_positive("residual_scale")?.unwrap_or(1.0);
    let logit = h.optional_positive("logit_scale")?.unwrap_or(1.0);
    let attention = AttentionOptions { scale: h.optional_positive("attention.scale")?, ..FULL };

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), embedding); // [n, dim]
    for l in b.layers(h.layers) {
        let kv_heads = h.kv_heads[l.layer];
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let q = l.heads(l.linear(a, "attn_q", h.heads * h.k_dim), h.heads); // [n, heads, k_dim]
        let k = l.heads(l.linear(a, "attn_k", kv_heads * h.k_dim), kv_heads); // [n, kv_heads, k_dim]
        let v = l.heads(l.linear(a, "attn_v", kv_heads * h.v_dim), kv_heads); // [n, kv_heads, v_dim]
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, attention); // [n, heads, v_dim]
        x = l.add(x, l.scale(l.linear(o, "attn_output", h.dim), residual));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let f = l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]);
        x = l.add(x, l.scale(f, residual));
    }
    Ok(b.scale(b.head(b.rms_norm(x, "output_norm", h.eps)), 1.0 / logit)) // [n, vocabulary]
}
