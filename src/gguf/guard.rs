//! What happens when a mapped file cannot be read any more: cut short by somebody, or on a card that fails. The kernel then sends
//! SIGBUS to whoever touches the lost pages, which ends the process; a daemon must survive that. The handler here puts zero pages
//! in place of the lost ones and marks the mapping, so the computation goes on with nonsense until the next
//! [`Gguf::check`](super::Gguf::check) refuses it; backends ask that at the end of each step. A SIGBUS outside our mappings goes to the handler that stood before.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

/// Mappings guarded at once; one more is mapped all the same, but unguarded.
const GUARDED_MAX: usize = 256;

static REGIONS: [Region; GUARDED_MAX] = [const { Region::new() }; GUARDED_MAX];
static BEFORE: OnceLock<Before> = OnceLock::new();

/// A guarded range of addresses. The handler runs on any thread at any moment, so there is no lock: `start` is written last and
/// cleared first, and 0 means that the region is free.
struct Region {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

impl Region {
    const fn new() -> Self {
        Self { taken: AtomicBool::new(false), start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost: AtomicBool::new(false) }
    }
}

/// What the handler needs to know and cannot ask for.
struct Before {
    action: libc::sigaction,
    page: usize,
}

/// A mapping under guard. Drop it before the mapping.
#[derive(Debug)]
pub struct Guard(Option<usize>);

impl Guard {
    /// Guards the mapping at `addresses`, which begins on a page.
    pub fn new(addresses: Range<*const u8>) -> Guard {
        install();
        let slot = REGIONS.iter().position(|r| !r.taken.swap(true, AcqRel));
        if let Some(region) = slot.map(|i| &REGIONS[i]) {
            region.lost.store(false, Relaxed);
            region.end.store(addresses.end.addr(), Relaxed);
            region.start.store(addresses.start.addr(), Release);
        }
        Guard(slot)
    }

    /// Whether a page could not be read since it was mapped.
    pub fn lost(&self) -> bool {
        self.0.is_some_and(|i| REGIONS[i].lost.load(Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(region) = self.0.map(|i| &REGIONS[i]) {
            region.start.store(0, Release);
            region.taken.store(false, Release);
        }
    }
}

fn install() {
    BEFORE.get_or_init(|| {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: a null new action only asks for the present one, which fills `action`; sysconf has no preconditions.
        let before = unsafe {
            libc::sigaction(libc::SIGBUS, std::ptr::null(), action.as_mut_ptr());
            Before { action: action.assume_init(), page: libc::sysconf(libc::_SC_PAGESIZE) as usize }
        };
        let mut ours = before.action;
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for and does only what a signal handler may do. It may run
        // before `BEFORE` is filled, and then leaves everything to the default action.
        unsafe { libc::sigaction(libc::SIGBUS, &ours, std::ptr::null_mut()) };
        before
    });
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(before) = BEFORE.get() else { return restore_default(signal) };
    // SAFETY: the kernel passes a valid siginfo_t, and `si_addr` is set for SIGBUS.
    let address = unsafe { (*info).si_addr() }.addr();
    let within =
        |r: &&Region| (1..=address).contains(&r.start.load(Acquire)) && address < r.end.load(Relaxed).next_multiple_of(before.page);
    match REGIONS.iter().find(within) {
        Some(region) => {
            region.lost.store(true, Release);
            let start = address / before.page * before.page;
            let length = region.end.load(Relaxed).next_multiple_of(before.page) - start;
            if !put_zeros(start, length) {
                restore_default(signal);
            }
        }
        None => pass_on(before, signal, info, context),
    }
}

/// Puts zero pages over the rest of a mapping. False when the kernel refuses.
fn put_zeros(start: usize, length: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range lies within one live read-only mapping of ours, of which nobody relies on the bytes being those of the
    // file; mmap is a system call without locks, and errno is put back for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        let at = libc::mmap(std::ptr::without_provenance_mut(start), length, libc::PROT_READ, flags, -1, 0);
        *libc::__errno_location() = errno;
        at != libc::MAP_FAILED
    }
}

/// Not our fault: what would have happened without us.
fn pass_on(before: &Before, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let handler = before.action.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN || before.action.sa_flags & libc::SA_SIGINFO == 0 {
        return restore_default(signal);
    }
    // SAFETY: the action was installed with SA_SIGINFO, so its handler has this signature.
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = unsafe { std::mem::transmute(handler) };
    handler(signal, info, context);
}

/// The instruction runs again after the handler, and the default action then ends the process with the right signal.
fn restore_default(signal: libc::c_int) {
    // SAFETY: `signal` may be called from a handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
