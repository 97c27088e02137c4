//! Software prefetch: the only unsafe code of this crate.

/// Ask for the cache line of `place`. A hint: nothing is read, nothing can fault.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: the instruction is part of SSE, which every x86_64 has, and it does not access memory
        // architecturally: any address would do, and this one is a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
