//! Every weight format against reference decoders and against itself: layout (golden blocks, and the large collection of
//! `../shared/fixtures/quant-zoo` where that stands beside the checkout), the oracle's dot product, and what encoding loses.

use hearth_kernels::quant::{self, FORMATS, Format};
use std::path::{Path, PathBuf};

/// Equal as bits, or both NaN: whose payload no reference promises.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Decodes and names the first weight that differs.
fn assert_decodes_to(format: Format, bytes: &[u8], want: &[f32], which: &str) {
    let mut got = vec![0.0; want.len()];
    quant::decode(format, bytes, &mut got);
    if let Some(i) = (0..want.len()).find(|&i| !same(got[i], want[i])) {
        panic!("{} {which}: weight {i} is {:e}, not {:e}", format.name(), got[i], want[i]);
    }
}

#[test]
fn golden_blocks_decode_to_the_same_bits() {
    let hex = |s: &str| u32::from_str_radix(s, 16).expect("hexadecimal");
    let mut seen = Vec::new();
    let mut lines = include_str!("golden/blocks.txt").lines().peekable();
    while let Some(head) = lines.next() {
        let (name, bytes) = head.split_once(' ').expect("NAME HEX");
        let format = Format::from_name(name).expect(name);
        let bytes: Vec<u8> = (0..bytes.len() / 2).map(|i| hex(&bytes[2 * i..2 * i + 2]) as u8).collect();
        let mut want = Vec::new();
        while let Some(line) = lines.next_if(|l| l.starts_with(' ')) {
            want.extend(line.split_whitespace().map(|w| f32::from_bits(hex(w))));
        }
        assert_eq!(format.row_bytes(want.len()), Some(bytes.len()), "{name}");
        assert_decodes_to(format, &bytes, &want, "golden block");
        seen.push(format);
    }
    for layout in FORMATS.iter().filter(|l| l.format != Format::F32) {
        assert!(seen.contains(&layout.format), "{} has no golden block", layout.name);
    }
}

#[test]
fn blocks_decode_at_any_address() {
    for layout in FORMATS {
        let block: Vec<u8> = (0..2 * layout.bytes).map(|i| (i * 37 % 101) as u8).collect();
        let mut want = vec![0.0; 2 * layout.weights];
        quant::decode(layout.format, &block, &mut want);
        for shift in 1..4 {
            let mut moved = vec![0; shift];
            moved.extend(&block);
            assert_decodes_to(layout.format, &moved[shift..], &want, "moved");
        }
    }
}

#[test]
fn empty_rows_are_fine() {
    for layout in FORMATS {
        quant::decode(layout.format, &[], &mut []);
        quant::encode(layout.format, &[], &mut []);
        assert_eq!(quant::dot(layout.format, &[], &[]), 0.0);
    }
}

/// Deterministic, roughly normal numbers of the given standard deviation: sums of twelve uniform ones.
fn noise(n: usize, deviation: f32) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * deviation).collect()
}

/// The most that encoding may lose of normal noise: rms of the error over rms of the weights. About 3 % above what the encoders measure.
fn loss_limit(format: Format) -> f64 {
    match format {
        Format::F32 => 0.0,
        Format::F16 => 2.2e-4,
        Format::BF16 => 1.75e-3,
        Format::Q8_0 => 0.0056,
        Format::Q6_K => 0.0182,
        Format::Q5_0 => 0.0455,
        Format::Q5_1 => 0.0395,
        Format::Q5_K => 0.0372,
        Format::Q4_0 => 0.0905,
        Format::Q4_1 => 0.0815,
        Format::Q4_K => 0.0735,
        Format::IQ4_NL | Format::IQ4_XS => 0.079,
        Format::MXFP4 => 0.12,
        Format::NVFP4 => 0.109, // at 0.02 its scales are denormal
        Format::Q3_K => 0.151,
        Format::IQ3_S => 0.141,
        Format::IQ3_XXS => 0.188,
        Format::Q2_K => 0.279,
        Format::IQ2_S => 0.262,
        Format::IQ2_XS => 0.308,
        Format::IQ2_XXS => 0.337,
        Format::TQ1_0 | Format::TQ2_0 | Format::Q2_0 => 0.455,
        Format::IQ1_M => 0.44,
        Format::IQ1_S => 0.468,
        Format::Q1_0 => 0.627,
    }
}

#[test]
fn encoding_noise_loses_no_more_than_its_format_must() {
    for layout in FORMATS {
        for deviation in [0.02, 1.0, 300.0] {
            let x = noise(2048, deviation);
            let mut bytes = vec![0; layout.format.row_bytes(x.len()).expect("whole blocks")];
            quant::encode(layout.format, &x, &mut bytes);
            let mut w = vec![0.0; x.len()];
            quant::decode(layout.format, &bytes, &mut w);
            let square = |v: f32| f64::from(v) * f64::from(v);
            let error: f64 = x.iter().zip(&w).map(|(&x, &w)| square(x - w)).sum();
            let loss = (error / x.iter().map(|&x| square(x)).sum::<f64>()).sqrt();
            let limit = loss_limit(layout.format);
            assert!(loss <= limit, "{} at {deviation}: loses {loss:.4}, limit {limit}", layout.name);
        }
    }
}

#[test]
fn encoding_zeros_gives_zeros() {
    for layout in FORMATS {
        let mut bytes = vec![0xAA; layout.bytes];
        quant::encode(layout.format, &vec![0.0; layout.weights], &mut bytes);
        let mut w = vec![1.0; layout.weights];
        quant::decode(layout.format, &bytes, &mut w);
        assert!(w.iter().all(|&w| w == 0.0), "{}: {w:?}", layout.name);
    }
}

#[test]
fn encoding_survives_any_number() {
    let rows: [&dyn Fn(usize) -> f32; 6] = [
        &|_| f32::NAN,
        &|i| if i == 3 { f32::NAN } else { i as f32 },
        &|i| if i % 7 == 0 { f32::INFINITY } else { -1.0 },
        &|_| f32::NEG_INFINITY,
        &|i| if i % 2 == 0 { f32::MAX } else { f32::MIN },
        &|i| f32::from_bits(i as u32),
    ];
    for layout in FORMATS {
        for row in rows {
            let x: Vec<f32> = (0..layout.weights).map(row).collect();
            let mut bytes = vec![0; layout.bytes];
            quant::encode(layout.format, &x, &mut bytes);
            quant::decode(layout.format, &bytes, &mut vec![0.0; layout.weights]);
        }
    }
}

/// The folder of the large collection, if it stands beside the checkout.
fn zoo() -> Option<PathBuf> {
    let shared =
        std::env::var_os("HEARTH_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let zoo = shared.join("fixtures/quant-zoo");
    zoo.is_dir().then_some(zoo)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn the_zoo_decodes_to_the_same_bits_and_its_dots_agree() {
    let Some(zoo) = zoo() else {
        eprintln!("SKIPPED: no fixtures/quant-zoo in ../shared or $HEARTH_SHARED; only the golden blocks were checked");
        return;
    };
    let data = std::fs::read(zoo.join("zoo.bin")).expect("zoo.bin");
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(zoo.join("zoo.json")).expect("zoo.json")).expect("JSON");
    let number = |v: &serde_json::Value| v.as_u64().expect("a number") as usize;
    let part = |v: &serde_json::Value| &data[number(&v["offset"])..][..number(&v["bytes"])];
    let columns = number(&index["columns"]);
    let x = floats(part(&index["activation"]));
    for entry in index["types"].as_array().expect("types") {
        let name = entry["type"].as_str().expect("type");
        let format = Format::from_name(name).unwrap_or_else(|| panic!("{name} is missing in the table"));
        let layout = format.layout();
        assert_eq!(number(&entry["id"]), format.id() as usize, "{name}");
        assert_eq!((number(&entry["block"]), number(&entry["block_bytes"])), (layout.weights, layout.bytes), "{name}");
        let want = floats(part(&entry["f32"]));
        let row_bytes = format.row_bytes(columns).expect("whole blocks");
        for (r, (row, want)) in part(&entry["data"]).chunks(row_bytes).zip(want.chunks(columns)).enumerate() {
            assert_decodes_to(format, row, want, &format!("row {r} ({})", entry["labels"][r]));
            if let Some(exact) = entry["dots"]["exact"][r].as_f64() {
                let got = f64::from(quant::dot(format, row, &x));
                // The sum in f64 may be ordered otherwise (512 roundings); the last rounding is to f32.
                let magnitude: f64 = want.iter().zip(&x).map(|(w, x)| f64::from(w * x).abs()).sum();
                let bound = magnitude * 512.0 * f64::EPSILON + exact.abs() * f64::from(f32::EPSILON);
                assert!((got - exact).abs() <= bound, "{name} row {r}: dot {got:e}, not {exact:e}");
            }
        }
    }
}
