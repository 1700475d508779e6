//! Gemma 4, the text model, dense sizes.
//!
//! Gemma 3's frame (embedding times √dim, norms on both sides, sliding and global layers), and:
//! - Attention scale 1; each value head is normalised too, without a weight. Global layers have heads of another size, and rotate by
//!   `rope_freqs` (1 for pairs that turn, 1e30 for those that don't).
//! - The large models' global layers have no `attn_v`: values are the keys as projected, before norm and rotation.
//! - The last `shared_kv_layers` compute no keys or values: they attend to those of the last earlier layer of their kind.
//! - Per-layer embeddings: each token has, besides its embedding, a small vector a layer. They are joined by a projection of the
//!   embedding, and gate an addition at the end of each layer.
//! - `layer_output_scale` multiplies what leaves a layer.

use super::{Hyper, ModelError};
use crate::program::builder::{AttentionOptions, Builder};
use crate::program::{Activation, Pairing, RopeFactors, StateId, Value};

/// Widest per-layer embedding, a guess with room (E2B: 256).
const PER_LAYER_MAX: usize = 1 << 16;

pub fn build(h: &Hyper, b: &Builder) -> Result<Value, ModelError> {
    if let Some(e) = h.experts {
        return Err(h.refuse("expert_count", e.count, "0: Gemma 4's mixture of experts is not supported yet"));
    }
    let local_dim = h.optional_size("attention.key_length_swa", PER_LAYER_MAX)?.unwrap_or(h.k_dim);
    let mut global = h.rope_of(Pairing::Halves, "rope.dimension_count", h.k_dim, "rope.freq_base")?;
    if b.has("rope_freqs.weight") {
        global.factors = RopeFactors::Always(b.rope_factors("rope_freqs.weight", global.dims));
    }
    let local = h.rope_of(Pairing::Halves, "rope.dimension_count_swa", local_dim, "rope.freq_base_swa")?;
    let window = h.window()?;
    let sliding = h.sliding_layers(6)?;
    let shared = h.optional_integer("attention.shared_kv_layers", 0..=h.layers - 1)?.unwrap_or(0);
    let final_cap = h.optional_positive("final_logit_softcapping")?;

    let mut x = b.scale(b.embed("token_embd", h.vocabulary, h.dim), (h.dim as f32).sqrt()); // [n, dim]
    let per_layer = per_layer_embeddings(h, b, x)?;
    // The newest cache of each kind: [global, sliding].
    let mut newest: [Option<StateId>; 2] = [None, None];

    for l in b.layers(h.layers) {
        let slides = sliding[l.layer];
        let (rope, head_dim, window) = if slides { (local, local_dim, window) } else { (global, h.k_dim, None) };
        let kv_heads = h.kv_heads[l.layer];
        let a = l.rms_norm(x, "attn_norm", h.eps);
        let has_own = l.layer < h.layers - shared;
        let (q, fused) = if has_own && l.has("attn_qkv.weight") {
            let (q, k, v) = l.qkv(a, h.heads, kv_heads, head_dim, head_dim); // [n, heads, head_dim], 2 × [n, kv_heads, head_dim]
            (q, Some((k, v)))
        } else {
            (l.heads(l.linear(a, "attn_q", h.heads * head_dim), h.heads), None) // [n, heads, head_dim]
        };
        let q = l.rope(l.rms_norm(q, "attn_q_norm", h.eps), rope);
        if has_own {
            let (k, v) = fused.unwrap_or_else(|| {
                let k = l.heads(l.linear(a, "attn_k", kv_heads * head_dim), kv_heads); // [n, kv_heads, head_dim]
                let v = if l.has("attn_v.weight") { l.heads(l.linear(a, "attn_v", kv_heads * head_dim), kv_heads) } else { k };
                (k, v)
            });
            let k = l.rope(l.rms_norm(k, "attn_k_norm", h.eps), rope);
            newest[usize::from(slides)] = Some(l.store(k, l.rms_norm_plain(v, h.eps), window));
        }
        let Some(cache) = newest[usize::from(slides)] else {
            return Err(h.refuse("attention.shared_kv_layers", shared, "fewer, so that a layer of each kind has keys to share"));
        };
        let o = l.attend(q, cache, AttentionOptions { scale: Some(1.0), window, softcap: None, sinks: None }); // [n, heads, head_dim]
        x = l.add(x, l.rms_norm(l.linear(o, "attn_output", h.dim), "post_attention_norm", h.eps));

        let f = l.rms_norm(x, "ffn_norm", h.eps);
        let f = l.geglu(f, "ffn_gate", "ffn_up", "ffn_down", h.ff[l.layer]);
        x = l.add(x, l.rms_norm(f, "post_ffw_norm", h.eps));

        if let Some((vectors, width)) = per_layer {
            let own = l.slice(l.flat(vectors), l.layer * width..(l.layer + 1) * width); // [n, width]
            let gated = l.gated(Activation::GeluTanh, l.linear(x, "inp_gate", width), own);
            x = l.add(x, l.rms_norm(l.linear(gated, "proj", h.dim), "post_norm", h.eps));
        }
        if l.has("layer_output_scale.weight") {
            x = l.mul_vector(x, "layer_output_scale.weight", 1);
        }
    }
    let logits = b.head(b.rms_norm(x, "output_norm", h.eps)); // [n, vocabulary]
    Ok(final_cap.map_or(logits, |cap| b.soft_cap(logits, cap)))
}

/// `(table[token] · √width + norm(projection of x / √dim)) / √2`, for all layers at once. → `[n, layers, width]` and `width`
fn per_layer_embeddings(h: &Hyper, b: &Builder, x: Value) -> Result<Option<(Value, usize)>, ModelError> {
    let width = h.optional_integer("embedding_length_per_layer_input", 0..=PER_LAYER_MAX)?.unwrap_or(0);
    if width == 0 {
        return Ok(None);
    }
    let all = h.layers * width;
    let table = b.scale(b.embed("per_layer_token_embd", h.vocabulary, all), (width as f32).sqrt());
    let projected = b.scale(b.linear(x, "per_layer_model_proj", all), 1.0 / (h.dim as f32).sqrt());
    let normed = b.rms_norm(b.heads(projected, h.layers), "per_layer_proj_norm", h.eps);
    let joined = b.scale(b.add(normed, table), std::f32::consts::FRAC_1_SQRT_2);
    Ok(Some((joined, width)))
}
