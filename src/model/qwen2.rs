//! Qwen 2 and 2.5. Paper: arXiv 2407.10671.
//!
//! Llama's form, with biases on query, key and value (which the file brings), and rotation of halves.

use super::{Hyper, ModelError};
use crate::program::builder::{Builder, FULL};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (q, k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        let o = l.attention(l.rope(q, rope), l.rope(k, rope), v, FULL); // [n, heads, v_dim]
        x = l.add(x, l.linear(o, "attn_output", h.dim));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
