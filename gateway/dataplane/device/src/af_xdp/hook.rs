//! The program on an interface, and the maps that it looks into.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::{bpf, program, Mode};

/// Most addresses of a host that the program can know.
const ADDRESSES: u32 = 65_536;

// Flags of the link (linux/if_link.h).
const IN_KERNEL: u32 = 1 << 1;
const IN_DRIVER: u32 = 1 << 2;

/// A program that is attached for as long as this lives, and no longer than the process.
pub(crate) struct Hook {
    // In this order: the interface is let go first.
    _link: OwnedFd,
    sockets: OwnedFd,
    hosts: OwnedFd,
    known: Mutex<BTreeSet<u128>>,
}

impl Hook {
    /// Attach to an interface with that many queues, whose host has these addresses.
    pub(crate) fn attach(interface: u32, queues: u32, mode: Mode, addresses: &[u128]) -> io::Result<Self> {
        let sockets = bpf::socket_map(queues)?;
        let hosts = bpf::address_set(ADDRESSES)?;
        let known = Mutex::default();
        // Before the first frame is looked at.
        replace(&hosts, &known, addresses)?;
        let program = bpf::load(&program::assemble(bpf::maps(&sockets, &hosts), program::PASS))?;
        let flags = match mode {
            Mode::Native => IN_DRIVER,
            Mode::Generic => IN_KERNEL,
        };
        let link = bpf::attach(&program, interface, flags)?;
        Ok(Self { _link: link, sockets, hosts, known })
    }

    /// From now on, frames for the node that come by `queue` go to this socket.
    pub(crate) fn claim(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        bpf::set_socket(&self.sockets, queue, socket.as_raw_fd())
    }

    /// The host has these addresses, IPv4 mapped, and no others.
    pub(crate) fn set_addresses(&self, addresses: &[u128]) -> io::Result<()> {
        replace(&self.hosts, &self.known, addresses)
    }
}

fn replace(map: &OwnedFd, known: &Mutex<BTreeSet<u128>>, addresses: &[u128]) -> io::Result<()> {
    // What is known is changed after the map, so a panic in between leaves less known than there is: the next call
    // adds it again.
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted: BTreeSet<u128> = addresses.iter().copied().collect();
    // New ones first: an address that stays is never missing, and one that is new is the host's at once.
    for &address in wanted.difference(&known.clone()) {
        bpf::add_address(map, address.to_be_bytes())?;
        known.insert(address);
    }
    for &address in known.clone().difference(&wanted) {
        bpf::remove_address(map, address.to_be_bytes())?;
        known.remove(&address);
    }
    Ok(())
}
