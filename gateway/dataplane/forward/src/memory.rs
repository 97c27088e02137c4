//! Memory for large tables: zeroed, aligned to cache lines, in huge pages where the system has them.
//!
//! A table of 100 million connections spans gigabytes; with 4 kB pages nearly every lookup would also miss the TLB.
//! Pages become real when they are first written, so a table that is sized for a flood costs little while it is empty.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

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
        // One more huge page, so that the table can begin at the start of one.
        let mapped = layout.size().saturating_add(HUGE_PAGE);
        // SAFETY: a private anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let place = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if place == libc::MAP_FAILED {
            std::alloc::handle_alloc_error(layout);
        }
        let first = (place as usize).next_multiple_of(HUGE_PAGE);
        let slack = first - place as usize;
        if slack > 0 {
            // SAFETY: the first `slack` bytes of the mapping just made, whole pages, which nobody refers to.
            unsafe { libc::munmap(place, slack) };
        }
        let mapped = mapped - slack;
        if layout.size() >= HUGE_PAGE {
            // SAFETY: within the mapping; the advice changes no content. It may fail: then there are small pages.
            unsafe { libc::madvise(first as *mut libc::c_void, mapped, libc::MADV_HUGEPAGE) };
        }
        let start = NonNull::new(first as *mut T).unwrap_or(NonNull::dangling());
        Self { start, len, mapped }
    }

    /// Zeros again.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the mapping is ours, and anonymous private pages read as zeros after this advice.
        let given_back = unsafe { libc::madvise(self.start.as_ptr().cast(), self.mapped, libc::MADV_DONTNEED) };
        if given_back != 0 {
            // SAFETY: `len` elements live there, and zeros are a value of T (the trait's promise).
            unsafe { std::ptr::write_bytes(self.start.as_ptr(), 0, self.len) };
        }
    }
}

impl<T: Zeroed> Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds at least `len` elements, aligned to a huge page, zeros at first, which are values of T.
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
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped) };
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
        for len in [1, 100, 100_000] {
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
