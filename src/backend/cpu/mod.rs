//! Programs on the CPU: the kernels' best tier, and one crew of threads. Weights are read where they lie in the mapped file.
//!
//! - `schedule`: a program as stages with as few meeting points as its data flow allows.
//! - [`pool`], [`cores`]: the crew, and where it may run.
//! - `running`: a loaded model; `step`: the rows of one step; then what stages consist of: `products`, `attention`, `recurrent`,
//!   `experts`, and `rowwise` for all that goes row by row.
//! - `cache`: keys, values and slots; `arena`: memory that threads share.

mod arena;
mod attention;
mod cache;
pub mod cores;
mod experts;
pub mod pool;
mod products;
mod recurrent;
mod rowwise;
mod running;
mod schedule;
mod step;

use super::{Backend, DeviceInfo, Fit, LoadError, LoadOptions, Loaded, Progress};
use crate::gguf::Gguf;
use crate::program::{Program, Role};
use crate::units::Bytes;
use cores::Cores;
use schedule::Schedule;
use std::sync::Arc;

pub struct Cpu {
    info: DeviceInfo,
    cores: Cores,
}

impl Cpu {
    pub fn new() -> Self {
        let cores = Cores::of_this_machine();
        Self { info: DeviceInfo { backend: "cpu", detail: String::new(), threads: cores.workers() }, cores }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Cpu {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// `weights` counts what is held besides the mapped file.
    fn fit(&self, program: &Program, options: &LoadOptions) -> Fit {
        let vectors = program.weights.iter().filter(|w| w.role == Role::Vector);
        let held: usize = vectors.map(|w| w.shape.iter().product::<usize>()).sum();
        let schedule = Schedule::new(program);
        Fit {
            weights: Bytes((held * 4) as u64),
            cache: Bytes((cache::bytes(program, options.kv, options.blocks) + program.slot_floats() * 4 * options.slots) as u64),
            scratch: Bytes((schedule.floats(options.rows, 1) * 4) as u64),
        }
    }

    fn load(&self, program: Arc<Program>, file: Arc<Gguf>, options: &LoadOptions, progress: &dyn Progress) -> Result<Box<dyn Loaded>, LoadError> {
        Ok(Box::new(running::Running::load(program, file, options, &self.cores, progress)?))
    }
}
