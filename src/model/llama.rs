//! Llama 1 to 3.2, and what took over its form: Mistral, Mixtral, SmolLM 1 and 2, TinyLlama and many more.
//! Papers: arXiv 2302.13971 (Llama), 2407.21783 (Llama 3), 2401.04088 (Mixtral).
//!
//! Pre-norm blocks of grouped-query attention with rotary embedding, and SwiGLU. Beside that:
//! - Llama 3.1 stretches its context by `rope_freqs`, a divisor a pair.
//! - With `expert_count` the feed-forward part is a mixture: softmax over all experts, the weights of the used ones made to sum to 1.
//! - Files without `output` tie the head to the embedding.

use super::{Hyper, ModelError};
use crate::program::builder::{Builder, FULL, MoeOptions};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Neighbours)?;
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (q, k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, FULL); // [n, heads, v_dim]
        x = l.add(x, l.linear(o, "attn_output", h.dim));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let f = match h.experts {
            None => l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]),
            Some(e) => l.moe(f, MoeOptions::mixtral(e.count, e.used, e.width.unwrap_or(h.ff[l.layer]))),
        };
        x = l.add(x, f);
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
