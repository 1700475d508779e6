//! Peak speed of a model, as others measure it: a prompt in one request with the logits of its last token, then single tokens after it.
//! Loading is not part of it: a warm-up of 32 tokens in one batch and one single token goes first, and a file that lies in memory in
//! small pages is brought into huge ones where the system has them, as a daemon does by itself. What heat makes of the speed over
//! time is `sustained`'s question.

use super::session::{Session, SessionError, Wants};
use super::statistics::percentile;
use crate::backend::{Kind, LoadOptions, memory};
use crate::units::TokenId;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// At most so many prompts and so many single tokens each are run to choose numbers of threads.
const SETTLING_ROUNDS: usize = 8;
const SETTLING_TOKENS: usize = 24;
pub(super) const SETTLING_PROMPT: usize = 128;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prefill: usize,
    /// Tokens after it, one at a time (a batch of them, where several sequences run).
    pub decode: usize,
    /// Tokens in the cache beforehand, untimed.
    pub depth: usize,
    /// Sequences decoded together. The prompt's speed is the first one's.
    pub batch: usize,
    pub rounds: usize,
}

/// Medians over the rounds. Rates are tokens a second; of several sequences, all their tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// The file's name.
    pub model: String,
    pub prefill_tok_s: f64,
    pub decode_tok_s: f64,
    /// From the start of opening the file until the model can answer.
    pub load_ms: f64,
    /// From the same start until the first token after a prompt of 32.
    pub first_token_ms: f64,
    pub peak_rss_bytes: u64,
    pub backend: String,
    /// Such as the kernels' tier or a GPU's name.
    pub device: String,
    pub threads: usize,
    /// Of them, those used for the prompt and for the tokens after it.
    pub prefill_threads: usize,
    pub decode_threads: usize,
    /// How fast the file's bytes go by in decode: its size times tokens a second of one sequence. The embedding table counts though only
    /// a row of it is read, unless it is the output matrix too.
    pub read_gb_s: f64,
    /// Whether the file lay in memory in huge pages.
    pub huge_pages: bool,
    pub prefill_tokens: usize,
    pub decode_tokens: usize,
    pub depth: usize,
    pub batch: usize,
    pub rounds: usize,
}

/// The `i`th token that is fed to a model for its speed, of prompt or answer: any ids will do, but not all the same. One for ever would
/// have its row of the embedding in cache and ask the same experts again and again.
pub(super) fn token(i: usize, vocabulary: usize) -> TokenId {
    TokenId(((i * 7919 + 13) % vocabulary.min(4096)) as u32)
}

/// Between two reports while single tokens are decoded: one each would be felt by the smallest models.
const REPORT_EVERY: usize = 16;

/// Opens `path` and measures; `report` hears how many tokens are done, and of how many.
pub fn measure(
    path: &Path,
    kind: Kind,
    options: LoadOptions,
    work: &Workload,
    mut report: impl FnMut(u64, u64),
) -> Result<Speed, SessionError> {
    let start = Instant::now();
    let need = (work.depth + work.prefill + work.decode).max(SETTLING_PROMPT);
    let options = LoadOptions { context: options.context.max(need), rows: work.prefill.clamp(SETTLING_PROMPT, 512), ..options };
    let mut session = Session::open(path, kind, options, work.batch, &())?;
    let load_ms = start.elapsed().as_secs_f64() * 1e3;

    let vocabulary = session.vocabulary();
    let tokens: Vec<TokenId> = (0..need).map(|i| token(i, vocabulary)).collect();
    session.feed(0, &tokens[..32], Wants::Last(1))?;
    let first_token_ms = start.elapsed().as_secs_f64() * 1e3;
    session.feed(0, &tokens[..1], Wants::Last(1))?;
    let huge_pages = memory::holds(session.file.bytes()) && session.file.gather(&|| true)?;
    settle(&mut session, &tokens)?;

    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let per_round = work.batch * (work.depth + work.prefill) + work.decode;
    let mut done = 0;
    let mut tell = |tokens: usize| {
        done += tokens as u64;
        report(done, (per_round * work.rounds) as u64);
    };
    for _ in 0..work.rounds {
        session.reset();
        for sequence in 0..work.batch {
            session.feed(sequence, &tokens[..work.depth], Wants::Last(0))?;
            tell(work.depth);
        }
        let prompt = &tokens[work.depth..work.depth + work.prefill];
        for sequence in 0..work.batch {
            let start = Instant::now();
            session.feed(sequence, prompt, Wants::Last(1))?;
            if sequence == 0 {
                prefill.push(work.prefill as f64 / start.elapsed().as_secs_f64());
            }
            tell(work.prefill);
        }
        let start = Instant::now();
        let mut each = Vec::with_capacity(work.batch);
        for (i, &token) in tokens[work.depth + work.prefill..][..work.decode].iter().enumerate() {
            each.clear();
            each.resize(work.batch, token);
            session.feed_each(&each)?;
            if i % REPORT_EVERY == 0 {
                tell(REPORT_EVERY.min(work.decode - i));
            }
        }
        decode.push((work.decode * work.batch) as f64 / start.elapsed().as_secs_f64());
    }
    let decode_tok_s = if work.decode == 0 { 0.0 } else { percentile(&decode, 0.5) };
    let info = session.loaded.info();
    Ok(Speed {
        model: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        prefill_tok_s: if work.prefill == 0 { 0.0 } else { percentile(&prefill, 0.5) },
        decode_tok_s,
        load_ms,
        first_token_ms,
        peak_rss_bytes: peak_rss(),
        backend: info.backend.to_owned(),
        device: info.detail.clone(),
        threads: info.threads,
        prefill_threads: info.prefill_threads,
        decode_threads: info.decode_threads,
        read_gb_s: session.file.bytes() as f64 * decode_tok_s / work.batch as f64 / 1e9,
        huge_pages,
        prefill_tokens: work.prefill,
        decode_tokens: work.decode,
        depth: work.depth,
        batch: work.batch,
        rounds: work.rounds,
    })
}

/// Runs until the numbers of threads are chosen, where they are measured and not remembered: what comes after is timed with them.
/// `tokens`: [`SETTLING_PROMPT`] at least.
pub(super) fn settle(session: &mut Session, tokens: &[TokenId]) -> Result<(), SessionError> {
    for _ in 0..SETTLING_ROUNDS {
        if session.loaded.settled() {
            break;
        }
        session.reset();
        session.feed(0, &tokens[..SETTLING_PROMPT], Wants::Last(1))?;
        session.reset();
        for token in &tokens[..SETTLING_TOKENS] {
            session.feed(0, std::slice::from_ref(token), Wants::Last(1))?;
        }
    }
    Ok(())
}

/// The most memory this process ever had in use, file pages included: the kernel's own count.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_follow_each_other_differ_and_are_the_models() {
        for vocabulary in [2, 1000, 4096, 128_256] {
            let ids: Vec<TokenId> = (0..300).map(|i| token(i, vocabulary)).collect();
            assert!(ids.windows(2).all(|w| w[0] != w[1]) && ids.iter().all(|id| (id.0 as usize) < vocabulary), "{vocabulary}");
        }
    }

    #[test]
    fn this_process_has_used_some_memory() {
        assert!(peak_rss() > 1 << 20);
    }
}
