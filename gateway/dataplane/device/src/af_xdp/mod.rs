//! A Linux interface through AF_XDP sockets: frames pass the kernel's stack by, in memory shared with the driver.
//!
//! A program on the interface ([`program`]) gives the frames that are the node's to the socket of the queue they came by,
//! and all others to the host's own stack. Each queue that receives has one socket with four rings ([`ring`]) over one
//! area of frames ([`memory`]). Receiving copies out of that area and sending copies into it, since a [`Frame`] owns its
//! buffer; with a driver's zero-copy these are the only copies, otherwise the kernel makes another.
//!
//! A CLB receives in one thread and sends in others, and the rings have one end each for one thread. So a set may be
//! opened apart: the receivers as before, and for each queue a sender. A queue that receives belongs to one area, hence its
//! sender is a second socket on the same area (XDP_SHARED_UMEM), which has the transmit and the completion ring to itself,
//! as the receiver has the others; their frames do not overlap. A transmit queue beyond the receive queues gets a socket
//! and an area of its own.
//!
//! A queue that is added later has no socket: its frames are the host's. An interface that is made anew is not found
//! again, unlike with AF_PACKET: then the port refuses what it is given until the node starts again.

mod assembler;
mod bpf;
mod hook;
mod interface;
mod memory;
mod program;
mod receiver;
mod ring;
mod sender;
mod socket;

use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tgw_forward::{Frame, Nanos, DEFAULT_CAPACITY, HEADROOM};

use crate::{sys, Device, DeviceError};
use hook::Hook;
use interface::Interface;
use memory::{Area, Ring};
use receiver::Receiver;
use sender::{Parts, Sender};

/// Most bytes of a frame that the kernel puts into a buffer of 2048: it keeps some headroom.
const HALF_PAGE: u32 = 2048;
const KERNEL_HEADROOM: u32 = 256;
/// Ethernet header and a VLAN tag, which an MTU does not count.
const LINK_HEADER: u32 = 18;
/// A queue whose last socket was just closed is busy for a moment.
const BUSY: (u32, Duration) = (50, Duration::from_millis(10));

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet buffer of the frame.
    Native,
    /// In the kernel's receive path: any driver, slower.
    Generic,
}

/// Who copies between the driver's memory and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Nobody: the driver uses our memory.
    Zero,
    /// The kernel.
    Kernel,
}

/// How to open an interface.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Only this mode; `None`: native where it works, else generic.
    pub mode: Option<Mode>,
    /// Only this; `None`: zero-copy where it works, else copies by the kernel.
    pub copying: Option<Copying>,
    /// Buffers of a queue to receive into, a power of two.
    pub receive_frames: u32,
    /// Buffers of a queue to send from, a power of two.
    pub send_frames: u32,
    /// Use pages of 2 MB if there are any.
    pub huge_pages: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: None, copying: None, receive_frames: 2048, send_frames: 1024, huge_pages: true }
    }
}

/// What was found to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The queue of the interface.
    pub queue: u32,
    /// Where the program runs.
    pub mode: Mode,
    /// Who copies.
    pub copying: Copying,
    /// Whether the frames lie on pages of 2 MB.
    pub huge_pages: bool,
}

impl fmt::Display for Facts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Native => "native",
            Mode::Generic => "generic",
        };
        let copying = match self.copying {
            Copying::Zero => "zero-copy",
            Copying::Kernel => "copy",
        };
        let pages = if self.huge_pages { "2 MB pages" } else { "normal pages" };
        write!(out, "AF_XDP {mode}, {copying}, {pages}")
    }
}

/// One queue of an interface.
pub struct AfXdp {
    port: u16,
    interface: String,
    facts: Facts,
    receiver: Option<Receiver>,
    sender: Option<Sender>,
    // Last: the sockets are closed first, and frames are the host's again.
    hook: Arc<Hook>,
}

/// An interface opened whole: a device for each queue that receives, and the senders, if they are apart.
pub struct Opened {
    /// One for each receive queue, in order. They send too, unless the senders are apart.
    pub receivers: Vec<AfXdp>,
    /// One for each queue that sends, in order; none unless they are apart.
    pub senders: Vec<AfXdp>,
}

/// Tells the program on an interface which addresses are the host's own.
#[derive(Clone)]
pub struct Hosts {
    interface: String,
    hook: Arc<Hook>,
}

impl Hosts {
    /// The host has these addresses (IPv4 mapped) and no others, from the next frame on.
    pub fn set(&self, addresses: &[u128]) -> Result<(), DeviceError> {
        self.hook.set_addresses(addresses).map_err(DeviceError::new(&self.interface, "set the addresses of the host"))
    }
}

/// How many queues an interface has to receive; one, when its driver does not say.
pub fn receive_queues(interface: &str) -> Result<u32, DeviceError> {
    let found = Interface::new(interface).map_err(DeviceError::new(interface, "find the interface"))?;
    Ok(found.queues().receive)
}

impl AfXdp {
    /// Open one queue of `interface` as `port`, to receive and to send. Frames of other queues go to the host.
    ///
    /// `DeviceError` when it does not work: no such interface or queue, no right (CAP_NET_RAW, CAP_BPF, CAP_NET_ADMIN),
    /// another program there already, or a driver that cannot do what `options` ask for.
    pub fn open(port: u16, interface: &str, queue: u32, options: &Options) -> Result<Self, DeviceError> {
        let mut opened = open_set(port, interface, queue..queue + 1, 0, options)?;
        opened.receivers.pop().ok_or_else(|| DeviceError::new(interface, "open it")(io::ErrorKind::NotFound.into()))
    }

    /// Open every receive queue of `interface` as `port`. `senders`: open so many senders apart (or as many as there are
    /// queues for); 0: the receivers send.
    pub fn open_all(port: u16, interface: &str, senders: u32, options: &Options) -> Result<Opened, DeviceError> {
        let queues = receive_queues(interface)?;
        open_set(port, interface, 0..queues, senders, options)
    }

    /// What was found to work.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The same in words, with interface and queue.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} queue {}: {}", self.interface, self.facts.queue, self.facts)
    }

    /// A handle to tell the program which addresses are the host's own; at first, those that the network namespace had
    /// when it was opened.
    #[must_use]
    pub fn hosts(&self) -> Hosts {
        Hosts { interface: self.interface.clone(), hook: Arc::clone(&self.hook) }
    }
}

impl Device for AfXdp {
    fn port(&self) -> u16 {
        self.port
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.receiver.as_ref().map(Receiver::descriptor)
    }

    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize {
        self.receiver.as_mut().map_or(0, |receiver| receiver.receive(self.port, now, frames))
    }

    fn send(&mut self, _now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>) {
        match &mut self.sender {
            Some(sender) => sender.send(frames, chosen, refused),
            None => refused.extend_from_slice(chosen),
        }
    }

    fn take_lost(&mut self) -> u64 {
        self.receiver.as_mut().and_then(|receiver| receiver.take_lost().ok()).unwrap_or(0)
    }
}

/// Try what `options` allow, the best first. The error has every attempt's reason.
fn open_set(
    port: u16,
    name: &str,
    queues: std::ops::Range<u32>,
    senders: u32,
    options: &Options,
) -> Result<Opened, DeviceError> {
    let index = sys::interface_index(name).map_err(DeviceError::new(name, "find the interface"))?;
    let mut reasons: Vec<String> = Vec::new();
    for mode in [Mode::Native, Mode::Generic] {
        if options.mode.is_some_and(|only| only != mode) {
            continue;
        }
        let word = if mode == Mode::Native { "native" } else { "generic" };
        let hook = match hook(name, index, mode) {
            Ok(hook) => Arc::new(hook),
            Err(error) => {
                reasons.push(format!("{word}: {error}"));
                continue;
            }
        };
        for copying in [Copying::Zero, Copying::Kernel] {
            if options.copying.is_some_and(|only| only != copying) {
                continue;
            }
            let attempt = Attempt { port, name, index, mode, copying, options, hook: &hook };
            match attempt.open(queues.clone(), senders) {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    let word = format!("{word}, {}", if copying == Copying::Zero { "zero-copy" } else { "copy" });
                    reasons.push(format!("{word}: {error}"));
                }
            }
        }
    }
    Err(DeviceError::new(name, "open AF_XDP sockets")(io::Error::other(reasons.join("; "))))
}

fn hook(name: &str, index: u32, mode: Mode) -> io::Result<Hook> {
    let queues = Interface::new(name)?.queues();
    let addresses = interface::host_addresses()?;
    // After a restart the last program may stay for a moment.
    patiently(libc::EBUSY, || Hook::attach(index, queues.receive, mode, &addresses))
}

/// Again and again while the error is `busy`, but not for long.
fn patiently<T>(busy: libc::c_int, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (mut left, pause) = BUSY;
    loop {
        match attempt() {
            Err(error) if left > 0 && error.raw_os_error() == Some(busy) => {
                left -= 1;
                thread::sleep(pause);
            }
            result => return result,
        }
    }
}

/// One way to open an interface.
struct Attempt<'a> {
    port: u16,
    name: &'a str,
    index: u32,
    mode: Mode,
    copying: Copying,
    options: &'a Options,
    hook: &'a Arc<Hook>,
}

/// A socket with its rings, not bound yet.
struct Socket {
    fd: Arc<OwnedFd>,
    offsets: libc::xdp_mmap_offsets,
}

impl Socket {
    fn new() -> io::Result<Self> {
        let fd = Arc::new(socket::open()?);
        let offsets = socket::offsets(&fd)?;
        Ok(Self { fd, offsets })
    }

    fn ring<E: Copy>(&self, kind: libc::c_int, entries: u32) -> io::Result<Ring<E>> {
        use std::os::fd::AsRawFd;
        let (offsets, page) = match kind {
            libc::XDP_RX_RING => (&self.offsets.rx, libc::XDP_PGOFF_RX_RING),
            libc::XDP_TX_RING => (&self.offsets.tx, libc::XDP_PGOFF_TX_RING),
            libc::XDP_UMEM_FILL_RING => (&self.offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t),
            _ => (&self.offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t),
        };
        socket::make_ring(&self.fd, kind, entries)?;
        Ring::map(self.fd.as_raw_fd(), page, offsets, entries)
    }
}

impl Attempt<'_> {
    fn open(&self, queues: std::ops::Range<u32>, senders: u32) -> io::Result<Opened> {
        let transmit = self.interface()?.queues().transmit;
        let mut opened = Opened { receivers: Vec::new(), senders: Vec::new() };
        for queue in queues.clone() {
            let apart = senders > 0;
            let wanted = queue < transmit && (!apart || (opened.senders.len() as u32) < senders);
            let (receiver, sender) = self.queue(queue, apart, wanted)?;
            opened.receivers.push(receiver);
            opened.senders.extend(sender);
        }
        // Transmit queues that do not receive.
        for queue in queues.end.max(self.interface()?.queues().receive)..transmit {
            if (opened.senders.len() as u32) < senders {
                opened.senders.push(self.sender(queue)?);
            }
        }
        // Only now: what comes before all sockets are there is the host's.
        for device in &opened.receivers {
            if let Some(receiver) = &device.receiver {
                self.hook.claim(device.facts.queue, receiver.socket())?;
            }
        }
        Ok(opened)
    }

    fn interface(&self) -> io::Result<Interface> {
        Interface::new(self.name)
    }

    fn chunk(&self) -> io::Result<u32> {
        // The frame buffers of the node hold no more than this, whatever the link carries.
        let longest = self.interface()?.mtu()?.saturating_add(LINK_HEADER).min((DEFAULT_CAPACITY - HEADROOM) as u32);
        Ok(if longest <= HALF_PAGE - KERNEL_HEADROOM { HALF_PAGE } else { 2 * HALF_PAGE })
    }

    fn flags(&self) -> u16 {
        let copying = match self.copying {
            Copying::Zero => libc::XDP_ZEROCOPY,
            Copying::Kernel => libc::XDP_COPY,
        };
        copying | libc::XDP_USE_NEED_WAKEUP
    }

    /// A queue that receives. With `sends` it sends too, by a device of its own when `apart`.
    fn queue(&self, queue: u32, apart: bool, sends: bool) -> io::Result<(AfXdp, Option<AfXdp>)> {
        let (receive_frames, send_frames) = (self.options.receive_frames, self.options.send_frames);
        let chunk = self.chunk()?;
        let split = receive_frames as usize * chunk as usize;
        let area = Area::new(split + send_frames as usize * chunk as usize, self.options.huge_pages)?;
        let socket = Socket::new()?;
        socket::register(&socket.fd, &area, chunk)?;
        let rx = socket.ring(libc::XDP_RX_RING, receive_frames)?;
        let fill = socket.ring(libc::XDP_UMEM_FILL_RING, receive_frames)?;
        let completion = socket.ring(libc::XDP_UMEM_COMPLETION_RING, send_frames)?;
        let own_tx = if sends && !apart { Some(socket.ring(libc::XDP_TX_RING, send_frames)?) } else { None };
        let huge_pages = area.is_huge();
        let (low, high) = area.split(split);
        // The buffers are in the fill ring before the kernel looks for them.
        let receiver = Receiver::new(Arc::clone(&socket.fd), rx, fill, low, chunk, receive_frames);
        patiently(libc::EBUSY, || socket::bind(&socket.fd, self.index, queue, self.flags(), None))?;
        let (sending, tx) = match own_tx {
            Some(tx) => (Arc::clone(&socket.fd), Some(tx)),
            None if sends => {
                let second = Socket::new()?;
                let tx = second.ring(libc::XDP_TX_RING, send_frames)?;
                socket::bind(&second.fd, self.index, queue, libc::XDP_SHARED_UMEM, Some(&socket.fd))?;
                (second.fd, Some(tx))
            }
            None => (Arc::clone(&socket.fd), None),
        };
        let zero_copy = socket::is_zero_copy(&socket.fd)?;
        let parts = |tx| -> io::Result<Parts> {
            Ok(Parts {
                socket: sending,
                tx,
                completion,
                region: high,
                start: split as u64,
                frames: send_frames,
                chunk,
                zero_copy,
                interface: self.interface()?,
            })
        };
        let sender = tx.map(parts).transpose()?.map(Sender::new);
        let device = |receiver, sender| self.device(queue, zero_copy, huge_pages, receiver, sender);
        Ok(if apart {
            (device(Some(receiver), None), sender.map(|sender| device(None, Some(sender))))
        } else {
            (device(Some(receiver), sender), None)
        })
    }

    /// A queue that only sends, with an area of its own.
    fn sender(&self, queue: u32) -> io::Result<AfXdp> {
        let frames = self.options.send_frames;
        let chunk = self.chunk()?;
        let area = Area::new(frames as usize * chunk as usize, self.options.huge_pages)?;
        let socket = Socket::new()?;
        socket::register(&socket.fd, &area, chunk)?;
        // The kernel wants all rings of an area, used or not.
        socket::make_ring(&socket.fd, libc::XDP_UMEM_FILL_RING, 2)?;
        let completion = socket.ring(libc::XDP_UMEM_COMPLETION_RING, frames)?;
        let tx = socket.ring(libc::XDP_TX_RING, frames)?;
        let huge_pages = area.is_huge();
        let (region, _) = area.split(frames as usize * chunk as usize);
        patiently(libc::EBUSY, || socket::bind(&socket.fd, self.index, queue, self.flags(), None))?;
        let zero_copy = socket::is_zero_copy(&socket.fd)?;
        let interface = self.interface()?;
        let parts = Parts { socket: socket.fd, tx, completion, region, start: 0, frames, chunk, zero_copy, interface };
        Ok(self.device(queue, zero_copy, huge_pages, None, Some(Sender::new(parts))))
    }

    fn device(
        &self,
        queue: u32,
        zero_copy: bool,
        huge_pages: bool,
        receiver: Option<Receiver>,
        sender: Option<Sender>,
    ) -> AfXdp {
        let copying = if zero_copy { Copying::Zero } else { Copying::Kernel };
        AfXdp {
            port: self.port,
            interface: self.name.to_owned(),
            facts: Facts { queue, mode: self.mode, copying, huge_pages },
            receiver,
            sender,
            hook: Arc::clone(self.hook),
        }
    }
}
