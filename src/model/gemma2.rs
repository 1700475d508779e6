//! Gemma 2. Paper: arXiv 2408.00118.
//!
//! - The embedding is multiplied by √dim; norms stand before and after both halves of a block.
//! - Attention scores and logits are soft-capped.
//! - Layers alternate: even ones see a sliding window, odd ones everything.
//! - GeGLU; the head is the embedding table.
//! - Attention scale 1/√k_dim, in the 27B model (46 layers) 1/√(dim / heads).

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let window = h.window()?.unwrap_or(4096);
    let sliding = h.sliding_layers(2)?;
    let softcap = h.optional_positive("attn_logit_softcapping")?.unwrap_or(50.0);
    let final_cap = h.optional_positive("final_logit_softcapping")?.unwrap_or(30.0);
    let scale = if h.layers == 46 { 1.0 / ((h.dim / h.heads) as f32).sqrt() } else { 1.0 / (h.k_dim as f32).sqrt() };

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), (h.dim as f32).sqrt()); // [n, dim]
    for l in b.layers(h.layers) {
        let window = sliding[l.layer].then_some(window);
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (q, k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        let options = AttentionOptions { scale: Some(scale), window, softcap: Some(softcap), sinks: None };
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, options); // [n, heads, v_dim]
        x = l.add(x, l.rms_norm(l.linear(o, "attn_output", h.dim), "post_attention_norm", h.eps));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let f = l.geglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]);
        x = l.add(x, l.rms_norm(f, "post_ffw_norm", h.eps));
    }
    Ok(b.soft_cap(b.head(b.rms_norm(x, "output_norm", h.eps)), final_cap)) // [n, vocabulary]
}
