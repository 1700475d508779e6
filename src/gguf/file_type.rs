//! `general.file_type`: the mix of formats that a file was quantized to. Only a label; what counts is each tensor's own type.

use std::borrow::Cow;

/// Ids and names, as llama.cpp numbers them. Gaps are types that were given up.
const FILE_TYPES: [(u32, &str); 36] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (1024, "guessed"),
];

/// The name of a file type, such as `Q4_K_M`; `type 9999` where it has none here.
pub fn name(id: u32) -> Cow<'static, str> {
    let known = FILE_TYPES.iter().find(|t| t.0 == id).map(|t| Cow::Borrowed(t.1));
    known.unwrap_or_else(|| Cow::Owned(format!("type {id}")))
}

/// The id of a file type.
pub fn id(name: &str) -> Option<u32> {
    FILE_TYPES.iter().find(|t| t.1.eq_ignore_ascii_case(name)).map(|t| t.0)
}
