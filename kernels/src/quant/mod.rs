//! The one table of weight formats. A format is one file of this folder (layout, plain decode, encode) and one row here;
//! tests, benches and `hearth inspect` pick it up from the row. Beside them: [`float`] (the unquantized three), [`fit`] (the searches
//! of encoders) and [`grid`] (codebooks of the IQ formats).
//!
//! Here too: what works on a row of any format ([`decode`], [`dot`], [`encode`]). All of it is plain code, written to be read: the
//! oracle that fast kernels are held to.

mod fit;
pub mod float;
pub mod grid;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod mxfp4;
pub mod nvfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod tq1_0;
pub mod tq2_0;

pub use float::F16;

/// One block of a format, as it lies in the file.
///
/// # Safety
/// The type holds bytes and nothing else: alignment 1, no padding, every pattern of bits a value. [`blocks`] casts on that ground.
pub unsafe trait Block: Copy {
    /// Weights in the block.
    const WEIGHTS: usize;

    /// Writes the [`Block::WEIGHTS`] weights to `out`, which has just that length.
    ///
    /// Rounding: f32 throughout, in the order of the formula in the format's table, from left to right, products first; never a fused
    /// multiply-add. So every implementation gets the same bits.
    fn decode(&self, out: &mut [f32]);

    /// The block whose weights lie near `x`, which has [`Block::WEIGHTS`] entries. NaN and infinity give some block.
    fn encode(x: &[f32]) -> Self;
}

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
    decode: fn(&[u8], &mut [f32]),
    encode: fn(&[f32], &mut [u8]),
}

/// Every format, in the order of its id. The one place where sizes stand.
pub const FORMATS: &[Layout] = &[
    row::<float::F32>(Format::F32, "F32", 1, 4),
    row::<float::F16>(Format::F16, "F16", 1, 2),
    row::<q4_0::Block>(Format::Q4_0, "Q4_0", 32, 18),
    row::<q4_1::Block>(Format::Q4_1, "Q4_1", 32, 20),
    row::<q5_0::Block>(Format::Q5_0, "Q5_0", 32, 22),
    row::<q5_1::Block>(Format::Q5_1, "Q5_1", 32, 24),
    row::<q8_0::Block>(Format::Q8_0, "Q8_0", 32, 34),
    row::<q2_k::Block>(Format::Q2_K, "Q2_K", 256, 84),
    row::<q3_k::Block>(Format::Q3_K, "Q3_K", 256, 110),
    row::<q4_k::Block>(Format::Q4_K, "Q4_K", 256, 144),
    row::<q5_k::Block>(Format::Q5_K, "Q5_K", 256, 176),
    row::<q6_k::Block>(Format::Q6_K, "Q6_K", 256, 210),
    row::<iq2_xxs::Block>(Format::IQ2_XXS, "IQ2_XXS", 256, 66),
    row::<iq2_xs::Block>(Format::IQ2_XS, "IQ2_XS", 256, 74),
    row::<iq3_xxs::Block>(Format::IQ3_XXS, "IQ3_XXS", 256, 98),
    row::<iq1_s::Block>(Format::IQ1_S, "IQ1_S", 256, 50),
    row::<iq4_nl::Block>(Format::IQ4_NL, "IQ4_NL", 32, 18),
    row::<iq3_s::Block>(Format::IQ3_S, "IQ3_S", 256, 110),
    row::<iq2_s::Block>(Format::IQ2_S, "IQ2_S", 256, 82),
    row::<iq4_xs::Block>(Format::IQ4_XS, "IQ4_XS", 256, 136),
    row::<iq1_m::Block>(Format::IQ1_M, "IQ1_M", 256, 56),
    row::<float::BF16>(Format::BF16, "BF16", 1, 2),
    row::<tq1_0::Block>(Format::TQ1_0, "TQ1_0", 256, 54),
    row::<tq2_0::Block>(Format::TQ2_0, "TQ2_0", 256, 66),
    row::<mxfp4::Block>(Format::MXFP4, "MXFP4", 32, 17),
    row::<nvfp4::Block>(Format::NVFP4, "NVFP4", 64, 36),
    row::<q1_0::Block>(Format::Q1_0, "Q1_0", 128, 18),
    row::<q2_0::Block>(Format::Q2_0, "Q2_0", 64, 18),
];

/// A row, refused at compile time where the block's type says otherwise.
const fn row<B: Block>(format: Format, name: &'static str, weights: usize, bytes: usize) -> Layout {
    assert!(B::WEIGHTS == weights && size_of::<B>() == bytes && align_of::<B>() == 1);
    Layout { format, name, weights, bytes, decode: decode_blocks::<B>, encode: encode_blocks::<B> }
}

/// Bytes of a file as blocks, in place.
///
/// # Panics
/// When `bytes` is no whole number of blocks.
pub fn blocks<B: Block>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() > 0) };
    assert!(bytes.len().is_multiple_of(size_of::<B>()), "{} bytes are no whole blocks of {}", bytes.len(), size_of::<B>());
    // SAFETY: the length is whole blocks, alignment is 1, and the trait promises that any bytes are a block.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// Blocks as the bytes of a file.
fn bytes_of<B: Block>(block: &B) -> &[u8] {
    // SAFETY: the trait promises bytes without padding.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(block).cast(), size_of::<B>()) }
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = blocks::<B>(bytes);
    assert_eq!(out.len(), blocks.len() * B::WEIGHTS);
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::WEIGHTS)) {
        block.decode(out);
    }
}

fn encode_blocks<B: Block>(x: &[f32], out: &mut [u8]) {
    assert!(x.len().is_multiple_of(B::WEIGHTS), "{} weights are no whole blocks of {}", x.len(), B::WEIGHTS);
    assert_eq!(out.len(), x.len() / B::WEIGHTS * size_of::<B>());
    for (x, out) in x.chunks_exact(B::WEIGHTS).zip(out.chunks_exact_mut(size_of::<B>())) {
        out.copy_from_slice(bytes_of(&B::encode(x)));
    }
}

/// The weights that `bytes` (whole blocks of `format`) stand for; see [`Block::decode`] for the rounding.
///
/// # Panics
/// When `bytes` is no whole number of blocks, or `out` is not as long as their weights.
pub fn decode(format: Format, bytes: &[u8], out: &mut [f32]) {
    (format.layout().decode)(bytes, out);
}

/// Encodes a row (or many: `x` is any whole number of blocks). Meant for the synthetic models of tests and benches: it minimises the
/// squared error with all weights alike and knows of no importance matrix.
///
/// # Panics
/// When `x` is no whole number of blocks, or `out` is not as long as they are.
pub fn encode(format: Format, x: &[f32], out: &mut [u8]) {
    (format.layout().encode)(x, out);
}

/// The oracle of every dot product: Σ w·x with `w` as [`decode`] gives them; products and sums in f64, left to right, rounded to f32 at
/// the end.
///
/// # Panics
/// When `bytes` is no whole number of blocks, or `x` is not as long as their weights.
pub fn dot(format: Format, bytes: &[u8], x: &[f32]) -> f32 {
    let layout = format.layout();
    assert_eq!(Some(bytes.len()), format.row_bytes(x.len()), "a row of {} weights in {}", x.len(), layout.name);
    let mut decoded = [0.0; LARGEST_BLOCK];
    let mut sum = 0.0;
    for (bytes, x) in bytes.chunks(LARGEST_BLOCK / layout.weights * layout.bytes).zip(x.chunks(LARGEST_BLOCK)) {
        let w = &mut decoded[..x.len()];
        (layout.decode)(bytes, w);
        for (&w, &x) in w.iter().zip(x) {
            sum += f64::from(w) * f64::from(x);
        }
    }
    sum as f32
}

/// Weights of the largest block of any format; every other block's divide it.
const LARGEST_BLOCK: usize = 256;

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
