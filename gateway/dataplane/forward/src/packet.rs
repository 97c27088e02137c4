//! Reading a packet out of a frame, as far as it goes: addresses, ports, TCP fields, what an ICMP error quotes.

use std::net::{Ipv4Addr, Ipv6Addr};

use tgw_contract::DropReason;
use tgw_wire::checksum::Sum;
use tgw_wire::{icmpv4, icmpv6, ipv4, ipv6, protocol, tcp, udp, Error};

use crate::hash::Tuple;

/// What the upper layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not read, or not one of these.
    #[default]
    Unread,
    Tcp,
    Udp,
    /// An ICMP error and what it quotes.
    Error,
}

/// Which part of a packet it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    #[default]
    Whole,
    /// A fragment that begins with the transport header.
    First,
    /// A fragment without ports.
    Later,
}

/// What an ICMP error quotes, in the direction in which it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quoted {
    /// Where its IP header begins in the frame.
    pub(crate) l3: usize,
    /// Where its transport header begins in the frame.
    pub(crate) l4: usize,
    pub(crate) tuple: Tuple,
    /// TCP sequence number, 0 for UDP.
    pub(crate) seq: u32,
    /// TCP acknowledgement number and flags, when they were quoted.
    pub(crate) ack: u32,
    pub(crate) flags: u8,
}

/// A packet in a frame. Offsets are from the start of the frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) part: Part,
    /// 4 or 6; 0 when it could not be read.
    pub(crate) version: u8,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) l3: usize,
    pub(crate) l4: usize,
    /// Where it ends; padding may follow.
    pub(crate) end: usize,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// Of a fragment: names its packet, with addresses and protocol.
    pub(crate) ident: u32,
    pub(crate) tuple: Tuple,
    pub(crate) quoted: Quoted,
}

/// Whether a mapped address is an IPv4 one.
pub(crate) const fn is_v4(address: u128) -> bool {
    address >> 32 == 0xFFFF
}

/// An IPv4 address, mapped.
pub(crate) fn from_v4(address: Ipv4Addr) -> u128 {
    0xFFFF_0000_0000 | u128::from(u32::from(address))
}

/// A mapped address as IPv4; what is none loses its high bits.
pub(crate) const fn to_v4(address: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(address as u32)
}

/// A mapped address as IPv6.
pub(crate) const fn to_v6(address: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(address)
}

/// The drop reason of a refused header.
pub(crate) const fn reason(error: Error) -> DropReason {
    match error {
        Error::Truncated | Error::Malformed => DropReason::MalformedFrame,
        Error::Unsupported => DropReason::UnsupportedProtocol,
        Error::Checksum => DropReason::BadChecksum,
    }
}

impl Packet {
    /// Read the IP header at `at`: version 4 or 6, its lengths, its addresses. Nothing is verified yet.
    pub(crate) fn read_ip(&mut self, bytes: &[u8], at: usize, version: u8) -> Result<(), DropReason> {
        let from = bytes.get(at..).unwrap_or_default();
        (self.l3, self.l4, self.end) = (at, bytes.len(), bytes.len());
        if version == 4 {
            let ip = ipv4::Packet::new_checked(from).map_err(reason)?;
            self.tuple.src = from_v4(ip.src());
            self.tuple.dst = from_v4(ip.dst());
            self.tuple.protocol = ip.protocol();
            (self.version, self.ttl, self.tos) = (4, ip.ttl(), ip.tos());
            (self.l4, self.end) = (at + ip.header_len(), at + ip.total_len());
        } else {
            let ip = ipv6::Packet::new_checked(from).map_err(reason)?;
            self.tuple.src = u128::from(ip.src());
            self.tuple.dst = u128::from(ip.dst());
            self.tuple.protocol = ip.next_header();
            (self.version, self.ttl, self.tos) = (6, ip.hop_limit(), ip.traffic_class());
            (self.l4, self.end) = (at + ipv6::HEADER_LEN, at + ip.total_len());
        }
        Ok(())
    }

    /// Bytes of it, from the IP header on.
    pub(crate) const fn len(&self) -> usize {
        self.end.saturating_sub(self.l3)
    }

    /// Verify what [`Packet::read_ip`] left: the header's checksum; find the transport header, or which fragment it is.
    pub(crate) fn verify_ip(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let from = bytes.get(self.l3..self.end).unwrap_or_default();
        if self.version == 4 {
            let ip = ipv4::Packet::new_unchecked(from);
            if !ip.verify_checksum() {
                return Err(DropReason::BadChecksum);
            }
            return if ip.is_fragment() { self.fragment(u32::from(ip.ident()), ip.fragment_offset()) } else { Ok(()) };
        }
        // An IPv4 address in IPv6 form may not appear on the wire, and would pass for the IPv4 one in our tables.
        if is_v4(self.tuple.src) || is_v4(self.tuple.dst) {
            return Err(DropReason::MalformedFrame);
        }
        match ipv6::Packet::new_unchecked(from).upper().map_err(reason)? {
            ipv6::Upper::Fragment(part) => {
                self.tuple.protocol = part.protocol;
                self.l4 = self.l3 + part.offset;
                self.fragment(part.ident, part.at)
            }
            ipv6::Upper::Protocol { protocol, offset } => {
                self.tuple.protocol = protocol;
                self.l4 = self.l3 + offset;
                Ok(())
            }
        }
    }

    /// It is a fragment that belongs at byte `at` of its packet. One that would overwrite the flags of a TCP header is an
    /// attack (RFC 3128).
    fn fragment(&mut self, ident: u32, at: usize) -> Result<(), DropReason> {
        self.ident = ident;
        self.part = if at == 0 { Part::First } else { Part::Later };
        if self.tuple.protocol == protocol::TCP && at != 0 && at < tcp::HEADER_LEN {
            return Err(DropReason::Fragment);
        }
        Ok(())
    }

    /// Read the transport header of a verified packet: TCP, UDP or an ICMP error. A later fragment has none: it keeps ports
    /// of zero. A first one must hold all of it.
    pub(crate) fn read_upper(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let from = bytes.get(self.l4..self.end).unwrap_or_default();
        let too_short = if self.part == Part::First { DropReason::Fragment } else { DropReason::BadLength };
        match (self.tuple.protocol, self.version) {
            (protocol::TCP | protocol::UDP, _) if self.part == Part::Later => Ok(()),
            (protocol::ICMPV4, 4) | (protocol::ICMPV6, 6) if self.part != Part::Whole => Err(DropReason::Fragment),
            (protocol::TCP, _) => {
                let tcp = tcp::Packet::new_checked(from).map_err(|error| match error {
                    Error::Truncated => too_short,
                    other => reason(other),
                })?;
                if !tcp.flags_are_sane() {
                    return Err(DropReason::BadTcpFlags);
                }
                (self.tuple.src_port, self.tuple.dst_port) = (tcp.src_port(), tcp.dst_port());
                (self.seq, self.ack, self.tcp_flags) = (tcp.seq(), tcp.ack(), tcp.flags());
                self.kind = Kind::Tcp;
                Ok(())
            }
            (protocol::UDP, version) => {
                if from.len() < udp::HEADER_LEN {
                    return Err(too_short);
                }
                let udp = udp::Packet::new_unchecked(from);
                // The length is that of the whole datagram, of which a first fragment holds a part.
                if self.part == Part::Whole && udp.length() != from.len() {
                    return Err(DropReason::BadLength);
                }
                (self.tuple.src_port, self.tuple.dst_port) = (udp.src_port(), udp.dst_port());
                if version == 6 && udp.checksum() == 0 {
                    return Err(DropReason::BadChecksum); // RFC 8200, section 8.1
                }
                self.kind = Kind::Udp;
                Ok(())
            }
            (protocol::ICMPV4, 4) => {
                let icmp = icmpv4::Packet::new_checked(from).map_err(reason)?;
                if !icmp.is_error() {
                    return Err(DropReason::UnsupportedProtocol);
                }
                if !icmp.verify_checksum() {
                    return Err(DropReason::BadChecksum);
                }
                self.read_quoted(bytes)
            }
            (protocol::ICMPV6, 6) => {
                let icmp = icmpv6::Packet::new_checked(from).map_err(reason)?;
                if !icmp.is_error() {
                    return Err(DropReason::UnsupportedProtocol);
                }
                let (src, dst) = (to_v6(self.tuple.src), to_v6(self.tuple.dst));
                if !icmp.verify_checksum(Sum::pseudo_v6(src, dst, protocol::ICMPV6, from.len())) {
                    return Err(DropReason::BadChecksum);
                }
                self.read_quoted(bytes)
            }
            _ => Err(DropReason::UnsupportedProtocol),
        }
    }

    /// The payload of a UDP packet that was read; of a first fragment, what it holds of it.
    pub(crate) fn datagram<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let from = bytes.get(self.l4..self.end).unwrap_or_default();
        let length = udp::Packet::new_unchecked(from).length();
        from.get(udp::HEADER_LEN..length.min(from.len())).unwrap_or_default()
    }

    fn read_quoted(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let within = bytes.get(..self.end).unwrap_or_default();
        self.quoted = Quoted::read(within, self.l4 + icmpv4::HEADER_LEN, self.version)?;
        match self.quoted.tuple.protocol {
            protocol::TCP | protocol::UDP => self.quoted.read_ports(within)?,
            _ => return Err(DropReason::UnsupportedProtocol),
        }
        self.kind = Kind::Error;
        Ok(())
    }
}

impl Quoted {
    /// Read the IP header at `at` of a packet that may be cut anywhere behind it. Of fragments only the first will do.
    pub(crate) fn read(bytes: &[u8], at: usize, version: u8) -> Result<Self, DropReason> {
        let from = bytes.get(at..).unwrap_or_default();
        let mut quoted = Self { l3: at, ..Self::default() };
        if version == 4 {
            let ip = ipv4::Packet::new_quoted(from).map_err(reason)?;
            if !ip.verify_checksum() {
                return Err(DropReason::BadChecksum);
            }
            if ip.fragment_offset() != 0 {
                return Err(DropReason::Fragment);
            }
            quoted.tuple.src = from_v4(ip.src());
            quoted.tuple.dst = from_v4(ip.dst());
            quoted.tuple.protocol = ip.protocol();
            quoted.l4 = at + ip.header_len();
        } else {
            let ip = ipv6::Packet::new_quoted(from).map_err(reason)?;
            quoted.tuple.src = u128::from(ip.src());
            quoted.tuple.dst = u128::from(ip.dst());
            if is_v4(quoted.tuple.src) || is_v4(quoted.tuple.dst) {
                return Err(DropReason::MalformedFrame);
            }
            match ip.upper().map_err(reason)? {
                ipv6::Upper::Fragment(part) if part.at != 0 => return Err(DropReason::Fragment),
                ipv6::Upper::Fragment(ipv6::Fragment { protocol, offset, .. })
                | ipv6::Upper::Protocol { protocol, offset } => {
                    quoted.tuple.protocol = protocol;
                    quoted.l4 = at + offset;
                }
            }
        }
        Ok(quoted)
    }

    /// Read the first eight bytes of TCP or UDP, and more of TCP when it is there.
    pub(crate) fn read_ports(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let from = bytes.get(self.l4..).unwrap_or_default();
        if from.len() < 8 {
            return Err(DropReason::MalformedFrame);
        }
        let tcp = tcp::Packet::new_unchecked(from);
        (self.tuple.src_port, self.tuple.dst_port) = (tcp.src_port(), tcp.dst_port());
        if self.tuple.protocol == protocol::TCP {
            self.seq = tcp.seq();
            if from.len() >= 14 {
                (self.ack, self.flags) = (tcp.ack(), tcp.flags());
            }
        }
        Ok(())
    }
}
