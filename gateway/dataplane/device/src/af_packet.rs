//! A Linux interface through packet sockets: any interface, any kernel, no preparation but CAP_NET_RAW.
//!
//! The kernel's own stack sees the same frames; the node's tables say which are its (`host_addresses`). Frames come and
//! go in batches of [`BATCH`] by recvmmsg and sendmmsg.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use tgw_forward::{Frame, Nanos};

use crate::{sys, Device, DeviceError, BATCH};

/// Bytes the kernel may queue for us while the worker is away.
const RECEIVE_QUEUE: i32 = 8 << 20;
const SEND_QUEUE: i32 = 4 << 20;
/// How long after a failed attempt to bind again.
const RETRY_NS: Nanos = 500_000_000;

/// Who receives the frames of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// This device, all of them.
    All,
    /// This device, those of its share: every device of the same group takes the flows that hash to it.
    Shared {
        /// Number of the group, one for each interface of a process.
        group: u16,
    },
    /// Another device; this one only sends.
    Nothing,
}

/// One interface.
pub struct AfPacket {
    port: u16,
    interface: String,
    receive: Receive,
    socket: OwnedFd,
    lengths: [usize; BATCH],
    /// When to bind again, after the interface went away. `None` while all is well.
    retry_at: Option<Nanos>,
}

impl AfPacket {
    /// Open `interface` as `port`. `DeviceError` when there is no such interface or no right to open it; an interface
    /// that is only down is no error.
    pub fn open(port: u16, interface: &str, receive: Receive) -> Result<Self, DeviceError> {
        let index = sys::interface_index(interface).map_err(DeviceError::new(interface, "find the interface"))?;
        let socket = sys::packet_socket().map_err(DeviceError::new(interface, "open a packet socket"))?;
        let fd = socket.as_raw_fd();
        let set = |level, option, value, doing| {
            sys::set_option(fd, level, option, value).map_err(DeviceError::new(interface, doing))
        };
        set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1, "ignore outgoing frames")?;
        // The FORCE variants go past the system's limit and need CAP_NET_ADMIN; without it, take what the limit gives.
        if set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_QUEUE, "size the receive queue").is_err() {
            set(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_QUEUE, "size the receive queue")?;
        }
        if set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_QUEUE, "size the send queue").is_err() {
            set(libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_QUEUE, "size the send queue")?;
        }
        let hear = receive != Receive::Nothing;
        sys::bind(fd, index, hear).map_err(DeviceError::new(interface, "bind to the interface"))?;
        if let Receive::Shared { group } = receive {
            let argument = i32::from(group) | ((libc::PACKET_FANOUT_HASH as i32) << 16);
            set(libc::SOL_PACKET, libc::PACKET_FANOUT, argument, "share the interface between workers")?;
        }
        Ok(Self { port, interface: interface.to_owned(), receive, socket, lengths: [0; BATCH], retry_at: None })
    }

    /// The link failed. A link that comes up again goes on by itself; an interface that was made anew must be bound
    /// anew (a shared one stays in its group and follows the group's binding, so it is left alone).
    fn failed(&mut self, now: Nanos) {
        sys::take_error(&self.socket);
        if self.retry_at.is_none() {
            self.retry_at = Some(now);
        }
    }

    fn mend(&mut self, now: Nanos) {
        if self.retry_at.is_some_and(|at| now >= at) {
            let rebound = match self.receive {
                Receive::Shared { .. } => Ok(()),
                _ => sys::interface_index(&self.interface)
                    .and_then(|index| sys::bind(self.socket.as_raw_fd(), index, self.receive != Receive::Nothing)),
            };
            self.retry_at = rebound.is_err().then_some(now.saturating_add(RETRY_NS));
        }
    }
}

impl Device for AfPacket {
    fn port(&self) -> u16 {
        self.port
    }

    fn descriptor(&self) -> Option<RawFd> {
        (self.receive != Receive::Nothing).then(|| self.socket.as_raw_fd())
    }

    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        self.mend(now);
        let result = {
            let mut buffers: [&mut [u8]; BATCH] = std::array::from_fn(|_| Default::default());
            let room = frames.len().min(BATCH);
            for (buffer, frame) in buffers.iter_mut().zip(frames.iter_mut()) {
                *buffer = frame.writable_tail();
            }
            sys::receive(self.socket.as_raw_fd(), &mut buffers[..room], &mut self.lengths)
        };
        match result {
            Ok(count) => {
                for (frame, &length) in frames.iter_mut().zip(&self.lengths).take(count) {
                    frame.set_len(length);
                    frame.port = self.port;
                    frame.rx_ns = now;
                }
                count
            }
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    self.failed(now);
                }
                0
            }
        }
    }

    fn send(&mut self, now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        self.mend(now);
        let mut left = chosen;
        while !left.is_empty() {
            let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
            let count = left.len().min(BATCH);
            for (slot, &index) in batch.iter_mut().zip(left) {
                *slot = frames[index].bytes();
            }
            match sys::send(self.socket.as_raw_fd(), &batch[..count]) {
                Ok(sent) => left = &left[sent.clamp(1, count)..],
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The frame is at fault: longer than the link's MTU, or no frame.
                    Some(libc::EMSGSIZE | libc::EINVAL) => {
                        refused.push(left[0]);
                        left = &left[1..];
                    }
                    // The queue is full: the rest of the batch will find it full too.
                    Some(libc::EAGAIN | libc::ENOBUFS) => {
                        refused.extend_from_slice(left);
                        return;
                    }
                    // The link is down or gone.
                    _ => {
                        refused.extend_from_slice(left);
                        self.failed(now);
                        return;
                    }
                },
            }
        }
    }

    fn take_lost(&mut self) -> u64 {
        if self.receive == Receive::Nothing {
            return 0;
        }
        sys::take_drops(self.socket.as_raw_fd()).unwrap_or(0)
    }
}
