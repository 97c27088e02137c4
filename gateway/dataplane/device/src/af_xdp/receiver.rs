//! The receiving half of a socket: frames out of the receive ring, their buffers back into the fill ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use tgw_forward::{Frame, Nanos};

use super::memory::{Region, Ring};
use super::ring::{Consumer, Producer};
use super::socket;

pub(crate) struct Receiver {
    socket: Arc<OwnedFd>,
    rx: Consumer<Ring<libc::xdp_desc>>,
    fill: Producer<Ring<u64>>,
    region: Region,
    chunk: u64,
    /// What the kernel had dropped when we last asked.
    lost: u64,
}

impl Receiver {
    /// Give the kernel every buffer of the region: `frames` of them, as many as the fill ring holds.
    pub(crate) fn new(
        socket: Arc<OwnedFd>,
        rx: Ring<libc::xdp_desc>,
        fill: Ring<u64>,
        region: Region,
        chunk: u32,
        frames: u32,
    ) -> Self {
        let mut fill = Producer::new(fill);
        for number in 0..u64::from(frames) {
            fill.push(number * u64::from(chunk));
        }
        fill.publish();
        Self { socket, rx: Consumer::new(rx), fill, region, chunk: u64::from(chunk), lost: 0 }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(crate) fn receive(&mut self, port: u16, now: Nanos, frames: &mut [Frame]) -> usize {
        let mut count = 0;
        for frame in frames.iter_mut() {
            let Some(descriptor) = self.rx.pop() else { break };
            // A frame longer than the buffer is cut, as a packet socket cuts it.
            let length = self.region.read(descriptor.addr, descriptor.len as usize, frame.writable_tail());
            frame.set_len(length);
            frame.port = port;
            frame.rx_ns = now;
            // The data lies behind some headroom of the kernel's; the buffer begins at a multiple of its size. There is
            // room: the ring holds all buffers.
            self.fill.push(descriptor.addr & !(self.chunk - 1));
            count += 1;
        }
        if count > 0 {
            self.rx.release();
            self.fill.publish();
        }
        if self.fill.needs_wakeup() {
            socket::refill(self.socket.as_raw_fd());
        }
        count
    }

    /// Frames that the kernel dropped since the last call: it had no buffer, no room in the receive ring, or the frame
    /// was longer than a buffer. (Its count of an empty fill ring counts attempts of the same frames again.)
    pub(crate) fn take_lost(&mut self) -> io::Result<u64> {
        let statistics = socket::statistics(&self.socket)?;
        let lost = statistics.rx_dropped.saturating_add(statistics.rx_ring_full);
        let new = lost.saturating_sub(self.lost);
        self.lost = lost;
        Ok(new)
    }
}
