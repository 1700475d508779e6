//! Runs one product over and over, for counting its instructions: `count FORMAT TOKENS TIMES` (2048 columns, 64 rows, or `COLSxROWS`).

use hearth_kernels::cpu::{Activations, Columns, Kernels, Tier, Weights};
use hearth_kernels::quant::{self, Format};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [format, tokens, times, shape @ ..] = &arguments[..] else {
        panic!("count FORMAT TOKENS TIMES [COLSxROWS]");
    };
    let format = Format::from_name(format).expect("a format");
    let (tokens, times): (usize, usize) = (tokens.parse().expect("tokens"), times.parse().expect("times"));
    let (cols, rows) = shape.first().map_or((2048, 64), |s| {
        let (c, r) = s.split_once('x').expect("COLSxROWS");
        (c.parse().expect("columns"), r.parse().expect("rows"))
    });
    let kernels = Kernels::for_tier(Tier::from_environment().expect("a tier")).expect("an available tier");
    let wave = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<f32>>();
    let mut weights = vec![0; rows * format.row_bytes(cols).expect("whole blocks")];
    quant::encode(format, &wave(rows * cols), &mut weights);
    let form = kernels.form(format, tokens);
    let mut activations = vec![0; form.bytes(cols, tokens)];
    kernels.quantize(form, cols, &wave(tokens * cols), &mut activations);
    let mut scratch = vec![0; kernels.scratch_bytes(format, form, cols, tokens)];
    let mut out = vec![0.0; tokens * rows];
    for _ in 0..times {
        let weights = Weights { format, bytes: &weights, cols };
        let activations = Activations { form, bytes: &activations, tokens };
        kernels.mat_mul(weights, activations, Columns::of(&mut out, rows), &mut scratch);
    }
    println!("{} {}: {}", kernels.tier().name(), format.name(), out.iter().sum::<f32>());
}
