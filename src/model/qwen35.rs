//! Qwen 3.5, dense. Papers: arXiv 2412.06464 (gated delta networks), 2505.09388 (Qwen 3).
//!
//! - Three of four layers are a gated delta net, which keeps one matrix a head in place of keys and values.
//! - The others are Qwen 3's attention with an output gate: `attn_q` holds query and gate of a head one after the other. Only
//!   the first `rope.dimension_count` elements of a head rotate. (The sections of its multimodal rope all count the same position in
//!   text, so they don't show.)
//! - The norm before the feed-forward part is named `post_attention_norm`.
//! - `nextn_predict_layers` extra blocks at the end predict further tokens; they are not computed.

use super::{Hyper, ModelError};
use crate::program::builder::{Builder, FULL};
use crate::program::{Activation, Pairing, Rope, Value};

/// Largest size of the delta net's parts, a guess with room (27B: 48 heads of 128).
const SIZE_MAX: usize = 1 << 16;

/// Epsilon of the length norm of the delta net's queries and keys, fixed in the reference implementation.
const LENGTH_EPS: f32 = 1e-6;

/// Sizes of the delta net.
struct Delta {
    /// `ssm.group_count`
    key_heads: usize,
    /// `ssm.time_step_rank`
    heads: usize,
    /// `ssm.state_size`
    k_dim: usize,
    /// `ssm.inner_size / ssm.time_step_rank`
    v_dim: usize,
    /// `ssm.conv_kernel`
    kernel: usize,
}

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    let rope = h.rope(b, Pairing::Halves)?;
    let delta = sizes(h)?;
    let extra = h.optional_integer("nextn_predict_layers", 0..=h.layers - 1)?.unwrap_or(0);
    let interval = h.optional_size("full_attention_interval", SIZE_MAX)?.unwrap_or(4);
    let recurrent = match h.flags("attention.recurrent_layers")? {
        Some(flags) => flags,
        None => (0..h.layers).map(|layer| (layer + 1) % interval != 0).collect(),
    };

    let mut x = b.embed("token_embd", h.vocabulary, h.dim); // [n, dim]
    for l in b.layers(h.layers - extra) {
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let mixed = if recurrent[l.layer] { delta_net(h, &l, a, &delta) } else { gated_attention(h, &l, a, rope) };
        x = l.add(x, mixed);
        let f = l.rms_norm(x, "post_attention_norm", h.eps);
        x = l.add(x, l.swiglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]));
    }
    Ok(b.head(b.rms_norm(x, "output_norm", h.eps))) // [n, vocabulary]
}

fn sizes(h: &Hyper) -> Result<Delta, ModelError> {
    let (key_heads, heads) = (h.size("ssm.group_count", SIZE_MAX)?, h.size("ssm.time_step_rank", SIZE_MAX)?);
    let (k_dim, inner) = (h.size("ssm.state_size", SIZE_MAX)?, h.size("ssm.inner_size", SIZE_MAX << 8)?);
    if !inner.is_multiple_of(heads) {
        return Err(h.refuse("ssm.inner_size", inner, format!("a multiple of ssm.time_step_rank, {heads}")));
    }
    if !heads.is_multiple_of(key_heads) {
        return Err(h.refuse("ssm.time_step_rank", heads, format!("a multiple of ssm.group_count, {key_heads}")));
    }
    Ok(Delta { key_heads, heads, k_dim, v_dim: inner / heads, kernel: h.size("ssm.conv_kernel", SIZE_MAX)? })
}

/// Query, key and value through a short convolution and SiLU; the delta rule; a norm of each head gated by `attn_gate`.
/// `[n, dim]` → `[n, dim]`
fn delta_net(h: &Hyper, l: &Builder, a: Value, d: &Delta) -> Value {
    let (keys, values) = (d.key_heads * d.k_dim, d.heads * d.v_dim);
    let qkv = l.short_conv(l.linear(a, "attn_qkv", 2 * keys + values), "ssm_conv1d", d.kernel);
    let qkv = l.apply(Activation::Silu, qkv);
    let q = l.heads(l.slice(qkv, 0..keys), d.key_heads); // [n, key_heads, k_dim]
    let k = l.heads(l.slice(qkv, keys..2 * keys), d.key_heads); // [n, key_heads, k_dim]
    let v = l.heads(l.slice(qkv, 2 * keys..2 * keys + values), d.heads); // [n, heads, v_dim]
    let beta = l.apply(Activation::Sigmoid, l.linear(a, "ssm_beta", d.heads)); // [n, heads]
    // The logarithm of the decay: `ssm_a` holds −exp(A).
    let bias = if l.has("ssm_dt") { "ssm_dt" } else { "ssm_dt.bias" }; // Ollama's name for it, and the usual one
    let step = l.apply(Activation::Softplus, l.linear_bias(a, "ssm_alpha", bias, d.heads));
    let decay = l.mul_vector(step, "ssm_a", d.heads); // [n, heads]
    let o = l.delta_rule(l.l2_norm(q, LENGTH_EPS), l.l2_norm(k, LENGTH_EPS), v, decay, beta); // [n, heads, v_dim]
    let gate = l.linear(a, "attn_gate", values);
    let o = l.gated(Activation::Silu, gate, l.rms_norm(o, "ssm_norm", h.eps));
    l.linear(o, "ssm_out", h.dim)
}

/// Attention whose output is gated, element by element. `[n, dim]` → `[n, dim]`
fn gated_attention(h: &Hyper, l: &Builder, a: Value, rope: Rope) -> Value {
    let kv_heads = h.kv_heads[l.layer];
    let both = l.heads(l.linear(a, "attn_q", 2 * h.heads * h.k_dim), h.heads); // [n, heads, 2 k_dim]
    let (q, gate) = (l.slice(both, 0..h.k_dim), l.slice(both, h.k_dim..2 * h.k_dim)); // [n, heads, k_dim]
    let k = l.heads(l.linear(a, "attn_k", kv_heads * h.k_dim), kv_heads); // [n, kv_heads, k_dim]
    let v = l.heads(l.linear(a, "attn_v", kv_heads * h.v_dim), kv_heads); // [n, kv_heads, v_dim]
    let q = l.rope(l.rms_norm(q, "attn_q_norm", h.eps), rope);
    let k = l.rope(l.rms_norm(k, "attn_k_norm", h.eps), rope);
    let o = l.mul(l.attention(q, k, v, FULL), l.apply(Activation::Sigmoid, gate));
    l.linear(o, "attn_output", h.dim)
}
