//! Phi-3, Phi-3.5 and Phi-4 (mini). Paper: arXiv 2404.14219.
//!
//! Llama's form with fused tensors, and:
//! - Query, key and value are one tensor, `attn_qkv`; `ffn_up` holds the rows of gate and up one after the other.
//! - Long rope: a divisor a pair, one list within the original context and one beyond; sine and cosine are multiplied by
//!   `rope.scaling.attn_factor`.
//! - A sliding window in every layer, where the key says so.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder, FULL};
use crate::program::{Activation, Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let window = h.window()?;

    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (q, k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, AttentionOptions { window, ..FULL }); // [n, heads, v_dim]
        x = l.add(x, l.linear(o, "attn_output", h.dim));

        let ff = h.ff[l.layer];
        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let gate = l.linear_part(f, "ffn_up", 0..ff, 2 * ff); // [n, ff]
        let up = l.linear_part(f, "ffn_up", ff..2 * ff, 2 * ff); // [n, ff]
        x = l.add(x, l.linear(l.gated(Activation::Silu, gate, up), "ffn_down", h.dim));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
