//! The one table of weight formats. A format is one file of this folder (layout, plain decode, plain dot, encode) and one row here;
//! tests, benches and `hearth inspect` pick it up from the row.

/// A tensor's storage format. The discriminant is the type id in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[allow(non_camel_case_types)]
pub enum Format {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub format: Format,
    /// As GGUF tools print it, such as `Q4_K`.
    pub name: &'static str,
    /// Weights in one block.
    pub weights: usize,
    /// Bytes of one block.
    pub bytes: usize,
}

/// Every format, in the order of its id. The one place where sizes stand.
pub const FORMATS: &[Layout] = &[
    row(Format::F32, "F32", 1, 4),
    row(Format::F16, "F16", 1, 2),
    row(Format::Q4_0, "Q4_0", 32, 18),
    row(Format::Q4_1, "Q4_1", 32, 20),
    row(Format::Q5_0, "Q5_0", 32, 22),
    row(Format::Q5_1, "Q5_1", 32, 24),
    row(Format::Q8_0, "Q8_0", 32, 34),
    row(Format::Q2_K, "Q2_K", 256, 84),
    row(Format::Q3_K, "Q3_K", 256, 110),
    row(Format::Q4_K, "Q4_K", 256, 144),
    row(Format::Q5_K, "Q5_K", 256, 176),
    row(Format::Q6_K, "Q6_K", 256, 210),
    row(Format::IQ2_XXS, "IQ2_XXS", 256, 66),
    row(Format::IQ2_XS, "IQ2_XS", 256, 74),
    row(Format::IQ3_XXS, "IQ3_XXS", 256, 98),
    row(Format::IQ1_S, "IQ1_S", 256, 50),
    row(Format::IQ4_NL, "IQ4_NL", 32, 18),
    row(Format::IQ3_S, "IQ3_S", 256, 110),
    row(Format::IQ2_S, "IQ2_S", 256, 82),
    row(Format::IQ4_XS, "IQ4_XS", 256, 136),
    row(Format::IQ1_M, "IQ1_M", 256, 56),
    row(Format::BF16, "BF16", 1, 2),
    row(Format::TQ1_0, "TQ1_0", 256, 54),
    row(Format::TQ2_0, "TQ2_0", 256, 66),
    row(Format::MXFP4, "MXFP4", 32, 17),
    row(Format::NVFP4, "NVFP4", 64, 36),
    row(Format::Q1_0, "Q1_0", 128, 18),
    row(Format::Q2_0, "Q2_0", 64, 18),
];

const fn row(format: Format, name: &'static str, weights: usize, bytes: usize) -> Layout {
    Layout { format, name, weights, bytes }
}

impl Format {
    /// The format of a GGUF type id; `None` for one this build does not know.
    pub fn from_id(id: u32) -> Option<Format> {
        FORMATS.iter().map(|l| l.format).find(|f| *f as u32 == id)
    }

    pub fn from_name(name: &str) -> Option<Format> {
        FORMATS.iter().find(|l| l.name.eq_ignore_ascii_case(name)).map(|l| l.format)
    }

    pub fn id(self) -> u32 {
        self as u32
    }

    pub fn layout(self) -> &'static Layout {
        FORMATS.iter().find(|l| l.format == self).expect("every format has a row")
    }

    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// Bytes of a row of `weights` weights. `None` when the row is no whole number of blocks.
    pub fn row_bytes(self, weights: usize) -> Option<usize> {
        let l = self.layout();
        weights.is_multiple_of(l.weights).then(|| weights / l.weights * l.bytes)
    }
}
