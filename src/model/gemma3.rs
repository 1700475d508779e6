//! Gemma 3, the text model. Paper: arXiv 2503.19786.
//!
//! Gemma 2 without soft caps, and:
//! - Five sliding layers to each global one (every sixth).
//! - Each query and key head is normalised before rotation.
//! - Sliding layers rotate with a base of their own, 10000, and unscaled; rope scaling is for the global layers only.
//! - Attention scale 1/√k_dim, in the 27B model (62 layers) 1/√(dim / heads).

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let global = h.rope(b, Pairing::Halves)?;
    let local = h.rope_of(Pairing::Halves, "rope.dimension_count", h.k_dim, "rope.freq_base_swa")?;
    let window = h.window()?;
    let sliding = h.sliding_layers(6)?;
    let final_cap = h.optional_positive("final_logit_softcapping")?;
    let scale = if h.layers == 62 { 1.0 / ((h.dim / h.heads) as f32).sqrt() } else { 1.0 / (h.k_dim as f32).sqrt() };

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), (h.dim as f32).sqrt()); // [n, dim]
    for l in b.layers(h.layers) {
        let kv_heads = h.kv_heads[l.layer];
        let (rope, window) = if sliding[l.layer] { (local, window) } else { (global, None) };
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let q = l.heads(l.linear(a, "attn_q", h.heads * h.k_dim), h.heads); // [n, heads, k_dim]
        let k = l.heads(l.linear(a, "attn_k", kv_heads * h.k_dim), kv_heads); // [n, kv_heads, k_dim]
        let v = l.heads(l.linear(a, "attn_v", kv_heads * h.v_dim), kv_heads); // [n, kv_heads, v_dim]
        let q = l.rope(l.rms_norm(q, "attn_q_norm", h.eps), rope);
        let k = l.rope(l.rms_norm(k, "attn_k_norm", h.eps), rope);
        let o = l.attention(q, k, v, AttentionOptions { scale: Some(scale), window, softcap: None, sinks: None }); // [n, heads, v_dim]
        x = l.add(x, l.rms_norm(l.linear(o, "attn_output", h.dim), "post_attention_norm", h.eps));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let f = l.geglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]);
        x = l.add(x, l.rms_norm(f, "post_ffw_norm", h.eps));
    }
    let logits = b.head(b.rms_norm(x, "output_norm", h.eps)); // [n, vocabulary]
    Ok(final_cap.map_or(logits, |cap| b.soft_cap(logits, cap)))
}
