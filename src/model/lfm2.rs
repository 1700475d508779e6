//! LFM 2. Source: Liquid AI's model card and its implementation in transformers.
//!
//! - Most layers (those with 0 key/value heads) are a gated short convolution in place of attention: the input is projected to `b`, `c`
//!   and `x`; `b · x` runs through a causal convolution of a few tokens, each channel by itself; the result times `c` is projected back.
//! - The others are Qwen 3's attention, with a sliding window where the key says so.
//! - The final norm is named `token_embd_norm`, by Ollama's converter `output_norm`.

use super::{Hyper, ModelError, qwen3};
use crate::program::builder::{AttentionOptions, Builder, FULL};
use crate::program::{Pairing, Value};

/// Longest convolution, a guess with room (all known models: 3).
const KERNEL_MAX: usize = 64;

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let attention = AttentionOptions { window: h.window()?, ..FULL };
    let length = h.size("shortconv.l_cache", KERNEL_MAX)?;
    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let mixed = if h.kv_heads[l.layer] > 0 { qwen3::attention(h, &l, a, rope, attention) } else { convolution(h, &l, a, length) };
        x = l.add(x, mixed);
        let f = l.rms_norm(x, "ffn_norm", h.eps);
        x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]));
    }
    let norm = if b.has("output_norm.weight") { "output_norm" } else { "token_embd_norm" };
    Ok(b.head(b.rms_norm(x, norm, h.eps))) // [n, vocabulary]
}

/// The gated short convolution. `[n, dim]` → `[n, dim]`
fn convolution(h: &Hyper, l: &Builder, a: Value, length: usize) -> Value {
    let third = |i: usize| l.linear_part(a, "shortconv.in_proj", i * h.dim..(i + 1) * h.dim, 3 * h.dim);
    let (b, c, x) = (third(0), third(1), third(2));
    let y = l.short_conv(l.mul(b, x), "shortconv.conv", length);
    l.linear(l.mul(c, y), "shortconv.out_proj", h.dim)
}
