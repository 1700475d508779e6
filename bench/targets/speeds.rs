//! Prefill and decode of the 1B shape and of two small trained models, beside llama.cpp where it is at hand.
//!
//! The yardstick `lc` is llama.cpp without weight repacking on the Q4_K_M file, measured in the same round. Peers' other figures come
//! from one sheet, taken on a machine where `lc` was [`SHEET`]; they are scaled by what `lc` is here.

use crate::hearth::{HEARTH, Run, median};
use crate::machine;
use crate::peer::{Peer, Rate};
use crate::table::Table;
use std::path::{Path, PathBuf};

/// `lc` on the sheet: an AMD EPYC (Zen 5) with two virtual cores, llama.cpp of October 2026.
const SHEET: Rate = Rate { prefill: 382.0, decode: 44.0 };
pub const SHAPE: &str = "llama-3.2-1b";
/// File types with the best peer's decode on the sheet, where it is known.
const TYPES: [(&str, Option<f64>); 8] = [
    ("Q4_K_M", None),
    ("Q4_0", Some(50.1)),
    ("Q4_1", None),
    ("Q5_0", None),
    ("Q5_K_M", Some(31.1)),
    ("Q6_K", Some(39.5)),
    ("Q8_0", Some(31.0)),
    ("IQ4_XS", Some(48.9)),
];

pub struct Bench<'a> {
    pub table: &'a mut Table,
    pub peer: Result<&'a Peer, &'a str>,
    pub threads: usize,
    pub rounds: usize,
}

impl Bench<'_> {
    pub fn model(&self, file_type: &str) -> anyhow::Result<PathBuf> {
        machine::synthetic(Path::new(HEARTH), SHAPE, file_type, None)
    }

    /// Every type: prefill of 512 and decode of 64.
    pub fn types(&mut self) -> anyhow::Result<()> {
        let run = Run::on(self.threads);
        let models = TYPES.iter().map(|t| self.model(t.0)).collect::<anyhow::Result<Vec<_>>>()?;
        let vnni = run.bench(&models[0])?.device == "avx512vnni";
        let mut lc = Vec::new();
        let mut rates: Vec<Vec<Rate>> = vec![Vec::new(); TYPES.len()];
        let mut bandwidth = f64::MIN;
        for _ in 0..self.rounds {
            if let Ok(peer) = self.peer {
                lc.push(peer.bench(&run, &models[0], "off", None)?);
            }
            for (rates, model) in rates.iter_mut().zip(&models) {
                let speed = run.bench(model)?;
                rates.push(Rate { prefill: speed.prefill_tok_s, decode: speed.decode_tok_s });
            }
            bandwidth = bandwidth.max(machine::read_bandwidth(self.threads));
        }
        for ((&(name, sheet), rates), model) in TYPES.iter().zip(&rates).zip(&models) {
            let title = format!("{name}: prefill of 512, times lc's");
            match self.peer {
                _ if !vnni => self.table.skip(title, "this processor has no AVX-512 VNNI"),
                Err(why) => self.table.skip(title, why),
                Ok(_) => self.table.at_least(title, median(rates.iter().zip(&lc).map(|(r, lc)| r.prefill / lc.prefill)), 1.6, "×"),
            }
            let title = format!("{name}: decode of 64, times lc's");
            let target = if name == "Q4_K_M" { Some(1.17) } else { sheet.map(|best| 1.08 * best / SHEET.decode) };
            match (self.peer, target) {
                (_, None) => {}
                (Err(why), _) => self.table.skip(title, why),
                (Ok(_), Some(target)) => {
                    self.table.at_least(title, median(rates.iter().zip(&lc).map(|(r, lc)| r.decode / lc.decode)), target, "×");
                }
            }
            let read = median(rates.iter().map(|r| r.decode)) * std::fs::metadata(model)?.len() as f64 / 1e9;
            let share = if name == "Q8_0" { 0.92 } else { 0.88 };
            self.table.at_least(format!("{name}: file read in decode, GB/s"), read, share * bandwidth, "GB/s");
        }
        Ok(())
    }

    /// Long contexts, in both cache types.
    pub fn context(&mut self) -> anyhow::Result<()> {
        let model = self.model("Q4_K_M")?;
        let decode = |depth, kv| Run { prefill: 0, depth, kv, ..Run::on(self.threads) };
        let (f16, q8) = (decode(4096, "f16").bench(&model)?.decode_tok_s, decode(4096, "q8_0").bench(&model)?.decode_tok_s);
        let near = decode(128, "q8_0").bench(&model)?.decode_tok_s;
        self.table.at_least("decode at 4096 tokens of context, q8_0, times the same at 128", q8 / near, 0.85, "×");
        let long = Run { prefill: 4096, decode: 0, ..Run::on(self.threads) };
        match self.peer {
            Err(why) => {
                for name in ["decode at 4096 tokens of context, f16", "decode at 4096 tokens of context, q8_0", "prefill of 4096"] {
                    self.table.skip(format!("{name}, against lc"), why);
                }
            }
            Ok(peer) => {
                let lc = peer.bench(&Run::on(self.threads), &model, "off", None)?.decode;
                self.table.at_least("decode at 4096 tokens of context, f16, times lc's at 512", f16 / lc, 36.0 / SHEET.decode, "×");
                self.table.at_least("decode at 4096 tokens of context, q8_0, times lc's at 512", q8 / lc, 42.0 / SHEET.decode, "×");
                let ours = long.bench(&model)?.prefill_tok_s;
                self.table.at_least(
                    "prefill of 4096 in one request, times lc's",
                    ours / peer.bench(&long, &model, "off", None)?.prefill,
                    1.6,
                    "×",
                );
            }
        }
        Ok(())
    }

    /// Eight sequences decoded together.
    pub fn batch(&mut self) -> anyhow::Result<()> {
        let model = self.model("Q4_K_M")?;
        let run = |batch| Run { prefill: 64, batch, ..Run::on(self.threads) };
        let (one, eight) = (run(1).bench(&model)?.decode_tok_s, run(8).bench(&model)?.decode_tok_s);
        self.table.at_least("8 sequences together, times one sequence", eight / one, 3.0, "×");
        match self.peer {
            Err(why) => self.table.skip("8 sequences together, against lc", why),
            Ok(peer) => {
                let lc = peer.bench(&Run::on(self.threads), &model, "off", None)?.decode;
                self.table.at_least("8 sequences together, times lc's single decode", eight / lc, 150.0 / SHEET.decode, "×");
            }
        }
        Ok(())
    }

    /// A CPU without AVX-512. llama.cpp held to AVX2 is a build of its own, `$HEARTH_PEER_AVX2` its folder.
    pub fn avx2(&mut self) -> anyhow::Result<()> {
        let titles = ["AVX2 only, Q4_K_M: prefill of 512, times llama.cpp's", "AVX2 only, Q4_K_M: decode of 64, times llama.cpp's"];
        let library = std::env::var("HEARTH_PEER_AVX2").map_err(|_| "no llama.cpp held to AVX2: set HEARTH_PEER_AVX2 to the folder of one");
        let (peer, library) = match (self.peer, library.as_deref()) {
            (Ok(peer), Ok(library)) => (peer, library),
            (Err(why), _) | (_, Err(&why)) => {
                titles.iter().for_each(|t| self.table.skip(t, why));
                return Ok(());
            }
        };
        let model = self.model("Q4_K_M")?;
        let run = Run { tier: Some("avx2"), ..Run::on(self.threads) };
        let (ours, theirs) = (run.bench(&model)?, peer.bench(&run, &model, "both", Some(library))?);
        self.table.at_least(titles[0], ours.prefill_tok_s / theirs.prefill, 1.6, "×");
        self.table.at_least(titles[1], ours.decode_tok_s / theirs.decode, 1.1, "×");
        Ok(())
    }

    /// More threads than cores, and a busy neighbour.
    pub fn threads(&mut self) -> anyhow::Result<()> {
        let model = self.model("Q4_K_M")?;
        let run = Run { prefill: 64, ..Run::on(self.threads) };
        let twice = Run { threads: 2 * self.threads, ..run };
        let (mut crowded, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let quiet = run.bench(&model)?.decode_tok_s;
            crowded.push(twice.bench(&model)?.decode_tok_s / quiet);
            beside.push(with_a_busy_neighbour(|| run.bench(&model))?.decode_tok_s / quiet);
        }
        let title = format!("{} threads, decode, times that of {}", twice.threads, run.threads);
        self.table.at_least(title, median(crowded), 0.93, "×");
        self.table.at_least("one busy process beside, decode, times the quiet speed", median(beside), 0.62, "×");
        Ok(())
    }

    /// Two small trained models, against the better of llama.cpp's ways.
    pub fn small(&mut self) -> anyhow::Result<()> {
        for (name, variable) in [("SmolLM2-135M Q4_1", "HEARTH_SMOLLM2"), ("gemma-3-270m Q4_K_M", "HEARTH_GEMMA3")] {
            let titles = [format!("{name}: prefill of 512, times llama.cpp's"), format!("{name}: decode of 64, times llama.cpp's")];
            let missing = format!("set {variable} to its path");
            let (peer, model) = match (self.peer, std::env::var_os(variable)) {
                (Ok(peer), Some(model)) => (peer, PathBuf::from(model)),
                (Err(why), _) => {
                    titles.iter().for_each(|t| self.table.skip(t, why));
                    continue;
                }
                (_, None) => {
                    titles.iter().for_each(|t| self.table.skip(t, &missing));
                    continue;
                }
            };
            let run = Run::on(self.threads);
            let (mut prefill, mut decode) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                let (ours, theirs) = (run.bench(&model)?, peer.bench(&run, &model, "both", None)?);
                prefill.push(ours.prefill_tok_s / theirs.prefill);
                decode.push(ours.decode_tok_s / theirs.decode);
            }
            self.table.at_least(&titles[0], median(prefill), 1.4, "×");
            self.table.at_least(&titles[1], median(decode), 1.1, "×");
        }
        Ok(())
    }
}

/// Runs `f` while one thread of this process, another one than the measured, computes without a pause.
fn with_a_busy_neighbour<T>(f: impl FnOnce() -> T) -> T {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let result = f();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    })
}
