//! Qwen 3, dense. Paper: arXiv 2505.09388.
//!
//! Llama's form, with a norm of each query and key head before rotation, rotation of halves, and a head size of its own
//! (`heads · k_dim` need not be `dim`).

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder, FULL};
use crate::program::{Pairing, Rope, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        x = l.add(x, attention(h, &l, l.rms_norm(x, "attn_norm", h.eps), rope, FULL));
        let f = l.rms_norm(x, "ffn_norm", h.eps);
        x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}

/// Attention with normalised query and key heads. `[n, dim]` → `[n, dim]`
pub(super) fn attention(h: &Hyper, l: &Builder, a: Value, rope: Rope, options: AttentionOptions) -> Value {
    let (q, k, v) = h.qkv(l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
    let q = l.rope(l.rms_norm(q, "attn_q_norm", h.eps), rope);
    let k = l.rope(l.rms_norm(k, "attn_k_norm", h.eps), rope);
    l.linear(l.attention(q, k, v, options), "attn_output", h.dim)
}
