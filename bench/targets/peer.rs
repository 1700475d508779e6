//! llama.cpp, driven by the side-by-side tool that stands beside the checkout (`../shared/tools/vs-llama.py`, or under
//! `$HEARTH_SHARED`) with the Python that has its libraries (`$HEARTH_PEER_PYTHON`). Without either, rows relative to it are skipped.

use crate::hearth::{Run, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Peer {
    python: PathBuf,
    tool: PathBuf,
}

/// Tokens a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub prefill: f64,
    pub decode: f64,
}

impl Peer {
    /// The peer, or why there is none.
    pub fn find() -> Result<Peer, String> {
        let python = std::env::var_os("HEARTH_PEER_PYTHON")
            .ok_or("no llama.cpp: set HEARTH_PEER_PYTHON to a Python that has llama-cpp-python and numpy")?;
        let tool = shared().join("tools/vs-llama.py");
        if !tool.exists() {
            return Err(format!("no llama.cpp: {} is missing", tool.display()));
        }
        Ok(Peer { python: python.into(), tool })
    }

    /// One measurement. `repack`: `off` (the sheet's yardstick), `on`, or `both` (of each rate the better).
    pub fn bench(&self, run: &Run, model: &Path, repack: &str, library: Option<&str>) -> anyhow::Result<Rate> {
        let mut command = Command::new(&self.python);
        command.arg(&self.tool).args(["--peer-only", "--json", "-r", "1", "--repack", repack, "--kv", run.kv, "-m"]).arg(model);
        for (option, value) in [("-p", run.prefill), ("-n", run.decode), ("--depth", run.depth), ("-t", run.threads)] {
            command.args([option, &value.to_string()]);
        }
        if let Some(library) = library {
            command.env("LLAMA_CPP_LIB_PATH", library);
        }
        let json: Value = serde_json::from_str(&output(&mut command)?)?;
        let engines = json["engines"].as_object().into_iter().flatten();
        let best = |key: &str| engines.clone().filter_map(|(_, e)| e[key]["median"].as_f64()).fold(0.0, f64::max);
        Ok(Rate { prefill: best("prefill_tok_s"), decode: best("decode_tok_s") })
    }

    /// llama.cpp's logits after the last of `tokens`.
    pub fn logits(&self, model: &Path, tokens: &str) -> anyhow::Result<Vec<f64>> {
        let out = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&self.python);
        command.arg(&self.tool).args(["--peer-only", "--logits", tokens, "-m"]).arg(model).arg("--out").arg(out.path());
        output(&mut command)?;
        let json: Value = serde_json::from_slice(&std::fs::read(out.path())?)?;
        Ok(serde_json::from_value(json["logits"].clone())?)
    }
}

/// The folder of measuring tools beside the checkout.
pub fn shared() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    std::env::var_os("HEARTH_SHARED").map_or_else(beside, PathBuf::from)
}
