//! What is known of one frame on its way through a pipeline, and how it is admitted.

use tgw_contract::{Direction, DropReason, Hop, Point, Role, Verdict};
use tgw_wire::checksum::Sum;
use tgw_wire::{ethernet, geneve, gre, gre_udp, gue, icmpv4, icmpv6, ipip, protocol, udp, vxlan, Error};

use crate::hash::Tuple;
use crate::meters::Record;
use crate::packet::{reason, to_v4, to_v6, Kind, Packet, Part, Quoted};
use crate::tables::{EipTables, Encap, Endpoint, Section, Tables, FABRIC};
use crate::Frame;

/// The tunnel that a packet came in by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outer {
    pub(crate) src: u128,
    pub(crate) key: Option<u32>,
    /// `None` without a tunnel.
    pub(crate) encap: Option<Encap>,
}

impl Outer {
    /// The key; `None` inside when the tunnel may do without one. `TunnelDecapFail` when a key is missing.
    pub(crate) fn needed_key(&self) -> Result<Option<u32>, DropReason> {
        match self.encap {
            Some(encap) if self.key.is_some() || encap.may_be_keyless() => Ok(self.key),
            _ => Err(DropReason::TunnelDecapFail),
        }
    }

    /// Whether the real server behind this end point sent it: its key says so, or without one its host's address.
    pub(crate) fn is_from(&self, server: &Endpoint) -> bool {
        self.key == server.key && (self.key.is_some() || self.src == server.address)
    }
}

/// One frame's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) packet: Packet,
    /// Zeros when it came without a tunnel.
    pub(crate) outer: Outer,
    pub(crate) hop: Hop,
    pub(crate) frame_len: u16,
    /// Place of the VIP in an LD's tables.
    pub(crate) vip: Option<u32>,
    pub(crate) vip_id: u32,
    pub(crate) server_id: u32,
    /// Tunnel destination on the way out, 0 without.
    pub(crate) outer_dst: u128,
    /// Inner addresses as they left, for Trace Points.
    pub(crate) left: (u128, u128),
    /// The flow in the direction of its requests, and the flow table's hash of it.
    pub(crate) flow: Tuple,
    pub(crate) hash: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            packet: Packet::default(),
            outer: Outer::default(),
            hop: Hop::EipIn,
            frame_len: 0,
            vip: None,
            vip_id: 0,
            server_id: 0,
            outer_dst: 0,
            left: (0, 0),
            flow: Tuple::default(),
            hash: 0,
        }
    }
}

impl Work {
    /// Read a frame: find the packet that the gateway handles, inside its tunnel where one belongs. What could be read is
    /// kept when it fails. Without tables, MAC and host addresses are not known and not compared.
    pub(crate) fn admit(&mut self, frame: &Frame, role: Role, tables: Option<&Tables>) -> Result<(), DropReason> {
        let tunnelled = role == Role::Clb || frame.port == FABRIC;
        self.hop = default_hop(role, tunnelled);
        let bytes = frame.bytes();
        self.frame_len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let version = self.link(frame, tables)?;
        self.packet.read_ip(bytes, ethernet::HEADER_LEN, version)?;
        let port = tables.and_then(|tables| tables.port(frame.port));
        let dst = self.packet.tuple.dst;
        if is_local_matter(dst) || port.is_some_and(|port| port.host_addresses.contains(&dst)) {
            return Err(DropReason::NotOurs);
        }
        self.packet.verify_ip(bytes)?;
        if tunnelled {
            // Tunnels are not to be fragmented: their sender knows the MTU.
            if self.packet.part != Part::Whole {
                return Err(DropReason::Fragment);
            }
            self.unwrap(bytes, role, tables)?;
        } else {
            self.packet.read_upper(bytes)?;
        }
        self.find_hop(role, tables);
        Ok(())
    }

    /// Read a frame that a pipeline has made ready to leave by `port`.
    pub(crate) fn readmit(
        &mut self,
        frame: &Frame,
        role: Role,
        tables: Option<&Tables>,
        port: u16,
    ) -> Result<(), DropReason> {
        self.hop = default_hop(role, role == Role::Clb || frame.port == FABRIC);
        let bytes = frame.bytes();
        self.frame_len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let version = self.link(frame, None)?;
        self.packet.read_ip(bytes, ethernet::HEADER_LEN, version)?;
        self.packet.verify_ip(bytes)?;
        if port == FABRIC {
            // The tunnel is the one it leaves by; the one it came by is gone.
            self.outer_dst = self.packet.tuple.dst;
            self.unwrap(bytes, role, None)?;
            self.outer = Outer::default();
        } else {
            self.packet.read_upper(bytes)?;
        }
        self.find_hop(role, tables);
        Ok(())
    }

    /// The same for a frame that is in no tunnel, of no role, without tables.
    pub(crate) fn admit_plain(&mut self, frame: &Frame) -> Result<(), DropReason> {
        let version = self.link(frame, None)?;
        self.packet.read_ip(frame.bytes(), ethernet::HEADER_LEN, version)?;
        self.packet.verify_ip(frame.bytes())?;
        self.packet.read_upper(frame.bytes())
    }

    fn link(&self, frame: &Frame, tables: Option<&Tables>) -> Result<u8, DropReason> {
        let view = ethernet::Packet::new_unchecked(frame.bytes());
        if frame.bytes().len() < ethernet::HEADER_LEN {
            return Err(DropReason::MalformedFrame);
        }
        if view.dst().is_group() {
            return Err(DropReason::NotOurs);
        }
        if let Some(tables) = tables {
            let port = tables.port(frame.port).ok_or(DropReason::NoConfig)?;
            if view.dst() != port.mac {
                return Err(DropReason::NotOurs);
            }
        }
        match ethernet::Packet::new_checked(frame.bytes()).map_err(reason)?.ethertype() {
            ethernet::IPV4 => Ok(4),
            ethernet::IPV6 => Ok(6),
            ethernet::ARP => Err(DropReason::NotOurs),
            _ => Err(DropReason::UnsupportedProtocol),
        }
    }

    /// Take the packet out of its tunnel.
    fn unwrap(&mut self, bytes: &[u8], role: Role, tables: Option<&Tables>) -> Result<(), DropReason> {
        let Packet { tuple, version, l4, end, .. } = self.packet;
        self.outer = Outer { src: tuple.src, key: None, encap: None };
        if role == Role::Clb && tables.is_some_and(|tables| tables.local == tuple.dst) {
            self.hop = Hop::ClbOut;
        }
        match (tuple.protocol, version) {
            (protocol::GRE, _) => self.unwrap_gre(bytes, l4, end, Encap::Gre),
            (protocol::UDP, _) => self.unwrap_udp(bytes),
            (ipip::IPV4 | ipip::IPV6, _) => {
                self.outer.encap = Some(Encap::Ipip);
                self.read_inner(bytes, l4, end, ipip::version_of(tuple.protocol))
            }
            (protocol::ICMPV4, 4) | (protocol::ICMPV6, 6) => Err(self.fabric_error(bytes, role, tables)),
            _ => Err(DropReason::TunnelDecapFail),
        }
    }

    fn unwrap_gre(&mut self, bytes: &[u8], at: usize, end: usize, encap: Encap) -> Result<(), DropReason> {
        let gre = gre::Packet::new_checked(bytes.get(at..end).unwrap_or_default()).map_err(|error| match error {
            Error::Unsupported => DropReason::TunnelDecapFail,
            _ => DropReason::MalformedGre,
        })?;
        (self.outer.key, self.outer.encap) = (gre.key(), Some(encap));
        self.read_inner(bytes, at + gre.header_len(), end, version_of(gre.protocol()))
    }

    /// The same behind a UDP header, whose port says which kind of tunnel it is.
    fn unwrap_udp(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let Packet { tuple, version, l4, end, .. } = self.packet;
        let payload = bytes.get(l4..end).unwrap_or_default();
        let datagram = udp::Packet::new_checked(payload).map_err(|_| DropReason::BadLength)?;
        if datagram.length() != payload.len() {
            return Err(DropReason::BadLength);
        }
        let port = datagram.dst_port();
        if !matches!(port, vxlan::PORT | gre_udp::PORT | gue::PORT | geneve::PORT) {
            return Err(DropReason::TunnelDecapFail);
        }
        if datagram.checksum() != 0 {
            let pseudo = if version == 4 {
                Sum::pseudo_v4(to_v4(tuple.src), to_v4(tuple.dst), protocol::UDP, payload.len())
            } else {
                Sum::pseudo_v6(to_v6(tuple.src), to_v6(tuple.dst), protocol::UDP, payload.len())
            };
            if !datagram.verify_checksum(pseudo) {
                return Err(DropReason::BadChecksum);
            }
        } else if version == 6 && port != vxlan::PORT {
            return Err(DropReason::BadChecksum); // all but VXLAN want one in IPv6
        }
        let at = l4 + udp::HEADER_LEN;
        match port {
            vxlan::PORT => {
                let tunnel = vxlan::Packet::new_checked(datagram.payload()).map_err(|_| DropReason::MalformedVxlan)?;
                (self.outer.key, self.outer.encap) = (Some(tunnel.vni()), Some(Encap::Vxlan));
                self.read_framed(bytes, at + vxlan::HEADER_LEN, end)
            }
            gre_udp::PORT => self.unwrap_gre(bytes, at, end, Encap::GreUdp),
            gue::PORT => {
                let tunnel = gue::Packet::new_checked(datagram.payload()).map_err(tunnel_reason)?;
                (self.outer.key, self.outer.encap) = (tunnel.key(), Some(Encap::Gue));
                self.read_inner(bytes, at + tunnel.header_len(), end, ipip::version_of(tunnel.protocol()))
            }
            _ => {
                let tunnel = geneve::Packet::new_checked(datagram.payload()).map_err(tunnel_reason)?;
                (self.outer.key, self.outer.encap) = (Some(tunnel.vni()), Some(Encap::Geneve));
                let at = at + tunnel.header_len();
                match tunnel.protocol() {
                    geneve::ETHERNET => self.read_framed(bytes, at, end),
                    ethertype => self.read_inner(bytes, at, end, version_of(ethertype)),
                }
            }
        }
    }

    /// Read a packet that has an Ethernet header in the tunnel too.
    fn read_framed(&mut self, bytes: &[u8], at: usize, end: usize) -> Result<(), DropReason> {
        let link = ethernet::Packet::new_checked(bytes.get(at..end).unwrap_or_default()).map_err(tunnel_reason)?;
        self.read_inner(bytes, at + ethernet::HEADER_LEN, end, version_of(link.ethertype()))
    }

    fn read_inner(&mut self, bytes: &[u8], at: usize, end: usize, version: Option<u8>) -> Result<(), DropReason> {
        self.packet = Packet::default();
        let version = version.ok_or(DropReason::TunnelDecapFail)?;
        let within = bytes.get(..end).unwrap_or_default();
        self.packet.read_ip(within, at, version)?;
        self.packet.verify_ip(within)?;
        self.packet.read_upper(within)
    }

    /// The fabric complains about a packet: when it is one of our tunnel packets, what was inside died of this.
    fn fabric_error(&mut self, bytes: &[u8], role: Role, tables: Option<&Tables>) -> DropReason {
        let Packet { tuple, version, l4, end, .. } = self.packet;
        let message = bytes.get(l4..end).unwrap_or_default();
        let (is_error, is_right, too_big) = if version == 4 {
            let icmp = icmpv4::Packet::new_unchecked(message);
            let too_big = icmp.kind() == icmpv4::UNREACHABLE && icmp.code() == icmpv4::TOO_BIG;
            (icmp.is_error(), icmp.verify_checksum(), too_big)
        } else {
            let icmp = icmpv6::Packet::new_unchecked(message);
            let pseudo = Sum::pseudo_v6(to_v6(tuple.src), to_v6(tuple.dst), protocol::ICMPV6, message.len());
            (icmp.is_error(), icmp.verify_checksum(pseudo), icmp.kind() == icmpv6::TOO_BIG)
        };
        if message.len() < icmpv4::HEADER_LEN {
            return DropReason::MalformedFrame;
        }
        if !is_error {
            return DropReason::UnsupportedProtocol;
        }
        if !is_right {
            return DropReason::BadChecksum;
        }
        let within = bytes.get(..end).unwrap_or_default();
        let outer = match Quoted::read(within, l4 + icmpv4::HEADER_LEN, version) {
            Ok(outer) => outer,
            Err(reason) => return reason,
        };
        if tables.is_some_and(|tables| tables.local != outer.tuple.src) {
            return DropReason::UnsupportedProtocol;
        }
        self.hop = match role {
            Role::Eip => Hop::EipIn,
            Role::Clb => Hop::ClbIn,
            Role::Vswitch => Hop::VswOut,
        };
        self.outer = Outer::default();
        self.outer_dst = outer.tuple.dst;
        self.packet = Packet::default();
        self.read_quoted_inner(within, &outer);
        self.find_hop(role, tables);
        if too_big {
            DropReason::MtuExceeded
        } else {
            DropReason::NoRoute
        }
    }

    /// What was in the tunnel packet that the fabric quotes, if it quotes that much.
    fn read_quoted_inner(&mut self, bytes: &[u8], outer: &Quoted) {
        let from = |at: usize| bytes.get(at..).unwrap_or_default();
        let framed =
            |at: usize| (at + ethernet::HEADER_LEN, version_of(ethernet::Packet::new_unchecked(from(at)).ethertype()));
        let gre = |at: usize| {
            let gre = gre::Packet::new_unchecked(from(at));
            (at + gre.header_len(), version_of(gre.protocol()))
        };
        let behind = outer.l4 + udp::HEADER_LEN;
        let (at, version) = match (outer.tuple.protocol, udp::Packet::new_unchecked(from(outer.l4)).dst_port()) {
            (protocol::GRE, _) => gre(outer.l4),
            (ipip::IPV4 | ipip::IPV6, _) => (outer.l4, ipip::version_of(outer.tuple.protocol)),
            (protocol::UDP, vxlan::PORT) => framed(behind + vxlan::HEADER_LEN),
            (protocol::UDP, gre_udp::PORT) => gre(behind),
            (protocol::UDP, gue::PORT) => {
                let tunnel = gue::Packet::new_unchecked(from(behind));
                (behind + tunnel.header_len(), ipip::version_of(tunnel.protocol()))
            }
            (protocol::UDP, geneve::PORT) => {
                let tunnel = geneve::Packet::new_unchecked(from(behind));
                let at = behind + tunnel.header_len();
                match tunnel.protocol() {
                    geneve::ETHERNET => framed(at),
                    ethertype => (at, version_of(ethertype)),
                }
            }
            _ => return,
        };
        let Some(version) = version else { return };
        let Ok(mut inner) = Quoted::read(bytes, at, version) else { return };
        self.packet.version = version;
        self.packet.tuple = inner.tuple;
        if matches!(inner.tuple.protocol, protocol::TCP | protocol::UDP) && inner.read_ports(bytes).is_ok() {
            self.packet.tuple = inner.tuple;
            (self.packet.seq, self.packet.ack, self.packet.tcp_flags) = (inner.seq, inner.ack, inner.flags);
            self.packet.kind = if inner.tuple.protocol == protocol::TCP { Kind::Tcp } else { Kind::Udp };
        }
    }

    /// An LD sees both directions on one port: the VIP tells which, and the tunnel's end where it does not.
    fn find_hop(&mut self, role: Role, tables: Option<&Tables>) {
        if role != Role::Clb || self.packet.version == 0 {
            return;
        }
        let Some(Tables { section: Section::Clb(clb), .. }) = tables else { return };
        let Tuple { src, dst, .. } = self.packet.tuple;
        let request = || clb.vip(dst).map(|vip| (vip, Hop::ClbIn));
        let reply = || clb.vip(src).map(|vip| (vip, Hop::ClbOut));
        // Both ends may be VIPs: a client may claim any address. Then the tunnel knows, as far as it was read.
        let found = if self.hop == Hop::ClbOut { reply().or_else(request) } else { request().or_else(reply) };
        let Some((vip, hop)) = found else { return };
        (self.hop, self.vip) = (hop, Some(vip));
        self.vip_id = clb.vips.get(vip as usize).map_or(0, |vip| vip.id);
    }

    /// The VIP of a packet that no pipeline has looked at.
    pub(crate) fn find_vip(&mut self, tables: &Tables) {
        let Tuple { src, dst, .. } = self.packet.tuple;
        let binding = |eip: &EipTables, index: Option<&u32>| {
            index.and_then(|index| eip.bindings.get(*index as usize)).map_or(0, |binding| binding.vip_id)
        };
        match (&tables.section, self.hop) {
            // Before its translation or after it.
            (Section::Eip(eip), Hop::EipIn) => {
                self.vip_id = binding(eip, eip.by_public.get(&dst).or_else(|| eip.by_private.get(&dst)));
            }
            (Section::Eip(eip), _) => {
                self.vip_id = binding(eip, eip.by_private.get(&src).or_else(|| eip.by_public.get(&src)));
            }
            // An LD's VIP was found with its hop.
            (Section::Clb(_), _) => {}
            (Section::Vswitch(vswitch), hop) => {
                let vip = if hop == Hop::VswIn { dst } else { src };
                self.vip_id = vswitch.servers.iter().find_map(|server| server.vip(vip)).map_or(0, |vip| vip.id);
            }
        }
    }

    /// Count the packet in its direction.
    pub(crate) fn count(&self, record: &Record) {
        let bytes = self.packet.end - self.packet.l3;
        match self.hop.direction() {
            Direction::Request => record.request(bytes),
            Direction::Reply => record.reply(bytes),
        }
    }

    /// Whether it is an ICMP error about a packet of a flow.
    pub(crate) const fn is_error(&self) -> bool {
        matches!(self.packet.kind, Kind::Error)
    }

    /// The record of what became of it. `probe_id`: 0 without a colour.
    pub(crate) fn point(&self, frame: &Frame, verdict: Verdict, reason: u8, probe_id: u64) -> Point {
        let Packet { tuple, version, tcp_flags, seq, ack, .. } = self.packet;
        let forwarded = verdict == Verdict::Forwarded;
        let (src, dst) = if forwarded { self.left } else { (tuple.src, tuple.dst) };
        Point {
            ts_ns: frame.rx_ns,
            probe_id,
            kind: if forwarded { 1 } else { 2 },
            hop: self.hop.number(),
            reason,
            verdict: verdict.number(),
            ip_version: version,
            protocol: tuple.protocol,
            tcp_flags,
            direction: self.hop.direction().number(),
            src_addr: src.to_be_bytes(),
            dst_addr: dst.to_be_bytes(),
            src_port: tuple.src_port,
            dst_port: tuple.dst_port,
            outer_src: self.outer.src.to_be_bytes(),
            outer_dst: self.outer_dst.to_be_bytes(),
            vip_id: self.vip_id,
            server_id: self.server_id,
            frame_len: self.frame_len,
            tcp_seq: seq,
            tcp_ack: ack,
            ..Point::default()
        }
    }
}

const fn default_hop(role: Role, tunnelled: bool) -> Hop {
    match (role, tunnelled) {
        (Role::Eip, false) => Hop::EipIn,
        (Role::Eip, true) => Hop::EipOut,
        (Role::Clb, _) => Hop::ClbIn,
        (Role::Vswitch, true) => Hop::VswIn,
        (Role::Vswitch, false) => Hop::VswOut,
    }
}

const fn version_of(ethertype: u16) -> Option<u8> {
    match ethertype {
        ethernet::IPV4 => Some(4),
        ethernet::IPV6 => Some(6),
        _ => None,
    }
}

/// A header that a tunnel end point does not understand is a failure to decapsulate.
const fn tunnel_reason(error: Error) -> DropReason {
    match error {
        Error::Unsupported => DropReason::TunnelDecapFail,
        other => reason(other),
    }
}

/// Multicast, broadcast and link-local addresses are between the host and its link (neighbour discovery, BFD).
pub(crate) const fn is_local_matter(address: u128) -> bool {
    let v4 = address as u32;
    if address >> 32 == 0xFFFF {
        return v4 >> 28 == 0xE || v4 == u32::MAX || v4 >> 16 == 0xA9FE;
    }
    address >> 120 == 0xFF || address >> 118 == 0x3FA
}
