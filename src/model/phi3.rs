//! Phi-3, Phi-3.5 and Phi-4 (mini). Paper: arXiv 2404.14219.
//!
//! Llama's form with fused tensors, and:
//! - `attn_qkv` holds the rows of query, key and value one after the other, `ffn_up` those of gate and up.
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
        let (kv_heads, ff) = (h.kv_heads[l.layer], h.ff[l.layer]);
        let (k_rows, v_rows) = (h.heads * h.k_dim, (h.heads + kv_heads) * h.k_dim); // where keys and values begin
        let whole = v_rows + kv_heads * h.v_dim;
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let q = l.heads(l.linear_part(a, "attn_qkv", 0..k_rows, whole), h.heads); // [n, heads, k_dim]
        let k = l.heads(l.linear_part(a, "attn_qkv", k_rows..v_rows, whole), kv_heads); // [n, kv_heads, k_dim]
        let v = l.heads(l.linear_part(a, "attn_qkv", v_rows..whole, whole), kv_heads); // [n, kv_heads, v_dim]
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, AttentionOptions { window, ..FULL }); // [n, heads, v_dim]
        x = l.add(x, l.linear(o, "attn_output", h.dim));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let gate = l.linear_part(f, "ffn_up", 0..ff, 2 * ff); // [n, ff]
        let up = l.linear_part(f, "ffn_up", ff..2 * ff, 2 * ff); // [n, ff]
        x = l.add(x, l.linear(l.gated(Activation::Silu, gate, up), "ffn_down", h.dim));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
