//! OLMo 2 and 3. Papers: arXiv 2501.00656 (OLMo 2), 2512.13961 (OLMo 3).
//!
//! - Norms stand after attention and feed-forward part, none before.
//! - Query and key are normalised over the whole projection, all heads together.
//! - OLMo 3 (with a sliding window): all but every fourth layer slide, and those rotate unscaled.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder, FULL};
use crate::program::{Pairing, Rope, RopeScaling, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let window = h.window()?;
    let sliding = h.sliding_layers(4)?;

    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let kv_heads = h.kv_heads[l.layer];
        let (rope, window) = match window.filter(|_| sliding[l.layer]) {
            Some(window) => (Rope { scaling: RopeScaling::None, attention_factor: 1.0, ..rope }, Some(window)),
            None => (rope, None),
        };
        let (q, k, v) = h.qkv(&l, x); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        let q = l.rms_norm(l.flat(q), "attn_q_norm", h.eps); // [n, heads · k_dim]
        let k = l.rms_norm(l.flat(k), "attn_k_norm", h.eps); // [n, kv_heads · k_dim]
        let q = l.rope(l.heads(q, h.heads), rope); // [n, heads, k_dim]
        let k = l.rope(l.heads(k, kv_heads), rope); // [n, kv_heads, k_dim]
        let o = l.attention(q, k, v, AttentionOptions { window, ..FULL }); // [n, heads, v_dim]
        x = l.add(x, l.rms_norm(l.linear(o, "attn_output", h.dim), "post_attention_norm", h.eps));

        let f = l.swiglu(x, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]);
        x = l.add(x, l.rms_norm(f, "post_ffw_norm", h.eps));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
