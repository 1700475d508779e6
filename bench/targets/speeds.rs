//! Prefill and decode of the 1B shape and of two small trained models, beside llama.cpp where it is at hand.
//!
//! The yardstick `lc` is llama.cpp without weight repacking on the Q4_K_M file, measured in the same round. Peers' other figures come
//! from one sheet, taken on a machine where `lc` was [`SHEET`]; they are scaled by what `lc` is here.

use crate::hearth::{HEARTH, Run, output};
use crate::machine;
use crate::peer::{Peer, Rate};
use crate::table::{Figure, Table};
use std::path::{Path, PathBuf};
use std::process::Command;

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
        // Read just before and after each run: where strangers use the memory too, it moves within seconds.
        let mut bandwidth: Vec<Vec<f64>> = vec![Vec::new(); TYPES.len()];
        let mut of_file: Vec<Vec<f64>> = vec![Vec::new(); TYPES.len()];
        let mut in_huge_pages = [0; TYPES.len()];
        for round in 0..self.rounds {
            // Every other round the other way round: a machine that warms up, or a neighbour that comes, favours nobody.
            let mut order: Vec<usize> = (0..TYPES.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            if let Ok(peer) = self.peer {
                lc.push(peer.bench(&run, &models[0], "off", None)?);
            }
            for i in order {
                let before = machine::read_bandwidth(self.threads);
                let speed = run.bench(&models[i])?;
                bandwidth[i].push((before + machine::read_bandwidth(self.threads)) / 2.0);
                of_file[i].push(machine::file_bandwidth(&models[i], self.threads)?);
                rates[i].push(Rate { prefill: speed.prefill_tok_s, decode: speed.decode_tok_s });
                in_huge_pages[i] += usize::from(speed.huge_pages);
            }
        }
        self.table.tell(
            format!("read bandwidth of {} threads, two streams each", self.threads),
            Figure::from_iter(bandwidth.iter().flatten().copied()),
            "GB/s",
        );
        if self.peer.is_ok() {
            self.table.tell(
                "lc: llama.cpp without repacking, Q4_K_M, prefill of 512",
                Figure::from_iter(lc.iter().map(|r| r.prefill)),
                "tok/s",
            );
            self.table.tell("lc: the same, decode of 64", Figure::from_iter(lc.iter().map(|r| r.decode)), "tok/s");
        }
        for (i, &(name, sheet)) in TYPES.iter().enumerate() {
            let (rates, model, bandwidth) = (&rates[i], &models[i], &bandwidth[i]);
            self.table.tell(format!("{name}: prefill of 512"), Figure::from_iter(rates.iter().map(|r| r.prefill)), "tok/s");
            self.table.tell(format!("{name}: decode of 64"), Figure::from_iter(rates.iter().map(|r| r.decode)), "tok/s");
            let title = format!("{name}: prefill of 512, times lc's");
            match self.peer {
                _ if !vnni => self.table.skip(title, "this processor has no AVX-512 VNNI"),
                Err(why) => self.table.skip(title, why),
                Ok(_) => {
                    self.table.at_least(title, Figure::from_iter(rates.iter().zip(&lc).map(|(r, lc)| r.prefill / lc.prefill)), 1.6, "×")
                }
            }
            let title = format!("{name}: decode of 64, times lc's");
            let target = if name == "Q4_K_M" { Some(1.17) } else { sheet.map(|best| 1.08 * best / SHEET.decode) };
            match (self.peer, target) {
                (_, None) => {}
                (Err(why), _) => self.table.skip(title, why),
                (Ok(_), Some(target)) => {
                    self.table.at_least(title, Figure::from_iter(rates.iter().zip(&lc).map(|(r, lc)| r.decode / lc.decode)), target, "×");
                }
            }
            let bytes = std::fs::metadata(model)?.len() as f64;
            let read = rates.iter().map(|r| r.decode * bytes / 1e9);
            self.table.tell(format!("{name}: file read in decode"), Figure::from_iter(read.clone()), "GB/s");
            if in_huge_pages[i] < self.rounds {
                // Where memory is in pieces, or the system has none for files: a tenth to a third slower.
                let small = (self.rounds - in_huge_pages[i]) as f64;
                self.table.tell(format!("{name}: rounds in which the file lay in small pages"), small, "");
            }
            self.table.tell(
                format!("{name}: the same file read by loads alone, after it"),
                Figure::from_iter(of_file[i].iter().copied()),
                "GB/s",
            );
            let share = Figure::from_iter(read.zip(bandwidth).map(|(read, bandwidth)| read / bandwidth));
            let title = format!("{name}: file read in decode, times the read bandwidth around it");
            self.table.at_least(title, share, if name == "Q8_0" { 0.92 } else { 0.88 }, "×");
        }
        Ok(())
    }

    /// Long contexts, in both cache types, and a long prompt.
    pub fn context(&mut self) -> anyhow::Result<()> {
        let model = self.model("Q4_K_M")?;
        let decode = |depth, kv| Run { prefill: 0, depth, kv, ..Run::on(self.threads) };
        let prompt = |tokens| Run { prefill: tokens, decode: 0, ..Run::on(self.threads) };
        let mut ours: Vec<[f64; 5]> = Vec::new();
        let mut lc = Vec::new();
        for _ in 0..self.rounds {
            if let Ok(peer) = self.peer {
                let near = peer.bench(&Run::on(self.threads), &model, "off", None)?.decode;
                lc.push((near, peer.bench(&prompt(4096), &model, "off", None)?.prefill));
            }
            ours.push([
                decode(4096, "f16").bench(&model)?.decode_tok_s,
                decode(4096, "q8_0").bench(&model)?.decode_tok_s,
                decode(128, "q8_0").bench(&model)?.decode_tok_s,
                prompt(4096).bench(&model)?.prefill_tok_s,
                prompt(512).bench(&model)?.prefill_tok_s,
            ]);
        }
        let titles = ["decode at 4096 tokens of context, f16", "decode at 4096 tokens of context, q8_0", "prefill of 4096 in one request"];
        for (i, title) in [(0, titles[0]), (1, titles[1]), (3, titles[2])] {
            self.table.tell(title, Figure::from_iter(ours.iter().map(|o| o[i])), "tok/s");
        }
        let share = Figure::from_iter(ours.iter().map(|o| o[1] / o[2]));
        self.table.at_least("decode at 4096 tokens of context, q8_0, times the same at 128", share, 0.85, "×");
        // Of one token: what attention multiplies at the mean depth, beside what the layers do.
        let grown = Figure::from_iter(ours.iter().map(|o| o[4] / o[3]));
        self.table.at_most("prefill of 4096, time a token, times that of 512", grown, attention_share(4096) / attention_share(512), "×");
        match self.peer {
            Err(why) => titles.iter().for_each(|title| self.table.skip(format!("{title}, against lc"), why)),
            Ok(_) => {
                let against = |i: usize| Figure::from_iter(ours.iter().zip(&lc).map(move |(o, lc)| o[i] / lc.0));
                self.table.at_least(format!("{}, times lc's at 512", titles[0]), against(0), 36.0 / SHEET.decode, "×");
                self.table.at_least(format!("{}, times lc's at 512", titles[1]), against(1), 42.0 / SHEET.decode, "×");
                let long = Figure::from_iter(ours.iter().zip(&lc).map(|(o, lc)| o[3] / lc.1));
                self.table.at_least(format!("{}, times lc's", titles[2]), long, 1.6, "×");
            }
        }
        Ok(())
    }

    /// Eight sequences decoded together.
    pub fn batch(&mut self) -> anyhow::Result<()> {
        let model = self.model("Q4_K_M")?;
        let run = |batch| Run { prefill: 64, batch, ..Run::on(self.threads) };
        let (mut alone, mut together, mut against) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let (one, eight) = (run(1).bench(&model)?.decode_tok_s, run(8).bench(&model)?.decode_tok_s);
            alone.push(eight / one);
            together.push(eight);
            if let Ok(peer) = self.peer {
                against.push(eight / peer.bench(&Run::on(self.threads), &model, "off", None)?.decode);
            }
        }
        self.table.tell("8 sequences together", Figure::from_iter(together), "tok/s");
        self.table.at_least("8 sequences together, times one sequence", Figure::from_iter(alone), 3.0, "×");
        let title = "8 sequences together, times lc's single decode";
        match self.peer {
            Err(why) => self.table.skip(title, why),
            Ok(_) => self.table.at_least(title, Figure::from_iter(against), 150.0 / SHEET.decode, "×"),
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
        let (mut prefill, mut decode) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let (ours, theirs) = (run.bench(&model)?, peer.bench(&run, &model, "both", Some(library))?);
            prefill.push(ours.prefill_tok_s / theirs.prefill);
            decode.push(ours.decode_tok_s / theirs.decode);
        }
        self.table.at_least(titles[0], Figure::from_iter(prefill), 1.6, "×");
        self.table.at_least(titles[1], Figure::from_iter(decode), 1.1, "×");
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
        self.table.at_least(title, Figure::from_iter(crowded), 0.93, "×");
        self.table.at_least("one busy process beside, decode, times the quiet speed", Figure::from_iter(beside), 0.62, "×");
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
            self.table.at_least(&titles[0], Figure::from_iter(prefill), 1.4, "×");
            self.table.at_least(&titles[1], Figure::from_iter(decode), 1.1, "×");
        }
        Ok(())
    }

    /// What sampling, detokenizing and the loop around a step cost: `hearth run` beside the bare steps of `hearth bench`, on the model
    /// with the largest vocabulary at hand.
    pub fn around(&mut self) -> anyhow::Result<()> {
        let title = "gemma-3-270m (262k words): decode with sampling and text, times bare steps";
        let Some(model) = std::env::var_os("HEARTH_GEMMA3").map(PathBuf::from) else {
            self.table.skip(title, "set HEARTH_GEMMA3 to its path");
            return Ok(());
        };
        let bare = Run { prefill: 16, decode: 128, ..Run::on(self.threads) };
        let mut shares = Vec::new();
        for _ in 0..2 * self.rounds {
            let spoken = crate::hearth::answer(&model, self.threads, 128)?;
            shares.push(spoken / bare.bench(&model)?.decode_tok_s);
        }
        self.table.at_least(title, Figure::from_iter(shares), 0.98, "×");
        Ok(())
    }

    /// Single kernels beside the limits of one thread, in GB/s and GMAC/s: the kernels' own bench, a few of its lines.
    pub fn kernels(&mut self) -> anyhow::Result<()> {
        for words in [["prefill", "q4_k"], ["decode", "q4_k"], ["decode", "q6_k"], ["decode", "q8_0"], ["few", "q4_k"]] {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.args(["bench", "-q", "-p", "hearth-kernels", "--bench", "kernels", "--"]).args(words);
            output(&mut command)?.lines().for_each(|line| println!("         {line}"));
        }
        Ok(())
    }
}

/// Multiply-accumulates of a prompt of `tokens`, a token, as a multiple of the layers' alone: each token sees half the prompt on the
/// average; scores and sums are `2 · heads · head_dim` a position and layer. Attention runs on floats, which this machine computes at
/// a quarter of its int8 rate.
fn attention_share(tokens: usize) -> f64 {
    const LAYERS: f64 = 16.0;
    const LAYER: f64 = (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192) as f64;
    const FLOAT_COST: f64 = 4.0;
    1.0 + FLOAT_COST * LAYERS * (2 * 2048) as f64 * tokens as f64 / 2.0 / (LAYERS * LAYER)
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
