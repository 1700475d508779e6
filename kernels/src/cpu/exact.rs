//! Products with f32 activations, for every format: four rows are decoded into scratch and multiplied by a few tokens at a time.
//! The reference for quality, and the route of formats without kernels of their own.

use super::Columns;
use super::linear::Product;
use super::vector::Vector;
use crate::quant::{self, Format};

/// Rows decoded at a time.
pub const ROWS: usize = 4;

/// Bytes of scratch for rows of `cols` columns.
pub fn scratch(cols: usize) -> usize {
    ROWS * cols * 4 + 4
}

/// `T` tokens at a time: `4 · T` sums fit the registers.
///
/// # Safety
/// As [`Vector`]; lengths as `Kernels::mat_mul` checks them.
#[inline(always)]
pub unsafe fn mat_mul<V: Vector, const T: usize>(p: &mut Product) {
    // SAFETY: any bytes are f32.
    let (_, decoded, _) = unsafe { p.scratch.align_to_mut::<f32>() };
    let decoded = &mut decoded[..ROWS * p.cols];
    let x = p.activations.as_ptr().cast::<f32>();
    for first in (0..p.rows).step_by(ROWS) {
        let rows = ROWS.min(p.rows - first);
        for r in 0..ROWS {
            // A row that is not there is the last one again.
            let row = &p.weights[(first + r.min(rows - 1)) * p.row_bytes..][..p.row_bytes];
            // SAFETY: passed on.
            unsafe { decode::<V>(p.format, row, &mut decoded[r * p.cols..][..p.cols]) };
        }
        let mut token = 0;
        while token < p.tokens {
            let n = if p.tokens - token >= T { T } else { 1 };
            // SAFETY: the tokens exist, and rows and activations have `cols` columns.
            unsafe {
                let x = x.add(token * p.cols);
                if n == T {
                    write(&mut p.out, dots::<V, T>(decoded, x, p.cols), first, rows, token);
                } else {
                    write(&mut p.out, dots::<V, 1>(decoded, x, p.cols), first, rows, token);
                }
            }
            token += n;
        }
    }
}

#[inline(always)]
fn write<const T: usize>(out: &mut Columns, sums: [[f32; ROWS]; T], first: usize, rows: usize, token: usize) {
    for (t, sums) in sums.iter().enumerate() {
        out.token(token + t)[first..first + rows].copy_from_slice(&sums[..rows]);
    }
}

/// Each of the tokens with each of the rows.
///
/// # Safety
/// As [`mat_mul`]; `T` tokens of `cols` are readable at `x`, at any address.
#[inline(always)]
unsafe fn dots<V: Vector, const T: usize>(rows: &[f32], x: *const f32, cols: usize) -> [[f32; ROWS]; T] {
    // SAFETY: by the contract.
    unsafe {
        let mut sums = [[V::splat(0.0); ROWS]; T];
        let whole = cols / V::LANES * V::LANES;
        for i in (0..whole).step_by(V::LANES) {
            let mut w = [V::splat(0.0); ROWS];
            for (r, w) in w.iter_mut().enumerate() {
                *w = V::load(rows.as_ptr().add(r * cols + i));
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = V::load(x.add(t * cols + i));
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = w.mul_add(x, *sum);
                }
            }
        }
        let mut out = [[0.0; ROWS]; T];
        for t in 0..T {
            for r in 0..ROWS {
                out[t][r] =
                    (whole..cols).fold(sums[t][r].sum(), |sum, i| rows[r * cols + i].mul_add(x.add(t * cols + i).read_unaligned(), sum));
            }
        }
        out
    }
}

/// As [`quant::decode`]; formats of plain numbers by vectors.
///
/// # Safety
/// As [`Vector`]; `row` holds `out.len()` numbers.
#[inline(always)]
unsafe fn decode<V: Vector>(format: Format, row: &[u8], out: &mut [f32]) {
    match format {
        Format::F16 => {
            let whole = out.len() / V::LANES * V::LANES;
            for i in (0..whole).step_by(V::LANES) {
                // SAFETY: the row has as many numbers as `out`.
                unsafe { V::load_f16(row.as_ptr().cast::<u16>().add(i)).store(out.as_mut_ptr().add(i)) };
            }
            quant::decode(format, &row[whole * 2..], &mut out[whole..]);
        }
        Format::BF16 => {
            for (bytes, out) in row.as_chunks::<2>().0.iter().zip(out) {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        _ => quant::decode(format, row, out),
    }
}

/// A function `exact` of a tier: `(features, vector, tokens at a time)`.
macro_rules! exact {
    ($features:literal, $vector:ty, $tokens:literal) => {
        /// # Safety
        /// Needs the tier's features; lengths as `Kernels::mat_mul` checks them.
        #[target_feature(enable = $features)]
        unsafe fn exact(p: &mut crate::cpu::linear::Product) {
            // SAFETY: passed on; 4 · tokens sums fit the registers.
            unsafe { crate::cpu::exact::mat_mul::<$vector, $tokens>(p) }
        }

        /// Exact products, which are also the route of every format that has no other yet.
        fn fill_exact(k: &mut crate::cpu::Kernels) {
            use crate::cpu::{
                Form, exact as products,
                linear::{Route, Routes},
            };
            k.exact = Route { form: Form::F32, row_tile: products::ROWS, scratch: products::scratch, run: exact };
            k.products = k.products.map(|routes| if routes.one.form == Form::F32 { Routes::all(k.exact) } else { routes });
        }
    };
}
pub(super) use exact;
