//! Sums of products in f64: what the formulas of the plain backend are made of.

/// `Σᵢ a[i] · b[i]`. Eight sums side by side, so that the adder's latency is hidden.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for i in 0..8 {
            sums[i] += f64::from(a[i]) * f64::from(b[i]);
        }
    }
    tail + sums.iter().sum::<f64>()
}

/// `sum[i] += by · x[i]`
pub fn add(sum: &mut [f64], by: f64, x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += by * f64::from(*x);
    }
}
