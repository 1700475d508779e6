//! The vectors among the weights (norms, biases, kernels of convolutions), as f32. Each is made when it is first asked for: they lie all
//! over the file, and a start from a cold disk must not read the whole file before it says that it is ready.

use crate::gguf::TensorView;
use crate::program::{Op, Program, WeightId};
use hearth_kernels::quant::decode;
use std::sync::OnceLock;

/// By [`WeightId`]; those of matrices stay empty.
pub struct Vectors {
    made: Vec<OnceLock<Vec<f32>>>,
    /// Channels of the kernels of short convolutions, `[channels, length]` in the file; of all others 0.
    channels: Vec<usize>,
}

impl Vectors {
    pub fn new(program: &Program) -> Vectors {
        let mut channels = vec![0; program.weights.len()];
        for step in &program.steps {
            if let Op::ShortConv { x, kernel, .. } = step.op {
                channels[kernel.0 as usize] = x.floats();
            }
        }
        Vectors { made: program.weights.iter().map(|_| OnceLock::new()).collect(), channels }
    }

    /// The numbers of weight `id`, which lies at `view`. A convolution's kernel is given as `[length, channels]`: channels lie side by
    /// side, as they do in the rows.
    pub fn get(&self, id: WeightId, view: &TensorView<'_>) -> &[f32] {
        self.made[id.0 as usize].get_or_init(|| {
            let mut numbers = vec![0.0; view.shape.iter().product()];
            decode(view.format, view.data, &mut numbers);
            match self.channels[id.0 as usize] {
                0 => numbers,
                channels => {
                    let length = numbers.len() / channels;
                    (0..numbers.len()).map(|i| numbers[i % channels * length + i / channels]).collect()
                }
            }
        })
    }
}
