//! The mapping of one file: opened so that no pipe or device can hold us up, read into memory on demand, its length checked again on
//! demand.

use super::error::{Fault, GgufError};
use super::guard::Guard;
use super::huge;
use memmap2::{Advice, Mmap, UncheckedAdvice};
use rustix::fs::{fadvise, fdatasync};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

/// Bytes read anew at a time: a step waits for no more than these.
const PIECE: usize = 8 << 20;
/// The largest that Linux has for an ordinary page (ARM64): a multiple of all others.
const PAGE_MOST: usize = 64 << 10;
/// So many pieces in a row that came back in small pages: there are no huge ones to be had.
const VAIN: usize = 4;

/// A regular file, mapped for reading. Dereferences to its bytes.
#[derive(Debug)]
pub struct Map {
    path: PathBuf,
    file: File,
    /// When the file was last written to, as of its opening; `None` where the file system doesn't tell.
    written: Option<SystemTime>,
    /// Whether huge pages were asked for.
    asked: AtomicBool,
    /// How far it was read anew, in bytes.
    gathered: AtomicUsize,
    /// Stands before `bytes`: fields are dropped in this order.
    guard: Guard,
    bytes: Mmap,
}

impl Map {
    pub fn open(path: &Path) -> Result<Map, GgufError> {
        let fail = |doing| move |error| Fault::Io { doing, error }.at(path);
        // Without O_NONBLOCK a FIFO would hold us here until somebody writes to it; a regular file does not care.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fail("opened"))?;
        let about = file.metadata().map_err(fail("examined"))?;
        let kind = about.file_type();
        let other = match () {
            () if kind.is_file() => None,
            () if kind.is_dir() => Some("a directory"),
            () if kind.is_fifo() => Some("a pipe"),
            () if kind.is_char_device() || kind.is_block_device() => Some("a device"),
            () => Some("something other than a regular file"),
        };
        if let Some(what) = other {
            return Err(Fault::NotAFile { what }.at(path));
        }
        if about.len() == 0 {
            return Err(Fault::Empty.at(path));
        }
        // SAFETY: the mapping is read-only. Nobody may write to a model while it is open: `Gguf` says so to its users,
        // all values read again from the mapping are checked again, `guard` bears pages that cannot be read, and `check` notices both.
        let bytes = unsafe { Mmap::map(&file) }.map_err(fail("mapped"))?;
        let guard = Guard::new(bytes.as_ptr_range());
        Ok(Map {
            path: path.to_owned(),
            file,
            written: about.modified().ok(),
            asked: AtomicBool::default(),
            gathered: AtomicUsize::default(),
            guard,
            bytes,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `range` (clipped to the file) into memory, in huge pages where it can, and maps its pages; returns when they are there.
    pub fn prefetch(&self, range: Range<usize>) -> Result<(), GgufError> {
        let end = range.end.min(self.bytes.len());
        if range.start >= end {
            return Ok(());
        }
        if !self.asked.swap(true, Relaxed) && self.huge_page().is_some() {
            // Not at the opening: whoever only looks at the header would wait for megabytes of a slow card.
            _ = self.bytes.advise(Advice::HugePage);
        }
        let advise = |advice| self.bytes.advise_range(advice, range.start, end - range.start);
        match advise(Advice::PopulateRead) {
            Ok(()) => Ok(()),
            // Linux before 5.14 does not know it: there the kernel only starts to read, and pages are mapped as they are used.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => advise(Advice::WillNeed).map_err(|e| self.unreadable(e)),
            Err(e) => Err(self.unreadable(e)),
        }
    }

    /// As [`Gguf::gather`](super::Gguf::gather) has it; `data`: where the tensors begin.
    pub fn gather(&self, data: usize, go_on: &dyn Fn() -> bool) -> Result<bool, GgufError> {
        let Some(page) = self.huge_page() else { return Ok(false) };
        let whole = self.bytes.len() / page * page;
        let mapped = || huge::mapped(&self.bytes.as_ptr_range());
        // Now and then there is no room in one piece for a huge page.
        let enough = |mapped: usize| mapped >= whole / 8 * 7;
        // A page counts once it is mapped.
        for at in (data..self.bytes.len()).step_by(PIECE) {
            if !go_on() {
                return Ok(false);
            }
            self.prefetch(at..at + PIECE)?;
        }
        // What was just written can't be dropped before it is on the disk. Where this or a drop below fails, the old pages stay.
        _ = fdatasync(&self.file);
        let (mut before, mut vain) = (mapped(), 0);
        while !enough(before) && vain < VAIN {
            // No piece is read anew twice: whoever is disturbed goes on here.
            let at = self.gathered.load(Relaxed);
            if at >= whole || !go_on() {
                return Ok(false);
            }
            self.gathered.store(at + PIECE, Relaxed);
            self.read_anew(at..(at + PIECE).min(self.bytes.len()))?;
            let now = mapped();
            vain = if now > before { 0 } else { vain + 1 };
            before = now;
        }
        Ok(enough(before))
    }

    /// Takes the pages before byte `end` out of this process's page tables; they come back when they are read.
    pub fn let_go(&self, end: usize) {
        let whole = end.min(self.bytes.len()) / PAGE_MOST * PAGE_MOST;
        // SAFETY: as in `read_anew`.
        _ = unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, 0, whole) };
    }

    /// Bytes of the system's huge pages, where they are of use to this file: no larger than is waited for, and it has one.
    fn huge_page(&self) -> Option<usize> {
        huge::page_bytes().filter(|page| *page <= PIECE && *page <= self.bytes.len())
    }

    /// Drops `range`, whole pages of the file, from the page cache, and reads it again. Where it can't be dropped the old pages stay.
    fn read_anew(&self, range: Range<usize>) -> Result<(), GgufError> {
        let length = range.len();
        // SAFETY: of a mapped file only the page table's entries go: whoever reads the range next finds the file's bytes again, or zeros
        // where the guard has put them.
        _ = unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, length) };
        _ = fadvise(&self.file, range.start as u64, NonZeroU64::new(length as u64), rustix::fs::Advice::DontNeed);
        self.prefetch(range)
    }

    /// Whether opening its path again would give this file, unchanged.
    pub fn is_current(&self) -> bool {
        let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let found = std::fs::metadata(&self.path).and_then(|there| Ok(same(there, self.file.metadata()?)));
        found.unwrap_or(false) && self.check().is_ok()
    }

    fn unreadable(&self, error: io::Error) -> GgufError {
        self.check().err().unwrap_or_else(|| Fault::Io { doing: "read", error }.at(&self.path))
    }

    /// Refuses a file that was cut short or written to, or of which a page could not be read.
    pub fn check(&self) -> Result<(), GgufError> {
        let about = self.file.metadata().map_err(|error| Fault::Io { doing: "examined", error }.at(&self.path))?;
        let (was, now) = (self.bytes.len() as u64, about.len());
        let fault = match () {
            () if now < was => Fault::Shrunk { was, now },
            () if about.modified().ok() != self.written => Fault::Written,
            () if self.guard.lost() => Fault::Lost,
            () => return Ok(()),
        };
        Err(fault.at(&self.path))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
