//! How fast and at what power a processor works: rate and activity by work, threads and clock.
//!
//! decode, GB/s of weights: `(comp^-p + bw^-p)^(-1/p)`, comp = n · core · f/fmax, bw = what n threads can read.
//! prefill, share of all cores at full clock: the same norm of n·f/(nmax·fmax) against `prefill_cap`.

use super::super::profile::Soc;

/// What the processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Idle,
    /// Rate in GB/s of weights.
    Decode,
    /// Rate as a share of all cores at full clock.
    Prefill,
    /// An integer stress test on all cores; rate as the share of the full clock.
    Stress,
}

/// Rate of `work` and the activity of each busy core.
pub fn rate_and_activity(soc: &Soc, work: Work, threads: u8, mhz: f32) -> (f32, f32) {
    let n = threads as f32;
    let share = mhz / soc.max_mhz();
    match work {
        Work::Idle => (0.0, 0.0),
        Work::Stress => (n * share / soc.cores as f32, 1.0),
        Work::Prefill => (norm(n * share / soc.cores as f32, soc.prefill_cap, soc.p), soc.act_prefill),
        Work::Decode => {
            let compute = n * soc.core_gbs * share;
            let bandwidth = match soc.bw_by_threads_gbs.get(threads as usize - 1) {
                Some(&bw) => bw.min(n * soc.bw_by_threads_gbs[0] * (0.5 + 0.5 * share)),
                None => soc.bw_gbs.min(n * soc.core_bw_gbs),
            };
            let rate = norm(compute, bandwidth, soc.p);
            let busy = rate / compute;
            (rate, soc.act_busy * busy + soc.act_stall * (1.0 - busy))
        }
    }
}

/// `(a^-p + b^-p)^(-1/p)`: a smooth minimum.
fn norm(a: f32, b: f32, p: f32) -> f32 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    small * (1.0 + (small / large).powf(p)).powf(-1.0 / p)
}

#[cfg(test)]
mod tests {
    use super::super::super::profile::Profile;
    use super::*;

    fn pi5() -> Soc {
        Profile::for_compatible(&["brcm,bcm2712".to_string()]).unwrap().soc
    }

    #[test]
    fn decode_on_a_pi_5_follows_the_published_shape() {
        let mut soc = pi5();
        soc.bw_by_threads_gbs.clear();
        let rate = |n, f| rate_and_activity(&soc, Work::Decode, n, f).0;
        let full = rate(4, 2400.0);
        for (n, f, want) in [(4, 1800.0, 0.94), (3, 2400.0, 0.94), (2, 2400.0, 0.77), (4, 1500.0, 0.88)] {
            assert!((rate(n, f) / full - want).abs() < 0.015, "{n} threads at {f} MHz: {}", rate(n, f) / full);
        }
    }

    #[test]
    fn fast_kernels_make_three_threads_the_best_on_a_cool_pi_5() {
        let mut soc = pi5();
        soc.core_gbs = 6.0;
        let rate = |n, f| rate_and_activity(&soc, Work::Decode, n, f).0;
        assert!((rate(3, 2400.0) / rate(4, 2400.0) - 1.03).abs() < 0.01);
    }
}
