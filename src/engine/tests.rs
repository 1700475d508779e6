//! The engine on the fake device, turned by hand: what runs when, what is used again, who waits for whom.

use super::fake::{Fake, Seen, VOCABULARY, expected};
use super::owner::{Owner, Turn};
use super::*;
use crate::backend::StepError;
use std::sync::Mutex;

struct Bench {
    engine: Engine,
    owner: Owner,
    seen: Arc<Mutex<Seen>>,
}

fn shape() -> Shape {
    Shape { context: 512, blocks: 32, slots: 0, rows: 64, vocabulary: VOCABULARY, running: 4, waiting: 4 }
}

fn bench(shape: Shape) -> Bench {
    bench_with(shape, |_| {})
}

fn bench_with(shape: Shape, change: impl FnOnce(&mut Fake)) -> Bench {
    let (mut fake, seen) = Fake::new(shape.blocks, shape.slots, shape.rows);
    change(&mut fake);
    let (engine, owner) = Engine::assemble(Box::new(fake), shape);
    Bench { engine, owner, seen }
}

fn ids(range: std::ops::Range<u32>) -> Vec<TokenId> {
    range.map(|t| TokenId(t * 7 % VOCABULARY as u32)).collect()
}

fn greedy(prompt: &[TokenId], max_tokens: usize) -> Request {
    Request { prompt: prompt.to_vec(), max_tokens, sampling: Sampling { temperature: 0.0, ..Sampling::default() }, ..Request::default() }
}

#[derive(Debug, Default)]
struct Read {
    tokens: Vec<TokenId>,
    cached: usize,
    end: Option<End>,
}

/// Reads what is there.
fn read(answer: &mut Answer, into: &mut Read) {
    while let Some(event) = answer.try_next() {
        match event {
            Event::Prompt { cached, .. } => into.cached = cached,
            Event::Token(token) => into.tokens.push(token.id),
            Event::End(end) => into.end = Some(end),
        }
    }
}

impl Bench {
    fn submit(&self, request: Request) -> Answer {
        self.engine.submit(request).unwrap()
    }

    fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.owner.turn();
        }
    }

    /// Turns until there is nothing to do.
    fn settle(&mut self) -> Turn {
        loop {
            match self.owner.turn() {
                Turn::Stepped => {}
                other => return other,
            }
        }
    }

    /// Turns and reads until every answer has ended.
    fn finish(&mut self, mut answers: Vec<Answer>) -> Vec<Read> {
        let mut reads: Vec<Read> = answers.iter().map(|_| Read::default()).collect();
        for _ in 0..10_000 {
            self.owner.turn();
            answers.iter_mut().zip(&mut reads).for_each(|(a, r)| read(a, r));
            if reads.iter().all(|r| r.end.is_some()) {
                return reads;
            }
        }
        panic!("no end after 10,000 turns: {:?}", self.engine.telemetry().borrow());
    }

    fn answer(&mut self, request: Request) -> Read {
        let answer = self.submit(request);
        self.finish(vec![answer]).remove(0)
    }

    fn rows_of_steps(&self) -> Vec<usize> {
        self.seen.lock().unwrap().steps.iter().map(Vec::len).collect()
    }
}

#[test]
fn text_is_the_models_however_many_run_at_once() {
    let mut b = bench(shape());
    let prompts: Vec<_> = [1, 63, 64, 65, 128, 200, 300].iter().map(|&n| ids(n..2 * n)).collect();
    let answers = prompts.iter().map(|p| b.submit(greedy(p, 100))).collect();
    for (read, prompt) in b.finish(answers).iter().zip(&prompts) {
        assert_eq!(read.tokens, expected(prompt, 100), "prompt of {}", prompt.len());
        assert_eq!(read.end.as_ref().unwrap().reason, Reason::Length);
    }
}

#[test]
fn same_seed_same_text_alone_and_among_others() {
    let seeded =
        |seed| Request { sampling: Sampling { seed: Some(seed), temperature: 1.5, ..Sampling::default() }, ..greedy(&ids(0..40), 60) };
    let alone = bench(shape()).answer(seeded(5)).tokens;
    let mut b = bench(shape());
    let answers = vec![b.submit(seeded(4)), b.submit(seeded(5)), b.submit(greedy(&ids(9..300), 50))];
    let reads = b.finish(answers);
    assert_eq!(reads[1].tokens, alone);
    assert_ne!(reads[0].tokens, alone);
}

#[test]
fn second_turn_computes_only_what_is_new() {
    let mut b = bench(shape());
    let mut talk = ids(0..100);
    talk.extend(b.answer(greedy(&talk, 50)).tokens);
    talk.extend(ids(3..13));
    let steps = b.rows_of_steps().len();
    let second = b.answer(greedy(&talk, 20));
    // The last token of the answer was never fed: 149 positions are known, in two whole blocks and 21 places of a third.
    assert_eq!(second.cached, 149);
    assert_eq!(b.rows_of_steps()[steps], talk.len() - 149);
    assert_eq!(b.seen.lock().unwrap().block_copies, 1);
    assert_eq!(second.tokens, expected(&talk, 20));
    let end = second.end.unwrap();
    assert_eq!((end.prompt, end.cached, end.generated), (160, 149, 20));
}

#[test]
fn the_same_prompt_again_computes_one_token() {
    let mut b = bench(shape());
    for prompt in [ids(0..128), ids(0..130), ids(0..64)] {
        b.answer(greedy(&prompt, 10));
        let again = b.answer(greedy(&prompt, 10));
        assert_eq!((again.cached, again.tokens), (prompt.len() - 1, expected(&prompt, 10)));
        let fresh = b.answer(Request { fresh: true, ..greedy(&prompt, 10) });
        assert_eq!((fresh.cached, fresh.tokens), (0, expected(&prompt, 10)));
    }
}

#[test]
fn a_seeded_prompt_again_computes_its_last_rows_as_the_first_time() {
    let mut b = bench(shape());
    let seeded = |prompt: &[TokenId]| {
        let mut request = greedy(prompt, 10);
        request.sampling = Sampling { temperature: 0.5, seed: Some(3), ..request.sampling };
        request
    };
    for length in [128, 130, 20] {
        let prompt = ids(0..length);
        b.answer(seeded(&prompt));
        let steps = b.rows_of_steps().len();
        assert_eq!(b.answer(seeded(&prompt)).cached, prompt.len().saturating_sub(24));
        assert_eq!(b.rows_of_steps()[steps], prompt.len().min(24));
    }
}

#[test]
fn a_running_sequence_lends_its_prefix_and_copies_keep_them_apart() {
    let mut b = bench(shape());
    let (mut left, mut right) = (ids(0..160), ids(0..160));
    left.extend(ids(1..20));
    right.extend(ids(2..30));
    let mut first = b.submit(greedy(&left, 30));
    b.turns(8);
    let mut reads = [Read::default()];
    read(&mut first, &mut reads[0]);
    assert!(reads[0].end.is_none() && !reads[0].tokens.is_empty());
    let second = b.submit(greedy(&right, 30));
    let got = b.finish(vec![first, second]);
    reads[0].tokens.extend(&got[0].tokens);
    assert_eq!(got[1].cached, 128, "whole blocks of the one that still runs");
    assert_eq!(reads[0].tokens, expected(&left, 30));
    assert_eq!(got[1].tokens, expected(&right, 30));
}

#[test]
fn a_long_prompt_never_holds_up_an_answer_for_more_than_a_chunk() {
    let mut b = bench(Shape { rows: 256, ..shape() });
    let mut quick = b.submit(greedy(&ids(0..4), 60));
    b.owner.turn();
    let mut got = Read::default();
    let long = b.submit(greedy(&ids(0..500), 1));
    for turn in 1..=3 {
        b.owner.turn();
        read(&mut quick, &mut got);
        assert_eq!(got.tokens.len(), turn + 1, "one token a step");
    }
    assert!(b.rows_of_steps().iter().all(|&n| n <= 129));
    let reads = b.finish(vec![quick, long]);
    assert_eq!(reads[1].tokens, expected(&ids(0..500), 1));
}

#[test]
fn a_short_prompt_is_not_kept_waiting_by_a_long_one() {
    let mut b = bench(shape());
    let long = b.submit(greedy(&ids(0..500), 1));
    let mut short = b.submit(greedy(&ids(100..120), 1));
    b.turns(2);
    let mut got = Read::default();
    read(&mut short, &mut got);
    assert_eq!(got.tokens, expected(&ids(100..120), 1), "two steps of 32 shared by two are enough");
    b.finish(vec![long]);
}

#[test]
fn leaving_during_the_prompt_ends_it_at_the_next_step() {
    let mut b = bench(shape());
    let answer = b.submit(greedy(&ids(0..500), 10));
    b.owner.turn();
    drop(answer);
    assert_eq!(b.owner.turn(), Turn::Idle);
    assert_eq!(b.rows_of_steps().len(), 1);
    let figures = *b.engine.telemetry().borrow();
    assert_eq!((figures.running, figures.blocks_held, figures.cancelled), (0, 0, 1));
    assert_eq!(b.answer(greedy(&ids(0..500), 1)).cached, 32, "what was computed is of use to the next");
}

#[test]
fn leaving_while_waiting_frees_the_place() {
    let mut b = bench(Shape { running: 1, waiting: 1, ..shape() });
    let first = b.submit(greedy(&ids(0..10), 5));
    let second = b.submit(greedy(&ids(0..10), 5));
    assert_eq!(b.engine.submit(greedy(&ids(0..10), 5)).err(), Some(Refused::Busy { inside: 2 }));
    drop(second);
    b.owner.turn();
    let third = b.submit(greedy(&ids(0..10), 5));
    assert!(b.finish(vec![first, third]).iter().all(|r| r.tokens == expected(&ids(0..10), 5)));
}

#[test]
fn a_slow_reader_holds_only_its_own_sequence() {
    let mut b = bench(shape());
    let slow = b.submit(greedy(&ids(0..10), 200));
    let other = b.submit(greedy(&ids(5..25), 150));
    assert_eq!(b.finish(vec![other])[0].tokens, expected(&ids(5..25), 150));
    assert_eq!(b.settle(), Turn::Idle);
    let figures = *b.engine.telemetry().borrow();
    assert_eq!((figures.running, figures.held), (1, 1));
    assert!(figures.generated < 150 + ANSWER_EVENTS as u64);
    assert_eq!(b.finish(vec![slow])[0].tokens, expected(&ids(0..10), 200), "it goes on as if nothing had been");
}

#[test]
fn slow_readers_give_their_places_to_those_who_wait() {
    let mut b = bench(Shape { running: 2, ..shape() });
    let slow = vec![b.submit(greedy(&ids(0..10), 200)), b.submit(greedy(&ids(1..30), 200))];
    assert_eq!(b.settle(), Turn::Idle);
    let quick = b.submit(greedy(&ids(5..25), 50));
    assert_eq!(b.finish(vec![quick])[0].tokens, expected(&ids(5..25), 50));
    let reads = b.finish(slow);
    assert_eq!(reads[0].tokens, expected(&ids(0..10), 200));
    assert_eq!(reads[1].tokens, expected(&ids(1..30), 200));
}

#[test]
fn when_blocks_run_out_the_youngest_waits_and_its_text_is_the_same() {
    let mut b = bench(Shape { blocks: 6, context: 384, ..shape() });
    let prompts: Vec<_> = (0..4).map(|i| ids(i * 11..i * 11 + 40)).collect();
    let answers = prompts.iter().map(|p| b.submit(greedy(p, 200))).collect();
    for (read, prompt) in b.finish(answers).iter().zip(&prompts) {
        assert_eq!(read.tokens, expected(prompt, 200));
    }
    let figures = *b.engine.telemetry().borrow();
    assert_eq!((figures.blocks_held, figures.completed), (0, 4));
}

#[test]
fn what_can_never_fit_is_refused_at_once() {
    let b = bench(Shape { blocks: 2, ..shape() });
    assert_eq!(b.engine.shape().context, 128, "no more than the blocks hold");
    let refuse = |request| b.engine.submit(request).err();
    assert_eq!(refuse(greedy(&ids(0..128), 1)), Some(Refused::ContextFull { prompt: 128, context: 128 }));
    assert_eq!(refuse(greedy(&[], 1)), Some(Refused::Empty));
    assert_eq!(refuse(greedy(&[TokenId(50)], 1)), Some(Refused::Token { token: 50, vocabulary: 50 }));
    assert_eq!(refuse(greedy(&ids(0..127), 1)), None);
}

#[test]
fn the_contexts_end_ends_the_answer() {
    let mut b = bench(Shape { blocks: 2, ..shape() });
    let read = b.answer(greedy(&ids(0..100), 1000));
    assert_eq!((read.tokens.len(), read.end.unwrap().reason), (28, Reason::Length));
    assert_eq!(b.answer(greedy(&ids(0..100), 0)).tokens, []);
}

#[test]
fn every_stop_token_ends_the_answer_and_is_not_part_of_it() {
    let mut b = bench(shape());
    let whole = expected(&ids(0..9), 30);
    let stop = whole[12];
    let first = whole.iter().position(|&t| t == stop).unwrap();
    let read = b.answer(Request { stop: vec![TokenId(999), stop].into(), ..greedy(&ids(0..9), 30) });
    assert_eq!((read.tokens.as_slice(), read.end.unwrap().reason), (&whole[..first], Reason::Stop));
}

#[test]
fn recurrent_state_goes_on_from_the_end_of_the_answer() {
    let mut b = bench(Shape { slots: 6, ..shape() });
    let mut talk = ids(0..100);
    talk.extend(b.answer(greedy(&talk, 50)).tokens);
    talk.extend(ids(3..13));
    let second = b.answer(greedy(&talk, 20));
    assert_eq!((second.cached, second.tokens), (149, expected(&talk, 20)));
}

#[test]
fn recurrent_state_goes_on_from_a_boundary_when_the_answer_is_told_differently() {
    let mut b = bench(Shape { slots: 6, ..shape() });
    let first = Request { boundaries: vec![40, 70], ..greedy(&ids(0..100), 50) };
    b.answer(first);
    let mut other = ids(0..70);
    other.extend(ids(20..60));
    let second = b.answer(greedy(&other, 20));
    assert_eq!((second.cached, second.tokens), (70, expected(&other, 20)));
    let mut third = ids(0..50);
    third.extend(ids(21..40));
    let third_read = b.answer(greedy(&third, 20));
    assert_eq!((third_read.cached, third_read.tokens), (40, expected(&third, 20)));
}

#[test]
fn recurrent_sequences_share_few_slots_and_keep_their_text() {
    for slots in 1..5 {
        let mut b = bench(Shape { slots, blocks: 12, ..shape() });
        for round in 0..3 {
            let prompts: Vec<_> = (0..4).map(|i| ids(i * 5..i * 5 + 60 + round)).collect();
            let answers = prompts.iter().map(|p| b.submit(Request { boundaries: vec![30], ..greedy(p, 80) })).collect();
            for (read, prompt) in b.finish(answers).iter().zip(&prompts) {
                assert_eq!(read.tokens, expected(prompt, 80), "{slots} slots");
            }
        }
    }
}

#[test]
fn limits_hold_from_the_next_step() {
    let mut b = bench(shape());
    let answers: Vec<_> = (0..3).map(|i| b.submit(greedy(&ids(i..i + 9), 30))).collect();
    let pace = Pace { decode_threads: Some(3), prefill_threads: None };
    b.engine.limit(Limits { pace, running: 1, open: false, ..Limits::default() });
    b.owner.turn();
    assert_eq!(b.engine.telemetry().borrow().running, 1);
    assert_eq!(b.seen.lock().unwrap().paces, [pace]);
    assert_eq!(b.engine.submit(greedy(&ids(0..9), 1)).err(), Some(Refused::Closed));
    b.engine.limit(Limits { chunk: 5, ..Limits::default() });
    b.finish(answers);
    assert!(b.rows_of_steps()[1..].iter().all(|&n| n <= 5 + 3));
    assert_eq!(b.answer(greedy(&ids(0..9), 1)).tokens.len(), 1);
}

#[test]
fn draining_answers_everybody_and_takes_nobody() {
    let mut b = bench(Shape { running: 1, ..shape() });
    let answers = vec![b.submit(greedy(&ids(0..9), 30)), b.submit(greedy(&ids(1..9), 30))];
    b.owner.turn();
    b.engine.drain();
    assert_eq!(b.engine.submit(greedy(&ids(0..9), 1)).err(), Some(Refused::Stopping));
    assert!(b.finish(answers).iter().all(|r| r.tokens.len() == 30));
    assert_eq!(b.owner.turn(), Turn::Ended);
}

#[test]
fn stopping_ends_answers_within_a_step() {
    let mut b = bench(Shape { running: 1, ..shape() });
    let answers = vec![b.submit(greedy(&ids(0..9), 300)), b.submit(greedy(&ids(1..9), 30))];
    b.owner.turn();
    b.engine.stop();
    assert_eq!(b.owner.turn(), Turn::Ended);
    assert_eq!(b.rows_of_steps().len(), 1);
    assert!(b.finish(answers).iter().all(|r| r.end.as_ref().unwrap().reason == Reason::Cancelled));
}

#[test]
fn a_lost_device_ends_everything_and_says_why() {
    let mut b = bench_with(Shape { running: 1, ..shape() }, |f| f.errors.push((1, || StepError::DeviceLost("gone".into()))));
    let answers = vec![b.submit(greedy(&ids(0..9), 300)), b.submit(greedy(&ids(1..9), 30))];
    assert_eq!(b.settle(), Turn::Ended);
    let failed = Reason::Failed("the device was lost: gone".into());
    assert!(b.finish(answers).iter().all(|r| r.end.as_ref().unwrap().reason == failed));
    assert!(matches!(b.engine.submit(greedy(&ids(0..9), 1)), Err(Refused::Failed(_))));
}

#[test]
fn a_fault_in_a_step_is_told_as_a_failure_before_the_answers_break_off() {
    let (mut fake, _) = Fake::new(32, 0, 64);
    fake.errors.push((0, || panic!("deliberate")));
    let engine = Engine::start(Box::new(fake), shape()).unwrap();
    let mut answer = engine.submit(greedy(&ids(0..10), 5)).unwrap();
    while answer.blocking_next().is_some_and(|event| matches!(event, Event::Prompt { .. })) {}
    assert!(engine.failure().is_some_and(|reason| reason.contains("fault")));
    assert!(matches!(engine.submit(greedy(&ids(0..10), 5)), Err(Refused::Failed(_))));
}

#[test]
fn a_step_without_memory_ends_only_those_in_it() {
    let mut b = bench_with(Shape { running: 1, ..shape() }, |f| f.errors.push((1, || StepError::OutOfMemory("full".into()))));
    let answers = vec![b.submit(greedy(&ids(0..9), 300)), b.submit(greedy(&ids(1..9), 30))];
    let reads = b.finish(answers);
    assert!(matches!(reads[0].end.as_ref().unwrap().reason, Reason::Failed(_)));
    assert_eq!(reads[1].tokens, expected(&ids(1..9), 30));
}

#[test]
fn figures_add_up() {
    let mut b = bench(shape());
    b.answer(greedy(&ids(0..100), 10));
    b.answer(greedy(&ids(0..100), 10));
    let figures = *b.engine.telemetry().borrow();
    assert_eq!((figures.prompt_computed, figures.prompt_cached, figures.generated, figures.completed), (101, 99, 20, 2));
    // The fake takes a millisecond a row; the first token of an answer comes with the prompt.
    assert_eq!((figures.prefill_time.as_millis(), figures.decode_time.as_millis()), (101, 18));
    assert_eq!(figures.phase, Phase::Decode);
    b.settle();
    assert_eq!(b.engine.telemetry().borrow().phase, Phase::Idle);
}

#[test]
fn a_request_to_an_engine_at_rest_is_told_of_before_its_first_step() {
    let mut b = bench_with(shape(), |f| f.errors.push((0, || panic!("in the middle of the step"))));
    let _answer = b.submit(greedy(&ids(0..9), 1));
    assert!(catch_unwind(AssertUnwindSafe(|| b.owner.turn())).is_err());
    let figures = *b.engine.telemetry().borrow();
    assert_eq!((figures.phase, figures.waiting, figures.steps), (Phase::Prefill, 1, 0));
}

#[test]
fn many_requests_in_every_mixture_always_give_the_models_text() {
    let mut random = random::Random::from_seed(11);
    for slots in [0, 0, 3, 7] {
        let mut b = bench(Shape { slots, blocks: 10, running: 3, waiting: 100, ..shape() });
        let mut live: Vec<(Vec<TokenId>, usize, Answer, Read)> = Vec::new();
        let mut told: Vec<Vec<TokenId>> = Vec::new();
        for _ in 0..1500 {
            match random.bits() % 8 {
                0 if live.len() < 8 => {
                    let mut prompt = told.get(random.bits() as usize % (told.len() + 1)).cloned().unwrap_or_default();
                    let at = random.bits() as u32 % 40;
                    prompt.extend(ids(at..at + 1 + random.bits() as u32 % 90));
                    prompt.truncate(500);
                    let count = random.bits() as usize % 100;
                    let boundaries = vec![random.bits() as usize % 200, random.bits() as usize % 200];
                    let answer = b.submit(Request { boundaries, ..greedy(&prompt, count) });
                    live.push((prompt, count, answer, Read::default()));
                }
                1 if !live.is_empty() && random.bits().is_multiple_of(4) => drop(live.remove(random.bits() as usize % live.len())),
                2 if !live.is_empty() => {
                    let at = random.bits() as usize % live.len();
                    let (prompt, count, answer, got) = &mut live[at];
                    read(answer, got);
                    assert!(expected(prompt, *count).starts_with(&got.tokens));
                    if let Some(end) = &got.end {
                        assert_eq!((&end.reason, got.tokens.len()), (&Reason::Length, (*count).min(512 - prompt.len())));
                        let (mut prompt, _, _, got) = live.remove(at);
                        prompt.extend(got.tokens);
                        told.push(prompt);
                        told.truncate(20);
                    }
                }
                _ => b.turns(1),
            }
        }
        live.clear();
        b.settle();
        let figures = *b.engine.telemetry().borrow();
        assert_eq!((figures.running, figures.waiting, figures.blocks_held), (0, 0, 0));
        assert!(figures.completed > 20, "{figures:?}");
    }
}

#[test]
fn a_thread_answers_sleeps_and_ends_with_its_last_handle() {
    let (fake, _) = Fake::new(32, 0, 64);
    let engine = Engine::start(Box::new(fake), shape()).unwrap();
    let mut answer = engine.submit(greedy(&ids(0..40), 100)).unwrap();
    let mut tokens = Vec::new();
    let end = loop {
        match answer.blocking_next().unwrap() {
            Event::Token(token) => tokens.push(token.id),
            Event::End(end) => break end,
            Event::Prompt { .. } => {}
        }
    };
    assert_eq!((tokens, end.generated), (expected(&ids(0..40), 100), 100));
    assert_eq!(answer.blocking_next(), None);

    let mut telemetry = engine.telemetry();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(telemetry.wait_for(|t| t.phase == Phase::Idle)).unwrap();
    let before = engine.heartbeat();
    engine.nudge();
    while engine.heartbeat() == before {
        std::thread::yield_now();
    }
    drop(engine);
    while runtime.block_on(telemetry.changed()).is_ok() {}
}
