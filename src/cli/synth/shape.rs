//! Shapes of models in use, from their published configurations, and the tensors that each architecture has.

/// Which tensors a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
}

impl Architecture {
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Qwen3Moe => "qwen3moe",
            Architecture::Gemma3 => "gemma3",
        }
    }

    pub fn epsilon(self) -> f32 {
        if self == Architecture::Llama { 1e-5 } else { 1e-6 }
    }
}

/// Sizes of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub architecture: Architecture,
    pub layers: usize,
    pub width: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// Length of one head.
    pub head: usize,
    pub vocabulary: usize,
    /// Embeddings serve as output too.
    pub tied: bool,
    pub rope_base: f32,
    /// By how much Llama 3.x slows its long waves.
    pub rope_factor: Option<f32>,
    pub context: u32,
    pub window: Option<u32>,
    pub experts: Option<Experts>,
}

/// Of a layer; with them `feed_forward` is the width of one.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub count: usize,
    pub used: usize,
}

/// name, architecture, layers, width, feed-forward, heads, kv heads, head, vocabulary, tied, rope base, rope factor, context, window, experts and used ones
type Row = (
    &'static str,
    Architecture,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    usize,
    bool,
    f32,
    Option<f32>,
    u32,
    Option<u32>,
    Option<(usize, usize)>,
);

#[rustfmt::skip]
const SHAPES: &[Row] = {
    use Architecture::*;
    &[
        ("tiny",         Llama,   2,  256,   768,  4, 2,  64,    512, true,   1e4, None,         512, None, None),
        ("smollm2-135m", Llama,  30,  576,  1536,  9, 3,  64,  49152, true,   1e5, None,        8192, None, None),
        ("smollm2-360m", Llama,  32,  960,  2560, 15, 5,  64,  49152, true,   1e5, None,        8192, None, None),
        ("llama-3.2-1b", Llama,  16, 2048,  8192, 32, 8,  64, 128256, true,   5e5, Some(32.0), 131072, None, None),
        ("llama-3.2-3b", Llama,  28, 3072,  8192, 24, 8, 128, 128256, true,   5e5, Some(32.0), 131072, None, None),
        ("llama-3.1-8b", Llama,  32, 4096, 14336, 32, 8, 128, 128256, false,  5e5, Some(8.0),  131072, None, None),
        ("qwen2.5-0.5b", Qwen2,  24,  896,  4864, 14, 2,  64, 151936, true,   1e6, None,       32768, None, None),
        ("qwen2.5-1.5b", Qwen2,  28, 1536,  8960, 12, 2, 128, 151936, true,   1e6, None,       32768, None, None),
        ("qwen3-0.6b",   Qwen3,  28, 1024,  3072, 16, 8, 128, 151936, true,   1e6, None,       40960, None, None),
        ("qwen3-1.7b",   Qwen3,  28, 2048,  6144, 16, 8, 128, 151936, true,   1e6, None,       40960, None, None),
        ("qwen3-4b",     Qwen3,  36, 2560,  9728, 32, 8, 128, 151936, true,   1e6, None,       40960, None, None),
        ("qwen3-30b-a3b", Qwen3Moe, 48, 2048,  768, 32, 4, 128, 151936, false, 1e6, None,      40960, None, Some((128, 8))),
        ("gemma3-270m",  Gemma3, 18,  640,  2048,  4, 1, 256, 262144, true,   1e6, None,       32768, Some(512), None),
        ("gemma3-1b",    Gemma3, 26, 1152,  6912,  4, 1, 256, 262144, true,   1e6, None,       32768, Some(512), None),
    ]
};

pub fn names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|s| s.0)
}

pub fn named(wanted: &str) -> Option<Shape> {
    let &(
        name,
        architecture,
        layers,
        width,
        feed_forward,
        heads,
        kv_heads,
        head,
        vocabulary,
        tied,
        rope_base,
        rope_factor,
        context,
        window,
        experts,
    ) = SHAPES.iter().find(|s| s.0 == wanted)?;
    Some(Shape {
        name,
        architecture,
        layers,
        width,
        feed_forward,
        heads,
        kv_heads,
        head,
        vocabulary,
        tied,
        rope_base,
        rope_factor,
        context,
        window,
        experts: experts.map(|(count, used)| Experts { count, used }),
    })
}

/// A tensor to be written.
pub struct Tensor {
    pub name: String,
    /// In GGUF's order: the length of a row first.
    pub dimensions: Vec<usize>,
    /// Standard deviation and mean of its weights.
    pub spread: f32,
    pub mean: f32,
    /// The layer it belongs to.
    pub layer: Option<usize>,
    /// Where the numbers are no chance.
    pub values: Option<Vec<f32>>,
}

impl Tensor {
    pub fn weights(&self) -> usize {
        self.dimensions.iter().product()
    }

    /// A matrix whose products have the size of what it is applied to, times `gain`.
    fn matrix(name: &str, cols: usize, rows: usize, gain: f32) -> Tensor {
        let spread = gain / (cols as f32).sqrt();
        Tensor { name: name.to_owned(), dimensions: vec![cols, rows], spread, mean: 0.0, layer: None, values: None }
    }

    fn norm(name: &str, length: usize) -> Tensor {
        Tensor { name: name.to_owned(), dimensions: vec![length], spread: 0.1, mean: 1.0, layer: None, values: None }
    }

    fn bias(name: &str, length: usize) -> Tensor {
        Tensor { mean: 0.0, ..Tensor::norm(name, length) }
    }
}

impl Shape {
    /// Query heads that share one head of keys and values.
    pub fn heads_sharing(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut list =
            vec![Tensor::matrix("token_embd.weight", self.width, self.vocabulary, 2.0), Tensor::norm("output_norm.weight", self.width)];
        if !self.tied {
            list.push(Tensor::matrix("output.weight", self.width, self.vocabulary, 2.0));
        }
        if let Some(factor) = self.rope_factor {
            let values = self.rope_divisors(factor);
            list.push(Tensor { values: Some(values), ..Tensor::norm("rope_freqs.weight", self.head / 2) });
        }
        for layer in 0..self.layers {
            let named = |t: Tensor| Tensor { name: format!("blk.{layer}.{}", t.name), layer: Some(layer), ..t };
            list.extend(self.layer().into_iter().map(named));
        }
        list
    }

    /// The tensors of one layer, their names without `blk.N.`.
    fn layer(&self) -> Vec<Tensor> {
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        // Both branches of every layer add to the same sum: with this gain it grows to order one, whatever the depth.
        let gain = (2.0 * self.layers as f32).sqrt().recip();
        let mut list = vec![Tensor::norm("attn_norm.weight", self.width)];
        for (name, rows) in [("q", queries), ("k", keys), ("v", keys)] {
            list.push(Tensor::matrix(&format!("attn_{name}.weight"), self.width, rows, 1.0));
            match self.architecture {
                Architecture::Qwen2 => list.push(Tensor::bias(&format!("attn_{name}.bias"), rows)),
                Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 if name != "v" => {
                    list.push(Tensor::norm(&format!("attn_{name}_norm.weight"), self.head))
                }
                _ => {}
            }
        }
        list.push(Tensor::matrix("attn_output.weight", queries, self.width, gain));
        if self.architecture == Architecture::Gemma3 {
            list.push(Tensor::norm("post_attention_norm.weight", self.width));
            list.push(Tensor::norm("post_ffw_norm.weight", self.width));
        }
        list.push(Tensor::norm("ffn_norm.weight", self.width));
        let parts = [
            ("gate", self.width, self.feed_forward, 1.0),
            ("up", self.width, self.feed_forward, 1.0),
            ("down", self.feed_forward, self.width, gain),
        ];
        match self.experts {
            None => list.extend(parts.map(|(name, cols, rows, gain)| Tensor::matrix(&format!("ffn_{name}.weight"), cols, rows, gain))),
            Some(experts) => {
                list.push(Tensor::matrix("ffn_gate_inp.weight", self.width, experts.count, 1.0));
                list.extend(parts.map(|(name, cols, rows, gain)| Tensor {
                    dimensions: vec![cols, rows, experts.count],
                    ..Tensor::matrix(&format!("ffn_{name}_exps.weight"), cols, rows, gain)
                }));
            }
        }
        list
    }

    /// Llama 3.x divides the frequencies of long waves by `factor`, leaves short ones, and ramps between (from the published
    /// configuration: original context 8192, low factor 1, high factor 4).
    fn rope_divisors(&self, factor: f32) -> Vec<f32> {
        let divisor = |i: usize| {
            let wave = std::f32::consts::TAU * self.rope_base.powf(2.0 * i as f32 / self.head as f32);
            let ramp = ((8192.0 / wave - 1.0) / 3.0).clamp(0.0, 1.0);
            ((1.0 - ramp) / factor + ramp).recip()
        };
        (0..self.head / 2).map(divisor).collect()
    }
}
