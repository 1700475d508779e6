//! SmolLM 3. Source: huggingface.co/blog/smollm3.
//!
//! Llama's form; every fourth layer does without rotation (arXiv 2501.18795). No key says which: it is fixed.

use super::{Hyper, ModelError};
use crate::program::builder::{Builder, FULL};
use crate::program::{Pairing, Value};

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Neighbours)?;
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let (mut q, mut k, v) = h.qkv(&l, a); // [n, heads, k_dim], [n, kv_heads, k_dim], [n, kv_heads, v_dim]
        if (l.layer + 1) % 4 != 0 {
            (q, k) = (l.rope(q, rope), l.rope(k, rope));
        }
        x = l.add(x, l.linear(l.attention(q, k, v, FULL), "attn_output", h.dim));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}
