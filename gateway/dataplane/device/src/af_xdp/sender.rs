//! The sending half of a socket: frames into the transmit ring, their buffers back out of the completion ring.
//!
//! Where the driver copies, the kernel reads the transmit ring only within our own system calls, so a batch is settled
//! before [`Sender::send`] returns: each frame has left, or is refused. What the kernel would not take is overwritten
//! with descriptors that it skips. With zero-copy the driver reads the ring when it likes; a frame in it is on its way.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tgw_forward::Frame;

use super::interface::Interface;
use super::memory::{Region, Ring};
use super::ring::{Consumer, Producer};
use super::socket;

/// Length of the header that an MTU does not count.
const ETHERNET: usize = 14;
/// Attempts at a ring that the kernel does not get on with, beyond those that its budget makes necessary.
const PATIENCE: usize = 4;
/// Frames that the kernel takes with one call at the least.
const BUDGET: usize = 32;
/// A descriptor outside of any area: the kernel counts and skips it.
const NOTHING: libc::xdp_desc = libc::xdp_desc { addr: u64::MAX, len: 0, options: 0 };

/// What a sender is made of.
pub(crate) struct Parts {
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) tx: Ring<libc::xdp_desc>,
    pub(crate) completion: Ring<u64>,
    pub(crate) region: Region,
    /// Where the buffers begin in the area.
    pub(crate) start: u64,
    /// How many there are: as many as each ring holds.
    pub(crate) frames: u32,
    /// Size of a buffer [bytes].
    pub(crate) chunk: u32,
    pub(crate) zero_copy: bool,
    pub(crate) interface: Interface,
}

pub(crate) struct Sender {
    socket: Arc<OwnedFd>,
    tx: Producer<Ring<libc::xdp_desc>>,
    completion: Consumer<Ring<u64>>,
    region: Region,
    /// Addresses of the buffers that are ours.
    free: Vec<u64>,
    /// The batch that is being sent: index of the frame, address of its buffer.
    batch: Vec<(usize, u64)>,
    chunk: usize,
    zero_copy: bool,
    interface: Interface,
    mtu: usize,
    /// The ring may not be empty: the link was down when we last tried.
    stuck: bool,
    /// Overwritten descriptors that the kernel has skipped, ever.
    skipped: u64,
}

impl Sender {
    pub(crate) fn new(parts: Parts) -> Self {
        socket::raise_budget(&parts.socket, parts.frames);
        let free = (0..u64::from(parts.frames)).map(|number| parts.start + number * u64::from(parts.chunk)).collect();
        Self {
            socket: parts.socket,
            tx: Producer::new(parts.tx),
            completion: Consumer::new(parts.completion),
            region: parts.region,
            free,
            batch: Vec::with_capacity(parts.frames as usize),
            chunk: parts.chunk as usize,
            zero_copy: parts.zero_copy,
            mtu: parts.interface.mtu().unwrap_or(0) as usize,
            interface: parts.interface,
            stuck: false,
            skipped: 0,
        }
    }

    /// Send the frames that `chosen` indexes; those that are not taken go to `refused`.
    pub(crate) fn send(&mut self, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        if self.stuck {
            if self.transmit().is_err() || self.drain().is_none() {
                refused.extend_from_slice(chosen);
                return;
            }
            self.stuck = false;
        }
        self.reclaim();
        self.batch.clear();
        for &index in chosen {
            if !self.queue(index, frames[index].bytes()) {
                refused.push(index);
            }
        }
        if self.batch.is_empty() {
            return;
        }
        self.tx.publish();
        if !self.zero_copy {
            self.settle(refused);
        } else if self.tx.needs_wakeup() {
            let _ = self.transmit();
        }
    }

    /// Put a frame into the ring, if it may go and there is room.
    fn queue(&mut self, index: usize, bytes: &[u8]) -> bool {
        if bytes.len() < ETHERNET || bytes.len() > self.chunk || !self.is_within_mtu(bytes.len()) {
            return false;
        }
        if self.tx.room(1) == 0 {
            return false;
        }
        let Some(address) = self.free.pop() else { return false };
        self.region.write(address, bytes);
        self.batch.push((index, address));
        self.tx.push(libc::xdp_desc { addr: address, len: bytes.len() as u32, options: 0 })
    }

    /// The kernel does not compare. The MTU may have changed, so it is asked for again before a frame is refused.
    fn is_within_mtu(&mut self, length: usize) -> bool {
        if length > self.mtu + ETHERNET {
            self.mtu = self.interface.mtu().map_or(self.mtu, |mtu| mtu as usize);
        }
        length <= self.mtu + ETHERNET
    }

    /// Have the kernel take the batch, whole if it can be; what it does not take is refused.
    fn settle(&mut self, refused: &mut Vec<usize>) {
        let count = self.batch.len();
        let mut patience = count.div_ceil(BUDGET) + PATIENCE;
        // How many of the batch have left the ring, as far as we know.
        let mut gone = 0;
        while gone < count {
            match self.transmit().map_err(|error| error.raw_os_error()) {
                Ok(()) if self.tx.pending() == 0 => return,
                // It took one more frame and dropped it: the last one it took.
                Err(Some(libc::EBUSY)) => {
                    gone = count.saturating_sub(self.tx.pending() as usize).clamp(gone + 1, count);
                    if let Some((index, _)) = self.batch.get(gone - 1) {
                        refused.push(*index);
                    }
                }
                // Its budget is spent, or the device's queue is full.
                Ok(()) | Err(Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR)) => {
                    patience -= 1;
                    if patience == 0 {
                        break;
                    }
                }
                // The link is down or gone.
                Err(_) => {
                    self.stuck = true;
                    break;
                }
            }
        }
        let left = count - count.saturating_sub(self.tx.pending() as usize).max(gone);
        if left > 0 {
            self.withdraw(left, refused);
        }
    }

    /// Take the last `left` frames out of the ring, which the kernel has not come to by its own count. Older kernels
    /// bring that count up to date late, so the descriptors that they skip tell how many it really were.
    fn withdraw(&mut self, left: usize, refused: &mut Vec<usize>) {
        self.tx.overwrite_last(left as u32, NOTHING);
        let drained = self.drain();
        self.stuck |= drained.is_none();
        let unsent = drained.map_or(left, |skipped| left.min(skipped as usize));
        for &(index, address) in &self.batch[self.batch.len() - unsent..] {
            refused.push(index);
            self.free.push(address);
        }
    }

    /// Have the kernel skip what was overwritten, all that is left in the ring, and say how many it skipped. Some kernels
    /// skip one a call. `None` when it does not get to the end.
    fn drain(&mut self) -> Option<u64> {
        self.reclaim();
        // One more call than there are descriptors brings its count up to date.
        for _ in 0..=self.tx.pending() + 1 {
            if self.tx.pending() == 0 {
                break;
            }
            self.transmit().ok()?;
        }
        if self.tx.pending() > 0 {
            return None;
        }
        let all = socket::statistics(&self.socket).ok()?.tx_invalid_descs;
        let new = all.saturating_sub(self.skipped);
        self.skipped = all;
        Some(new)
    }

    fn transmit(&self) -> io::Result<()> {
        socket::transmit(self.socket.as_raw_fd())
    }

    /// Take the buffers of frames that have left. Some kernels give back what they skipped, too: that is no buffer.
    fn reclaim(&mut self) {
        let mut any = false;
        while let Some(address) = self.completion.pop() {
            if address != NOTHING.addr {
                self.free.push(address);
            }
            any = true;
        }
        if any {
            self.completion.release();
        }
    }
}
