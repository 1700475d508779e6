//! Which tensor gets which format. A file type such as Q4_K_M is a mix: tensors that matter more get more bits. The rules are those
//! of llama.cpp's quantizer, since files in use were made by it.

use super::shape::{Shape, Tensor};
use hearth_kernels::quant::Format;

/// File types, and the format that most of their tensors have.
const FILE_TYPES: [(&str, Format); 19] = [
    ("F32", Format::F32),
    ("F16", Format::F16),
    ("BF16", Format::BF16),
    ("Q4_0", Format::Q4_0),
    ("Q4_1", Format::Q4_1),
    ("Q5_0", Format::Q5_0),
    ("Q5_1", Format::Q5_1),
    ("Q8_0", Format::Q8_0),
    ("Q2_K", Format::Q2_K),
    ("Q3_K_S", Format::Q3_K),
    ("Q3_K_M", Format::Q3_K),
    ("Q3_K_L", Format::Q3_K),
    ("Q4_K_S", Format::Q4_K),
    ("Q4_K_M", Format::Q4_K),
    ("Q5_K_S", Format::Q5_K),
    ("Q5_K_M", Format::Q5_K),
    ("Q6_K", Format::Q6_K),
    ("IQ4_NL", Format::IQ4_NL),
    ("IQ4_XS", Format::IQ4_XS),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    FILE_TYPES.iter().map(|t| t.0)
}

/// The format of one tensor.
///
/// # Panics
/// When there is no such file type.
pub fn format(file_type: &str, t: &Tensor, shape: &Shape) -> Format {
    let base = FILE_TYPES.iter().find(|f| f.0 == file_type).expect("the command line accepts these file types only").1;
    // Which experts a token gets turns on small differences.
    if t.dimensions.len() == 1 || t.name.ends_with("ffn_gate_inp.weight") {
        return Format::F32;
    }
    if matches!(base, Format::F32 | Format::F16 | Format::BF16) {
        return base;
    }
    fitting(wanted(file_type, base, t, shape), t.dimensions[0])
}

fn wanted(file_type: &str, base: Format, t: &Tensor, shape: &Shape) -> Format {
    use Format::*;
    let makes_logits = t.name == "output.weight" || shape.tied && t.name == "token_embd.weight";
    if makes_logits {
        let whole = base.row_bytes(t.dimensions[0]).is_some();
        return if base == Q8_0 || !whole { Q8_0 } else { Q6_K };
    }
    let Some(layer) = t.layer else { return base };
    // The first and the last eighth of the layers, and every third between them.
    let eighth = shape.layers / 8;
    let more = layer < eighth || layer >= 7 * shape.layers / 8 || (layer - eighth) % 3 == 2;
    let shared = shape.heads_sharing() >= 4;
    let tensor = t.name.rsplit('.').nth(1).unwrap_or_default().trim_end_matches("_exps");
    match (tensor, file_type) {
        ("attn_v", "Q2_K") => {
            if shared {
                Q4_K
            } else {
                Q3_K
            }
        }
        ("attn_v", "Q3_K_M") => {
            if layer < 2 {
                Q5_K
            } else {
                Q4_K
            }
        }
        ("attn_v", "Q3_K_L") => Q5_K,
        ("attn_v", "IQ4_NL" | "IQ4_XS") if shared => Q5_K,
        ("attn_v" | "ffn_down", "Q4_K_M" | "Q5_K_M") if more => Q6_K,
        ("attn_v", "Q4_K_S") if layer < 4 => Q5_K,
        ("ffn_down", "Q2_K") => Q3_K,
        ("ffn_down", "Q3_K_M") => {
            if layer < shape.layers / 16 {
                Q5_K
            } else {
                Q4_K
            }
        }
        ("ffn_down", "Q3_K_L") => Q5_K,
        ("ffn_down", "IQ4_NL" | "IQ4_XS" | "Q4_K_S") if layer < eighth => Q5_K,
        ("attn_output", "Q2_K") => Q3_K,
        ("attn_output", "Q3_K_M") => Q4_K,
        ("attn_output", "Q3_K_L") => Q5_K,
        _ => base,
    }
}

/// `format`, or the one that stands in for it where rows are no whole number of its blocks.
fn fitting(format: Format, cols: usize) -> Format {
    use Format::*;
    if format.row_bytes(cols).is_some() {
        return format;
    }
    let other = match format {
        Q2_K | Q3_K => Q4_0,
        IQ4_XS => IQ4_NL,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        _ => F16,
    };
    if other.row_bytes(cols).is_some() { other } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::super::shape;
    use super::*;
    use std::collections::BTreeMap;

    /// How many matrices have which format.
    fn counts(shape: &str, file_type: &str) -> BTreeMap<&'static str, usize> {
        let shape = shape::named(shape).unwrap();
        let mut counts = BTreeMap::new();
        for t in shape.tensors().iter().filter(|t| t.dimensions.len() > 1) {
            *counts.entry(format(file_type, t, &shape).name()).or_default() += 1;
        }
        counts
    }

    /// Counted in files that llama.cpp quantized.
    #[test]
    fn mixes_are_those_of_files_in_use() {
        assert_eq!(counts("llama-3.2-1b", "Q4_0"), [("Q4_0", 112), ("Q6_K", 1)].into());
        assert_eq!(counts("llama-3.2-1b", "Q8_0"), [("Q8_0", 113)].into());
        assert_eq!(counts("llama-3.2-1b", "Q4_K_M"), [("Q4_K", 96), ("Q6_K", 17)].into());
        assert_eq!(counts("llama-3.2-1b", "Q5_K_M"), [("Q5_K", 96), ("Q6_K", 17)].into());
        assert_eq!(counts("llama-3.2-1b", "IQ4_XS"), [("IQ4_XS", 94), ("Q5_K", 18), ("Q6_K", 1)].into());
        assert_eq!(counts("gemma3-270m", "Q4_K_M"), [("Q5_0", 81), ("Q4_K", 27), ("Q8_0", 10), ("Q6_K", 9)].into());
    }
}
