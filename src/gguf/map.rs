//! The mapping of one file: opened so that no pipe or device can hold us up, read ahead on demand, its length checked again on demand.

use super::error::{Fault, GgufError};
use super::guard::Guard;
use memmap2::{Advice, Mmap};
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

    /// Starts to read `range` (clipped to the file) into memory. Costs next to nothing where it is there already; maps no page.
    pub fn read_ahead(&self, range: Range<usize>) -> Result<(), GgufError> {
        let end = range.end.min(self.bytes.len());
        if range.start >= end {
            return Ok(());
        }
        self.bytes.advise_range(Advice::WillNeed, range.start, end - range.start).map_err(|e| self.unreadable(e))
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
