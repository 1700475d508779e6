//! Figures from series: percentiles, a line with the interval of its slope, and the moving-block bootstrap. Seeds are fixed: the same
//! series gives the same interval everywhere.

/// The value below which `share` (0–1) of the values lie, by linear interpolation. 0 for none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * (at - at.floor())
}

pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The mean where there is anything to take it of.
pub fn mean_of_any(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| mean(values))
}

/// Slope of a line through equally spaced values, per step, with half the width of its 95 % interval. Neighbouring seconds are alike,
/// so the error counts only as many values as there are independent ones (from the correlation of neighbours).
pub fn slope(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if n < 8.0 {
        return (0.0, f64::INFINITY);
    }
    let (mx, my) = ((n - 1.0) / 2.0, mean(values));
    let sxx: f64 = (0..values.len()).map(|i| (i as f64 - mx).powi(2)).sum();
    let sxy: f64 = values.iter().enumerate().map(|(i, y)| (i as f64 - mx) * (y - my)).sum();
    let slope = sxy / sxx;
    let rest: Vec<f64> = values.iter().enumerate().map(|(i, y)| y - my - slope * (i as f64 - mx)).collect();
    let variance = rest.iter().map(|r| r * r).sum::<f64>() / (n - 2.0);
    let together: f64 = rest.windows(2).map(|w| w[0] * w[1]).sum();
    let alike = (together / rest.iter().map(|r| r * r).sum::<f64>().max(1e-300)).clamp(0.0, 0.99);
    let inflation = (1.0 + alike) / (1.0 - alike);
    (slope, 1.96 * (variance * inflation / sxx).sqrt())
}

/// 95 % interval of Σ numerator / Σ denominator over a series whose neighbours are alike: moving blocks of `block` values, `draws`
/// draws, SplitMix64 from `seed`. Blocks go on from the end at the beginning: or values near the ends would be drawn less often, and a
/// series of a few long swings would get an interval beside its own ratio (Politis and Romano's circular blocks).
pub fn ratio_interval(numerator: &[f64], denominator: &[f64], block: usize, draws: usize, seed: u64) -> (f64, f64) {
    let n = numerator.len().min(denominator.len());
    let block = block.clamp(1, n.max(1));
    if n == 0 {
        return (0.0, 0.0);
    }
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    };
    // Prefix sums make a block one subtraction.
    let sums = |values: &[f64]| {
        values
            .iter()
            .take(n)
            .scan(0.0, |s, v| {
                *s += v;
                Some(*s)
            })
            .collect::<Vec<f64>>()
    };
    let (top, bottom) = (sums(numerator), sums(denominator));
    let of = |sums: &[f64], from: usize| {
        let before = if from == 0 { 0.0 } else { sums[from - 1] };
        let (last, around) = (from + block - 1, if from + block > n { sums[n - 1] } else { 0.0 });
        sums[last % n] + around - before
    };
    let ratios: Vec<f64> = (0..draws)
        .filter_map(|_| {
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..n.div_ceil(block) {
                let from = below(n);
                a += of(&top, from);
                b += of(&bottom, from);
            }
            // Blocks without work tell no rate.
            (b > 0.0).then(|| a / b)
        })
        .collect();
    (percentile(&ratios, 0.025), percentile(&ratios, 0.975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate() {
        assert_eq!(percentile(&[4.0, 1.0, 3.0, 2.0], 0.5), 2.5);
        assert_eq!(percentile(&[7.0], 0.95), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_trend_is_told_from_noise() {
        let noise = |i: usize| ((i * 7919) % 13) as f64 / 13.0 - 0.5;
        let flat: Vec<f64> = (0..600).map(|i| 10.0 + noise(i)).collect();
        let rising: Vec<f64> = (0..600).map(|i| 10.0 + 0.01 * i as f64 + noise(i)).collect();
        let (s, half) = slope(&flat);
        assert!(s.abs() <= half);
        let (s, half) = slope(&rising);
        assert!((s - 0.01).abs() <= half.max(0.001) && s > half);
    }

    #[test]
    fn the_interval_covers_the_ratio_repeats_and_widens_with_long_swings() {
        let busy = vec![1.0; 600];
        let swing = |period: usize| (0..600).map(|i| if (i / period).is_multiple_of(2) { 8.0 } else { 12.0 }).collect::<Vec<f64>>();
        let (low, high) = ratio_interval(&swing(60), &busy, 60, 2000, 1);
        assert!(low < 10.0 && high > 10.0);
        assert_eq!((low, high), ratio_interval(&swing(60), &busy, 60, 2000, 1));
        let (a, b) = ratio_interval(&swing(1), &busy, 60, 2000, 1);
        assert!(b - a < high - low);
        // Slow at both ends: what is drawn has the mean of all.
        let ends: Vec<f64> = (0..600).map(|i| if (100..500).contains(&i) { 12.0 } else { 6.0 }).collect();
        let (low, high) = ratio_interval(&ends, &busy, 200, 2000, 1);
        assert!(low < 9.5 && high > 10.5, "{low} … {high} of 10");
        assert_eq!(ratio_interval(&busy, &busy, 600, 100, 1), (1.0, 1.0));
    }
}
