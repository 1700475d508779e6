//! One persistent crew of threads for a backend. It is woken once a step, walks through the step's phases together, and sleeps when
//! the step is done: nothing spins between requests.
//!
//! A phase is a number of chunks. Each worker has a part of them, neighbours in memory, and claims one by one from the part's atomic
//! counter; when its own part is through, it claims from the others', so fast and slow cores finish together. (One counter for all
//! would let workers change parts whenever two of them come to it at the same moment, and what each had asked of the memory ahead
//! would be the other's.) A phase is over when its *chunks* are done, not when all workers have arrived: a worker that the system has
//! not let run holds nobody up unless it holds a chunk.
//!
//! Waiting is spinning for a little while ([`SPIN`]), then sleeping. The spin covers the gaps between the chunks of one phase, and
//! between two steps of a tight loop; a longer wait means that some thread lost its core, and then spinning takes time from just that
//! thread. Who waits longer than a chunk takes lends its core to the thread that lost its own: see [`spread`](super::spread). So more
//! threads than cores, or a busy neighbour, make a step slower by what the others take, and never collapse it.
//!
//! Which cores the crew may use is [`cores`](super::cores)' business; what it computes is the caller's.

use super::losses::Watch;
use super::spread::Spread;
use rustix::io::Errno;
use rustix::thread::futex::{self, Timespec};
use std::cell::{RefCell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest busy wait. 20–50 µs is where spin barriers stop paying (llama.cpp pull request 13079, on a Pi 5: passive waiting costs 8 %,
/// endless spinning collapses where cores are short).
const SPIN: Duration = Duration::from_micros(40);
/// Shortest sleep after which a late worker is lent a core. Most chunks and tails take 10 to 100 µs; lending without need costs ten.
const PATIENCE: Duration = Duration::from_micros(100);
/// … of a worker that had no chunk itself and so doesn't know how long they take.
const LONG_PATIENCE: Duration = Duration::from_micros(300);
/// Looks at the flag between two looks at the clock.
const SPIN_CHECKS: u32 = 64;
/// Set in a phase's state when everybody may go on.
const DONE: u32 = 1;
/// Set in a phase's state when a worker panicked: everybody who waits there leaves.
const POISON: u32 = 1 << 31;

/// The crew. Dropping it ends its threads.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Workers that take part in the next step, the caller among them.
    active: usize,
    /// The caller's.
    watch: RefCell<Watch>,
}

/// A body of work: run by every worker of the step at the same time.
type Body<'a> = dyn Fn(&Crew<'_>) + Sync + 'a;

struct Shared {
    /// Steps so far, doubled; odd while a step is open to be joined. Helpers sleep on it.
    epoch: Line<AtomicU32>,
    /// Helpers that sleep on `epoch`, or are about to.
    asleep: Line<AtomicU32>,
    /// Helpers that are inside the step. The caller sleeps on it at the end.
    inside: Line<AtomicU32>,
    /// Helpers with an index at or above this stay out of the step.
    active: AtomicU32,
    /// How often a worker lost its core, since the start.
    losses: AtomicU32,
    spread: Spread,
    stop: AtomicBool,
    poisoned: AtomicBool,
    /// The open step; written by the caller while no helper is inside.
    step: UnsafeCell<Step>,
}

// SAFETY: `step` is written only by `Pool::run`, before it opens an epoch and after every helper has left the one before;
// helpers read it only between entering and leaving an open epoch. All else is atomic.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer in `Step` is only followed while `Pool::run`, which borrows its target, is on the stack.
unsafe impl Send for Shared {}

struct Step {
    body: Option<*const Body<'static>>,
    phases: Vec<Phase>,
    workers: usize,
    /// How many chunks of each part are claimed, `[workers, phases]`: mostly a worker's own business, so side by side for each.
    claimed: Vec<AtomicU32>,
}

#[derive(Default)]
struct Phase {
    finished: Line<AtomicU32>,
    release: Line<Release>,
}

/// What those who are through with their chunks look at.
#[derive(Default)]
struct Release {
    /// [`DONE`] once all chunks and what follows them are done, and [`POISON`].
    state: AtomicU32,
    sleepers: AtomicU32,
}

/// A cache line of its own (128 bytes: some cores fetch lines in pairs).
#[derive(Default)]
#[repr(align(128))]
pub struct Line<T>(pub T);

/// What one worker sees of a step.
pub struct Crew<'a> {
    worker: usize,
    watch: &'a RefCell<Watch>,
    shared: &'a Shared,
    step: &'a Step,
}

impl Pool {
    /// A crew of at most `threads` workers (at least 1), the caller of [`run`](Self::run) being the first. `enter` runs once in each
    /// new thread with the worker's index, for pinning and naming.
    pub fn new(threads: usize, enter: impl Fn(usize) + Send + Sync + 'static) -> Pool {
        let shared = Arc::new(Shared {
            epoch: Line::default(),
            asleep: Line::default(),
            inside: Line::default(),
            active: AtomicU32::new(0),
            losses: AtomicU32::new(0),
            spread: Spread::new(threads.max(1)),
            stop: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            step: UnsafeCell::new(Step { body: None, phases: Vec::new(), workers: 0, claimed: Vec::new() }),
        });
        let enter = Arc::new(enter);
        let helpers = (1..threads.max(1))
            .map_while(|index| {
                let (shared, enter) = (shared.clone(), enter.clone());
                let spawned = std::thread::Builder::new().name(format!("hearth-{index}")).spawn(move || {
                    enter(index);
                    shared.serve(index);
                });
                // Where the system grants no more threads the crew is smaller: slower, not broken.
                spawned.ok()
            })
            .collect::<Vec<_>>();
        Pool { active: helpers.len() + 1, shared, helpers, watch: RefCell::new(Watch::new()) }
    }

    /// Most workers a step can have.
    pub fn capacity(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Workers of the next step.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Lets `workers` take part from the next step on (between 1 and [`capacity`](Self::capacity)).
    pub fn set_active(&mut self, workers: usize) {
        self.active = workers.clamp(1, self.capacity());
    }

    /// How often a worker was found to have lost its core to somebody, since the start.
    pub fn losses(&self) -> u32 {
        self.shared.losses.load(Relaxed)
    }

    /// One step: runs `body` on every active worker at once and returns when all have left it. `body` may call
    /// [`Crew::phase`] with each index below `phases` once, all workers in the same order.
    ///
    /// # Panics
    /// When a worker panicked, after all have left; the crew can be used again.
    pub fn run(&mut self, phases: usize, body: &Body<'_>) {
        let shared = &*self.shared;
        // SAFETY: no helper is inside (the last run waited for that, and none enters while the epoch is even), so nobody else
        // looks at `step`. The lifetime is erased for storage only: this function does not return before all helpers have left.
        let step = unsafe {
            let step = &mut *shared.step.get();
            step.body = Some(std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body));
            step.phases.clear();
            step.phases.resize_with(phases, Phase::default);
            step.workers = self.active;
            step.claimed.clear();
            step.claimed.resize_with(phases * self.active, AtomicU32::default);
            &*shared.step.get()
        };
        shared.active.store(self.active as u32, Relaxed);
        if self.active > 1 {
            // The caller takes part in any case.
            if !shared.spread.enter(0) {
                shared.spread.settle(0);
            }
            shared.next_epoch();
        }
        self.watch.borrow_mut().begin();
        let mine = catch_unwind(AssertUnwindSafe(|| body(&Crew { worker: 0, watch: &self.watch, shared, step })));
        if mine.is_err() {
            poison(&step.phases);
        }
        if self.active > 1 {
            shared.epoch.0.fetch_add(1, SeqCst);
            wait_while(&shared.inside.0, None, |inside| inside != 0, PATIENCE, |_| shared.spread.fetch_late(0));
            shared.spread.leave(0);
        }
        let theirs = shared.poisoned.swap(false, Relaxed);
        match mine {
            Err(panic) => resume_unwind(panic),
            Ok(()) if theirs => panic!("a worker of the thread pool failed; its message stands above"),
            Ok(()) => {}
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        // An even step forward: nobody may enter, everybody wakes and sees `stop`.
        self.shared.epoch.0.fetch_add(2, SeqCst);
        _ = futex::wake(&self.shared.epoch.0, futex::Flags::PRIVATE, u32::MAX >> 1);
        for helper in self.helpers.drain(..) {
            _ = helper.join();
        }
    }
}

impl Crew<'_> {
    /// This worker's index, below the step's number of workers: the key to per-thread scratch.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Computes chunks `0..chunks` of phase `index` together with the others, each chunk once, and returns when all are done: what
    /// any worker wrote in this phase can then be read by all. Each worker begins with a part of its own, front to back.
    pub fn phase(&self, index: usize, chunks: usize, work: impl FnMut(usize)) {
        self.phase_then(index, chunks, work, || {});
    }

    /// As [`phase`](Self::phase); the worker that does the last chunk then does `tail` alone, before anybody goes on. For small work
    /// that needs all chunks: cheaper than a phase of its own.
    pub fn phase_then(&self, index: usize, chunks: usize, mut work: impl FnMut(usize), tail: impl FnOnce()) {
        let (phase, workers) = (&self.step.phases[index], self.step.workers);
        // Without chunks there is still a tail to do, once.
        let turns = chunks.max(1);
        let (mut now, mut last, mut longest) = (Instant::now(), false, Duration::ZERO);
        let spread = &self.shared.spread;
        spread.begin(self.worker, index);
        // Its own part first; then from the middle of the others, so that two who come to parts of absent ones begin with different parts.
        let others = (0..workers).map(|other| (self.worker + workers.div_ceil(2) + other) % workers);
        for owner in std::iter::once(self.worker).chain(others) {
            let part = part(owner, turns, workers);
            let claimed = &self.step.claimed[owner * self.step.phases.len() + index];
            // Looked at first: a line that is only read need not come from core to core.
            while (claimed.load(Relaxed) as usize) < part.len() {
                let turn = part.start + claimed.fetch_add(1, Relaxed) as usize;
                if turn >= part.end {
                    break;
                }
                if turn < chunks {
                    work(turn);
                }
                last = phase.finished.0.fetch_add(1, AcqRel) as usize + 1 == turns;
                let before = std::mem::replace(&mut now, Instant::now());
                longest = longest.max(now - before);
                if self.has_moved(now - before) {
                    now = Instant::now();
                }
            }
        }
        let release = &phase.release.0;
        if last {
            tail();
        }
        spread.end(self.worker);
        if last {
            release.state.fetch_or(DONE, SeqCst);
            if release.sleepers.load(SeqCst) != 0 {
                _ = futex::wake(&release.state, futex::Flags::PRIVATE, u32::MAX >> 1);
            }
        } else {
            let patience = if longest.is_zero() { LONG_PATIENCE } else { PATIENCE.max(2 * longest) };
            let lend = |time| spread.change_with_late(self.worker, index, time);
            if wait_while(&release.state, Some(&release.sleepers), |state| state == 0, patience, lend) {
                spread.settle(self.worker);
                self.watch.borrow_mut().begin();
            }
        }
        assert!(release.state.load(Acquire) & POISON == 0, "left a step that another worker failed in");
    }

    /// This worker holds no chunk, and its last took `chunk`. Where it lost its core in that, it may be on another now, which may be
    /// another worker's: whether it left that one.
    fn has_moved(&self, chunk: Duration) -> bool {
        let mut watch = self.watch.borrow_mut();
        if !watch.lost_in(chunk) {
            return false;
        }
        self.shared.losses.fetch_add(1, Relaxed);
        let moved = self.shared.spread.settle(self.worker);
        if moved {
            watch.begin();
        }
        moved
    }
}

/// The part of `chunks` that is worker `owner`'s own: as many for each as for the others, or one more.
fn part(owner: usize, chunks: usize, workers: usize) -> Range<usize> {
    let start = |owner: usize| owner * (chunks / workers) + owner.min(chunks % workers);
    start(owner)..start(owner + 1)
}

impl Shared {
    /// Opens a step, and wakes whoever sleeps.
    fn next_epoch(&self) {
        self.epoch.0.fetch_add(1, SeqCst);
        if self.asleep.0.load(SeqCst) != 0 {
            _ = futex::wake(&self.epoch.0, futex::Flags::PRIVATE, u32::MAX >> 1);
        }
    }

    /// A helper's life: wait until a step opens, join it, leave, again.
    fn serve(&self, index: usize) {
        let watch = RefCell::new(Watch::new());
        loop {
            let epoch = self.epoch.0.load(SeqCst);
            if self.stop.load(SeqCst) {
                return;
            }
            let called = epoch % 2 == 1 && index < self.active.load(Relaxed) as usize;
            if !called {
                self.sleep(epoch);
                continue;
            }
            let has_core = self.spread.enter(index);
            if has_core {
                self.join(epoch, index, &watch);
            }
            self.rest(epoch, has_core);
        }
    }

    /// Takes part in step `epoch`, if it is still open.
    fn join(&self, epoch: u32, index: usize, watch: &RefCell<Watch>) {
        watch.borrow_mut().begin();
        self.inside.0.fetch_add(1, SeqCst);
        // Entered for good only if the step is still open now: `run` closes first and then waits for `inside` to be 0.
        if self.epoch.0.load(SeqCst) == epoch {
            // SAFETY: the epoch is open and `inside` counts us, so `run` keeps the step alive and unchanged.
            let step = unsafe { &*self.step.get() };
            if let Some(body) = step.body {
                // SAFETY: as above: the body is borrowed by the `run` that waits for us.
                let body = unsafe { &*body };
                if catch_unwind(AssertUnwindSafe(|| body(&Crew { worker: index, watch, shared: self, step }))).is_err() {
                    self.poisoned.store(true, SeqCst);
                    poison(&step.phases);
                }
            }
        }
        // Before the next step can begin: where this worker was must not turn anybody away there.
        self.spread.leave(index);
        if self.inside.0.fetch_sub(1, SeqCst) == 1 {
            _ = futex::wake(&self.inside.0, futex::Flags::PRIVATE, 1);
        }
    }

    /// Waits for the step after `epoch`: where this thread `has_core` to itself spins a little, since the next step of an answer follows
    /// at once, then sleeps.
    fn rest(&self, epoch: u32, has_core: bool) {
        let opened = || self.epoch.0.load(Acquire).wrapping_sub(epoch) >= 2;
        if has_core && spin_until(opened) {
            return;
        }
        loop {
            let seen = self.epoch.0.load(SeqCst);
            if seen.wrapping_sub(epoch) >= 2 {
                return;
            }
            self.sleep(seen);
        }
    }

    /// Sleeps until the epoch is no longer `seen`.
    fn sleep(&self, seen: u32) {
        self.asleep.0.fetch_add(1, SeqCst);
        _ = futex::wait(&self.epoch.0, futex::Flags::PRIVATE, seen, None);
        self.asleep.0.fetch_sub(1, SeqCst);
    }
}

/// Lets everybody who waits in any phase go: their step has failed.
fn poison(phases: &[Phase]) {
    for phase in phases {
        phase.release.0.state.fetch_or(POISON, SeqCst);
        _ = futex::wake(&phase.release.0.state, futex::Flags::PRIVATE, u32::MAX >> 1);
    }
}

/// How workers wait for each other, in words, for the record of a measurement.
pub fn wait_policy() -> String {
    format!("spins {} µs, then sleeps; lends its core to a worker that lost its own", SPIN.as_micros())
}

/// Looks for [`SPIN`] at most; whether it came about.
fn spin_until(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..SPIN_CHECKS {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

/// Waits until `word` no longer satisfies `unready`: spins a little, then sleeps on it; whether it slept. `sleepers`, where given, is
/// counted up while asleep, so that whoever makes it ready can spare the system call. Whenever that takes longer than `patience`, and twice
/// as long each time, `late` may do something about it, for the first time, the second, and so on.
fn wait_while(
    word: &AtomicU32,
    sleepers: Option<&AtomicU32>,
    unready: impl Fn(u32) -> bool,
    mut patience: Duration,
    late: impl Fn(u32),
) -> bool {
    if !unready(word.load(Acquire)) || spin_until(|| !unready(word.load(Acquire))) {
        return false;
    }
    if let Some(sleepers) = sleepers {
        sleepers.fetch_add(1, SeqCst);
    }
    let mut time = 0;
    loop {
        let seen = word.load(SeqCst);
        if !unready(seen) {
            break;
        }
        let at_most = Timespec { tv_sec: patience.as_secs() as _, tv_nsec: patience.subsec_nanos() as _ };
        if futex::wait(word, futex::Flags::PRIVATE, seen, Some(&at_most)) == Err(Errno::TIMEDOUT) {
            time += 1;
            late(time);
            patience *= 2;
        }
    }
    if let Some(sleepers) = sleepers {
        sleepers.fetch_sub(1, SeqCst);
    }
    true
}

#[cfg(test)]
mod tests;
