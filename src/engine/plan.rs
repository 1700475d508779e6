//! Which rows go into the next step: every answer's one row, then prompts in chunks beside them, all prompts alike.
//!
//! A chunk's size is a matter of time, not of rows: between two tokens of a running answer nobody wants to wait longer than
//! [`BESIDE`], and a stop or a reader that goes away is noticed only between steps, so even a prompt alone is cut after [`ALONE`].
//! The time a row takes is measured as the engine goes.

use crate::backend::ALIKE;
use std::time::Duration;

/// How long answers may be held up by a chunk of somebody else's prompt. A guess at what still reads as flowing.
const BESIDE: Duration = Duration::from_millis(300);
/// How long one step may take at all: a stopping daemon has two seconds for everything.
const ALONE: Duration = Duration::from_millis(1200);
/// Prompt rows in a step beside answers: more gain nothing there, the weights' unpacking is paid for.
const MOST_BESIDE: usize = 128;
/// Before anything is measured: short even on a slow board, long enough to measure.
const FIRST: usize = 32;
/// The time's share of rows is rounded to whole multiples of this, and never less.
const GRAIN: usize = 16;
/// One sequence that could be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Rows to compute before its next token, at least one.
    pub pending: usize,
    /// Whether that one row continues an answer.
    pub answering: bool,
    /// Whether it is to be computed the same way every time.
    pub repeatable: bool,
}

/// What a prompt row costs, as last seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pacer {
    row_seconds: Option<f64>,
}

impl Pacer {
    /// A step with this many prompt rows took so long.
    pub fn measured(&mut self, prompt_rows: usize, time: Duration) {
        if prompt_rows >= GRAIN {
            let now = time.as_secs_f64() / prompt_rows as f64;
            self.row_seconds = Some(self.row_seconds.map_or(now, |before| (before + now) / 2.0));
        }
    }

    /// Most prompt rows for a step, alone or beside answers.
    pub fn chunk(&self, answers: bool, rows: usize) -> usize {
        let (time, most) = if answers { (BESIDE, MOST_BESIDE.min(rows)) } else { (ALONE, rows) };
        let fitting = match self.row_seconds {
            None => FIRST,
            Some(cost) => (time.as_secs_f64() / cost.max(1e-9)) as usize / GRAIN * GRAIN,
        };
        fitting.max(GRAIN).min(most)
    }
}

/// How many rows each sequence gets: answers their one, prompts an equal share of `chunk`, what one leaves going to the next.
/// Never more than `rows` together, and `most` of prompts; for a repeatable prompt's sake (see [`ALIKE`]) `chunk` may be exceeded by less
/// than [`ALIKE`].
pub fn share(work: &[Work], chunk: usize, most: usize, rows: usize, given: &mut Vec<usize>) {
    given.clear();
    given.resize(work.len(), 0);
    let mut left = rows;
    for (w, g) in work.iter().zip(given.iter_mut()).filter(|(w, _)| w.answering) {
        *g = w.pending.min(left);
        left -= *g;
    }
    let mut chunk = chunk.min(most).min(left);
    let most = most.min(left);
    let mut open: Vec<usize> = (0..work.len()).filter(|&i| !work[i].answering).collect();
    while chunk > 0 && !open.is_empty() {
        let share = (chunk / open.len()).max(1);
        for &i in &open {
            let more = share.min(work[i].pending - given[i]).min(chunk);
            given[i] += more;
            chunk -= more;
        }
        open.retain(|&i| given[i] < work[i].pending);
    }
    leave_no_rest(work, most, given);
}

/// Gives a repeatable prompt its last few rows too, or else leaves it enough of them for a chunk. At most `most` rows of prompts.
fn leave_no_rest(work: &[Work], most: usize, given: &mut [usize]) {
    let prompts = || work.iter().enumerate().filter(|(_, w)| !w.answering);
    let mut left = (most - prompts().map(|(i, _)| given[i]).sum::<usize>()).min(ALIKE - 1);
    for (i, w) in prompts().filter(|(_, w)| w.repeatable) {
        let g = &mut given[i];
        let rest = w.pending - *g;
        if *g > 0 && (1..ALIKE).contains(&rest) {
            if rest <= left {
                *g += rest;
                left -= rest;
            } else if *g >= 2 * ALIKE {
                *g -= ALIKE - rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(pending: usize) -> Work {
        Work { pending, answering: false, repeatable: false }
    }

    fn seeded(pending: usize) -> Work {
        Work { repeatable: true, ..prompt(pending) }
    }

    const ANSWER: Work = Work { pending: 1, answering: true, repeatable: false };

    fn shared(work: &[Work], chunk: usize, rows: usize) -> Vec<usize> {
        let mut given = Vec::new();
        share(work, chunk, usize::MAX, rows, &mut given);
        given
    }

    #[test]
    fn answers_come_first_and_prompts_share_alike() {
        assert_eq!(shared(&[prompt(1000), ANSWER, ANSWER], 128, 512), [128, 1, 1]);
        assert_eq!(shared(&[prompt(1000), prompt(1000), ANSWER], 128, 512), [64, 64, 1]);
        assert_eq!(shared(&[prompt(1000), prompt(10), prompt(1000)], 120, 512), [55, 10, 55]);
        assert_eq!(shared(&[prompt(10), prompt(20)], 512, 512), [10, 20]);
        assert_eq!(shared(&[prompt(9); 5], 3, 512), [1, 1, 1, 0, 0]);
        assert_eq!(shared(&[], 128, 512), [0usize; 0]);
    }

    #[test]
    fn no_repeatable_prompt_keeps_a_small_rest() {
        assert_eq!(shared(&[seeded(100)], 96, 512), [100]);
        assert_eq!(shared(&[seeded(120)], 96, 512), [96]);
        assert_eq!(shared(&[seeded(520)], 512, 512), [496], "no room for eight more");
        assert_eq!(shared(&[ANSWER, seeded(140), seeded(70)], 128, 512), [1, 64, 70]);
        assert_eq!(shared(&[seeded(60); 4], 160, 512), [60, 40, 40, 40], "one step is not made longer for all");
        assert_eq!(shared(&[prompt(100), prompt(70)], 128, 512), [64, 64], "others are cut anywhere");
        let mut given = Vec::new();
        share(&[ANSWER, seeded(100)], 96, 96, 512, &mut given);
        assert_eq!(given, [1, 76], "a limit is not exceeded");
    }

    #[test]
    fn a_step_is_never_longer_than_the_batch() {
        assert_eq!(shared(&[ANSWER, ANSWER, prompt(100)], 128, 8), [1, 1, 6]);
        assert_eq!(shared(&[ANSWER; 3], 128, 2), [1, 1, 0]);
    }

    #[test]
    fn chunks_follow_the_measured_pace() {
        let mut pacer = Pacer::default();
        assert_eq!((pacer.chunk(false, 512), pacer.chunk(true, 512)), (32, 32));
        pacer.measured(4, Duration::from_secs(9));
        assert_eq!(pacer.chunk(false, 512), 32, "too few rows to tell");
        pacer.measured(100, Duration::from_secs(1));
        assert_eq!((pacer.chunk(false, 512), pacer.chunk(true, 512)), (112, 16));
        for _ in 0..20 {
            pacer.measured(100, Duration::from_millis(10));
        }
        assert_eq!((pacer.chunk(false, 512), pacer.chunk(true, 512)), (512, 128));
        assert_eq!(pacer.chunk(false, 64), 64);
        for _ in 0..20 {
            pacer.measured(16, Duration::from_secs(16));
        }
        assert_eq!((pacer.chunk(false, 512), pacer.chunk(true, 512)), (16, 16));
    }
}
