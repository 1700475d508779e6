//! The oracle: every operation as its formula, in f32 with sums in f64, one thread, weights decoded row by row from the file. Written to
//! be read and trusted; the other backends are held to it. It refuses no operation.
//!
//! - `ops`: the formulas on slices.
//! - `cache`: keys and values in blocks, and slots.
//! - `run`: a step through the program.

mod cache;
pub(super) mod ops;
mod run;

use super::{Backend, DeviceInfo, Fit, LoadError, LoadOptions, Loaded, Progress, memory};
use crate::gguf::Gguf;
use crate::program::{Program, Role, plan};
use crate::units::Bytes;
use std::sync::Arc;

pub struct Plain {
    info: DeviceInfo,
}

impl Plain {
    pub fn new() -> Self {
        Self {
            info: DeviceInfo { backend: "plain", detail: "formulas, one thread".into(), threads: 1, decode_threads: 1, prefill_threads: 1 },
        }
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Plain {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// `weights` counts what is held besides the mapped file.
    fn fit(&self, program: &Program, options: &LoadOptions) -> Fit {
        let vectors = program.weights.iter().filter(|w| w.role == Role::Vector);
        let held: usize = vectors.map(|w| w.shape.iter().product::<usize>()).sum();
        Fit {
            weights: Bytes((held * 4) as u64),
            cache: Bytes(cache::bytes(program, options)),
            scratch: Bytes((plan(program).floats(options.rows, options.rows) * 4) as u64),
        }
    }

    fn load(
        &self,
        program: Arc<Program>,
        file: Arc<Gguf>,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Loaded>, LoadError> {
        let total = file.bytes();
        if !progress.loaded(0, total) {
            return Err(LoadError::Cancelled);
        }
        memory::check_caches(self.fit(&program, options).cache)?;
        let running = run::Running::new(program, file, options, self.info.clone())?;
        if !progress.loaded(total, total) {
            return Err(LoadError::Cancelled);
        }
        Ok(Box::new(running))
    }
}
