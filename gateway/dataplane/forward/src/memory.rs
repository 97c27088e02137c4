//! Memory for large tables: zeroed, aligned to cache lines, in huge pages where the system has them.
//!
//! A table of 100 million connections spans gigabytes; with 4 kB pages nearly every lookup would also miss the TLB.
//! Pages become real when they are first written, so a table that is sized for a flood costs little while it is empty.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

#[cfg(not(miri))]
const HUGE_PAGE: usize = 2 << 20;

/// Types whose all-zero bytes are a value.
///
/// # Safety
/// Every bit pattern of zeros must be a valid value, and the type must not need to be dropped.
pub(crate) unsafe trait Zeroed: Copy {}

/// A slice of `T` that starts as zeros and never grows.
pub(crate) struct Memory<T: Zeroed> {
    start: NonNull<T>,
    len: usize,
    mapped: usize,
}

// SAFETY: it owns its mapping as a Box<[T]> owns its memory; T is Copy and thus has no drop of its own.
unsafe impl<T: Zeroed + Send> Send for Memory<T> {}
// SAFETY: shared access is that of a slice.
unsafe impl<T: Zeroed + Sync> Sync for Memory<T> {}

impl<T: Zeroed> Memory<T> {
    /// `len` zeros. Ends the process when there is not that much address space, as any allocation does.
    pub(crate) fn new(len: usize) -> Self {
        let len = len.max(1);
        let Ok(layout) = std::alloc::Layout::array::<T>(len) else {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<T>());
        };
        let (place, mapped) = pages::reserve(layout);
        Self { start: place.cast(), len, mapped }
    }

    /// Zeros again.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the pages are ours.
        let is_clear = unsafe { pages::forget(self.start.cast(), self.mapped) };
        if !is_clear {
            // SAFETY: `len` elements live there, and zeros are a value of T (the trait's promise).
            unsafe { std::ptr::write_bytes(self.start.as_ptr(), 0, self.len) };
        }
    }
}

impl<T: Zeroed> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: there are at least `len` elements, aligned as the allocation's layout asks, zeros at first, which are values
        // of T.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> Drop for Memory<T> {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and nothing borrowed from them outlives `self`.
        unsafe { pages::release(self.start.cast(), self.mapped) };
    }
}

/// Pages of the system.
#[cfg(not(miri))]
mod pages {
    use std::alloc::{handle_alloc_error, Layout};
    use std::ptr::{self, NonNull};

    use super::HUGE_PAGE;

    /// At least as many zeros as `layout` asks for, and how many, from the start of a huge page on.
    pub(super) fn reserve(layout: Layout) -> (NonNull<u8>, usize) {
        // One more huge page, so that the table can begin at the start of one.
        let mapped = layout.size().saturating_add(HUGE_PAGE);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let place = unsafe { libc::mmap(ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if place == libc::MAP_FAILED {
            handle_alloc_error(layout);
        }
        let slack = place.addr().next_multiple_of(HUGE_PAGE) - place.addr();
        if slack > 0 {
            // SAFETY: the first `slack` bytes of the mapping just made, whole pages, which nobody refers to.
            unsafe { libc::munmap(place, slack) };
        }
        let mapped = mapped - slack;
        // SAFETY: `slack` is less than a huge page, and the mapping was longer than that.
        let first = unsafe { place.byte_add(slack) };
        if layout.size() >= HUGE_PAGE {
            // SAFETY: within the mapping; the advice changes no content. It may fail: then there are small pages.
            unsafe { libc::madvise(first, mapped, libc::MADV_HUGEPAGE) };
        }
        (NonNull::new(first.cast()).unwrap_or_else(|| handle_alloc_error(layout)), mapped)
    }

    /// Whether they are zeros again, without having been written.
    ///
    /// # Safety
    /// `place` and `mapped` are what [`reserve`] returned, and nobody borrows from there.
    pub(super) unsafe fn forget(place: NonNull<u8>, mapped: usize) -> bool {
        // SAFETY: as promised; anonymous private pages read as zeros after this advice.
        unsafe { libc::madvise(place.as_ptr().cast(), mapped, libc::MADV_DONTNEED) == 0 }
    }

    /// Give them back.
    ///
    /// # Safety
    /// As for [`forget`], and nobody comes back to them.
    pub(super) unsafe fn release(place: NonNull<u8>, mapped: usize) {
        // SAFETY: as promised.
        unsafe { libc::munmap(place.as_ptr().cast(), mapped) };
    }
}

/// Miri knows no advice to the kernel: the same of the allocator, exactly as long as asked for, so that it sees who goes
/// beyond.
#[cfg(miri)]
mod pages {
    use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
    use std::ptr::NonNull;

    const PAGE: usize = 4096;

    pub(super) fn reserve(layout: Layout) -> (NonNull<u8>, usize) {
        let size = layout.size();
        // SAFETY: every table has elements of some size.
        let place = unsafe { alloc_zeroed(Layout::from_size_align(size, PAGE).unwrap_or(layout)) };
        (NonNull::new(place).unwrap_or_else(|| handle_alloc_error(layout)), size)
    }

    pub(super) unsafe fn forget(_: NonNull<u8>, _: usize) -> bool {
        false
    }

    pub(super) unsafe fn release(place: NonNull<u8>, size: usize) {
        if let Ok(layout) = Layout::from_size_align(size, PAGE) {
            // SAFETY: of this layout `reserve` has made it.
            unsafe { dealloc(place.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(align(64))]
    struct Line([u64; 8]);

    // SAFETY: integers.
    unsafe impl Zeroed for Line {}

    #[test]
    fn zeros_at_first_and_after_clear() {
        for len in [1, 100, if cfg!(miri) { 1000 } else { 100_000 }] {
            let mut lines: Memory<Line> = Memory::new(len);
            assert_eq!((lines.len(), lines.as_ptr() as usize % 64), (len, 0));
            assert!(lines.iter().all(|line| line.0 == [0; 8]));
            lines[len - 1] = Line([7; 8]);
            assert_eq!(lines[len - 1], Line([7; 8]));
            lines.clear();
            assert!(lines.iter().all(|line| line.0 == [0; 8]));
        }
    }
}
