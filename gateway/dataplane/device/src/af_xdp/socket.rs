//! The system calls of AF_XDP sockets. Unsafe code.
//!
//! Every function takes and gives safe types; what a call may touch is borrowed for exactly the call. Only `register`
//! lends memory for longer: the caller keeps the area for as long as the socket.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::memory::Area;

/// Most frames of one transmitting system call; newer kernels let it be set, older ones have 32.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// An AF_XDP socket that is bound to nothing yet. `libc::EAFNOSUPPORT` when the kernel has none, `libc::EPERM` without
/// CAP_NET_RAW.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Let the kernel use `area` for frames of `chunk` bytes.
pub(crate) fn register(fd: &OwnedFd, area: &Area, chunk: u32) -> io::Result<()> {
    let (addr, len) = area.bounds();
    let region = libc::xdp_umem_reg { addr, len, chunk_size: chunk, headroom: 0, flags: 0, tx_metadata_len: 0 };
    set(fd, libc::XDP_UMEM_REG, &region)
}

/// Make a ring (`XDP_RX_RING` and its like) of that many entries, a power of two.
pub(crate) fn make_ring(fd: &OwnedFd, ring: libc::c_int, entries: u32) -> io::Result<()> {
    set(fd, ring, &entries)
}

/// Let one system call transmit as many frames as the ring holds, where the kernel can be told so.
pub(crate) fn raise_budget(fd: &OwnedFd, frames: u32) {
    let _ = set(fd, XDP_MAX_TX_SKB_BUDGET, &frames);
}

/// Where the parts of the rings lie.
pub(crate) fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a C struct of integers, for which zero bytes are a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
    get(fd, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    Ok(offsets)
}

/// Bind to a queue of an interface. `shared`: a socket of the same queue, bound before, whose frames this one uses too.
pub(crate) fn bind(fd: &OwnedFd, interface: u32, queue: u32, flags: u16, shared: Option<&OwnedFd>) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to `address`, alive for the call, and the length is its size.
    done(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })
}

/// Whether the bound socket's frames are the driver's own (nothing is copied).
pub(crate) fn is_zero_copy(fd: &OwnedFd) -> io::Result<bool> {
    let mut options = libc::xdp_options { flags: 0 };
    get(fd, libc::XDP_OPTIONS, &mut options)?;
    Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
}

/// What the kernel counts for a socket, since it was made.
pub(crate) fn statistics(fd: &OwnedFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: a C struct of integers, for which zero bytes are a value.
    let mut statistics: libc::xdp_statistics = unsafe { mem::zeroed() };
    get(fd, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// Have the kernel look at the transmit ring.
pub(crate) fn transmit(fd: RawFd) -> io::Result<()> {
    // SAFETY: no bytes and no address are passed, so there is nothing to read.
    let status = unsafe { libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    done(status as libc::c_int)
}

/// Have the kernel look at the fill ring.
pub(crate) fn refill(fd: RawFd) {
    // SAFETY: room for no bytes and no address is passed, so there is nothing to write. Nothing follows from a failure:
    // the link is down, or the next call does it.
    unsafe { libc::recvfrom(fd, ptr::null_mut(), 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut()) };
}

/// Set an option whose value is a C integer or struct of integers.
fn set<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to `value`, alive for the call, and the length is its size.
    done(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (&raw const *value).cast(), length) })
}

/// Read an option whose value is a C struct of integers; what an older kernel does not know keeps its value.
fn get<T: Copy>(fd: &OwnedFd, option: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: both pointers are to variables alive for the call, `length` is the size of the first, and the kernel writes
    // integers, for which all bytes are values.
    done(unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (&raw mut *value).cast(), &raw mut length) })
}

fn done(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
