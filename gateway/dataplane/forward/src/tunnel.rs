//! Sending a packet on: wrapped for a tunnel, or plain to a neighbour.

use tgw_contract::DropReason;
use tgw_wire::checksum::Sum;
use tgw_wire::ethernet::{self, Mac};
use tgw_wire::{geneve, gre, gre_udp, gue, ipip, ipv4, ipv6, protocol, udp, vxlan};

use crate::hash::Tuple;
use crate::packet::{is_v4, to_v4, to_v6, Packet, Part};
use crate::runner::Context;
use crate::tables::{Encap, Endpoint, Port, Tables, FABRIC};
use crate::work::Work;
use crate::{FaultKind, Frame};

/// Hops that a tunnel packet may take.
pub(crate) const OUTER_TTL: u8 = 64;
/// Addresses of the Ethernet header inside VXLAN: nobody reads them.
const INNER_DST: Mac = Mac([0x02, 0x74, 0x67, 0x77, 0, 1]);
const INNER_SRC: Mac = Mac([0x02, 0x74, 0x67, 0x77, 0, 2]);
const ENTROPY_SEED: u64 = 0x7467_7720_656E_7472;
/// Source ports that RFC 7348 recommends.
const FIRST_PORT: u16 = 49_152;

/// One hop less to live. `TtlExpired` when it was the last.
pub(crate) fn age(frame: &mut Frame, packet: &Packet) -> Result<(), DropReason> {
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExpired);
    }
    let bytes = frame.bytes_mut().get_mut(packet.l3..).unwrap_or_default();
    if packet.version == 4 {
        ipv4::Packet::new_unchecked(bytes).decrement_ttl();
    } else {
        ipv6::Packet::new_unchecked(bytes).decrement_hop_limit();
    }
    Ok(())
}

/// Wrap the packet in the frame for the tunnel to `to`, out of the fabric's port.
pub(crate) fn wrap(
    context: &mut Context<'_>,
    frame: &mut Frame,
    work: &mut Work,
    to: &Endpoint,
) -> Result<u16, DropReason> {
    work.outer_dst = to.address;
    if context.faults.strikes(FaultKind::EncapFail) {
        return Err(DropReason::TunnelEncapFail);
    }
    let local = context.tables.local;
    if is_v4(local) != is_v4(to.address) {
        return Err(DropReason::TunnelEncapFail);
    }
    let port = context.tables.port(FABRIC).ok_or(DropReason::NoRoute)?;
    let next_hop = port.next_hop_mac.ok_or(DropReason::NoRoute)?;
    let packet = &work.packet;
    let inner_len = packet.len();
    let ip_len = outer_len(local);
    let tunnel_len = to.encap.overhead(to.key);
    let length = ethernet::HEADER_LEN + ip_len + tunnel_len + inner_len;
    fits(length, port)?;
    frame.set_len(packet.end);
    frame.trim_front(packet.l3);
    let headers = frame.prepend(length - inner_len).ok_or(DropReason::TunnelEncapFail)?;
    let (link, rest) = headers.split_at_mut_checked(ethernet::HEADER_LEN).ok_or(DropReason::TunnelEncapFail)?;
    let (network, tunnel) = rest.split_at_mut_checked(ip_len).ok_or(DropReason::TunnelEncapFail)?;
    let entropy = entropy(packet);
    let protocol = to.encap.protocol(packet.version);
    let payload_len = tunnel_len + inner_len;
    let outer_type = ethertype(if is_v4(local) { 4 } else { 6 });
    let link = ethernet::Repr { dst: next_hop, src: port.mac, ethertype: outer_type }.emit(link);
    let network = if is_v4(local) {
        let (src, dst) = (to_v4(local), to_v4(to.address));
        ipv4::Repr { src, dst, protocol, ttl: OUTER_TTL, tos: packet.tos, payload_len }.emit(network)
    } else {
        let repr = ipv6::Repr {
            src: to_v6(local),
            dst: to_v6(to.address),
            protocol,
            hop_limit: OUTER_TTL,
            traffic_class: packet.tos,
            flow_label: entropy as u32,
            payload_len,
        };
        repr.emit(network)
    };
    let tunnel = emit(tunnel, to, packet.version, inner_len, entropy);
    link.and(network).and(tunnel).map_err(|_| DropReason::TunnelEncapFail)?;
    if !is_v4(local) && to.encap.wants_checksum() {
        let datagram = frame.bytes_mut().get_mut(ethernet::HEADER_LEN + ip_len..).unwrap_or_default();
        let pseudo = Sum::pseudo_v6(to_v6(local), to_v6(to.address), protocol::UDP, payload_len);
        udp::Packet::new_unchecked(datagram).fill_checksum(pseudo);
    }
    Ok(FABRIC)
}

/// Write what stands between the outer IP header and the packet.
fn emit(buffer: &mut [u8], to: &Endpoint, version: u8, inner_len: usize, entropy: u64) -> tgw_wire::Result<()> {
    let protocol = ethertype(version);
    let src_port = FIRST_PORT | entropy as u16 & (FIRST_PORT ^ u16::MAX);
    let vni = to.key.unwrap_or(0);
    match to.encap {
        Encap::Gre => gre::Repr { protocol, key: to.key }.emit(buffer),
        Encap::GreUdp => gre_udp::Repr { src_port, gre: gre::Repr { protocol, key: to.key }, inner_len }.emit(buffer),
        Encap::Ipip => Ok(()),
        Encap::Vxlan => {
            let rest = datagram(buffer, src_port, vxlan::PORT, inner_len)?;
            let (tunnel, link) = rest.split_at_mut_checked(vxlan::HEADER_LEN).ok_or(tgw_wire::Error::Truncated)?;
            vxlan::Repr { vni }.emit(tunnel)?;
            ethernet::Repr { dst: INNER_DST, src: INNER_SRC, ethertype: protocol }.emit(link)
        }
        Encap::Gue => {
            let rest = datagram(buffer, src_port, gue::PORT, inner_len)?;
            gue::Repr { protocol: ipip::protocol_of(version), key: to.key }.emit(rest)
        }
        Encap::Geneve => {
            let rest = datagram(buffer, src_port, geneve::PORT, inner_len)?;
            geneve::Repr { protocol, vni }.emit(rest)
        }
    }
}

/// Write a UDP header without a checksum to the front of `buffer`: what follows it there.
fn datagram(buffer: &mut [u8], src_port: u16, dst_port: u16, inner_len: usize) -> tgw_wire::Result<&mut [u8]> {
    let (header, rest) = buffer.split_at_mut_checked(udp::HEADER_LEN).ok_or(tgw_wire::Error::Truncated)?;
    let payload_len = rest.len() + inner_len;
    udp::Repr { src_port, dst_port, payload_len, checksum: 0 }.emit(header)?;
    Ok(rest)
}

/// What spreads tunnels over the paths of the fabric, and over the LDs: the flow inside. Fragments of a packet must stay
/// together, and only the first knows its ports.
fn entropy(packet: &Packet) -> u64 {
    let tuple = match packet.part {
        Part::Whole => packet.tuple,
        Part::First | Part::Later => Tuple { src_port: 0, dst_port: 0, ..packet.tuple },
    };
    tuple.hash(ENTROPY_SEED)
}

const fn outer_len(local: u128) -> usize {
    if is_v4(local) {
        ipv4::HEADER_LEN
    } else {
        ipv6::HEADER_LEN
    }
}

/// Bytes of the largest packet that fits through the tunnel to `to`; everything does where there is no port to leave by,
/// which is another matter.
pub(crate) fn room(tables: &Tables, to: &Endpoint) -> usize {
    let overhead = outer_len(tables.local) + to.encap.overhead(to.key);
    tables.port(FABRIC).map_or(usize::MAX, |port| usize::from(port.mtu).saturating_sub(overhead))
}

/// Send the packet plain out of `port` to the neighbour `dst`.
pub(crate) fn deliver(frame: &mut Frame, work: &Work, port: &Port, dst: Option<Mac>) -> Result<u16, DropReason> {
    let packet = &work.packet;
    let dst = dst.ok_or(DropReason::NoRoute)?;
    fits(ethernet::HEADER_LEN + packet.len(), port)?;
    frame.set_len(packet.end);
    frame.trim_front(packet.l3);
    let link = frame.prepend(ethernet::HEADER_LEN).ok_or(DropReason::NoRoute)?;
    let repr = ethernet::Repr { dst, src: port.mac, ethertype: ethertype(packet.version) };
    repr.emit(link).map_err(|_| DropReason::NoRoute)?;
    Ok(port.index)
}

fn fits(length: usize, port: &Port) -> Result<(), DropReason> {
    if length > usize::from(port.mtu) + ethernet::HEADER_LEN {
        return Err(DropReason::MtuExceeded);
    }
    Ok(())
}

const fn ethertype(version: u8) -> u16 {
    if version == 4 {
        ethernet::IPV4
    } else {
        ethernet::IPV6
    }
}
