//! Memory that is shared with the kernel: the frames (UMEM) and the rings. Unsafe code.
//!
//! What the kernel may do to it meanwhile is governed by the rings: a frame is its own from the moment its address is
//! published in the fill or the transmit ring until it comes back in the receive or the completion ring. Nothing here
//! makes a reference into this memory: bytes are copied in and out, so a kernel that broke the rule would garble a
//! frame and nothing else.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use super::ring::Shared;

const HUGE_PAGE: usize = 2 << 20;

/// A mapping, unmapped when it is dropped.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; `start` and `length` never change.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` only yields its address; who touches the bytes argues for that below.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(length: usize, flags: libc::c_int, fd: RawFd, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: address null and no MAP_FIXED: the kernel chooses a place that is free, so nobody's memory is touched.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(|start| Self { start, length }).ok_or_else(io::Error::last_os_error)
    }

    /// The address of `size` bytes at `offset`, aligned for a T; an error when they are not inside.
    fn at<T>(&self, offset: u64, size: usize) -> io::Result<NonNull<T>> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the kernel names a place outside of its ring");
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        let end = offset.checked_add(size).ok_or_else(wrong)?;
        if end > self.length {
            return Err(wrong());
        }
        // SAFETY: `offset` is within the mapping, as was just checked.
        let place = unsafe { self.start.add(offset) }.cast::<T>();
        if place.is_aligned() {
            Ok(place)
        } else {
            Err(wrong())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap gave; every pointer into it lives in a struct that owns (a share of) this mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Room for all frames of a socket, to be split into regions.
pub(crate) struct Area {
    mapping: Arc<Mapping>,
    huge: bool,
}

impl Area {
    /// `length` bytes: on huge pages when they are wanted and there are any, on normal ones otherwise.
    pub(crate) fn new(length: usize, huge: bool) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let mapped = |length, more| Mapping::new(length, flags | more, -1, 0).map(Arc::new);
        if huge {
            let rounded = length.next_multiple_of(HUGE_PAGE);
            if let Ok(mapping) = mapped(rounded, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB) {
                return Ok(Self { mapping, huge: true });
            }
        }
        Ok(Self { mapping: mapped(length, 0)?, huge: false })
    }

    /// Whether it lies on huge pages.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    /// Address and length, for the kernel.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        (self.mapping.start.as_ptr().addr() as u64, self.mapping.length as u64)
    }

    /// Two regions, up to `at` and from there on, that do not overlap. It takes the area, so there are no others.
    pub(crate) fn split(self, at: usize) -> (Region, Region) {
        let at = at.min(self.mapping.length);
        let region = |start, end| Region { mapping: Arc::clone(&self.mapping), start, end };
        (region(0, at), region(at, self.mapping.length))
    }
}

/// A part of the area that one thread at a time reads and writes.
pub(crate) struct Region {
    mapping: Arc<Mapping>,
    start: usize,
    end: usize,
}

impl Region {
    /// Copy `length` bytes at `address` (from the area's start) into `target`, as many as fit; how many. 0 when they are
    /// not all inside this region.
    pub(crate) fn read(&self, address: u64, length: usize, target: &mut [u8]) -> usize {
        let Some(offset) = self.inside(address, length) else { return 0 };
        let count = length.min(target.len());
        // SAFETY: `offset..offset + length` is inside the mapping, which lives while we do; `target` is memory of ours
        // elsewhere, so they do not overlap, and it is `count` bytes long at least. No other region has these bytes, and
        // whoever could write to this one needs `&mut self`. u8 has no invalid values.
        unsafe { ptr::copy_nonoverlapping(self.mapping.start.as_ptr().add(offset), target.as_mut_ptr(), count) };
        count
    }

    /// Copy `bytes` to `address`; false, and nothing done, when that is not inside this region.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(offset) = self.inside(address, bytes.len()) else { return false };
        // SAFETY: as in `read`, the other way round; `&mut self` keeps readers of this region out.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapping.start.as_ptr().add(offset), bytes.len()) };
        true
    }

    fn inside(&self, address: u64, length: usize) -> Option<usize> {
        let offset = usize::try_from(address).ok()?;
        let end = offset.checked_add(length)?;
        (offset >= self.start && end <= self.end).then_some(offset)
    }
}

/// Where the kernel puts the parts of a ring, by its own word.
pub(crate) type Offsets = libc::xdp_ring_offset;

/// A ring of the kernel's, mapped.
pub(crate) struct Ring<E> {
    _mapping: Mapping,
    size: u32,
    produced: NonNull<AtomicU32>,
    consumed: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<E>,
}

// SAFETY: the pointers are into `_mapping`, which moves along and may be used from any thread.
unsafe impl<E: Send> Send for Ring<E> {}

impl<E: Copy> Ring<E> {
    /// Map the ring of `size` entries that socket `fd` has at `page`.
    pub(crate) fn map(fd: RawFd, page: libc::off_t, offsets: &Offsets, size: u32) -> io::Result<Self> {
        let bytes = size as usize * size_of::<E>();
        let length = usize::try_from(offsets.desc).unwrap_or(usize::MAX).saturating_add(bytes);
        let mapping = Mapping::new(length, libc::MAP_SHARED | libc::MAP_POPULATE, fd, page)?;
        let word = size_of::<AtomicU32>();
        Ok(Self {
            size,
            produced: mapping.at(offsets.producer, word)?,
            consumed: mapping.at(offsets.consumer, word)?,
            flags: mapping.at(offsets.flags, word)?,
            slots: mapping.at(offsets.desc, bytes)?,
            _mapping: mapping,
        })
    }

    fn word(&self, place: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: `place` is one of the three above: inside the mapping and aligned, by `Mapping::at`; it lives as long as
        // `self`. Kernel and process both access these words atomically.
        unsafe { place.as_ref() }
    }

    fn slot(&self, number: u32) -> NonNull<E> {
        // SAFETY: the size is a power of two (the kernel refuses any other), so the masked number is below it, and
        // `size` slots are inside the mapping, by `Mapping::at`.
        unsafe { self.slots.add((number & (self.size - 1)) as usize) }
    }
}

impl<E: Copy> Shared for Ring<E> {
    type Entry = E;

    fn size(&self) -> u32 {
        self.size
    }
    fn produced(&self) -> u32 {
        self.word(self.produced).load(Ordering::Acquire)
    }
    fn consumed(&self) -> u32 {
        self.word(self.consumed).load(Ordering::Acquire)
    }
    fn set_produced(&self, count: u32) {
        self.word(self.produced).store(count, Ordering::Release);
    }
    fn set_consumed(&self, count: u32) {
        self.word(self.consumed).store(count, Ordering::Release);
    }
    fn read(&self, number: u32) -> E {
        // SAFETY: `slot` is inside and aligned. Entries are integers, for which all bytes are values; volatile, because
        // the kernel writes them.
        unsafe { self.slot(number).read_volatile() }
    }
    fn write(&self, number: u32, entry: E) {
        // SAFETY: as in `read`. A ring belongs to one `Producer` or `Consumer`, so no other thread of ours writes.
        unsafe { self.slot(number).write_volatile(entry) };
    }
    fn flags(&self) -> u32 {
        self.word(self.flags).load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_keep_to_themselves() {
        let (mut low, mut high) = Area::new(8192, false).unwrap().split(4096);
        assert!(low.write(4090, &[1; 6]) && high.write(4096, &[2; 6]));
        assert!(!low.write(4091, &[3; 6]) && !high.write(4095, &[3]) && !high.write(8190, &[3; 3]));
        assert!(!high.write(u64::MAX, &[3; 3]));
        let mut target = [9; 4];
        assert_eq!((low.read(4090, 6, &mut target), target), (4, [1; 4]), "cut to the target");
        assert_eq!(low.read(4090, 7, &mut target), 0, "a part of it is the other's");
        assert_eq!((high.read(4096, 2, &mut target), target), (2, [2, 2, 1, 1]));
    }

    #[test]
    fn what_the_kernel_says_is_checked() {
        let mapping = Mapping::new(4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0).unwrap();
        assert!(mapping.at::<u32>(4092, 4).is_ok());
        assert!(mapping.at::<u32>(4093, 3).is_err(), "not aligned");
        assert!(mapping.at::<u32>(4096, 4).is_err() && mapping.at::<u64>(u64::MAX, 8).is_err());
    }
}
