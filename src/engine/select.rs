//! Finding the few largest of very many logits, and sums of exponentials over all of them, in one pass each.
//!
//! A vocabulary of 262,144 words is a megabyte of logits a token: sorting it costs more than a small model's whole step. So the
//! passes here look at blocks of 64 for anything above the worst candidate so far; after the first few thousand logits nearly every
//! block is passed over. Values that are no numbers and minus infinity are never chosen.

/// One candidate: a token's index and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub token: u32,
    pub logit: f32,
}

/// Logits looked at together.
const BLOCK: usize = 64;
/// Candidates gathered beyond those asked for before the worst are dropped.
const SLACK: usize = 512;

/// The largest logit and its index, the first of equals. `None` where there is no number.
pub fn largest(logits: &[f32]) -> Option<Candidate> {
    let max = maximum(logits);
    let token = logits.iter().position(|&x| x == max)?;
    (max > f32::NEG_INFINITY).then_some(Candidate { token: token as u32, logit: max })
}

/// The `count` largest of those above `floor`, largest first, of equals the lower index first.
pub fn top(logits: &[f32], count: usize, floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    if count == 0 {
        return;
    }
    let mut floor = floor;
    for (block_index, block) in logits.chunks(BLOCK).enumerate() {
        if !any_above(block, floor) {
            continue;
        }
        for (i, &logit) in block.iter().enumerate() {
            if logit > floor {
                out.push(Candidate { token: (block_index * BLOCK + i) as u32, logit });
            }
        }
        if out.len() >= count.saturating_add(SLACK) {
            out.select_nth_unstable_by(count - 1, order);
            out.truncate(count);
            floor = out[count - 1].logit;
        }
    }
    if out.len() > count {
        out.select_nth_unstable_by(count - 1, order);
        out.truncate(count);
    }
    out.sort_unstable_by(order);
}

/// All logits above `floor`, in the order of the vocabulary.
pub fn above(logits: &[f32], floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    out.extend(logits.iter().enumerate().filter(|&(_, &x)| x > floor).map(|(i, &logit)| Candidate { token: i as u32, logit }));
}

/// Largest first; of equals the lower index first.
pub fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// ln Σ exp(x).
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = maximum(logits);
    // Eight partial sums over 2048 values each in f32, the rest in f64: error about 1e-6, and it vectorises.
    let sum: f64 = logits
        .chunks(2048)
        .map(|part| {
            let mut lanes = [0f32; 8];
            let (chunks, rest) = part.as_chunks::<8>();
            for chunk in chunks {
                let weights = chunk.map(|x| exp(x - max));
                for (lane, w) in lanes.iter_mut().zip(weights) {
                    *lane += w;
                }
            }
            f64::from(lanes.iter().sum::<f32>() + rest.iter().map(|&x| exp(x - max)).sum::<f32>())
        })
        .sum();
    max + sum.ln() as f32
}

/// e^x for x ≤ 0, 0 for what is no number: 2^n · 2^f with |f| ≤ ½, the second factor by its Taylor polynomial of degree 6
/// (relative error below 2e-7). Below −87 the result is 0.
#[inline]
pub fn exp(x: f32) -> f32 {
    let bounded = if x >= -87.0 { x } else { -87.0 };
    let y = bounded * std::f32::consts::LOG2_E;
    // Adding 1.5 · 2^23 rounds to the nearest integer and leaves it in the low bits.
    let shifted = y + 12_582_912.0;
    let f = (y - (shifted - 12_582_912.0)) * std::f32::consts::LN_2;
    let p = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0))))));
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // A mask, not a branch, so that loops over this vectorise.
    f32::from_bits((p * two_to_n).to_bits() & 0u32.wrapping_sub(u32::from(x >= -87.0)))
}

/// Without an early end, so that it vectorises, and without a maximum, which would be eight steps one after the other a block.
fn any_above(block: &[f32], floor: f32) -> bool {
    block.iter().fold(false, |any, &x| any | (x > floor))
}

/// The largest number in `values`; minus infinity where there is none. Eight running maxima, so that it vectorises.
fn maximum(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut chunks = values.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    chunks.remainder().iter().chain(&lanes).fold(f32::NEG_INFINITY, |m, &x| larger(m, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::random::Random;

    fn noise(count: usize) -> Vec<f32> {
        let mut random = Random::from_seed(7);
        (0..count).map(|_| (random.unit() * 40.0 - 30.0) as f32).collect()
    }

    #[test]
    fn top_is_the_head_of_the_sorted_list() {
        for count in [1, 63, 64, 65, 1000, 5000] {
            let mut logits = noise(count);
            logits.iter_mut().step_by(7).for_each(|x| *x = x.round());
            let mut sorted = Vec::new();
            above(&logits, f32::NEG_INFINITY, &mut sorted);
            sorted.sort_by(order);
            for k in [1, 2, 40, 600, 10_000] {
                let mut got = Vec::new();
                top(&logits, k, f32::NEG_INFINITY, &mut got);
                assert_eq!(got, sorted[..k.min(count)], "{k} of {count}");
            }
            assert_eq!(largest(&logits), Some(sorted[0]));
        }
    }

    #[test]
    fn what_is_no_number_is_never_chosen() {
        let logits = [f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN, 2.0];
        let mut got = Vec::new();
        top(&logits, 10, f32::NEG_INFINITY, &mut got);
        assert_eq!(got.iter().map(|c| c.token).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(largest(&logits).map(|c| c.token), Some(4));
        assert_eq!(largest(&[f32::NAN, f32::NEG_INFINITY]), None);
        assert_eq!(largest(&[]), None);
    }

    #[test]
    fn exp_is_as_near_as_it_says() {
        for i in 0..=87_000 {
            let x = -(i as f32) / 1000.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            // The argument's own rounding grows with its size: |x| · 2^-24.
            assert!(error < 3e-7 + f64::from(x.abs()) * 1.2e-7, "{x}: off by {error}");
        }
        assert_eq!((exp(0.0), exp(-1000.0), exp(f32::NEG_INFINITY), exp(f32::NAN)), (1.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn log_sum_exp_matches_the_formula() {
        let logits = noise(5003);
        let want = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        assert!((f64::from(log_sum_exp(&logits)) - want).abs() < 1e-5);
    }
}
