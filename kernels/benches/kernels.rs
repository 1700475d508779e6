//! The kernels' speed beside the limits of this machine, on one thread: `cargo bench -p hearth-kernels [-- WORD…]`, each word a part of
//! a tier's or format's name or `prefill`, `decode`, `cached` (one token, weights in the second-level cache), `few`. Every kernel is checked before it is timed. Every figure is the best of many runs, so a busy neighbour shows little.

#[path = "../tests/registry/mod.rs"]
mod registry;

use hearth_kernels::cpu::form::Planes;
use hearth_kernels::cpu::{Activations, Columns, Tier, Weights};
use hearth_kernels::quant::Format;
use registry::Case;
use std::hint::black_box;
use std::time::{Duration, Instant};

const FORMATS: [Format; 14] = [
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::IQ4_XS,
    Format::IQ4_NL,
    Format::Q2_K,
    Format::Q3_K,
    Format::MXFP4,
    Format::F16,
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).map(|a| a.to_lowercase()).collect();
    println!("read bandwidth of this thread, {:.1} GB/s; of int8, {:.0} GMAC/s", read_bandwidth(), int8_peak());
    println!("{:<12} {:<8} {:<8} {:>8} {:>10} {:>10}", "tier", "format", "what", "tokens", "GB/s", "GMAC/s");
    for tier in Tier::available().filter(|t| *t != Tier::Generic) {
        for format in FORMATS {
            for (what, tokens, rows) in [
                ("decode", 1, 8192),
                ("cached", 1, 64),
                ("few", 2, 64),
                ("few", 4, 64),
                ("few", 8, 64),
                ("few", 16, 64),
                ("prefill", 48, 512),
                ("prefill", 240, 256),
            ] {
                let line = format!("{} {} {what}", tier.name(), format.name().to_lowercase());
                if words.iter().all(|w| line.split(' ').any(|part| part == w)) {
                    run(Case { tier, format, cols: 2048, rows, tokens, exact: false }, what);
                }
            }
        }
    }
}

fn run(case: Case, what: &str) {
    let few = Case { rows: 33, tokens: case.tokens.min(50), ..case };
    let small = few.inputs();
    few.check(&small.weights, &small.x, 0);
    let k = case.kernels();
    let form = case.form(&k);
    let inputs = case.inputs();
    let mut activations = vec![0; form.bytes(case.cols, case.tokens)];
    k.quantize(form, case.cols, &inputs.x, &mut activations);
    let mut out = vec![0.0; case.rows * case.tokens];
    let mut scratch = vec![0; k.scratch_bytes(case.format, form, case.cols, case.tokens)];
    let seconds = best(|| {
        k.mat_mul(
            Weights { format: case.format, bytes: &inputs.weights, cols: case.cols },
            Activations { form, bytes: &activations, tokens: case.tokens },
            Columns::of(&mut out, case.rows),
            &mut scratch,
        );
    });
    let (gb, gmac) = (bytes_read(&case) as f64 / seconds / 1e9, (case.cols * case.rows * case.tokens) as f64 / seconds / 1e9);
    println!("{:<12} {:<8} {what:<8} {:>8} {gb:>10.1} {gmac:>10.1}", case.tier.name(), case.format.name(), case.tokens);
}

/// The shortest of the runs that fit in half a second.
fn best(mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), f64::MAX);
    while start.elapsed() < Duration::from_millis(500) {
        let once = Instant::now();
        f();
        best = best.min(once.elapsed().as_secs_f64());
    }
    best
}

/// Of a buffer that no cache holds.
fn read_bandwidth() -> f64 {
    let buffer = vec![1u64; 32 << 20];
    let seconds = best(|| {
        let (a, b) = buffer.split_at(buffer.len() / 2);
        // Two streams, eight sums each: loads are what takes the time.
        let mut sums = [0u64; 16];
        for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
            for i in 0..8 {
                sums[i] = sums[i].wrapping_add(a[i]);
                sums[i + 8] = sums[i + 8].wrapping_add(b[i]);
            }
        }
        black_box(sums);
    });
    (buffer.len() * 8) as f64 / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
fn int8_peak() -> f64 {
    use std::arch::x86_64::*;

    const ROUNDS: usize = 10_000;
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn vnni() {
        let mut sums = [_mm512_setzero_si512(); 12];
        let x = black_box(_mm512_set1_epi8(1));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
    }
    #[target_feature(enable = "avx2")]
    fn avx2() {
        let mut sums = [_mm256_setzero_si256(); 12];
        let (x, y, ones) = black_box((_mm256_set1_epi8(1), _mm256_set1_epi8(3), _mm256_set1_epi16(1)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // The sum goes in, so that the products differ and none is left out.
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_or_si256(*sum, x), y), ones));
            }
        }
        black_box(sums);
    }
    if Tier::Avx512Vnni.is_available() {
        // SAFETY: the CPU has it.
        (ROUNDS * 12 * 64) as f64 / best(|| unsafe { vnni() }) / 1e9
    } else if Tier::Avx2.is_available() {
        // SAFETY: the CPU has it.
        (ROUNDS * 12 * 32) as f64 / best(|| unsafe { avx2() }) / 1e9
    } else {
        f64::NAN
    }
}

/// Not measured here.
#[cfg(not(target_arch = "x86_64"))]
fn int8_peak() -> f64 {
    f64::NAN
}

/// Bytes that a product reads at least: weights and activations once.
fn bytes_read(case: &Case) -> usize {
    case.format.row_bytes(case.cols).expect("whole blocks") * case.rows + Planes::new(case.cols, 32).stride * case.tokens
}
