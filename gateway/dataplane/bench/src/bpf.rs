//! The kernel's own frame generator: an XDP program that is run on frames which then really leave ("live frames").
//!
//! No socket and no packet buffer of the kernel is between the generator and the far end of a veth, so that one core
//! offers more than any balancer takes. Every operation is one `bpf` system call.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_RUN: libc::c_int = 10;
const PROG_TYPE_XDP: u32 = 6;
const LIVE_FRAMES: u32 = 1 << 1;

/// One instruction as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination register in the low half, source register in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// An instruction: operation, destination and source register, offset, immediate value.
pub(crate) const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The part of `union bpf_attr` that loading needs, as far as it is used; the kernel takes what is left out for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for running.
#[repr(C)]
struct Run {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    core: u32,
    batch: u32,
    padding: u32,
}

/// A loaded XDP program.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Load it. The error holds what the kernel's verifier says.
    pub(crate) fn load(instructions: &[Instruction]) -> io::Result<Self> {
        let mut log = vec![0u8; 1 << 20];
        let load = |log: &mut [u8]| {
            bpf(
                PROG_LOAD,
                &mut Load {
                    kind: PROG_TYPE_XDP,
                    count: instructions.len() as u32,
                    instructions: instructions.as_ptr() as u64,
                    licence: c"Apache-2.0".as_ptr() as u64,
                    log_level: u32::from(!log.is_empty()),
                    log_size: log.len() as u32,
                    log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
                },
            )
        };
        match load(&mut []) {
            // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
            Ok(fd) => Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) })),
            Err(error) => {
                // Once more, to hear why.
                let _ = load(&mut log);
                let said = String::from_utf8_lossy(&log);
                let last: Vec<&str> = said.trim_end_matches('\0').trim_end().lines().rev().take(4).collect();
                let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
                Err(io::Error::new(error.kind(), format!("load an XDP program: {error} {said}")))
            }
        }
    }

    /// Run it on `count` frames that begin as `frame`, `batch` (at most 256) between two looks at the send queues.
    pub(crate) fn run_live(&self, frame: &[u8], count: u32, batch: u32) -> io::Result<()> {
        self.run(frame, count, batch, LIVE_FRAMES)
    }

    /// Run it once on a copy of `frame` that goes nowhere: how programs are measured one packet at a time.
    pub(crate) fn run_once(&self, frame: &[u8]) -> io::Result<()> {
        self.run(frame, 1, 0, 0)
    }

    fn run(&self, frame: &[u8], count: u32, batch: u32, flags: u32) -> io::Result<()> {
        let mut run = Run {
            program: self.0.as_raw_fd() as u32,
            result: 0,
            data_size_in: frame.len() as u32,
            data_size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: count,
            duration: 0,
            context_size_in: 0,
            context_size_out: 0,
            context_in: 0,
            context_out: 0,
            flags,
            core: 0,
            batch,
            padding: 0,
        };
        bpf(PROG_RUN, &mut run).map(drop)
    }
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is one of the two structs above, borrowed for the call, its size is given, and the addresses in
    // it are of buffers that their owners in the callers keep alive; the kernel writes within the sizes named there.
    let status = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status as RawFd)
}
