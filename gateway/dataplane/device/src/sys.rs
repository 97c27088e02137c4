//! The system calls of packet sockets and polling. Unsafe code; the only other place of it is `af_xdp`.
//!
//! Every function here takes and gives safe types; what a call may touch is borrowed for exactly the call.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::BATCH;

/// A raw packet socket in non-blocking mode that is bound to nothing yet. `libc::EPERM` without CAP_NET_RAW.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers. Protocol 0: it hears nothing until it is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    owned(fd)
}

/// Bind a packet socket to an interface; `hear` decides whether it receives that interface's frames.
pub(crate) fn bind(fd: RawFd, interface: u32, hear: bool) -> io::Result<()> {
    // SAFETY: sockaddr_ll is a C struct of integers, for which zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = if hear { (libc::ETH_P_ALL as u16).to_be() } else { 0 };
    address.sll_ifindex = interface as libc::c_int;
    // SAFETY: the pointer is to `address`, alive for the call, and the length is its size.
    let status = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    done(status)
}

/// The index of an interface of this network namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a NUL-terminated string, alive for the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Set an integer option of a socket.
pub(crate) fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer is to `value`, alive for the call, and the length is its size.
    let status = unsafe {
        libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t)
    };
    done(status)
}

/// Frames that the kernel dropped for this socket since the last call (reading clears them).
pub(crate) fn take_drops(fd: RawFd) -> io::Result<u64> {
    // SAFETY: tpacket_stats is a C struct of integers, for which zero bytes are a value.
    let mut stats: libc::tpacket_stats = unsafe { mem::zeroed() };
    let mut length = size_of_val(&stats) as libc::socklen_t;
    // SAFETY: both pointers are to locals alive for the call, and `length` is the size of the first.
    let status = unsafe {
        libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut stats).cast(), &raw mut length)
    };
    done(status).map(|()| u64::from(stats.tp_drops))
}

/// Receive at most `BATCH` frames at once into `buffers`; their lengths go to `lengths`, cut to the buffer's size.
/// Returns how many; `WouldBlock` when none waits.
pub(crate) fn receive(fd: RawFd, buffers: &mut [&mut [u8]], lengths: &mut [usize; BATCH]) -> io::Result<usize> {
    // SAFETY: iovec and mmsghdr are C structs of integers and pointers, for which zero bytes are a value.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { mem::zeroed() };
    let count = buffers.len().min(BATCH);
    for ((buffer, vector), message) in buffers.iter_mut().zip(&mut vectors).zip(&mut messages) {
        *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` messages point to vectors, and these to buffers, that are borrowed or owned by this
    // function until it returns; the kernel writes within iov_len. No time-out is passed.
    let got = unsafe {
        libc::recvmmsg(fd, messages.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT, std::ptr::null_mut())
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for ((length, message), vector) in lengths.iter_mut().zip(&messages).zip(&vectors).take(got) {
        *length = (message.msg_len as usize).min(vector.iov_len);
    }
    Ok(got)
}

/// Send the first of `frames`, at most `BATCH`, at once. Returns how many went, at least one; the error is the first's.
pub(crate) fn send(fd: RawFd, frames: &[&[u8]]) -> io::Result<usize> {
    // SAFETY: as in `receive`.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { mem::zeroed() };
    let count = frames.len().min(BATCH);
    for ((frame, vector), message) in frames.iter().zip(&mut vectors).zip(&mut messages) {
        // The kernel only reads through this pointer: sendmsg shares its struct with recvmsg, hence the cast.
        *vector = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` messages point to vectors, and these to frames, that live until this function returns.
    let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// A counter that polls readable once something was added.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// Wait until one of the descriptors is readable (or in error), at most `timeout_ms`; which of them are.
pub(crate) fn poll(descriptors: &mut [libc::pollfd], timeout_ms: libc::c_int) -> io::Result<usize> {
    // SAFETY: pointer and length are those of the borrowed slice.
    let ready = unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}

/// The error that waits on a socket, which asking clears: otherwise poll reports it for ever.
pub(crate) fn take_error(fd: &OwnedFd) {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: both pointers are to locals alive for the call, and `length` is the size of the first. The value is of no
    // interest: the caller asks because it has an error already.
    let _ = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut value).cast(), &raw mut length)
    };
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn done(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
