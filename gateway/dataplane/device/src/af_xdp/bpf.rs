//! The system call bpf(2): maps, programs, links. Unsafe code.
//!
//! The structs are the parts of the kernel's `union bpf_attr` (linux/bpf.h) that each command reads; the size that is
//! passed tells it where ours ends, and it takes the rest as zero.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::assembler::Instruction;
use super::program::Maps;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_XSKMAP: u32 = 17;
/// Take memory as entries come, not for all at once.
const NO_PREALLOC: u32 = 1;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    most: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct CreateLink {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// A map from queues to sockets.
pub(crate) fn socket_map(queues: u32) -> io::Result<OwnedFd> {
    owned(call(MAP_CREATE, &CreateMap { kind: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, most: queues, flags: 0 }))
}

/// A set of addresses (16 bytes each) that holds at most so many.
pub(crate) fn address_set(most: u32) -> io::Result<OwnedFd> {
    owned(call(MAP_CREATE, &CreateMap { kind: MAP_TYPE_HASH, key_size: 16, value_size: 1, most, flags: NO_PREALLOC }))
}

/// The socket of this queue.
pub(crate) fn set_socket(map: &OwnedFd, queue: u32, socket: RawFd) -> io::Result<()> {
    let socket = socket as u32;
    update(map, &queue.to_ne_bytes(), &socket.to_ne_bytes())
}

/// Put an address into the set.
pub(crate) fn add_address(map: &OwnedFd, address: [u8; 16]) -> io::Result<()> {
    update(map, &address, &[1])
}

/// Take an address out of the set.
pub(crate) fn remove_address(map: &OwnedFd, address: [u8; 16]) -> io::Result<()> {
    let element = Element { map: raw(map), padding: 0, key: place(&address), value: 0, flags: 0 };
    call(MAP_DELETE, &element).map(drop)
}

/// Load the program that decides, as `program.rs` writes it. The error has the verifier's last words.
pub(crate) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let attempt = |log: &mut [u8]| {
        let load = Load {
            kind: PROG_TYPE_XDP,
            count: code.len() as u32,
            instructions: place(code),
            license: place(b"Apache-2.0\0"),
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr().addr() as u64 },
        };
        owned(call(PROG_LOAD, &load))
    };
    attempt(&mut []).or_else(|first| {
        let mut log = vec![0; 1 << 16];
        attempt(&mut log).map_err(|error| {
            let text = String::from_utf8_lossy(&log);
            match text.trim_end_matches('\0').lines().rev().find(|line| !line.starts_with("processed")) {
                Some(line) if !line.is_empty() => io::Error::new(error.kind(), format!("{error} ({line})")),
                _ => first,
            }
        })
    })
}

/// Attach a program to an interface, `flags` saying how. It is detached when the descriptor is closed, at the latest when
/// the process ends.
pub(crate) fn attach(program: &OwnedFd, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    owned(call(LINK_CREATE, &CreateLink { program: raw(program), interface, attach_type: ATTACH_XDP, flags }))
}

/// The maps by their descriptors, as the program names them.
pub(crate) fn maps(sockets: &OwnedFd, hosts: &OwnedFd) -> Maps {
    Maps { sockets: sockets.as_raw_fd(), hosts: hosts.as_raw_fd() }
}

fn update(map: &OwnedFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    call(MAP_UPDATE, &Element { map: raw(map), padding: 0, key: place(key), value: place(value), flags: 0 }).map(drop)
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd() as u32
}

/// The address of what a slice holds, as the kernel takes it.
fn place<T>(slice: &[T]) -> u64 {
    slice.as_ptr().addr() as u64
}

/// Every pointer in `attributes` must be to memory of the size that the command and the map expect, alive for the call.
fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `attributes` by its size. This function is private, and each caller above points to a
    // slice that it borrows meanwhile: keys and values of the sizes that the maps were made with (4 and 4 bytes, 16 and
    // 1), `count` instructions, a string that ends in NUL, and a log of `log_size` bytes, borrowed mutably: the only
    // memory that the kernel writes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, (&raw const *attributes), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(result: io::Result<libc::c_long>) -> io::Result<OwnedFd> {
    // SAFETY: the three commands that come here give a new descriptor, which nobody else knows.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const PROG_TEST_RUN: libc::c_long = 10;

    #[repr(C)]
    struct Run {
        program: u32,
        result: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    /// What the kernel's program says of a frame.
    pub(crate) fn run(program: &OwnedFd, frame: &[u8]) -> io::Result<u32> {
        let run = Run {
            program: raw(program),
            result: 0,
            size_in: frame.len() as u32,
            size_out: 0,
            data_in: place(frame),
            data_out: 0,
            repeat: 1,
            duration: 0,
        };
        let mut run = run;
        // SAFETY: the kernel reads `size_in` bytes of the frame, which is borrowed, and writes its answer into `run`.
        let status = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut run, size_of::<Run>()) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(run.result)
    }
}
