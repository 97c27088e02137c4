//! Which device each port gets: AF_XDP where it works, AF_PACKET otherwise, or what the configuration insists on.

use std::fmt;
use std::io;

use tgw_device::af_packet::Receive;
use tgw_device::af_xdp::{self, Facts, Hosts, Options};
use tgw_device::{AfPacket, AfXdp, DeviceError};

use crate::config::{Kind, Port};
use crate::node::DeviceSet;

/// What a port was opened as.
#[derive(Clone, Debug)]
pub struct PortDevice {
    /// Number of the port.
    pub port: u16,
    /// Its interface.
    pub interface: String,
    /// How AF_XDP works there; `None` for AF_PACKET.
    pub xdp: Option<Xdp>,
    /// Why it is AF_PACKET although AF_XDP would have been taken.
    pub reason: Option<String>,
}

/// A port on AF_XDP.
#[derive(Clone, Copy, Debug)]
pub struct Xdp {
    /// Mode, copying and pages of its first queue; the others are alike.
    pub facts: Facts,
    /// Queues that receive.
    pub queues: usize,
    /// Workers of a CLB that send by AF_PACKET, as there are fewer queues than workers.
    pub packet_senders: usize,
}

impl fmt::Display for PortDevice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.interface)?;
        match (&self.xdp, &self.reason) {
            (Some(xdp), _) => {
                write!(out, "{}, {} queue{}", xdp.facts, xdp.queues, if xdp.queues == 1 { "" } else { "s" })?;
                match xdp.packet_senders {
                    0 => Ok(()),
                    some => write!(out, ", {some} of the workers send by AF_PACKET"),
                }
            }
            (None, Some(reason)) => write!(out, "AF_PACKET ({reason})"),
            (None, None) => out.write_str("AF_PACKET"),
        }
    }
}

/// Everything that was opened.
pub(crate) struct Devices {
    /// One set for each tap.
    pub(crate) sets: Vec<DeviceSet>,
    /// What each port became.
    pub(crate) ports: Vec<PortDevice>,
    /// Handles of the ports whose program must know the host's addresses, by number of the port.
    pub(crate) hosts: Vec<(u16, Hosts)>,
}

/// Open the ports for `taps` threads: the workers and, of a CLB, the dispatchers before them, which receive for them.
pub(crate) fn open(ports: &[Port], dispatchers: usize, taps: usize) -> Result<Devices, DeviceError> {
    let mut devices = Devices { sets: (0..taps).map(|_| Vec::new()).collect(), ports: Vec::new(), hosts: Vec::new() };
    for port in ports {
        let opened = match port.kind {
            Kind::AfPacket => devices.open_packet(port, dispatchers, None)?,
            Kind::AfXdp => devices.open_xdp(port, dispatchers)?,
            Kind::Auto => match devices.open_xdp(port, dispatchers) {
                Ok(opened) => opened,
                Err(error) => devices.open_packet(port, dispatchers, Some(error.to_string()))?,
            },
        };
        devices.ports.push(opened);
    }
    Ok(devices)
}

impl Devices {
    fn open_packet(
        &mut self,
        port: &Port,
        dispatchers: usize,
        reason: Option<String>,
    ) -> Result<PortDevice, DeviceError> {
        let receivers = if dispatchers > 0 { dispatchers } else { self.sets.len() };
        for (slot, set) in self.sets.iter_mut().enumerate() {
            let receive = match slot {
                _ if slot >= receivers => Receive::Nothing,
                _ if receivers == 1 => Receive::All,
                // Groups are numbered within the network namespace: the process id keeps two nodes in one apart.
                _ => Receive::Shared { group: (std::process::id() as u16).wrapping_mul(31).wrapping_add(port.index) },
            };
            set.push(Box::new(AfPacket::open(port.index, &port.interface, receive)?));
        }
        Ok(PortDevice { port: port.index, interface: port.interface.clone(), xdp: None, reason })
    }

    /// Nothing is kept when it fails.
    fn open_xdp(&mut self, port: &Port, dispatchers: usize) -> Result<PortDevice, DeviceError> {
        let workers = self.sets.len() - dispatchers;
        let receivers = if dispatchers > 0 { dispatchers } else { workers };
        let queues = af_xdp::receive_queues(&port.interface)? as usize;
        if queues < receivers {
            // A queue has one socket: those beyond would get nothing.
            let source = io::Error::other(format!("{queues} queue(s) for {receivers} workers"));
            return Err(DeviceError { name: port.interface.clone(), doing: "share it between the workers", source });
        }
        let senders = if dispatchers > 0 { workers as u32 } else { 0 };
        let opened = AfXdp::open_all(port.index, &port.interface, senders, &Options::default())?;
        let Some(first) = opened.receivers.first() else {
            let source = io::ErrorKind::NotFound.into();
            return Err(DeviceError { name: port.interface.clone(), doing: "find a queue", source });
        };
        let (facts, hosts) = (first.facts(), first.hosts());
        let packet_senders = (senders as usize).saturating_sub(opened.senders.len());
        let mut others = Vec::new();
        for _ in 0..packet_senders {
            others.push(AfPacket::open(port.index, &port.interface, Receive::Nothing)?);
        }
        if dispatchers > 0 {
            let mut slots = self.sets.iter_mut().skip(dispatchers);
            for (sender, set) in opened.senders.into_iter().zip(slots.by_ref()) {
                set.push(Box::new(sender));
            }
            for (sender, set) in others.into_iter().zip(slots) {
                set.push(Box::new(sender));
            }
        }
        // More queues than receive: each has several, and a worker sends by its first.
        for (queue, receiver) in opened.receivers.into_iter().enumerate() {
            if let Some(set) = self.sets.get_mut(queue % receivers) {
                set.push(Box::new(receiver));
            }
        }
        self.hosts.push((port.index, hosts));
        let xdp = Xdp { facts, queues, packet_senders };
        Ok(PortDevice { port: port.index, interface: port.interface.clone(), xdp: Some(xdp), reason: None })
    }
}
