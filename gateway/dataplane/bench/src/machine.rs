//! What Rust's library does not offer: staying on one core, huge pages, prefetching.

/// The cores that this process may use, in order.
pub(crate) fn cores() -> std::io::Result<Vec<usize>> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: cpu_set_t is a plain array of integers, for which zeros are a valid value (the empty set).
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live cpu_set_t of the size given; 0 means this thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: only reads the set, and every number is below CPU_SETSIZE.
    let is_allowed = |core: &usize| unsafe { libc::CPU_ISSET(*core, &allowed) };
    let most = usize::try_from(libc::CPU_SETSIZE).unwrap_or(1024);
    Ok((0..most).filter(is_allowed).collect())
}

/// Stay on this core, one of [`cores`].
pub(crate) fn stay_on(core: usize) -> std::io::Result<()> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: as above: zeros are the empty set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut one) };
    // SAFETY: the pointer is to a live cpu_set_t of the size given.
    if unsafe { libc::sched_setaffinity(0, size, &one) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Stay on the highest-numbered core that this process may use (the lowest ones serve most interrupts). Its number.
pub(crate) fn stay_on_one_core() -> std::io::Result<usize> {
    let core = *cores()?.last().ok_or_else(|| std::io::Error::other("no core is allowed"))?;
    stay_on(core)?;
    Ok(core)
}

/// Ask for huge pages behind the room that a vector has reserved but not touched yet.
pub(crate) fn ask_for_huge_pages<T>(room: &Vec<T>) {
    const PAGE: usize = 4096;
    let start = (room.as_ptr() as usize).next_multiple_of(PAGE);
    let end = (room.as_ptr() as usize + room.capacity() * size_of::<T>()) / PAGE * PAGE;
    if start < end {
        // SAFETY: the pages lie wholly within one live allocation, and this advice changes no content. It may fail, on a
        // kernel without huge pages: then there are none.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// Ask for the cache line of `place`.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: part of SSE, which every x86_64 has; a hint that accesses nothing, on a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Bytes of memory that this process really has.
pub(crate) fn resident_bytes() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes =
        line.and_then(|rest| rest.trim().strip_suffix("kB")).and_then(|rest| rest.trim().parse::<u64>().ok());
    kilobytes.map(|kb| kb * 1024).ok_or_else(|| std::io::Error::other("/proc/self/status has no VmRSS"))
}
