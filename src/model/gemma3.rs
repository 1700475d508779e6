//! Gemma 3, the text model. Paper: arXiv 2503.19786.
//!
//! Gemma 2 without soft caps, and:
//! - Five sliding layers to each global one (every sixth).
//! - Each query and key head is normalised before rotation.
//! - Sliding layers rotate with a base of their own, 10000, and unscaled; rope scaling is for the global layers only. A model without a
//!   window has global layers only.
//! - Attention scale 1/√k_dim, in the 27B model (62 layers) 1/√(dim / heads).
//!
//! Ollama's converter writes the two bases under other names, or neither, and leaves out epsilon and the scaling of the models with
//! 131072 positions: these are Gemma 3's own then.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder};
use crate::program::{Pairing, Rope, RopeScaling, Value};

/// From so many positions on a model was stretched, to eight times the length it was first trained for.
const STRETCHED_FROM: usize = 131_072;

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let (global, local) = ropes(h, b)?;
    let window = h.window()?;
    let sliding = h.sliding_layers(6)?;
    let final_cap = h.optional_positive("final_logit_softcapping")?;
    let scale = if h.layers == 62 { 1.0 / ((h.dim / h.heads) as f32).sqrt() } else { 1.0 / (h.k_dim as f32).sqrt() };

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), (h.dim as f32).sqrt()); // [n, dim]
    for l in b.layers(h.layers) {
        let window = window.filter(|_| sliding[l.layer]);
        let rope = if window.is_some() { local } else { global };
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (q, k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
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

/// The rotary embeddings of global and of sliding layers.
fn ropes(h: &Hyper, b: &Builder) -> Result<(Rope, Rope), ModelError> {
    let base = h.first_positive(&["rope.freq_base", "rope.global.freq_base"])?.unwrap_or(1e6);
    let mut global = Rope { base, ..h.rope(b, Pairing::Halves)? };
    if !h.has("attention.layer_norm_rms_epsilon") && !h.has("rope.scaling.factor") && h.context >= STRETCHED_FROM {
        global.scaling = RopeScaling::Linear { factor: 8.0 };
    }
    let base = h.first_positive(&["rope.freq_base_swa", "rope.local.freq_base"])?.unwrap_or(1e4);
    let local = Rope { base, ..h.rope_of(Pairing::Halves, "rope.dimension_count", h.k_dim, "rope.freq_base_swa")? };
    Ok((global, local))
}
