//! The shared memory under a tap, and all the unsafe code of this crate.
//!
//! Another process maps the same file, so no Rust reference to the bytes may exist: words are touched as atomics, records
//! by copies through raw pointers. The cursors decide who may touch a record: the writer fills slots outside
//! `read_cursor..write_cursor`, the reader copies slots inside it, so the two never meet in one slot. A peer that breaks
//! this protocol can spoil records (which are checked where they are used), never memory: records are plain bytes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapMut, MmapOptions, MmapRaw};

/// A mapping of known length, shared between processes or (anonymous) private to this one.
pub(crate) struct Map {
    raw: MmapRaw,
    length: usize,
}

impl Map {
    /// Give `file` its size, with its blocks reserved (a full disk fails here and not as SIGBUS later), and map it.
    pub(crate) fn allocate(file: &File, length: usize) -> io::Result<Self> {
        let size = libc::off_t::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the descriptor is open for the whole call; the call touches no memory of ours.
        let status = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        Self::over(file, length)
    }

    /// Map the first `length` bytes of `file`, which must hold that many.
    pub(crate) fn over(file: &File, length: usize) -> io::Result<Self> {
        if file.metadata()?.len() < length as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(Self { raw: MmapOptions::new().len(length).map_raw(file)?, length })
    }

    /// Memory that no other process sees, zeroed.
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        Ok(Self { raw: MmapRaw::from(MmapMut::map_anon(length)?), length })
    }

    /// The 64-bit word at `offset`, `None` unless it is aligned and inside.
    pub(crate) fn word(&self, offset: usize) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.length {
            return None;
        }
        // SAFETY: in bounds (checked); aligned, because the mapping starts on a page and `offset` divides by 8 (checked);
        // the memory lives as long as `self`, which the result borrows; every access to these words, here and in the
        // peer process, is a single aligned 64-bit one.
        Some(unsafe { AtomicU64::from_ptr(self.raw.as_mut_ptr().add(offset).cast::<u64>()) })
    }

    /// Copy `bytes` to `offset`; false, and nothing done, unless they fit.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.length) {
            return false;
        }
        // SAFETY: in bounds (checked); `bytes` is memory of this process outside the mapping, as nothing here hands out
        // references into it, so the two do not overlap; u8 needs no alignment.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.raw.as_mut_ptr().add(offset), bytes.len()) };
        true
    }

    /// Copy from `offset` into `bytes`; false, and nothing done, unless that many are there.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.length) {
            return false;
        }
        // SAFETY: as in `write`, with source and target exchanged.
        unsafe { std::ptr::copy_nonoverlapping(self.raw.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len()) };
        true
    }
}
