//! Every chunk once, in order, whatever the system does with the threads.

use super::*;
use std::sync::atomic::AtomicUsize;

/// Runs `steps` steps of `phases` phases of `chunks` chunks and counts how often each chunk ran.
fn counts(threads: usize, steps: usize, phases: usize, chunks: usize) -> Vec<usize> {
    let ran: Vec<AtomicUsize> = (0..phases * chunks).map(|_| AtomicUsize::new(0)).collect();
    let mut pool = Pool::new(threads, |_| {});
    for _ in 0..steps {
        pool.run(phases, &|crew| {
            for p in 0..phases {
                crew.phase(p, chunks, |c| {
                    ran[p * chunks + c].fetch_add(1, Relaxed);
                });
            }
        });
    }
    ran.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_chunk_runs_once_a_step_at_any_number_of_threads() {
    for threads in [1, 2, 3, 8] {
        for (phases, chunks) in [(1, 1), (7, 5), (40, 17), (3, 0)] {
            assert!(counts(threads, 50, phases, chunks).iter().all(|&n| n == 50), "{threads} threads, {phases} x {chunks}");
        }
    }
}

#[test]
fn parts_are_all_chunks_in_order_and_even() {
    for workers in 1..6 {
        for chunks in 0..40 {
            let parts: Vec<_> = (0..workers).map(|owner| part(owner, chunks, workers)).collect();
            assert!(parts.iter().cloned().flatten().eq(0..chunks), "{parts:?}");
            assert!(parts.iter().all(|p| p.len() == chunks / workers || p.len() == chunks.div_ceil(workers)), "{parts:?}");
        }
    }
}

#[test]
fn workers_go_through_parts_of_their_own_first() {
    // No more than there are cores: others would sit out.
    let mut pool = Pool::new(std::thread::available_parallelism().map_or(1, usize::from).min(3), |_| {});
    let workers = pool.active();
    let all_began = std::sync::Barrier::new(workers);
    let done: [std::sync::Mutex<Vec<usize>>; 3] = Default::default();
    pool.run(1, &|crew| {
        crew.phase(0, 100, |c| {
            let mut done = done[crew.worker()].lock().unwrap();
            done.push(c);
            if done.len() == 1 {
                all_began.wait();
            }
        });
    });
    let done = done.map(|done| done.into_inner().unwrap());
    for (owner, done) in done.iter().enumerate().take(workers) {
        let own = part(owner, 100, workers);
        let (first, rest) = done.split_at(done.iter().take_while(|c| own.contains(c)).count());
        // (Those who are through with theirs may claim some in between.)
        assert!(first.first() == Some(&own.start) && first.is_sorted(), "{done:?}");
        assert!(rest.iter().all(|c| !own.contains(c)), "{done:?}");
    }
    assert_eq!(done.iter().map(Vec::len).sum::<usize>(), 100);
}

#[test]
fn a_phase_sees_all_that_the_phase_before_wrote() {
    let mut pool = Pool::new(4, |_| {});
    let cells: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
    for step in 0..200 {
        pool.run(20, &|crew| {
            for p in 0..20 {
                let before = step * 20 + p;
                crew.phase(p, cells.len(), |c| {
                    let left = cells[(c + 63) % 64].load(Relaxed);
                    assert!(left == before || left == before + 1, "phase {before} saw {left}");
                    cells[c].store(before + 1, Relaxed);
                });
            }
        });
    }
}

#[test]
fn a_tail_runs_once_after_all_chunks_and_before_the_next_phase() {
    let mut pool = Pool::new(4, |_| {});
    for chunks in [0, 1, 5, 33] {
        for _ in 0..100 {
            let (ran, tails) = (AtomicUsize::new(0), AtomicUsize::new(0));
            pool.run(8, &|crew| {
                for p in 0..8 {
                    // More than `p` is no fault: a worker that comes late walks through phases that are over.
                    assert!(tails.load(Relaxed) >= p);
                    crew.phase_then(
                        p,
                        chunks,
                        |_| _ = ran.fetch_add(1, Relaxed),
                        || {
                            assert_eq!(ran.load(Relaxed), (p + 1) * chunks);
                            assert_eq!(tails.swap(p + 1, Relaxed), p);
                        },
                    );
                }
            });
            assert_eq!(tails.into_inner(), 8);
        }
    }
}

#[test]
fn a_crew_can_shrink_and_grow_between_steps() {
    let mut pool = Pool::new(4, |_| {});
    for workers in [4, 1, 3, 2, 4] {
        pool.set_active(workers);
        let highest = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        pool.run(1, &|crew| {
            highest.fetch_max(crew.worker(), Relaxed);
            crew.phase(0, 1000, |_| {
                done.fetch_add(1, Relaxed);
            })
        });
        assert_eq!(done.into_inner(), 1000);
        assert!(highest.into_inner() < workers);
    }
}

#[test]
fn a_panic_in_a_worker_reaches_the_caller_and_the_crew_lives_on() {
    let mut pool = Pool::new(3, |_| {});
    for step in 0..20 {
        let failed = catch_unwind(AssertUnwindSafe(|| {
            pool.run(3, &|crew| {
                for p in 0..3 {
                    crew.phase(p, 30, |c| assert!(!(p == 1 && c == step), "deliberate"));
                }
            });
        }));
        assert!(failed.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(1, &|crew| {
            crew.phase(0, 10, |_| {
                ran.fetch_add(1, Relaxed);
            })
        });
        assert_eq!(ran.into_inner(), 10);
    }
}

#[test]
fn a_worker_that_never_gets_to_run_holds_nobody_up() {
    // The helper stays in its `enter` until the step is over: the caller must finish alone.
    let gate = Arc::new(AtomicBool::new(false));
    let opened = gate.clone();
    let mut pool = Pool::new(2, move |_| {
        while !opened.load(SeqCst) {
            std::thread::yield_now();
        }
    });
    let ran = AtomicUsize::new(0);
    pool.run(5, &|crew| {
        for p in 0..5 {
            crew.phase(p, 8, |_| {
                ran.fetch_add(1, Relaxed);
            });
        }
    });
    assert_eq!(ran.into_inner(), 40);
    gate.store(true, SeqCst);
}

#[test]
fn who_waits_for_long_lends_its_core_to_the_late_one() {
    let mut pool = Pool::new(2, |_| {});
    if pool.active() < 2 || std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return;
    }
    let (shared, both_began, lent) = (pool.shared.clone(), std::sync::Barrier::new(2), AtomicBool::new(false));
    pool.run(1, &|crew| {
        crew.phase(0, 2, |_| {
            both_began.wait();
            // The late one is late until it was lent a core.
            let start = Instant::now();
            while crew.worker() == 1 && !lent.load(Relaxed) && start.elapsed() < Duration::from_secs(10) {
                lent.store(shared.spread.lent(1) > 0, Relaxed);
            }
        });
    });
    assert!(lent.into_inner());
}

/// Time that `threads` threads take for so many small chunks of arithmetic in phases.
fn time(pool: &mut Pool, threads: usize) -> Duration {
    pool.set_active(threads);
    let (start, sum) = (Instant::now(), AtomicUsize::new(0));
    pool.run(100, &|crew| {
        for p in 0..100 {
            crew.phase(p, 8, |c| _ = sum.fetch_add((0..20_000).fold(c, |a, b| std::hint::black_box(a ^ b)), Relaxed));
        }
    });
    start.elapsed()
}

#[test]
fn crowded_cores_make_a_crew_no_slower_than_one_thread_by_far() {
    // A busy neighbour on every core, and more workers than cores. Compared with one worker beside the same neighbours, in turn;
    // peers' barriers lose a factor of 10 to 200 here.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..cores {
            s.spawn(|| {
                while !over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let mut pool = Pool::new(4 * cores, |_| {});
        let ratio = |_| {
            let alone = time(&mut pool, 1);
            time(&mut pool, 4 * cores).as_secs_f64() / alone.as_secs_f64()
        };
        let best = (0..5).map(ratio).fold(f64::MAX, f64::min);
        over.store(true, Relaxed);
        assert!(best < 3.0, "{} workers take {best} times as long as one", 4 * cores);
    });
}
