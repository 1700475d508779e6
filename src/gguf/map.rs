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
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes read anew at a time, or a huge page where that is larger: a step waits for no more than these.
const PIECE: usize = 8 << 20;

/// A regular file, mapped for reading. Dereferences to its bytes.
#[derive(Debug)]
pub struct Map {
    path: PathBuf,
    file: File,
    /// When the file was last written to, as of its opening; `None` where the file system doesn't tell.
    written: Option<SystemTime>,
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
        // SAFETY: the mapping is read-only and private. Nobody may write to a model while it is open: `Gguf` says so to its users,
        // all values read again from the mapping are checked again, `guard` bears pages that cannot be read, and `check` notices both.
        let bytes = unsafe { Mmap::map(&file) }.map_err(fail("mapped"))?;
        // Asked for before the first page is read; where the system has no huge pages, the others do.
        _ = bytes.advise(Advice::HugePage);
        let guard = Guard::new(bytes.as_ptr_range());
        Ok(Map { path: path.to_owned(), file, written: about.modified().ok(), guard, bytes })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `range` (clipped to the file) into memory and maps its pages; returns when they are there.
    pub fn prefetch(&self, range: Range<usize>) -> Result<(), GgufError> {
        let end = range.end.min(self.bytes.len());
        if range.start >= end {
            return Ok(());
        }
        let advise = |advice| self.bytes.advise_range(advice, range.start, end - range.start);
        match advise(Advice::PopulateRead) {
            Ok(()) => Ok(()),
            // Linux before 5.14 does not know it: there the kernel only starts to read, and pages are mapped as they are used.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => advise(Advice::WillNeed).map_err(|e| self.unreadable(e)),
            Err(e) => Err(self.unreadable(e)),
        }
    }

    /// Whether every page of `range` (clipped to the file) is in the page cache; where the system doesn't tell, no.
    pub fn is_in_memory(&self, range: Range<usize>) -> bool {
        let page = rustix::param::page_size();
        let (start, end) = (range.start / page * page, range.end.min(self.bytes.len()));
        let mut pages = vec![0u8; end.saturating_sub(start).div_ceil(page)];
        let first = self.bytes.as_ptr().wrapping_add(start).cast_mut().cast();
        // SAFETY: the addresses, from the start of a page on, are mapped, and `pages` has a byte for each page.
        let told = pages.is_empty() || unsafe { libc::mincore(first, end - start, pages.as_mut_ptr()) } == 0;
        told && pages.iter().all(|p| p & 1 == 1)
    }

    /// As [`Gguf::gather`](super::Gguf::gather) has it.
    pub fn gather(&self, go_on: &dyn Fn() -> bool) -> Result<bool, GgufError> {
        let (Some(page), length) = (huge::page_bytes(), self.bytes.len()) else { return Ok(false) };
        // Now and then there is no room in one piece for a huge page.
        let enough = || huge::mapped(&self.bytes.as_ptr_range()) >= length / page * page / 8 * 7;
        // A page counts once it is mapped.
        self.prefetch(0..length)?;
        if enough() {
            return Ok(true);
        }
        let piece = PIECE.max(page);
        for at in (0..length / page * page).step_by(piece) {
            let piece = at..(at + piece).min(length);
            if !go_on() || !self.read_anew(piece)? || at == 0 && huge::mapped(&self.bytes.as_ptr_range()) == 0 {
                return Ok(false);
            }
        }
        Ok(enough())
    }

    /// Drops `range`, whole pages of the file, from the page cache, and reads it again. False: it could not be dropped.
    fn read_anew(&self, range: Range<usize>) -> Result<bool, GgufError> {
        let length = range.len();
        // What was just written can't be dropped before it is on the disk. Where one of the three fails, the old pages stay.
        _ = fdatasync(&self.file);
        // SAFETY: of a mapped file only the page table's entries go; whoever reads the range next finds the file's bytes again.
        _ = unsafe { self.bytes.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, length) };
        _ = fadvise(&self.file, range.start as u64, NonZeroU64::new(length as u64), rustix::fs::Advice::DontNeed);
        let dropped = !self.is_in_memory(range.clone());
        self.prefetch(range)?;
        Ok(dropped)
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
