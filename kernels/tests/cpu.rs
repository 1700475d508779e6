//! Every kernel of every tier of this CPU against the plain one.

mod registry;

use hearth_kernels::cpu::{Form, Kernels, Tier, plain};
use hearth_kernels::quant::FORMATS;
use registry::{Case, Noise};

fn check(case: Case, weights: &[u8], x: &[f32], shift: usize) {
    let (want, got) = (case.plain(weights, x), case.compute(weights, x, shift));
    for (i, (want, got)) in want.iter().zip(&got).enumerate() {
        let (token, row) = (i / case.rows, i % case.rows);
        let bound = case.bound(weights, x, token, row);
        if bound.is_infinite() {
            // At the end of f32's range: whether a term or a sum leaves it depends on the order.
            continue;
        }
        if want.is_finite() {
            assert!((want - got).abs() <= bound, "{case:?} token {token} row {row}: plain {want:e}, got {got:e}, bound {bound:e}");
        } else {
            assert!(!got.is_finite(), "{case:?} token {token} row {row}: plain {want:e}, got {got:e}");
        }
    }
}

/// Columns around the boundaries of a format: one block, one short of and one past 256, several runs.
fn columns(block: usize) -> Vec<usize> {
    let mut cols = match block {
        1 => vec![1, 31, 32, 33, 257],
        256 => vec![256, 768],
        _ => vec![block, 256 - block, 256, 256 + block, 576],
    };
    cols.retain(|c| c % block == 0 && *c > 0);
    cols
}

#[test]
fn every_tier_multiplies_every_format_as_the_plain_kernels_do() {
    for tier in Tier::available() {
        for layout in FORMATS {
            for cols in columns(layout.weights) {
                for (rows, tokens) in [(1, 1), (3, 1), (33, 1), (2, 2), (5, 3), (2, 9), (7, 15), (33, 32), (35, 37)] {
                    for exact in [false, true] {
                        let case = Case { tier, format: layout.format, cols, rows, tokens, exact };
                        let inputs = case.inputs();
                        check(case, &inputs.weights, &inputs.x, tokens % 4);
                    }
                }
            }
        }
    }
}

#[test]
fn any_bytes_of_weights_give_what_the_plain_kernels_give() {
    for tier in Tier::available() {
        for layout in FORMATS.iter().filter(|l| l.weights > 1) {
            for tokens in [1, 3, 40] {
                let case = Case { tier, format: layout.format, cols: 512, rows: 40, tokens, exact: false };
                let mut noise = Noise::new(layout.bytes as u64);
                // One byte into the buffer: rows of a file lie anywhere.
                let row_bytes = layout.format.row_bytes(case.cols).expect("whole blocks");
                let weights: Vec<u8> = (0..1 + row_bytes * case.rows).map(|_| noise.bits() as u8).collect();
                let x = noise.numbers(case.cols * tokens);
                check(case, &weights[1..], &x, 0);
            }
        }
    }
}

#[test]
fn extreme_activations_give_what_the_plain_kernels_give() {
    let rows: [(&str, &dyn Fn(usize) -> f32); 7] = [
        ("zeros", &|_| 0.0),
        ("one NaN", &|i| if i == 40 { f32::NAN } else { 1.0 }),
        ("one infinity", &|i| if i == 100 { f32::INFINITY } else { -1.0 }),
        ("denormal", &|i| f32::from_bits(i as u32 + 1)),
        ("near the smallest", &|i| 1e-30 * (i % 5) as f32),
        ("huge", &|i| if i % 3 == 0 { 1e30 } else { -1e30 }),
        ("ties", &|i| [127.0, 0.5, 1.5, 2.5, -0.5, -1.5][i % 6]),
    ];
    for tier in Tier::available() {
        for layout in FORMATS {
            for (name, row) in rows {
                for tokens in [1, 33] {
                    let case = Case { tier, format: layout.format, cols: 256, rows: 4, tokens, exact: false };
                    let weights = case.inputs().weights;
                    let x: Vec<f32> = (0..256 * tokens).map(|i| row(i % 256)).collect();
                    println!("{name}:");
                    check(case, &weights, &x, 0);
                }
            }
        }
    }
}

#[test]
fn every_tier_quantizes_to_the_same_bits() {
    for tier in Tier::available() {
        let k = Kernels::for_tier(tier).expect("available");
        for (form, cols) in [(Form::Int8By32, 32), (Form::Int8By32, 544), (Form::Int8By256, 256), (Form::Int8By256, 768), (Form::F32, 33)] {
            let mut x = Noise::new(cols as u64).numbers(3 * cols);
            for (i, special) in [f32::NAN, f32::INFINITY, 1e-38, -0.0, 3e38].into_iter().enumerate() {
                x[(i * 37) % cols] = special;
                let (mut want, mut got) = (vec![0; form.bytes(cols, 3)], vec![0; form.bytes(cols, 3)]);
                plain::linear::quantize(form, &x, cols, &mut want);
                k.quantize(form, cols, &x, &mut got);
                let different = want.iter().zip(&got).position(|(a, b)| a != b);
                assert_eq!(different, None, "{tier:?} {form:?} of {cols} with {special:e}");
            }
        }
    }
}
