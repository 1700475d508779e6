//! One step of a Kalman filter for a few unknowns that an observation is linear in.

/// An error beyond so many sigma counts as so many: one wild observation must not bend what was learned.
const SIGMAS_MAX: f64 = 5.0;

/// Takes in `seen ≈ Σ by[i] · mean[i]`, of variance `noise`. Returns by how much it was missed, and the variance that was expected of that.
pub fn learn<const N: usize>(mean: &mut [f64; N], covariance: &mut [[f64; N]; N], by: &[f64; N], noise: f64, seen: f64) -> (f64, f64) {
    let along: [f64; N] = std::array::from_fn(|i| (0..N).map(|j| covariance[i][j] * by[j]).sum());
    let variance = noise + (0..N).map(|i| by[i] * along[i]).sum::<f64>();
    let missed = seen - (0..N).map(|i| by[i] * mean[i]).sum::<f64>();
    let bound = SIGMAS_MAX * variance.sqrt();
    let error = missed.clamp(-bound, bound);
    for i in 0..N {
        mean[i] += along[i] / variance * error;
        for j in 0..N {
            covariance[i][j] -= along[i] * along[j] / variance;
        }
    }
    (missed, variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_learned_from_points_on_it_and_one_wild_point_bends_it_little() {
        let (mut mean, mut covariance) = ([0.0; 2], [[100.0, 0.0], [0.0, 100.0]]);
        for step in 0..50 {
            let x = f64::from(step % 10);
            learn(&mut mean, &mut covariance, &[1.0, x], 0.01, 3.0 - 0.5 * x);
        }
        assert!((mean[0] - 3.0).abs() < 0.01 && (mean[1] + 0.5).abs() < 0.01, "{mean:?}");
        let (missed, _) = learn(&mut mean, &mut covariance, &[1.0, 5.0], 0.01, 1000.0);
        assert!((missed - 999.5).abs() < 0.1 && (mean[0] + 5.0 * mean[1] - 0.5).abs() < 0.1, "missed by {missed}, now {mean:?}");
    }
}
