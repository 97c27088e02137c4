//! Where frames come from and go to, behind one small trait.
//!
//! Pipelines never see a device, so every pipeline runs on each of them: on queues in memory (tests, simulation), on
//! capture files, on a Linux interface. [`Faulty`] decorates any of them with seeded faults.

pub mod af_packet;
pub mod af_xdp;
pub mod fault;
pub mod memory;
pub mod pcap;
pub mod poll;
mod sys;

use std::io;
use std::os::fd::RawFd;

use tgw_forward::{Frame, Nanos};

pub use af_packet::AfPacket;
pub use af_xdp::AfXdp;
pub use fault::{Faulty, Plan};
pub use memory::{Memory, Wire};
pub use pcap::Pcap;

/// Most frames taken or sent by one call.
pub const BATCH: usize = 64;

/// One port of a node.
///
/// A device never fails the node: a link that is down receives nothing and refuses what it is given.
pub trait Device: Send {
    /// The port's number in the node's tables.
    fn port(&self) -> u16;

    /// A descriptor that polls readable when frames wait; `None` when only [`Device::receive`] can tell.
    fn descriptor(&self) -> Option<RawFd>;

    /// Fill `frames` from the front, with port and time of arrival set, and say how many. Never blocks.
    fn receive(&mut self, now: Nanos, frames: &mut [Frame]) -> usize;

    /// Send the frames that `chosen` indexes, in that order. Never blocks. Appends to `refused` the indices of those
    /// that the device would not take.
    fn send(&mut self, now: Nanos, frames: &[Frame], chosen: &[usize], refused: &mut Vec<usize>);

    /// Frames lost before they could be received (the kernel's queue was full), since the last call.
    fn take_lost(&mut self) -> u64 {
        0
    }
}

/// A device could not be opened; the message names the interface or file and what was wrong with it.
#[derive(Debug)]
pub struct DeviceError {
    /// Interface or file.
    pub name: String,
    /// What was being done.
    pub doing: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

impl DeviceError {
    pub(crate) fn new<'a>(name: &'a str, doing: &'static str) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { name: name.to_owned(), doing, source }
    }
}

impl std::fmt::Display for DeviceError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: cannot {}: {}", self.name, self.doing, self.source)
    }
}

impl std::error::Error for DeviceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
