//! Programs on the CPU: the kernels' best tier, and one crew of threads. Weights are read where they lie in the mapped file.
//!
//! - `schedule`: a program as stages with as few meeting points as its data flow allows; `places`: where its values lie meanwhile.
//! - [`pool`], [`cores`]: the crew, and where it may run (`spread`: each on a core of its own; `losses`: or not); `counts`, `remembered`:
//!   how many of it compute what.
//! - `running`: a loaded model, with the slots of its sequences; `step`: the rows of one step; `plan`: how its stages are cut; `walk`: the
//!   crew's way through them; then what stages consist of: `products`, `attention`, `recurrent`, `experts`, and `rowwise` for all that goes
//!   row by row. `feeds` says which activations products want, `vectors` has the weights that are no matrices.
//! - `cache`: keys and values; `arena`: memory that threads share; `prefetch`: the file's way into memory.

mod arena;
mod attention;
mod cache;
pub mod cores;
mod counts;
mod experts;
mod feeds;
mod losses;
mod places;
mod plan;
pub mod pool;
mod prefetch;
mod products;
mod recurrent;
mod remembered;
mod rowwise;
mod running;
mod schedule;
mod spread;
mod step;
mod vectors;
mod walk;

use super::{Backend, DeviceInfo, Fit, LoadError, LoadOptions, Loaded, Progress, memory};
use crate::gguf::Gguf;
use crate::program::{Program, Role};
use crate::units::Bytes;
use cores::Cores;
use experts::MixtureMemory;
use hearth_kernels::cpu::{Kernels, Tier};
use places::Places;
use schedule::Schedule;
use std::sync::Arc;

pub struct Cpu {
    info: DeviceInfo,
    cores: Cores,
    kernels: Kernels,
}

impl Cpu {
    /// With the kernels of this machine's best tier, or of the lower one that `HEARTH_CPU` names.
    pub fn new() -> Result<Self, LoadError> {
        let tier = Tier::from_environment()?;
        Ok(Self::with_tier(tier).expect("a tier from the environment is available"))
    }

    /// With the kernels of one tier; `None` where this CPU lacks it.
    pub fn with_tier(tier: Tier) -> Option<Self> {
        let cores = Cores::of_this_machine();
        let kernels = Kernels::for_tier(tier)?;
        let threads = cores.workers();
        let detail = tier.name().to_owned();
        let info = DeviceInfo { backend: "cpu", detail, threads, decode_threads: threads, prefill_threads: threads };
        Some(Self { info, cores, kernels })
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
        // Which products read numbers as they are is known with the file: here all of them, which is close to the most.
        let places = Places::new(program, &Schedule::new(program), &[], &|_| true, &[]);
        Fit {
            weights: Bytes((held * 4) as u64),
            cache: Bytes((cache::bytes(program, options.kv, options.blocks) + program.slot_floats() * 4 * options.slots) as u64),
            scratch: Bytes((places.floats(options.rows, 1) * 4 + MixtureMemory::fit(program, options.rows)) as u64),
        }
    }

    fn load(
        &self,
        program: Arc<Program>,
        file: Arc<Gguf>,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Loaded>, LoadError> {
        // They are mapped, not filled: without this the system would end us in the middle of an answer.
        memory::check_caches(self.fit(&program, options).cache)?;
        Ok(Box::new(running::Running::load(program, file, options, self.kernels.clone(), &self.cores, self.info.clone(), progress)?))
    }
}
