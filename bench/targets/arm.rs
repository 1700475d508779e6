//! Instructions that ARM64 processors would execute, counted under an emulator (`cross/count-instructions`): the one figure about a
//! board that needs no board. The shape is cut to one and to two layers; the difference is one whole layer, without start-up, embedding
//! and output. Beside it, what a scheduling model says of the compiled micro-kernels (`cross/check-micro-kernels`).

use crate::hearth::HEARTH;
use crate::machine;
use crate::speeds::{Bench, SHAPE};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A type whose layers are all of one format, and what to reach: instructions per 1000 multiply-accumulates of a batch of 128 tokens,
/// and per 256 weights of a single one.
struct Target {
    cpu: &'static str,
    file_type: &'static str,
    prefill: Option<f64>,
    decode: Option<f64>,
}

const fn target(cpu: &'static str, file_type: &'static str, prefill: Option<f64>, decode: Option<f64>) -> Target {
    Target { cpu, file_type, prefill, decode }
}

const TARGETS: [Target; 10] = [
    target("cortex-a76", "Q4_K_S", Some(108.0), Some(105.0)),
    target("cortex-a76", "Q6_K", Some(108.0), Some(130.0)),
    target("cortex-a76", "Q4_0", Some(108.0), Some(75.0)),
    target("cortex-a76", "Q8_0", Some(108.0), Some(55.0)),
    target("cortex-a76", "Q5_0", Some(108.0), None),
    target("cortex-a76", "Q4_1", Some(108.0), None),
    target("cortex-a72", "Q4_K_S", Some(285.0), Some(132.0)),
    target("cortex-a72", "Q4_0", Some(285.0), Some(132.0)),
    target("max,sve=off", "Q4_K_S", Some(75.0), None),
    target("max,sve=off", "Q4_0", Some(75.0), None),
];
/// Weights of one layer of the shape: q and output, k and v, gate and up and down.
const LAYER_WEIGHTS: f64 = (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192) as f64;
const BATCH: f64 = 128.0;
const SINGLE: f64 = 16.0;

pub fn instructions(bench: &mut Bench) -> anyhow::Result<()> {
    match Counter::find() {
        Ok(counter) => counter.count_all(bench)?,
        Err(why) => bench.table.skip("ARM64: instructions in prefill and decode", why),
    }
    micro_kernels(bench)
}

/// The script prints a line a micro-kernel, for ARM64 with its share and the least share; or why it cannot. Its status is the verdict.
fn micro_kernels(bench: &mut Bench) -> anyhow::Result<()> {
    let title = "prefill micro-kernels as compiled";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cross/check-micro-kernels");
    let run = Command::new(&script).output().with_context(|| script.display().to_string())?;
    let said = String::from_utf8_lossy(&run.stdout);
    for line in said.lines() {
        // `sdot on neoverse-n1: … bound 160: 99 % (at least 85)`
        let number = |text: &str| text.split_whitespace().find_map(|word| word.trim_end_matches(')').parse::<f64>().ok());
        if let Some(why) = line.strip_prefix("SKIPPED: ") {
            bench.table.skip(title, why);
        } else if let (Some((kernel, _)), Some((is, least))) =
            (line.split_once(": "), line.rsplit_once(": ").and_then(|(_, end)| end.split_once(" % ")))
        {
            let (is, least) = (number(is).context("a share")?, number(least).context("a least share")?);
            bench.table.at_least(format!("{title}: {kernel}, by llvm-mca"), is, least, "% of the pipe that binds");
        } else {
            println!("         {line}");
        }
    }
    let spills = f64::from(u8::from(!run.status.success()));
    bench.table.at_most(format!("{title}: checks failed (spilled registers, missing loops)"), spills, 0.0, "");
    Ok(())
}

struct Counter {
    script: PathBuf,
    hearth: PathBuf,
}

impl Counter {
    fn find() -> Result<Counter, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), PathBuf::from);
        let hearth = target.join("aarch64-unknown-linux-gnu/release/hearth");
        match () {
            () if Command::new("qemu-aarch64").arg("--version").output().is_err() => Err("qemu-user is not installed".to_owned()),
            () if !hearth.exists() => Err("no ARM64 build: run `make cross` first".to_owned()),
            () => Ok(Counter { script: here.join("cross/count-instructions"), hearth }),
        }
    }

    fn count_all(&self, bench: &mut Bench) -> anyhow::Result<()> {
        for t in &TARGETS {
            let model = |layers| machine::synthetic(Path::new(HEARTH), SHAPE, t.file_type, Some((layers, 4096)));
            let (one, two) = (model(1)?, model(2)?);
            if let Some(target) = t.prefill {
                // One batch more, so what a batch pays once is counted too.
                let batch = |m: &Path| self.more(t.cpu, m, ["-p", "128", "-n", "0", "-r", "1"], ["-p", "128", "-n", "0", "-r", "2"]);
                let layer = batch(&two)? - batch(&one)?;
                let title = format!("{} {}: instructions per 1000 multiply-accumulates, prefill", t.cpu, t.file_type);
                bench.table.at_most(title, layer / (LAYER_WEIGHTS * BATCH) * 1000.0, target, "");
            }
            if let Some(target) = t.decode {
                let single = |m: &Path| self.more(t.cpu, m, ["-p", "32", "-n", "8", "-r", "1"], ["-p", "32", "-n", "24", "-r", "1"]);
                let layer = single(&two)? - single(&one)?;
                let title = format!("{} {}: instructions per 256 weights, decode", t.cpu, t.file_type);
                bench.table.at_most(title, layer / (LAYER_WEIGHTS * SINGLE) * 256.0, target, "");
            }
        }
        Ok(())
    }

    /// Instructions of `hearth bench` with options `b` beyond those with options `a`.
    fn more(&self, cpu: &str, model: &Path, a: [&str; 6], b: [&str; 6]) -> anyhow::Result<f64> {
        Ok(self.count(cpu, model, b)? - self.count(cpu, model, a)?)
    }

    fn count(&self, cpu: &str, model: &Path, options: [&str; 6]) -> anyhow::Result<f64> {
        let mut command = Command::new(&self.script);
        command.arg(cpu).arg(&self.hearth).args(["bench", "-t", "1", "-m"]).arg(model).args(options);
        let run = command.output().with_context(|| format!("{command:?}"))?;
        let text = String::from_utf8_lossy(&run.stdout);
        text.trim().parse().with_context(|| format!("{command:?} gave no count: {}", String::from_utf8_lossy(&run.stderr)))
    }
}
